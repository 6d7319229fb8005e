"""The command `fun-transformer evaluate`: score models and finished outputs on data of any form.

    fun-transformer evaluate MODEL test.tsv --against OTHER --report page.html
    fun-transformer evaluate outputs.txt reference.en
    fun-transformer evaluate outputs.jsonl --source test.zh --references test.en --by-length
    fun-transformer evaluate RUN

The last form scores a run's own rows by its own recipe (training/evaluate.py).
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from itertools import combinations, takewhile
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..files import whole_file
from ..number_types import AUTO, DTYPES
from ..plugins import load_plugins
from ..training import evaluate as own_split
from ..training.data.tables import features_of
from . import comet
from .breakdown import Breakdown, by_column, by_length, by_word_frequency
from .data import Columns, EvaluationData, load_data
from .report import Report, write_report
from .scores import LABEL_METRICS, Scoring, show_table
from .significance import Comparison, compare, compare_row_scores, comparison_table
from .systems import Generation, System, load_systems, metrics_of

USAGE = """fun-transformer evaluate MODEL_OR_FILE DATA [options]
       fun-transformer evaluate MODEL_OR_FILE --source FILE --references FILE ... [options]
       fun-transformer evaluate RUN [options and settings of its recipe: evaluate RUN --help]"""

RESULTS = ("report", "output", "predictions")  # options that name a file to write
# Options that only say how models answer, with what they are where they are not named.
FOR_MODELS = {"num_beams": None, "max_new_tokens": None, "batch_size": 32, "src_lang": None, "device": None}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of everything but a run's own rows."""
    parser = argparse.ArgumentParser(
        prog="fun-transformer evaluate",
        usage=USAGE,
        description="Score a model, or a file of finished outputs.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "system",
        metavar="MODEL_OR_FILE",
        help="a model folder, a run, a name on the Hub; or a file of outputs: a text, one a line, or a table",
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        help="a .tsv, .jsonl, .json, .csv or .parquet; a text file of references; builtin:cmudict; a name on the Hub",
    )
    add_data_options(parser.add_argument_group("data"))
    add_score_options(parser.add_argument_group("scores"))
    add_generation_options(parser.add_argument_group("models"))
    return parser


def add_data_options(group: Any) -> None:
    """Declare what says where rows are."""
    group.add_argument("--source", metavar="FILE", help="a text file, one source a line")
    group.add_argument("--references", nargs="+", default=[], metavar="FILE", help="text files, one reference a line")
    group.add_argument("--source-column", default="source", metavar="NAME", help="of a table (default: source)")
    group.add_argument("--target-column", default="target", metavar="NAME", help="of a table (default: target)")
    group.add_argument(
        "--references-column",
        nargs="+",
        default=[],
        metavar="NAME",
        help="columns of references, each with one or a list (default: target, else references)",
    )
    group.add_argument(
        "--feature-columns",
        nargs="+",
        default=[],
        metavar="NAME",
        help="columns that become tags before the source (default: those of the model's training)",
    )
    group.add_argument(
        "--output-column", metavar="NAME", help="of a table of outputs (default: prediction and others)"
    )
    group.add_argument(
        "--merge-sources", action="store_true", help="rows with the same source are one row with several references"
    )


def add_score_options(group: Any) -> None:
    """Declare what is measured and where it goes."""
    group.add_argument("--against", nargs="+", default=[], metavar="OTHER", help="models or files to compare with")
    group.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help=f"bleu, chrf, chrf++, ter, exact, per, g2p_wer, {', '.join(LABEL_METRICS)} (default: those of "
        "the model's recipe, else bleu chrf; of classifiers accuracy f1)",
    )
    group.add_argument("--bleu-tokenize", default="auto", metavar="NAME", help="by sacreBLEU's names (default: auto)")
    group.add_argument("--by", metavar="COLUMN", help="score each value of a column by itself, such as a domain")
    group.add_argument("--by-length", action="store_true", help="score by the length of the source")
    group.add_argument("--by-frequency", action="store_true", help="recall of words by how often references have them")
    group.add_argument(
        "--training-data", metavar="FILE", help="count words there for --by-frequency: a text file, or a table"
    )
    group.add_argument("--comet", metavar="COMMAND", help="a metric in a process of its own (docs/evaluation.md)")
    group.add_argument("--report", metavar="FILE.html", help="write a page with the worst rows side by side")
    group.add_argument("--output", metavar="FILE.json", help="write all figures there")
    group.add_argument("--predictions", metavar="FILE.jsonl", help="write the outputs of all systems there")
    group.add_argument("--plugin", action="append", default=[], metavar="FILE", help="run a Python file first")


