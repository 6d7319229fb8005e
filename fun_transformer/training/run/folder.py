"""The folder of a run: what may be written into it, what it is started with."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from ...files import write_atomically
from ..recipe.arguments import RunArguments
from .checkpoints import find_checkpoint
from .environment import describe_environment


def is_run(folder: Path) -> bool:
    """Tell whether a run made this folder: its run.json is the first file to come and the last to go."""
    return (folder / "run.json").exists() or [path.name for path in folder.iterdir()] == [".run.json.partial"]


def empty_run(folder: Path) -> None:
    """Remove everything in a run's folder, the file that marks it last."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "run.json"):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def prepare_output_dir(arguments: RunArguments) -> tuple[Path, Path | None]:
    """Make sure that nothing is overwritten by mistake; a dry run overwrites nothing.

    Returns:
        The run's folder, and the checkpoint to go on from.

    Raises:
        ValueError: When the recipe names no folder, or one that has something in it without saying what to do.
    """
    if not arguments.output_dir:
        raise ValueError("output_dir is missing: say where the run writes, as in --output_dir runs/NAME.")
    output_dir = Path(arguments.output_dir)
    if arguments.dry_run or arguments.profile is not None:
        return output_dir, None
    checkpoint = find_checkpoint(output_dir, arguments.resume)
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"output_dir={output_dir} is a file. Name a folder.")
    if checkpoint is None and output_dir.exists() and any(output_dir.iterdir()):
        died_young = arguments.resume == "auto" and is_run(output_dir)  # before its first checkpoint
        if not arguments.overwrite and not died_young:
            raise ValueError(
                f"output_dir={output_dir} is not empty. Go on with --resume, empty it with --overwrite, "
                "or name another folder."
            )
        if not is_run(output_dir):
            raise ValueError(
                f"output_dir={output_dir} holds something that is not a training run, so --overwrite does not empty "
                "it. Empty it yourself, or name another folder."
            )
    return output_dir, checkpoint


def write_start(output_dir: Path, arguments: RunArguments, row_report: dict[str, Any]) -> None:
    """Write what the run was started with: `recipe.yaml` runs it again, `run.json` says on what."""
    write_atomically(output_dir / "run.json", json.dumps(describe_environment(), indent=1))  # first: it marks a run
    write_recipe(output_dir, arguments)
    write_atomically(output_dir / "rows.json", json.dumps(row_report, indent=1, ensure_ascii=False))


def write_recipe(output_dir: Path, arguments: RunArguments) -> None:
    """Write the recipe of a run; running it again must neither empty the run nor go on with it."""
    recipe = dataclasses.replace(arguments, resume="no", overwrite=False, allow_changes=False)
    write_atomically(output_dir / "recipe.yaml", recipe.to_yaml())
