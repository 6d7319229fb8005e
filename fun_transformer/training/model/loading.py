"""A trained model and its tokenizer, of any family, as a run starts from them and reads its own again."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..data.languages import check_languages
from ..objectives import Objective
from ..recipe.arguments import AUTO, RunArguments
from ..recipe.base import base_config, dropout_name, is_own, source_of, starts_from_model
from ..tables import OBJECTIVES
from .exact_loss import give_exact_loss
from .new_tokens import add_tokens, has_new_tokens

logger = logging.get_logger(__name__)


def load_model(arguments: RunArguments, objective: Objective, folder: str | Path, kernel: str) -> PreTrainedModel:
    """Read a model that a run has saved, or one to score, in float32: what autocast and an optimizer need.

    Args:
        arguments: The recipe.
        objective: What is learned.
        folder: Of the model.
        kernel: Its `attn_implementation`.
    """
    trusted = {"trust_remote_code": True} if arguments.model.get("trust_remote_code") else {}
    model = objective.model_class.from_pretrained(folder, attn_implementation=kernel, dtype=torch.float32, **trusted)
    return fit_loss(model, arguments, objective)


def fit_loss(model: PreTrainedModel, arguments: RunArguments, objective: Objective) -> PreTrainedModel:
    """Give a model of another family the loss that ours have; return it."""
    if not is_own(model.config):
        smoothing = arguments.model.get("label_smoothing")
        give_exact_loss(
            model,
            label_smoothing=0.0 if smoothing in (None, AUTO) else float(smoothing),
            predicts_next=objective.predicts_next,
        )
    return model


def load_base_model(arguments: RunArguments, objective: Objective, kernel: str) -> PreTrainedModel:
    """Load the model that a run starts from, with its weights, in float32.

    Args:
        arguments: The recipe, which names it.
        objective: What is learned; it may name fields of the config, such as labels.
        kernel: The model's `attn_implementation`.

    Raises:
        ValueError: It cannot be loaded, or lacks weights for the objective.
    """
    path, source = arguments.model["path"], source_of(arguments)
    config = base_config(arguments)
    for name, value in objective.config_fields().items():
        setattr(config, name, value)
    if (dropout := arguments.model.get("dropout")) is not None:
        setattr(config, str(dropout_name(config)), dropout)
    if is_own(config) and (smoothing := arguments.model.get("label_smoothing")) is not None:
        config.label_smoothing = smoothing
    try:
        model, report = objective.model_class.from_pretrained(
            path,
            config=config,
            attn_implementation=kernel,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=objective.predicts,  # the layer of other labels
            **source,
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise ValueError(f"model.path={path} cannot be loaded: {error}") from error
    check_loaded(model, report, path, objective)
    leave_constants(model)
    return fit_loss(model, arguments, objective)


def leave_constants(model: PreTrainedModel) -> None:
    """Keep sinusoids, such as Marian's, and what a family never saves from being trained: they get no gradient.

    Layers are not left out at random either, as NLLB does: each process would leave out others and wait for their
    gradients. The config keeps the rate.
    """
    sinusoids = (name for name, module in model.named_modules() if "Sinusoidal" in type(module).__name__)
    constant = {*(model._keys_to_ignore_on_save or ()), *(f"{name}.weight" for name in sinusoids)}
    for name, parameter in model.named_parameters():
        if name in constant:
            parameter.requires_grad_(False)
    for module in model.modules():
        if hasattr(module, "layerdrop"):
            module.layerdrop = 0.0  # type: ignore[assignment]


def check_loaded(model: PreTrainedModel, report: dict[str, Any], path: str, objective: Objective) -> None:
    """Refuse a model whose body is not in the files; say which weights of the head are fresh.

    Raises:
        ValueError: Naming what is missing.
    """
    parameters = dict(model.named_parameters())
    missing = sorted(name for name in report["missing_keys"] if name in parameters)
    body = f"{model.base_model_prefix}."
    has_body = any(name.startswith(body) for name in parameters)
    # What a label is read from depends on the labels, in BERT also a layer of the body.
    is_head = {name: has_body and (not name.startswith(body) or ".pooler." in name) for name in missing}
    lacking = [name for name in missing if not (objective.predicts and is_head[name])]
    if lacking:
        raise ValueError(
            f"model.path={path} lacks weights that objective: {objective.name} needs, such as {lacking[0]} "
            f"({len(lacking):,} of {len(parameters):,}). Name a model that was trained for it, or take what it has by "
            "training.init_from."
        )
    fresh = sorted({*missing, *(entry[0] for entry in report.get("mismatched_keys", ()))})
    if fresh:
        logger.warning(f"Begin at random, as they depend on the labels: {', '.join(fresh)}.")
    for name, parameter in parameters.items():
        if parameter.is_floating_point() and not bool(parameter.isfinite().all()):
            raise ValueError(f"model.path={path}: {name} holds NaN or infinity. Name another model.")


def load_base_tokenizer(
    arguments: RunArguments, objective: Objective | type[Objective], with_new: bool = True
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the model that a run starts from; it is kept as it is, but for new tokens.

    A decoder alone that has no token for padding pads with the one for the end: its loss leaves padding out.

    Args:
        arguments: The recipe, which names it.
        objective: What is learned.
        with_new: Add the new tokens of the recipe.

    Raises:
        ValueError: It cannot be loaded, or lacks a token that the objective needs.
    """
    path = arguments.model["path"]
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path, **source_of(arguments))
    except Exception as error:  # of many types: a package that is missing, a file that is not there
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"model.path={path}: its tokenizer cannot be loaded: {reason}") from error
    if tokenizer.pad_token is None and not objective.counts_targets and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    needed = set(objective.special_tokens) - {"bos_token"}
    if lacking := sorted(name for name in needed if getattr(tokenizer, name, None) is None):
        raise ValueError(
            f"model.path={path}: its tokenizer ({type(tokenizer).__name__}) has no {lacking[0]}, which objective: "
            f"{objective.name} needs. Name the token in the model's tokenizer_config.json, or name another model."
        )
    if with_new and has_new_tokens(arguments.tokenizer):
        add_tokens(tokenizer, arguments.tokenizer)
    return tokenizer


def trusts_code(arguments: RunArguments) -> dict[str, bool]:
    """Return what `AutoTokenizer.from_pretrained` needs for the tokenizer of a run beside its folder."""
    return (
        {"trust_remote_code": True}
        if starts_from_model(arguments) and source_of(arguments)["trust_remote_code"]
        else {}
    )


def check_base_tokenizer(arguments: RunArguments) -> None:
    """Refuse the tokenizer of the model that a run starts from, before data are read, where it will not do.

    Raises:
        ValueError: It cannot be loaded, lacks a token, or does not know a language of the data.
    """
    if starts_from_model(arguments):
        tokenizer = load_base_tokenizer(arguments, OBJECTIVES[arguments.objective])
        check_languages(tokenizer, arguments.data)


def keep_numbers_of_labels(objective: Objective, config: PreTrainedConfig) -> None:
    """Number the labels as a trained model does, where it has learned the same ones."""
    known = set((config.label2id or {}) if objective.predicts else ())
    if known and known == set(objective.config_fields().get("label2id", {})):
        objective.read_config(config)
