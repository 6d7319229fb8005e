"""`fun-transformer export`: a model in the format of another program."""

import argparse
import sys
from pathlib import Path

from .arguments import add_model_argument
from .models import load_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `export`."""
    from ..export.formats import FORMATS

    add_model_argument(parser, is_positional=True)
    parser.add_argument("--to", required=True, choices=list(FORMATS), help="the format")
    parser.add_argument("-o", "--output", required=True, help="a new folder; of argos a file that ends in .argosmodel")
    parser.add_argument(
        "--quantization", metavar="TYPE", help="smaller numbers for the weights: int8, float16, ... as the format has"
    )
    parser.add_argument(
        "--check",
        metavar="FILE",
        help="sources to compare on: a text, one a line, or a table with references, on which scores are compared too "
        "(default: random words)",
    )
    parser.add_argument("--source-column", default="source", metavar="NAME", help="of that table (default: source)")
    parser.add_argument("--target-column", default="target", metavar="NAME", help="of that table (default: target)")
    parser.add_argument("--force", action="store_true", help="keep what answers differently or loses quality")


def run(args: argparse.Namespace) -> int:
    """Export a model, and print its size and how its answers agree with the model's own."""
    from ..export import NotKept, export_model, find_format
    from ..export.write import check_output

    format = find_format(args.to)
    check_output(Path(args.output), format)
    data = read_check(args)
    model, tokenizer, _ = load_model(args.model, args.plugin, any_source=True)
    try:
        exported = export_model(model, tokenizer, format, args.output, args.quantization, data, args.force)
    except NotKept as error:
        report(error.exported, args.quantization)
        print(
            f"fun-transformer export: error: not kept: {'; '.join(error.exported.lost)}. --force keeps it.",
            file=sys.stderr,
        )
        return 1
    report(exported, args.quantization)
    print(f"{args.output}: {exported.num_bytes / 1e6:.1f} MB")
    return 0


def report(exported, quantization: str | None) -> None:
    """Print agreements and scores."""
    for found in exported.agreements:
        print(found)
        if found.example:
            source, ours, theirs = found.example
            print(f"  differs: {source!r}: {ours!r}, exported: {theirs!r}")
    for name, (before, after) in exported.scores.items():
        print(f"{name}: {before:.2f} before, {after:.2f} after")
    if quantization and not exported.scores:
        print("no references: scores were not compared (--check TABLE)")


def read_check(args: argparse.Namespace):
    """Return the rows to compare on; None where no file is named.

    Raises:
        ValueError: The file cannot be used.
        OSError: There is no such file.
    """
    from ..evaluation.data import Columns, load_data
    from ..training.data.readers import FORMATS, file_format
    from .streams import read_file

    if not args.check:
        return None
    if file_format(args.check) in FORMATS:
        try:
            return load_data(args.check, Columns(args.source_column, args.target_column))
        except ValueError as error:
            if "has no column" not in str(error) or Path(args.check).suffix not in (".tsv", ".csv"):
                raise
            raise ValueError(f"{error} The first line must name the columns.") from error
    lines = [line for line in read_file(args.check) if line.strip()]
    if not lines:
        raise ValueError(f"{args.check} is empty.")
    return lines
