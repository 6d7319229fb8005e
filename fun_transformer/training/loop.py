"""The training loop, the only one: batches, gradients, steps, evaluations, checkpoints.

The loss is exact over processes and accumulated batches: the sum over all labels of an optimizer step, divided by
their number. Each part of a run keeps what it needs to go on: the position in the data (`BatchStream`), the models
that were kept (`KeptModels`), the log (`RunLog`), the bad steps (`BadSteps`), the counts of the loop (`Progress`).
"""

import dataclasses
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.utils import set_seed
from torch.distributed.tensor import DTensor

from .data.stream import MicroBatch
from .model.kept import KeptModels
from .optimization import learning_rate_factor
from .recipe.base import starts_from_model
from .run.bad_steps import BadSteps
from .run.checkpoints import save_checkpoint
from .run.log import RunLog
from .run.resuming import forget_later_lines, set_aside_later
from .run.run import Run, build_stream
from .run.stopping import Interrupted, StopRequest
from .scoring import score, show_scores


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0  # optimizer steps done
    tokens: int = 0  # source + target tokens seen, without padding, on all processes
    seconds: float = 0.0  # in the loop, with evaluations and checkpoints


class Step(NamedTuple):
    """What an optimizer step gives: a scalar tensor, the mean over all labels; real tokens; the learning rate."""

    loss: torch.Tensor
    tokens: int
    learning_rate: float


