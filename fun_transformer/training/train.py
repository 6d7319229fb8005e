"""Train a model from a recipe: `accelerate launch -m fun_transformer.training RECIPE.yaml`.

From sentence pairs to a model folder that `from_pretrained` and `pipeline()` take: read and check the data, train a
tokenizer unless the recipe names one, build the model, train it, score it on the test split, write it with its card.
"""

import itertools
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, DynamoBackend, set_seed
from transformers import PreTrainedConfig
from transformers.utils import logging

from ..files import commit_folder, write_atomically
from .data.features import describe_tags
from .data.report import RowReport
from .data.rows import TokenRows
from .data.splits import load_splits, sample_texts
from .data.unseen import describe_unseen
from .dry_run import dry_run
from .engine import (
    ErrorOfMainProcess,
    build_accelerator,
    end_processes,
    main_process_first,
    on_main_process,
    start_trackers,
)
from .loop import TrainingLoop
from .model.adapters import has_adapter, merge_lora
from .model.building import build_model, build_tokenizer, read_tokenizer, save_tokenizer
from .model.initialization import initialize
from .model.loading import check_base_tokenizer, keep_numbers_of_labels
from .model.teacher import check_teacher, load_teacher
from .model.trainable import choose_trained, describe_trained
from .model.wrapping import compile_in_place, shard
from .optimization import build_optimizer
from .recipe.arguments import RunArguments
from .recipe.base import base_config, check_base, is_own, model_name, source_of, starts_from_model
from .recipe.checks import check
from .recipe.defaults import describe_choices, resolve, resolve_rhythm
from .recipe.model_config import check_kernel, check_packing, limit_lengths, longest_text, mixing_config
from .recipe.reading import keep_choices, parse_arguments
from .recipe.texts import describe_kinds, resolve_files, resolve_texts
from .recipe.words import resolve_words
from .run.card import START, draw_curve, write_card
from .run.checkpoints import (
    CheckpointError,
    checkpoint_folders,
    find_problem,
    is_lost_process,
    step_of,
    writing,
)
from .run.folder import empty_run, name_output_dir, prepare_output_dir, write_recipe, write_start
from .run.lock import RunLock
from .run.resuming import check_recipe, describe_finished
from .run.run import Run, Scores
from .run.stopping import Interrupted
from .scoring import resolve_bleu, score, show_scores
from .tables import OBJECTIVES


@dataclass(frozen=True)
class TrainResult:
    """What a training gave.

    Attributes:
        scores: By split, then by name; empty after a dry run, and where the run was finished before.
        folder: The run's folder; the model is in `folder / "model"`.
    """

    scores: dict[str, dict[str, Any]]
    folder: Path


def train(
    arguments: RunArguments,
    command: str = "",
    accelerator: Accelerator | None = None,
    loop: Callable[[Run, Any, Any], TrainingLoop] = TrainingLoop,
) -> TrainResult:
    """Train a model, score it, and write it with its card.

    Args:
        arguments: The recipe.
        command: What the model card names as the command of this run.
        accelerator: Built from the recipe when None.
        loop: Makes the loop from the run, the model and the optimizer: a subclass of `TrainingLoop`, for instance.

    Raises:
        ValueError: When arguments or data are not usable, or another run is at work in the folder; nothing has been
            removed or trained then.
        Interrupted: After Ctrl-C or SIGTERM, with everything saved.
        FloatingPointError: When the loss or the gradient is not finite for too many steps.
        CheckpointError: When a checkpoint or the model cannot be written.
    """
    arguments = check(arguments)
    accelerator = accelerator or build_accelerator(arguments)
    logging.disable_progress_bar()  # of saving and loading: there is one bar, that of the training
    try:
        result = train_with(accelerator, arguments, command, loop)
    except BaseException as error:
        end_processes(accelerator, error)
        raise
    end_processes(accelerator)
    return result


