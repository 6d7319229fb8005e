r"""Read the rows of files, whatever is in them: lines, jsonl, json, tsv, csv and parquet, plain or compressed.

There is one reader for each form, wherever the file is from. An odd row is marked with what is wrong with it and the
next is read; only a file that is damaged as a whole is an error. Each row knows its place in its file. Only \n and
\r\n end a line, and no value is guessed: "null", "NA", "007" and "2011-03-10" stay text.

A line, or a record of several, has at most `ROW_BYTES`: a small archive may unpack to any size.
"""

import codecs
import csv
import io
import json
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from fsspec.compression import compr as unpackers
from fsspec.utils import infer_compression

COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")
FORMATS = (".jsonl", ".json", ".tsv", ".csv", ".parquet")
ROW_BYTES = 2**24
CHUNK = 2**18
TOO_LONG = f"longer than {ROW_BYTES:,} bytes"
NOT_UTF8 = "not UTF-8 (`iconv -f ENCODING -t UTF-8` converts a file)"
REPEATED = "\0repeated"  # the entry of a row for names that it has more than once
SEVERAL = object()  # the value of such a name


class DataFile(NamedTuple):
    """A file with rows.

    Attributes:
        path: Where it is.
        name: What the user calls it; its endings say its form.
        label: Comes before the number of a row in messages; "" where the corpus has one file.
        delimiter: Between the columns of tsv and csv; "" for that of the form.
        is_quoted: Whether double quotes enclose fields of a csv file.
        header: The names of columns where the first line does not have them.
    """

    path: str
    name: str
    label: str = ""
    delimiter: str = ""
    is_quoted: bool = True
    header: tuple[str, ...] = ()


class Line(NamedTuple):
    """A line of a file, counted from 1, with its line end; `problem` is what is wrong with it, "" if nothing."""

    number: int
    text: str
    problem: str = ""


class Row(NamedTuple):
    """A row of a file: where it is, its values by column, and what is wrong with it, "" if nothing."""

    place: str
    values: dict[str, Any]
    problem: str = ""


def file_format(path: str) -> str:
    """Return a file's ending before that of its compression: ".jsonl" for "train.jsonl.xz"."""
    endings = [ending.lower() for ending in Path(path).suffixes]
    return ([ending for ending in endings if ending not in COMPRESSIONS] or [""])[-1]


@contextmanager
def open_unpacked(path: str, name: str) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, unpacked as the ending of its name says."""
    with open(path, "rb") as packed:
        if Path(name).suffix.lower() == ".zst":
            import pyarrow  # comes with `datasets`

            yield io.BufferedReader(pyarrow.CompressedInputStream(packed, "zstd"))
        else:
            with unpackers[infer_compression(name)](packed, mode="rb") as file:
                yield file


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn whatever a library says of a damaged file into a ValueError that names the file."""
    try:
        yield
    except Exception as error:  # each compression has its own
        raise ValueError(f"{name} cannot be read: {error or type(error).__name__}.") from error


def number_lines(path: str, name: str = "") -> Iterator[Line]:
    """Yield all lines of a text file, without the byte order mark that it may begin with.

    Args:
        path: Of the file.
        name: What the user calls it; its path when "".

    Raises:
        ValueError: The file cannot be unpacked.
    """
    number = 0
    try:
        with open_unpacked(path, name or path) as file:
            while line := file.readline(ROW_BYTES + 1):
                number += 1
                if len(line) > ROW_BYTES:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(CHUNK)
                    yield Line(number, "", TOO_LONG)
                    continue
                try:
                    yield Line(number, line.decode("utf-8-sig" if number == 1 else "utf-8"))
                except UnicodeDecodeError:
                    yield Line(number, "", NOT_UTF8)
    except Exception as error:
        where = f" after line {number:,}" if number else ""
        raise ValueError(f"{name or path} cannot be read{where}: {error or type(error).__name__}.") from error


def read_lines(path: str | Path) -> Iterator[str]:
    """Yield the lines of a text file with their line ends, where every line is needed.

    Raises:
        ValueError: The file cannot be unpacked, or a line cannot be used.
    """
    for number, text, problem in number_lines(str(path)):
        if problem:
            raise ValueError(f"{path}, line {number} is {problem}.")
        yield text


def read_rows(file: DataFile, columns: Sequence[str] = ()) -> Iterator[Row]:
    """Yield the rows of a jsonl, json, tsv, csv or parquet file, without blank lines.

    Args:
        file: The file.
        columns: What will be asked for, so that the rest need not be read; all when empty.

    Raises:
        ValueError: The file is damaged, or is not what its ending promises.
    """
    ending = file_format(file.name)
    if ending == ".parquet":
        yield from read_parquet(file, columns)
    elif ending == ".json" and begins_list(file):
        yield from read_json_list(file)
    elif ending in (".json", ".jsonl"):
        before = place_prefix(file, "line")
        for number, text, problem in number_lines(file.path, file.name):
            if problem:
                yield Row(f"{before}{number}", {}, problem)
            elif not text.isspace():
                yield Row(f"{before}{number}", *parse_object(text))
    else:
        yield from read_table(file, ending)


