r"""Read pairs of texts from files: line-aligned text, jsonl, json, tsv, csv and parquet, plain or compressed.

Whatever the form, the pairs become a `datasets.Dataset` with the text columns `source` and `target`, and `problem`:
what is wrong with the row, "" if nothing. Only \n and \r\n end a line, and no value is guessed: "null", "NA", "007"
and "2011-03-10" stay text.
"""

import contextlib
import csv
import glob
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import datasets
from fsspec.implementations.local import LocalFileSystem

from ..platform import available_cores
from ..recipe.arguments import SplitArguments

COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")
FORMATS = (".jsonl", ".json", ".tsv", ".csv", ".parquet")
PAIR = datasets.Features({name: datasets.Value("string") for name in ("source", "target", "problem")})
RAGGED = "\0columns"  # marks a row with more or fewer fields than the header


def file_format(path: str) -> str:
    """Return a file's ending before that of its compression: ".jsonl" for "train.jsonl.xz"."""
    endings = [ending.lower() for ending in Path(path).suffixes]
    return ([ending for ending in endings if ending not in COMPRESSIONS] or [""])[-1]


def read_lines(path: str) -> Iterator[str]:
    """Yield the lines of a text file with their line ends, without the byte order mark that it may begin with.

    Raises:
        ValueError: The file cannot be unpacked, or a line is not UTF-8.
    """
    try:
        with LocalFileSystem().open(path, "rb", compression="infer") as file:
            for number, line in enumerate(file, 1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}, line {number}: byte 0x{error.object[error.start]:02x} is not UTF-8. Convert the file first, "
            "for example with `iconv -f ENCODING -t UTF-8`."
        ) from error
    except Exception as error:  # each compression has its own
        raise ValueError(f"{path} cannot be read: {error or type(error).__name__}.") from error


def read_rows(path: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a jsonl, json, tsv or csv file as dicts, without blank lines.

    Raises:
        ValueError: A line is not what the file's ending promises.
    """
    ending = file_format(path)
    lines = read_lines(path)
    if ending == ".json":
        first = next((line for line in lines if line.strip()), "")
        if first.lstrip().startswith("["):
            yield from read_json(first + "".join(lines), path, list)
            return
        lines = read_lines(path)
    if ending in (".json", ".jsonl"):
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield read_json(line, f"{path}, line {number}", dict)
        return
    dialect: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if ending == ".tsv" else {}
    reader = csv.reader(lines, strict=True, **dialect)
    try:
        header = next(reader, [])
        for fields in reader:
            if fields:
                same = len(fields) == len(header)
                yield dict(zip(header, fields)) if same else dict.fromkeys(header) | {RAGGED: len(fields)}
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}. Is it really {ending[1:]}?") from error


def read_json(text: str, place: str, kind: type) -> Any:
    """Parse JSON that must be an object (`kind` is dict) or a list of objects (`kind` is list).

    Raises:
        ValueError: It is something else. The message begins with `place`.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON: {error}. One object a line is expected.") from error
    objects = value if kind is list else [value]
    if not all(isinstance(item, dict) for item in objects):
        raise ValueError(f'{place}: an object such as {{"source": "...", "target": "..."}} is expected.')
    return value


def column_value(row: dict[str, Any], column: str) -> Any:
    """Return the value of a column; dots reach into nested columns, as in "translation.en".

    Raises:
        KeyError: The row has no such column.
    """
    if column in row:
        return row[column]
    outer, dot, inner = column.partition(".")
    if not dot or not isinstance(row.get(outer), dict):
        raise KeyError(column)
    return column_value(row[outer], inner)


def column_names(row: dict[str, Any]) -> list[str]:
    """Return the names of a row's columns, nested ones with dots."""
    names = []
    for name, value in row.items():
        if name == RAGGED:
            continue
        names += [f"{name}.{inner}" for inner in column_names(value)] if isinstance(value, dict) else [name]
    return names


def is_text(value: Any) -> bool:
    r"""Return whether the value is a string that UTF-8 can hold: JSON can escape half a character, as in "\ud83d"."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def to_pair(row: dict[str, Any], source_column: str, target_column: str) -> dict[str, str]:
    """Return a row of any form as `source`, `target` and `problem` ("" if the row can be used)."""
    pair = {"source": "", "target": "", "problem": ""}
    if RAGGED in row:
        return pair | {"problem": "not as many columns as the header"}
    for side, column in (("source", source_column), ("target", target_column)):
        try:
            value = column_value(row, column)
        except KeyError:
            value = None
        pair[side] = value.strip() if is_text(value) else ""
        if not pair[side] and not pair["problem"]:
            empty = value is None or (isinstance(value, str) and not value.strip())
            pair["problem"] = f"{side} is empty" if empty else f"{side} is not text"
    return pair


def check_columns(row: dict[str, Any], split: SplitArguments, name: str) -> None:
    """Check that a row has the two columns that the recipe names for a split.

    Args:
        row: The first row of the split.
        split: What the recipe says of the split.
        name: The split's name, for the error.

    Raises:
        ValueError: A column is missing. The message lists the columns that exist.
    """
    for side, column in (("source_column", split.source_column), ("target_column", split.target_column)):
        try:
            column_value(row, column)
        except KeyError:
            raise ValueError(
                f"data.{name}.{side}: {split.dataset} has no column {column}. "
                f"Its columns are {', '.join(column_names(row))}."
            ) from None


def find_shards(name: str) -> list[str]:
    """Return the files that a path or a pattern such as `part-*.jsonl` names, sorted by name."""
    return [name] if Path(name).exists() else sorted(glob.glob(name, recursive=True)) or [name]


def generate_file_pairs(
    paths: list[str], source_column: str, target_column: str, stamp: tuple
) -> Iterator[dict[str, str]]:
    """Yield the pairs of jsonl, json, tsv or csv files; `stamp` is for the cache alone (see `from_generator`)."""
    for path in paths:
        for row in read_rows(path):
            yield to_pair(row, source_column, target_column)


def generate_line_pairs(source: str, target: str, stamp: tuple) -> Iterator[dict[str, str]]:
    """Yield the pairs of two line-aligned files; `stamp` is for the cache alone (see `from_generator`).

    Raises:
        ValueError: The files have different numbers of lines.
    """
    counts = [0, 0]
    for pair in zip_longest(read_lines(source), read_lines(target)):
        counts = [count + (line is not None) for count, line in zip(counts, pair)]
        if None not in pair:
            yield to_pair(dict(zip(("source", "target"), pair)), "source", "target")
    if counts[0] != counts[1]:
        raise ValueError(
            f"{source} has {counts[0]:,} lines and {target} has {counts[1]:,}. Line by line they must be translations."
        )


def rows_stamp(generator: Callable, files: Sequence[str]) -> tuple:
    """Return a value that changes when the rows may: with the files they come from, and with the code that reads them.

    Args:
        generator: Yields the rows. Its file counts as code, and so does this one, which has the readers.
        files: What it reads.
    """
    code = {Path(__file__), Path(inspect.getfile(generator))}
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
