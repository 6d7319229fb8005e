"""LoRA: small matrices are trained beside the layers of a model that stays as it is (Hu et al. 2021).

A layer y = W x becomes y = W x + (alpha / r) B A x, with A (r, in_features) and B (out_features, r); B begins as zero,
so that the first step sees the model as it was. The matrices are put into the model in place, by peft: everything else
of a run sees the same model. Its `state_dict` then holds the weights that are trained and no others, and loading one
leaves the others alone; so checkpoints, saved models and their means are small.
"""

import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..recipe.arguments import AUTO, LoraArguments
from ..recipe.names import nearest

FILE = "trained.safetensors"
IN_A_LAYER = re.compile(r"\.\d+\.")  # encoder.layers.0.fc1
TASKS = {
    "seq2seq": "SEQ_2_SEQ_LM",
    "denoising": "SEQ_2_SEQ_LM",
    "causal_lm": "CAUSAL_LM",
    "sequence_classification": "SEQ_CLS",
    "token_classification": "TOKEN_CLS",
}


def linear_layers(model: nn.Module) -> list[str]:
    """List the linear layers of all blocks of a model: those of attention and feed-forward, in any family."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and IN_A_LAYER.search(name)
    ]


def choose_layers(model: nn.Module, wanted: list[str] | str, left_out: Iterable[str] = ()) -> list[str]:
    """List the layers that get matrices.

    Args:
        model: Any model.
        wanted: Names, or ends of names, such as q_proj; "auto" for all linear layers of all blocks.
        left_out: Modules whose layers get none.

    Raises:
        ValueError: A name fits no linear layer, or none is left.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    chosen = linear_layers(model)
    if wanted != AUTO:
        for name in wanted:
            if not any(f".{layer}".endswith(f".{name}") for layer in linear):
                known = sorted({layer.rpartition(".")[2] for layer in linear})
                raise ValueError(
                    f"training.lora.target_modules: the model has no linear layer {name}.{nearest(name, known)} "
                    f"It has {', '.join(known)}."
                )
        chosen = [layer for layer in linear if any(f".{layer}".endswith(f".{name}") for name in wanted)]
    frozen = tuple(f"{name}." for name in left_out)
    chosen = [layer for layer in chosen if not f"{layer}.".startswith(frozen)]
    if not chosen:
        raise ValueError(
            "training.lora: no layer is left to adapt. Name other training.lora.target_modules, or freeze less."
        )
    return chosen


def heads_of(model: PreTrainedModel) -> list[str]:
    """List the modules of a model that may be fresh where labels are learned: its head, and what pools for it."""
    parts = {name for name, child in model.named_children() if list(child.parameters())} - {model.base_model_prefix}
    return sorted(parts | {name for name, _ in model.named_modules() if name.endswith(".pooler")})


def add_lora(model: PreTrainedModel, settings: LoraArguments, objective: Any, left_out: Iterable[str] = ()) -> str:
    """Put LoRA's matrices into a model; of the rest, only a head for labels is trained.

    Args:
        model: Changed in place.
        settings: The recipe's section `training.lora`.
        objective: What is learned.
        left_out: Modules whose layers get none.

    Returns:
        What it has now, to be printed.

    Raises:
        ValueError: No layer has such a name.
    """
    import peft

    layers = choose_layers(model, settings.target_modules, left_out)
    heads = heads_of(model) if objective.predicts else []
    rank = int(settings.r or 0)
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=layers,
        modules_to_save=heads or None,
        task_type=TASKS.get(objective.name),
        fan_in_fan_out=any(isinstance(model.get_submodule(layer), Conv1D) for layer in layers),
    )
    model.add_adapter(config)
    hold_trained_weights(model)
    kinds = sorted({layer.rpartition(".")[2] for layer in layers})
    return f"LoRA of rank {rank}, alpha {settings.alpha:g}, on {len(layers):,} layers: {', '.join(kinds)}."


def has_adapter(model: nn.Module) -> bool:
    """Tell whether LoRA's matrices are in a model."""
    return hasattr(model, "peft_config")


# ── What is saved ────────────────────────────────────────────────────────────────────────────────────────────────────


def hold_trained_weights(model: nn.Module) -> None:
    """Let the `state_dict` of a model with an adapter hold the weights that are trained, and buffers, alone."""
    model.register_state_dict_post_hook(drop_untrained)
    model.register_load_state_dict_pre_hook(fill_in_untrained)


def drop_untrained(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Remove the weights that are not trained from a `state_dict`."""
    if has_adapter(model):
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if not parameter.requires_grad:
                state.pop(prefix + name, None)


def fill_in_untrained(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Put a model's own weights, as far as they are not trained, into a `state_dict` that is loaded."""
    if has_adapter(model):
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if not parameter.requires_grad:
                state.setdefault(prefix + name, parameter)


def save_trained(state: dict[str, torch.Tensor], folder: Path) -> None:
    """Write the trained weights of a model, those that are tied once."""
    folder.mkdir(parents=True)
    first = {weight.data_ptr(): name for name, weight in reversed(state.items())}
    save_file({name: w.contiguous() for name, w in state.items() if first[w.data_ptr()] == name}, folder / FILE)


def load_trained(model: Any, folder: Path) -> Any:
    """Read the trained weights of a model that `save_trained` wrote; return the model."""
    state = load_file(folder / FILE)
    own = model.state_dict()
    names = {weight.data_ptr(): name for name, weight in own.items() if name in state}
    model.load_state_dict({name: state[names[weight.data_ptr()]] for name, weight in own.items()})
    return model


def checksum_of_untrained(model: nn.Module) -> int | None:
    """Return a checksum of the weights that a checkpoint leaves out; None where it holds all."""
    if not has_adapter(model):
        return None
    checksum = 0
    for _, parameter in sorted(model.named_parameters(), key=lambda entry: entry[0]):
        if not parameter.requires_grad:
            checksum = zlib.crc32(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data, checksum)
    return checksum


# ── The end ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def merge_lora(model: PreTrainedModel) -> PreTrainedModel:
    """Add the matrices to the weights that they belong to, so that the model is a plain one again; return it.

    Raises:
        ValueError: A sum is not finite.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            model.set_submodule(name, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            model.set_submodule(name, module.modules_to_save[module.active_adapters[0]])
    del model.peft_config
    model._hf_peft_config_loaded = False
    return model.requires_grad_(True)
