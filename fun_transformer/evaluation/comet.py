"""Scores of a metric that lives in another Python environment, such as COMET, whose package pins transformers < 5.

The command is run once for each system. It reads one JSON object a line from its standard input,

    {"src": "...", "mt": "...", "ref": "...", "refs": ["...", ...]}

until the end, and writes one line for each in the same order: a number, or an object with a "score". What it says on
standard error goes to ours. docs/evaluation.md has a script for unbabel-comet.
"""

import json
import math
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .data import EvaluationData


def check_command(command: str) -> list[str]:
    """Return the words of a command that can be run.

    Raises:
        ValueError: It is empty, or there is no such program.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"--comet {command!r} is no command: {error}.") from error
    if not words or not shutil.which(words[0]):
        raise ValueError(
            f"--comet {command!r}: there is no program {words[0] if words else ''!r}. Name the Python of the "
            'environment that has unbabel-comet, and the script: --comet "/path/to/python comet_scores.py".'
        )
    if missing := [word for word in words[1:] if word.endswith(".py") and not Path(word).is_file()]:
        raise ValueError(f"--comet {command!r}: there is no file {missing[0]}.")
    return words


def row_scores(command: str, data: EvaluationData, outputs: Sequence[str]) -> list[float]:
    """Return the score of each row.

    Args:
        command: As a shell has it; it is run without one.
        data: With sources.
        outputs: (rows,).

    Raises:
        ValueError: The data have no sources, or the command fails or does not answer with a number for each row.
    """
    if not data.sources:
        raise ValueError(f"{data.name} has no sources, which --comet needs. Give --source, or a table with them.")
    rows = [
        {"src": source, "mt": output, "ref": accepted[0], "refs": accepted}
        for source, output, accepted in zip(data.sources, outputs, data.references)
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        done = subprocess.run(check_command(command), input=lines.encode(), stdout=subprocess.PIPE, check=False)
    except OSError as error:
        raise ValueError(f"--comet {command!r} cannot be run: {error}.") from error
    if done.returncode:
        raise ValueError(f"--comet {command!r} ended with exit status {done.returncode}; see what it printed above.")
    answers = [line for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
    if len(answers) != len(rows):
        raise ValueError(
            f"--comet {command!r} gave {len(answers)} lines for {len(rows)} rows. It must print a number for each "
            "row, and nothing else, on its standard output."
        )
    return [read_score(answer, command) for answer in answers]


def read_score(answer: str, command: str) -> float:
    """Return the number of a line.

    Raises:
        ValueError: It holds none.
    """
    try:
        value = json.loads(answer)
        number = float(value["score"] if isinstance(value, dict) else value)
    except (ValueError, TypeError, KeyError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f'--comet {command!r} printed {answer!r}, neither a number nor {{"score": a number}}.')
    return number
