"""Going on with a run: what may differ from its start, and what is cleared away first."""

import json
from pathlib import Path
from typing import Any

import yaml

from ...files import write_atomically
from ..recipe.arguments import RunArguments
from ..recipe.reading import build, known_arguments, read_recipe
from .folder import write_recipe

# How long a run is and how often it is looked at: none of these changes what a step does. (With the schedules linear
# and cosine the limits decide the learning rate, too; the change is printed.)
FREE_TO_CHANGE = {
    *("output_dir", "resume", "overwrite", "allow_changes", "dry_run", "profile", "training.report_to"),
    *("training.max_steps", "training.max_minutes", "training.num_train_epochs", "training.patience"),
    *("training.eval_steps", "training.save_steps", "training.logging_steps", "training.save_total_limit"),
    *("training.max_bad_steps", "training.timeout_minutes", "generation.eval_rows", "generation.batch_size"),
}


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
    write_atomically(metrics_path, "".join(kept))
