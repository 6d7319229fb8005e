"""The command `fun-transformer`: train a model, and use a saved one, from the shell.

    fun-transformer train --data.train.source train.zh --data.train.target train.en --output_dir runs/mine
    fun-transformer evaluate runs/mine
    fun-transformer evaluate FOLDER test.tsv --against OTHER --report page.html
    fun-transformer translate --model FOLDER "今天吃什么好"
    fun-transformer translate --model FOLDER --file in.zh --output out.en
    fun-transformer predict FOLDER --file in.tsv --output out.jsonl --nbest 5 --scores
    fun-transformer distill FOLDER OTHER --sources texts.txt --output rows.jsonl
    fun-transformer serve FOLDER
    fun-transformer attention --model FOLDER "今天吃什么好" -o page.html
    fun-transformer export FOLDER --to ct2 --quantization int8 -o OUT
    fun-transformer convert opus-mt-folder -o OUT
    fun-transformer push FOLDER me/my-model --license apache-2.0 --language zh en
    fun-transformer check-repo FOLDER_OR_NAME

A line in is a line out. A mistake gives one line on stderr and exit status 2.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from . import __version__
from .commands import convert, distill, export, predict, serve, translate
from .commands.arguments import add_model_argument, utf8_text
from .commands.models import load_model
from .commands.streams import Unknown

PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".eps", ".ps", ".pgf")


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
    if not is_page and Path(args.output).suffix.lower() not in PICTURES:
        raise ValueError(
            f"-o {args.output} must end in a picture format, such as .png, .pdf or .svg, or in .html for a page."
        )
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
    model, tokenizer, _ = load_model(args.model, args.plugin)
    unknown = Unknown()
    unknown.look(tokenizer, [args.text])
    found = analysis.cross_attention(model, tokenizer, args.text, args.target)
    draw(found, args.output, kind=args.kind, **options)
    print(found.target)
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
    "translate": Command("translate texts, a file or standard input", translate.add_arguments, translate.run),
    "predict": Command("give answers of any model as a table or jsonl", predict.add_arguments, predict.run),
    "distill": Command("write what models make of texts, as rows to train on", distill.add_arguments, distill.run),
    "serve": Command("serve translators over HTTP, with LibreTranslate's routes", serve.add_arguments, serve.run),
    "attention": Command("show what a model attends to, as a page or a picture", add_attention_arguments, attention),
    "export": Command("write a model in the format of another program", export.add_arguments, export.run),
    "convert": Command("make a model of one of another tool", convert.add_arguments, convert.run),
    "push": Command("publish a model folder on the Hub", add_push_arguments, push),
    "check-repo": Command("tell what would not work for other people", add_check_repo_arguments, check_repo),
}


def main(argv: list[str] | None = None) -> int:
    """Run the command and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in TRAINING:
        return hand_on(argv[0], argv[1:])
    args = parse(argv)
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


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse a command line, on which texts may come before, after and between the options."""
    parser = build_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and (not isinstance(getattr(args, "text", None), list) or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.text += map(utf8_text, rest)
    return args


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


if __name__ == "__main__":
    sys.exit(main())