class Unread(NamedTuple):
    """A step whose loss and norm the host has not read yet: scalar tensors, which a GPU may still compute."""

    step: int
    tokens: int
    loss: torch.Tensor
    norm: torch.Tensor
    taken: Sequence[MicroBatch]

    def is_finite(self) -> bool:
        """Read whether the step may change the weights; waits for the device."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)


class TrainingLoop:
    """Train a prepared model.

    Args:
        run: What is trained on what.
        model: Prepared by the run's accelerator, as is the optimizer.
        optimizer: AdamW, for instance.
        clock: Seconds, from any beginning.
    """

    def __init__(self, run: Run, model: Any, optimizer: Any, clock: Callable[[], float] = time.monotonic):
        self.setup, self.model, self.optimizer, self.clock = run, model, optimizer, clock
        self.accelerator, self.settings = run.accelerator, run.arguments.training
        self.module = self.accelerator.unwrap_model(model)
        self.keeps_gradients = any(p.grad is not None for p in model.parameters())  # see `wrapping.compile_in_place`
        self.stream = build_stream(run, self.module.config)
        self.flops_per_token = run.objective.flops_per_token(self.module, *self.stream.rows.mean_lengths())
        self.kept = KeptModels(run, model)
        self.log = RunLog(run, clock, self.flops_per_token)
        self.bad = BadSteps(run)
        self.stop = StopRequest(self.accelerator)
        self.parts = (self.stream, self.kept, self.log, self.bad)
        self.reads_late = run.accelerator.device.type == "cuda" and self.kept.mean is None and decides_alone(optimizer)
        self.unread: list[Unread] = []
        self.progress = Progress()
        self.started = clock()

    # ── Going on ─────────────────────────────────────────────────────────────────────────────────────────────────

    def load(self, checkpoint: Path) -> list[str]:
        """Go on from a checkpoint; what the run wrote after it is set aside or removed.

        Returns:
            What is no longer as it was, to be printed.

        Raises:
            ValueError: When model or data are not those of the checkpoint.
        """
        accelerator = self.accelerator
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        changes = compare_rows(self, state)
        try:
            accelerator.load_state(str(checkpoint))
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{checkpoint} does not fit this model or its optimizer: {error}") from error
        self.progress = Progress(**{field.name: state[field.name] for field in dataclasses.fields(Progress)})
        if state["world_size"] != accelerator.num_processes:
            changes.append(
                f"{state['world_size']} process(es) trained so far, now {accelerator.num_processes}: rows keep their "
                "order and none is lost or repeated, but dropout draws other numbers, and an optimizer step sees "
                f"{accelerator.num_processes} x {self.settings.gradient_accumulation_steps} batches."
            )
            set_seed((self.settings.seed + 1_000_003 * self.progress.step) % 2**32, device_specific=True)
        for part in self.parts:
            part.load_state_dict(state)
        accelerator.wait_for_everyone()  # each process has read the checkpoint, which may now get another name
        if accelerator.is_main_process:
            aside = set_aside_later(self.setup.output_dir, checkpoint)
            changes += [f"A later checkpoint is now {path}; --resume {path} goes on from there." for path in aside]
            if self.log.path.exists():
                forget_later_lines(self.log.path, self.progress.step)
        accelerator.wait_for_everyone()
        self.kept.check()
        if "validation" in self.setup.splits and not self.kept.is_comparable(state):
            changes.append(score_again(self))
        return changes

    def save(self) -> Path:
        """Save a checkpoint of this step."""
        self.settle()
        self.progress.seconds = self.elapsed()
        self.log.sync()
        state = dataclasses.asdict(self.progress)
        for part in self.parts:
            state |= part.state_dict()
        text, keep = json.dumps(state, indent=1), self.settings.save_total_limit
        checkpoint = save_checkpoint(self.accelerator, self.setup.output_dir, self.progress.step, text, keep)
        self.kept.remove_beaten()
        return checkpoint

    # ── How far ──────────────────────────────────────────────────────────────────────────────────────────────────

    def elapsed(self) -> float:
        """Count the seconds in this loop, those before a resume included."""
        return self.clock() - self.started

    def done(self) -> float:
        """Tell how much of the run is done, in [0, 1]: the limit that is nearest counts."""
        limits = self.settings
        parts = [0.0]
        if limits.max_steps:
            parts.append(self.progress.step / limits.max_steps)
        if limits.num_train_epochs:
            parts.append(self.stream.epochs() / limits.num_train_epochs)
        if limits.max_minutes:
            parts.append(self.elapsed() / (60 * limits.max_minutes))
        return min(1.0, max(parts))

    def agreed_done(self) -> float:
        """Tell `done` by the mean clock of all processes, which must stop at the same step."""
        done = torch.tensor(self.done(), dtype=torch.float64)
        if self.accelerator.num_processes > 1 and self.settings.max_minutes:
            done = self.accelerator.reduce(done.to(self.accelerator.device), reduction="mean")
        return float(done)

    def is_over(self, done: float) -> bool:
        """Tell whether a limit is reached, or nothing better is to be expected.

        Args:
            done: What `agreed_done` said after the last step.
        """
        return done >= 1.0 or self.kept.is_patience_over()

    # ── One step ─────────────────────────────────────────────────────────────────────────────────────────────────

    def train_step(self, done: float) -> Step:
        """Do one optimizer step; leave the weights alone when its loss or gradient is not finite.

        On a GPU the optimizer's kernel looks at that, and the host hears of it a step later: waiting would leave the
        GPU idle until the next batch is there.

        Raises:
            FloatingPointError: After `max_bad_steps` such steps in a row.
        """
        progress, accumulated = self.progress, self.settings.gradient_accumulation_steps
        taken = self.stream.take(accumulated)
        items, tokens = self.count(taken)
        self.stream.advance(taken)
        learning_rate = self.set_learning_rate(done)
        loss, norm = self.compute_gradients(taken, items, done)
        progress.step += 1
        progress.tokens += tokens
        # Not before a checkpoint is due: its random numbers must be those of this step.
        if progress.step % self.settings.save_steps and not self.stop.agreed:
            self.stream.make_ahead(accumulated)
        # Loss and norm are sums over all processes, so all of them decide alike.
        self.unread.append(Unread(progress.step, tokens, loss, norm, taken))
        if self.reads_late:
            self.optimizer.optimizer.found_inf = 1.0 - (loss.isfinite() & norm.isfinite()).float()
            self.optimizer.step()
        elif self.settle():
            self.optimizer.step()
            self.kept.count_step()
        self.optimizer.zero_grad(set_to_none=not self.keeps_gradients)
        if self.reads_late:
            self.settle(but=1)  # waits for the step before, while the GPU has this one to do
        return Step(loss, tokens, learning_rate)

    def settle(self, but: int = 0) -> bool:
        """Read which steps were good, and log or count them.

        Args:
            but: How many of the last steps are left unread.

        Returns:
            Whether the last one that was read was good.

        Raises:
            FloatingPointError: After `max_bad_steps` bad steps in a row.
        """
        while len(self.unread) > but:
            read = self.unread.pop(0)
            if read.is_finite():
                self.bad.in_a_row = 0
                self.log.window.add(read.loss, read.tokens)
            else:
                self.bad.count(read.step, {"loss": float(read.loss), "gradient_norm": float(read.norm)}, read.taken)
        return not self.bad.in_a_row

    def set_learning_rate(self, done: float) -> float:
        """Give the optimizer the learning rate of the next step."""
        factor = learning_rate_factor(
            self.settings.schedule,
            self.progress.step + 1,
            self.settings.warmup_steps,
            done,
            getattr(self.module.config, "d_model", None) or self.module.config.hidden_size,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * factor
        return self.settings.learning_rate * factor

    def compute_gradients(
        self, taken: Sequence[MicroBatch], items: int, done: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum the gradients of some batches over all processes.

        Returns:
            The loss (mean over all labels) and the norm of the gradients before clipping, both scalar tensors.
        """
        accelerator = self.accelerator
        if not self.model.training:
            self.model.train()
        step_loss = torch.zeros((), device=accelerator.device)
        for number, batch in enumerate(taken):
            last = number == len(taken) - 1  # gradients travel between processes once a step
            accelerator.gradient_state._set_sync_gradients(last)  # what DeepSpeed goes by
            with nullcontext() if last else accelerator.no_sync(self.model):
                # Gradients are averaged over processes: dividing by items per process makes their mean exact.
                share = max(items, 1) / accelerator.num_processes
                loss = self.setup.objective.loss(self.model, batch.tensors, share, done)
                accelerator.backward(loss)
            step_loss += loss.detach()
        norm = accelerator.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm or math.inf)
        if isinstance(norm, DTensor):  # of a sharded model
            norm = norm.full_tensor()
        return accelerator.reduce(step_loss, reduction="mean"), norm

    def count(self, taken: Sequence[MicroBatch]) -> tuple[int, int]:
        """Count items and real tokens of a step on all processes, which also learn whether one was asked to stop."""
        counts = [
            sum(batch.items for batch in taken),
            sum(batch.tokens for batch in taken),
            int(bool(self.stop.received)),
        ]
        if self.accelerator.num_processes > 1:
            counts = self.accelerator.reduce(torch.tensor(counts, device=self.accelerator.device), "sum").tolist()
        items, tokens, requests = counts
        self.stop.agree(requests)
        return items, tokens

    # ── The run ──────────────────────────────────────────────────────────────────────────────────────────────────

    def steps(self, count: int | None = None) -> Iterator[Step]:
        """Train steps one by one, without evaluations and checkpoints, at the learning rate of the run's beginning.

        Args:
            count: How many; without end when None.
        """
        for _ in itertools.count() if count is None else range(count):
            yield self.train_step(0.0)

    def run(self) -> None:
        """Train until a limit is reached.

        Raises:
            Interrupted: After Ctrl-C or SIGTERM, with everything saved.
            FloatingPointError: When the loss or the gradient is not finite for too many steps.
            CheckpointError: When a checkpoint cannot be written.
        """
        progress, settings, log = self.progress, self.settings, self.log
        self.started = self.clock() - progress.seconds
        log.restart_clock()
        with self.stop, log.progress(self.done()):
            done = self.agreed_done()
            if progress.step == 0 and starts_from_model(self.setup.arguments):
                self.evaluate()  # what is to be improved on; nothing better may come
            while not self.is_over(done):
                step = self.train_step(done)
                if progress.step % settings.logging_steps == 0:
                    self.write_log(step)
                log.advance(self.done())
                done = self.agreed_done()
                if progress.step % settings.eval_steps == 0 or done >= 1.0:
                    with log.window.paused():
                        self.evaluate()
                if progress.step % settings.save_steps == 0 or self.is_over(done) or self.stop.agreed:
                    with log.window.paused():
                        checkpoint = self.save()
                if self.stop.agreed:
                    raise Interrupted(self.stop.agreed, checkpoint)
            if self.kept.best_score is None and not self.kept.not_finite:  # a resumed run whose limit was lowered
                self.evaluate()

    def write_log(self, step: Step) -> None:
        """Write a line about the training since the last one, unless all its steps were bad."""
        self.settle()
        if not self.log.window.steps:
            return
        values = {
            "learning_rate": step.learning_rate,
            "epoch": round(self.stream.epochs(), 3),
            "tokens": self.progress.tokens,
            "seconds": round(self.elapsed(), 2),
            "skipped_steps": self.bad.skipped,
        }
        self.log.write_training(self.progress.step, values)

    def evaluate(self) -> None:
        """Score the validation split; keep the model if it is among the best so far."""
        self.settle()
        if "validation" not in self.setup.splits:
            return
        step, rows = self.progress.step, self.setup.arguments.generation.eval_rows
        evaluated = score(self.setup, self.kept.current, "validation", rows)
        scores, found = evaluated.values, evaluated.values[self.settings.metric_for_best_model]
        self.kept.note_scores(step, evaluated.not_finite())
        self.kept.keep(step, found)
        self.log.write({"step": step, "split": "validation", **scores, "seconds": round(self.elapsed(), 2)})
        self.log.say(f"step {step}: validation {show_scores(scores)}")
        self.kept.compare(step, found)