def place_prefix(file: DataFile, unit: str) -> str:
    """Return what comes before a number in the place of a row: "line ", or "part-2.jsonl line " of several files."""
    return f"{file.label} {unit} ".lstrip()


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the names and values of a JSON object as a dict, which remembers the names that were there twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        values[REPEATED] = {name for name, count in Counter(name for name, _ in pairs).items() if count > 1}
    return values


DECODER = json.JSONDecoder(object_pairs_hook=to_object)


def parse_object(text: str) -> tuple[dict[str, Any], str]:
    """Return the object that a text is, and what is wrong with the text, "" if nothing."""
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError:
        return {}, "not JSON (one object a line is expected)"
    except (RecursionError, ValueError) as error:
        return {}, json_limit(error)
    return (value, "") if isinstance(value, dict) else ({}, "no JSON object")


def json_limit(error: Exception) -> str:
    """Return which limit of Python JSON has gone over."""
    return "JSON nested too deeply" if isinstance(error, RecursionError) else "a number of too many digits"


def begins_list(file: DataFile) -> bool:
    """Return whether the first character of a file, spaces apart, is a bracket.

    Raises:
        ValueError: The file cannot be unpacked.
    """
    with explained(file.name), open_unpacked(file.path, file.name) as unpacked:
        begin = unpacked.read(CHUNK).removeprefix(codecs.BOM_UTF8).lstrip()
        while not begin and (chunk := unpacked.read(CHUNK)):
            begin = chunk.lstrip()
        return begin.startswith(b"[")


def read_texts(file: DataFile) -> Iterator[str]:
    """Yield a text file in pieces that have nothing to do with its lines; what is not UTF-8 becomes no valid text.

    Raises:
        ValueError: The file cannot be unpacked.
    """
    decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
    with explained(file.name), open_unpacked(file.path, file.name) as unpacked:
        while chunk := unpacked.read(CHUNK):
            yield decode(chunk)


def read_json_list(file: DataFile) -> Iterator[Row]:
    """Yield the items of a JSON list, one after the other: the file need not fit into memory.

    Raises:
        ValueError: What is found is no JSON list, or an item has more than `ROW_BYTES` characters.
    """
    pieces = read_texts(file)
    text = next(piece for piece in pieces if piece.strip()).lstrip()[1:]
    at, number, wanted, before = 0, 0, CHUNK, place_prefix(file, "row")
    while True:
        text, at = text[at:], 0
        while len(text) < wanted and (piece := next(pieces, None)) is not None:
            text += piece
        is_all = len(text) < wanted
        while end_or_item := re.compile(r"\s*\]|\s*,\s*" if number else r"\s*\]|\s*").match(text, at):
            if end_or_item[0].endswith("]"):
                if any(rest.strip() for rest in chain([text[end_or_item.end() :]], pieces)):
                    raise ValueError(f"{file.name}: there is text after the end of its JSON list.")
                return
            try:
                value, stop = DECODER.raw_decode(text, end_or_item.end())
            except json.JSONDecodeError:
                break
            except (RecursionError, ValueError) as error:
                raise ValueError(f"{file.name}: row {number + 1} is {json_limit(error)}.") from error
            if stop == len(text) and not is_all:
                break
            at, number, wanted = stop, number + 1, CHUNK
            is_object = isinstance(value, dict)
            yield Row(f"{before}{number}", value if is_object else {}, "" if is_object else "no JSON object")
        if is_all or len(text) - at > ROW_BYTES:
            problem = "not JSON" if is_all else TOO_LONG
            raise ValueError(f"{file.name}: row {number + 1} is {problem}. A list of objects is expected.")
        wanted = 2 * max(CHUNK, len(text) - at)


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_table(file: DataFile, ending: str) -> Iterator[Row]:
    """Yield the rows of a tsv or csv file.

    Raises:
        ValueError: The line with the names of the columns cannot be used.
    """
    header, before = list(file.header), place_prefix(file, "line")
    repeated = {name for name, count in Counter(header).items() if count > 1}
    for number, fields, problem in table_records(file, ending):
        if not header:
            if problem:
                raise ValueError(f"{file.name}, line {number}, which should name the columns, is {problem}.")
            header = fields
            repeated = {name for name, count in Counter(header).items() if count > 1}
            continue
        if not problem and len(fields) != len(header):
            problem = "not as many columns as the header"
        values: dict[str, Any] = {} if problem else dict(zip(header, fields))
        if repeated and not problem:
            values[REPEATED] = repeated
        yield Row(f"{before}{number}", values, problem)


def table_records(file: DataFile, ending: str) -> Iterator[tuple[int, list[str], str]]:
    """Yield (number of the line, fields, problem) of all records of a tsv or csv file, its header included."""
    is_quoted = ending == ".csv" and file.is_quoted
    delimiter = file.delimiter or ("\t" if ending == ".tsv" else ",")
    lines = number_lines(file.path, file.name)
    return split_quoted(lines, delimiter) if is_quoted else split_plain(lines, delimiter)


