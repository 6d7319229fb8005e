"""Texts in, answers out, line by line: what is finished stays, and a later run goes on after it."""

import argparse
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TextIO

from ..files import LineFile, count_lines
from ..text_parts import check_tagged, unknown_tags

TABLES = (".tsv", ".csv", ".jsonl", ".json", ".parquet")
PACKED = (".gz", ".xz", ".bz2", ".zst")
SHOWN = 10  # unknown characters
CHUNK_BATCHES = 64  # the most batches of a file that are sorted by length and answered at a time
CHUNK_SECONDS = 10  # after about this time answers are written
BATCH_SIZE = 32  # of a chunk's batches, where the command line says none


def is_table(file: str) -> bool:
    """Return whether a file has columns, by its ending before that of a compression."""
    endings = [ending.lower() for ending in Path(file).suffixes]
    return bool(endings) and (endings[-2] if endings[-1] in PACKED and len(endings) > 1 else endings[-1]) in TABLES


def check_streams(args: argparse.Namespace) -> None:
    """Refuse inputs and outputs that do not fit together, before anything is loaded; `-` becomes None.

    Raises:
        ValueError: Two inputs, or an output that is the input.
        OSError: The output cannot be written to.
    """
    if args.text and args.file:
        raise ValueError("Give either texts or --file, not both.")
    args.file, args.output = (None if name == "-" else name for name in (args.file, args.output))
    if args.resume and not (args.file and args.output):
        raise ValueError("--resume goes on with a file: give --file and --output too.")
    check_generation(args)
    if args.engine and args.ensemble:
        raise ValueError(f"--engine {args.engine} computes one model: leave out --engine or --ensemble.")
    if args.output:
        check_writable(Path(args.output))
    input_file = None if args.text else args.file or sys.stdin
    if is_same_file(input_file, args.output or sys.stdout):
        raise ValueError(
            f"The output would overwrite the input: {args.output or 'standard output'} is the file that is read. "
            "Give --output another name."
        )


def check_generation(args: argparse.Namespace) -> None:
    """Refuse ways of generating that do not fit together.

    Raises:
        ValueError: Naming them.
        OSError: There is no such glossary.
    """
    if args.mbr and (args.glossary or args.protect):
        raise ValueError("--mbr samples, which forces no terms: leave out --mbr, or --glossary and --protect.")
    if args.glossary and not Path(args.glossary).is_file():
        raise FileNotFoundError(f"There is no file {args.glossary} with a --glossary.")


def check_nbest(args: argparse.Namespace) -> None:
    """Refuse several answers where the search gives fewer.

    Raises:
        ValueError: It does.
    """
    if args.num_beams and args.num_beams < args.nbest:
        raise ValueError(f"--num-beams {args.num_beams} cannot find --nbest {args.nbest}. Give as many beams.")
    if args.mbr and args.nbest > 1:
        raise ValueError("--mbr chooses one answer: leave out --nbest.")


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written to.

    Raises:
        OSError: There is no such folder, it is a folder itself, or writing is not allowed.
    """
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.resolve().parent}.")
    if path.is_dir():
        raise IsADirectoryError(f"--output {path} is a folder. Give the name of a file.")
    if not os.access(path if path.exists() else path.resolve().parent, os.W_OK):
        raise PermissionError(f"--output {path} cannot be written to: permission denied.")


def is_same_file(first: str | TextIO | None, second: str | TextIO | None) -> bool:
    """Tell whether two names or streams are one file on a disk, through links and redirections too."""
    try:
        found = [os.stat(file if isinstance(file, str) else file.fileno()) for file in (first, second) if file]
    except (OSError, ValueError, AttributeError):  # no such file yet, or no stream of the system
        return False
    return len(found) == 2 and stat.S_ISREG(found[0].st_mode) and os.path.samestat(*found)


def count_finished_lines(args: argparse.Namespace, total: int, above: int = 0) -> int:
    """Count the answers in the output that a run before has finished, apart from the lines `above` them.

    Raises:
        ValueError: There are more of them than the input has lines, or the output is no file.
    """
    if Path(args.output).exists() and not Path(args.output).is_file():
        raise ValueError(f"--resume goes on with a file, and {args.output} is none.")
    done = max(count_lines(args.output) - above, 0)
    if done > total:
        raise ValueError(
            f"{args.output} has {done} lines and {args.file} only {total}, so it is no part of its answers. "
            "Give another --output, or leave out --resume to begin again."
        )
    return done


@contextmanager
def say_that_nothing_is_finished(args: argparse.Namespace) -> Iterator[None]:
    """Say of a Ctrl-C that comes before the first answer what it leaves."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if stop.args:
            raise
        more = "more lines" if args.resume else "lines"
        raise KeyboardInterrupt(f"interrupted: 0 {more} finished.") from stop


