"""Steps whose loss or gradient is not finite: they are skipped and counted, and too many in a row end the run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import DistributedType
from accelerate.utils import gather_object
from transformers.utils import logging

from ...files import write_atomically
from ..data.stream import MicroBatch
from .run import Run

logger = logging.get_logger(__name__)


class BadSteps:
    """Count the steps that were skipped.

    Args:
        run: The run.

    Attributes:
        skipped: All of them.
        in_a_row: Those since the last good step.
    """

    def __init__(self, run: Run):
        self.run, self.skipped, self.in_a_row = run, 0, 0

    def count(self, step: int, values: dict[str, float], taken: Sequence[MicroBatch]) -> None:
        """Count a step.

        Args:
            step: Its number.
            values: Its `loss` and `gradient_norm`.
            taken: Its batches.

        Raises:
            FloatingPointError: When there are too many in a row; `bad_batch.json` then holds the rows of this one.
        """
        settings = self.run.arguments.training
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        is_deepspeed = self.run.accelerator.distributed_type == DistributedType.DEEPSPEED
        limit = 1 if is_deepspeed else settings.max_bad_steps  # DeepSpeed has changed the weights already
        found = f"loss is {values['loss']:g}, the gradient's norm {values['gradient_norm']:g}"
        if self.run.accelerator.is_main_process:
            logger.warning(
                f"Step {step}: the {found}. The weights stay as they are ({self.in_a_row} in a row, the run stops at "
                f"{limit})."
            )
        if self.in_a_row >= limit:
            raise FloatingPointError(
                f"The {found} at step {step}, for {self.in_a_row} step(s) in a row. The rows of the last one are in "
                f"{self.write_rows(step, values, taken)}. If they look right, lower training.learning_rate (now "
                f"{settings.learning_rate:g}) or lengthen training.warmup_steps, and go on with --resume "
                "--allow_changes."
            )

    def write_rows(self, step: int, values: dict[str, float], taken: Sequence[MicroBatch]) -> Path:
        """Write the rows of a step, of all processes, to `bad_batch.json`; return its path."""
        process, train = self.run.accelerator.process_index, self.run.splits["train"]
        rows = [
            {"process": process, "row": row, "source": train[row]["source"], "target": train[row]["target"]}
            for batch in taken
            for row in batch.rows.tolist()
        ]
        rows = gather_object(rows)
        path = self.run.output_dir / "bad_batch.json"
        if self.run.accelerator.is_main_process:
            bad = {"step": step, **{name: str(value) for name, value in values.items()}, "rows": rows}
            write_atomically(path, json.dumps(bad, indent=1, ensure_ascii=False))
        return path

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"skipped_steps": self.skipped, "bad_steps": self.in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.skipped, self.in_a_row = state["skipped_steps"], state["bad_steps"]