def split_plain(lines: Iterator[Line], delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """Yield (number of the line, fields, problem) of tables without quotes, without blank lines."""
    for number, text, problem in lines:
        text = text.rstrip("\r\n")
        if text or problem:
            yield number, text.split(delimiter), problem


def split_quoted(lines: Iterator[Line], delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """Yield (number of the first line, fields, problem) of each record of a csv file, without blank lines.

    A quote that is never closed would run to the end of the file. So where a record cannot be read, its first line
    alone is the bad one, and reading goes on with the next line.
    """
    csv.field_size_limit(max(csv.field_size_limit(), ROW_BYTES))  # of the whole process, so it only ever rises
    again: deque[Line] = deque()
    while first := again.popleft() if again else next(lines, None):
        taken, problem, fields = [first], first.problem, list[str]()
        if not problem:
            try:
                fields = next(csv.reader(record_lines(taken, again, lines), delimiter=delimiter, strict=True))
            except csv.Error as error:
                is_return = "new-line" in str(error)
                problem = "a carriage return outside quotes" if is_return else "a quote that is not closed or doubled"
                again.extendleft(reversed(taken[1:]))
        if fields or problem:
            yield first.number, fields, problem


def record_lines(taken: list[Line], again: deque[Line], lines: Iterator[Line]) -> Iterator[str]:
    """Yield as many lines as one record may need, and add them to `taken`, which begins with the first."""
    yield taken[0].text
    size = len(taken[0].text)
    while line := again.popleft() if again else next(lines, None):
        taken.append(line)
        size += len(line.text)
        if line.problem or size > ROW_BYTES:
            return
        yield line.text


def read_parquet(file: DataFile, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a parquet file, with those columns alone that `columns` ask for; all when empty.

    Raises:
        ValueError: The file cannot be read.
    """
    from pyarrow import parquet  # comes with `datasets`

    number, before = 0, place_prefix(file, "row")
    with explained(file.name), open(file.path, "rb") as binary:
        table = parquet.ParquetFile(binary)
        names = table.schema_arrow.names
        wanted = [name for name in names if any(f"{column}.".startswith(f"{name}.") for column in columns)]
        repeated = {name for name, count in Counter(names).items() if count > 1}
        for batch in table.iter_batches(1000, columns=wanted or None):
            for values, problem in batch_rows(batch):
                number += 1
                if repeated:
                    values[REPEATED] = repeated
                yield Row(f"{before}{number}", values, problem)


def batch_rows(batch: Any) -> list[tuple[dict[str, Any], str]]:
    """Return (values, problem) of the rows of a `pyarrow.RecordBatch`, whose strings need not be UTF-8."""
    try:
        return [(values, "") for values in batch.to_pylist()]
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [({}, NOT_UTF8)]
        return [row for number in range(batch.num_rows) for row in batch_rows(batch.slice(number, 1))]


# ── columns ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def column_value(row: dict[str, Any], column: str) -> Any:
    """Return the value of a column, `SEVERAL` if it is there twice; dots reach into columns, as in "translation.en".

    Raises:
        KeyError: The row has no such column.
    """
    if column in row.get(REPEATED, ()):
        return SEVERAL
    if column in row:
        return row[column]
    outer, dot, inner = column.partition(".")
    if not dot or not isinstance(row.get(outer), dict):
        raise KeyError(column)
    return column_value(row[outer], inner)


def column_names(row: dict[str, Any], depth: int = 5) -> list[str]:
    """Return the names of a row's columns, nested ones with dots."""
    names = []
    for name, value in row.items():
        if name == REPEATED:
            continue
        inner = column_names(value, depth - 1) if depth and isinstance(value, dict) else []
        names += [f"{name}.{other}" for other in inner] or [name]
    return names


def is_text(value: Any) -> bool:
    r"""Return whether the value is a string that UTF-8 can hold: JSON can escape half a character, as in "\ud83d"."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def to_pair(row: Row, source_column: str, target_column: str) -> dict[str, str]:
    """Return a row of any form as `source`, `target`, `problem` ("" if the row can be used) and `place`."""
    pair = {"source": "", "target": "", "problem": row.problem, "place": row.place}
    for side, column in (("source", source_column), ("target", target_column)) if not row.problem else ():
        try:
            value = column_value(row.values, column)
        except KeyError:
            value = None
        pair[side] = value.strip() if is_text(value) else ""
        if not pair[side] and not pair["problem"]:
            pair["problem"] = f"{side} is {'empty' if is_empty(value) else 'not text'}"
            if value is SEVERAL:
                pair["problem"] = f"several columns named {column}"
    return pair


def is_empty(value: Any) -> bool:
    """Return whether a value is none, or a text of spaces alone."""
    return value is None or (isinstance(value, str) and not value.strip())
