"""Rows that are tokenized again whenever they are read, as their texts or the tokenizer's cuts change each time."""

from collections.abc import Callable

import numpy as np
from datasets import Dataset

from .rows import TokenRows


class FreshRows(TokenRows):
    """Rows of changing token ids; their lengths, which batches are planned by, are those on disk.

    Args:
        dataset: With `source`, `target` and their token ids as they are without a change.
        encode: Turns a batch of `source` and `target`, and `corpus` where there are several, into `input_ids` and
            `labels`.
        longest: A row that gets more tokens than this on a side is taken as it is on disk.
        change: Returns another source for (source, epoch, number of the row); the source as it is when None.
    """

    def __init__(
        self,
        dataset: Dataset,
        encode: Callable[[dict[str, list]], dict[str, list[list[int]]]],
        longest: float,
        change: Callable[[str, int, int], str] | None = None,
    ):
        super().__init__(dataset)
        self.texts = dataset.select_columns([n for n in ("source", "target", "corpus") if n in dataset.column_names])
        self.encode, self.longest, self.change = encode, longest, change

    def read(self, rows: np.ndarray, epoch: int) -> list[dict[str, np.ndarray]]:
        """Return rows as a pass over the data shows them.

        Args:
            rows: (batch,) their numbers.
            epoch: Number of the pass, from 0.
        """
        texts = self.texts[[int(row) for row in rows]]
        if self.change is not None:
            numbered = zip(texts["source"], rows, strict=True)
            texts["source"] = [self.change(text, epoch, int(row)) for text, row in numbered]
        encoded = self.encode(texts)
        sides = zip(rows, encoded["input_ids"], encoded["labels"], strict=True)
        return [
            {"input_ids": np.array(source), "labels": np.array(target)}
            if max(len(source), len(target)) <= self.longest
            else self[row]
            for row, source, target in sides
        ]
