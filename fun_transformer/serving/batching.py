"""The texts of many clients, answered together: each model has threads that take batches of like length.

    >>> batcher = Batcher(answer, count_tokens, Limits())
    >>> futures = batcher.submit(["今天吃什么好"], Options())
    >>> futures[0].result()
    [{'translation_text': 'What are we going to eat today?'}]

A batch is built around the text that waits longest, of the waiting texts that are nearest to it in length. So batches
hold little padding, and no text waits for ever. Who cancels a future before its turn takes the text out.
"""

import json
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from .limits import Limits

Records = list[dict[str, Any]]
GATHERING = 0.1  # of the time of the last batch: how long a batch with room waits for more texts
SHORTEST_WAIT, LONGEST_WAIT = 0.004, 0.1  # seconds
LONGEST_RETRY = 60  # seconds
MEMORY = 0.9  # of the rate of the last batches, against that of the newest


class QueueFullError(Exception):
    """More texts wait than may; `seconds` says when to try again."""

    def __init__(self, seconds: int):
        super().__init__(f"Too many texts are waiting. Try again in {seconds} seconds.")
        self.seconds = seconds


class ClosedError(Exception):
    """The server is being stopped and takes no more texts."""


@dataclass(frozen=True)
class Options:
    """What a request asks of its texts; texts with equal options can share a batch.

    Attributes:
        pair: Source language and target language.
        asked: Numbers, words and dictionaries of strings.
    """

    pair: tuple[str, str] = ("", "")
    asked: dict[str, Any] = field(default_factory=dict, compare=False)
    key: str = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "key", json.dumps(self.asked, sort_keys=True))


@dataclass(eq=False)
class Waiting:
    """A text that waits for its answer."""

    text: str
    options: Options
    since: float
    future: Future = field(default_factory=Future)
    tokens: int = 0


class Batcher:
    """Answers texts in threads of its own, until it is closed.

    Args:
        answer: Returns the records of each of some texts that share options.
        count_tokens: Returns how long a text is.
        limits: How many texts may wait, and how many tokens a batch may have.
        on_batch: Told the number of texts and the seconds of each batch.
        workers: Threads, each of which calls `answer` with a batch of its own.
    """

    def __init__(
        self,
        answer: Callable[[list[str], Options], list[Records]],
        count_tokens: Callable[[str], int],
        limits: Limits,
        on_batch: Callable[[int, float], None] = lambda texts, seconds: None,
        workers: int = 1,
    ) -> None:
        self.answer, self.count_tokens, self.limits, self.on_batch = answer, count_tokens, limits, on_batch
        self._arrived: list[Waiting] = []  # shared by threads, as are the count and the rate
        self._count, self._rate = 0, 1.0  # texts that wait; texts a second of one thread
        self._is_closed = False
        self._changed = threading.Condition()
        self._running, self._seconds = 0, 0.0  # texts that are being answered; how long the last batch took
        self._turn = threading.Lock()  # of the one thread that makes a batch
        self._pool: list[Waiting] = []  # of that thread alone, the oldest first
        self._threads = [threading.Thread(target=self._run, name="batcher", daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Return how many texts wait for their turn."""
        return self._count

    @property
    def is_alive(self) -> bool:
        """Tell whether texts are being answered."""
        return all(thread.is_alive() for thread in self._threads)

    def submit(self, texts: list[str], options: Options) -> list[Future]:
        """Put texts into the queue, all or none.

        Returns:
            A future for each, which gets its records, or the error that this text makes.

        Raises:
            QueueFullError: There is no room for them.
            ClosedError: The batcher is closed.
        """
        now = time.monotonic()
        items = [Waiting(text, options, now) for text in texts]
        with self._changed:
            if self._is_closed:
                raise ClosedError("The server is being stopped.")
            if self._count + len(items) > self.limits.waiting:
                seconds = self._count / (self._rate * len(self._threads))
                raise QueueFullError(min(max(math.ceil(seconds), 1), LONGEST_RETRY))
            self._count += len(items)
            self._arrived += items
            self._changed.notify()
        return [item.future for item in items]

    def close(self) -> None:
        """Take no more texts, and return when all that were taken are answered."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._turn:
                if not self._gather():
                    return
                batch = self._choose()
            if not batch:
                continue
            start = time.monotonic()
            self._answer(batch)
            seconds = self._seconds = time.monotonic() - start
            with self._changed:
                self._running -= len(batch)
            self.on_batch(len(batch), seconds)
            self._rate = MEMORY * self._rate + (1 - MEMORY) * len(batch) / max(seconds, 1e-3)

    def _gather(self) -> bool:
        """Move what has arrived into the pool; wait for a first text, and a moment for others.

        Clients that were just answered often ask again at once.

        Returns:
            False when the batcher is closed and nothing is left.
        """
        with self._changed:
            while not (self._pool or self._arrived or self._is_closed):
                self._changed.wait()
            has_room = sum(item.tokens for item in self._pool) < self.limits.batch_tokens
            wait = min(max(GATHERING * self._seconds, SHORTEST_WAIT), LONGEST_WAIT)
            until = time.monotonic() + (wait if has_room else 0)
            while not self._is_closed and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            new, self._arrived = self._arrived, []
        for item in new:
            try:
                item.tokens = max(self.count_tokens(item.text), 1)
            except Exception:  # that of the text: `answer` will find out, with its batch unharmed
                item.tokens = 1
        self._pool += new
        return bool(self._pool) or not self._is_closed

    def _choose(self) -> list[Waiting]:
        """Take a batch out of the pool: the oldest text, and those that are nearest to it in length.

        No thread takes more than its part of all texts: batches of like size are computed in the least time. Texts
        whose futures were cancelled are dropped.
        """
        asked_for = [item for item in self._pool if not item.future.cancelled()]
        batch: list[Waiting] = []
        if asked_for:
            oldest, longest = asked_for[0], 0
            alike = [item for item in asked_for if item.options == oldest.options]
            part = math.ceil((len(asked_for) + self._running) / len(self._threads))
            for item in sorted(alike, key=lambda item: abs(item.tokens - oldest.tokens)):
                longest = max(longest, item.tokens)
                if batch and (len(batch) == part or longest * (len(batch) + 1) > self.limits.batch_tokens):
                    break
                batch.append(item)
        chosen = set(map(id, batch))
        left = [item for item in asked_for if id(item) not in chosen]
        begun = [item for item in batch if item.future.set_running_or_notify_cancel()]
        with self._changed:
            self._count -= len(self._pool) - len(left)
            self._running += len(begun)
        self._pool = left
        return begun

    def _answer(self, batch: list[Waiting]) -> None:
        """Give each text of a batch its answer; where the batch fails, each half is tried, so that one text fails."""
        try:
            answers = self.answer([item.text for item in batch], batch[0].options)
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(batch)} texts got {len(answers)} answers.")
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            middle = len(batch) // 2
            self._answer(batch[:middle])
            self._answer(batch[middle:])
            return
        for item, records in zip(batch, answers):
            item.future.set_result(records)
