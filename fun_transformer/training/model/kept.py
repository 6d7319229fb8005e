"""The models that a run keeps: those that may become the final one, their mean, and when patience is over."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ...files import commit_folder, remove_folder
from ..run.checkpoints import checkpoint_folders, step_folders, writing
from ..run.run import Run
from ..tables import METRICS
from .averaging import average_models, moving_average


class KeptModels:
    """The best or the last models of a run, on disk, and the running mean of the weights, if the recipe asks for one.

    Args:
        run: The run.
        model: Prepared by the accelerator.

    Attributes:
        saved: Step and score of the models on disk that may be a part of the final one.
        bad_evaluations: Number of evaluations since the best one.
        not_finite: Names of the scores of the last evaluation that are NaN or infinite.
        good_step: Step of the last evaluation whose scores all were finite.

    Raises:
        ValueError: When a running mean is asked for and no process has the whole weights.
    """

    def __init__(self, run: Run, model: nn.Module):
        self.run, self.model = run, model
        self.accelerator, self.settings = run.accelerator, run.arguments.training
        self.best_score: float | None = None
        self.best_step, self.bad_evaluations, self.good_step = 0, 0, 0
        self.not_finite: list[str] = []
        self.saved: list[tuple[int, float]] = []
        self.mean: AveragedModel | None = None
        if self.settings.ema_decay is not None:
            if self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
                raise ValueError(
                    "training.ema_decay needs whole weights on each process. With FSDP or DeepSpeed use "
                    "training.average_models instead."
                )
            self.mean = moving_average(self.accelerator.unwrap_model(model), self.settings.ema_decay)
            self.accelerator.register_for_checkpointing(self.mean)

    @property
    def current(self) -> nn.Module:
        """The model to evaluate and save now: the running mean, or the one that is trained."""
        return self.mean.module if self.mean is not None else self.model

    def count_step(self) -> None:
        """Take a step of the optimizer into the running mean."""
        if self.mean is not None:
            self.mean.update_parameters(self.accelerator.unwrap_model(self.model))

    def note_scores(self, step: int, not_finite: list[str]) -> None:
        """Note which scores of this step's evaluation are not finite: its model is neither kept nor the best."""
        self.not_finite, self.good_step = not_finite, self.good_step if not_finite else step

    def keep(self, step: int, score: float) -> None:
        """Save the model of this step, if it is among those that may become the final one."""
        if self.not_finite:
            return
        saved = [*self.saved, (step, score)]
        if self.settings.average == "best":
            saved.sort(key=lambda entry: self.sign * entry[1])  # the best first; of equal ones the earlier
            self.saved = saved[: self.settings.average_models]
        else:
            self.saved = saved[-self.settings.average_models :]
        if (step, score) in self.saved:
            self.save(step)

    def compare(self, step: int, score: float) -> None:
        """Compare this step's score with the best one so far."""
        best = self.best_score
        if not self.not_finite and (best is None or self.sign * score < self.sign * best):
            self.best_score, self.best_step, self.bad_evaluations = score, step, 0
        else:
            self.bad_evaluations += 1

    @property
    def sign(self) -> int:
        """1 where a lower score is better, else -1."""
        return 1 if METRICS[self.settings.metric_for_best_model].lower_is_better else -1

    def is_patience_over(self) -> bool:
        """Tell whether too many evaluations in a row found no better model."""
        return self.settings.patience is not None and self.bad_evaluations >= self.settings.patience

    def save(self, step: int) -> None:
        """Save config and weights, whole or not at all.

        Raises:
            CheckpointError: When they cannot be written.
        """
        folder = self.folder(step)
        state_dict = self.accelerator.get_state_dict(self.current)
        if self.accelerator.is_main_process:
            partial = folder.with_name(f".{folder.name}.partial")
            with writing(f"The model of step {step}", partial, self.run.output_dir):
                self.accelerator.unwrap_model(self.current).save_pretrained(partial, state_dict=state_dict)
                commit_folder(partial, folder)
        self.accelerator.wait_for_everyone()

    def folder(self, step: int) -> Path:
        """Name the folder of a saved model by its step: a run that goes on from there must find the models of then."""
        return self.run.output_dir / "models" / f"step-{step}"

    def final(self, step: int) -> Any:
        """Load the model that the run has made: the best one, or the mean of several.

        Args:
            step: The last one; its model is taken where there is no validation split to choose by.
        """
        if not self.saved:
            self.save(step)
            self.saved = [(step, math.nan)]
        load = self.run.objective.model_class.from_pretrained
        kernel = self.accelerator.unwrap_model(self.model).config._attn_implementation
        folders = [self.folder(saved) for saved, _ in self.saved]
        # In float32 also where an older version trained, and saved, in half precision.
        model = average_models(folders, lambda folder: load(folder, attn_implementation=kernel, dtype=torch.float32))
        return model.to(self.accelerator.device)

    def remove_beaten(self) -> None:
        """Remove saved models that no checkpoint needs any more."""
        if self.accelerator.is_main_process:
            states = [folder / "trainer_state.json" for folder in checkpoint_folders(self.run.output_dir)]
            needed = {step for path in states for step, _ in json.loads(path.read_text(encoding="utf-8"))["saved"]}
            for folder in step_folders(self.run.output_dir / "models"):
                if int(folder.name.removeprefix("step-")) not in needed:
                    remove_folder(folder)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        names = ("best_score", "best_step", "saved", "bad_evaluations", "not_finite", "good_step")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.best_score, self.best_step = state["best_score"], state["best_step"]
        self.saved = [(step, score) for step, score in state["saved"]]
        self.bad_evaluations = state["bad_evaluations"]
        self.not_finite = state.get("not_finite", [])  # older versions did not look
        self.good_step = state.get("good_step", self.best_step)
