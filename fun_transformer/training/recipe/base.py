"""The trained model that a recipe starts from: `model.path`, a folder or a name on the Hub, of any family.

Its config says what it is, so a recipe that names it says nothing else of the model but what `BESIDE_PATH` lists. What
can be refused is refused here, before data are read: no such model, a family that transformers does not know, a model
that cannot learn the objective.
"""

import difflib
import functools
import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import logging

from ... import FunTransformerConfig, Seq2SeqRNNConfig
from ..tables import OBJECTIVES
from .arguments import RunArguments, TokenizerArguments

logger = logging.get_logger(__name__)

BESIDE_PATH = ("path", "revision", "trust_remote_code", "dropout", "label_smoothing")  # of the section `model`
DROPOUT_NAMES = ("dropout", "dropout_rate", "hidden_dropout_prob", "resid_pdrop")  # what families call dropout
WEIGHTS = ("*.safetensors", "*.bin")
OWN = (FunTransformerConfig, Seq2SeqRNNConfig)


def starts_from_model(arguments: RunArguments) -> bool:
    """Return whether the recipe names a trained model to start from."""
    return arguments.model.get("path") is not None


def source_of(arguments: RunArguments) -> dict[str, Any]:
    """Return the keyword arguments that `from_pretrained` takes beside the name of the recipe's model."""
    model = arguments.model
    return {"revision": model.get("revision") or "main", "trust_remote_code": bool(model.get("trust_remote_code"))}


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter, and its model is another one."""
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def resolve_path(path: str) -> str:
    """Return the folder of a model, whole, or a name of the Hub as it is; of a run's folder, that of its model."""
    folder = Path(path)
    if not folder.is_dir():
        return path
    inside = folder / "model"
    is_run = not (folder / "config.json").is_file() and ((inside / "config.json").is_file() or is_adapter(inside))
    return str((folder / "model" if is_run else folder).resolve())


def model_name(path: str) -> str:
    """Return what a model is called, without the folders of this machine; a run's model has the run's name."""
    folder = Path(path)
    if not folder.is_dir():
        return path
    return folder.parent.name if folder.name == "model" and (folder.parent / "run.json").exists() else folder.name


@functools.lru_cache
def _config_of_hub(path: str, revision: str, trust_remote_code: bool) -> PreTrainedConfig:
    return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)


def base_config(arguments: RunArguments) -> PreTrainedConfig:
    """Return the config of the model that the recipe starts from; a folder's is read again, as it may change.

    Raises:
        ValueError: There is no such model, or its family is not known.
    """
    path, source = arguments.model["path"], source_of(arguments)
    try:
        if Path(path).is_dir():
            return AutoConfig.from_pretrained(path, **source)
        return _config_of_hub(path, **source)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(f"model.path={path}: {describe_failure(path, error)}") from error


def base_generation(arguments: RunArguments) -> GenerationConfig:
    """Return how the model that the recipe starts from generates."""
    path, source = arguments.model["path"], source_of(arguments)
    try:
        return GenerationConfig.from_pretrained(path, revision=source["revision"])
    except OSError:  # an older model says it in its config, or nowhere
        return GenerationConfig.from_model_config(base_config(arguments))


def describe_failure(path: str, error: Exception) -> str:
    """Say why a model's config cannot be read, and what to do."""
    folder, text = Path(path), str(error)
    if "trust_remote_code" in text:
        return "its code is in its repository. Read it there, then allow it to run: --model.trust_remote_code true."
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            if is_adapter(folder):
                return (
                    "it holds an adapter and not a whole model. Train it with training.lora.merge: true, or name the "
                    "model that it adapts."
                )
            return "there is no config.json. Name the folder of a model, or that of a finished run."
        try:
            family = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        except (ValueError, AttributeError, UnicodeDecodeError):
            return "its config.json is no JSON object. Put back a whole copy."
        return f"transformers does not know the family {family!r}: {text.splitlines()[0]}"
    if folder.is_absolute() or path.startswith((".", "~")) or (path.count("/") != 1 and "/" in path):
        return "there is no such folder."
    return f"it is no folder here, and cannot be had from the Hub: {text.splitlines()[0]}"


def is_own(config: PreTrainedConfig) -> bool:
    """Return whether a model is of a family of this package, whose loss and packed rows are ours."""
    return isinstance(config, OWN)


def class_for(arguments: RunArguments, config: PreTrainedConfig) -> type | None:
    """Return the class of transformers for this config that learns the objective; None where there is none."""
    mapping = OBJECTIVES[arguments.objective].model_class._model_mapping
    found = mapping.get(type(config), None)
    return found[0] if isinstance(found, list | tuple) else found


def has_remote_class(arguments: RunArguments, config: PreTrainedConfig) -> bool:
    """Return whether the model's own code has a class for the objective."""
    return OBJECTIVES[arguments.objective].model_class.__name__ in (getattr(config, "auto_map", None) or {})


def kind_of(config: PreTrainedConfig) -> str:
    """Say in words what a model is made of."""
    if config.is_encoder_decoder:
        return "an encoder and a decoder"
    names = config.architectures or []
    is_encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES or any("MaskedLM" in name for name in names)
    return "an encoder alone" if is_encoder and not any("CausalLM" in name for name in names) else "a decoder alone"


