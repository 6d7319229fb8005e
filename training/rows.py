"""Tokenised rows, read where they lie on disk: a hundred million sentence pairs need no more memory than one million.

A `datasets.Dataset` is a memory-mapped Arrow file: chunks of rows, and for each column of lists all values of a chunk
in one array, with the place where each list begins in another. A row is a view into such an array, which costs no copy
and a microsecond or two. Only the lengths, which the batches are made of, are held in memory: 8 bytes a row. What is
read often stays in the system's page cache, as far as there is room.
"""

import numpy as np
import pyarrow as pa
from datasets import Dataset


class TokenRows:
    """Rows of `input_ids` and `labels`.

    Args:
        dataset: Its tables are read in place unless rows of it were selected; `flatten_indices()` undoes that.

    Attributes:
        source_lengths, target_lengths: (rows,) number of tokens.
        corpora: (rows,) which corpus each row is from; None where there is one.
    """

    def __init__(self, dataset: Dataset):
        table = dataset.with_format("arrow")[:]
        self.sources, self.targets = TokenColumn(table["input_ids"]), TokenColumn(table["labels"])
        self.source_lengths, self.target_lengths = self.sources.lengths, self.targets.lengths
        self.corpora = table["corpus"].to_numpy() if "corpus" in table.column_names else None

    def __len__(self) -> int:
        return len(self.source_lengths)

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        return {"input_ids": self.sources[row], "labels": self.targets[row]}


class TokenColumn:
    """A column of lists of token ids.

    Attributes:
        lengths: (rows,) number of tokens.
    """

    def __init__(self, column: pa.ChunkedArray):
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self.starts = [chunk.offsets.to_numpy() for chunk in chunks]  # each (rows of the chunk + 1,)
        self.tokens = [chunk.values.to_numpy() for chunk in chunks]  # each (tokens,)
        self.lengths = np.concatenate([np.diff(starts).astype(np.int32) for starts in self.starts])
        self.first_rows = np.cumsum([0, *map(len, chunks)])[:-1]  # of each chunk

    def __getitem__(self, row: int) -> np.ndarray:
        chunk = int(self.first_rows.searchsorted(row, side="right")) - 1
        starts, place = self.starts[chunk], row - self.first_rows[chunk]
        return self.tokens[chunk][starts[place] : starts[place + 1]].astype(np.int64)  # what torch takes as ids
