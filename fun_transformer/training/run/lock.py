"""One run at a time in a folder: a lock that a dead process does not leave behind."""

import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from ...files import IS_WINDOWS
from ..platform import CLOSED_IN_CHILDREN, is_running, lock_file

LOCK = ".run.lock"


class RunLock:
    """Keep a folder for this process, from `take` to `release`.

    The system takes its lock on an open file back when the process ends, however it ends. The lock holds between
    machines where a network disk has such locks. Where there are none, the process that makes the file has the lock:
    the file names it, and counts as long as that process runs; one of another machine is taken to run.

    Args:
        folder: Of the run. It is made where it does not exist, and removed at the end where nothing came into it.
        lock: Locks an open file, at once or not at all; returns None where that cannot be done.
    """

    def __init__(self, folder: Path, lock: Callable[[int], bool | None] = lock_file):
        self.folder, self.path, self.lock = folder, folder / LOCK, lock
        self.descriptor: int | None = None
        self.made: list[Path] = []

    def take(self) -> None:
        """Take the lock.

        Raises:
            ValueError: Another process has it. The message says which, and since when.
        """
        self.made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        while (descriptor := self.open()) is None:  # its last owner has just removed the file
            pass
        self.descriptor = descriptor
        CLOSED_IN_CHILDREN.add(descriptor)
        now = datetime.now().astimezone().isoformat(" ", "seconds")
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}).encode())
        os.fsync(descriptor)

    def open(self) -> int | None:
        """Open and lock the file; None where it is no longer the one that has its name.

        Raises:
            ValueError: Another process has the lock.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        try:
            descriptor = os.open(self.path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if is_new else 0), 0o644)
        except (FileExistsError, FileNotFoundError):
            return None
        is_mine, owner = self.lock(descriptor), self.read_owner()
        has_locks = is_mine is not None
        if not has_locks:
            is_mine = is_new
            if not is_new and owner and not may_run(owner):
                self.path.unlink(missing_ok=True)
                os.close(descriptor)
                return None
        if is_mine and self.is_current(descriptor):
            return descriptor
        os.close(descriptor)
        if is_mine:
            return None
        who = "process {pid} on {host} has been at work there since {since}".format(**owner) if owner else ""
        hint = "" if has_locks else f" If it no longer runs, remove {self.path}."
        raise ValueError(
            f"output_dir={self.folder} is in use: {who or 'another process is at work there'}. Wait for it, stop it, "
            f"or name another folder.{hint}"
        )

    def is_current(self, descriptor: int) -> bool:
        """Tell whether an open file still is the one that has the lock's name."""
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def read_owner(self) -> dict[str, str | int] | None:
        """Read which process has the lock; None where the file does not say it (yet)."""
        try:
            owner = json.loads(self.path.read_text(encoding="utf-8"))
            return {"pid": int(owner["pid"]), "host": str(owner["host"]), "since": str(owner["since"])}
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def release(self) -> None:
        """Give the folder back, if this process has it."""
        if self.descriptor is not None:
            CLOSED_IN_CHILDREN.discard(self.descriptor)
            if IS_WINDOWS:  # which removes no open file, and none that the next run has opened
                os.close(self.descriptor)
            with suppress(OSError):
                self.path.unlink()
            if not IS_WINDOWS:
                os.close(self.descriptor)
            self.descriptor = None
        with suppress(OSError):
            for folder in self.made:
                folder.rmdir()
        self.made = []


def may_run(owner: dict[str, str | int]) -> bool:
    """Tell whether the process that a lock names may still run."""
    return owner["host"] != socket.gethostname() or is_running(int(owner["pid"]))
