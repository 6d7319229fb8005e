"""Ctrl-C and SIGTERM: a run finishes its step, saves, and ends."""

import contextlib
import signal
import threading
import time
from pathlib import Path
from typing import Any

from accelerate import Accelerator


class Interrupted(Exception):
    """The run was asked to stop (Ctrl-C or SIGTERM) and has saved a checkpoint."""

    def __init__(self, signal_number: int, checkpoint: Path):
        super().__init__(f"Stopped by {signal.Signals(signal_number).name}. Everything is saved in {checkpoint}.")
        self.exit_code = 128 + signal_number


class StopRequest:
    """Notice signals inside a `with` block; all processes stop at the same step, once each knows of it.

    Attributes:
        received: The signal that this process got; 0 for none.
        agreed: The signal that all processes know of.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator, self.received, self.agreed, self.since = accelerator, 0, 0, 0.0

    def __enter__(self) -> "StopRequest":
        is_main = threading.current_thread() is threading.main_thread()  # signals reach no other
        numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
        self.previous = {number: signal.signal(number, self.on_signal) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def on_signal(self, number: int, frame: Any) -> None:
        """Finish the step first; a second Ctrl-C does not wait.

        What comes within two seconds is the same Ctrl-C: the terminal sends it to all processes, then torchrun does.
        """
        if self.received:
            if time.monotonic() - self.since > 2:
                raise KeyboardInterrupt
            return
        self.received, self.since = number, time.monotonic()
        with contextlib.suppress(OSError, RuntimeError):  # nobody reads it, or a print was interrupted
            self.accelerator.print("\nStopping after this step. Press Ctrl-C again to stop at once, without saving.")

    def agree(self, requests: int) -> None:
        """Learn how many processes were asked to stop."""
        if requests:
            self.agreed = self.received or signal.SIGTERM  # another process was asked
