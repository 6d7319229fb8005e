"""What a run tells while it goes: metrics.jsonl, the trackers, one progress bar."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tqdm.auto import tqdm

from ...files import sync_one
from .run import Run


class RunLog:
    """Write the lines of metrics.jsonl, send their numbers to the trackers, and move the bar.

    Args:
        run: The run.
        clock: Seconds, from any beginning.
        flops_per_token: Of a training step.
    """

    def __init__(self, run: Run, clock: Callable[[], float], flops_per_token: float):
        self.accelerator, self.clock, self.flops_per_token = run.accelerator, clock, flops_per_token
        self.path = run.output_dir / "metrics.jsonl"
        self.window = Window(clock)
        self.bar: tqdm = tqdm(disable=True)

    @contextmanager
    def progress(self, done: float) -> Iterator[None]:
        """Show one bar, in percent of the run: steps, minutes or epochs, whichever ends it."""
        bar_format = "{desc} {percentage:5.1f}%|{bar}| {elapsed}<{remaining}{postfix}"
        hidden = None if self.accelerator.is_main_process else True
        with tqdm(total=1.0, initial=done, desc="training", bar_format=bar_format, disable=hidden) as self.bar:
            yield

    def advance(self, done: float) -> None:
        """Move the bar to where the run is."""
        self.bar.update(max(0.0, done - self.bar.n))

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.accelerator.is_main_process:
            self.bar.write(text)

    def write(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl and send its numbers to the trackers."""
        numbers = {f"{line['split']}/{k}": v for k, v in line.items() if isinstance(v, int | float) and k != "step"}
        self.accelerator.log(numbers, step=line["step"])
        if self.accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def write_training(self, step: int, values: dict[str, Any]) -> None:
        """Write the mean loss and the speed since the last such line, and some values beside them."""
        loss, speed = self.window.mean_loss(), self.window.tokens_per_second()
        self.write({"step": step, "split": "train", "loss": loss, "tokens_per_second": round(speed, 1), **values})
        gflops = speed * self.flops_per_token / 1e9
        self.bar.set_postfix_str(f"step {step}, loss {loss:.3f}, {speed:,.0f} tok/s, {gflops:,.0f} GFLOP/s")
        self.window = Window(self.clock)

    def restart_clock(self) -> None:
        """Count the time of the steps since the last line from now on."""
        self.window = Window(self.clock, self.window.read())

    def sync(self) -> None:
        """Wait until metrics.jsonl is on the disk."""
        if self.accelerator.is_main_process and self.path.exists():
            sync_one(self.path)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: loss and tokens of the steps since the last line."""
        return {"unlogged": self.window.read()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.window = Window(self.clock, [(loss, tokens) for loss, tokens in state["unlogged"]])


class Window:
    """Losses and speed since the last line of the log; losses stay on their device until they are read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, steps: list[tuple[float, int]] | None = None):
        self.steps: list[tuple[torch.Tensor | float, int]] = list(steps or [])  # loss and tokens of each
        self.timed_tokens, self.clock = 0, clock
        self.started = clock()

    def add(self, loss: torch.Tensor, tokens: int) -> None:
        """Count a step."""
        self.steps.append((loss, tokens))
        self.timed_tokens += tokens

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside this context out of the speed."""
        since = self.clock()
        yield
        self.started += self.clock() - since

    def read(self) -> list[tuple[float, int]]:
        """Read the steps, as numbers."""
        return [(float(loss), tokens) for loss, tokens in self.steps]

    def mean_loss(self) -> float:
        """Take the mean over tokens."""
        return sum(loss * tokens for loss, tokens in self.read()) / sum(tokens for _, tokens in self.steps)

    def tokens_per_second(self) -> float:
        """Count real tokens a second, on all processes."""
        return self.timed_tokens / max(self.clock() - self.started, 1e-9)