@contextmanager
def say_what_is_finished(args: argparse.Namespace, above: int = 0) -> Iterator[None]:
    """Add to what interrupts the work how many answers are in the file that they are written to."""
    try:
        yield
    except (KeyboardInterrupt, OSError, ValueError) as error:
        if not args.output or not Path(args.output).is_file():
            raise
        finished = f"lines finished in {args.output}: {max(count_lines(args.output) - above, 0)}"
        has_files = getattr(args, "file", None) or getattr(args, "sources", None)  # what is typed in is gone
        hint = "; the same command with --resume goes on after them." if has_files else "."
        kind = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ValueError
        raise kind(f"{str(error) or 'interrupted'}: {finished}{hint}") from error


def read_file(name: str) -> list[str]:
    """Return the lines of a UTF-8 file, which may begin with a byte order mark and end its lines as Windows does.

    Raises:
        OSError: There is no such file.
        ValueError: A line is not UTF-8.
    """
    if not Path(name).exists():
        raise FileNotFoundError(f"There is no file {name}.")
    data = Path(name).read_bytes()
    return decode_lines(data.removesuffix(b"\n").split(b"\n"), name) if data else []


def read_stream(stream: BinaryIO) -> Iterator[list[str]]:
    """Yield lines as they come: an item holds those that arrived together, so that no answer waits for more."""
    number, rest = 1, b""
    while block := stream.read1(1 << 16):  # type: ignore[attr-defined]  # of buffered streams
        *lines, rest = (rest + block).split(b"\n")
        if lines:
            yield decode_lines(lines, "standard input", number)
        number += len(lines)
    if rest:
        yield decode_lines([rest], "standard input", number)