def add_generation_options(group: Any) -> None:
    """Declare how models answer."""
    group.add_argument(
        "--ensemble",
        action="append",
        default=[],
        metavar="MODEL",
        help="another model of the same vocabulary, which decides each token with the first; may be given again",
    )
    group.add_argument("--num-beams", type=positive, metavar="N", help="beams of the search (default: the model's)")
    group.add_argument("--max-new-tokens", type=positive, metavar="N", help="longest output (default: the model's)")
    group.add_argument("--batch-size", type=positive, default=32, metavar="N", help="rows at a time (default: 32)")
    group.add_argument("--src-lang", metavar="CODE", help="source language, for models of many languages")
    group.add_argument("--tgt-lang", metavar="CODE", help="target language; also says how BLEU cuts Japanese")
    group.add_argument("--trust-remote-code", action="store_true", help="run the code that a model brings with it")
    group.add_argument(
        "--dtype", choices=[AUTO, *DTYPES], default=AUTO, help="numbers to compute in (default: the model's, see docs)"
    )
    group.add_argument("--device", help='"cpu", "cuda", "cuda:1", "mps" (default: the first accelerator, else cpu)')


def positive(text: str) -> int:
    """Return a number of the command line that must be 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def is_about_a_run(words: Sequence[str], parser: argparse.ArgumentParser) -> bool:
    """Return whether a command line scores a run's own rows: it names no data and nothing else that only we know."""
    first = list(takewhile(lambda word: not word.startswith("-"), words))
    of_both = {"--output", "--predictions", "--plugin"}
    if not first and {"-h", "--help"} & set(words):
        return False
    ours = {f"--{name.replace('_', '-')}" for name in vars(parser.parse_args([""]))} - of_both
    named = {word.partition("=")[0] for word in words}
    return len(first) < 2 and not ours & named and not (first and Path(first[0]).is_file())


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    if is_about_a_run(words, parser):
        return own_split.main(words)
    options = parser.parse_args(words)
    try:
        with quiet_libraries():
            evaluate(options)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"fun-transformer evaluate: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide the progress bars of libraries while models are loaded, unless stderr is a terminal."""
    shown = logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def evaluate(options: argparse.Namespace) -> None:
    """Score what the command line names, print the tables, and write the files that it asks for.

    Raises:
        ValueError: Something does not fit together, or a file cannot be used.
        OSError: A model is not there, or a file cannot be written.
    """
    check_options(options)
    load_plugins(options.plugin)
    columns = Columns(
        options.source_column,
        options.target_column,
        tuple(options.references_column),
        options.by,
        tuple(options.feature_columns),
        tuple(features_of(options.system)),
    )
    data = load_data(options.data, columns, options.source, options.references)
    data = data.merged() if options.merge_sources else data
    check_data(options, data)
    training = list(read_training_texts(options)) if options.training_data else None
    # Names of metrics are checked before models are loaded; which are the defaults, the models say.
    scoring = Scoring(options.metrics or [], data.references, options.bleu_tokenize, options.tgt_lang)
    generation = Generation(**{field.name: getattr(options, field.name) for field in fields(Generation)})
    names = [[options.system, *options.ensemble], *([name] for name in options.against)]
    systems = load_systems(names, data, generation, options.output_column)
    if not options.metrics:
        defaults = ["accuracy", "f1"] if systems[0].is_classifier else metrics_of(options.system, data)
        scoring = Scoring(defaults, data.references, options.bleu_tokenize, options.tgt_lang)
    for system in systems:
        system.answer(data.sources, options.batch_size)
    if options.predictions:
        write_predictions(options.predictions, data, systems)
    report = measure(options, data, systems, scoring)
    report.breakdowns = break_down(options, data, report, scoring, training)
    print_report(report, scoring)
    if options.output:
        write_figures(options.output, report)
    if options.report:
        write_report(report, options.report)


def check_options(options: argparse.Namespace) -> None:
    """Refuse what cannot work, before anything is read.

    Raises:
        ValueError: Options contradict each other, or a file cannot be written.
    """
    read = [options.system, *options.against, options.data, options.source, *options.references, options.training_data]
    inputs = {Path(path).resolve() for path in read if path and Path(path).is_file()}
    for name in RESULTS:
        path = getattr(options, name)
        if path and not Path(path).resolve().parent.is_dir():
            raise ValueError(f"There is no folder {Path(path).parent} for --{name} {path}.")
        if path and Path(path).is_dir():
            raise ValueError(f"--{name} {path} is a folder. Give the name of a file.")
        if path and Path(path).resolve() in inputs:
            raise ValueError(f"--{name} would be written over {path}, which is read. Name another file.")
    named = {name: path for name in RESULTS if (path := getattr(options, name))}
    for (name, path), (other, path_of_other) in combinations(named.items(), 2):
        if Path(path).resolve() == Path(path_of_other).resolve():
            raise ValueError(f"--{name} and --{other} are both {path}. Name another file for one of them.")
    of_models = [name for name, default in FOR_MODELS.items() if getattr(options, name) != default]
    if of_models and all(Path(name).is_file() for name in (options.system, *options.against)):
        raise ValueError(
            f"--{of_models[0].replace('_', '-')} is for models, and here are only files of finished outputs. "
            "Leave it out."
        )
    if options.ensemble and Path(options.system).is_file():
        raise ValueError(f"--ensemble names models that answer with a model, and {options.system} is a file.")
    if options.training_data and not options.by_frequency:
        raise ValueError("--training-data is for --by-frequency, which is not there.")
    if options.comet is not None:
        comet.check_command(options.comet)


