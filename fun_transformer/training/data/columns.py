"""Which columns of a row become what: a pair, its references, its features."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import datasets

from ..recipe.arguments import SplitArguments
from .features import feature_tags
from .readers import SEVERAL, Row, column_names, column_value, is_empty, is_text, to_pair

BYTES = "content"  # the column with the content of a file whose path no row has
PAIR = datasets.Features({name: datasets.Value("string") for name in ("source", "target", "problem", "place")})
SHOWN_COLUMNS = 20  # in an error


class Columns(NamedTuple):
    """The columns that a recipe names for a corpus.

    Attributes:
        source: Of the source.
        target: Of the target.
        references: Of further accepted targets; the target itself may then be missing.
        features: Of what comes before the source as tags.
        is_train: Whether each accepted target becomes a row; else they are the row's `references`.
        modality: What a source is: "text", or a file of "speech" or an "image".
    """

    source: str
    target: str
    references: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    is_train: bool = True
    modality: str = "text"

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (self.source, self.target, *self.references, *self.features)

    def row_features(self) -> datasets.Features:
        """Return the types of the rows that `to_pairs` makes."""
        texts = datasets.List(datasets.Value("string"))
        has_references = bool(self.references) and not self.is_train
        content = {BYTES: datasets.Value("large_binary")} if self.modality != "text" else {}
        return datasets.Features(
            {
                **PAIR,
                **content,
                **({"references": texts} if has_references else {}),
                **({"tags": texts} if self.features else {}),
            }
        )


def columns_of(split: SplitArguments, name: str, modality: str = "text") -> Columns:
    """Return the columns of a corpus of the split that is named."""
    references, features = tuple(split.references_column), tuple(split.feature_columns)
    return Columns(split.source_column, split.target_column, references, features, name == "train", modality)


def wanted_columns(split: SplitArguments) -> dict[str, str]:
    """Return which columns a row must have, with the option that names each."""
    wanted = {split.source_column: "source_column"}
    if not split.references_column:
        wanted.setdefault(split.target_column, "target_column")
    for option in ("references_column", "feature_columns"):
        wanted |= {column: option for column in getattr(split, option) if column not in wanted}
    return wanted


def missing_column(values: dict[str, Any], split: SplitArguments) -> tuple[str, str]:
    """Return the first column that the recipe names and a row has not, and the option that names it; else ("", "")."""
    for column, option in wanted_columns(split).items():
        try:
            column_value(values, column)
        except KeyError:
            return column, option
    return "", ""


def check_columns(values: dict[str, Any], split: SplitArguments, name: str, is_table: bool = False) -> None:
    """Check that a row has the columns that the recipe names for a split.

    Args:
        values: Of the row, by column.
        split: What the recipe says of the split.
        name: Of the split, for the error.
        is_table: Whether the names are from the first row of a tsv or csv file.

    Raises:
        ValueError: A column is missing. The message lists the columns that exist.
    """
    column, option = missing_column(values, split)
    if not option:
        return
    names = column_names(values)
    shown = [name if len(name) <= 40 else f"{name[:40]}..." for name in names[:SHOWN_COLUMNS]]
    more = [f"{len(names) - len(shown):,} more"] if len(names) > len(shown) else []
    hint = ""
    if len(names) > 1:
        named = f"source_column: {shown[0]}, target_column: {shown[1]}"
        by_number = (
            " If that row is data, name the columns by number: source_column: 0, target_column: 1; else by name"
        )
        hint = f"{by_number if is_table else ' Name two of them'}: {named}."
    elif split.source_column != split.target_column:
        hint = " Pairs need two columns; objective: denoising, masked_lm and causal_lm read one, the source_column."
    raise ValueError(
        f"data.{name}.{option}: {split.dataset} has no column {column}. "
        f"Its columns are {', '.join(shown + more)}.{hint}"
    )


def value_or_none(values: dict[str, Any], column: str) -> Any:
    """Return the value of a column; None where the row has none."""
    try:
        return column_value(values, column)
    except KeyError:
        return None


def accepted_targets(values: dict[str, Any], columns: Columns) -> tuple[list[str], str]:
    """Return all accepted targets of a row, each once, and what is wrong with them, "" if nothing."""
    accepted: dict[str, None] = {}
    for column in (columns.target, *columns.references):
        value = value_or_none(values, column)
        if value is SEVERAL:
            return [], f"several columns named {column}"
        for text in value if isinstance(value, list) else [value]:
            if is_empty(text):  # rows may have different numbers of them
                continue
            if not is_text(text):
                return [], "a reference is not text"
            accepted[text.strip()] = None
    return list(accepted), ""


def row_tags(values: dict[str, Any], features: tuple[str, ...]) -> tuple[list[str], str]:
    """Return the tags of a row, and what is wrong with its features, "" if nothing."""
    tags: list[str] = []
    for column in features:
        found, problem = feature_tags(column, value_or_none(values, column))
        if problem:
            return [], problem
        tags += found
    return tags, ""


def to_pairs(row: Row, columns: Columns) -> list[dict[str, Any]]:
    """Return a row of any form as pairs of `source`, `target`, `problem` ("" if the row can be used) and `place`.

    There is one, with `references` where the recipe names them, or in training one for each accepted target; with
    `tags` where it names features.
    """
    if not columns.references and not columns.features:
        return [to_pair(row, columns.source, columns.target)]
    pairs: list[dict[str, Any]] = [{**to_pair(row, columns.source, columns.target)}]
    if columns.references:
        accepted, problem = accepted_targets(row.values, columns)
        values = {"source": value_or_none(row.values, columns.source), "target": accepted[0] if accepted else None}
        pair = to_pair(Row(row.place, values, row.problem or problem), "source", "target")
        if columns.is_train:
            pairs = [{**pair, "target": target} for target in accepted] or [{**pair}]
        else:
            pairs = [{**pair, "references": accepted}]
    if columns.features:
        tags, problem = row_tags(row.values, columns.features) if not row.problem else ([], "")
        pairs = [{**pair, "tags": tags, "problem": pair["problem"] or problem} for pair in pairs]
    return pairs


def file_pairs(row: Row, columns: Columns, folder: str) -> list[dict[str, Any]]:
    """Return a row whose source is a file as pairs like those of `to_pairs`, with the file's `content`.

    The source is the path of the file, or bytes, or what `datasets` makes of a recording or picture: both in a dict.

    Args:
        row: Of any form.
        columns: Of the corpus.
        folder: That the paths are relative to.
    """
    value = value_or_none(row.values, columns.source)
    content, name = None, value
    if isinstance(value, dict):
        content, name = value.get("bytes"), value.get("path")
    elif isinstance(value, bytes):
        content, name = value, None
    if content is not None:  # files of several folders may have one name
        name = f"{Path(name).name if name else 'bytes'} {hashlib.blake2b(content, digest_size=8).hexdigest()}"
    elif isinstance(name, str) and name.strip():
        name = str(Path(folder, name.strip()))
    values = {**row.values, columns.source: name} if not row.problem else row.values
    pairs = to_pairs(Row(row.place, values, row.problem), columns)
    for pair in pairs:
        if pair["problem"] == "source is not text":
            pair["problem"] = "source is no path, and no bytes"
    return [{**pair, BYTES: content} for pair in pairs]
