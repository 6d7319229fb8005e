"""What a recipe says of its model, and what follows for precision, attention kernel and packed rows."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForSeq2SeqLM, PreTrainedConfig

from ... import FunTransformerConfig, Seq2SeqRNNConfig
from ...configuration_fun_transformer import FRONT_END_FIELDS
from ...masks import PACKED_KERNELS, packing_problem
from ...number_types import has_fast_bfloat16
from ...positions import POSITIONS
from ..tables import OBJECTIVES
from .arguments import AUTO, DataArguments, RunArguments, TrainingArguments
from .base import base_config, class_for, is_own, starts_from_model

PACKING = {"cpu": 64, "cuda": 128}  # length of packed rows that trains fastest in bf16
LOSS_OPTIONS = ("r_drop", "scheduled_sampling", "teacher")  # of some objectives; all read padded rows
KEPT_FIELDS = ("position_embedding_type", "max_position_embeddings")
CONFIGS = {config.model_type: config for config in (FunTransformerConfig, Seq2SeqRNNConfig)}


def choose_config(model_type: str, fields: Iterable[str]) -> type[FunTransformerConfig | Seq2SeqRNNConfig]:
    """Return the config class of a kind of model.

    Args:
        model_type: The recipe's `model.model_type`, or that of its `model.config`.
        fields: What the recipe says of the model.

    Raises:
        ValueError: There is no such kind of model, or it has no such field.
    """
    if model_type not in CONFIGS:
        raise ValueError(f"model.model_type={model_type} is not known. Choose one of {', '.join(CONFIGS)}.")
    config_class = CONFIGS[model_type]
    known = {field.name for field in dataclasses.fields(config_class)} | {"config", "model_type"}
    if foreign := sorted(set(fields) - known):
        raise ValueError(
            f"model.{foreign[0]} is no field of a {model_type}. Leave it out, or choose another model.model_type: "
            f"{', '.join(set(CONFIGS) - {model_type})}."
        )
    return config_class


def recipe_fields(arguments: RunArguments) -> dict[str, Any]:
    """Return what the recipe says of the model, including what its `model.config` says."""
    fields = dict(arguments.model)
    path = fields.pop("config", None)
    return read_json(path, "model.config") | fields if path else fields


def read_json(path: str, name: str) -> dict[str, Any]:
    """Return the fields of a JSON file.

    Args:
        path: Of the file.
        name: What the recipe calls it, for the error.

    Raises:
        ValueError: It cannot be read, or is no JSON object.
    """
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{name}={path} cannot be read as JSON: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{name}={path} must hold a JSON object, {{...}}, not a {type(fields).__name__}.")
    return fields


def model_type_of(arguments: RunArguments) -> str:
    """Return the kind of model that the recipe trains."""
    if starts_from_model(arguments):
        return str(base_config(arguments).model_type)
    return str(recipe_fields(arguments).get("model_type") or "fun_transformer")


def mixing_config(arguments: RunArguments) -> PreTrainedConfig:
    """Return a config with the recipe's positions and types of layers; its sizes may not be the model's.

    Raises:
        ValueError: A field does not fit.
    """
    if starts_from_model(arguments):
        return base_config(arguments)
    fields = recipe_fields(arguments)
    config_class = choose_config(model_type_of(arguments), ())
    if config_class is not FunTransformerConfig:
        return config_class()
    asked: dict[str, Any] = {"sliding_window": 8}  # of any width
    asked |= {name: fields[name] for name in (*KEPT_FIELDS, *FRONT_END_FIELDS) if name in fields}
    asked["source_modality"] = OBJECTIVES[arguments.objective].modality
    for stack in ("encoder", "decoder"):
        if types := fields.get(f"{stack}_layer_types"):
            asked |= {f"{stack}_layer_types": types, f"{stack}_layers": len(types)}
    try:
        return config_class(**asked)
    except StrictDataclassError as error:
        raise ValueError(f"model: {error.__cause__ or error}") from error


def longest_text(config: PreTrainedConfig) -> int | None:
    """Return how many tokens of a text a model has positions for; None where there is no limit."""
    if not is_own(config):  # T5's distances have none; RoBERTa's positions begin after that of the padding
        positions = getattr(config, "max_position_embeddings", None)
        begins_late = "roberta" in config.model_type and positions is not None
        return positions - config.pad_token_id - 1 if begins_late else positions
    kind = getattr(config, "position_embedding_type", None)
    return POSITIONS[kind].longest_text(config) if kind else None


def limit_lengths(data: DataArguments, longest: int | None) -> DataArguments:
    """Return the section `data` with longer texts as bad rows: the model has no positions for them.

    Args:
        data: It is left as it is.
        longest: From `longest_text`.
    """
    if longest is None:
        return data
    limits = {name: min(getattr(data, name), longest) for name in ("max_source_tokens", "max_target_tokens")}
    return dataclasses.replace(data, **limits)


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 matrices faster than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and has_fast_bfloat16()


def choose_precision(training: TrainingArguments, device: torch.device) -> str:
    """Return the precision that the recipe names, or the fastest that is safe on a device."""
    if training.precision != AUTO:
        return training.precision
    return "bf16" if has_fast_bf16(device) else "fp32"


def choose_kernel(arguments: RunArguments, device: torch.device) -> str:
    """Return the attention kernel that the recipe names, or the fastest for its batches on a device."""
    if arguments.training.attn_implementation != AUTO:
        return arguments.training.attn_implementation
    if starts_from_model(arguments) and not is_own(config := base_config(arguments)):
        has_fused = getattr(class_for(arguments, config), "_supports_sdpa", False)
        return "sdpa" if has_fused and device.type != "cpu" else "eager"
    # Measured at sentence lengths on CPUs: step-by-step attention trains faster than the fused kernel in bf16, and as
    # fast in float32. RNNs have no other.
    return "eager" if device.type == "cpu" or model_type_of(arguments) == "seq2seq_rnn" else "sdpa"


def problem_with_kernel(arguments: RunArguments, device: torch.device, trains: bool) -> str | None:
    """Return why the attention kernel that a recipe names, and that exists here, cannot run; None where it can.

    Args:
        arguments: The recipe.
        device: Where the model runs.
        trains: Whether it is to learn there.
    """
    kernel, on_cpu = arguments.training.attn_implementation, device.type == "cpu"
    if kernel == "flex_attention" and trains and on_cpu:
        return "computes no gradients on a CPU"
    if kernel == "flex_attention" and trains and recipe_fields(arguments).get("attention_dropout"):
        return "cannot train with model.attention_dropout"
    if "flash" in kernel and on_cpu:
        return "does not run on a CPU"
    if "flash" in kernel and choose_precision(arguments.training, device) == "fp32":
        return "needs training.precision bf16 or fp16"
    positions = POSITIONS.get(getattr(mixing_config(arguments), "position_embedding_type", ""))
    if kernel not in PACKED_KERNELS and positions is not None and positions.overrides("bias"):
        return "adds no bias to the scores, as the recipe's model.position_embedding_type does"
    return None


def check_kernel(arguments: RunArguments, device: torch.device, trains: bool = True) -> None:
    """Refuse an attention kernel that the recipe names and that cannot run here, before anything is read or written.

    Its arguments are those of `problem_with_kernel`.

    Raises:
        ValueError: Naming the kernel, and those that can run.
    """
    kernel = arguments.training.attn_implementation
    if kernel == AUTO:
        return
    builder: Any = AutoModelForSeq2SeqLM
    if starts_from_model(arguments):
        config = base_config(arguments)
        builder = OBJECTIVES[arguments.objective].model_class if class_for(arguments, config) else None
    else:
        config = choose_config(model_type_of(arguments), ())()
    try:
        with torch.device("meta"):  # the model checks the name; no weight is made
            if builder is not None:  # code that comes with a model runs when the model is loaded
                builder.from_config(config, attn_implementation=kernel)
    except (ValueError, ImportError) as error:
        raise ValueError(f"training: {error}") from error
    if problem := problem_with_kernel(arguments, device, trains):
        raise ValueError(f"training.attn_implementation={kernel} {problem}. Choose one of eager, sdpa.")


def problem_with_packing(arguments: RunArguments, device: torch.device) -> str | None:
    """Return why the model or the kernel of a recipe cannot have packed rows; None where it can."""
    problem = packing_problem(mixing_config(arguments), choose_kernel(arguments, device))
    return problem and f"training.packing: {problem}"


def check_packing(arguments: RunArguments, device: torch.device) -> None:
    """Refuse packed rows where the model cannot have them, before anything is read or written.

    Raises:
        ValueError: Naming what does not fit.
    """
    if arguments.training.packing not in (None, AUTO) and (problem := problem_with_packing(arguments, device)):
        raise ValueError(problem)


def choose_packing(arguments: RunArguments, device: torch.device) -> int | None:
    """Return the length of packed rows that the recipe names, or the fastest; None where rows are padded.

    Rows are packed where bf16 is fast. There every new size of a batch costs a CPU and a GPU milliseconds, for the
    kernels that are made or chosen for it, and packed batches have one size only. In float32 CPUs have no such cost,
    and are faster without padding.
    """
    training = arguments.training
    if training.packing != AUTO:
        return training.packing
    if choose_precision(training, device) != "bf16" or device.type not in PACKING:
        return None
    objective = OBJECTIVES[arguments.objective]
    reads_padded = not objective.can_pack or any(getattr(training, name) for name in LOSS_OPTIONS)
    reads_padded = reads_padded or arguments.data.curriculum != "none"
    return None if reads_padded or problem_with_packing(arguments, device) else PACKING[device.type]
