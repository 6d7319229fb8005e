"""Data with the number of rows: seconds to the first step, memory, tokens a second of the loader alone.

    python -m benchmarks.loading made-up --rows 1000 10000 100000 1000000 --output benchmarks/results/loading.json

Made-up pairs of about ten words are written into the folder (0.13 KB a row), and read as every user's are: once from
nothing, once with the cache of the first time. Each is a process of its own, with a small model, and ends after one
step; then the loader makes batches without a model. What was written is removed afterwards.
"""

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from fun_transformer.files import write_atomically

WORDS = 20_000  # different ones, with the frequencies of a language (Zipf)
LONGEST = 19  # words; ten in the mean
CHUNK = 100_000  # rows that are made at once
STATES = ("from nothing", "cached")


def write_pairs(path: Path, rows: int, seed: int = 1) -> None:
    """Write tab-separated pairs of made-up sentences; a target has the words of its source, spelled otherwise."""
    rng = np.random.default_rng(seed)
    letters = rng.integers(0, 26, (WORDS, 9)).astype(np.uint8)
    sizes = rng.integers(2, 10, WORDS)
    words = ["".join(chr(97 + letter) for letter in row[:size]) for row, size in zip(letters, sizes)]
    others = [word[::-1] for word in words]
    chances = 1 / np.arange(1, WORDS + 1)
    borders = np.cumsum(chances / chances.sum())
    with path.open("w", encoding="utf-8") as file:
        file.write("source\ttarget\n")
        for first in range(0, rows, CHUNK):
            lengths = rng.integers(1, LONGEST + 1, min(CHUNK, rows - first)).tolist()
            chosen = np.searchsorted(borders, rng.random(sum(lengths)) * borders[-1]).tolist()
            lines, place = [], 0
            for length in lengths:
                sentence = chosen[place : place + length]
                place += length
                lines.append(f"{' '.join(words[i] for i in sentence)}\t{' '.join(others[i] for i in sentence)}\n")
            file.writelines(lines)


def start(path: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train one step on a file, then make batches alone; return what both took."""
    import torch

    from fun_transformer.training.engine import build_accelerator
    from fun_transformer.training.recipe.reading import parse_arguments
    from fun_transformer.training.train import build_loop, prepare

    torch.set_num_threads(1)
    command = [f"--data.train.dataset={path}", "--tokenizer.vocab_size=8000", "--output_dir=unused"]
    command += ["--model.d_model=64", "--model.encoder_layers=1", "--model.decoder_layers=1"]
    command += ["--training.threads=1", "--training.batch_tokens=4096", *options.recipe]
    arguments = parse_arguments(command)
    wall, cpu = time.monotonic(), time.process_time()
    run, _ = prepare(arguments, build_accelerator(arguments))
    prepared = time.monotonic() - wall
    loop = build_loop(run)
    next(loop.steps(1))
    found = {"seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - cpu, "prepare": prepared}
    found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    cpu, tokens = time.process_time(), 0
    while time.process_time() - cpu < options.seconds:
        tokens += sum(batch.tokens for batch in loop.stream.take(1))
    found["loader_tokens_per_cpu_second"] = tokens / (time.process_time() - cpu)
    cpu = time.process_time()
    loop.stream.state_dict()  # of a checkpoint, with the checksum of the rows
    found["checksum_cpu_seconds"] = time.process_time() - cpu
    return found


def measure(rows: int, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Write the rows, start twice, and remove everything.

    Returns:
        What `start` found, by state of the cache.
    """
    folder = Path(options.folder) / f"{rows}-rows"
    folder.mkdir(parents=True)
    try:
        write_pairs(folder / "pairs.tsv", rows)
        command = [sys.executable, "-m", "benchmarks.loading", str(folder / "pairs.tsv"), "--one"]
        command += ["--seconds", str(options.seconds), "--recipe", *options.recipe]
        environment = {**os.environ, "HF_DATASETS_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
        found = {}
        for state in STATES:
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            found[state] = json.loads(done.stdout.splitlines()[-1])
        return found
    finally:
        shutil.rmtree(folder)


def show(rows: int, found: dict[str, dict[str, Any]]) -> None:
    """Print a line for each state of the cache."""
    for state, values in found.items():
        print(
            f"{rows:11,} rows, {state:13} {values['seconds']:8.1f} s to the first step "
            f"({values['cpu_seconds']:.1f} CPU-s), {values['peak_bytes'] / 2**20:7,.0f} MiB, loader "
            f"{values['loader_tokens_per_cpu_second']:11,.0f} tok/cpu-s, "
            f"checksum {values['checksum_cpu_seconds']:.1f} s",
            flush=True,
        )


def write(results: dict[str, Any], path: Path) -> None:
    """Write what has been measured so far."""
    from fun_transformer.training.run.environment import describe_environment

    words = [Path(word).name if os.sep in word else word for word in sys.argv[1:]]  # no folders of ours
    about = {
        "command": f"python -m benchmarks.loading {shlex.join(words)}",
        "environment": describe_environment(),
        "load": os.getloadavg(),
    }
    write_atomically(path, json.dumps({**about, "rows": results}, indent=1))


def main() -> None:
    """Measure each number of rows, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="for the rows and the cache; what is made in it is removed")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU time of the loader alone")
    parser.add_argument("--recipe", nargs=argparse.REMAINDER, default=[], help="more of the recipe, at the end")
    parser.add_argument("--output", help="where to write the results (JSON)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(start(options.folder, options)))
        return
    results: dict[str, Any] = {}
    for rows in options.rows:
        results[str(rows)] = measure(rows, options)
        show(rows, results[str(rows)])
        if options.output:  # the next number may take hours
            write(results, Path(options.output))


if __name__ == "__main__":
    main()