def train_with(
    accelerator: Accelerator, arguments: RunArguments, command: str, loop: Callable[[Run, Any, Any], TrainingLoop]
) -> TrainResult:
    """Do what `train` does, on processes that have been started and will be ended by it."""
    output_dir = on_main_process(name_output_dir, arguments)
    if arguments.dry_run or arguments.profile is not None:
        check_start(arguments, accelerator)
        run, _ = prepare(arguments, accelerator)
        accelerator.print(dry_run(build_loop(run, loop), arguments.profile))
        return TrainResult({}, output_dir)
    lock = RunLock(output_dir)
    try:
        on_main_process(lock.take)
        return TrainResult(train_alone(accelerator, arguments, command, loop), output_dir)
    finally:
        lock.release()


def train_alone(
    accelerator: Accelerator, arguments: RunArguments, command: str, loop: Callable[[Run, Any, Any], TrainingLoop]
) -> dict[str, dict[str, Any]]:
    """Do what `train` does, in a folder in which no other run is at work.

    Returns:
        The scores by split; none where the run was finished before.
    """
    if finished := on_main_process(describe_finished, arguments):
        accelerator.print(finished)
        return {}
    checkpoint = on_main_process(prepare_output_dir, arguments)
    check_start(arguments, accelerator)
    run, report = prepare(arguments, accelerator, checkpoint)
    if checkpoint is None:
        trained = build_loop(run, loop)
        on_main_process(begin, run, report)
    else:
        trained = go_on(run, checkpoint, loop)
    start_trackers(accelerator, run.arguments)
    if checkpoint is None and starts_from_model(run.arguments):
        score_start(trained)
    trained.run()
    return finish(trained, command)


def check_start(arguments: RunArguments, accelerator: Accelerator) -> None:
    """Refuse what the model cannot do, before data are read.

    Raises:
        ValueError: Naming what does not fit.
    """
    for part in (check_base, check_base_tokenizer, check_teacher):
        on_main_process(part, arguments)
    for check_part in (check_packing, check_kernel):
        on_main_process(check_part, arguments, accelerator.device)
    is_spread = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
    if is_spread and arguments.training.optim == "muon":
        raise ValueError("training.optim=muon needs whole matrices on each process: not with FSDP or DeepSpeed.")


def prepare(
    arguments: RunArguments, accelerator: Accelerator, checkpoint: Path | None = None
) -> tuple[Run, RowReport]:
    """Read and tokenize the data, and choose what the recipe leaves open; print both.

    Args:
        arguments: The recipe.
        accelerator: Device and processes.
        checkpoint: To go on from; the run's tokenizer is read again then.

    Returns:
        The run, and what became of the rows.

    Raises:
        ValueError: When the data are not usable.
    """
    arguments = check(arguments)
    set_seed(arguments.training.seed)
    modality = OBJECTIVES[arguments.objective].modality
    splits, report = main_process_first(load_splits, arguments.data, arguments.training.seed, modality)
    pairs = len(splits["train"])
    begun = arguments if checkpoint is None else keep_choices(arguments, Path(arguments.output_dir or ""))
    examples = sample_texts(splits["train"]) if OBJECTIVES[arguments.objective].generates else ([], [])
    if modality == "text":
        by_texts = resolve_words(arguments, resolve_texts(begun, *examples), examples[1], pairs)
    else:
        by_texts, examples = resolve_files(begun), ([], [])
    resolved = resolve_bleu(resolve(by_texts, pairs, accelerator.device), splits["train"])
    output_dir = Path(resolved.output_dir or "")
    objective = OBJECTIVES[resolved.objective](splits, resolved.training)
    if starts_from_model(resolved):
        keep_numbers_of_labels(objective, base_config(resolved))
    if checkpoint is not None:
        trusted = starts_from_model(resolved) and source_of(resolved)["trust_remote_code"]
        tokenizer = on_main_process(read_tokenizer, output_dir / "tokenizer", trusted)
    else:
        tokenizer = on_main_process(build_tokenizer, resolved, objective, splits)
    config = mixing_config(resolved)
    objective.read_sources(config, resolved)
    longest = longest_text(config)
    if longest is not None:
        accelerator.print(f"The model has {longest:,} positions (max_position_embeddings): no text may be longer.")
        if is_own(config):
            tokenizer.model_max_length = longest
    data = limit_lengths(resolved.data, longest)
    splits, of_tokens = main_process_first(objective.prepare_rows, splits, tokenizer, data)
    report = report.followed_by(of_tokens)
    rows = TokenRows(splits["train"])
    tokens = int(rows.source_lengths.sum() + objective.budget(rows.target_lengths).sum())
    resolved = resolve_rhythm(resolved, tokens, accelerator.num_processes)
    sides = [side for side, has in (("source", modality == "text"), ("target", objective.generates)) if has]
    report.note(describe_unseen(splits, resolved.tokenizer.normalization, sides))
    accelerator.print(f"{report}\n{describe_choices(arguments, resolved, pairs, describe_kinds(*examples))}")
    return Run(accelerator, resolved, objective, tokenizer, splits, output_dir), report


