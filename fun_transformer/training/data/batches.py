"""Batches of about equally many tokens, from rows of about equal length.

Padding is wasted work, and a fixed number of rows wastes most of it: one long sentence stretches all others. Rows
therefore go into buckets of about equal source length (within a tenth), are sorted by target length there (up and
down in turn, like a snake, so that neighbours resemble each other across buckets too), cut wherever the next row would
lift the padded size over the budget, and only then shuffled, batch by batch. The order depends on (seed, epoch) alone:
a resumed run asks for the same epoch and finds its place.

Packed batches need no buckets: rows of a fixed length hold as many sentences as fit. All batches have one shape, which
is what compiled code and GPUs like best.
"""

import heapq
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from ..recipe.arguments import DataArguments
from .rows import TokenRows

logger = logging.get_logger(__name__)


class Mixture:
    """Which rows of several corpora an epoch shows: each corpus by its weight, all its rows before any comes again.

    An epoch has as many rows as there are. Corpus i with n_i rows gives a share of p_i, proportional to
    weight_i * n_i ** (1 / temperature) (Arivazhagan et al. 2019): with equal weights and temperature 1 each row once,
    with a high temperature equally many rows of each corpus.

    Args:
        corpora: (rows,) the number of the corpus that each row is from.
        weights: (number of corpora,).
        temperature: at least 1.
    """

    def __init__(self, corpora: np.ndarray, weights: Sequence[float], temperature: float = 1.0):
        self.rows = [np.flatnonzero(corpora == corpus) for corpus in range(len(weights))]
        sizes = np.array([len(rows) for rows in self.rows])
        shares = np.asarray(weights) * sizes ** (1 / temperature) * (sizes > 0)
        counts = np.round(len(corpora) * shares / shares.sum())  # rows of each corpus in an epoch
        self.counts = np.maximum(counts, sizes > 0).astype(np.int64)

    def draw(self, seed: int, epoch: int) -> np.ndarray:
        """The rows of an epoch, a function of seed and epoch alone."""
        drawn = []
        for corpus, (rows, count) in enumerate(zip(self.rows, self.counts)):
            if len(rows):
                rng = np.random.default_rng((seed, epoch, corpus))
                drawn += [np.tile(rows, count // len(rows)), rng.permutation(rows)[: count % len(rows)]]
        return np.concatenate(drawn)


def mixture_of(rows: TokenRows, data: DataArguments) -> Mixture | None:
    """The mixture that a recipe describes; None where train is one corpus."""
    if rows.corpora is None:
        return None
    return Mixture(rows.corpora, [corpus.weight for corpus in data.train.corpora], data.temperature)


class TokenBudgetBatches:
    """Row numbers of each batch, for every epoch and process.

    A batch's padded size, rows * (longest source + longest target), is at most `batch_tokens`; a row longer than that
    makes a batch of its own (`oversized` counts them). In an epoch every row appears exactly once over all processes,
    and each process gets equally many batches: where their number does not divide, the largest batches are halved,
    and only if all hold a single row are some repeated. There is deliberately no attribute `batch_size`:
    `accelerate.prepare` would drop batches of other sizes.

    Args:
        source_lengths: (rows,) tokens of each source.
        target_lengths: (rows,) tokens of each target.
        batch_tokens: budget of a batch in tokens, padding included.
        seed: decides, with the epoch, the order.
        rank: this process.
        world_size: number of processes.
        mixture: which rows an epoch shows; all when None.

    Raises:
        ValueError: the lengths are empty or of unequal number, or a number is out of range.
    """

    def __init__(
        self,
        source_lengths: Sequence[int],
        target_lengths: Sequence[int],
        batch_tokens: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        mixture: Mixture | None = None,
    ):
        self.source_lengths = np.asarray(source_lengths, dtype=np.int32)  # (rows,)
        self.target_lengths = np.asarray(target_lengths, dtype=np.int32)  # (rows,)
        if len(self.source_lengths) != len(self.target_lengths) or not len(self.source_lengths):
            raise ValueError(
                f"{len(self.source_lengths)} source lengths and {len(self.target_lengths)} target lengths: "
                "there must be one of each for every row, and at least one row."
            )
        if batch_tokens < 1 or not 0 <= rank < world_size:
            raise ValueError(
                f"batch_tokens={batch_tokens}, rank={rank}, world_size={world_size}: the budget must be at least 1 "
                "and the rank in 0 .. world_size - 1."
            )
        self.batch_tokens, self.seed, self.rank, self.world_size = batch_tokens, seed, rank, world_size
        self.mixture = mixture
        self.oversized = int((self.source_lengths + self.target_lengths > batch_tokens).sum())
        if self.oversized:
            logger.warning(
                f"{self.oversized} rows are longer than batch_tokens={batch_tokens}: each makes a batch of its own."
            )

    def batches(self, epoch: int, done: Sequence[Sequence[int]] = ()) -> list[np.ndarray]:
        """This process's batches of an epoch, in order.

        Args:
            epoch: number of the pass over the data, from 0.
            done: (number of processes, batches of each) for the parts of this epoch that were trained on another
                number of processes. The order of all rows does not depend on that number, so what is left is exact.
        """
        rng = np.random.default_rng((self.seed, epoch))
        rows = self.mixture.draw(self.seed, epoch) if self.mixture else np.arange(len(self.source_lengths))
        cut = self._cut(rows[self._sort(rows, rng)])
        batches = [cut[index] for index in rng.permutation(len(cut))]
        for world_size, count in done:
            batches = even_out(batches, world_size, rng)[world_size * count :]
        batches = even_out(batches, self.world_size, rng)
        return batches[self.rank :: self.world_size]

    def size(self, rows: np.ndarray) -> int:
        """Places of a batch, padding included."""
        return len(rows) * int(self.source_lengths[rows].max() + self.target_lengths[rows].max())

    def _sort(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Order of the rows by bucket, in it by target length, up and down in turn; ties by chance. (rows,)"""
        ties = rng.random(len(rows))  # (rows,)
        source, target = self.source_lengths[rows], self.target_lengths[rows]  # (rows,)
        buckets = np.log(np.maximum(source, 1)) // np.log(1.1)  # (rows,)
        snake = np.where(buckets % 2, target, -target)  # (rows,)
        return np.lexsort((ties, snake, buckets))

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        """Cuts the sorted rows into the longest runs that the budget allows."""
        source, target = self.source_lengths[order], self.target_lengths[order]  # (rows,)
        batches, start = [], 0
        while start < len(order):
            most = max(1, self.batch_tokens // max(1, source[start] + target[start]))  # rows, were all like the first
            run = slice(start, start + most)
            longest = np.maximum.accumulate(source[run]) + np.maximum.accumulate(target[run])  # (most,)
            padded_size = longest * np.arange(1, len(longest) + 1)  # (most,), of the first 1, 2, ... rows
            rows = max(1, int(np.searchsorted(padded_size, self.batch_tokens, side="right")))
            batches.append(order[start : start + rows])
            start += rows
        return batches


def even_out(batches: list[np.ndarray], world_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Makes the number of batches a multiple of the number of processes, by halving the largest.

    The batches keep their order; second halves come last.
    """
    even = list(batches)
    heap = [(-len(rows), index) for index, rows in enumerate(even)]
    heapq.heapify(heap)
    while len(even) % world_size and -heap[0][0] > 1:
        _, index = heapq.heappop(heap)
        rows, middle = even[index], len(even[index]) // 2
        even[index] = rows[:middle]
        even.append(rows[middle:])
        heapq.heappush(heap, (-middle, index))
        heapq.heappush(heap, (middle - len(rows), len(even) - 1))
    repeated: Iterable[int] = rng.integers(len(even), size=-len(even) % world_size) if even else []
    return even + [even[index] for index in repeated]


def pad_batch(rows: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Rows as tensors, padded on the right to the batch's longest.

    Args:
        rows: dicts with `input_ids` and, except for generation, `labels`.
        pad_token_id: fills `input_ids`; `labels` are filled with -100, which the loss ignores.

    Returns:
        `input_ids` (batch, source_len), `attention_mask` (batch, source_len), `labels` (batch, target_len).
    """
    lengths = np.array([len(row["input_ids"]) for row in rows])  # (batch,)
    batch = {
        "input_ids": _pad([row["input_ids"] for row in rows], pad_token_id),
        "attention_mask": torch.from_numpy((np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)),
    }
    if "labels" in rows[0]:
        batch["labels"] = _pad([row["labels"] for row in rows], -100)
    return batch


def _pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Rows of numbers as one tensor, (batch, longest). Three times as fast as a tensor of each row."""
    padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)  # (batch, longest)
    for place, row in zip(padded, rows):
        place[: len(row)] = row
    return torch.from_numpy(padded)
