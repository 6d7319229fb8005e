"""Two batches at a time keep two cores busy: a few threads compute a batch each.

To generate is to take many small steps, which the cores of a CPU share badly: on two of them torch's own threads gain
little, and batches side by side nearly twice the speed. While an operator of torch computes, Python runs in another
thread. Python itself runs in one thread at a time, so more than a few of them would wait for each other.
"""

import ctypes
import queue
from collections.abc import Callable, Iterator
from threading import Barrier, Thread
from typing import Any

import torch

MOST_WORKERS = 4
POLL_SECONDS = 0.2  # some systems hand a Ctrl-C on only between two waits


class Stopped(SystemExit):
    """Raised within a worker, to end it in the middle of its batch; `threading` lets it pass in silence."""


def count_workers(device: torch.device, generate_kwargs: dict) -> int:
    """Return how many batches can be computed at a time without changing a result.

    There is one where the random numbers of a batch depend on the batches before it, where an object of the user may
    keep a state between steps, or a cache is kept on the model; where computers wait for each other; and where what
    is set for this thread, as autocast is, would be missing in others.
    """
    is_shared = torch.distributed.is_available() and torch.distributed.is_initialized()
    if device.type != "cpu" or is_shared or torch.is_autocast_enabled("cpu"):
        return 1
    if generate_kwargs.get("do_sample") or generate_kwargs.get("cache_implementation"):
        return 1
    if not is_plain(generate_kwargs):
        return 1
    return min(torch.get_num_threads(), MOST_WORKERS)


def is_plain(value: Any) -> bool:
    """Return whether a value is made of numbers and texts alone."""
    if isinstance(value, dict):
        return all(map(is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def answer_side_by_side(answer: Callable[[Any], Any], batches: list, workers: int) -> Iterator[tuple[Any, Any]]:
    """Yield each batch and its answer, in the order in which they are finished.

    An error of a batch, or what interrupts the caller, ends the other batches where they are.

    Args:
        answer: Called in other threads, each of which has its part of the caller's cores.
        batches: What it is called with; begun in this order.
        workers: How many threads; with 1 everything is done in the caller's.
    """
    if workers < 2:
        for batch in batches:
            yield batch, answer(batch)
        return
    threads = torch.get_num_threads()
    waiting: queue.SimpleQueue = queue.SimpleQueue()
    finished: queue.SimpleQueue = queue.SimpleQueue()
    for batch in batches:
        waiting.put(batch)
    ready = Barrier(workers + 1)

    def work() -> None:
        try:
            torch.get_num_threads()  # when a thread first looks, it takes the number of the process
            torch.set_num_threads(max(threads // workers, 1))
            ready.wait()
            while True:
                batch = waiting.get_nowait()
                finished.put((batch, answer(batch), None))
        except (queue.Empty, Stopped):
            pass
        except Exception as error:
            finished.put((None, None, error))

    running = [Thread(target=work, daemon=True) for _ in range(workers)]
    try:
        for thread in running:
            thread.start()
        ready.wait()
        torch.set_num_threads(threads)  # a worker's number would be that of threads to come
        for _ in batches:
            batch, result, error = wait_for(finished)
            if error is not None:
                raise error
            yield batch, result
    except BaseException:
        for thread in running:
            stop(thread)
        raise
    for thread in running:
        thread.join()


def wait_for(items: queue.SimpleQueue) -> Any:
    """Return the next item of a queue; a Ctrl-C comes through."""
    while True:
        try:
            return items.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue


def stop(thread: Thread) -> None:
    """End a thread at its next line of Python, and wait until it is over."""
    while thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Stopped))
        thread.join(POLL_SECONDS)
