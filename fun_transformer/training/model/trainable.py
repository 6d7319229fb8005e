"""Which weights of a model are trained: all, all but those of some modules (`training.freeze`), or LoRA's matrices."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import DistributedType
from torch import nn
from transformers import PreTrainedModel

from ..recipe.arguments import TrainingArguments
from ..recipe.names import nearest
from .adapters import add_lora
from .new_tokens import new_rows, token_matrices

EMBEDDINGS = "embeddings"


@dataclass
class Trained:
    """What is trained.

    Attributes:
        reports: To be printed.
        by_rows: Matrices of which only the rows of new tokens are trained: they must not decay.
    """

    reports: list[str] = field(default_factory=list)
    by_rows: list[nn.Parameter] = field(default_factory=list)


def module_names(model: PreTrainedModel) -> dict[str, str]:
    """Return the names that modules can be frozen by, and where they are: encoder is model.encoder."""
    prefix = f"{model.base_model_prefix}."
    names = [name for name, _ in model.named_modules() if name]
    short = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    return short | {name: name for name in names}


def find_modules(model: PreTrainedModel, wanted: Sequence[str]) -> list[str]:
    """Return where the modules are that are to be frozen; "embeddings" is not among them.

    Raises:
        ValueError: There is no module of a name, with the nearest that there is.
    """
    known = module_names(model)
    for name in wanted:
        if name != EMBEDDINGS and name not in known:
            short = sorted([*(other for other in known if other.count(".") < 2), EMBEDDINGS])
            raise ValueError(
                f"training.freeze: the model has no module {name}.{nearest(name, [*known, EMBEDDINGS])} It has "
                f"{', '.join(short[:20])}, and what is inside them."
            )
    return [known[name] for name in wanted if name in known]


def freeze(model: PreTrainedModel, wanted: Sequence[str]) -> None:
    """Leave the weights of some modules as they are, also where other modules share them.

    Args:
        model: Changed in place.
        wanted: Names of modules, such as encoder or decoder.layers.0; "embeddings" are the token embeddings of both
            sides, and an output layer that is tied to them.

    Raises:
        ValueError: There is no such module, or nothing is left to train.
    """
    for name in find_modules(model, wanted):
        model.get_submodule(name).requires_grad_(False)
    if EMBEDDINGS in wanted and EMBEDDINGS not in module_names(model):
        for module in token_matrices(model):
            if isinstance(module, nn.Embedding):
                module.weight.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"training.freeze={list(wanted)} leaves no weight of the model to train. Freeze less of it.")


def train_new_rows(model: PreTrainedModel, rows: list[int]) -> list[nn.Parameter]:
    """Train the rows of new tokens in matrices that are frozen otherwise.

    Args:
        model: Changed in place.
        rows: Numbers of the new tokens.

    Returns:
        The matrices.
    """

    def of_new_rows(gradient: torch.Tensor) -> torch.Tensor:
        kept = torch.zeros_like(gradient)
        kept[rows] = gradient[rows]
        return kept

    frozen = {id(m.weight): m.weight for m in token_matrices(model) if not m.weight.requires_grad}
    for weight in frozen.values():
        weight.requires_grad_(True)
        weight.register_hook(of_new_rows)
    return list(frozen.values())


def describe_trained(settings: TrainingArguments) -> dict[str, str]:
    """Say for the model's card which weights were trained; nothing where all were."""
    lora, parts = settings.lora, []
    if lora.r is not None:
        kind = "merged into the weights" if lora.merge else "an adapter, which needs pip install peft"
        parts.append(f"LoRA of rank {lora.r}, alpha {lora.alpha:g}: {kind}")
    if settings.freeze:
        parts.append(f"frozen: {', '.join(settings.freeze)}")
    return {"trained weights": "; ".join(parts)} if parts else {}


def choose_trained(model: PreTrainedModel, run: Any) -> Trained:
    """Decide what of a model is trained, as the recipe says: in place, before an optimizer is built.

    Raises:
        ValueError: A name is not known, nothing is left to train, or the weights are spread over processes.
    """
    settings, trained = run.arguments.training, Trained()
    if settings.lora.r is None and not settings.freeze:
        return trained
    if settings.lora.r is not None:
        frozen = find_modules(model, settings.freeze)
        trained.reports.append(add_lora(model, settings.lora, run.objective, frozen))
    if settings.freeze:
        freeze(model, settings.freeze)
    rows = new_rows(run.arguments, run.tokenizer)
    is_spread = run.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    if is_spread and (rows or settings.lora.r is not None):
        raise ValueError(
            "training.lora, and frozen embeddings with new tokens, need whole weights on each process. Use several "
            "processes without FSDP or DeepSpeed: what LoRA trains is small."
        )
    if rows:
        trained.by_rows = train_new_rows(model, rows)
    parameters = list(model.parameters())
    count = sum(p.numel() for p in parameters if p.requires_grad)
    count -= sum((len(weight) - len(rows)) * weight.shape[1] for weight in trained.by_rows)
    total = sum(p.numel() for p in parameters)
    frozen_text = f" Frozen: {', '.join(settings.freeze)}." if settings.freeze else ""
    trained.reports.append(f"{count:,} of {total:,} parameters are trained ({count / total:.2%}).{frozen_text}")
    return trained
