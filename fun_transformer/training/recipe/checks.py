"""What a recipe may hold: types and limits of every field, and what depends on more than one of them.

`check` is the one gate: the command line passes through it, and so do arguments made in Python.
"""

import dataclasses
import difflib
import math
import os
import re
from importlib.util import find_spec
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import sacrebleu
from transformers.utils import logging

from ...plugins import load_plugins
from ..tables import METRICS, OBJECTIVES
from .arguments import AUTO, SPLITS, DataArguments, LoraArguments, RunArguments, SplitArguments, TrainingArguments
from .base import check_beside_path, model_name, resolve_path, starts_from_model
from .defaults import LIMITS, chosen_fields
from .model_config import LOSS_OPTIONS, choose_config, mixing_config, model_type_of, recipe_fields
from .names import flatten, known_arguments, shown, unknown_argument

logger = logging.get_logger(__name__)

LARGEST = 10**12  # of any number, where a field has no other limit
MODEL_LIMITS = {  # what no model that can be trained comes near, by the ends of the fields' names
    "d_model": 65_536,
    "layers": 1_000,
    "heads": 4_096,
    "ffn_dim": 1_048_576,
    "vocab_size": 10_000_000,
    "max_position_embeddings": 10_000_000,
    "kernel_size": 65_536,
}
WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def convert(value: Any, kind: Any, name: str, auto: bool = False) -> Any:
    """Return a value as the type of its field.

    Args:
        value: As it was read, or given in Python.
        kind: The type.
        name: Of the field, for the errors.
        auto: Whether the field accepts the word "auto".

    Raises:
        ValueError: The value has another type, or is none of a Literal's.
    """
    if isinstance(value, np.generic):  # a number that was computed
        value = value.item()
    if kind is Any or (auto and isinstance(value, str) and value == AUTO):
        return value
    origin, options = get_origin(kind), get_args(kind)
    if origin is Literal:
        return one_of(value, (*([AUTO] if auto else []), *options), name)
    if origin is list:
        return convert_list(value, options[0], name)
    if origin in (Union, UnionType):
        if value is None and NoneType in options:
            return None
        kinds = [option for option in options if option is not NoneType]
        matching = [option for option in kinds if isinstance(option, type) and isinstance(value, option)]
        return convert(value, (matching or kinds)[0], name, auto)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        check_limits(value, {}, name)
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():  # 1e5 steps
        return int(value)
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        hint = " Put it in quotes." if kind is str and value is not None else ""
        words = WORDS.get(kind, f"of the kind {getattr(kind, '__name__', kind)}")
        raise ValueError(f"{name} must be {words}{' or auto' * auto}, got {shown(value)}.{hint}")
    return value


def one_of(value: Any, allowed: tuple[str, ...], name: str) -> Any:
    """Return a value that is allowed.

    Raises:
        ValueError: It is not, with the nearest one that is.
    """
    if value in allowed:
        return value
    near = difflib.get_close_matches(shown(value).strip("'"), allowed, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {shown(value)}.{hint}")


def convert_list(value: Any, kind: Any, name: str) -> list[Any]:
    """Return a value as a list of a type; text is cut at its commas (`--generation.metrics bleu,chrf`)."""
    if isinstance(value, bool) and get_origin(kind) is Literal:  # --data.clean true
        return list(get_args(kind)) if value else []
    items = [item for item in value.split(",") if item.strip()] if isinstance(value, str) else value
    items = [] if items is None else items  # null is off
    if not isinstance(items, list | tuple):
        raise ValueError(f"{name} must be a list, got {shown(value)}.")
    if not dataclasses.is_dataclass(kind):
        return [convert(item.strip() if isinstance(item, str) else item, kind, name) for item in items]
    section: type = kind  # type: ignore[assignment]
    converted = []
    for number, item in enumerate(items):
        try:
            if not isinstance(item, section):
                item = section(**flatten(item, known_arguments(section)))
            converted.append(convert_fields(item))
        except ValueError as error:
            raise ValueError(f"{name}[{number}]: {error}") from error
    return converted


def check_limits(value: Any, limits: dict[str, float], name: str) -> None:
    """Refuse a number outside its field's limits.

    Raises:
        ValueError: Naming the limit.
    """
    if not isinstance(value, int | float):
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value}.")
    rules = {
        "minimum": ("at least", lambda limit: value >= limit),
        "maximum": ("at most", lambda limit: value <= limit),
        "above": ("greater than", lambda limit: value > limit),
        "below": ("less than", lambda limit: value < limit),
    }
    for rule, limit in ({"minimum": -LARGEST, "maximum": LARGEST} | limits).items():
        words, holds = rules[rule]
        if not holds(limit):
            raise ValueError(f"{name} must be {words} {limit:,}, got {shown(value)}.")


