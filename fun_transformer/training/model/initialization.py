"""What a model knows before its first step: the weights of another model, word vectors.

Pretraining, then fine-tuning: a run with `objective: masked_lm` (BERT; Devlin et al. 2019, arXiv:1810.04805) gives an
encoder, one with `causal_lm` (GPT; Radford et al. 2018) a decoder without cross-attention, one with `denoising` (BART;
Lewis et al. 2020, arXiv:1910.13461) both, with cross-attention. A second run begins with

    tokenizer: {path: RUN/model}
    training: {init_from: RUN/model}

and takes every weight whose name and shape are its own; the others stay fresh (Ramachandran et al. 2017,
arXiv:1611.02683, begin translators so). Rows of embeddings are matched by token, so that another tokenizer will do,
as far as it cuts words alike. `init_from: [BERT/model, GPT/model]` takes the encoder of the one and the decoder of the
other (Rothe et al. 2020, arXiv:1907.12461); of what both have, such as a shared embedding, the last one's stays.
"""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedModel

from ..recipe.arguments import TrainingArguments
from ..recipe.model_config import read_json

FORMATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight")  # a row for each token
# What decides what weights mean and shows in no name and no shape.
MEANINGS: tuple[str, ...] = ("position_embedding_type", "norm_position", "activation_function", "scale_embedding")
MEANINGS += ("encoder_attention_heads", "decoder_attention_heads")


def initialize(model: PreTrainedModel, tokenizer, settings: TrainingArguments) -> list[str]:
    """Give a fresh model what the recipe says it begins with, in place.

    Returns:
        What it got, to be printed.

    Raises:
        ValueError: When a folder or file fits nothing in the model.
    """
    reports = []
    for folder in settings.init_from:
        reports.append(take_weights(model, tokenizer, Path(folder)))
    vectors: dict[Literal["source", "target"], str | None] = {
        "source": settings.source_vectors,
        "target": settings.target_vectors,
    }
    for side, path in vectors.items():
        if path:
            try:
                from ...embeddings import initialize_embeddings, load_vectors
            except ImportError as error:
                raise ValueError(f"training.{side}_vectors: {error}") from error

            coverage = initialize_embeddings(model, load_vectors(path), tokenizer, side)
            reports.append(f"{path}: {coverage}.")
    return reports


@torch.no_grad()
def take_weights(model: PreTrainedModel, tokenizer, folder: Path) -> str:
    """Copy weights of the same name and shape from a model's folder; embeddings by token.

    Args:
        model: To be changed.
        tokenizer: The model's.
        folder: With model.safetensors (or its parts) and the tokenizer of that model.

    Returns:
        How many weights were taken, which are not in the folder, and which were not needed.

    Raises:
        ValueError: When there is no sound model in the folder, or nothing in it fits.
    """
    own = model.state_dict()
    given = read_weights(folder, needed=own.keys())
    source, target = "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"
    if source in given and target not in given and any(name.startswith("model.decoder.") for name in given):
        given[target] = given[source]  # tied weights are saved once
    rows = {name: matching_rows(tokenizer, folder, is_of_target(name)) for name in given if name.endswith(EMBEDDINGS)}
    used, filled, notes = set(), set(), []
    for name in sorted(own.keys() & given.keys(), reverse=True):  # of tied weights, the encoder's
        weights, new = own[name], given[name]
        if weights.data_ptr() in filled:
            used.add(name)
            continue
        if (matching := rows.get(name)) is not None and weights.shape[1:] == new.shape[1:]:
            ours, theirs = matching
            weights[ours] = new[theirs].to(weights)
            notes.append(f"{len(ours):,} of {len(weights):,} rows of {name}")
        elif weights.shape == new.shape:
            weights.copy_(new)
        else:
            continue
        used.add(name)
        filled.add(weights.data_ptr())
    if not used:
        raise ValueError(
            f"training.init_from={folder}: no weight has the name and the shape of one of this model. Give it that "
            "model's kind and sizes, as with model.config."
        )
    taken = {name for name, weights in own.items() if weights.data_ptr() in filled}  # tied ones too
    missing, unused = prefixes(own.keys() - taken, taken), prefixes(given.keys() - used, used)
    parts = [f"{len(taken)} of {len(own)} weights were taken from {folder}", *notes, *other_meanings(model, folder)]
    return f"{', '.join(parts)}; not in it: {', '.join(missing) or 'none'}; not needed: {', '.join(unused) or 'none'}."


def other_meanings(model: PreTrainedModel, folder: Path) -> list[str]:
    """Name the fields in which the config of a folder differs so that its weights compute something else."""
    path = folder / "config.json"
    given = read_json(str(path), "training.init_from") if path.is_file() else {}
    own = model.config.to_dict()
    return [
        f"made for {name}={given[name]}, here {own[name]}"
        for name in MEANINGS
        if name in own and given.get(name, own[name]) != own[name]
    ]


def read_weights(folder: Path, needed: Collection[str]) -> dict[str, torch.Tensor]:
    """Read all weights of a model's folder.

    Args:
        folder: Of the model.
        needed: Names of those that must be sound.

    Raises:
        ValueError: There are none, they cannot be read, are quantized, or hold NaN or infinity.
    """
    files = sorted(folder.glob("model*.safetensors"))
    given: dict[str, torch.Tensor] = {}
    if not files:
        raise ValueError(
            f"training.init_from={folder} has no model.safetensors. Name the folder of a model: RUN/model."
        )
    for file in files:
        try:
            given |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"training.init_from: {file} cannot be read: {error}. Put back a whole copy.") from error
    for name in sorted(given.keys() & needed):
        weights = given[name]
        if weights.dtype not in FORMATS:
            kind = str(weights.dtype).removeprefix("torch.")
            raise ValueError(f"training.init_from={folder}: {name} is quantized ({kind}). Name the model before that.")
        if not weights.isfinite().all():
            raise ValueError(f"training.init_from={folder}: {name} holds NaN or infinity. Name another model.")
    return given


def is_of_target(name: str) -> bool:
    """Whether the rows of these embeddings are tokens of the target."""
    return ".encoder." not in f".{name}"


def matching_rows(tokenizer, folder: Path, target: bool) -> tuple[list[int], list[int]] | None:
    """Our and their numbers of the tokens that both vocabularies have; None where they are the same."""
    if not (folder / "tokenizer_config.json").is_file():
        return None
    ours, theirs = vocabulary(tokenizer, target), vocabulary(AutoTokenizer.from_pretrained(folder), target)
    if ours == theirs:
        return None
    both = sorted(ours.keys() & theirs.keys())
    return [ours[token] for token in both], [theirs[token] for token in both]


def vocabulary(tokenizer, target: bool) -> dict[str, int]:
    """Number the tokens of a side."""
    has_two = getattr(tokenizer, "target_vocab_size", None) is not None
    return tokenizer.get_target_vocab() if target and has_two else tokenizer.get_vocab()


def prefixes(names: set[str], others: set[str]) -> list[str]:
    """The fewest beginnings that cover `names` and none of `others`; numbers of layers become *.

    Args:
        names: Such as model.decoder.layers.0.fc1.weight.
        others: To be told apart from them.
    """
    covered = {re.sub(r"\.\d+\.", ".*.", name) for name in others}
    found = set()
    for name in {re.sub(r"\.\d+\.", ".*.", name) for name in names}:
        parts = name.split(".")
        beginnings = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
        clear = (b for b in beginnings if not any(f"{other}.".startswith(f"{b}.") for other in covered))
        found.add(next(clear, name))
    return sorted(found)
