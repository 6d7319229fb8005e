"""The training loop, the only one: batches, gradients, steps, evaluations, checkpoints.

The loss is exact over processes and accumulated batches: the sum over all tokens of an optimizer step, divided by
their number. Everything that a run needs to go on lies in `RunState` and in the checkpoint that it belongs to.
"""

import dataclasses
import json
import math
import signal
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import gather_object, recursively_apply, send_to_device, set_seed
from datasets import DatasetDict
from torch.distributed.tensor import DTensor
from tqdm.auto import tqdm
from transformers.utils import logging

from .data.batches import TokenBudgetBatches, mixture_of
from .data.bpe_dropout import DroppingRows
from .data.packing import PackedBatches, pack_batch
from .data.rows import TokenRows
from .model.averaging import MovingAverage, average_models
from .objectives import Objective
from .optimization import learning_rate_factor
from .recipe.arguments import RunArguments
from .run.checkpoints import (
    checkpoint_folders,
    publish,
    remove,
    save_checkpoint,
    set_aside_later,
    step_folders,
    sync_one,
    write_whole,
    writing,
)
from .run.resuming import forget_later_lines
from .scoring import evaluate_split
from .tables import METRICS

logger = logging.get_logger(__name__)


class Interrupted(Exception):
    """The run was asked to stop (Ctrl-C or SIGTERM) and has saved a checkpoint."""

    def __init__(self, signal_number: int, checkpoint: Path):
        super().__init__(f"Stopped by {signal.Signals(signal_number).name}. Everything is saved in {checkpoint}.")
        self.exit_code = 128 + signal_number


@dataclass
class RunState:
    """Where a run is. Saved with each checkpoint."""

    step: int = 0  # optimizer steps done
    epoch: int = 0
    batch: int = 0  # batches of this epoch done
    tokens: int = 0  # source + target tokens seen, without padding, on all processes
    seconds: float = 0.0  # in the loop, with evaluations and checkpoints
    best_score: float | None = None
    best_step: int = 0
    saved: list[tuple[int, float]] = field(default_factory=list)  # step and score of the models kept on disk
    bad_evaluations: int = 0  # evaluations since the best one
    unlogged: list[tuple[float, int]] = field(default_factory=list)  # loss and tokens of steps since the last log line
    skipped_steps: int = 0  # whose loss or gradient was not finite
    bad_steps: int = 0  # skipped ones in a row
    world_size: int = 1  # processes
    resized: list[tuple[int, int]] = field(default_factory=list)  # (processes, batches) earlier in this epoch
    data: int = 0  # checksum of the lengths of all training rows

    @classmethod
    def read(cls, path: Path) -> "RunState":
        """The state in a checkpoint; JSON has made lists of its pairs."""
        values = json.loads(path.read_text(encoding="utf-8"))
        pairs = {name: [tuple(pair) for pair in values[name]] for name in ("saved", "unlogged", "resized")}
        return cls(**values | pairs)


class MicroBatch(NamedTuple):
    """One of the batches that a step accumulates, and where it stands in the data."""

    epoch: int
    batches: list[np.ndarray]  # the rows of all batches of the epoch
    number: int  # of this one
    tensors: dict[str, Any]
    items: int  # that the loss is a mean of
    tokens: int  # without padding

    @property
    def rows(self) -> np.ndarray:
        """The numbers of its rows."""
        return self.batches[self.number]