def check_data(options: argparse.Namespace, data: EvaluationData) -> None:
    """Refuse what the data cannot give, before models are loaded.

    Raises:
        ValueError: The data have no sources.
    """
    asked = [name for name in ("by_length", "comet") if getattr(options, name)]
    if asked and not data.sources:
        raise ValueError(
            f"--{asked[0].replace('_', '-')} needs sources, and {data.name} has none. Give --source FILE with "
            "--references, or a table with a column of sources."
        )


def read_training_texts(options: argparse.Namespace) -> Iterator[str]:
    """Yield the targets of the training data."""
    columns = Columns(options.source_column, options.target_column)
    try:
        found = load_data(options.training_data, columns)
    except ValueError as error:
        raise ValueError(f"--training-data: {error}") from error
    for texts in found.references:
        yield from texts


def measure(options: argparse.Namespace, data: EvaluationData, systems: list[System], scoring: Scoring) -> Report:
    """Score all systems, and compare them with the first."""
    outputs = {system.name: system.outputs for system in systems}
    scores = {name: scoring.score(texts, data.references) for name, texts in outputs.items()}
    rows = {name: scoring.row_scores(texts, data.references) for name, texts in outputs.items()}
    comparisons: list[Comparison] = compare(outputs, data.references, scoring) if len(systems) > 1 else []
    if options.comet is not None:
        by_system = {name: comet.row_scores(options.comet, data, texts) for name, texts in outputs.items()}
        for name, values in by_system.items():
            scores[name]["comet"] = sum(values) / len(values)
        comparisons += [compare_row_scores("comet", by_system)] if len(systems) > 1 else []
    return Report(data, systems, scores, dict(scoring.signatures), rows, comparisons)


def break_down(
    options: argparse.Namespace, data: EvaluationData, report: Report, scoring: Scoring, training: list[str] | None
) -> list[Breakdown]:
    """Score the parts that the command line asks for; a page has all that the data allow."""
    outputs = {system.name: system.outputs for system in report.systems}
    found = []
    if options.by_length or (options.report and data.sources):
        found.append(by_length(data, outputs, scoring))
    if options.by:
        found.append(by_column(data, options.by, outputs, scoring))
    if options.by_frequency or options.report:
        found.append(by_word_frequency(data, outputs, scoring.bleu_tokenize, training))
    return found


def print_report(report: Report, scoring: Scoring) -> None:
    """Print the tables."""
    metrics = list(next(iter(report.scores.values())))
    print(f"{report.data.name}: {len(report.data):,} rows")
    print(show_table(["", *metrics], [[name, *found.values()] for name, found in report.scores.items()]))
    for name, signature in report.signatures.items():
        print(f"{name}: {signature}")
    if report.comparisons:
        print(f"\nDifferences to {report.systems[0].name}\n{show_table(*comparison_table(report.comparisons))}")
        untested = [name for name in metrics if name not in {found.metric for found in report.comparisons}]
        if untested:
            print(f"Not tested, as no sum over rows gives them: {', '.join(untested)}")
    for breakdown in report.breakdowns:
        print(f"\n{breakdown}")


def write_figures(path: str, report: Report) -> None:
    """Write all figures as JSON."""
    figures = {
        "data": report.data.name,
        "rows": len(report.data),
        "scores": report.scores,
        "signatures": report.signatures,
        "comparisons": [asdict(found) for found in report.comparisons],
        "breakdowns": [asdict(found) for found in report.breakdowns],
    }
    with whole_file(path) as partial:
        partial.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_predictions(path: str, data: EvaluationData, systems: list[System]) -> None:
    """Write a row of JSON for each row: source, references, the first system's output, and all outputs by system."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        for number, references in enumerate(data.references):
            row: dict[str, Any] = {"source": data.sources[number]} if data.sources else {}
            row |= {"references": references, "prediction": systems[0].outputs[number]}
            if len(systems) > 1:
                row["outputs"] = {system.name: system.outputs[number] for system in systems}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