def build_loop(
    run: Run, loop: Callable[[Run, Any, Any], TrainingLoop] = TrainingLoop, is_new: bool = True
) -> TrainingLoop:
    """Build model and optimizer, on all processes, and the loop that trains them; print what they are.

    Args:
        run: The run.
        loop: As in `train`.
        is_new: Begin with the weights that the recipe names; a resumed run loads its own.
    """
    accelerator, settings = run.accelerator, run.arguments.training
    set_seed(settings.seed)
    model = build_model(run)
    if settings.teacher:
        run.objective.teacher = load_teacher(run, model)
        accelerator.print(f"Taught by {' and '.join(settings.teacher)}, weight {settings.teacher_weight:g}")
    if is_new:
        for report in initialize(model, run.tokenizer, settings):
            accelerator.print(report)
    trained = choose_trained(model, run)
    accelerator.print(*trained.reports, sep="\n", end="\n" * bool(trained.reports))
    if accelerator.is_fsdp2:
        shard(model, accelerator)
    optimizer = build_optimizer(model, settings, trained.by_rows)
    set_seed(settings.seed, device_specific=True)  # dropout differs between processes
    dynamo = accelerator.state.dynamo_plugin
    if dynamo.backend != DynamoBackend.NO and not dynamo.dynamic and not settings.packing:
        accelerator.print(
            "Every size of a batch will be compiled again. Give all one, --training.packing 128, or compile once "
            "for all sizes, --dynamo_mode default --dynamo_use_dynamic."
        )
    compile_in_place(model, accelerator)
    model, optimizer = accelerator.prepare(model, optimizer)
    built = loop(run, model, optimizer)
    config = built.module.config
    accelerator.print(
        f"{built.module.num_parameters():,} parameters ({describe_size(config)}), "
        f"{built.flops_per_token / 1e6:.1f} MFLOP a token; {accelerator.device.type}, {accelerator.num_processes} "
        f"process(es), {torch.get_num_threads()} threads, {accelerator.mixed_precision.replace('no', 'fp32')}, "
        f"{config._attn_implementation} attention"
    )
    return built


def describe_size(config: PreTrainedConfig) -> str:
    """Say how large a model of any family is."""
    depths = [getattr(config, f"{side}_layers", None) for side in ("encoder", "decoder")]
    if config.is_encoder_decoder and None in depths:
        depths = [config.num_hidden_layers, getattr(config, "num_decoder_layers", None) or config.num_hidden_layers]
    layers = " + ".join(map(str, depths)) if None not in depths else str(config.num_hidden_layers)
    width = getattr(config, "d_model", None) or config.hidden_size
    kind = "" if is_own(config) else f"{config.model_type}, "
    return f"{kind}d_model {width}, {layers} layers, vocabulary {config.vocab_size:,}"


