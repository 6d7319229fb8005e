"""`fun-transformer predict`: what a model of any head answers, as a table or as JSON, one line for each text."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ..number_types import set_dtype
from ..text_parts import Prefixed
from . import streams
from .arguments import (
    add_ensemble_argument,
    add_feature_argument,
    add_generation_arguments,
    add_input_arguments,
    add_model_argument,
    add_task_argument,
    positive,
)
from .models import HEADS, load_together
from .streams import TABLES, Unknown, is_table
from .translate import text_pipeline

ONLY_TEXT = ("alignments", "glossary", "protect", "mbr", "prefix_column", "src_lang", "tgt_lang", "engine")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `predict`."""
    add_model_argument(parser, is_positional=True)
    add_ensemble_argument(parser)
    parser.add_argument(
        "--file", help=f"a text file, one text a line (-: standard input), or a table: {', '.join(TABLES)}"
    )
    parser.add_argument("--source-column", default="source", help='the column of a table with the texts ("source")')
    add_feature_argument(parser)
    parser.add_argument("--prefix-column", help="the column of a table with the beginnings that answers must have")
    add_input_arguments(parser)
    parser.add_argument(
        "--format", choices=["jsonl", "tsv"], help="of the answers (default: by the ending of --output, else jsonl)"
    )
    add_task_argument(parser)
    parser.add_argument("--nbest", type=positive, default=1, help="answers for each text, best first (default: 1)")
    parser.add_argument("--scores", action="store_true", help="add how probable each answer is")
    parser.add_argument("--alignments", action="store_true", help="add which source word each target word translates")
    add_generation_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Answer arguments, a file or standard input, in the order of the texts.

    A file to write to keeps the lines that are finished, whatever ends the command.
    """
    streams.check_streams(args)
    streams.check_nbest(args)
    if args.ensemble and args.alignments:
        raise ValueError("--alignments looks into one model: leave out --ensemble.")
    ending = Path(args.output or "").suffix.lower()
    if ending in (".csv", ".parquet", ".xlsx", ".xls") and not args.format:
        raise ValueError(
            f"--output {args.output} ends in {ending}, but answers are written as jsonl or tsv: give it the ending "
            ".jsonl or .tsv, or say --format."
        )
    with streams.say_that_nothing_is_finished(args):
        answer_texts(args, args.format or ("tsv" if ending == ".tsv" else "jsonl"))


def answer_texts(args: argparse.Namespace, output_format: str) -> None:
    """Answer arguments, a file or standard input as jsonl or tsv."""
    above = int(output_format == "tsv")
    chunks, total, done = read_inputs(args, above)
    answerer, unknown = load_answerer(args, with_lists=output_format == "jsonl"), Unknown()
    count = args.nbest if answerer.is_ranked else 1
    write = Table(answerer.fields, count) if output_format == "tsv" else Objects(answerer.fields, count)

    def answer(texts: list[str]) -> list[str]:
        unknown.look(answerer.tokenizer, texts)
        answers = answerer.answer(texts, args.batch_size)
        return [write.line(text, records) for text, records in zip(texts, answers, strict=True)]

    streams.write_answers(args, map(answer, chunks), total, done, write.header, write.has_same_fields)
    unknown.say(args.command)


def read_inputs(args: argparse.Namespace, above: int) -> tuple[Iterable[list[str]], int | None, int]:
    """Return what `streams.read_chunks` does, of tables too; the output has the lines `above` its answers."""
    has_columns = args.file and is_table(args.file)
    for option in ("prefix_column", "feature_columns"):
        if getattr(args, option) and not has_columns:
            raise ValueError(f"--{option.replace('_', '-')} needs a --file with columns: {', '.join(TABLES)}.")
    if not args.file:
        return streams.read_chunks(args)
    texts = read_sources(args, args.file, args.model) if has_columns else streams.read_file(args.file)
    if args.prefix_column:
        texts = list(map(Prefixed, texts, read_column(args.file, args.prefix_column, "--prefix-column")))
    done = streams.count_finished_lines(args, len(texts), above) if args.resume else 0
    check_sources(args, texts[:done], above)
    if has_columns and not texts:
        print(f"fun-transformer {args.command}: {args.file} has 0 rows", file=sys.stderr)
    return streams.chunks_after(texts, done, args.batch_size), len(texts), done


def check_sources(args: argparse.Namespace, texts: list[str], above: int) -> None:
    """Refuse to go on with an output whose finished lines answer other texts than these; tables have a header above.

    Raises:
        ValueError: A line does.
    """
    if not texts:
        return
    with open(args.output, "rb") as file:
        lines = islice(file, above, None)
        for number, (text, line) in enumerate(zip(texts, lines), start=1):
            decoded = line.decode("utf-8", "replace").removesuffix("\n")
            found = decoded.split("\t")[0] if above else read_object(decoded).get("source")
            if found != (cell(text) if above else text):
                raise ValueError(
                    f"{args.output}, line {number + above} answers {found!r:.60}, but text {number} of {args.file} is "
                    f"{str(text)!r:.60}. Give another --output, or leave out --resume to begin again."
                )


def read_object(line: str) -> dict[str, Any]:
    """Return the JSON object of a line; an empty one where it is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def read_sources(args: argparse.Namespace, file: str, model: str) -> list[str]:
    """Return the sources of a table, with the features before them that a model was trained with.

    Raises:
        ValueError: A column is missing, or a row has no text or no feature.
        OSError: There is no such file.
    """
    from ..training.data.tables import features_of

    return read_column(file, args.source_column, features=args.feature_columns, trained=features_of(model))