def convert_fields(section: Any, prefix: str = "") -> Any:
    """Return a copy of a section of the recipe whose values have the types and limits of their fields.

    Raises:
        ValueError: A value does not fit.
    """
    values: dict[str, Any] = {}
    hints = get_type_hints(type(section))
    for item in dataclasses.fields(section):
        name, kind, value = prefix + item.name, hints[item.name], getattr(section, item.name)
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, kind):  # type: ignore[arg-type]
                raise ValueError(f"{name} must be a {kind.__name__}, got {shown(value)}.")  # type: ignore[union-attr]
            values[item.name] = convert_fields(value, name + ".")
        elif name == "model":
            values["model"] = dict(convert(value, dict, name))
        else:
            values[item.name] = convert(value, kind, name, bool(item.metadata.get("auto")))
            check_limits(values[item.name], item.metadata.get("limits", {}), name)
    return dataclasses.replace(section, **values)


def fix_paths(arguments: RunArguments) -> None:
    """Make paths independent of the working directory: the run's recipe.yaml is read elsewhere.

    Raises:
        ValueError: One of the section `model` is no text.
    """
    for name in arguments.model.keys() & {"config", "model_type", "path", "revision"}:
        arguments.model[name] = convert(arguments.model[name], str | None, f"model.{name}")
    arguments.plugins = [str(Path(path).resolve()) for path in arguments.plugins]
    if arguments.generation.config is not None:
        arguments.generation.config = str(Path(arguments.generation.config).resolve())
    if arguments.model.get("config") is not None:
        arguments.model["config"] = str(Path(arguments.model["config"]).resolve())
    if starts_from_model(arguments):
        arguments.model["path"] = resolve_path(arguments.model["path"])
        if arguments.output_dir is None:
            arguments.output_dir = f"runs/{Path(model_name(arguments.model['path'])).name}-fine-tuned"
    for name in ("init_from", "teacher"):
        setattr(arguments.training, name, [*map(resolve_run, getattr(arguments.training, name))])


def resolve_run(path: str) -> str:
    """Return the model's folder where a run's folder is named; any other path as it is."""
    is_run = (Path(path) / "run.json").is_file() and (Path(path) / "model" / "config.json").is_file()
    return str(Path(path) / "model") if is_run else path


def drop_targets(arguments: RunArguments) -> None:
    """Give language models, which have no target, the source in its place, and say so where a target is named."""
    for name in SPLITS:
        for number, split in enumerate(getattr(arguments.data, name).corpora):
            place = f"data.{name}.mix[{number}]" if getattr(arguments.data, name).mix else f"data.{name}"
            if split.target not in (None, split.source):
                logger.warning(
                    f"{place}.target={split.target} is not read: objective: {arguments.objective} learns from the "
                    "sources alone."
                )
            if split.target_column not in (SplitArguments.target_column, split.source_column):
                logger.warning(
                    f"{place}.target_column={split.target_column} is not read: objective: {arguments.objective} "
                    "learns from the sources alone."
                )
            split.target, split.target_column = split.source, split.source_column
            split.references_column = []


def check_split(split: SplitArguments, name: str, tags_languages: bool) -> None:
    """Check where the rows of a split come from.

    Raises:
        ValueError: Too little or too much is named.
    """
    if split.mix and (split.dataset or split.source or split.target):
        raise ValueError(f"data.{name} names a mix and another origin. Put that into the mix, too.")
    for number, corpus in enumerate(split.corpora):
        place = f"data.{name}.mix[{number}]" if split.mix else f"data.{name}"
        if split.mix and (corpus.mix or not corpus.is_named):
            raise ValueError(f"{place} must name a dataset, or source and target.")
        if corpus.dataset and (corpus.source or corpus.target):
            raise ValueError(f"{place} names a dataset and text files. Keep dataset, or source and target.")
        if bool(corpus.source) != bool(corpus.target):
            missing = "target" if corpus.source else "source"
            raise ValueError(f"{place}.{missing} is missing: text files come in line-aligned pairs.")
        if tags_languages and split.is_named and not corpus.tgt_lang:
            raise ValueError(f"{place}.tgt_lang is missing: data.train has several target languages.")
        if corpus.tgt_lang and not re.fullmatch(r"[\w-]+", corpus.tgt_lang):
            raise ValueError(f"{place}.tgt_lang={corpus.tgt_lang} is no language. Give a code such as en or zh_Hant.")


