"""The batches of a run without end, and the run's position in them, from which a resumed run goes on."""

import functools
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import recursively_apply, send_to_device

from .batches import PaddedBatches
from .rows import TokenRows


class MicroBatch(NamedTuple):
    """One of the batches that a step accumulates, and its place in the data."""

    epoch: int
    batches: list[np.ndarray]  # the rows of all batches of the epoch
    number: int  # of this one
    tensors: dict[str, Any]
    items: int  # that the loss is a mean of
    tokens: int  # without padding

    @property
    def rows(self) -> np.ndarray:
        """The numbers of its rows."""
        return self.batches[self.number]


class BatchStream:
    """Batches epoch after epoch; the position moves when they are trained (`advance`), not when they are made.

    Args:
        rows: The training rows.
        batches: Chooses rows and turns them into tensors.
        device: Where the model is.
        prefetch: Make the next batches while the device computes.

    Attributes:
        epoch: Number of the pass over the data, from 0.
        batch: Batches of this epoch that are done, on each process.
        resized: (processes, batches) of the parts of this epoch that were trained on other numbers of processes.
    """

    def __init__(self, rows: TokenRows, batches: PaddedBatches, device: torch.device, prefetch: bool):
        self.rows, self.source, self.device, self.prefetch = rows, batches, device, prefetch
        self.world_size = batches.sampler.share.world_size
        self.epoch, self.batch, self.resized = 0, 0, list[tuple[int, int]]()
        self.of_epoch: list[np.ndarray] = []
        self.made: list[MicroBatch] | None = None  # those that are made already
        self.begin()

    def begin(self, first: Sequence[np.ndarray] = ()) -> None:
        """Begin to make batches at the position, or with the given ones, which a dry run looks at."""
        self.of_epoch = [*first, *self.source.batches(self.epoch, self.resized)]
        self.made, self.endless = None, self.make()

    def make(self) -> Iterator[MicroBatch]:
        """Make batches without end."""
        epoch, first, batches = self.epoch, self.batch, self.of_epoch
        while True:
            for number in range(first, len(batches)):
                rows = self.source.refresh(self.rows.read(batches[number], epoch), batches[number], epoch)
                tensors = self.source.collate(rows)
                items, tokens = self.source.objective.items(tensors), self.source.count_tokens(tensors)
                yield MicroBatch(epoch, batches, number, tensors, items, tokens)
            epoch, first, batches = epoch + 1, 0, self.source.batches(epoch + 1)

    def take(self, count: int) -> list[MicroBatch]:
        """Take the batches of the next step, on their way to the device."""
        if self.made is not None:
            taken, self.made = self.made, None
            return taken
        taken = [next(self.endless) for _ in range(count)]
        tensors = [batch.tensors for batch in taken]
        if self.device.type == "cuda":  # which fetches them from pinned memory while the processor goes on
            tensors = recursively_apply(torch.Tensor.pin_memory, tensors)
        tensors = send_to_device(tensors, self.device, non_blocking=True)
        return [batch._replace(tensors=there) for batch, there in zip(taken, tensors, strict=True)]

    def make_ahead(self, count: int) -> None:
        """Make the batches of the next step, while the device computes this one."""
        if self.prefetch:
            self.made = self.take(count)

    def advance(self, taken: Sequence[MicroBatch]) -> None:
        """Move the position past these batches."""
        last = taken[-1]
        if last.epoch != self.epoch:
            self.resized = []
        self.epoch, self.of_epoch, self.batch = last.epoch, last.batches, last.number + 1

    def epochs(self) -> float:
        """Count the passes over the data so far."""
        earlier = sum(processes * batches for processes, batches in self.resized)
        here = self.world_size * self.batch
        return self.epoch + (earlier + here) / (earlier + self.world_size * len(self.of_epoch))

    @functools.cached_property
    def checksum(self) -> int:
        """Tells other training rows from these."""
        return self.rows.checksum()

    def has_same_rows(self, state: dict[str, Any]) -> bool:
        """Tell whether a checkpoint was trained on the same rows; version 0.1.0 noted their lengths only."""
        if "rows" in state:
            return state["rows"] == self.checksum
        lengths = (self.rows.source_lengths, self.rows.target_lengths)
        parts = [np.ascontiguousarray(part, dtype=np.int64).tobytes() for part in lengths]
        return state["data"] == zlib.crc32(b"".join(parts))

    def is_cut_alike(self, state: dict[str, Any]) -> bool:
        """Tell whether a checkpoint's batches were cut as these are.

        Version 0.1.0 counted the labels of language models and taggers as tokens of their own.
        """
        return "rows" in state or self.source.objective.counts_targets

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "resized": self.resized,
            "world_size": self.world_size,
            "rows": self.checksum,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint, perhaps of another number of processes; rows that changed begin this epoch again."""
        goes_on = self.has_same_rows(state) and self.is_cut_alike(state)
        self.epoch, self.batch = state["epoch"], state["batch"] if goes_on else 0
        self.resized = [(processes, batches) for processes, batches in state["resized"]] if goes_on else []
        if state["world_size"] != self.world_size:
            if self.batch:
                self.resized.append((state["world_size"], self.batch))
            self.batch = 0
        self.begin()
