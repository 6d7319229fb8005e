"""Training on many processes: how much faster they are together than one alone, and what is to be expected.

    accelerate launch --config_file training/configs/eight_gpus.yaml -m benchmarks.scaling RECIPE --output scaling.json
    python -m benchmarks.scaling --arithmetic

The first line trains on all processes of the launch, each with `training.batch_tokens` tokens a step as in any run,
and adds a line to the table in the JSON file: run it with 1, 2, 4, ... processes. Settings of the recipe can follow.
The second one measures nothing: it sets the bytes that gradients take through the network against the time in which a
step is computed.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from fun_transformer import FunTransformerConfig, FunTransformerForConditionalGeneration
from fun_transformer.analysis import flops_per_token
from fun_transformer.files import write_atomically
from fun_transformer.training import build_loop, parse_arguments, prepare
from fun_transformer.training.engine import build_accelerator
from fun_transformer.training.run.environment import describe_environment

WARM_UP = 5  # steps: compiling, and the first buckets of gradients
GIGABYTE = 1e9


class Link(NamedTuple):
    """What joins GPUs: bytes a second that one of them sends, by the maker's figure."""

    name: str
    bytes_per_second: float


IN_A_MACHINE = Link("NVLink, 450 GB/s each way", 450 * GIGABYTE)
BETWEEN_MACHINES = Link("400 Gb/s for each GPU", 50 * GIGABYTE)
GPUS_OF_A_MACHINE = 8
TOKENS = 50_000  # of a step on a GPU, source and target
LARGE_BATCH = 400_000  # of a step on all: what Ott et al. 2018 (arXiv:1806.00187) trained big with
TFLOPS = 165  # of a GPU, reached in training base: 145 to 186 were measured on an H200
LENGTH = 25.0  # tokens of a sentence


# ── Measured ─────────────────────────────────────────────────────────────────────────────────────────────────────


def sent_bytes(parameters: int, processes: int, bytes_per_number: int = 4) -> float:
    """Return the bytes that each process sends a step: gradients go around a ring twice, in parts.

    Args:
        parameters: Numbers in a gradient.
        processes: In the ring.
        bytes_per_number: 4 in float32.
    """
    return 2 * (processes - 1) / processes * parameters * bytes_per_number


def reduce_seconds(accelerator: Accelerator, parameters: int, times: int = 5) -> float:
    """Return the median seconds in which all processes add up as many numbers as the model has."""
    numbers = torch.zeros(parameters, device=accelerator.device)
    taken = []
    for _ in range(times):
        accelerator.wait_for_everyone()
        begun = time.monotonic()
        accelerator.reduce(numbers)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.monotonic() - begun)
    return statistics.median(taken)


def measure(words: list[str], seconds: float) -> dict[str, Any]:
    """Train for some seconds on all processes.

    Args:
        words: The recipe and its settings.
        seconds: On the clock, after the first steps.

    Returns:
        What `table` shows of it.
    """
    arguments = parse_arguments([*words, "--output_dir=unused"])
    run, _ = prepare(arguments, build_accelerator(arguments))
    accelerator, loop = run.accelerator, build_loop(run)
    for _ in loop.steps(WARM_UP):
        pass
    accelerator.wait_for_everyone()
    steps, tokens, begun = 0, 0, time.monotonic()
    for step in loop.steps():
        steps, tokens = steps + 1, tokens + step.tokens  # those of all processes
        over = torch.tensor(float(time.monotonic() - begun >= seconds), device=accelerator.device)
        if float(accelerator.reduce(over, reduction="mean")) > 0:  # one is enough: all stop at the same step
            break
    parameters = sum(parameter.numel() for parameter in loop.module.parameters() if parameter.requires_grad)
    taken = time.monotonic() - begun
    return {
        "processes": accelerator.num_processes,
        "tokens_per_second": round(tokens / taken, 1),
        "seconds_per_step": round(taken / steps, 4),
        "megabytes_sent_per_step": round(sent_bytes(parameters, accelerator.num_processes) / 1e6, 1),
        "seconds_to_reduce": round(reduce_seconds(accelerator, parameters), 4),
        "environment": describe_environment(),
    }