def check_noise(arguments: RunArguments) -> None:
    """Check whether and how sources may have mistakes.

    Raises:
        ValueError: The objective's targets would no longer fit, or a row would have several letter cases.
    """
    noise = arguments.data.noise
    if noise.is_on and not OBJECTIVES[arguments.objective].takes_noise:
        able = [name for name, other in OBJECTIVES.items() if other.takes_noise]
        raise ValueError(
            f"data.noise is for objective: {' or '.join(able)}, got {arguments.objective}, whose labels belong to the "
            "words of the source. Leave it out."
        )
    if (cases := noise.upper + noise.lower + noise.title) > 1:
        raise ValueError(
            f"data.noise: upper, lower and title are {cases:g} together, but a row has one of them. Make it at most 1."
        )


def check_columns(data: DataArguments, training: TrainingArguments) -> None:
    """Check features, which all splits have as train or a corpus of it has, and where references come from.

    Raises:
        ValueError: Naming the section.
    """
    features = sorted({column for corpus in data.train.corpora for column in corpus.feature_columns})
    if features and (training.lora.r is not None or "embeddings" in training.freeze):
        option = "training.lora" if training.lora.r is not None else "training.freeze"
        raise ValueError(
            f"data.train.feature_columns: {option} leaves the embeddings as they are, and tags would not be learned. "
            "Leave one of them out."
        )
    known = [features, *(sorted(set(corpus.feature_columns)) for corpus in data.train.corpora)]
    for name in SPLITS:
        for corpus in getattr(data, name).corpora:
            for option in ("references_column", "feature_columns"):
                if getattr(corpus, option) and (corpus.source or (corpus.dataset or "").startswith("builtin:")):
                    raise ValueError(f"data.{name}.{option}: {corpus} has no further columns. Leave it out.")
            if name != "train" and corpus.is_named and (found := sorted(set(corpus.feature_columns))) not in known:
                named = list(dict.fromkeys(", ".join(columns) or "none" for columns in known))
                raise ValueError(
                    f"data.{name}.feature_columns must name the same columns as data.train: "
                    f"{' or '.join(named)}, got {', '.join(found) or 'none'}."
                )


def check_sides(arguments: RunArguments) -> None:
    """Refuse a corpus whose source and target are one column.

    Raises:
        ValueError: Naming it.
    """
    for name in SPLITS if OBJECTIVES[arguments.objective].has_targets else ():
        for corpus in getattr(arguments.data, name).corpora:
            is_built_in = (corpus.dataset or "builtin:").startswith("builtin:")
            if corpus.source_column == corpus.target_column and not is_built_in and not corpus.references_column:
                raise ValueError(
                    f"data.{name}: source_column and target_column are both {corpus.source_column}, so that a model "
                    "would learn to copy. Name two columns; objective: denoising, masked_lm and causal_lm need one."
                )


def check_model(arguments: RunArguments) -> None:
    """Check the names and values of the section `model`, and which of them are "auto".

    Raises:
        ValueError: A name is not known, its value does not fit, or is not ours to choose.
    """
    known = known_arguments()
    for name in arguments.model:
        if f"model.{name}" not in known:
            raise unknown_argument(f"model.{name}", known)
    if starts_from_model(arguments):
        check_beside_path(arguments)
        return
    for name in ("revision", "trust_remote_code"):
        if arguments.model.get(name):
            raise ValueError(f"model.{name} is for a model that is loaded. Name it in model.path, or leave it out.")
    path = arguments.model.get("config")
    if path is not None and not Path(path).is_file():
        raise ValueError(f"model.config: there is no file {path}.")
    allowed = chosen_fields(model_type_of(arguments))
    for name, value in arguments.model.items():
        if value == AUTO and name not in allowed:
            raise ValueError(
                f"model.{name} cannot be auto. Give a value or leave it out; auto is for {', '.join(sorted(allowed))}."
            )
    check_model_values(arguments)


def check_model_values(arguments: RunArguments) -> None:
    """Check types and sizes of the model's fields, those of `model.config` included; sizes that are whole become int.

    Raises:
        ValueError: A value does not fit.
    """
    config_class = choose_config(model_type_of(arguments), arguments.model)
    kinds = config_class.__annotations__  # of its own fields; those of transformers are for transformers to check
    for name, value in recipe_fields(arguments).items():
        if name not in kinds or name.endswith("token_id") or value == AUTO:  # the tokenizer says the ids
            continue
        value = convert(value, kinds[name], f"model.{name}")
        limits = [limit for end, limit in MODEL_LIMITS.items() if name.endswith(end)]
        check_limits(value, {"maximum": limits[0]} if limits else {}, f"model.{name}")
        if name in arguments.model:
            arguments.model[name] = value
    mixing_config(arguments)


