"""Speed and memory over the size of the model and of the batch, beside Marian: a few steps for each point.

    python -m benchmarks.sizes train.de.gz train.en.gz --minutes 10 --output benchmarks/results/sizes-cpu.json
    python -m benchmarks.chart benchmarks/results/sizes-cpu.json docs/images/sizes-cpu.svg

Each point is a process of its own, forked where all libraries are loaded: its peak memory is what it took beyond them.
Points go from small to large; those that no time is left for, or that one step of would take too long, are left out
and listed. Three layers a side, feed-forward networks of 4 d_model, heads of 64.
"""

import argparse
import json
import os
import resource
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders import CONTENDERS, Corpus
from fun_transformer.files import write_atomically
from fun_transformer.training.recipe.model_config import has_fast_bf16
from fun_transformer.training.run.environment import describe_environment

WIDTHS = (128, 256, 512, 1024)  # d_model
BATCHES = (1024, 4096, 16_384, 32_768)  # tokens, padding included
LAYERS = 3
FAST = has_fast_bf16(torch.device("cpu"))
PAIR = ("ours, packed", "Marian, bf16, eager") if FAST else ("ours", "Marian, fp32, sdpa")


def of_width(d_model: int) -> dict[str, int]:
    """Return the dimensions of a model of a width."""
    sides = {"layers": LAYERS, "attention_heads": max(1, d_model // 64), "ffn_dim": 4 * d_model}
    return {
        "d_model": d_model,
        **{f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in sides.items()},
    }


def measure(name: str, corpus: Corpus, seconds: float) -> dict[str, float]:
    """Train a contender for a few steps; return its tokens a CPU-second and the memory that it took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    train = CONTENDERS[name](corpus)
    begun = time.process_time()
    train(0.001)  # one step, which allocates
    first, tokens = time.process_time() - begun, 0
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        tokens += train(0.001)
    taken = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"tokens_per_cpu_second": tokens / taken, "bytes": 1024 * (peak - before), "first_step": first}


def in_child(name: str, corpus: Corpus, seconds: float) -> dict[str, float] | None:
    """Measure in a forked process; None where it died, as for want of memory."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as file:
                file.write(json.dumps(measure(name, corpus, seconds)))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else None


def used_by_points() -> float:
    """Return the CPU seconds of all points so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_all(corpus: Corpus, options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure the points from small to large.

    Returns:
        The points that were measured, and which were not.
    """
    points, left_out = [], []
    places = [(width, batch) for width in options.widths for batch in options.batches]
    dearest = 0.0  # CPU seconds of a token for each number of a matrix, of the widest model so far
    for d_model, batch_tokens in sorted(places, key=lambda place: place[0] ** 2 * place[1]):
        step = dearest * d_model**2 * batch_tokens
        cost = len(options.contenders) * (step + max(step, options.seconds))
        if used_by_points() + cost > 60 * options.minutes:
            left_out.append(f"d_model {d_model}, {batch_tokens:,} tokens")
            continue
        for name in options.contenders:
            found = in_child(name, corpus.resized(of_width(d_model), batch_tokens), options.seconds)
            if found is None:
                left_out.append(f"{name}, d_model {d_model}, {batch_tokens:,} tokens: died")
                continue
            dearest = max(0.5 * dearest, 1 / found["tokens_per_cpu_second"] / d_model**2)
            points.append({"contender": name, "d_model": d_model, "batch_tokens": batch_tokens, **found})
            print(
                f"d_model {d_model:5} batch {batch_tokens:6,} {name:22} {found['tokens_per_cpu_second']:9,.0f} "
                f"tok/cpu-s {found['bytes'] / 2**20:8,.0f} MiB",
                flush=True,
            )
    return points, left_out


def main() -> None:
    """Measure the points, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="text file, one sentence a line (.gz is read as it is)")
    parser.add_argument("target", help="its translation, line by line")
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS), help="d_model, multiples of 64")
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), help="tokens, padding included")
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=list(PAIR))
    parser.add_argument("--vocab_size", type=int, default=8000)
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU time of all points; the rest is left out")
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time of each point; at least two steps")
    parser.add_argument("--output", help="where to write the results (JSON)")
    parser.set_defaults(size="small", threads=1, batch_tokens=BATCHES[0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    points, left_out = measure_all(Corpus(options), options)
    print("\n".join(f"left out: {place}" for place in left_out))
    if options.output:
        words = [Path(word).name if Path(word).is_file() else word for word in sys.argv[1:]]  # no folders of ours
        results = {
            "command": f"python -m benchmarks.sizes {shlex.join(words)}",
            "environment": describe_environment(),
            "load": os.getloadavg(),
            "points": points,
            "left_out": left_out,
        }
        write_atomically(Path(options.output), json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
