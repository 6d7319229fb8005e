"""Files and folders that appear whole or not at all, however a program ends.

What is written goes under another name beside the final one, is synced to the disk, and is then renamed: a reader
finds the old content or the new, never half of it. What is made line by line over hours is a `LineFile` instead: all
lines that are finished are there. Standard library only.
"""

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

__all__ = ["LineFile", "commit_folder", "count_lines", "remove_folder", "sync", "whole_file", "write_atomically"]

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


class LineFile:
    r"""A UTF-8 text file that grows by whole lines, each of which stays whatever happens next.

    What exists and is no file (`/dev/null`, a named pipe) is written to as well, and keeps no lines.

    Args:
        path: The file; made where there is none.
        keep: Lines of it to stay; the rest, such as half a line after a full disk, is cut off.

    Raises:
        OSError: It cannot be written to; nothing has changed then.
    """

    def __init__(self, path: str | os.PathLike, keep: int = 0) -> None:
        self.end = _end_of_line(path, keep)
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115  closed by close()
        self.is_regular = stat.S_ISREG(os.fstat(self.file.fileno()).st_mode)
        self._cut()

    def write(self, lines: Iterable[str]) -> None:
        r"""Add lines, ended by `\n`, and wait until they are on the disk; where that fails, no half line is left."""
        data, written = "".join(f"{line}\n" for line in lines).encode(), 0
        try:
            while written < len(data):
                written += self.file.write(data[written:])
            if self.is_regular:
                os.fsync(self.file.fileno())
        finally:
            self.end += data.rfind(b"\n", 0, written) + 1
            if written < len(data):
                self._cut()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _cut(self) -> None:
        if self.is_regular:
            self.file.truncate(self.end)


def count_lines(path: str | os.PathLike) -> int:
    r"""Count the whole lines of a file: those that end in `\n`; 0 where there is none."""
    if not Path(path).is_file():
        return 0
    with open(path, "rb") as file:
        return sum(line.endswith(b"\n") for line in file)


def _end_of_line(path: str | os.PathLike, number: int) -> int:
    """Return the position where a line of a file ends, counted from 1; 0 for line 0."""
    if not number:
        return 0
    with open(path, "rb") as file:
        return sum(len(line) for line in islice(file, number))


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
