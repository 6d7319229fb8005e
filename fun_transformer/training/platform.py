"""What differs between operating systems: cores, peak memory, and how the C library keeps memory.

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
