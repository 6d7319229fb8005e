"""Read tokenized rows directly from disk: a hundred million sentence pairs need little more memory than one million.

A `datasets.Dataset` is a memory-mapped Arrow file: chunks of rows, and for each column of lists all values of a chunk
in one array, with the place where each list begins in another. A row is a view into such an array, which costs no copy
and a few microseconds. Only the lengths, which the batches are made of, are held in memory: 8 bytes a row, and 8 more
where rows were selected. What is read often stays in the system's page cache, as far as there is room.
"""

import json
import zlib
from bisect import bisect_right
from itertools import accumulate

import numpy as np
import pyarrow as pa
from datasets import Dataset

from .caching import remembered

BLOCK = 50_000  # rows at once
NUMBERS = ("input_ids", "labels", "features", "frames", "source_length")  # columns that hold no text
FACTOR = 0x9E3779B97F4A7C15  # odd, so that no change of a single token goes unnoticed


def checksum_of(dataset: Dataset) -> np.ndarray:
    """Compute the checksum of tokenized rows: (1,)."""
    return np.array([TokenRows(dataset).compute_checksum()], dtype=np.int64)


def checksum_with_texts(dataset: Dataset) -> int:
    """Tell other rows from these by their tokens and by their texts, references included."""
    checksum = TokenRows(dataset).checksum()
    texts = dataset.select_columns([name for name in dataset.column_names if name not in NUMBERS])
    for batch in texts.iter(1000):
        checksum = zlib.crc32(json.dumps(batch, sort_keys=True, default=str).encode(), checksum)
    return checksum


class TokenRows:
    """Rows of `input_ids` and `labels`, by number; of speech and pictures `features` in the place of the former.

    Attributes:
        source_lengths: Number of tokens of each source, or of vectors that the encoder makes of it, (rows,).
        target_lengths: Number of tokens of each target, (rows,).
        corpora: The number of the corpus that each row is from, (rows,); None where there is one corpus.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        # `dataset[...]` would copy selected rows; where each is in the table is known to `_indices` only.
        selected = dataset._indices
        self.places = None if selected is None else selected.column(0).to_numpy().astype(np.int64)  # (rows,)
        columns = {name: dataset.data.column(name) for name in dataset.column_names}
        self.source_name = "features" if "features" in columns else "input_ids"
        self.sources: TokenColumn | FeatureColumn
        if "features" in columns:
            self.sources = FeatureColumn(columns["features"], columns["frames"], columns["source_length"])
        else:
            self.sources = TokenColumn(columns["input_ids"])
        self.targets = TokenColumn(columns["labels"])
        self.source_lengths, self.target_lengths = self.select(self.sources.lengths), self.select(self.targets.lengths)
        self.corpora = self.select(columns["corpus"].to_numpy()) if "corpus" in columns else None

    def select(self, values: np.ndarray) -> np.ndarray:
        """Return the values of our rows from those of all rows of the table: (rows,)."""
        return values if self.places is None else values[self.places]

    def mean_lengths(self) -> tuple[float, float]:
        """Take the mean number of tokens of the sources and of the targets."""
        return float(self.source_lengths.mean()), float(self.target_lengths.mean())

    def checksum(self) -> int:
        """Tell other rows, or rows in another order, from these; see `compute_checksum`."""
        return int(remembered(self.dataset, checksum_of)[0])

    def compute_checksum(self) -> int:
        """Compute the checksum of all tokens, in their order: under a second for a million rows."""
        parts = [self.select(self.sources.numbers()), self.select(self.targets.numbers())]
        if self.corpora is not None:
            parts.append(self.corpora.astype(np.uint64))
        return zlib.crc32(b"".join(np.ascontiguousarray(part).data for part in parts))

    def __len__(self) -> int:
        return len(self.source_lengths)

    def read(self, rows: np.ndarray, epoch: int) -> list[dict[str, np.ndarray]]:
        """Return rows as a pass over the data shows them: here all passes alike.

        Args:
            rows: (batch,) their numbers.
            epoch: Number of the pass, from 0.
        """
        return [self[row] for row in rows]

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        place = int(row if self.places is None else self.places[row])
        return {self.source_name: self.sources[place], "labels": self.targets[place]}


class TokenColumn:
    """A column of lists of token ids, one list a row.

    Attributes:
        lengths: Number of tokens of each row, (rows,).
    """

    def __init__(self, column: pa.ChunkedArray):
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self.starts = [chunk.offsets.to_numpy() for chunk in chunks]  # each (rows of the chunk + 1,)
        self.tokens = [chunk.values.to_numpy() for chunk in chunks]  # each (tokens,)
        self.lengths = np.concatenate([np.diff(starts).astype(np.int32) for starts in self.starts])
        self.first_rows = list(accumulate(map(len, chunks), initial=0))[:-1]  # of each chunk

    def numbers(self) -> np.ndarray:
        """Turn each row into a number, the sum of (token + 1) * FACTOR^place modulo 2^64: (rows,)."""
        weights = np.cumprod(np.full(self.lengths.max(), FACTOR, np.uint64))
        numbers = [np.zeros(0, np.uint64)]
        for starts, tokens in zip(self.starts, self.tokens, strict=True):
            for first in range(0, len(starts) - 1, BLOCK):
                of_block = starts[first : first + BLOCK + 1].astype(np.int64)
                begin, lengths = of_block[0], np.diff(of_block)
                places = np.arange(lengths.sum()) - np.repeat(of_block[:-1] - begin, lengths)  # (tokens,)
                terms = (tokens[begin : of_block[-1]].astype(np.int64).view(np.uint64) + np.uint64(1)) * weights[
                    places
                ]
                sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms)])
                numbers.append(sums[of_block[1:] - begin] - sums[of_block[:-1] - begin])
        return np.concatenate(numbers)

    def __getitem__(self, row: int) -> np.ndarray:
        chunk = bisect_right(self.first_rows, row) - 1
        starts, place = self.starts[chunk], row - self.first_rows[chunk]
        return self.tokens[chunk][starts[place] : starts[place + 1]]


class FeatureColumn:
    """A column of features in float16, a matrix for each row.

    Args:
        column: The numbers of each row, as bytes.
        frames: Number of rows of each matrix.
        lengths: Number of vectors that the encoder makes of it.

    Attributes:
        lengths: As given, (rows,).
    """

    def __init__(self, column: pa.ChunkedArray, frames: pa.ChunkedArray, lengths: pa.ChunkedArray):
        self.chunks = [chunk for chunk in column.chunks if len(chunk)]
        self.frames, self.lengths = frames.to_numpy(), lengths.to_numpy()
        self.first_rows = list(accumulate(map(len, self.chunks), initial=0))[:-1]  # of each chunk

    def numbers(self) -> np.ndarray:
        """Turn each row into a number: (rows,)."""
        values = (value.as_buffer() for chunk in self.chunks for value in chunk)
        return np.fromiter(map(zlib.crc32, values), np.uint64, len(self.frames))

    def __getitem__(self, row: int) -> np.ndarray:
        chunk = bisect_right(self.first_rows, row) - 1
        content = self.chunks[chunk][row - self.first_rows[chunk]].as_buffer()
        return np.frombuffer(content, np.float16).reshape(self.frames[row], -1)  # (frames, width)