def check_scores(arguments: RunArguments) -> None:
    """Check what is measured, and what chooses the best model.

    Raises:
        ValueError: A metric is not known, or is not measured.
    """
    training, objective = arguments.training, OBJECTIVES[arguments.objective]
    of_texts = [name for name, metric in METRICS.items() if metric.compares_texts]
    generation = arguments.generation
    if generation.metrics == AUTO:  # it will be what the texts ask for, and what chooses the best model
        generation = dataclasses.replace(generation, metrics=of_texts)
    for name in generation.metrics:
        one_of(name, tuple(of_texts), "generation.metrics")
    measured = ["loss", *objective.measured(generation)]
    if training.metric_for_best_model not in measured:
        can_measure = training.metric_for_best_model in of_texts and objective.generates
        hint = "Add it to generation.metrics, or choose" if can_measure else "Choose"
        raise ValueError(
            f"training.metric_for_best_model={training.metric_for_best_model} is not measured. {hint} one of "
            f"{', '.join(measured)}."
        )
    tokenize = arguments.generation.bleu_tokenize
    if tokenize.endswith("mecab"):
        try:
            sacrebleu.BLEU(tokenize=tokenize)
        except (ImportError, RuntimeError) as error:
            raise ValueError(
                f"generation.bleu_tokenize={tokenize} needs what is not installed: "
                f"pip install 'sacrebleu[{tokenize[:2]}]'. Or choose char, which counts characters."
            ) from error
    METRICS[training.metric_for_best_model]  # a plug-in's objective may measure what nothing describes


def check_objective(arguments: RunArguments) -> None:
    """Check the options that only some objectives have.

    Raises:
        ValueError: This one does not have them.
    """
    training, objective = arguments.training, OBJECTIVES[arguments.objective]
    packing = training.packing not in (None, AUTO)
    for option in LOSS_OPTIONS:
        if not getattr(training, option):
            continue
        if option not in objective.options:
            able = [name for name, other in OBJECTIVES.items() if option in other.options]
            raise ValueError(
                f"training.{option} is for objective: {' or '.join(able)}, got {arguments.objective}. Leave it out."
            )
        if packing:
            raise ValueError(f"training.{option} reads padded rows. Leave it out, or make training.packing null.")
    if packing and not objective.can_pack:
        able = [name for name, other in OBJECTIVES.items() if other.can_pack]
        raise ValueError(
            f"training.packing is for objective: {' or '.join(able)}, got {arguments.objective}. Leave it out."
        )
    if arguments.tokenizer.target_vocab_size is not None and not objective.has_targets:
        raise ValueError(
            f"tokenizer.target_vocab_size: objective: {arguments.objective} has no target beside its texts, which "
            "have one vocabulary. Leave it out."
        )


def check_sources(arguments: RunArguments) -> None:
    """Check the options about sources, which are texts or files of one kind.

    Raises:
        ValueError: An option is for sources of another kind.
    """
    data, training, tokenizer = arguments.data, arguments.training, arguments.tokenizer
    modality = OBJECTIVES[arguments.objective].modality
    said = modality if starts_from_model(arguments) else recipe_fields(arguments).get("source_modality", modality)
    if said != modality:
        able = [name for name, other in OBJECTIVES.items() if other.modality == said] or [*OBJECTIVES]
        raise ValueError(
            f"model.source_modality={said} is not for objective: {arguments.objective}, whose source is {modality}. "
            f"Choose objective: {' or '.join(able)}."
        )
    if data.curriculum != "none" and training.packing not in (None, AUTO):
        raise ValueError(
            f"data.curriculum: {data.curriculum} orders rows of one text, and packed rows have several. Leave one of "
            "data.curriculum and training.packing out."
        )
    if data.spec_augment and modality != "speech":
        raise ValueError(f"data.spec_augment is for speech, and the source of {arguments.objective} is {modality}.")
    if modality == "text":
        return
    if not starts_from_model(arguments) and model_type_of(arguments) != "fun_transformer":
        raise ValueError(f"model.model_type={model_type_of(arguments)} reads text alone. Leave it out.")
    of_texts = {
        "data.source_prefix": data.source_prefix,
        "data.clean": data.clean,
        "data.train.feature_columns": any(corpus.feature_columns for corpus in data.train.corpora),
        "data.train.source": any(corpus.source for corpus in data.train.corpora),
        "data.train.tgt_lang": data.tags_languages,
        "tokenizer.target_type": tokenizer.target_type,
        "tokenizer.target_vocab_size": tokenizer.target_vocab_size,
        "training.bpe_dropout": training.bpe_dropout,
        "training.source_vectors": training.source_vectors,
    }
    for name, value in of_texts.items():
        if value:
            raise ValueError(
                f"{name} is for sources of text, and those of objective: {arguments.objective} are files, named in a "
                "column of data.train.dataset. Leave it out."
            )


