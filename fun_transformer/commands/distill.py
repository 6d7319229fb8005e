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

from ..files import write_atomically
from ..text_parts import has_words
from . import streams
from .arguments import (
    add_feature_argument,
    add_generation_arguments,
    add_plugin_argument,
    add_task_argument,
    positive,
)
from .models import load_together
from .predict import read_object, read_sources
from .streams import TABLES
from .translate import text_pipeline

# Options that do not change what a text is answered with.
WORKING = {"command", "models", "sources", "source_column", "output", "resume", "overwrite", "batch_size", "device"}
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
    add_feature_argument(parser)
    parser.add_argument("--output", required=True, help="gets a row of source and target for each text (.jsonl)")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="keep the rows of --output, and go on after them")
    existing.add_argument("--overwrite", action="store_true", help="replace an --output that exists")
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
    texts = source_texts(args)
    check_existing(args)
    begun = finished(args, texts) if args.resume else Begun(0, 0)
    model, tokenizer, _ = load_together(args.models, args.plugin, dtype=args.dtype)
    named = argparse.Namespace(**vars(args), model=" and ".join(args.models))  # as errors call it
    pipe = text_pipeline(named, model, tokenizer, args.task)
    rows = Rows(pipe, args)
    write_rows(args, rows, texts, begun)
    rows.say(args.output, begun.lines)
    if not begun.lines + rows.kept:
        raise ValueError(f"No row was kept of {len(texts):,} texts, so there is nothing to train on in {args.output}.")


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


def check_existing(args: argparse.Namespace) -> None:
    """Refuse to replace rows, which took long to make, and to go on with those of other models or options.

    Raises:
        ValueError: Saying what there is.
    """
    if not Path(args.output).is_file() or not Path(args.output).stat().st_size:
        return
    if not (args.resume or args.overwrite):
        raise ValueError(
            f"--output {args.output} exists. Go on with it, --resume, replace it, --overwrite, or name another file."
        )
    path = options_file(args.output)
    if args.overwrite or not path.is_file():
        return
    before, now = read_object(path.read_text(encoding="utf-8")), made_with(args)
    changed = [name for name in now if name in before and before[name] != now[name]]
    if changed:
        name = changed[0]
        raise ValueError(
            f"{args.output} was made with other options: {name} was {before[name]!r} and is {now[name]!r} now. "
            "Use those of before, give another --output, or begin again with --overwrite."
        )


def options_file(output: str) -> Path:
    """Return where the options are kept that rows were made with."""
    return Path(output).with_suffix(".options.json")


def made_with(args: argparse.Namespace) -> dict[str, Any]:
    """Return what decides the rows of a text: the models, and all options but those that only say how to work."""
    models = [str(Path(name).resolve()) if Path(name).exists() else name for name in args.models]
    given = {name: value for name, value in vars(args).items() if name not in WORKING and not callable(value)}
    return json.loads(json.dumps({"models": models, **given}))


def source_texts(args: argparse.Namespace) -> list[str]:
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
        texts = read_sources(args, file, args.models[0]) if is_table else read_lines(file)
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
        args: With `nbest`, the most rows for a text; `min_score`, the least mean log-probability of a token, None for
            any; `batch_size`; and `long_text`.
    """

    def __init__(self, pipe: Any, args: argparse.Namespace) -> None:
        from .heads import Texts

        self.min_score, self.batch_size = args.min_score, args.batch_size
        has_scores = args.min_score is not None
        self.answerer = Texts(pipe, args.nbest, has_scores, with_alignments=False, with_lists=False)
        self.may_copy = args.long_text == "sentences"
        self.kept, self.left_out, self.unknown = 0, Counter[str](), streams.Unknown()

    def make(self, texts: list[str]) -> list[str]:
        """Answer texts; return the lines of the answers that are kept."""
        self.unknown.look(self.answerer.tokenizer, texts)
        lines = []
        for text, records in zip(texts, self.answerer.answer(texts, self.batch_size), strict=True):
            targets: set[str] = set()
            if self.may_copy and not has_words(text):
                self.left_out["copied, as there are no words in them"] += 1
                continue
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
        score = record["mean_log_probability"]
        return "" if score is not None and score >= self.min_score else f"below --min-score {self.min_score:g}"

    def line(self, source: str, target: str, record: dict[str, Any]) -> str:
        """Return a row as JSON."""
        row: dict[str, Any] = {"source": source, "target": target, "origin": ORIGIN}
        row |= {"score": round(record["mean_log_probability"], 4)} if self.min_score is not None else {}
        return json.dumps(row, ensure_ascii=False)

    def say(self, output: str, before: int) -> None:
        """Print on stderr how many rows there are, with those from before it was resumed, and what is missing."""
        reasons = [f"{count:,} {reason}" for reason, count in self.left_out.most_common() if count]
        left_out = f"; left out{' since it was resumed' if before else ''}: {', '.join(reasons)}" if reasons else ""
        print(f"{output}: {before + self.kept:,} rows{left_out}", file=sys.stderr)
        self.unknown.say("distill")


def write_rows(args: argparse.Namespace, rows: Rows, texts: list[str], begun: Begun) -> None:
    """Write the rows of texts as they come; the old output stays until the first are there."""

    def answers() -> Iterator[tuple[int, list[str]]]:
        for chunk in streams.chunks_after(texts, begun.texts, args.batch_size):
            yield len(chunk), rows.make(chunk)

    made: Iterable[tuple[int, list[str]]] = answers()
    with streams.say_that_nothing_is_finished(args):
        first = next(iter(made))
    write_atomically(options_file(args.output), json.dumps(made_with(args), indent=1) + "\n")
    with (
        streams.open_output(args.output, begun.lines) as write,
        streams.progress_bar(len(texts), begun.texts) as advance,
        streams.say_what_is_finished(args),
    ):
        for count, lines in chain([first], made):
            write(lines)
            advance(count)
