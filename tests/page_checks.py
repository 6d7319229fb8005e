"""What can be checked in pages of Markdown: blocks of code, tables, and commands, which are parsed like a user's."""

import re
import shlex
import tomllib
from importlib.util import find_spec
from pathlib import Path

from fun_transformer.cli import COMMANDS, build_parser
from fun_transformer.evaluation.command import build_parser as evaluate_parser
from fun_transformer.training.recipe.names import flatten, known_arguments
from fun_transformer.training.recipe.reading import read_command_line
from fun_transformer.training.recipe.yaml12 import read_yaml

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
KNOWN = known_arguments()
# Programs of others: what they do is not ours to check.
OTHERS = {"git", ".", "cd", "curl", "docker", "export", "source", "systemctl", "tensorboard", "sbatch", "hf"}
OTHERS |= {"for", "done"}
PLACEHOLDER = re.compile(r"\.\.\.|\[[A-Z -]+\.*\]|\[options[^]]*\]|\[--[^]]+\]")
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


class UnknownCommand(ValueError):
    """A line of a page that no user could run."""


def blocks(text: str, language: str) -> list[str]:
    """The blocks of code of a page in a language, one after the other."""
    return [code for found, code in BLOCK.findall(text) if found == language]


def commands(text: str) -> list[str]:
    """The lines of the shell of a page: continued ones joined, without comments and placeholders."""
    found = []
    for block in blocks(text, "bash"):
        begun = ""  # of a line whose quotation goes on in the next one
        for line in block.replace("\\\n", " ").splitlines():
            begun += re.sub(r"(^|\s)#.*", "", line)
            if begun.count("'") % 2 == 0:
                found.append(PLACEHOLDER.sub("", begun).strip())
                begun = ""
    return [line for line in found if line]


def check_command(line: str) -> None:
    """Raise UnknownCommand where a line of the shell names something of ours that does not exist."""
    words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=\S*", word)]  # variables
    if not words or words[0] in OTHERS:
        return
    program, rest = Path(words[0]).name, words[1:]
    if program == "fun-transformer":
        check_ours(rest)
    elif program == "make":
        if unknown := [word for word in rest if "=" not in word and word not in TARGETS]:
            raise UnknownCommand(f"make has no target {unknown[0]}: {line}")
    elif program == "pip" or words[1:3] == ["-m", "pip"]:
        for extra in re.findall(r"\[([\w,-]+)\]", line):
            if unknown := set(extra.split(",")) - EXTRAS.keys():
                raise UnknownCommand(f"There is no extra {unknown}: {line}")
    elif program in ("python", "python3"):
        check_python(rest, line)
    elif words[:2] == ["accelerate", "launch"]:
        check_launch(rest[1:], line)
    else:
        raise UnknownCommand(f"What is {program}? {line}")


def check_ours(words: list[str]) -> None:
    """Parse what follows `fun-transformer` as the command does."""
    if not words or words[0] in ("--version", "--help"):
        return
    name, rest = words[0], [word for word in words[1:] if word != "--help"]
    try:
        if name == "train":
            check_training(rest)
        elif name == "evaluate":
            check_evaluation(rest)
        elif name in COMMANDS:
            if "--help" not in words:
                build_parser().parse_args(words)
        else:
            raise UnknownCommand(f"fun-transformer has no command {name}.")
    except (SystemExit, ValueError) as error:  # argparse has said why on stderr
        raise UnknownCommand(f"fun-transformer {shlex.join(words)}: {error}") from error


def check_training(words: list[str]) -> None:
    """Parse a recipe and settings; a recipe that is named by its path, and the values, are the user's."""
    read_command_line(words, KNOWN)


def check_evaluation(words: list[str]) -> None:
    """Parse either form: on data, or a run on its own rows with settings of its recipe."""
    if any(re.match(r"--[a-z_]+\.", word) for word in words):
        check_training(words[1:])
    elif words:
        evaluate_parser().parse_args(words)


def check_python(words: list[str], line: str) -> None:
    """Find the module or file that is run."""
    if words[0] == "-m":
        module = words[1]
        if module in ("venv", "joeynmt", "pytest", "ruff", "mypy"):
            return
        if find_spec(module) is None:
            raise UnknownCommand(f"There is no module {module}: {line}")
        if module in ("training.train", "fun_transformer.training"):
            check_ours(["train", *words[2:]])
    elif words[0].endswith(".py") and not (ROOT / words[0]).exists():
        raise UnknownCommand(f"There is no file {words[0]}: {line}")


def check_launch(words: list[str], line: str) -> None:
    """Find the file and the module that accelerate is given."""
    if "--config_file" in words and not (ROOT / words[words.index("--config_file") + 1]).exists():
        raise UnknownCommand(f"There is no such file for accelerate: {line}")
    if "-m" not in words:
        raise UnknownCommand(f"Nothing is launched: {line}")
    check_python(words[words.index("-m") :], line)


def check_recipe(text: str) -> None:
    """Raise ValueError where a block of YAML names a setting that does not exist."""
    flatten(read_yaml(text, "a page"), KNOWN)


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a page, each a list of rows of cells, the header first."""
    found, rows = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split(" | ")])
        elif rows:
            found.append([row for row in rows if not re.fullmatch(r"[-: |]+", "".join(row))])
            rows = []
    return found