def decides_alone(optimizer: Any) -> bool:
    """Tell whether an optimizer can leave the weights alone without the host having read that a step is bad.

    torch's fused AdamW can: its kernel reads `found_inf`. So the host need not wait for the GPU in each step.

    Args:
        optimizer: Prepared by an accelerator: one that spreads weights (FSDP2, DeepSpeed), or scales gradients of
            16 bits, has its own way.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    if type(inner) is not torch.optim.AdamW or getattr(optimizer, "scaler", None) is not None:
        return False
    weights = [parameter for group in inner.param_groups for parameter in group["params"]]
    return all(group["fused"] for group in inner.param_groups) and not any(isinstance(w, DTensor) for w in weights)


def compare_rows(loop: TrainingLoop, state: dict[str, Any]) -> list[str]:
    """Tell which rows are not those of a checkpoint.

    Raises:
        ValueError: When there are such, and changes are not allowed.
    """
    changed = []
    if not loop.stream.has_same_rows(state):
        changed.append("The training rows are not those that this run was trained on.")
    if not loop.kept.has_same_rows(state):
        changed.append("The validation rows are not those that this run was scored on.")
    if changed and not loop.setup.arguments.allow_changes:
        raise ValueError(f"{' '.join(changed)} Put the old data back, or go on all the same with --allow_changes.")
    if not loop.stream.is_cut_alike(state):
        changed.append("Version 0.1.0 cut the batches of this objective in another way: this epoch begins again.")
    return changed


def score_again(loop: TrainingLoop) -> str:
    """Score the saved models as later ones will be, so that they can be compared; tell the scores."""
    metric, rows = loop.settings.metric_for_best_model, loop.setup.arguments.generation.eval_rows
    scores = [
        (step, score(loop.setup, loop.kept.load([step]), "validation", rows).values[metric])
        for step, _ in loop.kept.saved
    ]
    loop.kept.rank(scores)
    shown = ", ".join(f"step {step}: {value:.4g}" for step, value in scores) or "there is none"
    return f"Earlier scores cannot be compared with those of now. {metric} of the saved models, again: {shown}."
