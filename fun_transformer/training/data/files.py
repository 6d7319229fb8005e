"""Parallel text, from files, the Hub or the built-in data sets, to checked rows and token ids.

Whatever the form, each split becomes a `datasets.Dataset` with the text columns `source` and `target`. A row that
cannot be used (a side that is empty or no text, more tokens than allowed) stops the run or is dropped, as the recipe
says, and is counted in a `RowReport`: nothing disappears silently. Files are read by the standard library's readers,
line breaks are \n and \r\n only, and nothing is guessed: "null", "NA", "007" and "2011-03-10" stay text.
"""

import contextlib
import csv
import glob
import hashlib
import json
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import datasets
from fsspec.implementations.local import LocalFileSystem

from ..recipe.arguments import SplitArguments
from .caching import cores

COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")
FORMATS = (".jsonl", ".json", ".tsv", ".csv", ".parquet")
PAIR = datasets.Features({name: datasets.Value("string") for name in ("source", "target", "problem")})
RAGGED = "\0columns"  # marks a row with more or fewer fields than the header


def file_format(path: str) -> str:
    """A file's ending before that of its compression: ".jsonl" for "train.jsonl.xz"."""
    endings = [ending.lower() for ending in Path(path).suffixes]
    return ([ending for ending in endings if ending not in COMPRESSIONS] or [""])[-1]


def read_lines(path: str) -> Iterator[str]:
    """The lines of a text file with their line ends; a byte order mark at its beginning is no text.

    Raises:
        ValueError: the file cannot be unpacked, or a line is not UTF-8.
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
    """The rows of a jsonl, json, tsv or csv file as dicts; blank lines are no rows.

    Raises:
        ValueError: a line is not what the file's ending promises.
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
    """Parses JSON that must be an object, or a list of objects.

    Raises:
        ValueError: it is something else.
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
    """A column's value; dots reach into nested columns.

    Raises:
        KeyError: the row has no such column.
    """
    if column in row:
        return row[column]
    outer, dot, inner = column.partition(".")
    if not dot or not isinstance(row.get(outer), dict):
        raise KeyError(column)
    return column_value(row[outer], inner)


def column_names(row: dict[str, Any]) -> list[str]:
    """The columns of a row, nested ones with dots."""
    names = []
    for name, value in row.items():
        if name == RAGGED:
            continue
        names += [f"{name}.{inner}" for inner in column_names(value)] if isinstance(value, dict) else [name]
    return names


def is_text(value: Any) -> bool:
    """Whether the value is a string that UTF-8 can hold (JSON can smuggle in half a character: "\\ud83d")."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def to_pair(row: dict[str, Any], source_column: str, target_column: str) -> dict[str, str]:
    """A row of any form as `source`, `target` and `problem` ("" if the row can be used)."""
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
    """Checks that the first row has both columns.

    Raises:
        ValueError: one is missing; lists those there are.
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
    """The files that a path or a pattern such as `part-*.jsonl` names, in the order of their names."""
    return [name] if Path(name).exists() else sorted(glob.glob(name, recursive=True)) or [name]


def generate_file_pairs(
    paths: list[str], source_column: str, target_column: str, stamp: tuple
) -> Iterator[dict[str, str]]:
    """The pairs of jsonl, json, tsv or csv files; `stamp` only makes the cache notice changes."""
    for path in paths:
        for row in read_rows(path):
            yield to_pair(row, source_column, target_column)


def generate_line_pairs(source: str, target: str, stamp: tuple) -> Iterator[dict[str, str]]:
    """The pairs of two line-aligned files.

    Raises:
        ValueError: they have different numbers of lines.
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


def file_stamp(*paths: str) -> tuple:
    """What changes when one of the files, or this module, does."""
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    files = [(str(Path(path).resolve()), Path(path).stat()) for path in paths]
    return (code, *((path, stat.st_size, stat.st_mtime_ns) for path, stat in files))


@contextlib.contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """Shows or hides the progress bars of `datasets` for a while."""
    disabled = datasets.are_progress_bars_disabled()
    if not shown or not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            datasets.enable_progress_bars()


def from_generator(generator: Any, features: datasets.Features = PAIR, **arguments: Any) -> datasets.Dataset:
    """A data set on disk, made once for the same arguments; errors of the generator come out as they are.

    An argument that is a list of several files is shared out to several processes.
    """
    shards = max((len(value) for value in arguments.values() if isinstance(value, list)), default=1)
    processes = min(shards, cores()) if shards > 1 else None
    with progress_bars(shown=False):
        try:
            return datasets.Dataset.from_generator(
                generator, features=features, gen_kwargs=arguments, num_proc=processes
            )
        except datasets.exceptions.DatasetGenerationError as error:
            if isinstance(error.__cause__, ValueError):
                raise error.__cause__ from None
            raise
