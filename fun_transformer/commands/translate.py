"""`fun-transformer translate`: the short form, texts in and translations out."""

import argparse
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from ..files import whole_file
from . import streams
from .arguments import add_ensemble_argument, add_generation_arguments, add_input_arguments, add_model_argument
from .models import load_together
from .streams import Unknown

ROWS_A_BATCH = 320  # beams or samples of all texts of a batch: the fastest of 160, 320 and 640 on a CPU


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `translate`."""
    add_model_argument(parser)
    add_ensemble_argument(parser)
    parser.add_argument("--file", help="a UTF-8 text file, one text a line (-: standard input)")
    add_input_arguments(parser)
    parser.add_argument(
        "--document",
        action="store_true",
        help="the whole --file is one text: paragraphs, Markdown and tags stay, code is copied",
    )
    add_generation_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Translate arguments, a file or standard input, in the order of the lines.

    A file to write to keeps the lines that are finished, whatever ends the command.
    """
    streams.check_streams(args)
    if args.file and streams.is_table(args.file):
        raise ValueError(
            f"--file {args.file} is a table, and translate reads lines of text. "
            f"Use: fun-transformer predict {args.model} --file {args.file}"
        )
    with streams.say_that_nothing_is_finished(args):
        if args.document:
            translate_document(args)
        else:
            translate_texts(args)


def translate_texts(args: argparse.Namespace) -> None:
    """Translate each text or line by itself."""
    chunks, total, done = streams.read_chunks(args)
    pipe, unknown = load_translator(args), Unknown()

    def answer(lines: list[str]) -> list[str]:
        unknown.look(pipe.tokenizer, lines)
        return translate_lines(pipe, lines, args.batch_size)

    streams.write_answers(args, map(answer, chunks), total, done)
    unknown.say(args.command)


def translate_lines(pipe, lines: Iterable[str], batch_size: int | None) -> list[str]:
    """Return a translation for every line; a blank line for a blank one."""
    lines = list(lines)
    filled = [line for line in lines if line.strip()]
    texts = (record["translation_text"] for record in pipe(filled, batch_size=batch_size))
    return [" ".join(next(texts).splitlines()) if line.strip() else "" for line in lines]


def translate_document(args: argparse.Namespace) -> None:
    """Translate a file as one text.

    Raises:
        ValueError: There is no file, or a finished part of it to go on with is asked for.
    """
    from ..decoding.documents import assemble, main_script, read_document

    if args.text or args.resume:
        raise ValueError("--document translates a file as a whole: leave out texts and --resume, give --file.")
    chunks = [streams.read_file(args.file)] if args.file else streams.read_stream(sys.stdin.buffer)
    document = "".join(f"{line}\n" for line in chain.from_iterable(chunks))
    pieces = read_document(document, main_script(document))
    texts = [piece.sentence for piece in pieces if piece.is_text]
    pipe, unknown = load_translator(args), Unknown()
    unknown.look(pipe.tokenizer, texts)
    translations: list[str] = []
    with streams.progress_bar(len(texts)) as advance:
        for chunk in streams.chunks_after(texts, 0, args.batch_size):
            translations += translate_lines(pipe, chunk, args.batch_size)
            advance(len(chunk))
    translated = assemble(pieces, translations)
    if args.output:
        with whole_file(args.output) as partial:
            Path(partial).write_text(translated, encoding="utf-8", newline="\n")
    else:
        with streams.open_output(None) as write:
            write(translated.removesuffix("\n").split("\n"))
    unknown.say(args.command)


def load_translator(args: argparse.Namespace):
    """Return the translation pipeline that the arguments ask for."""
    model, tokenizer, _ = load_together([args.model, *args.ensemble], args.plugin, dtype=args.dtype)
    return text_pipeline(args, model, tokenizer)


def text_pipeline(args: argparse.Namespace, model, tokenizer, task: str = "translation", **options):
    """Return a pipeline for a task that turns text into text, with what the arguments ask for.

    Raises:
        ValueError: The model knows no languages by name, or there is no such device.
    """
    from ..pipeline_fun_transformer import TASKS, takes_languages
    from ..pipeline_options import DEFAULT_GENERATION

    names = ("num_beams", "max_new_tokens", "length_penalty", "src_lang", "tgt_lang", "device", "dtype", "guard")
    options |= {name: getattr(args, name) for name in (*names, "glossary", "protect", "mbr", "batch_size", "engine")}
    options["long_text"] = None if args.long_text == "whole" else args.long_text
    if not options["batch_size"]:
        beams = args.num_beams or model.generation_config.num_beams or DEFAULT_GENERATION["num_beams"]
        options["batch_size"] = max(ROWS_A_BATCH // (args.mbr or beams), 1)
    pipeline_class, _ = TASKS[task]
    if args.src_lang and args.tgt_lang and task == "translation":  # T5 knows its tasks by names such as these
        task = f"translation_{args.src_lang}_to_{args.tgt_lang}"
    languages = [f"--{name.replace('_', '-')}" for name in ("src_lang", "tgt_lang") if options[name]]
    if languages and not takes_languages(model, tokenizer, task):
        raise ValueError(
            f"{args.model} has one language on each side and knows none by name: leave out {' and '.join(languages)}."
        )
    try:
        return pipeline_class(
            model, tokenizer, task=task, **{name: value for name, value in options.items() if value is not None}
        )
    except (AssertionError, RuntimeError) as error:  # what torch raises for a device that is not there
        raise ValueError(f"--device {args.device} cannot be used: {str(error).splitlines()[0]}") from error
