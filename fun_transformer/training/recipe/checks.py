"""TODO recipe/checks."""

import re
from pathlib import Path

from .arguments import SPLITS, RunArguments, SplitArguments


def measured_scores(arguments: RunArguments) -> list[str]:
    """The scores that an evaluation gives beside the loss."""
    if arguments.objective == "seq2seq":
        return list(arguments.generation.metrics)
    return ["accuracy", "f1"] if arguments.objective.endswith("classification") else []


def drop_targets(arguments: RunArguments) -> None:
    """Language models have no target: the source stands in for it."""
    for name in SPLITS:
        for split in getattr(arguments.data, name).corpora:
            split.target, split.target_column = split.source, split.source_column


def check_split(split: SplitArguments, name: str, tags_languages: bool) -> None:
    """Checks where the rows of a split come from.

    Raises:
        ValueError: too little or too much is named.
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


def check_together(arguments: RunArguments) -> None:
    """Checks what depends on more than one field.

    Raises:
        ValueError: naming the fields and how to fix them.
    """
    data, training, generation = arguments.data, arguments.training, arguments.generation
    if not data.train.is_named:
        raise ValueError("No training data: give data.train.dataset, or data.train.source and data.train.target.")
    for name in SPLITS:
        check_split(getattr(data, name), name, data.tags_languages)
    if training.max_steps is None and training.max_minutes is None and training.num_train_epochs is None:
        raise ValueError("Training would never end: give training.max_steps, max_minutes or num_train_epochs.")
    measured = ["loss", *measured_scores(arguments)]
    if training.metric_for_best_model not in measured:
        hint = "Add it to generation.metrics, or choose" if arguments.objective == "seq2seq" else "Choose"
        raise ValueError(
            f"training.metric_for_best_model={training.metric_for_best_model} is not measured. {hint} one of "
            f"{', '.join(measured)}."
        )
    for name in ("r_drop", "scheduled_sampling"):
        if getattr(training, name) is not None and arguments.objective != "seq2seq":
            raise ValueError(f"training.{name} is for objective: seq2seq, got {arguments.objective}. Leave it out.")
        if getattr(training, name) is not None and training.packing:
            raise ValueError(f"training.{name} reads padded rows. Leave it out, or make training.packing null.")
    if training.packing and arguments.objective != "seq2seq":
        raise ValueError(f"training.packing is for objective: seq2seq, got {arguments.objective}. Leave it out.")
    if training.r_drop is not None and training.scheduled_sampling is not None:
        raise ValueError("training.r_drop and training.scheduled_sampling do not go together. Leave one out.")
    starts = ("init_from", "a folder"), ("source_vectors", "a file"), ("target_vectors", "a file")
    for name, kind in starts if arguments.resume == "no" else ():  # a resumed run has what it began with
        value = getattr(training, name)
        for path in value if isinstance(value, list) else [value] * (value is not None):
            if not (Path(path).is_dir() if kind == "a folder" else Path(path).is_file()):
                raise ValueError(f"training.{name}={path} is not {kind}.")
    for name, path in (("model.config", arguments.model.get("config")), ("generation.config", generation.config)):
        if path is not None and not Path(path).is_file():
            raise ValueError(f"{name}: there is no file {path}.")
