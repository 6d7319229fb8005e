"""What is scored, and against what: sources, references and finished outputs, from files of any form we read.

An evaluation never drops a row: one that cannot be used is an error that names its place.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ..text_parts import FEATURE_TAG
from ..training.data.columns import row_tags
from ..training.data.features import tag_source
from ..training.data.readers import (
    FORMATS,
    DataFile,
    Row,
    column_names,
    column_value,
    file_format,
    is_text,
    number_lines,
    read_rows,
)
from ..training.data.report import RowReport
from ..training.data.sources import load_pairs
from ..training.data.tables import open_table
from ..training.recipe.arguments import SplitArguments

# What finished outputs are called in the files of our commands and in those of others, the likeliest first.
OUTPUT_COLUMNS = (
    *("prediction", "output", "translation_text", "summary_text", "generated_text"),
    *("translation", "hypothesis", "label", "tags", "filled_text", "text"),
)


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table.

    Attributes:
        source: What is given to a model.
        target: The reference.
        references: Columns of references in its place: each holds one text or a list of them.
        by: A column that sorts the rows into groups, such as a domain.
        features: Columns that become tags before the source.
        trained: Those of a model's training, which are read where `features` is empty and the table has them.
    """

    source: str = "source"
    target: str = "target"
    references: tuple[str, ...] = ()
    by: str | None = None
    features: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationData:
    """Rows to score.

    Attributes:
        name: What they are called in tables.
        references: (rows,) the accepted texts of each row, at least one.
        sources: (rows,) what is given to a model; empty where nothing says it.
        groups: (rows,) the value of the column `by`; empty without one.
        kept: The numbers of these rows among those of the file, where some were merged.
        rows_of_file: The number of rows of the file.
    """

    name: str
    references: list[list[str]]
    sources: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    rows_of_file: int = 0

    def __len__(self) -> int:
        return len(self.references)

    def merged(self) -> "EvaluationData":
        """Return the data with one row for each source, whose references are those of all rows with that source.

        Raises:
            ValueError: The data have no sources.
        """
        if not self.sources:
            raise ValueError(f"{self.name} has no sources, so its rows cannot be merged by them. Give --source.")
        first: dict[str, int] = {}
        accepted: dict[str, dict[str, None]] = {}
        for number, source in enumerate(self.sources):
            first.setdefault(source, number)
            accepted.setdefault(source, {}).update(dict.fromkeys(self.references[number]))
        kept = list(first.values())
        return replace(
            self,
            sources=list(first),
            references=[list(texts) for texts in accepted.values()],
            groups=[self.groups[number] for number in kept] if self.groups else [],
            kept=kept,
            rows_of_file=len(self),
        )


def load_data(
    data: str | None, columns: Columns, source: str | None = None, references: Sequence[str] = ()
) -> EvaluationData:
    """Read what is to be scored.

    Args:
        data: A table (.tsv, .jsonl, .json, .csv, .parquet, also compressed), a text file of references, a built-in
            data set (builtin:cmudict), a folder, or a name on the Hub, whose test split is read. None with the files:
        source: A text file, one source a line.
        references: Text files, one reference a line; a blank line where a file has none for a row.
        columns: Those of a table.

    Raises:
        ValueError: A file is missing, empty or damaged, files differ in length, or a row cannot be used.
    """
    if data is not None and (source or references):
        raise ValueError(f"Both {data} and --source or --references are named. Give one of them.")
    if data is None:
        return load_text_files(source, references)
    if Path(data).is_file():
        if file_format(data) in FORMATS:
            return load_table(data, columns)
        if columns.by:
            raise ValueError(f"{data} is a text file without columns, so there is no column {columns.by} in it.")
        return load_text_files(None, [data])
    return load_corpus(data, columns)


def load_text_files(source: str | None, references: Sequence[str]) -> EvaluationData:
    """Read line-aligned text files.

    Raises:
        ValueError: There is no reference, files differ in length, or a row has no reference.
    """
    if not references:
        raise ValueError("There is nothing to compare with. Name a file with DATA, or --references FILE.")
    streams = [read_text_file(path) for path in references]
    sources = read_text_file(source) if source else []
    lengths = {path: len(lines) for path, lines in zip(references, streams)} | (
        {source: len(sources)} if source else {}
    )
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{path} has {length:,}" for path, length in lengths.items())
        raise ValueError(
            f"The files have different numbers of lines: {found}. Line by line they must belong together."
        )
    rows = [[text for text in texts if text.strip()] for texts in zip(*streams)]
    for number, texts in enumerate(rows, 1):
        if not texts:
            raise ValueError(f"{', '.join(references)}, line {number}: there is no reference.")
    return EvaluationData(Path(references[0]).name, rows, sources)


def read_text_file(path: str) -> list[str]:
    """Return the lines of a text file, without line ends.

    Raises:
        ValueError: There is no such file, it is empty, or a line is not UTF-8.
    """
    check_file(path)
    lines = []
    for number, text, problem in number_lines(path):
        if problem:
            raise ValueError(f"{path}, line {number} is {problem}.")
        lines.append(text.rstrip("\r\n"))
    if not any(line.strip() for line in lines):
        raise ValueError(f"{path} is empty.")
    return lines