def begin(run: Run, report: RowReport) -> None:
    """Remove an older run and write what this one is started with, now that nothing can be refused any more."""
    run.output_dir.mkdir(parents=True, exist_ok=True)
    empty_run(run.output_dir)
    write_start(run.output_dir, run.arguments, report.to_dict())
    save_tokenizer(run.tokenizer, run.output_dir / "tokenizer")


def go_on(run: Run, checkpoint: Path, loop: Callable[[Run, Any, Any], TrainingLoop]) -> TrainingLoop:
    """Build the loop of a resumed run, which must still be the same, and load its checkpoint; print what changes.

    Raises:
        ValueError: When the recipe, the model or the data have changed and may not.
    """
    accelerator = run.accelerator
    before = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["world_size"]
    changes = on_main_process(check_recipe, run.output_dir, run.arguments, before, accelerator.num_processes)
    accelerator.print(*changes, sep="\n")
    trained = build_loop(run, loop, is_new=False)
    accelerator.print("\n".join([f"Going on from {checkpoint}.", *trained.load(checkpoint)]))
    on_main_process(write_recipe, run.output_dir, run.arguments)
    return trained


def final_split(run: Run) -> str | None:
    """Name the split that the final model is scored on: test, else validation; None where there is neither."""
    return next((split for split in ("test", "validation") if split in run.splits), None)


def score_start(loop: TrainingLoop) -> None:
    """Score the model that a run starts from as its final one will be, and note it in the log for the card."""
    run, final = loop.setup, final_split(loop.setup)
    rows = run.arguments.generation.eval_rows
    if final is None or (final == "validation" and len(run.splits[final]) <= rows):
        return  # the evaluation at step 0 does the same
    run.accelerator.print(f"Scoring the {final} split ({len(run.splits[final]):,} rows) before the first step ...")
    values = score(run, loop.model, final).values
    loop.log.write({"step": 0, "split": START, "of": final, **values})
    run.accelerator.print(f"{final}, before the first step: {show_scores(values)}")


def finish(loop: TrainingLoop, command: str) -> dict[str, dict[str, Any]]:
    """Score the final model on the test split (without one, on validation), and write it with its card.

    Returns:
        The scores by split.

    Raises:
        FloatingPointError: When a score of the last evaluation, or of the final model, is not finite.
        CheckpointError: When the model cannot be written.
    """
    run, progress = loop.setup, loop.progress
    accelerator, splits = run.accelerator, run.splits
    check_scores(loop, "validation", loop.kept.not_finite)
    model = loop.kept.final(progress.step)
    scores: dict[str, Scores] = {}
    if final := final_split(run):
        accelerator.print(f"Scoring the {final} split ({len(splits[final]):,} rows) ...")
        scores[final] = score(run, model, final)
        accelerator.print(f"{final}: {show_scores(scores[final].values)}")
        check_scores(loop, final, scores[final].not_finite())
    if "test" in scores:
        loop.log.write({"step": progress.step, "split": "test", **scores["test"].values})
    if accelerator.is_main_process:
        steps = ", ".join(f"{step:,}" for step, _ in sorted(loop.kept.saved))
        details = {
            "command": command,
            "parameters": f"{model.num_parameters():,}",
            "arithmetic": f"{loop.flops_per_token / 1e6:.1f} MFLOP a token, {progress.tokens:,} tokens",
            "steps": f"{progress.step:,}; the weights are "
            f"{'the mean of ' * (len(loop.kept.saved) > 1)}those after {steps}",
            "time": f"{progress.seconds:.0f} s of training",
        }
        details |= describe_trained(run.arguments.training)
        if starts_from_model(run.arguments):
            details = {"starts from": model_name(run.arguments.model["path"]), **details}
        if begins := describe_tags(splits["train"]):
            details["a source begins with tags"] = begins
        write_model(run, model, details, scores)
    return {split: found.values for split, found in scores.items()}


