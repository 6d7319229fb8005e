"""`fun-transformer distill`: what one or several models make of texts, as rows for the training of another model.

    fun-transformer distill runs/a/model runs/b/model --sources words.txt --output distilled.jsonl
    fun-transformer distill en-zh-model --sources mono.en.gz --output back.jsonl --min-score -1

Sequence-level distillation (Kim and Rush 2016, arXiv:1606.07947) and back-translation (Sennrich et al. 2016,
arXiv:1511.06709) are both this: a model answers texts that have no target, and its answers that look sound are kept.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from . import streams
from .arguments import add_generation_arguments, add_plugin_argument, add_task_argument, positive
from .models import load_together
from .predict import read_column, read_object
from .streams import TABLES
from .translate import text_pipeline

ORIGIN = "distilled"  # the value of the column `origin`, by which a recipe can tag such rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `distill`."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a model folder, or the name of a model on the Hub; several of one vocabulary decide each token together",
    )
    add_plugin_argument(parser)
    parser.add_argument(
        "--sources",
        nargs="+",
        required=True,
        metavar="FILE",
        help=f"text files, one text a line, or tables ({', '.join(TABLES)}); both plain, .gz, .xz, .bz2 or .zst",
    )
    parser.add_argument("--source-column", default="source", help='the column of a table with the texts ("source")')
    parser.add_argument("--output", required=True, help="gets a row of source and target for each text (.jsonl)")
    parser.add_argument("--resume", action="store_true", help="keep the rows of --output, and go on after them")
    add_task_argument(parser)
    parser.add_argument("--nbest", type=positive, default=1, help="rows for each text, the best answers (default: 1)")
    parser.add_argument(
        "--min-score",
        type=float,
        help="leave out answers whose mean log-probability of a token is lower, such as -1; rows get a score",
    )
    add_generation_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Write the rows, in the order of the sources; those that are finished stay, whatever ends the command.

    Raises:
        ValueError: An argument, a file or a model cannot be used; the output is as it was.
        OSError: A file is not there, or cannot be written.
    """
    check(args)
    texts = read_sources(args)
    begun = finished(args, texts) if args.resume else Begun(0, 0)
    model, tokenizer, _ = load_together(args.models, args.plugin, dtype=args.dtype)
    named = argparse.Namespace(**vars(args), model=" and ".join(args.models))  # as errors call it
    pipe = text_pipeline(named, model, tokenizer, args.task)
    rows = Rows(pipe, args.nbest, args.min_score, args.batch_size)
    write_rows(args, rows, texts, begun)
    rows.say(args.output)


def check(args: argparse.Namespace) -> None:
    """Refuse what cannot work, before anything is loaded.

    Raises:
        ValueError: Options do not fit together, or the output would replace a source.
        OSError: The output cannot be written.
    """
    streams.check_generation(args)
    streams.check_nbest(args)
    if args.engine and len(args.models) > 1:
        raise ValueError(f"--engine {args.engine} computes one model, got {len(args.models)}. Leave out --engine.")
    if args.min_score is not None and not args.min_score <= 0:
        raise ValueError(
            f"--min-score {args.min_score:g} keeps nothing: a mean log-probability is at most 0. Give -1, for example."
        )
    if Path(args.output).suffix.lower() != ".jsonl":
        raise ValueError(f"--output {args.output} gets rows of JSON. Give it the ending .jsonl.")
    streams.check_writable(Path(args.output))
    for source in args.sources:
        if streams.is_same_file(source, args.output):
            raise ValueError(f"The output would overwrite the sources {source}. Give --output another name.")


def read_sources(args: argparse.Namespace) -> list[str]:
    """Return the different texts of all files, in their order, without blank ones.

    Raises:
        ValueError: A file cannot be used, or there is no text.
        OSError: There is no such file.
    """
    from ..training.data.readers import FORMATS, file_format, read_lines

    found: dict[str, None] = {}
    for file in args.sources:
        if not Path(file).is_file():
            raise FileNotFoundError(f"There is no file {file}.")
        is_table = file_format(file) in FORMATS
        texts = read_column(file, args.source_column) if is_table else read_lines(file)
        found.update((text.strip(), None) for text in texts if text.strip())
    if not found:
        raise ValueError(f"There is no text in {' and '.join(args.sources)}.")
    return list(found)


