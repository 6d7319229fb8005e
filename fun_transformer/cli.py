"""The command `fun-transformer`: train a model, and use a saved one, from the shell.

    fun-transformer train --data.train.source train.zh --data.train.target train.en --output_dir runs/mine
    fun-transformer evaluate runs/mine
    fun-transformer evaluate FOLDER test.tsv --against OTHER --report page.html
    fun-transformer translate --model FOLDER "今天吃什么好"
    fun-transformer translate --model FOLDER --file in.zh --output out.en
    fun-transformer attention --model FOLDER "今天吃什么好" -o page.html
    fun-transformer push FOLDER me/my-model --license apache-2.0 --language zh en
    fun-transformer check-repo FOLDER_OR_NAME

A line in is a line out. A mistake gives one line on stderr and exit status 2.
"""

import argparse
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import BinaryIO, TextIO

from . import __version__
from .files import LineFile, count_lines
from .plugins import load_plugins

SHOWN = 10  # unknown characters
HUB_SECONDS = 10  # without an answer, the Hub counts as not there
CHUNK_BATCHES = 16  # this many batches of a file are sorted by length and translated at a time


# ── train, evaluate ───────────────────────────────────────────────────────────────────────────────────────────────

TRAINING = {
    "train": "train a model by a recipe (train --help lists every setting)",
    "evaluate": "score a run, a model or finished outputs (evaluate --help)",
}
MODULES = {"train": ".training.train", "evaluate": ".evaluation.command"}


def hand_on(command: str, words: list[str]) -> int:
    """Run a command of the trainer with its own words and return its exit status."""
    try:
        module = import_module(MODULES[command], __package__)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == __package__:
            raise
        print(
            f"fun-transformer {command}: error: {error.name} is not installed: pip install 'fun-transformer[train]'",
            file=sys.stderr,
        )
        return 2
    return module.main(words)


# ── translate ─────────────────────────────────────────────────────────────────────────────────────────────────────


