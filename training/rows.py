"""Tokenised rows in two flat arrays: a million sentence pairs without a million Python lists."""

import numpy as np
from datasets import Dataset


class TokenRows:
    """Rows of `input_ids` and `labels`, read from a data set once.

    Attributes:
        source_lengths, target_lengths: (rows,) number of tokens.
    """

    def __init__(self, dataset: Dataset):
        self.sources, self.source_starts = _flatten(dataset, "input_ids")
        self.targets, self.target_starts = _flatten(dataset, "labels")
        self.source_lengths = np.diff(self.source_starts)
        self.target_lengths = np.diff(self.target_starts)

    def __len__(self) -> int:
        return len(self.source_lengths)

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        return {
            "input_ids": self.sources[self.source_starts[row] : self.source_starts[row + 1]],
            "labels": self.targets[self.target_starts[row] : self.target_starts[row + 1]],
        }


def _flatten(dataset: Dataset, column: str) -> tuple[np.ndarray, np.ndarray]:
    """All tokens of a column one after another (tokens,), and where each row starts (rows + 1,)."""
    lists = dataset.select_columns([column]).with_format("arrow")[:].column(column).combine_chunks()
    starts = lists.offsets.to_numpy().astype(np.int64)
    tokens = lists.values.to_numpy()[starts[0] : starts[-1]].astype(np.int64)
    return tokens, starts - starts[0]
