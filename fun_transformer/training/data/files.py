"""Turn rows that are read one by one into a data set on disk.

They become a `datasets.Dataset` with the text columns `source` and `target`, `problem`, which is what is wrong with
the row ("" if nothing), and `place`, which is where the user finds it: "line 3".
"""

import contextlib
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import datasets

from ..platform import available_cores
from . import columns as columns_module
from . import features as features_module
from . import readers
from .columns import PAIR, Columns, file_pairs, to_pairs
from .readers import DataFile, Row, number_lines, read_rows, to_pair


def generate_file_pairs(shards: list[DataFile], columns: Columns, stamp: tuple) -> Iterator[dict[str, Any]]:
    """Yield the pairs of files; `stamp` is for the cache alone (see `from_generator`)."""
    for file in shards:
        folder = str(Path(file.path).absolute().parent)
        for row in read_rows(file, columns.names):
            yield from to_pairs(row, columns) if columns.modality == "text" else file_pairs(row, columns, folder)


def generate_line_pairs(source: str, target: str, stamp: tuple) -> Iterator[dict[str, str]]:
    """Yield the pairs of two line-aligned files; `stamp` is for the cache alone (see `from_generator`).

    Raises:
        ValueError: The files have different numbers of lines.
    """
    counts = [0, 0]
    for lines in zip_longest(number_lines(source), number_lines(target)):
        counts = [line.number if line else count for count, line in zip(counts, lines)]
        if None not in lines:
            sides = dict(zip(("source", "target"), lines))
            problem = next((f"{side} is {line.problem}" for side, line in sides.items() if line.problem), "")
            values = {side: line.text for side, line in sides.items()}
            yield to_pair(Row(f"line {counts[0]}", values, problem), "source", "target")
    if counts[0] != counts[1]:
        raise ValueError(
            f"{source} has {counts[0]:,} lines and {target} has {counts[1]:,}. Line by line they must be translations."
        )


def rows_stamp(generator: Callable, files: Sequence[str]) -> tuple:
    """Return a value that changes when the rows may: with the files they come from, and with the code that reads them.

    Args:
        generator: Yields the rows. Its file counts as code, and so do this one and those that it reads rows with.
        files: What it reads.
    """
    modules = (readers, columns_module, features_module)
    code = {Path(__file__), Path(inspect.getfile(generator)), *(Path(str(module.__file__)) for module in modules)}
    digests = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(code))
    states = [(str(Path(path).resolve()), Path(path).stat()) for path in files]
    return (*digests, *((path, state.st_size, state.st_mtime_ns) for path, state in states))


@contextlib.contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """Hide the progress bars of `datasets` inside the block, unless they are to be shown and stderr is a terminal."""
    disabled = datasets.are_progress_bars_disabled()
    if not shown or not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            datasets.enable_progress_bars()


def from_generator(
    generator: Callable, files: Sequence[str], features: datasets.Features = PAIR, **arguments: Any
) -> datasets.Dataset:
    """Return the rows of a generator as a data set on disk, which is made once for the same files and arguments.

    Args:
        generator: Called with the arguments, and with a `stamp` that the cache knows the rows by. It runs in several
            processes, each with a part of the list, where an argument is a list of several files.
        files: All files that the generator reads.
        features: Of its rows.
        arguments: Given to the generator.

    Raises:
        ValueError: The generator raised it.
    """
    arguments["stamp"] = rows_stamp(generator, files)
    shards = max((len(value) for value in arguments.values() if isinstance(value, list)), default=1)
    processes = min(shards, available_cores()) if shards > 1 else None
    with progress_bars(shown=False):
        try:
            return datasets.Dataset.from_generator(
                generator, features=features, gen_kwargs=arguments, num_proc=processes
            )
        except datasets.exceptions.DatasetGenerationError as error:
            if isinstance(error.__cause__, ValueError):
                raise error.__cause__ from None
            raise
