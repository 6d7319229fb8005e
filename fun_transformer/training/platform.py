"""What differs between operating systems: cores, memory, locks on files, processes.

All code of the trainer that only one system has is in this file. Each function does something sensible, or nothing, on
the others. Files and folders are in `fun_transformer/files.py`.
"""

import ctypes
import os
import sys


def available_cores() -> int:
    """Return the number of cores that this process may use; on macOS and Windows, those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_process_memory() -> int:
    """Return the most memory that this process has had so far, in bytes.

    Where the system does not keep the maximum, this is what the process has now.
    """
    try:
        import resource  # Linux and macOS
    except ImportError:
        import psutil  # a dependency of accelerate

        memory = psutil.Process().memory_info()
        return getattr(memory, "peak_wset", memory.rss)  # Windows keeps the maximum
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def keep_freed_memory() -> None:
    """Keep the memory that a step has freed for the next step, on Linux with glibc.

    Memory that goes back to the system costs a page fault every 4 KiB. Tensors over 32 MiB go back all the same.
    """
    trim_threshold, mmap_threshold = -1, -3  # of <malloc.h>
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(mmap_threshold, 2**25)
        libc.mallopt(trim_threshold, 2**31 - 1)


def is_running(process: int) -> bool:
    """Return whether there is a process of this number on this machine."""
    import psutil  # a dependency of accelerate

    return psutil.pid_exists(process)


def lock_file(descriptor: int) -> bool | None:
    """Lock an open file until it is closed or this process ends.

    Returns:
        Whether this process has the lock now; None where the system or the disk has no locks.
    """
    try:
        import fcntl  # Linux and macOS
    except ImportError:
        return lock_file_on_windows(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network disks
        return None
    return True


def lock_file_on_windows(descriptor: int) -> bool | None:
    """Do what `lock_file` does; the locked byte is beyond the end, as no other process could read it."""
    try:
        import msvcrt
    except ImportError:
        return None
    os.lseek(descriptor, 2**30, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError:
        return False
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)
    return True


# Open files that a forked process closes: a lock lasts while a copy of its file is open, and children may live on.
CLOSED_IN_CHILDREN: set[int] = set()


def close_files_of_parent() -> None:
    """Close, in a process that was just forked, what is not for children."""
    while CLOSED_IN_CHILDREN:
        os.close(CLOSED_IN_CHILDREN.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=close_files_of_parent)