class TrainingLoop:
    """Trains a prepared model.

    Args:
        accelerator: Prepared `model` and `optimizer`.
        model: Of the class that the objective trains.
        optimizer: With the peak learning rate in its groups.
        tokenizer: For padding, masking and generation.
        objective: What is learned.
        splits: `train`, and perhaps `validation`, tokenised.
        arguments: The recipe.
        output_dir: The run's folder.
        flops_per_token: Of a training step, for the log.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model,
        optimizer,
        tokenizer,
        objective: Objective,
        splits: DatasetDict,
        arguments: RunArguments,
        output_dir: Path,
        flops_per_token: float,
    ):
        self.accelerator, self.model, self.optimizer, self.tokenizer = accelerator, model, optimizer, tokenizer
        self.objective, self.splits, self.arguments, self.output_dir = objective, splits, arguments, output_dir
        self.flops_per_token = flops_per_token
        self.config = accelerator.unwrap_model(model).config
        self.keeps_gradients = any(p.grad is not None for p in model.parameters())  # see `sharding.compile_in_place`
        self.rows = TokenRows(splits["train"])
        if dropout := arguments.training.bpe_dropout:
            longest = self.config.max_position_embeddings
            self.rows = DroppingRows(splits["train"], tokenizer, objective.encode, dropout, longest)
        batches: Any = TokenBudgetBatches
        if arguments.training.packing:
            batches = partial(PackedBatches, packing=arguments.training.packing)
        self.sampler = batches(
            self.rows.source_lengths,
            self.rows.target_lengths,
            arguments.training.batch_tokens,
            arguments.training.seed,
            accelerator.process_index,
            accelerator.num_processes,
            mixture_of(self.rows, arguments.data),
        )
        self.average = None
        if arguments.training.ema_decay is not None:
            if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
                raise ValueError(
                    "training.ema_decay needs whole weights on each process. With FSDP or DeepSpeed use "
                    "training.average_models instead."
                )
            self.average = MovingAverage(accelerator.unwrap_model(model), arguments.training.ema_decay)
            accelerator.register_for_checkpointing(self.average)
        self.state = RunState(world_size=accelerator.num_processes, data=self.rows_checksum())
        self.overlaps = accelerator.device.type != "cpu"  # the next batches are made while a GPU computes
        self.ahead: list[MicroBatch] | None = None  # those that are made already
        self.received_signal = 0
        self.signalled = 0.0  # when
        self.agreed_signal = 0  # once all processes know of it
        self.started = 0.0
        self.metrics_path = output_dir / "metrics.jsonl"

    # ── Going on ─────────────────────────────────────────────────────────────────────────────────────────────────

    def load(self, checkpoint: Path) -> list[str]:
        """Go on from a checkpoint; what the run wrote after it is set aside or removed.

        Returns:
            What is no longer as it was, to be printed.

        Raises:
            ValueError: When model or data are not those of the checkpoint.
        """
        accelerator, changes = self.accelerator, []
        state = RunState.read(checkpoint / "trainer_state.json")
        if state.data != self.state.data:
            text = f"The training rows are not those that {checkpoint} was trained on"
            if not self.arguments.allow_changes:
                raise ValueError(f"{text}. Put the old data back, or go on all the same with --allow_changes.")
            changes.append(text + ": their order begins anew.")
            state.batch, state.resized, state.data = 0, [], self.state.data
        try:
            accelerator.load_state(str(checkpoint))
        except RuntimeError as error:
            raise ValueError(f"{checkpoint} does not fit this model: {error}") from error
        if state.world_size != accelerator.num_processes:
            changes.append(
                f"{state.world_size} process(es) trained so far, now {accelerator.num_processes}: rows keep their "
                "order and none is lost or repeated, but dropout draws other numbers, and an optimizer step sees "
                f"{accelerator.num_processes} x {self.arguments.training.gradient_accumulation_steps} batches."
            )
            set_seed((self.arguments.training.seed + 1_000_003 * state.step) % 2**32, device_specific=True)
            if state.batch:
                state.resized.append((state.world_size, state.batch))
            state.world_size, state.batch = accelerator.num_processes, 0
        self.state = state
        if accelerator.is_main_process:
            changes += [f"A later checkpoint is now {path}." for path in set_aside_later(self.output_dir, checkpoint)]
            if self.metrics_path.exists():
                forget_later_lines(self.metrics_path, state.step)
        accelerator.wait_for_everyone()
        return changes

    def rows_checksum(self) -> int:
        """What tells other training rows from these: cheap, and blind to rows of the same lengths."""
        lengths = (self.rows.source_lengths, self.rows.target_lengths)
        return zlib.crc32(b"".join(np.ascontiguousarray(part, dtype=np.int64).tobytes() for part in lengths))

    def save(self) -> Path:
        """Save a checkpoint of this step."""
        self.state.seconds, self.state.unlogged = self.elapsed(), self.window.read()
        if self.accelerator.is_main_process and self.metrics_path.exists():
            sync_one(self.metrics_path)
        state = json.dumps(dataclasses.asdict(self.state), indent=1)
        keep = self.arguments.training.save_total_limit
        checkpoint = save_checkpoint(self.accelerator, self.output_dir, self.state.step, state, keep)
        if self.accelerator.is_main_process:
            self.remove_beaten_models()
        return checkpoint

    def elapsed(self) -> float:
        """Seconds in this loop, those before a resume included."""
        return time.monotonic() - self.started

    # ── How far ──────────────────────────────────────────────────────────────────────────────────────────────────

    def done(self) -> float:
        """How much of the run lies behind, in [0, 1]: the limit that is nearest counts."""
        training, state = self.arguments.training, self.state
        parts = [0.0]
        if training.max_steps:
            parts.append(state.step / training.max_steps)
        if training.num_train_epochs:
            parts.append(self.epochs() / training.num_train_epochs)
        if training.max_minutes:
            parts.append(self.elapsed() / (60 * training.max_minutes))
        return min(1.0, max(parts))

    def epochs(self) -> float:
        """Passes over the data so far."""
        earlier = sum(processes * batches for processes, batches in self.state.resized)
        here = self.state.world_size * self.state.batch
        all_of_them = earlier + self.state.world_size * len(self.batches)
        return self.state.epoch + (earlier + here) / all_of_them

    def micro_batches(self) -> Iterator[MicroBatch]:
        """Batches without end, from where the state stands; it moves when one is trained, not when it is made."""
        epoch, first, batches = self.state.epoch, self.state.batch, self.batches
        while True:
            for number in range(first, len(batches)):
                tensors = self.collate([self.rows[row] for row in batches[number]])
                items, tokens = self.objective.items(tensors), self.tokens(tensors)
                yield MicroBatch(epoch, batches, number, tensors, items, tokens)
            epoch, first, batches = epoch + 1, 0, self.sampler.batches(epoch + 1)

    def take(self, stream: Iterator[MicroBatch]) -> list[MicroBatch]:
        """The batches of the next step, on their way to the device."""
        device = self.accelerator.device
        taken = [next(stream) for _ in range(self.arguments.training.gradient_accumulation_steps)]
        tensors = [batch.tensors for batch in taken]
        if device.type == "cuda":  # which fetches them from pinned memory while the processor goes on
            tensors = recursively_apply(torch.Tensor.pin_memory, tensors)
        tensors = send_to_device(tensors, device, non_blocking=True)
        return [batch._replace(tensors=there) for batch, there in zip(taken, tensors, strict=True)]

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows to a batch for training. Evaluation pads: what is packed here is held to its slow twin there."""
        training = self.arguments.training
        if training.packing:
            return pack_batch(rows, self.tokenizer.pad_token_id, training.packing, training.batch_tokens)
        return self.objective.collate(rows, self.tokenizer)

    def tokens(self, batch: dict[str, Any]) -> int:
        """Real tokens of a batch for training."""
        if self.arguments.training.packing:
            filled = int((batch["input_ids"] != self.tokenizer.pad_token_id).sum())
            return filled + self.objective.items(batch)
        return self.objective.tokens(batch)

    # ── One step ─────────────────────────────────────────────────────────────────────────────────────────────────

    def train_step(self, stream: Iterator, done: float) -> tuple[torch.Tensor, int, float]:
        """Do one optimizer step; leave the weights alone when its loss or gradient is not finite.

        Returns:
            The loss (a scalar tensor, mean over all tokens of the step), the number of real tokens, the learning rate.

        Raises:
            FloatingPointError: After `max_bad_steps` such steps in a row.
        """
        accelerator, training, state = self.accelerator, self.arguments.training, self.state
        taken, self.ahead = self.ahead or self.take(stream), None
        items, tokens = self.count(taken)
        if taken[-1].epoch != state.epoch:
            state.resized = []
        state.epoch, self.batches, state.batch = taken[-1].epoch, taken[-1].batches, taken[-1].number + 1
        factor = learning_rate_factor(
            training.schedule, state.step + 1, training.warmup_steps, done, self.config.d_model
        )
        for group in self.optimizer.param_groups:
            group["lr"] = training.learning_rate * factor
        if not self.model.training:
            self.model.train()
        step_loss = torch.zeros((), device=accelerator.device)
        for number, batch in enumerate(taken):
            last = number == len(taken) - 1  # gradients travel between processes once a step
            accelerator.gradient_state._set_sync_gradients(last)  # what DeepSpeed goes by
            with nullcontext() if last else accelerator.no_sync(self.model):
                # Gradients are averaged over processes: dividing by items per process makes their mean exact.
                share = max(items, 1) / accelerator.num_processes
                sampling = (training.scheduled_sampling or 0.0) * min(done, 1.0)
                loss = self.objective.loss(self.model, batch.tensors, share, training.r_drop, sampling)
                accelerator.backward(loss)
            step_loss += loss.detach()
        norm = accelerator.clip_grad_norm_(self.model.parameters(), training.max_grad_norm or math.inf)
        if isinstance(norm, DTensor):  # of a sharded model
            norm = norm.full_tensor()
        loss = accelerator.reduce(step_loss, reduction="mean")
        state.step += 1
        state.tokens += tokens
        # Not before a checkpoint is due: its random numbers must be those of this step.
        if self.overlaps and state.step % training.save_steps and not self.agreed_signal:
            self.ahead = self.take(stream)
        # Here the step waits for a GPU. Loss and norm are sums over all processes, so all of them decide alike.
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimizer.step()
            if self.average:
                self.average.update()
            state.bad_steps = 0
        else:
            self.skip_step(float(loss), float(norm), taken)
        self.optimizer.zero_grad(set_to_none=not self.keeps_gradients)
        return loss, tokens, training.learning_rate * factor

    def count(self, taken: Sequence[MicroBatch]) -> tuple[int, int]:
        """Items and real tokens of a step on all processes, which also hear here that one was asked to stop."""
        counts = [
            sum(batch.items for batch in taken),
            sum(batch.tokens for batch in taken),
            int(bool(self.received_signal)),
        ]
        if self.accelerator.num_processes > 1:
            counts = self.accelerator.reduce(torch.tensor(counts, device=self.accelerator.device), "sum").tolist()
        items, tokens, interrupted = counts
        if interrupted:
            self.agreed_signal = self.received_signal or signal.SIGTERM  # another process was asked to stop
        return items, tokens

    def skip_step(self, loss: float, norm: float, taken: Sequence[MicroBatch]) -> None:
        """Count a step whose loss or gradient is not finite.

        Raises:
            FloatingPointError: When there are too many in a row; `bad_batch.json` then holds the rows of the last one.
        """
        state, limit = self.state, self.arguments.training.max_bad_steps
        state.skipped_steps, state.bad_steps = state.skipped_steps + 1, state.bad_steps + 1
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            limit = 1  # its weights have already changed
        self.warn(
            f"Step {state.step}: the loss is {loss:g}, the gradient's norm {norm:g}. The weights stay as they are "
            f"({state.bad_steps} in a row, the run stops at {limit})."
        )
        if state.bad_steps < limit:
            return
        rows = [
            {"process": self.accelerator.process_index, "row": row, "source": text["source"], "target": text["target"]}
            for batch in taken
            for row in batch.rows.tolist()
            for text in [self.splits["train"][row]]
        ]
        rows = gather_object(rows)
        path = self.output_dir / "bad_batch.json"
        if self.accelerator.is_main_process:
            bad = {"step": state.step, "loss": str(loss), "gradient_norm": str(norm), "rows": rows}
            write_whole(path, json.dumps(bad, indent=1, ensure_ascii=False))
        raise FloatingPointError(
            f"The loss is {loss:g} and the gradient's norm {norm:g} at step {state.step}, for {state.bad_steps} "
            f"step(s) in a row. The rows of the last one are in {path}. If they look right, lower "
            f"training.learning_rate (now {self.arguments.training.learning_rate:g}) or lengthen "
            "training.warmup_steps, and go on with --resume --allow_changes."
        )

    # ── The run ──────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> RunState:
        """Train until a limit is reached.

        Raises:
            Interrupted: After Ctrl-C or SIGTERM, with everything saved.
            FloatingPointError: When the loss or the gradient is not finite for too many steps.
            CheckpointError: When a checkpoint cannot be written.
        """
        training, state = self.arguments.training, self.state
        self.started = time.monotonic() - state.seconds
        self.batches = self.sampler.batches(state.epoch, state.resized)
        stream = self.micro_batches()
        self.window = Window(state.unlogged)
        previous = {number: signal.signal(number, self.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with self.progress_bar() as bar:
                done = self.agreed_done()
                while done < 1.0 and not self.is_patience_over():
                    loss, tokens, learning_rate = self.train_step(stream, done)
                    if not state.bad_steps:
                        self.window.add(loss, tokens)
                    if state.step % training.logging_steps == 0 and self.window.steps:
                        self.log_training(learning_rate, bar)
                    self.advance(bar)
                    done = self.agreed_done()
                    if state.step % training.eval_steps == 0 or done >= 1.0:
                        with self.window.paused():
                            self.evaluate(bar)
                    over = done >= 1.0 or self.is_patience_over()
                    if state.step % training.save_steps == 0 or over or self.agreed_signal:
                        with self.window.paused():
                            checkpoint = self.save()
                    if self.agreed_signal:
                        raise Interrupted(self.agreed_signal, checkpoint)
                if state.best_score is None:  # a resumed run whose limit was lowered
                    self.evaluate(bar)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        return state

    def agreed_done(self) -> float:
        """`done`, by the clock of the main process: all processes must stop at the same step."""
        done = torch.tensor(self.done(), dtype=torch.float64)
        if self.accelerator.num_processes > 1 and self.arguments.training.max_minutes:
            done = self.accelerator.reduce(done.to(self.accelerator.device), reduction="mean")
        return float(done)

    def is_patience_over(self) -> bool:
        """Whether early stopping applies."""
        patience = self.arguments.training.patience
        return patience is not None and self.state.bad_evaluations >= patience

    def warn(self, text: str) -> None:
        """Warn once, not from each process."""
        if self.accelerator.is_main_process:
            logger.warning(text)

    def on_signal(self, number: int, frame: Any) -> None:
        """Finish the step first; a second Ctrl-C does not wait.

        What comes within two seconds is the same Ctrl-C: the terminal sends it to all processes, then torchrun does.
        """
        if self.received_signal:
            if time.monotonic() - self.signalled > 2:
                raise KeyboardInterrupt
            return
        self.received_signal, self.signalled = number, time.monotonic()
        self.accelerator.print("\nStopping after this step. Press Ctrl-C again to stop at once, without saving.")

    # ── What people see ──────────────────────────────────────────────────────────────────────────────────────────

    def progress_bar(self) -> tqdm:
        """One bar, in thousandths of the run: steps, minutes or epochs, whichever ends it."""
        return tqdm(
            total=1.0,
            initial=self.done(),
            desc="training",
            bar_format="{desc} {percentage:5.1f}%|{bar}| {elapsed}<{remaining}{postfix}",
            disable=None if self.accelerator.is_main_process else True,
        )

    def advance(self, bar: tqdm) -> None:
        """Move the bar to where the run is."""
        bar.update(max(0.0, self.done() - bar.n))

    def log(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl and send its numbers to TensorBoard."""
        numbers = {
            f"{line['split']}/{k}": v for k, v in line.items() if isinstance(v, int | float) and k not in ("step",)
        }
        self.accelerator.log(numbers, step=line["step"])
        if self.accelerator.is_main_process:
            with self.metrics_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def log_training(self, learning_rate: float, bar: tqdm) -> None:
        """Log the mean loss since the last line."""
        loss, tokens_per_second = self.window.mean_loss(), self.window.tokens_per_second()
        self.log(
            {
                "step": self.state.step,
                "split": "train",
                "loss": loss,
                "learning_rate": learning_rate,
                "epoch": round(self.epochs(), 3),
                "tokens": self.state.tokens,
                "tokens_per_second": round(tokens_per_second, 1),
                "seconds": round(self.elapsed(), 2),
                "skipped_steps": self.state.skipped_steps,
            }
        )
        gflops = tokens_per_second * self.flops_per_token / 1e9
        bar.set_postfix_str(
            f"step {self.state.step}, loss {loss:.3f}, {tokens_per_second:,.0f} tok/s, {gflops:,.0f} GFLOP/s"
        )
        self.window = Window([])

    def evaluate(self, bar: tqdm) -> None:
        """Score the validation split; keep the model if it is the best so far."""
        if "validation" not in self.splits:
            return
        state, training, generation = self.state, self.arguments.training, self.arguments.generation
        with self.average.applied() if self.average else nullcontext():
            scores, _ = evaluate_split(
                self.model,
                self.tokenizer,
                self.splits["validation"],
                self.accelerator,
                self.objective,
                generation,
                training.batch_tokens,
                title="validation",
                rows=generation.eval_rows,
            )
            score = scores[training.metric_for_best_model]
            sign = 1 if METRICS[training.metric_for_best_model].lower_is_better else -1
            saved = [*state.saved, (state.step, score)]
            if training.average == "best":
                saved.sort(key=lambda entry: sign * entry[1])  # the best first; of equal ones the earlier
                state.saved = saved[: training.average_models]
            else:
                state.saved = saved[-training.average_models :]
            if (state.step, score) in state.saved:
                self.save_model(self.model_folder(state.step))
        self.log({"step": state.step, "split": "validation", **scores, "seconds": round(self.elapsed(), 2)})
        if self.accelerator.is_main_process:
            bar.write(f"step {state.step}: validation {show_scores(scores)}")
        if state.best_score is None or sign * score < sign * state.best_score:
            state.best_score, state.best_step, state.bad_evaluations = score, state.step, 0
        else:
            state.bad_evaluations += 1

    def model_folder(self, step: int) -> Path:
        """Where a model that may become the final one, or a part of it, is saved. Its name has its step: a run that
        dies now and goes on from an earlier checkpoint must find the models of then."""
        return self.output_dir / "models" / f"step-{step}"

    def final_model(self) -> Any:
        """The model that the run has made: the best one, or the mean of several."""
        if not self.state.saved:  # there is no validation split to choose by
            with self.average.applied() if self.average else nullcontext():
                self.save_model(self.model_folder(self.state.step))
            self.state.saved = [(self.state.step, math.nan)]
        folders = [self.model_folder(step) for step, _ in self.state.saved]
        load = self.objective.model_class.from_pretrained
        model = average_models(
            folders, lambda folder: load(folder, attn_implementation=self.config._attn_implementation)
        )
        return model.to(self.accelerator.device)

    def remove_beaten_models(self) -> None:
        """Remove saved models that no checkpoint speaks of any more."""
        states = [folder / "trainer_state.json" for folder in checkpoint_folders(self.output_dir)]
        needed = {step for path in states for step, _ in json.loads(path.read_text(encoding="utf-8"))["saved"]}
        for folder in step_folders(self.output_dir / "models"):
            if int(folder.name.removeprefix("step-")) not in needed:
                remove(folder)

    def save_model(self, folder: Path) -> None:
        """Save config and weights, whole or not at all."""
        state_dict = self.accelerator.get_state_dict(self.model)
        if self.accelerator.is_main_process:
            partial = folder.with_name(f".{folder.name}.partial")
            with writing(f"The model of step {self.state.step}", partial, self.output_dir):
                self.accelerator.unwrap_model(self.model).save_pretrained(partial, state_dict=state_dict)
                publish(partial, folder)
        self.accelerator.wait_for_everyone()


class Window:
    """Losses and speed since the last line of the log; losses stay on their device until they are read."""

    def __init__(self, steps: list[tuple[float, int]]):
        self.steps: list[tuple[torch.Tensor | float, int]] = list(steps)  # loss and tokens of each
        self.timed_tokens = 0
        self.started = time.monotonic()

    def add(self, loss: torch.Tensor, tokens: int) -> None:
        """Count a step."""
        self.steps.append((loss, tokens))
        self.timed_tokens += tokens

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside this context out of the speed."""
        since = time.monotonic()
        yield
        self.started += time.monotonic() - since

    def read(self) -> list[tuple[float, int]]:
        """The steps, as numbers."""
        return [(float(loss), tokens) for loss, tokens in self.steps]

    def mean_loss(self) -> float:
        """Mean over tokens."""
        return sum(loss * tokens for loss, tokens in self.read()) / sum(tokens for _, tokens in self.steps)

    def tokens_per_second(self) -> float:
        """Real tokens, on all processes."""
        return self.timed_tokens / max(time.monotonic() - self.started, 1e-9)


def show_scores(scores: dict[str, Any]) -> str:
    """Scores in one line, without signatures."""
    return ", ".join(f"{name} {value:.2f}" for name, value in scores.items() if isinstance(value, float))
