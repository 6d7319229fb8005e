"""A run: what its parts share, from the recipe to the folder that it writes."""

import copy
import functools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import DatasetDict
from transformers import PreTrainedConfig

from ..data.batches import Mixture, PaddedBatches, Share, TokenBudgetSampler
from ..data.bpe_dropout import drop_merges
from ..data.fresh_rows import FreshRows
from ..data.languages import language_pairs
from ..data.noise import Noise
from ..data.packing import PackedBatches, PackingSampler
from ..data.rows import TokenRows
from ..data.spec_augment import HiddenPartsRows
from ..data.stream import BatchStream
from ..data.tokenizing import encode_texts
from ..objectives import Objective
from ..recipe.arguments import RunArguments


@dataclass(frozen=True)
class Run:
    """What is trained on what, and where.

    Attributes:
        accelerator: Device, precision and processes.
        arguments: The recipe, without `auto`.
        objective: What is learned.
        tokenizer: For padding, masking and generation.
        splits: `train`, and perhaps `validation` and `test`, tokenized.
        output_dir: The run's folder.
    """

    accelerator: Accelerator
    arguments: RunArguments
    objective: Objective
    tokenizer: Any
    splits: DatasetDict
    output_dir: Path


@dataclass
class Scores:
    """What a model reached on a split.

    Attributes:
        values: Scores by name, with signatures such as `bleu_signature`.
        samples: The generated rows: source, references, prediction.
    """

    values: dict[str, Any]
    samples: list[dict[str, Any]] = field(default_factory=list)

    def not_finite(self) -> list[str]:
        """Name the scores that are NaN or infinite."""
        return [name for name, value in self.values.items() if isinstance(value, float) and not math.isfinite(value)]


def fresh_rows(run: Run, longest: float) -> FreshRows:
    """Return the training rows tokenized again at each reading, with noise and with merges left out.

    Args:
        run: The run.
        longest: Of a row, in tokens.
    """
    settings, data, train = run.arguments.training, run.arguments.data, run.splits["train"]
    if settings.bpe_dropout:
        tokenizer = drop_merges(run.tokenizer, settings.bpe_dropout)
    else:
        tokenizer = copy.deepcopy(run.tokenizer)  # languages are set while it encodes
    noise = Noise(data.noise, settings.seed, tokenizer.get_added_vocab(), data.source_prefix)
    encode = functools.partial(
        encode_texts,
        tokenizer=tokenizer,
        encode=run.objective.encode,
        pairs=language_pairs(tokenizer, data, "train"),
    )
    return FreshRows(train, encode, longest, noise if data.noise.is_on else None)


def build_stream(run: Run, config: PreTrainedConfig) -> BatchStream:
    """Make batches of the training rows, as the recipe says.

    Args:
        run: The run.
        config: Of the model, which may limit the length of a row.
    """
    settings, data, train = run.arguments.training, run.arguments.data, run.splits["train"]
    rows = TokenRows(train)
    if settings.bpe_dropout or data.noise.is_on:
        rows = fresh_rows(run, getattr(config, "max_position_embeddings", math.inf))
    if data.spec_augment:
        rows = HiddenPartsRows(train, settings.seed)
    mixture = None
    if rows.corpora is not None:
        mixture = Mixture(rows.corpora, [corpus.weight for corpus in data.train.corpora], data.temperature)
    kind: Any = TokenBudgetSampler
    batches = PaddedBatches
    if settings.packing:
        kind, batches = functools.partial(PackingSampler, packing=settings.packing), PackedBatches
    sampler = kind(
        rows.source_lengths,
        run.objective.budget(rows.target_lengths),
        settings.batch_tokens,
        settings.seed,
        Share(run.accelerator.process_index, run.accelerator.num_processes),
        mixture,
    )
    sampler.begins_short = data.curriculum == "shortest_first"
    device = run.accelerator.device
    return BatchStream(rows, batches(sampler, run.objective, run.tokenizer), device, prefetch=device.type != "cpu")
