"""Training speed beside a busy program: how long threads should spin for each other, in one run.

    python -m benchmarks.neighbour train.de.gz train.en.gz --output benchmarks/results/neighbour-cpu.json

Each setting is a process of its own, which builds the model of `benchmarks.training` and trains for some seconds when
it is its turn: quiet, beside one busy loop, beside two. The turns of all settings alternate (A B A B).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fun_transformer.files import write_atomically

BUSY_LOOP = "while True: pass"
SETTINGS: dict[str, dict[str, str]] = {
    "as it is": {"GOMP_SPINCOUNT": "300000"},
    "spin 30,000": {"GOMP_SPINCOUNT": "30000"},
    "spin 10,000": {"GOMP_SPINCOUNT": "10000"},
    "spin 5,000": {"GOMP_SPINCOUNT": "5000"},
    "spin 3,000": {"GOMP_SPINCOUNT": "3000"},
    "spin 1,000": {"GOMP_SPINCOUNT": "1000"},
    "spin 100": {"GOMP_SPINCOUNT": "100"},
    "no spin": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread less": {"GOMP_SPINCOUNT": "300000", "THREADS": "-1"},
    "spin 1,000, one thread less": {"GOMP_SPINCOUNT": "1000", "THREADS": "-1"},
}


def serve(options: argparse.Namespace) -> None:
    """Build the model, then train for as many seconds as each line of standard input says; print tokens a second."""
    from benchmarks.contenders import PACKED, Corpus, ours

    train = ours(PACKED)(Corpus(options))
    train(3.0)
    print("ready", flush=True)
    for line in sys.stdin:
        begun = time.monotonic()
        tokens = train(float(line))
        print(tokens / (time.monotonic() - begun), flush=True)


class Setting:
    """A process that trains with some environment.

    Args:
        name: Of the setting.
        options: Of the command line.
    """

    def __init__(self, name: str, options: argparse.Namespace):
        environment = {**os.environ, **SETTINGS[name]}
        threads = max(1, options.threads + int(environment.pop("THREADS", "0")))
        command = [sys.executable, "-m", "benchmarks.neighbour", options.source, options.target, "--serve"]
        self.process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.turns: Any = self.process.stdin
        self.results: Any = self.process.stdout

    def read(self) -> str:
        """Read the next line that is a result."""
        while line := self.results.readline():
            if line.strip() == "ready" or line.strip().replace(".", "").isdigit():
                return line
        raise RuntimeError("A setting has ended before its turn.")

    def train(self, seconds: float) -> float:
        """Train for some seconds; return real tokens a second."""
        self.turns.write(f"{seconds}\n")
        self.turns.flush()
        return float(self.read())


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Let busy programs run beside the block, each on a core of its own if it can."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(settings: dict[str, Setting], options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Let all settings train in turn, beside no, one and two busy loops.

    Returns:
        By number of neighbours, then by setting: tokens a second of each turn.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for neighbours in range(options.neighbours + 1):
        with busy_loops(neighbours):
            speeds: dict[str, list[float]] = {name: [] for name in settings}
            for _ in range(options.rounds):
                for name, setting in settings.items():
                    speeds[name].append(setting.train(options.seconds))
            found[str(neighbours)] = speeds
        for name, turns in speeds.items():
            print(f"{neighbours} busy  {name:28} {statistics.median(turns):9,.0f} tok/s", flush=True)
    return found


def main() -> None:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="text file, one sentence a line")
    parser.add_argument("target", help="its translation, line by line")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn")
    parser.add_argument("--neighbours", type=int, default=2, help="most busy loops beside")
    parser.add_argument("--only", nargs="*", choices=list(SETTINGS), help="these settings alone")
    parser.add_argument("--output", help="where to write the results (JSON)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(size="small", vocab_size=8000, batch_tokens=4096)
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return
    settings = {}
    for name in options.only or SETTINGS:  # one after the other: the first fills the caches
        settings[name] = Setting(name, options)
        settings[name].read()
    try:
        found = measure(settings, options)
    finally:
        for setting in settings.values():
            setting.process.kill()
            setting.process.wait()
    if options.output:
        from fun_transformer.training.run.environment import describe_environment

        words = [Path(word).name if Path(word).is_file() else word for word in sys.argv[1:]]
        results = {
            "command": f"python -m benchmarks.neighbour {' '.join(words)}",
            "environment": describe_environment(),
            "threads": options.threads,
            "load": os.getloadavg(),
            "tokens_per_second": found,
        }
        write_atomically(Path(options.output), json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