class Begun(NamedTuple):
    """How far a run before came: texts that are finished, and the lines of the output that are theirs."""

    texts: int
    lines: int


def finished(args: argparse.Namespace, texts: list[str]) -> Begun:
    """Return how far a run before came: the last text of its output is answered again, as it may lack rows.

    Raises:
        ValueError: The output has other sources.
    """
    if not Path(args.output).is_file():
        return Begun(0, 0)
    places = {text: place for place, text in enumerate(texts)}
    lines, last, rows_of_last = 0, 0, 0
    with open(args.output, encoding="utf-8") as file:
        for line in file:
            if not line.endswith("\n"):
                break
            place = places.get(read_object(line).get("source", ""), -1)
            if place < last:
                raise ValueError(
                    f"{args.output}, line {lines + 1} is no answer to the sources in their order. Give another "
                    "--output, or leave out --resume to begin again."
                )
            rows_of_last = rows_of_last + 1 if place == last else 1
            lines, last = lines + 1, place
    return Begun(last, lines - rows_of_last) if lines else Begun(0, 0)


class Rows:
    """Makes rows of texts, and counts what is left out.

    Args:
        pipe: The pipeline that answers.
        count: The most rows for a text.
        min_score: The least mean log-probability of a token; None for any.
        batch_size: Texts answered together; None for the pipeline's own.
    """

    def __init__(self, pipe: Any, count: int, min_score: float | None, batch_size: int | None) -> None:
        from .heads import Texts

        self.answerer = Texts(pipe, count, min_score is not None, with_alignments=False, with_lists=False)
        self.min_score, self.batch_size = min_score, batch_size
        self.kept, self.left_out, self.unknown = 0, Counter[str](), streams.Unknown()

    def make(self, texts: list[str]) -> list[str]:
        """Answer texts; return the lines of the answers that are kept."""
        self.unknown.look(self.answerer.tokenizer, texts)
        lines = []
        for text, records in zip(texts, self.answerer.answer(texts, self.batch_size), strict=True):
            targets: set[str] = set()
            for record in records:
                target = record[self.answerer.fields[0]].strip()
                problem = "repeated" if target in targets else self.problem(record, target)
                self.left_out[problem] += bool(problem)
                if not problem:
                    targets.add(target)
                    lines.append(self.line(text, target, record))
        self.kept += len(lines)
        return lines

    def problem(self, record: dict[str, Any], target: str) -> str:
        """Say why an answer is left out; "" for one that is kept."""
        if not target:
            return "empty"
        if record.get("faults_left"):
            return f"with the fault {record['faults_left'][0]}"
        if self.min_score is None:
            return ""
        score = record["mean_log_probability"]  # of copied texts, which the model did not write, None
        return "" if score is not None and score >= self.min_score else f"below --min-score {self.min_score:g}"

    def line(self, source: str, target: str, record: dict[str, Any]) -> str:
        """Return a row as JSON."""
        row: dict[str, Any] = {"source": source, "target": target, "origin": ORIGIN}
        row |= {"score": round(record["mean_log_probability"], 4)} if self.min_score is not None else {}
        return json.dumps(row, ensure_ascii=False)

    def say(self, output: str) -> None:
        """Print how many rows there are, and on stderr what is missing."""
        reasons = [f"{count:,} {reason}" for reason, count in self.left_out.most_common() if count]
        print(f"{output}: {self.kept:,} rows{'; left out: ' if reasons else ''}{', '.join(reasons)}", file=sys.stderr)
        self.unknown.say("distill")


def write_rows(args: argparse.Namespace, rows: Rows, texts: list[str], begun: Begun) -> None:
    """Write the rows of texts as they come; the old output stays until the first are there."""

    def answers() -> Iterator[tuple[int, list[str]]]:
        for chunk in streams.chunks_after(texts, begun.texts, args.batch_size):
            yield len(chunk), rows.make(chunk)

    made: Iterable[tuple[int, list[str]]] = answers()
    with streams.say_that_nothing_is_finished(args):
        first = next(iter(made))
    with (
        streams.open_output(args.output, begun.lines) as write,
        streams.progress_bar(len(texts), begun.texts) as advance,
        streams.say_what_is_finished(args),
    ):
        for count, lines in chain([first], made):
            write(lines)
            advance(count)