def read_column(
    file: str,
    column: str,
    option: str = "--source-column",
    features: Sequence[str] = (),
    trained: Sequence[str] = (),
) -> list[str]:
    """Return the texts of a column of a table, as `train` finds it: without a header, too.

    Args:
        file: The table.
        column: Its name, or its number where there is no header.
        option: What names it.
        features: Columns that become tags before each text.
        trained: Those of a model's training, where the table has them.

    Raises:
        ValueError: There is no such column, or a row of it holds no text.
        OSError: There is no such file.
    """
    from ..training.data.columns import row_tags
    from ..training.data.features import tag_source
    from ..training.data.readers import REPEATED, read_rows
    from ..training.data.tables import open_column

    if not Path(file).is_file():
        raise FileNotFoundError(f"There is no file {file}.")
    table = open_column(file, column, features, trained)
    column, texts = table.split.source_column, list[str]()
    if table.note:
        print(table.note, file=sys.stderr)
    for row in read_rows(table.file):
        if row.problem:
            raise ValueError(f"{file}, {row.place} is {row.problem}.")
        if column in row.values.get(REPEATED, ()):
            raise ValueError(f"{file}, {row.place} has several columns {column!r}. Give each a name of its own.")
        if column not in row.values:
            names = ", ".join(name for name in row.values if name != REPEATED)
            raise ValueError(f"{file}, {row.place} has no column {column!r}. Give {option} one of: {names}.")
        text = row.values[column]
        if not isinstance(text, str):
            raise ValueError(f"{file}, {row.place}: {column!r} holds {text!r}, which is no text.")
        tags, problem = row_tags(row.values, tuple(table.split.feature_columns))
        if problem:
            raise ValueError(f"{file}, {row.place}: {problem}.")
        texts.append(tag_source(text, tags) if text.strip() else text)
    columns = header_names(file) if not texts else None
    if columns is not None and column not in columns:
        raise ValueError(
            f"{file} has no rows below its first line, which names no column {column!r}. "
            f"Give {option} one of: {', '.join(columns)}."
            if columns
            else f"{file} is empty. Its first line must name the columns, one of them {column!r}."
        )
    return texts


