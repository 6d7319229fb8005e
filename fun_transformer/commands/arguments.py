"""Arguments that several commands have."""

import argparse

from ..number_types import AUTO, DTYPES
from ..pipeline_options import LONG_TEXT


def add_model_argument(parser: argparse.ArgumentParser, is_positional: bool = False) -> None:
    """Declare --model, or a model as the first word, and --plugin."""
    text = "a model folder, or the name of a model on the Hub"
    if is_positional:
        parser.add_argument("model", metavar="MODEL", help=text)
    else:
        parser.add_argument("--model", required=True, help=text)
    add_plugin_argument(parser)


def add_plugin_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --plugin."""
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="run a Python file first, which the model needs"
    )


def add_ensemble_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --ensemble."""
    parser.add_argument(
        "--ensemble",
        action="append",
        default=[],
        metavar="MODEL",
        help="another model of the same vocabulary, which decides each token with the first; may be given again",
    )


def add_feature_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --feature-columns."""
    parser.add_argument(
        "--feature-columns",
        nargs="+",
        default=[],
        metavar="NAME",
        help="columns of a table that become tags before the text (default: those of the model's training)",
    )


def add_task_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --task."""
    parser.add_argument(
        "--task",
        choices=["translation", "summarization", "text2text-generation"],
        default="translation",
        help="of a model that turns text into text; names the field of the answer (default: translation)",
    )


def add_dtype_argument(parser) -> None:
    """Declare --dtype."""
    parser.add_argument(
        "--dtype",
        choices=[AUTO, *DTYPES],
        default=AUTO,
        help="numbers to compute in (default: as saved; on a CPU, of what was saved in 16 bits, the faster of "
        "bfloat16 and float32)",
    )


def positive(text: str) -> int:
    """Return a number of the command line that must be 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def utf8_text(text: str) -> str:
    """Return a text of the command line that must be UTF-8."""
    text.encode()  # fails for bytes that were no UTF-8
    return text


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare where texts come from and where answers go."""
    parser.add_argument("text", nargs="*", type=utf8_text, help="texts; standard input when none is given")
    parser.add_argument("--output", help="where to write the answers, one a line (default: standard output)")
    parser.add_argument(
        "--resume", action="store_true", help="keep the lines of --output, and go on with the next line of --file"
    )


def add_generation_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how texts are generated."""
    parser.add_argument(
        "--batch-size",
        type=positive,
        help="texts answered together, fewer long ones (default: 320 by the number of beams: 64 for 5)",
    )
    parser.add_argument("--num-beams", type=positive, help="beams of the search (default: the model's, else 4)")
    parser.add_argument(
        "--max-new-tokens", type=positive, help="longest answer in tokens (default: the model's, else 256)"
    )
    parser.add_argument(
        "--length-penalty",
        type=float,
        help="exponent on the length in beam search; above 1 prefers longer answers (default: the model's, else 1)",
    )
    parser.add_argument("--src-lang", help="source language, for models of many languages (eng_Latn) or tasks (en)")
    parser.add_argument("--tgt-lang", help="target language, likewise")
    parser.add_argument(
        "--long-text",
        choices=[*LONG_TEXT, "whole"],
        default="sentences",
        help="sentence by sentence, what has no words is copied (default); only texts that are too long are split or "
        "truncated, or are an error; or each whole, as it is",
    )
    parser.add_argument(
        "--glossary", help="terms that answers must have: a .tsv or .csv file, source and target (none: as it is)"
    )
    parser.add_argument(
        "--protect", action="store_true", help="copy addresses, numbers, code and tags letter by letter"
    )
    parser.add_argument("--mbr", type=positive, help="sample this many answers, take the one that agrees most")
    parser.add_argument(
        "--no-guard",
        dest="guard",
        action="store_false",
        help="do not look for loops, copies and odd lengths, nor generate again where there are some",
    )
    add_dtype_argument(parser)
    parser.add_argument(
        "--engine",
        choices=["ctranslate2"],
        help="what computes the answers instead of torch; a folder of `export --to ct2` says so itself",
    )
    parser.add_argument("--device", help='"cpu", "cuda", "cuda:1", "mps" (default: the first accelerator, else cpu)')
