"""Training speed beside the peers, in one run: real tokens per second, A B A B, on the same tokenised corpus.

    python -m benchmarks.training train.de.gz train.en.gz --threads 1 --output benchmarks/results/training-cpu.json
    GOMP_SPINCOUNT=3000 python -m benchmarks.training train.de.gz train.en.gz --threads 2 --neighbours 1
    python -m benchmarks.training train.de.gz train.en.gz --size base --batch_tokens 50000 --output ...-gpu.json

Every contender trains a model of the same dimensions with settings that its users would choose, on a GPU where there
is one; `benchmarks.race` says how turns are taken and when a contender is warm. "Real tokens" are source and target
tokens with `</s>`, without padding. The headline is our best turn over the best turn of the best peer, each in the
best of its settings. One CPU thread is measured in CPU time, several and GPUs in wall time; GOMP_SPINCOUNT is what the
package's own commands set, and all contenders get it. Machines are noisy: compare ratios within a run, not figures of
two runs. JoeyNMT and eole take part where installed: see `benchmarks.peers`.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders import CONTENDERS, DEVICE, SIZES, Corpus, default_contenders, synchronize
from benchmarks.neighbour import busy_loops
from benchmarks.race import (
    Rules,
    Train,
    Turn,
    WarmUp,
    choose_clock,
    describe_headline,
    headline,
    race,
    warm_up,
)
from fun_transformer.analysis import flops_per_token
from fun_transformer.files import write_atomically
from fun_transformer.training.model.building import build_model
from fun_transformer.training.run.environment import describe_environment

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # how threads wait for each other: for all contenders alike


def matmul_rate(dtype: torch.dtype, d_model: int, ffn_dim: int, counted: str, seconds: float = 2.0) -> float:
    """FLOP a second, by the clock that counts, of the most usual product: (4096, d_model) x (d_model, ffn_dim)."""
    clock = time.process_time if counted == "cpu" else time.monotonic
    left = torch.randn(4096, d_model, device=DEVICE).to(dtype)
    right = torch.randn(d_model, ffn_dim, device=DEVICE).to(dtype)
    out = left @ right
    count, start = 0, clock()
    while clock() - start < seconds:
        for _ in range(20):
            torch.mm(left, right, out=out)
        synchronize()
        count += 20
    return count * 2 * 4096 * d_model * ffn_dim / (clock() - start)


def build(corpus: Corpus, names: list[str], rules: Rules) -> tuple[dict[str, Train], dict[str, WarmUp]]:
    """Build the contenders, and warm them one after the other.

    Returns:
        The contenders, and what warming them took.
    """
    trains, warmed = {}, {}
    for name in names:
        torch.manual_seed(1)
        torch.backends.cuda.enable_cudnn_sdp(True)
        trains[name] = with_kernels(CONTENDERS[name](corpus))
        torch.set_num_threads(corpus.threads)
        warmed[name] = warm_up(trains[name], rules)
        state = "warm" if warmed[name].is_warm else "NOT warm"
        print(f"{name:36} {state} after {warmed[name].turns} turns", flush=True)
    return trains, warmed


def with_kernels(train: Train) -> Train:
    """Return a contender that has, in its turns, the attention kernels that it was built with: they are for all."""
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()

    def with_own(seconds: float) -> int:
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
        return train(seconds)

    return with_own


def medians_of(turns: Mapping[str, list[Turn]]) -> dict[str, dict[str, float]]:
    """Return the median tokens a second of each contender, by wall clock and by CPU time."""
    return {
        name: {clock: statistics.median(turn.rate(clock) for turn in taken) for clock in ("wall", "cpu")}
        for name, taken in turns.items()
    }


def compare(corpus: Corpus, names: list[str], rules: Rules, options: argparse.Namespace) -> dict[str, Any]:
    """Let the contenders race on a quiet machine, then beside each number of busy loops; print who leads.

    Returns:
        The part of the results that the race decides.
    """
    trains, warmed = build(corpus, names, rules)
    races = {}
    for neighbours in range(options.neighbours + 1):
        with busy_loops(neighbours):
            turns = race(trains, options.rounds, rules, f"{neighbours} busy  " if options.neighbours else "")
        found = headline(turns, rules.counted)
        print(f"\n{describe_headline(found)}\n", flush=True)
        races[neighbours] = {
            "headline": found,
            "medians": medians_of(turns),
            "turns": {name: [turn._asdict() for turn in taken] for name, taken in turns.items()},
        }
    beside = {str(neighbours): result for neighbours, result in races.items() if neighbours}
    warm = {name: found._asdict() for name, found in warmed.items()}
    return {**races[0], "beside_busy_loops": beside, "warm_up": warm}


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="text file, one sentence a line (.gz is read as it is)")
    parser.add_argument("target", help="its translation, line by line")
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--vocab_size", type=int, default=8000)
    parser.add_argument("--batch_tokens", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=20, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument("--threads", type=int, default=1, help="one is measured in CPU time, several in wall time")
    parser.add_argument("--neighbours", type=int, default=0, help="then race again beside this many busy loops")
    parser.add_argument(
        "--warm_up",
        type=int,
        default=8 if DEVICE.type == "cpu" else 30,
        help="turns at most until a contender is warm",
    )
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS), help="these contenders alone")
    parser.add_argument("--output", help="where to write the results (JSON)")
    return parser.parse_args()


def main() -> None:
    """Run the contenders, print the table, write the results."""
    options = read_options()
    torch.set_num_threads(options.threads)
    corpus = Corpus(options)
    names = options.only or default_contenders()
    counted = choose_clock(DEVICE.type, options.threads)
    epoch = int(corpus.rows.source_lengths.sum() + corpus.rows.target_lengths.sum()) if DEVICE.type == "cuda" else 0
    found = compare(corpus, names, Rules(options.seconds, counted, epoch, options.warm_up), options)

    config = build_model(corpus.run).config
    flops = flops_per_token(config, corpus.rows.source_lengths.mean(), corpus.rows.target_lengths.mean())
    limits = {
        str(dtype).removeprefix("torch."): matmul_rate(dtype, config.d_model, config.encoder_ffn_dim, counted)
        for dtype in (torch.float32, torch.bfloat16)
    }
    unit = "tok/cpu-s" if counted == "cpu" else "tok/s"
    print(f"{flops / 1e6:.1f} MFLOP a token; load {os.getloadavg()[0]:.1f}; median of {options.rounds} turns")
    for dtype, rate in limits.items():
        print(f"matmul {dtype}: {rate / 1e9:,.0f} GFLOP/s, enough for {rate / flops:,.0f} {unit}")
    print(f"\n{'':36} {'tok/s':>9} {'tok/cpu-s':>9} {names[0] + ' is faster by':>20}")
    for name, rates in found["medians"].items():
        ratio = found["medians"][names[0]][counted] / rates[counted]
        print(f"{name:36} {rates['wall']:9,.0f} {rates['cpu']:9,.0f} {ratio:20.2f}")
    if options.output:
        words = [Path(word).name if Path(word).is_file() else word for word in sys.argv[1:]]  # no folders of ours
        results = {
            "command": f"python -m benchmarks.training {shlex.join(words)}",
            "environment": describe_environment(),
            "threads": options.threads,
            "waiting": {name: os.environ[name] for name in WAITING if name in os.environ},
            "counted": counted,
            "load": os.getloadavg(),
            "flops_per_token": flops,
            "matmul_flops": limits,
            **found,
        }
        write_atomically(Path(options.output), json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