def decode_lines(lines: Iterable[bytes], name: str, first: int = 1) -> list[str]:
    """Turn the bytes of lines into text.

    Raises:
        ValueError: A line is not UTF-8; lines are counted from `first`.
    """
    decoded = []
    for number, line in enumerate(lines, start=first):
        try:
            decoded.append(line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\r"))
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{name}, line {number} is not UTF-8 (byte {line[error.start]:#04x} at position {error.start + 1}). "
                "Convert it first, for example with: iconv -f GB18030 -t UTF-8"
            ) from error
    return decoded


@contextmanager
def open_output(name: str | None, keep: int = 0) -> Iterator[Callable[[list[str]], object]]:
    """Yield a function that writes lines at once: to standard output, or to a file after the lines to keep."""
    if name is not None:
        with closing(LineFile(name, keep)) as file:
            yield file.write
        return
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")

    def write(lines: list[str]) -> None:
        print(*lines, sep="\n", end="\n" if lines else "", flush=True)

    yield write


@contextmanager
def progress_bar(total: int | None, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Yield a function that moves a bar on by some lines; no bar when the total is unknown or stderr no terminal."""
    from tqdm import tqdm  # transformers needs it too

    disable = total is None or not sys.stderr.isatty()
    with tqdm(total=total, initial=done, unit=" lines", disable=disable) as bar:
        yield bar.update


def read_chunks(args: argparse.Namespace) -> tuple[Iterable[list[str]], int | None, int]:
    """Return the texts of the arguments, of --file or of standard input.

    Args:
        args: With `text`, `file`, `output`, `resume` and `batch_size`.

    Returns:
        The texts in chunks, after those that are finished; the number of all texts, None where it is not known; and
        the number of those that are finished.
    """
    if args.text:
        return [args.text], None, 0
    if not args.file:
        return read_stream(sys.stdin.buffer), None, 0
    lines = read_file(args.file)
    done = count_finished_lines(args, len(lines)) if args.resume else 0
    return chunks_after(lines, done, args.batch_size), len(lines), done


def chunks_after(items: list, done: int, batch_size: int | None) -> Iterator[list]:
    """Yield the items after the first `done`: one batch, then more, while the answers do not take long to come."""
    batches = 1
    while done < len(items):
        begin = time.monotonic()
        chunk = items[done : done + batches * (batch_size or BATCH_SIZE)]
        yield chunk
        done += len(chunk)
        if time.monotonic() - begin < CHUNK_SECONDS / 2:
            batches = min(2 * batches, CHUNK_BATCHES)


def first_line(path: str) -> str:
    """Return the first line of a file; what comes after it may be damaged."""
    with open(path, "rb") as file:
        return file.readline().decode("utf-8", "replace").removesuffix("\n")


def write_answers(
    args: argparse.Namespace,
    answers: Iterator[list[str]],
    total: int | None,
    done: int,
    header: str = "",
    has_same_fields: Callable[[str], bool] = lambda line: True,
) -> None:
    """Write the lines of all answers as they come.

    Args:
        args: With `output`, and `file` for a hint.
        answers: By chunks.
        total: The number of answers; None where it is not known.
        done: Those that are in the output already.
        header: A line above all answers; "" for none.
        has_same_fields: Tells of the first line of a file to go on with whether it fits the answers.

    Raises:
        ValueError: It does not.
    """
    above = 1 if header else 0
    is_begun = args.resume and count_lines(args.output) > 0
    if is_begun and not has_same_fields(first_line(args.output)):
        raise ValueError(
            f"{args.output} has other columns than these options give. Use the options of before, or another file."
        )
    first = next(answers, [])  # before an old file is replaced
    keep = done + above if is_begun else 0
    with (
        open_output(args.output, keep) as write,
        progress_bar(total, done) as advance,
        say_what_is_finished(args, above),
    ):
        if header and not is_begun:
            write([header])
        finished = 0
        try:
            for lines in chain([first], answers):
                write(lines)
                advance(len(lines))
                finished += len(lines)
        except KeyboardInterrupt as stop:
            if args.output and Path(args.output).is_file():
                raise
            raise KeyboardInterrupt(f"interrupted: {finished} lines finished.") from stop


@dataclass
class Unknown:
    """Characters that a vocabulary does not have, by how often they occurred, and the number of lines they were in."""

    counts: Counter[str] = field(default_factory=Counter)
    lines: int = 0
    tags: Counter[str] = field(default_factory=Counter)
    is_begun: bool = False

    def look(self, tokenizer, lines: Iterable[str], is_target: bool = False) -> None:
        """Count those of some lines, and features that training never saw.

        Raises:
            ValueError: The first of the sources have no features, and those of training had some.
        """
        from ..tokenization_fun_transformer import unknown_characters

        lines = list(lines)
        if not is_target and not self.is_begun and any(map(str.strip, lines)):
            check_tagged(tokenizer, lines)
            self.is_begun = True
        for line in lines:
            tags = [] if is_target else unknown_tags(tokenizer, line)
            self.tags.update(tags)
            for tag in tags:
                line = line.replace(tag, "")
            found = unknown_characters(tokenizer, line, is_target)
            self.counts.update(found)
            self.lines += bool(found)

    def say(self, command: str) -> None:
        """Print one line on stderr where there were any, and one on tags."""
        if self.tags:
            print(
                f"fun-transformer {command}: {self.tags.total()} tags that training never saw: "
                f"{', '.join(tag for tag, _ in self.tags.most_common(SHOWN))}",
                file=sys.stderr,
            )
        if not self.counts:
            return
        total, named = self.counts.total(), [part for part, _ in self.counts.most_common(SHOWN)]
        kind = "characters" if all(len(part) == 1 for part in self.counts) else "characters or words"
        more = f" and {len(self.counts) - SHOWN} others" if len(self.counts) > SHOWN else ""
        print(
            f"fun-transformer {command}: {total} {kind} in {self.lines} lines are not in the vocabulary: "
            f"{', '.join(named)}{more}",
            file=sys.stderr,
        )