def add_translate_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `translate`."""
    add_model_argument(parser)
    parser.add_argument(
        "text", nargs="*", type=utf8_text, help="texts to translate; standard input when none is given"
    )
    parser.add_argument("--file", help="a UTF-8 text file, one text a line (-: standard input)")
    parser.add_argument("--output", help="where to write the translations, one a line (default: standard output)")
    parser.add_argument(
        "--resume", action="store_true", help="keep the lines of --output, and go on with the next line of --file"
    )
    parser.add_argument("--batch-size", type=positive, default=32, help="texts translated together (default: 32)")
    parser.add_argument("--num-beams", type=positive, help="beams of the search (default: the model's, else 4)")
    parser.add_argument(
        "--max-new-tokens", type=positive, help="longest translation in tokens (default: the model's, else 256)"
    )
    parser.add_argument("--src-lang", help="source language, for models of many languages (eng_Latn) or tasks (en)")
    parser.add_argument("--tgt-lang", help="target language, likewise")
    parser.add_argument("--device", help='"cpu", "cuda", "cuda:1", "mps" (default: the first accelerator, else cpu)')


def translate(args: argparse.Namespace) -> None:
    """Translate arguments, a file or standard input, in the order of the lines.

    A file to write to keeps the lines that are finished, whatever ends the command.
    """
    check_translate_arguments(args)
    chunks: Iterable[list[str]] = [args.text] if args.text else read_stream(sys.stdin.buffer)
    total, done = None, 0
    if args.file:
        lines = read_file(args.file)
        total = len(lines)
        done = count_finished_lines(args, total) if args.resume else 0
        chunk = args.batch_size * CHUNK_BATCHES
        chunks = [lines[i : i + chunk] for i in range(done, total, chunk)]
    pipe, unknown = load_translator(args), Unknown()

    def answer(lines: list[str]) -> list[str]:
        unknown.look(pipe.tokenizer, lines)
        return translate_lines(pipe, lines, args.batch_size)

    translations = map(answer, chunks)
    first = next(translations, [])  # before an old file is replaced
    with open_output(args.output, done) as write, progress_bar(total, done) as advance, say_what_is_finished(args):
        for lines in chain([first], translations):
            write(lines)
            advance(len(lines))
    unknown.say(args.command)


def check_translate_arguments(args: argparse.Namespace) -> None:
    """Refuse arguments that do not fit together, before anything is loaded; `-` becomes None.

    Raises:
        ValueError: Two inputs, or an output that is the input.
        OSError: The output cannot be written to.
    """
    if args.text and args.file:
        raise ValueError("Give either texts or --file, not both.")
    args.file, args.output = (None if name == "-" else name for name in (args.file, args.output))
    if args.resume and not (args.file and args.output):
        raise ValueError("--resume goes on with a file: give --file and --output too.")
    if args.output:
        check_writable(Path(args.output))
    input_file = None if args.text else args.file or sys.stdin
    if is_same_file(input_file, args.output or sys.stdout):
        raise ValueError(
            f"The output would overwrite the input: {args.output or 'standard output'} is the file that is read. "
            "Give --output another name."
        )


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


def count_finished_lines(args: argparse.Namespace, total: int) -> int:
    """Count the lines of the output that a run before has finished.

    Raises:
        ValueError: There are more of them than the input has lines, or the output is no file.
    """
    if Path(args.output).exists() and not Path(args.output).is_file():
        raise ValueError(f"--resume goes on with a file, and {args.output} is none.")
    done = count_lines(args.output)
    if done > total:
        raise ValueError(
            f"{args.output} has {done} lines and {args.file} only {total}, so it is no part of its translation. "
            "Give another --output, or leave out --resume to begin again."
        )
    return done


@contextmanager
def say_what_is_finished(args: argparse.Namespace) -> Iterator[None]:
    """Add to what interrupts a translation how many lines are in the file that it is written to."""
    try:
        yield
    except (KeyboardInterrupt, OSError, ValueError) as error:
        if not args.output or not Path(args.output).is_file():
            raise
        finished = f"lines finished in {args.output}: {count_lines(args.output)}"
        hint = "; the same command with --resume goes on after them." if args.file else "."
        kind = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ValueError
        raise kind(f"{str(error) or 'interrupted'}: {finished}{hint}") from error


def load_translator(args: argparse.Namespace):
    """Return the translation pipeline that the arguments ask for."""
    from .pipeline_fun_transformer import TranslationPipeline, takes_languages

    options = {name: getattr(args, name) for name in ("num_beams", "max_new_tokens", "src_lang", "tgt_lang", "device")}
    # T5 knows its tasks by names such as "translation_en_to_de".
    task = f"translation_{args.src_lang}_to_{args.tgt_lang}" if args.src_lang and args.tgt_lang else "translation"
    model, tokenizer = load_model(args.model, args.plugin)
    languages = [f"--{name.replace('_', '-')}" for name in ("src_lang", "tgt_lang") if options[name]]
    if languages and not takes_languages(model, tokenizer, task):
        raise ValueError(
            f"{args.model} has one language on each side and knows none by name: leave out {' and '.join(languages)}."
        )
    try:
        return TranslationPipeline(
            model, tokenizer, task=task, **{name: value for name, value in options.items() if value is not None}
        )
    except (AssertionError, RuntimeError) as error:  # what torch raises for a device that is not there
        raise ValueError(f"--device {args.device} cannot be used: {str(error).splitlines()[0]}") from error


def translate_lines(pipe, lines: list[str], batch_size: int) -> list[str]:
    """Return a translation for every line; a blank line for a blank one."""
    filled = [line for line in lines if line.strip()]
    texts = (record["translation_text"] for record in pipe(filled, batch_size=batch_size))
    return [" ".join(next(texts).splitlines()) if line.strip() else "" for line in lines]


@dataclass
class Unknown:
    """Characters that a vocabulary does not have, by how often they occurred, and the number of lines they were in."""

    counts: Counter[str] = field(default_factory=Counter)
    lines: int = 0

    def look(self, tokenizer, lines: Iterable[str], is_target: bool = False) -> None:
        """Count those of some lines."""
        from .tokenization_fun_transformer import unknown_characters

        for line in lines:
            found = unknown_characters(tokenizer, line, is_target)
            self.counts.update(found)
            self.lines += bool(found)

    def say(self, command: str) -> None:
        """Print one line on stderr where there were any."""
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


# ── attention ─────────────────────────────────────────────────────────────────────────────────────────────────────


def add_attention_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `attention`."""
    add_model_argument(parser)
    parser.add_argument("text", type=utf8_text, help="the source text")
    parser.add_argument(
        "-o", "--output", required=True, help="a page to explore (.html), or a picture (.png, .pdf, .svg)"
    )
    parser.add_argument("--target", type=utf8_text, help="the target text (default: the model's own translation)")
    parser.add_argument(
        "--kind", choices=["cross", "encoder", "decoder"], default="cross", help="which attention (default: cross)"
    )
    parser.add_argument("--layer", type=int, help="layer, counted from 0 (default: the last)")
    parser.add_argument("--head", type=int, help="head, counted from 0 (default: the mean of all)")
    parser.add_argument("--all", action="store_true", help="draw all layers and heads, as small multiples")


