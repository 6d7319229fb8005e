"""Checkpoints: written to a temporary folder, synced, renamed and read back before an older one is removed.

Whenever a run dies, the newest checkpoint that has its name is whole. Each holds a `manifest.json`, written last, with
the size and checksum of every file, so that one which was damaged later is noticed and the one before is taken.
"""

import json
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from safetensors import SafetensorError
from transformers.utils import logging

from ...files import commit_folder, remove_folder, write_atomically

logger = logging.get_logger(__name__)
STEP = re.compile(r"step-(\d+)")


class CheckpointError(OSError):
    """A checkpoint could not be written. The ones before are untouched."""


def is_lost_process(error: Exception) -> bool:
    """Whether an error means that another process of the run no longer answers."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def step_of(folder: Path) -> int:
    """The number in the name of a folder `step-N`."""
    return int(folder.name.removeprefix("step-"))


def step_folders(parent: Path) -> list[Path]:
    """All folders `step-N` of a folder, oldest first."""
    return sorted((path for path in parent.glob("step-*") if STEP.fullmatch(path.name)), key=step_of)


def checkpoint_folders(output_dir: Path) -> list[Path]:
    """All checkpoints of a run, oldest first."""
    return step_folders(output_dir / "checkpoints")


def find_problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None when every file is as it was written."""
    try:
        files: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
        for name, (size, checksum) in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
            if file_checksum(path) != checksum:
                return f"{name} has changed since it was written"
    except OSError as error:
        return f"{Path(error.filename or 'a file').name} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError):
        return "manifest.json is damaged"
    return None


def file_checksum(path: Path) -> int:
    """CRC-32 of a file."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def find_checkpoint(output_dir: Path, resume: str | bool) -> Path | None:
    """The checkpoint to go on from: the newest that is readable, with a warning about those that are not.

    Args:
        output_dir: The run's folder.
        resume: "no", "auto" (the newest, if there is one), True (the newest), or a checkpoint's folder.

    Raises:
        ValueError: When there is no checkpoint where there should be one, or none is readable.
    """
    if resume == "no":
        return None
    if isinstance(resume, str) and resume != "auto":
        folder = Path(resume)
        if not (folder / "trainer_state.json").is_file():
            raise ValueError(f"resume={resume} is no checkpoint: it has no trainer_state.json.")
        if problem := find_problem(folder):
            raise ValueError(f"resume={resume} is not readable: {problem}. Name another, or go on with --resume.")
        if folder.resolve().parent != (output_dir / "checkpoints").resolve():
            raise ValueError(
                f"resume={resume} is no checkpoint of output_dir={output_dir}. Give its own run as output_dir; to "
                "go on elsewhere, copy the whole run."
            )
        return folder
    problems = []
    for folder in reversed(checkpoint_folders(output_dir)):
        problem = find_problem(folder)
        if problem is None:
            return folder
        problems.append(f"{folder.name}: {problem}")
        logger.warning(f"The checkpoint {folder} is not readable: {problem}. Trying the one before.")
    if problems:
        raise ValueError(
            f"No checkpoint in {output_dir / 'checkpoints'} is readable ({'; '.join(problems)}). Put back a copy of "
            "one, or start again with --overwrite and without --resume."
        )
    if resume is True:
        raise ValueError(f"There is no checkpoint in {output_dir / 'checkpoints'}. Start without --resume.")
    return None


def set_aside_later(output_dir: Path, checkpoint: Path) -> list[Path]:
    """Rename the checkpoints after the one that a run goes on from: it will write them again.

    Returns:
        Their new names, `aside-step-N`.
    """
    folders = checkpoint_folders(output_dir)
    later = folders[[folder.name for folder in folders].index(checkpoint.name) + 1 :]
    aside = [folder.with_name(f"aside-{folder.name}") for folder in later]
    for folder, new in zip(later, aside, strict=True):
        shutil.rmtree(new, ignore_errors=True)
        folder.rename(new)
    return aside


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

    Raises:
        CheckpointError: When the disk is full, for instance.
    """
    folder = output_dir / "checkpoints" / f"step-{step}"
    partial = folder.with_name(f".{folder.name}.partial")
    with writing(f"The checkpoint of step {step}", partial, output_dir):
        if accelerator.is_main_process:
            for left_over in folder.parent.glob(".step-*"):
                shutil.rmtree(left_over)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial), safe_serialization=False)  # safetensors would warn of tied weights
        accelerator.wait_for_everyone()  # each process has written its random generators
        if accelerator.is_main_process:
            (partial / "trainer_state.json").write_text(state, encoding="utf-8")
            write_manifest(partial)
            commit_folder(partial, folder)
            if problem := find_problem(folder):
                raise OSError(f"it was written, but {problem}")
            for old in checkpoint_folders(output_dir)[:-keep]:
                remove_folder(old)
        accelerator.wait_for_everyone()
    return folder


@contextmanager
def writing(what: str, partial: Path, output_dir: Path) -> Iterator[None]:
    """Turn what goes wrong inside into one clear error, and give the disk back its room.

    Raises:
        CheckpointError: Naming `what`, and the last good checkpoint.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a full disk as a RuntimeError
        if is_lost_process(error):
            raise
        if PartialState().is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        last = next((old for old in reversed(checkpoint_folders(output_dir)) if find_problem(old) is None), None)
        raise CheckpointError(
            f"{what} could not be written: {str(error).strip()}. "
            + (f"The last good checkpoint is {last}: go on with --resume." if last else "There is no checkpoint yet.")
        ) from error


def write_manifest(folder: Path) -> None:
    """Write down size and checksum of every file."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): [path.stat().st_size, file_checksum(path)] for path in paths}
    write_atomically(folder / "manifest.json", json.dumps({"files": files}, indent=1))
