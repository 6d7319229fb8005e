"""Whether a tsv or csv file begins with the names of its columns or with data.

Many corpora have no header. Nothing is guessed silently: the first row is data where it shows that it is (a value that
comes again in its column, a sentence, symbols of the rows below), it has names where they are usual ones, and anything
else is refused with the way to say it. Columns without names are called by their numbers, from 0. Three columns
without a header, one of them with grammatical tags (`V;PST;3;SG`), are lemma and form, in this order, and their tags
before, between or after them, as in the shared tasks of SIGMORPHON.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Literal

from ..recipe.arguments import SplitArguments
from .columns import wanted_columns
from .readers import DataFile, file_format, table_records

TABLES = (".tsv", ".csv")
ROWS_TRIED = 1000
USUAL_NAMES = (
    "source target src tgt trg text texts sentence sentences word words grapheme graphemes pronunciation phoneme "
    "phonemes phones ipa lemma form feature features tag tags pos domain label labels class category id qid index "
    "input output question answer translation reference references original lang language title summary document "
    "english chinese german french spanish russian japanese korean zh en de fr es ru ja ko cs fi tr ar hi vi "
    "中文 英文 原文 译文 源 目标 句子 翻译 词 拼音"
)
NAMES = frozenset(USUAL_NAMES.split())
NAME_WORDS = 3  # at most, in the name of a column
TAGS = re.compile(r"(?:[A-Z0-9][A-Z0-9.+/(){},_-]*|\w+=[\w,]+)(?:[;|](?:[A-Z0-9][A-Z0-9.+/(){},_-]*|\w+=[\w,]+))*")
TAGGED = 0.95  # of the rows whose field is nothing but tags, in a column of tags
DEFAULTS = (("source", "target"), ("source", "source"))  # language models read one column
Verdict = Literal["header", "data", "unclear"]


def is_name(field: str) -> bool:
    """Return whether a field is a usual name of a column, such as "source" or "text_a"."""
    words = re.findall(r"[^\W\d_]+", field.casefold())
    return 0 < len(words) <= NAME_WORDS and any(word in NAMES for word in words)


def is_data(field: str, others: Sequence[str]) -> bool:
    """Return whether the first field of a column is of the same kind as those below, and no name.

    Args:
        field: The first one.
        others: Of the rows below.
    """
    if field in others or (len(field) > 3 and re.search(r"[.!?。！？…][\"'”’»)]?$", field)):
        return True
    words = field.split()
    if len(words) < 2:
        return False
    below = Counter(word for other in others for word in set(other.split()))
    return sum(below[word] > 1 for word in words) >= (len(words) if len(words) == 2 else len(words) / 2)


def tag_column(rows: Sequence[Sequence[str]]) -> int | None:
    """Return which of three columns has grammatical tags; None where none has, or several have.

    Args:
        rows: Fields of each.
    """
    found = []
    for column in range(3):
        fields = [row[column].strip() for row in rows if len(row) == 3]
        tagged = sum(TAGS.fullmatch(field) is not None for field in fields)
        several = sum(";" in field or "|" in field for field in fields)
        if (
            fields
            and TAGS.fullmatch(fields[0])
            and not is_name(fields[0])
            and tagged >= TAGGED * len(fields)
            and several >= len(fields) / 2
        ):
            found.append(column)
    return found[0] if len(found) == 1 else None


def judge(first: Sequence[str], below: Sequence[Sequence[str]]) -> Verdict:
    """Return what the first row of a table is.

    Args:
        first: Its fields.
        below: Those of the rows that follow.
    """
    named = sum(map(is_name, first))
    has_data = any(is_data(field, [row[at] for row in below if at < len(row)]) for at, field in enumerate(first))
    if named:
        return "header" if not has_data and 2 * named >= len(first) else "unclear"
    return "data" if has_data else "unclear"


def rename(split: SplitArguments, names: dict[str, str]) -> SplitArguments:
    """Return a split of the recipe with other names of columns."""
    return dataclasses.replace(
        split,
        source_column=names.get(split.source_column, split.source_column),
        target_column=names.get(split.target_column, split.target_column),
        references_column=[names.get(column, column) for column in split.references_column],
        feature_columns=[names.get(column, column) for column in split.feature_columns],
    )


def recognise_columns(
    files: Sequence[DataFile], split: SplitArguments, name: str
) -> tuple[Sequence[DataFile], SplitArguments, str]:
    """Decide whether tables have a header, by the first of them, and which columns are meant.

    Args:
        files: Of one corpus.
        split: What the recipe says of it.
        name: Of the split, for the errors; "" where a command reads a table without a recipe.

    Returns:
        The files, with numbers as names where they have no header; the split with columns that the files have; and a
        sentence on what was recognised, "" where the files are as the recipe says.

    Raises:
        ValueError: It cannot be told, or there are not as many columns.
    """
    table = next((file for file in files if file_format(file.name) in TABLES and not file.header), None)
    if table is None:
        return files, split, ""
    records = islice(table_records(table, file_format(table.name)), ROWS_TRIED)
    rows = [fields for _, fields, problem in records if not problem]
    wanted = list(wanted_columns(split))
    if not rows or all(column in rows[0] for column in wanted):
        return files, split, ""
    first, shown = rows[0], " | ".join(field[:40] for field in rows[0][:6])
    verdict, numbers = judge(first, rows[1:]), [str(number) for number in range(len(first))]
    if all(column.isdecimal() for column in wanted):
        check_numbers(wanted, split, len(first), name)
        if verdict == "header":
            note = f"{split.dataset}: the first row has the names of the columns ({shown}) and is no data."
            return files, rename(split, dict(zip(numbers, first))), note
    else:
        is_default = (split.source_column, split.target_column) in DEFAULTS and not split.references_column
        width = len({split.source_column, split.target_column})
        is_open = is_default and width == 2 and not split.feature_columns
        tags = tag_column(rows) if is_open and len(first) == 3 else None
        if tags is not None:
            return with_tags(files, split, tags, shown)
        if verdict != "data" or not is_default or split.feature_columns or len(first) != width:
            refuse_unclear(verdict, split, name, first)
            return files, split, ""
        split = rename(split, {"source": "0", "target": "1"})
    used = f"source_column is {split.source_column}, target_column {split.target_column}"
    note = f"{split.dataset}: the first row is data ({shown}), so there is no header; {used}."
    return with_header(files, numbers), split, note


def with_header(files: Sequence[DataFile], names: Sequence[str]) -> list[DataFile]:
    """Return files with names for the columns of tables that have none."""
    is_open = [file_format(file.name) in TABLES and not file.header for file in files]
    return [file._replace(header=tuple(names)) if lacks else file for file, lacks in zip(files, is_open)]


def with_tags(
    files: Sequence[DataFile], split: SplitArguments, tags: int, shown: str
) -> tuple[Sequence[DataFile], SplitArguments, str]:
    """Return what `recognise_columns` does for three columns without a header of which one has tags.

    Args:
        files: Of one corpus.
        split: What the recipe says of it.
        tags: Number of the column of tags.
        shown: Its first row.
    """
    source, target = (column for column in range(3) if column != tags)
    names = {source: "source", target: "target", tags: "tags"}
    split = dataclasses.replace(split, source_column="source", target_column="target", feature_columns=["tags"])
    note = (
        f"{split.dataset}: the first row is data ({shown}), so there is no header; source_column is {source}, "
        f"target_column {target}, and column {tags} has grammatical tags, which become features (feature_columns)."
    )
    return with_header(files, [names[column] for column in range(3)]), split, note


def option_of(name: str, option: str) -> str:
    """Return what an option is called in the recipe, or on a command line where there is no split."""
    return f"data.{name}.{option}" if name else f"--{option.replace('_', '-')}"


def check_numbers(wanted: Sequence[str], split: SplitArguments, width: int, name: str) -> None:
    """Refuse numbers of columns that a table does not have.

    Raises:
        ValueError: Naming the option.
    """
    for column, option in wanted_columns(split).items():
        if column in wanted and int(column) >= width:
            last = f"0 to {width - 1}" if width > 1 else "0 alone"
            place = option_of(name, option)
            raise ValueError(f"{place}={column}: {split.dataset} has {width} columns, numbered {last}.")


def refuse_unclear(verdict: Verdict, split: SplitArguments, name: str, first: Sequence[str]) -> None:
    """Refuse a table without a header whose columns are asked for by name; wrong names of a header are refused later.

    Raises:
        ValueError: Saying how to name columns by number.
    """
    if verdict != "data":
        return
    shown = " | ".join(field[:40] for field in first[:6])
    place = f"data.{name}: " if name else ""
    begin = f"{place}{split.dataset} has no header: its first row is data ({shown})."
    if len(first) == 1:
        sides = {split.source_column, split.target_column}
        raise ValueError(
            f"{begin} It has one column, and pairs need two."
            if name and len(sides) > 1
            else f"{begin} Name its only column by number: {'source_column: 0' if name else '--source-column 0'}."
        )
    way = "source_column: 0 and target_column: 1" if name else "--source-column 0 and --target-column 1"
    raise ValueError(f"{begin} Name its {len(first)} columns by number, such as {way}.")
