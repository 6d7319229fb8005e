"""The models that a run keeps: those that may become the final one, their mean, and when patience is over."""

import copy
import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

from accelerate import DistributedType
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.optim.swa_utils import AveragedModel
from transformers.utils import logging

from ...files import remove_folder
from ..data.rows import checksum_with_texts
from ..run.checkpoints import (
    checkpoint_folders,
    commit_with_manifest,
    find_model_problem,
    models_of,
    read_state,
    step_folders,
    step_of,
    writing,
)
from ..run.run import Run
from ..tables import METRICS
from .adapters import checksum_of_untrained, has_adapter, load_trained, save_trained
from .averaging import average_models, moving_average
from .loading import load_model

logger = logging.get_logger(__name__)


def describe_measuring(run: Run) -> dict[str, Any]:
    """Tell what a score depends on beside the model: the metric, the validation rows, how texts are generated."""
    generation = dataclasses.asdict(run.arguments.generation)
    of_the_score = {
        name: value for name, value in generation.items() if name not in ("batch_size", "config", "metrics")
    }
    rows = checksum_with_texts(run.splits["validation"]) if "validation" in run.splits else None
    metric = run.arguments.training.metric_for_best_model
    metric = "wer of words" if metric == "wer" else metric  # version 0.1.0 counted whole sequences by this name
    return {"metric": metric, "rows": rows, **of_the_score}


