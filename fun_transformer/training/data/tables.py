"""Tables as commands read them, without a recipe: with a header or without, with the tags that training had.

What `train` recognises in a table, `evaluate`, `predict` and `distill` recognise in it, too.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import try_to_load_from_cache

from ..recipe.arguments import SplitArguments
from .columns import value_or_none
from .headers import TABLES, recognise_columns
from .readers import DataFile, file_format, read_rows, table_records


class Table(NamedTuple):
    """A table: its file, with names where it has none; the columns that it has; and what was recognised, or ""."""

    file: DataFile
    split: SplitArguments
    note: str


def open_table(path: str, split: SplitArguments, needed: Sequence[str], trained: Sequence[str] = ()) -> Table:
    """Decide whether a table has a header, and which of its columns are meant.

    Args:
        path: Of a file that is not empty.
        split: The columns that are asked for.
        needed: Those that the table must have; what has them has a header.
        trained: Features of a model's training, which are read where the table has their columns.

    Raises:
        ValueError: It cannot be told, or there are not as many columns.
    """
    file, note = DataFile(path, path), ""
    if file_format(path) in TABLES and not set(needed) <= set(first_fields(path)):
        files, split, note = recognise_columns([file], split, "")
        file = files[0]
    if trained and not split.feature_columns and has_columns(file, trained):
        split = dataclasses.replace(split, feature_columns=list(trained))
    return Table(file, split, note)


def open_column(path: str, column: str, features: Sequence[str] = (), trained: Sequence[str] = ()) -> Table:
    """Decide as `open_table` does where only sources are read; a target is looked for to know pairs as training does.

    Args:
        path: Of a file.
        column: Of the sources.
        features: Columns that become tags.
        trained: As in `open_table`.

    Raises:
        ValueError: As `open_table` does.
    """
    is_default = column == "source" and file_format(path) in TABLES
    target = "target" if is_default and len(first_fields(path)) > 1 else column
    split = SplitArguments(dataset=path, source_column=column, target_column=target, feature_columns=list(features))
    return open_table(path, split, [column], trained)


def first_fields(path: str) -> list[str]:
    """Return the fields of the first row of a tsv or csv file."""
    records = table_records(DataFile(path, path), file_format(path))
    return next((fields for _, fields, problem in records if not problem), [])


def has_columns(file: DataFile, columns: Sequence[str]) -> bool:
    """Return whether the first row of a file has values in all these columns."""
    first = next(read_rows(file), None)
    return first is not None and all(value_or_none(first.values, column) is not None for column in columns)


def features_of(model: str) -> list[str]:
    """Return the features that every source of a model's training had, as its folder says; none where it is a file."""
    for folder in (Path(model), Path(model, "model")):
        if (folder / "tokenizer_config.json").is_file():
            return read_features(folder / "tokenizer_config.json")
    if Path(model).exists() or model.count("/") > 1 or model.startswith((".", "/", "~")):
        return []
    try:
        found = try_to_load_from_cache(model, "tokenizer_config.json")
    except ValueError:  # no name of the Hub; loading it says so
        return []
    return read_features(Path(found)) if isinstance(found, str) else []


def read_features(path: Path) -> list[str]:
    """Return what a tokenizer's file says of features; a damaged file is an error where the model is loaded."""
    try:
        return list(json.loads(path.read_text(encoding="utf-8")).get("feature_columns") or ())
    except (ValueError, AttributeError, TypeError):
        return []