def fits(objective: str, config: PreTrainedConfig) -> bool:
    """Return whether models of a kind can learn an objective: their own task, or labels."""
    wanted = {"masked_lm": "an encoder alone", "causal_lm": "a decoder alone"}
    wanted |= dict.fromkeys(("seq2seq", "denoising"), "an encoder and a decoder")
    if objective in wanted and not is_own(config):
        return kind_of(config) == wanted[objective]
    return True


def check_base(arguments: RunArguments) -> None:
    """Refuse a model that cannot be started from, before any data are read; nothing to do where none is named.

    Raises:
        ValueError: It is not there, has no weights, or cannot learn the objective.
    """
    if not starts_from_model(arguments):
        warn_of_new_tokenizer(arguments)
        return
    path = arguments.model["path"]
    config = base_config(arguments)
    if Path(path).is_dir() and not any(any(Path(path).glob(pattern)) for pattern in WEIGHTS):
        raise ValueError(f"model.path={path} has a config but no weights (model.safetensors). Put back a whole copy.")
    has_class = class_for(arguments, config) is not None or has_remote_class(arguments, config)
    if not has_class or not fits(arguments.objective, config):
        others = (name for name in ("seq2seq", "masked_lm", "causal_lm") if name in OBJECTIVES)
        able = [name for name in others if fits(name, config) and type(config) in _mapping(name)]
        hint = f"objective: {able[0]} fits it" if able else "no objective here fits it"
        raise ValueError(
            f"model.path={path} is a {config.model_type}, {kind_of(config)}, and cannot learn objective: "
            f"{arguments.objective}; {hint}. Name another model, or another objective."
        )
    modality, wanted = getattr(config, "source_modality", "text"), OBJECTIVES[arguments.objective].modality
    if modality != wanted:
        able = [name for name, other in OBJECTIVES.items() if other.modality == modality]
        raise ValueError(
            f"model.path={path} reads {modality}, and objective: {arguments.objective} gives it {wanted}. Choose "
            f"objective: {' or '.join(able)}, or another model."
        )
    if "dropout" in arguments.model and dropout_name(config) is None:
        raise ValueError(f"model.dropout: a {config.model_type} has no dropout. Leave it out.")


def _mapping(objective: str) -> Any:
    return OBJECTIVES[objective].model_class._model_mapping


def dropout_name(config: PreTrainedConfig) -> str | None:
    """Return what the model's config calls dropout; None where it has none."""
    return next((name for name in DROPOUT_NAMES if hasattr(config, name)), None)


def check_beside_path(arguments: RunArguments) -> None:
    """Check that a recipe that names a trained model says nothing that this model says itself.

    Raises:
        ValueError: Naming what is to be left out.
    """
    path, training = arguments.model["path"], arguments.training
    if not isinstance(path, str) or not path.strip():
        raise ValueError(f"model.path must be a folder or a name of the Hub, got {path!r}.")
    if not isinstance(arguments.model.get("trust_remote_code", False), bool):
        raise ValueError(
            f"model.trust_remote_code must be true or false, got {arguments.model['trust_remote_code']!r}."
        )
    for name, most in (("dropout", 1), ("label_smoothing", 1)):
        value = arguments.model.get(name, 0)
        if value not in (None, "auto") and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"model.{name} must be a number, got {value!r}.")
        if isinstance(value, int | float) and not 0 <= value < most:
            raise ValueError(f"model.{name} must be in [0, 1), got {value}.")
    for name in sorted(set(arguments.model) - set(BESIDE_PATH)):
        near = difflib.get_close_matches(name, BESIDE_PATH, n=1)
        hint = f" Did you mean model.{near[0]}?" if near else ""
        raise ValueError(
            f"model.path={path} brings its own config, and model.{name} is another one's. Leave out one of them.{hint}"
        )
    if arguments.tokenizer.path is not None:
        raise ValueError(
            f"model.path={path} brings its own tokenizer, and tokenizer.path={arguments.tokenizer.path} is another "
            "one. Leave tokenizer.path out."
        )
    defaults = vars(TokenizerArguments())
    defaults |= {name: getattr(arguments.tokenizer, name) for name in ("new_tokens", "new_languages")}  # beside a path
    named = [name for name, value in vars(arguments.tokenizer).items() if value != defaults[name]]
    if named:
        raise ValueError(
            f"model.path={path} brings its own tokenizer, which is not trained again. Leave tokenizer.{named[0]} out."
        )
    for name in ("init_from", "source_vectors", "target_vectors"):
        if getattr(training, name):
            raise ValueError(f"model.path={path} brings its own weights. Leave training.{name} out.")


def warn_of_new_tokenizer(arguments: RunArguments) -> None:
    """Say what goes on with a whole model, where a recipe takes its weights but trains another tokenizer."""
    training = arguments.training
    if training.init_from and not arguments.tokenizer.path and arguments.resume == "no":
        logger.warning(
            f"training.init_from={training.init_from[0]} gives weights, but a new tokenizer is trained: embeddings "
            "of tokens that it does not share with the old one begin at random. To go on with the whole model and its "
            f"tokenizer, use --model.path {training.init_from[0]} instead."
        )
