"""TODO data/packing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .batches import TokenBudgetBatches


def row_length(source_length: Any, target_length: Any, packing: int) -> Any:
    """Length of the packed rows that a sentence pair goes to: `packing`, doubled until source and target fit.

    A source leaves one place free, see `fun_transformer.masks.Packing`. Numbers or arrays of them.
    """
    needed = np.maximum(np.asarray(source_length) + 1, target_length)
    return packing * 2 ** np.ceil(np.log2(np.maximum(needed / packing, 1.0))).astype(np.int64)


def row_count(length: int, batch_tokens: int) -> int:
    """How many packed rows of a length make a batch: a row of sources and a row of targets each."""
    return max(1, batch_tokens // (2 * length))


class PackedBatches(TokenBudgetBatches):
    """Batches of sentences that fill rows of one length, in random order; all else is as in `TokenBudgetBatches`.

    Sentences that are too long for a row make batches of their own, of fewer and longer rows.

    Args:
        packing: Length of a row.
    """

    def __init__(self, *args, packing: int, **kwargs):
        super().__init__(*args, **kwargs)
        self.packing = packing

    def size(self, rows):
        length = int(row_length(self.source_lengths[rows].max(), self.target_lengths[rows].max(), self.packing))
        return 2 * length * row_count(length, self.batch_tokens)

    def _sort(self, rows, rng):
        return rng.permutation(len(rows))

    def _cut(self, order):
        lengths = row_length(self.source_lengths[order], self.target_lengths[order], self.packing)  # (rows,)
        batches = []
        for length in np.unique(lengths):
            chosen = order[lengths == length]
            filled = fill_rows(self.source_lengths[chosen], self.target_lengths[chosen], length)
            count = row_count(length, self.batch_tokens)
            batches += [
                chosen[np.concatenate(filled[start : start + count])] for start in range(0, len(filled), count)
            ]
        return batches


def fill_rows(source_lengths: np.ndarray, target_lengths: np.ndarray, length: int, most: int = 12) -> list[list[int]]:
    """Put each sentence pair into the first row that has room for it; of `most` such rows the oldest is then closed.

    Returns:
        For each row the numbers of its pairs.
    """
    closed: list[list[Any]] = []
    rows: list[list[Any]] = []  # free places of source and target, and the pairs
    for number, (source, target) in enumerate(zip(source_lengths.tolist(), target_lengths.tolist())):
        for row in rows:
            if source <= row[0] and target <= row[1]:
                break
        else:
            if len(rows) == most:
                closed.append(rows.pop(0))
            row = [length - 1, length, []]
            rows.append(row)
        row[0] -= source
        row[1] -= target
        row[2].append(number)
    return [pairs for _, _, pairs in closed + rows]


def pack_batch(rows: Sequence[dict[str, Any]], pad_token_id: int, packing: int, batch_tokens: int) -> dict[str, Any]:
    """Several sentence pairs in each row, for models that keep them apart by `packing`.

    Args:
        rows: dicts with `input_ids` and `labels`, in an order in which they fit.
        pad_token_id: Fills `input_ids`; `labels` are filled with -100, which the loss ignores.
        packing, batch_tokens: As in `PackedBatches`; they decide the shape.

    Returns:
        `input_ids` (batch, length), `labels` (batch, length), and `packing` (see `fun_transformer.masks.Packing`).
    """
    source_lengths, target_lengths = ([len(row[name]) for row in rows] for name in ("input_ids", "labels"))
    length = int(row_length(max(source_lengths), max(target_lengths), packing))
    shape = row_count(length, batch_tokens), length
    source_places, target_places, numbers = place_sentences(source_lengths, target_lengths, length)

    def lay(name: str, lengths: list[int], places: list[int], filler: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens, and which sentence each belongs to, (batch, length) both."""
        tokens = np.concatenate([row[name] for row in rows])  # (tokens,)
        before = np.cumsum([0, *lengths[:-1]])  # (rows,): tokens of the rows before
        place = np.arange(len(tokens)) + np.repeat(np.array(places) - before, lengths)  # (tokens,)
        laid, sentences = np.full(shape, filler, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        laid.reshape(-1)[place], sentences.reshape(-1)[place] = tokens, np.repeat(numbers, lengths)
        return torch.from_numpy(laid), torch.from_numpy(sentences)

    input_ids, source_sentences = lay("input_ids", source_lengths, source_places, pad_token_id)
    labels, target_sentences = lay("labels", target_lengths, target_places, -100)
    packed = {"source_sentences": source_sentences, "target_sentences": target_sentences}
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