def attention(args: argparse.Namespace) -> None:
    """Draw which tokens each token looked at, or write a page that shows it, and print the target text."""
    from . import analysis, visualization

    is_page = Path(args.output).suffix.lower() in (".html", ".htm")
    if args.all and (is_page or args.layer is not None or args.head is not None):
        raise ValueError("--all draws every layer and head, as a page does: leave out --layer, --head and .html.")
    draw: Callable[..., object]
    options = {"layer": args.layer, "head": args.head}
    if is_page:
        draw = visualization.write_attention_page
    elif args.all:
        draw, options = visualization.plot_attention_heads, {}
    else:
        draw = visualization.plot_attention
    model, tokenizer = load_model(args.model, args.plugin)
    found = analysis.cross_attention(model, tokenizer, args.text, args.target)
    draw(found, args.output, kind=args.kind, **options)
    print(found.target)
    unknown = Unknown()
    unknown.look(tokenizer, [args.text])
    unknown.look(tokenizer, [args.target] if args.target else [], is_target=True)
    unknown.say(args.command)


# ── push, check-repo ──────────────────────────────────────────────────────────────────────────────────────────────


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `push`."""
    parser.add_argument("folder", help="a model folder, such as runs/NAME/model")
    parser.add_argument("repo_id", help="the name on the Hub, such as me/my-model")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repo private")
    parser.add_argument("--license", help="the card's license, such as apache-2.0")
    parser.add_argument("--language", nargs="+", help="the card's languages, such as: zh en")
    parser.add_argument("--message", default="Publish the model", help='the commit message ("Publish the model")')


def push(args: argparse.Namespace) -> None:
    """Publish a model folder and print where it is; the token is that of `HF_TOKEN` or `hf auth login`."""
    from .hub import push_model_repo

    metadata = {name: value for name in ("license", "language") if (value := getattr(args, name))}
    commit = push_model_repo(
        args.folder, args.repo_id, private=args.private, commit_message=args.message, metadata=metadata
    )
    print(commit.commit_url)


def add_check_repo_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `check-repo`."""
    parser.add_argument("repo", help="a model folder, or the name of a model on the Hub")
    parser.add_argument("--revision", help="branch, tag or commit on the Hub")


