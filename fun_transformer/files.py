"""Files and folders that appear whole or not at all, however a program ends.

What is written goes under another name beside the final one, is synced to the disk, and is then renamed: a reader
finds the old content or the new, never half of it. Standard library only.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

__all__ = ["commit_folder", "open_atomically", "remove_folder", "sync", "whole_file", "write_atomically"]

IS_WINDOWS = os.name == "nt"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; for one writer at a time.

    Args:
        path: The file. Its folder exists.
        content: Text, which is written as UTF-8 with the line ends that it has, or bytes.
    """
    partial = path.with_name(f".{path.name}.partial")
    with replacing(partial, path):
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path to write to, which becomes `path` when the block ends without an error.

    Several processes may do so at once for the same `path`: the last to end wins.

    Args:
        path: The file. Where it is a link, the file behind the link is replaced.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    path = Path(path).resolve()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent}.")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with replacing(partial, path):
        yield partial


@contextmanager
def open_atomically(path: str | os.PathLike) -> Iterator[TextIO]:
    r"""Open a UTF-8 text file for writing, with `\n` at line ends, that appears when the block ends without an error.

    What exists and is no file (`/dev/null`, a named pipe) is written to directly and never replaced.

    Raises:
        FileNotFoundError: The folder does not exist.
    """
    if Path(path).exists() and not Path(path).is_file():
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            yield file
        return
    with whole_file(path) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
        yield file


@contextmanager
def replacing(partial: Path, path: Path) -> Iterator[None]:
    """Sync `partial` and rename it to `path` at the end of the block; remove it where the block fails."""
    try:
        yield
        sync_one(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def commit_folder(partial: Path, folder: Path) -> None:
    """Sync a finished folder to the disk and rename it to `folder`, replacing what had that name."""
    sync(partial)
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    sync_one(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder; one that is half removed no longer has its name."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    shutil.rmtree(old)


def sync(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk."""
    for inside in (*path.rglob("*"), path):
        sync_one(inside)


def sync_one(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if IS_WINDOWS and path.is_dir():
        return  # Windows opens no folder
    descriptor = os.open(path, os.O_RDWR if IS_WINDOWS else os.O_RDONLY)  # Windows flushes only what may be written
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
