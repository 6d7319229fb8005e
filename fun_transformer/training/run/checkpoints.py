"""Checkpoints: written to a temporary folder, synced, renamed and read back before an older one is removed.

Whenever a run dies, the newest checkpoint that has its name is whole. Each holds a `manifest.json`, written last, with
the size and checksum of every file, so that one which was damaged later is noticed and the one before is taken. So
does each saved model.
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
from safetensors import SafetensorError, safe_open
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
    """The step in a name such as `step-8` or `aside-step-8`."""
    return int(folder.name.rpartition("-")[2])


def step_folders(parent: Path) -> list[Path]:
    """All folders `step-N` of a folder, oldest first."""
    return sorted((path for path in parent.glob("step-*") if STEP.fullmatch(path.name)), key=step_of)


def checkpoint_folders(output_dir: Path) -> list[Path]:
    """All checkpoints of a run, oldest first."""
    return step_folders(output_dir / "checkpoints")


def find_problem(folder: Path) -> str | None:
    """What is wrong with a folder that has a manifest; None when every file is as it was written."""
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


def find_model_problem(folder: Path) -> str | None:
    """Tell what is wrong with a saved model; None when it is whole.

    Models of version 0.1.0 have no manifest: of those it is known only whether all weights can be read and are finite.
    """
    if (folder / "manifest.json").exists():
        return find_problem(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        return "it has no config.json or no *.safetensors" if folder.is_dir() else "there is no such folder"
    for file in files:
        try:
            with safe_open(file, framework="pt") as weights:
                broken = [name for name in weights.keys() if not weights.get_tensor(name).isfinite().all()]  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            return f"{file.name} cannot be read ({error})"
        if broken:
            return f"{broken[0]} is not finite"
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
            commit_with_manifest(partial, folder)
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


def commit_with_manifest(partial: Path, folder: Path) -> None:
    """Write down size and checksum of every file, rename the finished folder to `folder`, and read it back.

    Raises:
        OSError: When what is read is not what was written.
    """
    paths = sorted(path for path in partial.rglob("*") if path.is_file())
    files = {path.relative_to(partial).as_posix(): [path.stat().st_size, file_checksum(path)] for path in paths}
    write_atomically(partial / "manifest.json", json.dumps({"files": files}, indent=1))
    commit_folder(partial, folder)
    if problem := find_problem(folder):
        raise OSError(f"it was written, but {problem}")


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The trainer's own state in a checkpoint; empty when it is not readable."""
    try:
        return dict(json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def models_of(checkpoint: Path) -> list[tuple[int, float]]:
    """Step and score of the saved models that a checkpoint needs; none when its state is not readable."""
    return [(int(step), float(score)) for step, score in read_state(checkpoint).get("saved", [])]