def check_trained(arguments: RunArguments) -> None:
    """Check what is trained of a model: LoRA, and tokens that are added to it.

    Raises:
        ValueError: Something is missing, or does not fit together.
    """
    lora, tokenizer = arguments.training.lora, arguments.tokenizer
    has_path = arguments.model.get("path") is not None
    named = [name for name, value in vars(lora).items() if value != getattr(LoraArguments(), name)]
    if lora.r is None and named:
        raise ValueError(f"training.lora.{named[0]} is named, but not the rank. Give training.lora.r, such as 16.")
    if lora.r is not None and not has_path:
        raise ValueError("training.lora adapts a trained model. Name one, model.path, or leave training.lora out.")
    if lora.r is not None and find_spec("peft") is None:
        raise ValueError("training.lora needs peft, which is not installed: pip install 'fun-transformer[lora]'")
    if lora.r is not None and not lora.merge and OBJECTIVES[arguments.objective].predicts:
        raise ValueError(
            f"objective: {arguments.objective} gives the model labels, which an adapter for its base has no place "
            "for: write a whole model: training.lora.merge: true."
        )
    for name in ("new_tokens", "new_languages"):
        if not getattr(tokenizer, name):
            continue
        if not has_path:
            raise ValueError(
                f"tokenizer.{name} are added to the tokenizer of a trained model. Name one, model.path, or leave "
                f"tokenizer.{name} out."
            )
        if lora.r is not None and not lora.merge:
            raise ValueError(
                f"tokenizer.{name} give the model new rows, which an adapter for its base has no place for. Write a "
                "whole model: training.lora.merge: true."
            )


def check_together(arguments: RunArguments) -> None:
    """Check what depends on more than one field.

    Raises:
        ValueError: Naming the fields and how to fix them.
    """
    data, training = arguments.data, arguments.training
    if not data.train.is_named:
        raise ValueError("No training data: give data.train.dataset, or data.train.source and data.train.target.")
    for name in SPLITS:
        check_split(getattr(data, name), name, data.tags_languages)
    check_columns(data, training)
    check_sides(arguments)
    check_noise(arguments)
    if training.num_train_epochs is None and all(getattr(training, name) in (AUTO, None) for name in LIMITS):
        raise ValueError("Training would never end: give training.max_steps, max_minutes or num_train_epochs.")
    asked = [f"training.{name}" for name in LOSS_OPTIONS if getattr(training, name)]
    if len(asked) > 1:
        raise ValueError(f"{' and '.join(asked)} exclude each other. Leave one out.")
    if training.teacher_weight != TrainingArguments().teacher_weight and not training.teacher:
        raise ValueError("training.teacher_weight is named, but no teacher. Give training.teacher: MODEL.")
    starts = ("init_from", "a folder"), ("source_vectors", "a file"), ("target_vectors", "a file")
    for name, kind in starts if arguments.resume == "no" else ():  # a resumed run has what it began with
        value = getattr(training, name)
        for path in value if isinstance(value, list) else [value] * (value is not None):
            if not (Path(path).is_dir() if kind == "a folder" else Path(path).is_file()):
                raise ValueError(f"training.{name}={path} is not {kind}.")
    path = arguments.generation.config
    if path is not None and not Path(path).is_file():
        raise ValueError(f"generation.config: there is no file {path}.")


def check(arguments: RunArguments) -> RunArguments:
    """Load the plug-ins of a recipe, then check all of it, wherever it was made.

    Args:
        arguments: From the command line or made in Python; they are left as they are.

    Returns:
        A copy whose values have the types of their fields: 1e5 steps are a whole number, a path is text.

    Raises:
        ValueError: Naming what does not fit and how to fix it.
        TypeError: The arguments are something else.
    """
    if not isinstance(arguments, RunArguments):
        raise TypeError(
            f"A recipe in Python is a RunArguments, got {shown(arguments)}. Read a file with parse_arguments."
        )
    arguments = convert_fields(arguments)
    fix_paths(arguments)
    load_plugins(arguments.plugins)
    one_of(arguments.objective, tuple(OBJECTIVES), "objective")
    if not OBJECTIVES[arguments.objective].has_targets:
        drop_targets(arguments)
    check_model(arguments)
    check_together(arguments)
    check_trained(arguments)
    check_scores(arguments)
    check_objective(arguments)
    check_sources(arguments)
    return arguments
