"""Batches of about equally many tokens, from rows of about equal length.

Padding is wasted work, and a fixed number of rows wastes most of it: one long sentence stretches all others. Rows
therefore go into buckets of about equal source length (within a tenth), are sorted by target length there (up and
down in turn, like a snake, so that neighbours resemble each other across buckets too), cut wherever the next row would
lift the padded size over the budget, and only then shuffled, batch by batch. The order depends on (seed, epoch) alone:
a resumed run asks for the same epoch and finds its place.

`packing.py` fills rows with several texts instead.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.utils import logging

logger = logging.get_logger(__name__)


class Mixture:
    """Choose the rows of several corpora that an epoch shows: by weight, and all of a corpus before any comes again.

    An epoch has as many rows as there are. Corpus i with n_i rows gives a share of p_i, proportional to
    weight_i * n_i ** (1 / temperature) (Arivazhagan et al. 2019): with equal weights and temperature 1 each row once,
    with a high temperature equally many rows of each corpus.

    Args:
        corpora: (rows,) Number of the corpus that each row is from.
        weights: (number of corpora,).
        temperature: At least 1.
    """

    def __init__(self, corpora: np.ndarray, weights: Sequence[float], temperature: float = 1.0):
        self.rows = [np.flatnonzero(corpora == corpus) for corpus in range(len(weights))]
        sizes = np.array([len(rows) for rows in self.rows])
        shares = np.asarray(weights) * sizes ** (1 / temperature) * (sizes > 0)
        counts = np.round(len(corpora) * shares / shares.sum())  # rows of each corpus in an epoch
        self.counts = np.maximum(counts, sizes > 0).astype(np.int64)

    def sample(self, seed: int, epoch: int) -> np.ndarray:
        """Choose the rows of an epoch, by seed and epoch alone."""
        chosen = []
        for corpus, (rows, count) in enumerate(zip(self.rows, self.counts)):
            if len(rows):
                rng = np.random.default_rng((seed, epoch, corpus))
                chosen += [np.tile(rows, count // len(rows)), rng.permutation(rows)[: count % len(rows)]]
        return np.concatenate(chosen)


class Share(NamedTuple):
    """One process of several, which work on equally many batches."""

    rank: int
    world_size: int


ALONE = Share(rank=0, world_size=1)


class TokenBudgetSampler:
    """Choose the rows of each batch by a budget of tokens, for every epoch and process.

    A batch's padded size, rows * (longest source + longest target), is at most `batch_tokens`; a row longer than that
    makes a batch of its own (`oversized` counts them). In an epoch every row appears exactly once over all processes,
    and each process gets equally many batches: where their number does not divide, the largest batches are halved,
    and only if all hold a single row are some repeated. It is a `batch_sampler` of torch's `DataLoader`, too. There is
    deliberately no attribute `batch_size`: `accelerate.prepare` would drop batches of other sizes.

    Where `begins_short` is set, the batches of the first epoch come by length of their sources, short ones first, and
    later ones are shuffled as ever. Rows are not sorted by target length then: a batch of one length of source and one
    of target teaches little but lengths (after 60 CPU-seconds of hub_configs/spoken-digits, 54 % of the words were
    wrong, and 18 % without).

    Args:
        source_lengths: (rows,) Tokens of each source.
        target_lengths: (rows,) Tokens of each target; 0 where there is none beside the source.
        batch_tokens: Budget of a batch in tokens, padding included.
        seed: Decides, with the epoch, the order.
        share: This process among all.
        mixture: Which rows an epoch shows; all when None.

    Raises:
        ValueError: The lengths are empty or of unequal number, or a number is out of range.
    """

    def __init__(
        self,
        source_lengths: Sequence[int] | np.ndarray,
        target_lengths: Sequence[int] | np.ndarray,
        batch_tokens: int,
        seed: int,
        share: Share = ALONE,
        mixture: Mixture | None = None,
    ):
        self.source_lengths = np.asarray(source_lengths, dtype=np.int32)  # (rows,)
        self.target_lengths = np.asarray(target_lengths, dtype=np.int32)  # (rows,)
        if len(self.source_lengths) != len(self.target_lengths) or not len(self.source_lengths):
            raise ValueError(
                f"{len(self.source_lengths)} source lengths and {len(self.target_lengths)} target lengths: "
                "there must be one of each for every row, and at least one row."
            )
        if batch_tokens < 1 or not 0 <= share.rank < share.world_size:
            raise ValueError(
                f"batch_tokens={batch_tokens}, rank={share.rank}, world_size={share.world_size}: the budget must be "
                "at least 1 and the rank in 0 .. world_size - 1."
            )
        self.batch_tokens, self.seed, self.share = batch_tokens, seed, share
        self.mixture, self.epoch = mixture, 0
        self.begins_short = False
        self.oversized = int((self.source_lengths + self.target_lengths > batch_tokens).sum())
        if self.oversized:
            logger.warning(
                f"{self.oversized} rows are longer than batch_tokens={batch_tokens}: each makes a batch of its own."
            )

    def batches(self, epoch: int, done: Sequence[Sequence[int]] = ()) -> list[np.ndarray]:
        """List the row numbers of this process's batches of an epoch, in order.

        Args:
            epoch: Number of the pass over the data, from 0.
            done: (number of processes, batches of each) for the parts of this epoch that were trained on another
                number of processes. The order of all rows does not depend on that number, so what is left is exact.
        """
        rng = np.random.default_rng((self.seed, epoch))
        rows = self.mixture.sample(self.seed, epoch) if self.mixture else np.arange(len(self.source_lengths))
        cut = self.cut(rows[self.sort(rows, rng)])
        order = rng.permutation(len(cut))
        if self.begins_short and epoch == 0:
            order = np.argsort([self.source_lengths[batch].max() for batch in cut], kind="stable")
        batches = [cut[index] for index in order]
        for world_size, count in done:
            batches = even_out(batches, world_size, rng)[world_size * count :]
        batches = even_out(batches, self.share.world_size, rng)
        return batches[self.share.rank :: self.share.world_size]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next, for a `DataLoader(rows, batch_sampler=...)`."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the row numbers of each batch of the epoch."""
        return (rows.tolist() for rows in self.batches(self.epoch))

    def __len__(self) -> int:
        """Count the batches of the epoch."""
        return len(self.batches(self.epoch))

    def size(self, rows: np.ndarray) -> int:
        """Count the places of a batch, padding included."""
        return len(rows) * int(self.source_lengths[rows].max() + self.target_lengths[rows].max())

    def sort(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Order the rows by bucket, in it by target length, up and down in turn; all else by chance: (rows,)."""
        ties = rng.random(len(rows))  # (rows,)
        source, target = self.source_lengths[rows], self.target_lengths[rows]  # (rows,)
        buckets = np.log(np.maximum(source, 1)) // np.log(1.1)  # (rows,)
        snake = np.where(buckets % 2, target, -target) * (not self.begins_short)  # (rows,)
        order = np.argsort(ties, kind="stable")  # (rows,)
        for key in (snake, buckets):  # as np.lexsort((ties, snake, buckets)), which takes four times as long
            order = order[np.argsort(narrow(key)[order], kind="stable")]
        return order

    def cut(self, order: np.ndarray) -> list[np.ndarray]:
        """Cut the sorted rows into the longest runs that the budget allows."""
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


def narrow(numbers: np.ndarray) -> np.ndarray:
    """Return whole numbers in 16 bits where they fit, which numpy sorts much faster: (numbers,)."""
    limits = np.iinfo(np.int16)
    fits = not len(numbers) or limits.min <= numbers.min() <= numbers.max() <= limits.max
    return numbers.astype(np.int16) if fits else numbers


def even_out(batches: list[np.ndarray], world_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Make the number of batches a multiple of the number of processes, by halving the largest.

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
    """Make tensors of rows, padded on the right to the batch's longest.

    Args:
        rows: Dicts with `input_ids` and, except for generation, `labels`.
        pad_token_id: Fills `input_ids`; `labels` are filled with -100, which the loss ignores.

    Returns:
        `input_ids` (batch, source_len), `attention_mask` (batch, source_len), `labels` (batch, target_len).
    """
    lengths = np.array([len(row["input_ids"]) for row in rows])  # (batch,)
    batch = {
        "input_ids": _pad([row["input_ids"] for row in rows], pad_token_id),
        "attention_mask": torch.from_numpy((np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)),
    }
    if "labels" in rows[0]:
        batch["labels"] = pad_labels(rows)
    return batch


def pad_labels(rows: Sequence[dict[str, Any]]) -> torch.Tensor:
    """Make one tensor of the `labels` of rows, padded with -100, which the loss ignores: (batch, target_len)."""
    return _pad([row["labels"] for row in rows], -100)


def _pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Make one tensor of rows of numbers, (batch, longest): three times as fast as by a tensor of each row."""
    padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)  # (batch, longest)
    for place, row in zip(padded, rows):
        place[: len(row)] = row
    return torch.from_numpy(padded)


