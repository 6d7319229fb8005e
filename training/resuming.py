"""Going on with a run: what may differ from its start, and what is cleared away first."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from training.args import RunArguments, build, known_arguments, read_recipe
from training.checkpoints import write_whole
from training.report import write_recipe

# How long a run is and how often it is looked at: none of these changes what a step does. (With the schedules linear
# and cosine the limits decide the learning rate, too; the change is printed.)
FREE_TO_CHANGE = {
    *("output_dir", "resume", "overwrite", "allow_changes", "dry_run", "profile", "training.trackers"),
    *("training.max_steps", "training.max_minutes", "training.max_epochs", "training.patience"),
    *("training.eval_every", "training.save_every", "training.log_every", "training.keep_checkpoints"),
    *("training.max_bad_steps", "training.timeout_minutes", "generation.eval_rows", "generation.batch_size"),
}


class ErrorOfMainProcess(ValueError):
    """The main process raises, and prints, the same error."""


def on_main_process(function: Callable, *args: Any) -> Any:
    """Call a function on the main process alone; all processes get its result, or stop with its error."""
    result: list[Any] = [None]
    if PartialState().is_main_process:
        try:
            result = [function(*args)]
        except Exception as error:  # raised again below: the others must not wait for a result
            result = [error]
    given = broadcast_object_list(result)[0]
    if isinstance(given, Exception):
        raise given if PartialState().is_main_process else ErrorOfMainProcess(str(given))
    return given


def main_process_first(function: Callable, *args: Any) -> Any:
    """Call a function on all processes, first on the main one, which fills the caches; its error stops all."""
    result: list[Any] = []
    on_main_process(lambda: result.append(function(*args)))
    return result[0] if result else function(*args)


def flat_values(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted names."""
    flat: dict[str, Any] = {}
    for name, value in section.items():
        inside = isinstance(value, dict)
        flat |= flat_values(value, f"{prefix}{name}.") if inside else {f"{prefix}{name}": value}
    return flat


def find_changes(recipe: Path, arguments: RunArguments) -> dict[str, tuple[Any, Any]]:
    """Arguments that differ from those in a recipe file: name -> (old, new).

    Raises:
        ValueError: When the recipe cannot be read.
    """
    started_with = build(RunArguments, read_recipe(str(recipe), known_arguments()))
    old, new = (flat_values(yaml.safe_load(a.to_yaml())) for a in (started_with, arguments))
    names = [*new, *(name for name in old if name not in new)]
    return {name: (old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)}


def check_recipe(output_dir: Path, arguments: RunArguments, before: int, now: int) -> list[str]:
    """Refuse to go on with another recipe, unless `allow_changes`; then write the recipe anew.

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
    changes = find_changes(output_dir / "recipe.yaml", arguments)
    accumulation = changes.get("training.accumulation_steps")
    if accumulation and accumulation[0] * before == accumulation[1] * now:
        changes.pop("training.accumulation_steps")  # an optimizer step sees the same batches
    shown = {name: f"{name}: {old} -> {new}" for name, (old, new) in changes.items()}
    refused = [text for name, text in shown.items() if name not in FREE_TO_CHANGE]
    if refused and not arguments.allow_changes:
        raise ValueError(
            f"The run in {output_dir} was started with another recipe. It differs in {'; '.join(refused)}. Resume "
            f"with {output_dir / 'recipe.yaml'}, start a new run in another output_dir, or go on all the same with "
            "--allow_changes."
        )
    write_recipe(output_dir, arguments)
    return [text for name, text in shown.items() if name.startswith(("training.", "generation.", "model.", "data."))]


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
    write_whole(metrics_path, "".join(kept))


def is_run(folder: Path) -> bool:
    """Whether a folder was made by a run: its run.json is the first file to come and the last to go."""
    return (folder / "run.json").exists() or [path.name for path in folder.iterdir()] == [".run.json.partial"]


def empty_run(folder: Path) -> None:
    """Remove everything in a run's folder, the file that marks it last."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "run.json"):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
