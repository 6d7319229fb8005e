"""`fun-transformer convert`: a model of another tool as one of ours."""

import argparse
import sys
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `convert`."""
    from ..conversion import READERS

    parser.add_argument("source", metavar="SOURCE", help="the other tool's file or folder, or a name on the Hub")
    parser.add_argument("-o", "--output", required=True, help="a new folder")
    parser.add_argument("--from", dest="kind", choices=list(READERS), help="the tool (default: found out)")
    parser.add_argument(
        "--tokenizer",
        nargs="+",
        default=[],
        metavar="PATH",
        help="a folder with a tokenizer of transformers, or files with one token a line: one for both sides, or two",
    )
    parser.add_argument(
        "--map", action="append", default=[], metavar="NAME=PART", help="of torch: what a weight is, as fc=generator"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="of torch: a field of the configuration, such as encoder_attention_heads=4 or norm_position=pre",
    )
    parser.add_argument("--checkpoint", metavar="FILE", help="which of several in the folder")


def run(args: argparse.Namespace) -> None:
    """Convert a model, and print what it is and how it agrees with its source."""
    from transformers.utils import logging

    from ..conversion import Options, convert

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    options = Options(
        names=pairs(args.map, "--map"),
        settings={name: value_of(text) for name, text in pairs(args.set, "--set").items()},
        tokenizer=args.tokenizer,
        checkpoint=args.checkpoint,
    )
    converted, agreement = convert(args.source, args.output, args.kind, options)
    model, tokenizer = converted.model, converted.tokenizer
    for note in converted.notes:
        print(f"note: {note}")
    print(agreement or "not compared: the tool itself would have to run")
    target_size = getattr(tokenizer, "target_vocab_size", None)
    tokens = f"{len(tokenizer):,} tokens" + (f" and {target_size:,} of the target" if target_size else "")
    print(f"{args.output}: {type(model).__name__}, {model.num_parameters():,} parameters, {tokens}")


def pairs(words: list[str], option: str) -> dict[str, str]:
    """Return `NAME=VALUE` words as a mapping.

    Raises:
        ValueError: A word has no "=".
    """
    found = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name or not value:
            raise ValueError(f"{option} {word} must have the form NAME=VALUE.")
        found[name] = value
    return found


def value_of(text: str) -> Any:
    """Return a number, a boolean or None that a text spells, or the text."""
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text