def table(found: list[dict[str, Any]]) -> str:
    """Show measurements, and what part of n times one process n processes reach."""
    alone = next((line["tokens_per_second"] for line in found if line["processes"] == 1), None)
    lines = [
        "| processes | tokens a second | of n times one | seconds a step | MB sent | seconds to add them up alone |"
    ]
    lines.append("| --- " * 6 + "|")
    for line in found:
        share = line["tokens_per_second"] / (alone * line["processes"]) if alone else None
        part = "not measured" if share is None else f"{share:.0%}"
        cells = [f"{line['processes']}", f"{line['tokens_per_second']:,.0f}", part, f"{line['seconds_per_step']:.3f}"]
        cells += [f"{line['megabytes_sent_per_step']:,.0f}", f"{line['seconds_to_reduce']:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


# ── Expected ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Expected(NamedTuple):
    """A step on many GPUs, in seconds."""

    compute: float
    reduce: float

    @property
    def efficiency(self) -> float:
        """Part of the time in which GPUs compute, where gradients travel during the backward pass (2/3 of a step)."""
        return self.compute / (self.compute + max(0.0, self.reduce - 2 / 3 * self.compute))


def expect(config: FunTransformerConfig, gpus: int, tokens: int = TOKENS, bytes_per_number: int = 4) -> Expected:
    """Set the seconds of a step against those in which its gradients are added up over all GPUs.

    Args:
        config: Of the model.
        gpus: Eight in a machine; the slowest link decides.
        tokens: Of a step, on each GPU.
        bytes_per_number: Of a gradient.
    """
    with torch.device("meta"):
        parameters = FunTransformerForConditionalGeneration(config).num_parameters()
    link = IN_A_MACHINE if gpus <= GPUS_OF_A_MACHINE else BETWEEN_MACHINES
    compute = tokens * flops_per_token(config, LENGTH, LENGTH) / (TFLOPS * 1e12)
    return Expected(compute, sent_bytes(parameters, gpus, bytes_per_number) / link.bytes_per_second)


def arithmetic() -> str:
    """Return the table of docs/training.md: the paper's two models on 8, 64 and 512 GPUs."""
    lines = ["| model | GPUs | tokens of each | of a step | compute | add up, float32 | bfloat16 | of n times one |"]
    lines.append("| --- " * 8 + "|")
    for name in ("base", "big"):
        config = FunTransformerConfig.from_pretrained(Path(__file__).parents[1] / f"hub_configs/transformer-{name}")
        for gpus, tokens in (
            (8, TOKENS),
            (64, TOKENS),
            (512, TOKENS),
            (64, LARGE_BATCH // 64),
            (512, LARGE_BATCH // 512),
        ):
            wide, narrow = (expect(config, gpus, tokens, bytes_per_number=size) for size in (4, 2))
            cells = [name, f"{gpus}", f"{tokens:,}", f"{gpus * tokens:,}", f"{1000 * wide.compute:.1f} ms"]
            cells += [f"{1000 * part.reduce:.1f} ms" for part in (wide, narrow)]
            cells.append(f"{wide.efficiency:.0%}, {narrow.efficiency:.0%} in bfloat16")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Measure and add to the table, or show what is to be expected."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", allow_abbrev=False)
    parser.add_argument("--arithmetic", action="store_true", help="what is to be expected; nothing is measured")
    parser.add_argument("--seconds", type=float, default=60, help="of training that are measured")
    parser.add_argument("--output", type=Path, help="the table; lines of other numbers of processes are kept")
    options, words = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    if options.arithmetic:
        print(arithmetic())
        return
    line = measure(words, options.seconds)
    found = [line]
    if options.output and options.output.exists():
        found += json.loads(options.output.read_text(encoding="utf-8"))
    found = sorted({there["processes"]: there for there in reversed(found)}.values(), key=lambda row: row["processes"])
    if Accelerator().is_main_process:
        print(table(found))
        if options.output:
            write_atomically(options.output, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