class PaddedBatches:
    """A row for each text, padded to the longest of its batch.

    Args:
        sampler: Chooses the rows of each batch.
        objective: Turns rows into tensors and counts tokens (`fun_transformer.training.objectives.Objective`).
        tokenizer: For padding.
    """

    def __init__(self, sampler: TokenBudgetSampler, objective: Any, tokenizer: Any):
        self.sampler, self.objective, self.tokenizer = sampler, objective, tokenizer

    def batches(self, epoch: int, done: Sequence[Sequence[int]] = ()) -> list[np.ndarray]:
        """List the row numbers of this process's batches of an epoch; as in `TokenBudgetSampler.batches`."""
        return self.sampler.batches(epoch, done)

    def refresh(self, rows: list[dict[str, Any]], numbers: np.ndarray, epoch: int) -> list[dict[str, Any]]:
        """Change rows as the objective does in an epoch; `numbers` (batch,) are those of the rows."""
        draws = (f"{self.sampler.seed} {epoch} {number}" for number in numbers)
        return self.objective.refresh(rows, draws, self.tokenizer)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Turn rows into the keyword arguments of the model."""
        return self.objective.collate(rows, self.tokenizer)

    def count_tokens(self, batch: dict[str, Any]) -> int:
        """Count the real tokens of a batch, for the log."""
        return self.objective.tokens(batch)