class KeptModels:
    """The best or the last models of a run, on disk, and the running mean of the weights, if the recipe asks for one.

    Args:
        run: The run.
        model: Prepared by the accelerator.

    Attributes:
        saved: Step and score of the models on disk that may be a part of the final one.
        measured: What the scores depend on beside the model; scores that differ in it cannot be compared.
        bad_evaluations: Number of evaluations since the best one.
        not_finite: Names of the scores of the last evaluation that are NaN or infinite.
        good_step: Step of the last evaluation whose scores all were finite.

    Raises:
        ValueError: When a running mean is asked for and no process has the whole weights.
    """

    def __init__(self, run: Run, model: nn.Module):
        self.run, self.model, self.measured = run, model, describe_measuring(run)
        self.accelerator, self.settings = run.accelerator, run.arguments.training
        self.best_score: float | None = None
        self.best_step, self.bad_evaluations, self.good_step = 0, 0, 0
        self.not_finite: list[str] = []
        self.saved: list[tuple[int, float]] = []
        self.untrained = checksum_of_untrained(self.accelerator.unwrap_model(model))
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
        self.saved = self.choose([*self.saved, (step, score)])
        if (step, score) in self.saved:
            self.save(step)

    def choose(self, models: list[tuple[int, float]]) -> list[tuple[int, float]]:
        """Choose those that make the final model; one whose score is not finite is never among them.

        Args:
            models: Step and score of each, in the order of steps where scores are equal.
        """
        models = [entry for entry in models if math.isfinite(entry[1])]
        if self.settings.average == "best":
            return sorted(models, key=lambda entry: self.sign * entry[1])[: self.settings.average_models]
        return models[-self.settings.average_models :]

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
                shutil.rmtree(partial, ignore_errors=True)
                model = self.accelerator.unwrap_model(self.current)
                if has_adapter(model):
                    save_trained(state_dict, partial)
                else:
                    model.save_pretrained(partial, state_dict=state_dict)
                commit_with_manifest(partial, folder)
        self.accelerator.wait_for_everyone()

    def folder(self, step: int) -> Path:
        """Name the folder of a saved model by its step: a run that goes on from there must find the models of then."""
        return self.run.output_dir / "models" / f"step-{step}"

    def check(self) -> None:
        """Let go of saved models that are missing or damaged, with a warning; the next best take their places."""
        found: list[Any] = [None]
        if self.accelerator.is_main_process:
            found = [self.find_whole()]
        self.saved = broadcast_object_list(found)[0]

    def find_whole(self) -> list[tuple[int, float]]:
        """Choose again, among the models that the checkpoints name, where one of those chosen is not whole."""
        problems = {step: find_model_problem(self.folder(step)) for step, _ in self.saved}
        if not any(problems.values()):
            return self.saved
        checkpoints = checkpoint_folders(self.run.output_dir)
        alike = [path for path in checkpoints if self.is_comparable(read_state(path))]
        known = sorted({entry for checkpoint in alike for entry in models_of(checkpoint)}.union(self.saved))
        whole = self.choose([entry for entry in known if find_model_problem(self.folder(entry[0])) is None])
        instead = " and ".join(f"{step:,}" for step, _ in whole)
        for step, problem in problems.items():
            if problem:
                logger.warning(
                    f"The model {self.folder(step)} is not readable: {problem}. "
                    + (
                        f"Left to choose from: step {instead}."
                        if whole
                        else "None is left: the weights that are trained now take its place."
                    )
                )
        return whole

    def final(self, step: int) -> Any:
        """Load the model that the run has made: the best one, or the mean of several.

        Args:
            step: The last one; its model is taken where there is no other to choose.
        """
        self.check()
        if not self.saved:
            self.save(step)
            self.saved = [(step, math.nan)]
        return self.load([step for step, _ in self.saved])

    def load(self, steps: list[int]) -> Any:
        """Load the mean of saved models."""
        run, module = self.run, self.accelerator.unwrap_model(self.model)
        folders = [self.folder(step) for step in steps]
        if has_adapter(module):
            return average_models(folders, lambda folder: load_trained(copy.deepcopy(module), folder))
        kernel = module.config._attn_implementation
        model = average_models(folders, lambda folder: load_model(run.arguments, run.objective, folder, kernel))
        return model.to(self.accelerator.device)

    def remove_beaten(self) -> None:
        """Remove saved models that no checkpoint needs any more."""
        if self.accelerator.is_main_process:
            checkpoints = checkpoint_folders(self.run.output_dir)
            needed = {step for checkpoint in checkpoints for step, _ in models_of(checkpoint)}
            for folder in step_folders(self.run.output_dir / "models"):
                if step_of(folder) not in needed:
                    remove_folder(folder)

    def has_same_rows(self, state: dict[str, Any]) -> bool:
        """Tell whether a checkpoint was scored on the same validation rows; version 0.1.0 did not note them."""
        return state.get("measured", self.measured)["rows"] == self.measured["rows"]

    def is_comparable(self, state: dict[str, Any]) -> bool:
        """Tell whether scores of a checkpoint can be compared with those of now."""
        before = state.get("measured", {})
        return all(before[name] == self.measured[name] for name in before.keys() & self.measured.keys())

    def rank(self, models: list[tuple[int, float]]) -> None:
        """Put new scores in the place of those of the saved models.

        Args:
            models: Step and score of each.
        """
        self.saved, self.best_score = self.choose(sorted(models)), None
        for step, score in self.saved:
            if self.best_score is None or self.sign * score < self.sign * self.best_score:
                self.best_score, self.best_step = score, step

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        names = ["best_score", "best_step", "saved", "bad_evaluations", "measured", "not_finite", "good_step"]
        names += ["untrained"] * (self.untrained is not None)
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint.

        Raises:
            ValueError: The weights that are not trained, and so not in it, are no longer those that they were.
        """
        if state.get("untrained") != self.untrained:
            raise ValueError(
                f"model.path={self.run.arguments.model.get('path')} holds other weights than when this run began, and "
                "its checkpoints hold only what is trained beside them. Put the old ones back, or start again with "
                "--overwrite and without --resume."
            )
        self.best_score, self.best_step = state["best_score"], state["best_step"]
        self.saved = [(step, score) for step, score in state["saved"]]
        self.bad_evaluations = state["bad_evaluations"]
        self.not_finite = state.get("not_finite", [])  # older versions did not look
        self.good_step = state.get("good_step", self.best_step)