def check_file(path: str) -> None:
    """Refuse what is no file with something in it.

    Raises:
        ValueError: Saying what it is.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} is a folder. Name a file." if Path(path).is_dir() else f"There is no file {path}.")
    if not Path(path).stat().st_size:
        raise ValueError(f"{path} is empty.")


def rows_of(path: str, header: tuple[str, ...] = ()) -> Iterator[Row]:
    """Yield the rows of a table.

    Args:
        path: Of the table.
        header: Names of its columns, where its first row has none.

    Raises:
        ValueError: The table is empty or damaged, or a row cannot be read.
    """
    check_file(path)
    rows = read_rows(DataFile(path, path, header=header))
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{path} has no rows.")
    for row in chain([first], rows):
        if row.problem:
            raise ValueError(f"{path}, {row.place}: {row.problem}.")
        yield row


def load_table(path: str, columns: Columns) -> EvaluationData:
    """Read a table, as training does: without a header, too, and with features before the sources.

    Raises:
        ValueError: A column is missing, or a row has no text where one is needed.
    """
    columns, header = find_columns(path, columns)
    first = next(rows_of(path, header)).values
    if not columns.references and columns.target not in first and "references" in first:
        columns = replace(columns, references=("references",))
    wanted = columns.references or (columns.target,)
    for column in (*wanted, *([columns.by] if columns.by else [])):
        find_column(first, column, path)
    has_sources = has_column(first, columns.source)
    if not has_sources and columns.source != Columns.source:
        find_column(first, columns.source, path)
    data = EvaluationData(Path(path).name, [])
    for row in rows_of(path, header):
        texts = [text for column in wanted for text in texts_of(row, column, path)]
        if not texts:
            raise ValueError(f"{path}, {row.place}: there is no reference in {' or '.join(wanted)}.")
        data.references.append(texts)
        if has_sources:
            data.sources.append(tag_row(text_of(row, columns.source, path), row, columns.features, path))
        if columns.by:
            data.groups.append(str(column_value(row.values, columns.by)))
    return data


def find_columns(path: str, columns: Columns) -> tuple[Columns, tuple[str, ...]]:
    """Return the columns that a table has, and their names where its first row has none.

    Raises:
        ValueError: It cannot be told whether there is a header, or a table has not as many columns.
    """
    check_file(path)
    named: dict[str, Any] = {"references_column": [*columns.references], "feature_columns": [*columns.features]}
    split = SplitArguments(dataset=path, source_column=columns.source, target_column=columns.target, **named)
    table = open_table(path, split, columns.references or (columns.target,), columns.trained)
    if table.note:
        print(table.note, file=sys.stderr)
    found = replace(
        columns,
        source=table.split.source_column,
        target=table.split.target_column,
        references=tuple(table.split.references_column),
        features=tuple(table.split.feature_columns),
    )
    return found, table.file.header


def tag_row(text: str, row: Row, features: tuple[str, ...], path: str) -> str:
    """Return a source with the tags of its row before it.

    Raises:
        ValueError: The row has none.
    """
    tags, problem = row_tags(row.values, features)
    if problem:
        raise ValueError(f"{path}, {row.place}: {problem}.")
    return tag_source(text, tags)


def has_column(values: dict[str, Any], column: str) -> bool:
    """Return whether a row has a column, dots reaching inside."""
    try:
        column_value(values, column)
    except KeyError:
        return False
    return True


def find_column(values: dict[str, Any], column: str, path: str) -> None:
    """Check that a row has a column.

    Raises:
        ValueError: It has not. The message lists those that there are, and the option that names another.
    """
    if not has_column(values, column):
        raise ValueError(
            f"{path} has no column {column}. Its columns are {', '.join(column_names(values))}. Name others with "
            "--source-column, --target-column, --references-column or --by"
            f"{numbers_hint(path)}."
        )


def numbers_hint(path: str) -> str:
    """Return how to name columns of a table without a header; "" for other files."""
    is_table = file_format(path) in (".tsv", ".csv")
    return "; if that row is data, by their numbers: --source-column 0 --target-column 1" if is_table else ""


def text_of(row: Row, column: str, path: str) -> str:
    """Return the text of a column.

    Raises:
        ValueError: It is empty or no text.
    """
    try:
        value = column_value(row.values, column)
    except KeyError:
        value = None
    if not is_text(value) or not value.strip():
        raise ValueError(f"{path}, {row.place}: {column} is {'no text' if value and not is_text(value) else 'empty'}.")
    return value.strip()


def texts_of(row: Row, column: str, path: str) -> list[str]:
    """Return the texts of a column that holds one, or a list of them (in a tsv a JSON list); blank ones are left out.

    Raises:
        ValueError: It holds something else.
    """
    value: Any = column_value(row.values, column) if has_column(row.values, column) else None
    if is_text(value) and value.lstrip().startswith("["):
        with suppress(ValueError):  # a text that begins with a bracket
            value = json.loads(value)
    values = value if isinstance(value, list) else [value]
    if odd := [item for item in values if item is not None and not is_text(item)]:
        raise ValueError(f"{path}, {row.place}: {column} holds {odd[0]!r}, which is no text.")
    return [item.strip() for item in values if item and item.strip()]


def load_corpus(name: str, columns: Columns) -> EvaluationData:
    """Read the test split of a built-in data set, of a folder, or of a data set on the Hub.

    Raises:
        ValueError: It cannot be loaded, a row cannot be used, or `columns.by` is asked for.
    """
    if columns.by or columns.references:
        raise ValueError("--by and --references-column name columns of a file, and there is no file " + name + ".")
    if not name.startswith("builtin:") and not Path(name).exists() and (file_format(name) or name.count("/") > 1):
        raise ValueError(f"There is no file {name}.")
    split = SplitArguments(
        dataset=name,
        source_column=columns.source,
        target_column=columns.target,
        feature_columns=list(columns.features),
    )
    rows = load_pairs(split, "test", keep_stress=False, report=RowReport())
    for row in rows:
        if row["problem"]:
            raise ValueError(f"{name}, {row['place']}: {row['problem']}.")
    targets = rows["references"] if "references" in rows.column_names else [[text] for text in rows["target"]]
    sources = list(rows["source"])
    if "tags" in rows.column_names:
        sources = list(map(tag_source, sources, rows["tags"]))
    return EvaluationData(name, [list(texts) for texts in targets], sources)


def read_outputs(path: str, data: EvaluationData, column: str | None = None) -> list[str]:
    """Read finished outputs, one for each row of the data.

    Args:
        path: A text file, one output a line, or a table with a column of outputs, such as the jsonl of `predict`.
        data: Where rows were merged, the file may have an output for each of the rows before that.
        column: Of a table; the first of `OUTPUT_COLUMNS` that it has when None.

    Raises:
        ValueError: The file is empty, has no such column, has another number of outputs than there are rows, or has
            outputs for other sources.
    """
    is_table = file_format(path) in FORMATS
    if is_table:
        outputs = list(outputs_of_table(path, column))
    elif column:
        raise ValueError(f"{path} is a text file without columns: leave out --output-column.")
    else:
        outputs = read_text_file(path)
    kept = data.kept if data.kept and len(outputs) == data.rows_of_file else range(len(outputs))
    if len(kept) != len(data):
        merged = f" ({data.rows_of_file:,} before rows of the same source were merged)" if data.kept else ""
        raise ValueError(
            f"{path} has {len(outputs):,} outputs and {data.name} has {len(data):,} rows{merged}. There must be one "
            "output for each row."
        )
    if is_table and data.sources:
        check_sources(path, data, kept)
    return [outputs[number] for number in kept]


def check_sources(path: str, data: EvaluationData, kept: Sequence[int]) -> None:
    """Refuse a table of outputs whose own column `source` says that they belong to other rows.

    Raises:
        ValueError: Naming the first row that differs.
    """
    rows_of_data = {number: row for row, number in enumerate(kept)}
    for number, row in enumerate(rows_of(path)):
        given = column_value(row.values, "source") if has_column(row.values, "source") else None
        wanted = data.sources[rows_of_data[number]] if number in rows_of_data else None
        same = [text.split() for text in (wanted, FEATURE_TAG.sub("", wanted or "")) if text is not None]
        if isinstance(given, str) and wanted is not None and given.split() not in same:
            raise ValueError(
                f"{path}, {row.place}: its source is {shorten(given)}, and that of the row of {data.name} is "
                f"{shorten(wanted)}. Bring the outputs into the order of the rows; where the source is the same and "
                "only written otherwise, leave the column source out."
            )


def shorten(text: str, most: int = 40) -> str:
    """Return the beginning of a text in quotes, for a message."""
    return repr(text if len(text) <= most else text[: most - 1] + "…")


def outputs_of_table(path: str, column: str | None) -> Iterator[str]:
    """Yield the outputs of a table; of a list of outputs (n-best) the first, of a list of tags all.

    Raises:
        ValueError: There is no such column, or a value is no text.
    """
    first = next(rows_of(path)).values
    if column is None:
        column = next((name for name in OUTPUT_COLUMNS if name in first), None)
    if column is None or not has_column(first, column):
        raise ValueError(
            f"{path} has no column {column or 'of outputs'}. Its columns are {', '.join(column_names(first))}. Name "
            "the one with the outputs: --output-column NAME."
        )
    for row in rows_of(path):
        value = column_value(row.values, column) if has_column(row.values, column) else None
        if isinstance(value, list) and column == "tags":
            value = " ".join(map(str, value))
        value = value[0] if isinstance(value, list) and value else value
        value = value.get("text") if isinstance(value, dict) else value
        if value is not None and not is_text(value):
            raise ValueError(f"{path}, {row.place}: {column} is no text.")
        yield value or ""
