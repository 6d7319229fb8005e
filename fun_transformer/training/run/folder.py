"""TODO run/folder."""

import dataclasses
import importlib.metadata
import json
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

from ..recipe.arguments import RunArguments
from .checkpoints import find_checkpoint, write_whole


def is_run(folder: Path) -> bool:
    """Whether a folder was made by a run: its run.json is the first file to come and the last to go."""
    return (folder / "run.json").exists() or [path.name for path in folder.iterdir()] == [".run.json.partial"]


def empty_run(folder: Path) -> None:
    """Remove everything in a run's folder, the file that marks it last."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "run.json"):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def prepare_output_dir(arguments: RunArguments, rehearsal: bool = False) -> tuple[Path, Path | None]:
    """Make sure that nothing is overwritten by mistake; a rehearsal overwrites nothing.

    Returns:
        The run's folder, and the checkpoint to go on from.

    Raises:
        ValueError: When the folder is missing from the recipe, or has something in it and nobody said what to do.
    """
    if not arguments.output_dir:
        raise ValueError("output_dir is missing: say where the run writes, as in --output_dir runs/NAME.")
    output_dir = Path(arguments.output_dir)
    if rehearsal:
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


PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "accelerate",
    "evaluate",
    "sacrebleu",
    "fun-transformer",
)


def describe_environment() -> dict[str, Any]:
    """Versions, revision of the code and the device: what a number means depends on them."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()
    return {
        "python": platform.python_version(),
        "versions": versions,
        "git_revision": git_revision(),
        "device": device,
        "threads": torch.get_num_threads(),
    }


def cpu_name() -> str:
    """The processor's name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def git_revision() -> str | None:
    """Revision of this checkout, with a + when files differ from it; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        revision = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"], cwd=folder, capture_output=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return revision + ("+" if changed else "")


def write_start(output_dir: Path, arguments: RunArguments, row_report: dict[str, Any]) -> None:
    """Write what the run was started with: `recipe.yaml` runs it again, `run.json` says on what."""
    write_whole(output_dir / "run.json", json.dumps(describe_environment(), indent=1))  # first: it marks a run
    write_recipe(output_dir, arguments)
    write_whole(output_dir / "rows.json", json.dumps(row_report, indent=1, ensure_ascii=False))


def write_recipe(output_dir: Path, arguments: RunArguments) -> None:
    """Write the recipe of a run; running it again must neither empty the run nor go on with it."""
    recipe = dataclasses.replace(arguments, resume="no", overwrite=False, allow_changes=False)
    write_whole(output_dir / "recipe.yaml", recipe.to_yaml())
