"""Going on with a run: what may differ from its start, and what is cleared away first."""

import itertools
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ...files import commit_folder, write_atomically
from ..recipe.arguments import AUTO, RunArguments
from ..recipe.defaults import LIMITS
from ..recipe.reading import changed_arguments
from .checkpoints import checkpoint_folders, models_of, step_folders, step_of
from .folder import is_finished

# How long a run is and how often it is looked at: none of these changes what a step does. (With the schedules linear
# and cosine the limits decide the learning rate, too; the change is printed.)
FREE_TO_CHANGE = {
    *("output_dir", "resume", "overwrite", "allow_changes", "dry_run", "profile", "plugins", "training.report_to"),
    *("training.max_steps", "training.max_minutes", "training.num_train_epochs", "training.patience"),
    *("training.eval_steps", "training.save_steps", "training.logging_steps", "training.save_total_limit"),
    *("training.threads", "training.attn_implementation"),
    *("training.max_bad_steps", "training.timeout_minutes", "generation.eval_rows", "generation.batch_size"),
}


def describe_finished(arguments: RunArguments) -> str | None:
    """Say that there is nothing left to do: a run that is to go on has its model, and no checkpoint any more.

    Returns:
        What to print; None where there is something to do.

    Raises:
        ValueError: When the recipe now asks for something else.
    """
    output_dir = Path(arguments.output_dir or "")
    if arguments.resume != "auto" or not is_finished(output_dir) or checkpoint_folders(output_dir):
        return None
    counts = {*LIMITS, "patience"}
    changed = [
        f"{name}: {old} -> {new}"
        for name, (old, new) in changed_arguments(output_dir / "recipe.yaml", arguments).items()
        if name not in FREE_TO_CHANGE - {f"training.{limit}" for limit in counts}
        and new != AUTO  # what the run has chosen
        and not (new is None and name.startswith("model."))
    ]
    text = f"The run in {output_dir} is finished: its model is {output_dir / 'model'}."
    again = "Train again with --overwrite and without --resume, or in another output_dir."
    if changed:
        raise ValueError(
            f"{text} It was trained with another recipe, which differs in {'; '.join(changed)}, and its checkpoints "
            f"are gone, so it cannot go on. {again}"
        )
    return f"{text} Its checkpoints are gone, so there is nothing to go on from. {again}"


def check_recipe(output_dir: Path, arguments: RunArguments, before: int, now: int) -> list[str]:
    """Refuse to go on with another recipe, unless `allow_changes`.

    Args:
        output_dir: Of the run.
        arguments: Its arguments now.
        before: Number of processes that trained so far.
        now: Number of processes now.

    Returns:
        What changes, to be printed.

    Raises:
        ValueError: Naming everything that differs and may not.
    """
    changes = changed_arguments(output_dir / "recipe.yaml", arguments)
    accumulation = changes.get("training.gradient_accumulation_steps")
    if accumulation and accumulation[0] * before == accumulation[1] * now:
        changes.pop("training.gradient_accumulation_steps")  # an optimizer step sees the same batches
    shown = {name: f"{name}: {old} -> {new}" for name, (old, new) in changes.items()}
    refused = [text for name, text in shown.items() if name not in FREE_TO_CHANGE]
    if refused and not arguments.allow_changes:
        raise ValueError(
            f"The run in {output_dir} was started with another recipe. It differs in {'; '.join(refused)}. Resume "
            f"with {output_dir / 'recipe.yaml'}, start a new run in another output_dir, or go on all the same with "
            "--allow_changes."
        )
    return [text for name, text in shown.items() if name.startswith(("training.", "generation.", "model.", "data."))]


def set_aside_later(output_dir: Path, checkpoint: Path) -> list[Path]:
    """Rename the checkpoints after the one that a run goes on from: it will write them again.

    Each takes along the saved models that it needs and the log, which will be written again, too. A checkpoint that
    was set aside itself gets its name, its models and its log back.

    Returns:
        The new names, `aside-step-N`.
    """
    name, step = checkpoint.name, step_of(checkpoint)
    models, log = output_dir / "models", output_dir / "metrics.jsonl"
    later = [folder for folder in checkpoint_folders(output_dir) if folder.name != name and step_of(folder) >= step]
    aside = [free_name(folder) for folder in later]
    for folder, new in zip(later, aside, strict=True):
        link_folders((models / f"step-{needed}" for needed, _ in models_of(folder)), folder / "models")
        if log.exists():
            shutil.copy2(log, folder)
        folder.rename(new)
    if name != f"step-{step}":
        link_folders(step_folders(checkpoint / "models"), models)
        if (checkpoint / log.name).exists():
            write_atomically(log, (checkpoint / log.name).read_bytes())
        checkpoint.rename(checkpoint.with_name(f"step-{step}"))
    return aside


def free_name(folder: Path) -> Path:
    """Name a checkpoint that is set aside as none before it is named."""
    names = itertools.chain(["aside"], (f"aside-{number}" for number in itertools.count(2)))
    return next(path for name in names if not (path := folder.with_name(f"{name}-{folder.name}")).exists())


def link_folders(folders: Iterable[Path], parent: Path) -> None:
    """Give folders a place in another one, too: by hard links, or as copies where the disk has no such links."""
    for folder in folders:
        if folder.is_dir():
            partial = parent / f".{folder.name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(folder, partial, copy_function=link)
            commit_folder(partial, parent / folder.name)


def link(source: str, target: str) -> None:
    """Give a file a second name; copy it where the disk has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def forget_later_lines(metrics_path: Path, step: int) -> None:
    """Remove what metrics.jsonl says of later steps and of the end of the run, and a line that was cut off."""
    kept = []
    for line in metrics_path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if values["step"] <= step and values["split"] != "test":
            kept.append(line + "\n")
    write_atomically(metrics_path, "".join(kept))
