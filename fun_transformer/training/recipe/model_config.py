"""TODO recipe/model_config."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ... import FunTransformerConfig, Seq2SeqRNNConfig
from ...masks import PACKED_KERNELS, PACKED_TYPES
from .arguments import RunArguments

PACKING = {"cpu": 64, "cuda": 128}  # length of packed rows that trains fastest in bf16
CONFIGS = {config.model_type: config for config in (FunTransformerConfig, Seq2SeqRNNConfig)}


def choose_config(model_type: str, fields: Iterable[str]) -> type[FunTransformerConfig | Seq2SeqRNNConfig]:
    """The config class of a kind of model.

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
    """What the recipe says of the model, that of its `model.config` included."""
    fields = dict(arguments.model)
    path = fields.pop("config", None)
    return json.loads(Path(path).read_text(encoding="utf-8")) | fields if path else fields


def choose_kernel(arguments: RunArguments, device: torch.device) -> str:
    """The attention kernel that the recipe names, or the fastest for its batches on a device."""
    if arguments.training.attn_implementation:
        return arguments.training.attn_implementation
    # Measured at sentence lengths on CPUs: step-by-step attention trains faster than the fused kernel in bf16, and as
    # fast in float32.
    return "eager" if device.type == "cpu" else "sdpa"


def packing_problem(arguments: RunArguments, device: torch.device) -> str | None:
    """Why the model or the kernel of a recipe does not go with packed rows; None where they do."""
    fields, kernel = recipe_fields(arguments), choose_kernel(arguments, device)
    advice = "or make training.packing null"
    if (model_type := fields.get("model_type", "fun_transformer")) != "fun_transformer":
        return f"training.packing is for model.model_type: fun_transformer, got {model_type}. Make it null."
    for stack in ("encoder", "decoder"):
        if mixing := set(fields.get(f"{stack}_layer_types") or ()) - {*PACKED_TYPES}:
            return (
                f"Layers of type {min(mixing)} mix the sentences of a packed row. Choose model.{stack}_layer_types "
                f"from {', '.join(PACKED_TYPES)}, {advice}."
            )
    if kernel not in PACKED_KERNELS:
        return (
            f"training.attn_implementation={kernel} does not keep packed sentences apart. Choose one of "
            f"{', '.join(PACKED_KERNELS)}, {advice}."
        )
    return None


def check_packing(arguments: RunArguments, device: torch.device) -> None:
    """Refuse what packed rows do not go with, before anything is read or written.

    Raises:
        ValueError: Naming what does not fit.
    """
    if arguments.training.packing and (problem := packing_problem(arguments, device)):
        raise ValueError(problem)


def choose_packing(arguments: RunArguments, device) -> dict[str, int | None]:
    """Packed rows where they are faster and nobody has said otherwise: where bf16 is.

    There every new size of a batch costs a CPU and a GPU milliseconds, for the kernels that are made or chosen for it,
    and packed batches have but one size. In float32 CPUs have no such cost, and are faster without filler.

    Returns:
        `training.packing` and its value; nothing where it is named or not to be chosen.
    """
    training = arguments.training
    plain = arguments.objective == "seq2seq" and training.r_drop is None and training.scheduled_sampling is None
    if not plain or "training.packing" in arguments.given or not wants_bf16(arguments, device):
        return {}
    if device.type not in PACKING or packing_problem(arguments, device):
        return {}
    return {"training.packing": PACKING[device.type]}


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices faster than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)


def wants_bf16(arguments, device):

    return arguments.training.precision == "bf16" or (arguments.training.precision == "auto" and has_fast_bf16(device))
