"""What a run will cost, before it starts: `--dry-run` measures a few steps, `--profile N` says where their time goes.

Both train real steps on real batches in memory and write no checkpoint.
"""

import statistics
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from .loop import TrainingLoop
from .platform import peak_process_memory


def measure_steps(loop: TrainingLoop, steps: int) -> tuple[float, float]:
    """Train some steps, the first two on the largest batches: memory is known then.

    Returns:
        Seconds of a step (median), and real tokens per second.
    """
    stream = loop.stream
    largest = sorted(stream.of_epoch, key=lambda rows: -stream.source.sampler.size(rows))
    stream.begin(first=largest[: 2 * loop.settings.gradient_accumulation_steps])
    seconds, tokens, start = [], [], time.monotonic()
    for step in loop.steps(2 + steps):
        step.loss.item()  # waits for a GPU
        seconds.append(time.monotonic() - start)
        tokens.append(step.tokens)
        start = time.monotonic()
    return statistics.median(seconds[2:]), sum(tokens[2:]) / sum(seconds[2:])


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has had so far, in GB: a GPU's, or the machine's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return peak_process_memory() / 1e9


def plan(loop: TrainingLoop, steps: int = 5) -> str:
    """Train a few steps and tell what the whole run will take: a table for `--dry-run`."""
    training, processes, stream = loop.settings, loop.accelerator.num_processes, loop.stream
    parameters = sum(p.numel() for p in loop.model.parameters())
    trained = sum(p.numel() for p in loop.model.parameters() if p.requires_grad)
    needed = 16 * trained + 4 * (parameters - trained)  # bytes
    rows, batches, sampler = len(stream.rows), len(stream.of_epoch), stream.source.sampler
    tokens = int(sampler.source_lengths.sum() + sampler.target_lengths.sum())
    padded = processes * sum(sampler.size(batch) for batch in stream.of_epoch)
    step_seconds, tokens_per_second = measure_steps(loop, steps)
    steps_per_epoch = batches / training.gradient_accumulation_steps
    limits = {  # steps until each limit of the recipe
        "max_steps": training.max_steps,
        "num_train_epochs": training.num_train_epochs and training.num_train_epochs * steps_per_epoch,
        "max_minutes": training.max_minutes and training.max_minutes * 60 / step_seconds,
    }
    limit, total = min(((name, count) for name, count in limits.items() if count), key=lambda item: item[1])
    minutes = total * step_seconds / 60
    lines = {
        "parameters": f"{parameters:,}",
        "arithmetic": f"{loop.flops_per_token / 1e6:.1f} MFLOP a token, "
        f"{loop.flops_per_token * tokens_per_second / 1e9:,.0f} GFLOP/s reached",
        "training rows": f"{rows:,}, {tokens:,} tokens ({tokens / rows:.1f} a row)",
        "batches": f"{batches:,} an epoch and process, {tokens / padded:.0%} of their places are tokens",
        "memory": f"{needed / 1e9:.2f} GB for weights, gradients and optimizer (16 bytes a trained parameter), "
        f"{peak_memory(loop.accelerator.device):.2f} GB at most so far, the largest batch included",
        "speed": f"{tokens_per_second:,.0f} tokens a second, {step_seconds:.3f} s a step",
        "steps": f"{total:,.0f} ({limit}), {total / steps_per_epoch:.1f} epochs",
        "time": f"{minutes:,.0f} minutes and the evaluations" if minutes >= 1 else "under a minute",
    }
    width = max(map(len, lines))
    return "\n".join(f"{name.ljust(width)}  {text}" for name, text in lines.items())


def write_profile(loop: TrainingLoop, steps: int, folder: Path) -> str:
    """Train some steps under torch's profiler: a trace for Perfetto or chrome://tracing, and a table of operators.

    Args:
        loop: Not yet started.
        steps: How many are recorded, after two that are not.
        folder: Gets `trace.json` and `table.txt`.

    Returns:
        The table.
    """
    for _ in loop.steps(2):
        pass
    is_cuda = loop.accelerator.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]) as profiler:
        for _ in loop.steps(steps):
            pass
    table = profiler.key_averages().table(
        sort_by=f"self_{'cuda' if is_cuda else 'cpu'}_time_total", row_limit=25, max_name_column_width=50
    )
    if loop.accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(folder / "trace.json"))
        (folder / "table.txt").write_text(table, encoding="utf-8")
    return table


def dry_run(loop: TrainingLoop, profile_steps: int | None) -> str:
    """Do what `--profile N` or `--dry-run` ask for; return what to print."""
    if profile_steps is None:
        return plan(loop)
    folder = loop.setup.output_dir / "profile"
    return f"{write_profile(loop, profile_steps, folder)}\n{folder / 'trace.json'}: open it in ui.perfetto.dev"