def check_scores(loop: TrainingLoop, split: str, not_finite: list[str]) -> None:
    """Refuse to write a model with scores that are not finite.

    Args:
        loop: After its last step.
        split: That was scored.
        not_finite: Names of the scores that are NaN or infinite.

    Raises:
        FloatingPointError: There are some. The message names the last good model and checkpoint.
    """
    if not not_finite:
        return
    run, kept = loop.setup, loop.kept
    models = [kept.folder(step) for step, _ in sorted(kept.saved)]
    last = f" The last weights with finite validation scores are in {models[-1]}." if models else ""
    earlier = [path for path in checkpoint_folders(run.output_dir) if step_of(path) <= kept.good_step]
    good = next((path for path in reversed(earlier) if find_problem(path) is None), None)
    way = f"Go on with --resume {good} --allow_changes" if good else "No checkpoint from before is left. Start again"
    raise FloatingPointError(
        f"Not finite on the {split} split after step {loop.progress.step}: {', '.join(not_finite)}. No model was "
        f"written.{last} {way} and a lower training.learning_rate (now {run.arguments.training.learning_rate:g})."
    )


def write_model(run: Run, model: Any, details: dict[str, str], scores: dict[str, Scores]) -> None:
    """Write `OUTPUT_DIR/model`, the generated rows and the curve.

    Raises:
        CheckpointError: When the model cannot be written.
    """
    partial = run.output_dir / ".model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    with writing("The model", partial, run.output_dir):
        if has_adapter(model) and run.arguments.training.lora.merge:
            merge_lora(model)
        model.save_pretrained(partial)
        run.tokenizer.save_pretrained(partial)
        run.objective.save_files(partial)
        write_card(partial, run, details, scores)
        commit_folder(partial, run.output_dir / "model")
    samples = [sample for found in scores.values() for sample in found.samples]
    rows = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    write_atomically(run.output_dir / "predictions.jsonl", rows)
    curve = draw_curve(run.output_dir)
    print(f"Model: {run.output_dir / 'model'}")
    print(f"Curve: {curve or 'not drawn, matplotlib is not installed: pip install matplotlib'}")


def main(argv: list[str] | None = None, run: Callable[[RunArguments, str], Any] = train) -> int:
    """Run the command line.

    Args:
        argv: Words after the program's name; those of this process when None.
        run: Called with the recipe, and the command for the model card.

    Returns:
        The exit code.
    """
    argv = sys.argv[1:] if argv is None else argv
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    command = "accelerate launch -m fun_transformer.training" if several else "fun-transformer train"
    try:
        run(parse_arguments(argv), f"{command} {shlex.join(argv)}")
    except Interrupted as interrupted:
        print(f"{interrupted}\nGo on with: {command} {shlex.join(words_to_resume(argv))}", file=sys.stderr)
        return interrupted.exit_code
    except KeyboardInterrupt:
        print("\nStopped. Nothing was saved since the last checkpoint.", file=sys.stderr)
        return 128 + signal.SIGINT
    except ErrorOfMainProcess:
        return 2
    except (ValueError, ImportError) as error:
        return complain(error, code=2)
    except RuntimeError as error:
        if not is_lost_process(error):
            raise
        return complain(
            f"Another process has died or no longer answers ({error}). Read what it printed; then go on from the last "
            "checkpoint with --resume."
        )
    except (CheckpointError, FloatingPointError) as error:
        return complain(error)
    except BrokenPipeError:  # as of `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # which Python flushes at its end
        return 1
    except OSError as error:
        return complain(f"{error}. Fix it; if there is a checkpoint, go on with --resume.")
    return 0


def words_to_resume(argv: list[str]) -> list[str]:
    """Return the words of a command line that goes on with the run of another one."""
    kept = [word for word in argv if not word.startswith(("--overwrite", "--resume"))]
    values = [following for word, following in itertools.pairwise(argv) if word in ("--overwrite", "--resume")]
    for value in values:  # of an option that is gone
        if not value.startswith("--") and not value.endswith((".yaml", ".yml")) and value in kept:
            kept.remove(value)
    return [*kept, "--resume"]


def complain(error: object, code: int = 1) -> int:
    """Print an error as one line of this program; return the exit code."""
    print(f"fun-transformer train: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