def check_repo(args: argparse.Namespace) -> int:
    """Print what would not work for other people, one problem a line; return 1 when there is something."""
    from .hub import check_repo

    problems = check_repo(args.repo, revision=args.revision)
    print(*problems, sep="\n", end="\n" if problems else "")
    return 1 if problems else 0


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Command:
    """A command with its arguments; `run` returns the exit status, where None is 0."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]


COMMANDS = {
    "translate": Command("translate texts, a file or standard input", add_translate_arguments, translate),
    "attention": Command("show what a model attends to, as a page or a picture", add_attention_arguments, attention),
    "push": Command("publish a model folder on the Hub", add_push_arguments, push),
    "check-repo": Command("tell what would not work for other people", add_check_repo_arguments, check_repo),
}


def main(argv: list[str] | None = None) -> int:
    """Run the command and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in TRAINING:
        return hand_on(argv[0], argv[1:])
    args = build_parser().parse_args(argv)
    try:
        status = COMMANDS[args.command].run(args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit would complain
        return 1
    except KeyboardInterrupt as stop:
        if stop.args:
            print(f"fun-transformer {args.command}: {stop}", file=sys.stderr)
        return 130
    except (OSError, ValueError, ImportError) as error:
        print(f"fun-transformer {args.command}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return status or 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; those of the trainer are only listed."""
    parser = argparse.ArgumentParser(
        prog="fun-transformer", description="Train a sequence-to-sequence model, and use one."
    )
    parser.add_argument("--version", action="version", version=f"fun-transformer {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in TRAINING.items():
        subparsers.add_parser(name, help=text)
    for name, command in COMMANDS.items():
        command.add_arguments(subparsers.add_parser(name, help=command.help, description=command.help))
    return parser


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --model and --plugin."""
    parser.add_argument("--model", required=True, help="a model folder, or the name of a model on the Hub")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="run a Python file first, which the model needs"
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


def load_model(name: str, plugins: Iterable[str] = ()):
    """Load model and tokenizer from a folder or from the Hub, after the user's own files.

    Raises:
        OSError: `name` is no folder with a config.json, nor a name on the Hub.
        ValueError: The model is damaged, or is none that turns text into text.
    """
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
    from transformers.utils import logging

    from .hub.weights import folder_damage, some

    load_plugins(plugins)
    place = find_model(name)
    if damage := folder_damage(Path(place)):
        raise ValueError(f"{name} is damaged: {' '.join(damage)}")
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        model, report = AutoModelForSeq2SeqLM.from_pretrained(place, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(place)
    except OSError as error:
        if Path(place).exists():
            raise
        raise OSError(f"There is no folder {name} here, and the Hub did not give a model {name}: {error}") from error
    except ImportError:  # names what to install
        raise
    except Exception as error:  # whatever a damaged file makes a library raise
        raise ValueError(f"The model {name} cannot be loaded: {error}") from error
    if report["missing_keys"]:
        raise ValueError(f"{name} lacks weights of a {type(model).__name__}: {some(sorted(report['missing_keys']))}.")
    if bad := [key for key, value in model.named_parameters() if not value.isfinite().all()]:
        raise ValueError(f"{name} has weights that are NaN or infinite: {some(bad)}. Use a model from before that.")
    return model, tokenizer


def find_model(name: str) -> str:
    """Return where a model is loaded from: its folder, its name on the Hub, or what was downloaded of it earlier.

    Raises:
        OSError: There is no such folder, and the Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    path = Path(name)
    if path.exists() and not (path / "config.json").is_file():
        raise FileNotFoundError(f"{name} holds no config.json: it is not a model folder.")
    if not path.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise FileNotFoundError(f"There is no model folder {name}.")
    if path.exists() or hub_answers(name):
        return name
    try:
        return snapshot_download(name, local_files_only=True)
    except OSError as error:
        raise OSError(
            f"There is no folder {name} here, and the Hub could not be reached for a model {name}; nothing of it was "
            "downloaded earlier. Check the network, HF_ENDPOINT and HF_HUB_OFFLINE."
        ) from error


def hub_answers(name: str) -> bool:
    """Whether the Hub can be asked for a model; transformers would try six times to find out."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(name, timeout=HUB_SECONDS)
    except HfHubHTTPError as error:
        return error.response.status_code < 500
    except Exception:  # of the HTTP library, whose name depends on the version of huggingface_hub
        return False
    return True


def read_file(name: str) -> list[str]:
    """Return the lines of a UTF-8 file, which may begin with a byte order mark and end its lines as Windows does."""
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


if __name__ == "__main__":
    sys.exit(main())