def header_names(file: str) -> list[str] | None:
    """Return the names of the columns of a table, which is known to be sound; None for JSON, where rows have them."""
    from ..training.data.readers import DataFile, file_format, table_records

    ending = file_format(file)
    if ending in (".tsv", ".csv"):
        return next((fields for _, fields, _ in table_records(DataFile(path=file, name=file), ending)), [])
    if ending == ".parquet":
        from pyarrow import parquet  # comes with `datasets`

        return parquet.read_schema(file).names
    return None


def load_answerer(args: argparse.Namespace, with_lists: bool):
    """Return what answers texts with the model that the arguments name.

    Raises:
        ValueError: The model's head does not know an option, or there is no such device.
    """
    from .heads import ANSWERERS, Texts

    heads = ("text",) if args.ensemble else tuple(HEADS)
    model, tokenizer, head = load_together([args.model, *args.ensemble], args.plugin, heads, args.dtype)
    if head == "text":
        pipe = text_pipeline(args, model, tokenizer, args.task)
        return Texts(pipe, args.nbest, args.scores, args.alignments, with_lists)
    if given := [f"--{name.replace('_', '-')}" for name in ONLY_TEXT if getattr(args, name)]:
        raise ValueError(
            f"{args.model} gives {HEADS[head].gives}. For models that give a text for a text: {', '.join(given)}."
        )
    generation = {name: getattr(args, name) for name in ("num_beams", "max_new_tokens")}
    generation = {name: value for name, value in generation.items() if value is not None}
    model.to(find_device(args.device))
    set_dtype(model, args.dtype)
    return ANSWERERS[head](model, tokenizer, args.nbest, args.scores, **generation)


def find_device(name: str | None):
    """Return the device of this name, by default the first accelerator, else the CPU.

    Raises:
        ValueError: There is none.
    """
    import torch

    try:
        if name is None:
            return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
        return torch.zeros(0, device=name).device
    except (AssertionError, RuntimeError) as error:  # what torch raises for a device that is not there
        raise ValueError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error


class Objects:
    """Answers as JSON, one object a line: the fields of the best answer, and all answers as `nbest`."""

    header = ""

    def __init__(self, fields: list[str], count: int) -> None:
        self.fields, self.count = fields, count

    def has_same_fields(self, line: str) -> bool:
        """Tell whether a line that was written before has the fields of these answers."""
        return read_object(line).keys() == {"source", *self.fields, *(["nbest"] if self.count > 1 else [])}

    def line(self, source: str, records: list[dict[str, Any]]) -> str:
        """Return the line of a text; a blank text has empty fields."""
        best = records[0] if records else empty_record(self.fields)
        entry = {"source": source} | best | ({"nbest": records} if self.count > 1 else {})
        return json.dumps(entry, ensure_ascii=False)


class Table:
    """Answers as lines of tab-separated values; the fields of the second answer end in _2, and so on."""

    def __init__(self, fields: list[str], count: int) -> None:
        self.fields, self.count = fields, count
        names = [f"{name}_{rank}" if rank > 1 else name for rank in range(1, count + 1) for name in fields]
        self.header = "\t".join(["source", *names])

    def has_same_fields(self, line: str) -> bool:
        """Tell whether a line that was written before is this header."""
        return line == self.header

    def line(self, source: str, records: list[dict[str, Any]]) -> str:
        """Return the line of a text; what is missing is empty."""
        filled = [*records, *[empty_record(self.fields)] * (self.count - len(records))]
        values = chain.from_iterable(record.values() for record in filled)
        return "\t".join(cell(value) for value in [source, *values])


def empty_record(fields: list[str]) -> dict[str, Any]:
    """Return the record of a blank text."""
    return {name: "" if name.endswith("_text") else None for name in fields}


def cell(value: Any) -> str:
    """Return a value for a table, in which no value has tabs or line breaks: those become spaces."""
    if isinstance(value, list):
        return " ".join(map(cell, value))
    return "" if value is None else " ".join(str(value).replace("\t", " ").splitlines())
