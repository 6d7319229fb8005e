"""Packed batches: rows of a fixed length, each filled with as many texts as fit (Krell et al. 2021, arXiv:2107.02027).

Such batches need no buckets, and all have one shape, which is what compiled code and GPUs like best; only where an
epoch fills few of them, a batch has as many rows as it needs. The model keeps the texts of a row apart by their
segment ids: see `fun_transformer.masks.Packing`.
"""

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .batches import PaddedBatches, TokenBudgetSampler

SEVERAL = 8  # full batches in an epoch: then the last one may have empty rows, so that all have one shape


def row_length(source_length: Any, target_length: Any, packing: int) -> Any:
    """Give the length of the packed rows that a pair goes to: `packing`, doubled until source and target fit.

    A source leaves one place free, see `fun_transformer.masks.Packing`. Numbers or arrays of them.
    """
    needed = np.maximum(np.asarray(source_length) + 1, target_length)
    return packing * 2 ** np.ceil(np.log2(np.maximum(needed / packing, 1.0))).astype(np.int64)


def row_count(length: int, batch_tokens: int) -> int:
    """Count the packed rows of a length that make a batch: each is a row of sources and a row of targets."""
    return max(1, batch_tokens // (2 * length))


class PackingSampler(TokenBudgetSampler):
    """Choose texts that fill rows of one length, in random order; all else is as in `TokenBudgetSampler`.

    Texts that are too long for a row make batches of their own, of fewer and longer rows.

    Args:
        args: As `TokenBudgetSampler` takes them.
        packing: Length of a row.
        kwargs: Likewise.
    """

    def __init__(self, *args: Any, packing: int, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.packing = packing
        lengths = row_length(self.source_lengths, self.target_lengths, packing)  # (rows,)
        self.kept_lengths = {int(length) for length in np.unique(lengths) if self.fills_several(lengths == length)}

    def fills_several(self, chosen: np.ndarray) -> bool:
        """Tell whether texts that go to rows of one length fill several batches.

        Args:
            chosen: (rows,) Whether a text is one of them.
        """
        source, target = self.source_lengths[chosen], self.target_lengths[chosen]
        length = int(row_length(source[0], target[0], self.packing))
        needed = max(int(source.sum(dtype=np.int64)), int(target.sum(dtype=np.int64))) / length  # rows at least
        return needed >= SEVERAL * row_count(length, self.batch_tokens)

    def rows_to_keep(self, length: int) -> int:
        """Count the rows that each batch has, filled or not, where all of a length have one shape; else 0."""
        return row_count(length, self.batch_tokens) if length in self.kept_lengths else 0

    def size(self, rows: np.ndarray) -> int:
        """Count the places of a batch, padding included."""
        source, target = self.source_lengths[rows].tolist(), self.target_lengths[rows].tolist()
        length = int(row_length(max(source), max(target), self.packing))
        return 2 * length * (self.rows_to_keep(length) or count_rows(place_sentences(source, target, length), length))

    def sort(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Order the rows by chance: (rows,)."""
        return rng.permutation(len(rows))

    def cut(self, order: np.ndarray) -> list[np.ndarray]:
        """Fill rows with the texts as they come, and batches with the rows."""
        lengths = row_length(self.source_lengths[order], self.target_lengths[order], self.packing)  # (rows,)
        batches = []
        for length in np.unique(lengths):
            chosen = order[lengths == length]
            row_of_pair = fill_rows(self.source_lengths[chosen], self.target_lengths[chosen], int(length))  # (pairs,)
            by_row = np.argsort(row_of_pair, kind="stable")  # (pairs,)
            starts = np.arange(0, row_of_pair.max() + 1, row_count(length, self.batch_tokens))  # of each batch
            borders = np.searchsorted(row_of_pair[by_row], starts[1:])
            batches += np.split(chosen[by_row], borders)
        return batches


class PackedBatches(PaddedBatches):
    """Several texts in each row; evaluation pads, so that what is packed here is compared with padding there."""

    sampler: PackingSampler

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Turn rows into the keyword arguments of the model."""
        source_length, target_length = (max(len(row[name]) for row in rows) for name in ("input_ids", "labels"))
        length = int(row_length(source_length, target_length, self.sampler.packing))
        return pack_batch(rows, self.tokenizer.pad_token_id, length, self.sampler.rows_to_keep(length))

    def count_tokens(self, batch: dict[str, Any]) -> int:
        """Count the real tokens of a batch, for the log."""
        return int((batch["input_ids"] != self.tokenizer.pad_token_id).sum()) + self.objective.items(batch)


def fill_rows(source_lengths: np.ndarray, target_lengths: np.ndarray, length: int, most: int = 12) -> np.ndarray:
    """Put each sentence pair into the first row that has room for it; of `most` such rows the oldest is then closed.

    Returns:
        The number of each pair's row, (pairs,), counted in the order in which rows begin, which is that of their ends.
    """
    row_of_pair, count = array("q"), 0
    rows: list[list[int]] = []  # free places of source and target, and the number
    for source, target in zip(source_lengths.tolist(), target_lengths.tolist()):
        for row in rows:
            if source <= row[0] and target <= row[1]:
                break
        else:
            if len(rows) == most:
                del rows[0]
            row = [length - 1, length, count]
            rows.append(row)
            count += 1
        row[0] -= source
        row[1] -= target
        row_of_pair.append(row[2])
    return np.frombuffer(row_of_pair, dtype=np.int64)


def pack_batch(rows: Sequence[dict[str, Any]], pad_token_id: int, packing: int, least_rows: int = 0) -> dict[str, Any]:
    """Several sentence pairs in each row, for models that keep them apart by `packing`.

    Args:
        rows: dicts with `input_ids` and `labels`, in an order in which they fit.
        pad_token_id: Fills `input_ids`; `labels` are filled with -100, which the loss ignores.
        packing: Length of a row, as in `PackingSampler`.
        least_rows: The batch has this many, filled or not, so that all batches have one shape; more where needed.

    Returns:
        `input_ids` (batch, length), `labels` (batch, length), and `packing` (see `fun_transformer.masks.Packing`).
    """
    source_lengths, target_lengths = ([len(row[name]) for row in rows] for name in ("input_ids", "labels"))
    length = int(row_length(max(source_lengths), max(target_lengths), packing))
    places = place_sentences(source_lengths, target_lengths, length)
    source_places, target_places, numbers = places
    shape = max(least_rows, count_rows(places, length)), length

    def lay(name: str, lengths: list[int], places: list[int], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens, and which sentence each belongs to, (batch, length) both."""
        tokens = np.concatenate([row[name] for row in rows])  # (tokens,)
        before = np.cumsum([0, *lengths[:-1]])  # (rows,): tokens of the rows before
        place = np.arange(len(tokens)) + np.repeat(np.array(places) - before, lengths)  # (tokens,)
        laid, sentences = np.full(shape, padding, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        laid.reshape(-1)[place], sentences.reshape(-1)[place] = tokens, np.repeat(numbers, lengths)
        return torch.from_numpy(laid), torch.from_numpy(sentences)

    input_ids, source_segment_ids = lay("input_ids", source_lengths, source_places, pad_token_id)
    labels, target_segment_ids = lay("labels", target_lengths, target_places, -100)
    packed = {"source_segment_ids": source_segment_ids, "target_segment_ids": target_segment_ids}
    return {"input_ids": input_ids, "labels": labels, "packing": packed}


def place_sentences(
    source_lengths: Sequence[int], target_lengths: Sequence[int], length: int
) -> tuple[list[int], list[int], list[int]]:
    """Lay sentence pairs into rows, one after the other; a new row begins where one does not fit.

    Returns:
        Where each source begins, and each target, counted through all rows; and each pair's number in its row, from 1.
    """
    source_places, target_places, numbers = [], [], []
    row, source, target, number = 0, 0, 0, 0  # source and target: places taken
    for source_length, target_length in zip(source_lengths, target_lengths):
        if source + source_length >= length or target + target_length > length:
            row, source, target, number = row + length, 0, 0, 0
        number += 1
        source_places.append(row + source)
        target_places.append(row + target)
        numbers.append(number)
        source, target = source + source_length, target + target_length
    return source_places, target_places, numbers


def count_rows(places: tuple[list[int], list[int], list[int]], length: int) -> int:
    """Count the rows that `place_sentences` has begun."""
    return places[0][-1] // length + 1
