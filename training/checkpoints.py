"""Checkpoints: written to a temporary folder, synced and renamed, so that one that has its name is whole."""

import os
import re
import shutil
from pathlib import Path

from accelerate import Accelerator

_NAME = re.compile(r"step-(\d+)")


def checkpoint_folders(output_dir: Path) -> list[Path]:
    """All whole checkpoints of a run, oldest first."""
    folders = [path for path in (output_dir / "checkpoints").glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(folders, key=lambda path: int(path.name.removeprefix("step-")))


def find_checkpoint(output_dir: Path, resume: str | bool) -> Path | None:
    """The checkpoint to go on from.

    Args:
        output_dir: The run's folder.
        resume: "no", "auto" (the newest, if there is one), True (the newest), or a checkpoint's folder.

    Raises:
        ValueError: When there is no checkpoint where there should be one.
    """
    if resume == "no":
        return None
    if isinstance(resume, str) and resume != "auto":
        folder = Path(resume)
        if not (folder / "trainer_state.json").is_file():
            raise ValueError(f"resume={resume} is no checkpoint: it has no trainer_state.json.")
        return folder
    folders = checkpoint_folders(output_dir)
    if not folders and resume is True:
        raise ValueError(f"There is no checkpoint in {output_dir / 'checkpoints'}. Start without --resume.")
    return folders[-1] if folders else None


def save_checkpoint(accelerator: Accelerator, output_dir: Path, step: int, state: str, keep: int) -> Path:
    """Save model, optimizer, random generators and the trainer's state; then remove all but the newest `keep`.

    Args:
        accelerator: Whose prepared objects are saved, by all processes.
        output_dir: The run's folder.
        step: Optimizer steps done.
        state: JSON of the trainer's own state.
        keep: How many checkpoints stay.

    Returns:
        The folder `OUTPUT_DIR/checkpoints/step-STEP`.
    """
    folder = output_dir / "checkpoints" / f"step-{step}"
    if folder.exists():
        return folder
    partial = folder.with_name(f".{folder.name}.partial")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial), safe_serialization=False)  # safetensors would warn of tied weights
    if accelerator.is_main_process:
        (partial / "trainer_state.json").write_text(state, encoding="utf-8")
        publish(partial, folder)
        for old in checkpoint_folders(output_dir)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return folder


def publish(partial: Path, folder: Path) -> None:
    """Sync a finished folder to disk and give it its name, in the place of what had it before."""
    for path in [*(p for p in partial.rglob("*") if p.is_file()), partial]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
