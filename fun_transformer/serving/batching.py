"""The texts of many clients, answered together: each model has threads that take batches of like length.

    >>> batcher = Batcher(answer, count_tokens, Limits())
    >>> futures = batcher.submit(["今天吃什么好"], Options())
    >>> futures[0].result()
    [{'translation_text': 'What are we going to eat today?'}]

Texts are cut into parts first, sentences as a rule. A batch is built around the part whose turn it is, of the waiting
parts that are nearest to it in length, so that batches hold little padding. Requests take turns by their tokens: a
long one does not keep a short one waiting, and no part waits for ever. Cancel a future, and the parts of its text that
are not yet begun are dropped.
"""

import json
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from .limits import Limits

Records = list[dict[str, Any]]
GATHERING = 0.1  # of the time of the last batch: how long a batch with room waits for more texts
SHORTEST_WAIT, LONGEST_WAIT = 0.004, 0.1  # seconds
LONGEST_RETRY = 60  # seconds
USUAL_BEAMS = 4
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

    @property
    def weight(self) -> float:
        """Return how much more a token costs than usual: many translations need as many beams."""
        return max(self.asked.get("nbest", 1) / USUAL_BEAMS, 1.0)


@dataclass(frozen=True)
class Parts:
    """What is to be answered of a text, and how it becomes the answer to the text.

    Attributes:
        texts: Of the parts; none where the model has nothing to say.
        join: Returns the records of the text, given those of each part.
    """

    texts: list[str]
    join: Callable[[list[Records]], Records]


@dataclass(eq=False)
class Turn:
    """When a request is served: `rank` is that of its next part."""

    rank: float | None = None


@dataclass(eq=False)
class Text:
    """A text that waits for its answer."""

    text: str
    options: Options
    turn: Turn
    future: Future = field(default_factory=Future)
    join: Callable[[list[Records]], Records] = field(init=False)
    found: list[Records | None] = field(init=False)  # of each part


@dataclass(eq=False)
class Part:
    """A part that waits for its answer; `place` says which of its text."""

    text: str
    whole: Text
    place: int
    tokens: int
    rank: float

    @property
    def options(self) -> Options:
        """Return what is asked of it."""
        return self.whole.options


def uncut(text: str, options: Options) -> Parts:
    """Return a text as its only part."""
    return Parts([text], lambda found: found[0])


class Batcher:
    """Answers texts in threads of its own, until it is closed.

    Args:
        answer: Returns the records of each of some texts that share options.
        count_tokens: Returns how long a text is.
        limits: How many texts may wait, and how many tokens a batch may have.
        on_batch: Told the number of texts and the seconds of each batch.
        workers: Threads, each of which calls `answer` with a batch of its own.
        cut: Returns the parts of a text.
    """

    def __init__(
        self,
        answer: Callable[[list[str], Options], list[Records]],
        count_tokens: Callable[[str], int],
        limits: Limits,
        on_batch: Callable[[int, float], None] = lambda texts, seconds: None,
        workers: int = 1,
        cut: Callable[[str, Options], Parts] = uncut,
    ) -> None:
        self.answer, self.count_tokens, self.limits, self.on_batch = answer, count_tokens, limits, on_batch
        self.cut = cut
        self._arrived: list[Text] = []  # shared by threads, as are the count and the rate
        self._count, self._rate = 0, 1.0  # texts that wait; parts a second of one thread
        self._is_closed = False
        self._changed = threading.Condition()
        self._running, self._seconds = 0, 0.0  # parts that are being answered; how long the last batch took
        self._turn = threading.Lock()  # of the one thread that makes a batch
        self._pool: list[Part] = []  # of that thread alone, the oldest first
        self._clock = 0.0  # of that thread alone: the tokens that each request would have been served so far
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
        turn = Turn()
        items = [Text(text, options, turn) for text in texts]
        with self._changed:
            if self._is_closed:
                raise ClosedError("The server is being stopped.")
            if self._count + len(items) > self.limits.waiting:
                seconds = max(self._count, len(self._pool)) / (self._rate * len(self._threads))
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
        for text in new:
            self._cut(text)
        return bool(self._pool) or not self._is_closed

    def _cut(self, text: Text) -> None:
        """Put the parts of a text into the pool; parts of a request follow each other by their tokens."""
        turn = text.turn
        if turn.rank is None:
            turn.rank = self._clock
        try:
            parts = [] if text.future.done() else self._parts_of(text)
        except Exception as error:
            settle(text.future, error)
            parts = []
        for place, part in enumerate(parts):
            try:
                tokens = max(self.count_tokens(part), 1)
            except Exception:  # that of the text: `answer` will find out, with its batch unharmed
                tokens = 1
            self._pool.append(Part(part, text, place, tokens, turn.rank))
            turn.rank += tokens * text.options.weight
        if not parts:
            with self._changed:
                self._count -= 1

    def _parts_of(self, text: Text) -> list[str]:
        """Return the parts of a text that are to be answered; where there are none, it is answered here."""
        parts = self.cut(text.text, text.options)
        text.join, text.found = parts.join, [None] * len(parts.texts)
        if not parts.texts:
            settle(text.future, parts.join([]))
        return parts.texts

    def _choose(self) -> list[Part]:
        """Take a batch out of the pool: the part whose turn it is, and those that are nearest to it in length.

        No thread takes more than its share of all parts: batches of like size are computed in the least time. Parts
        of texts whose futures were cancelled are dropped.
        """
        asked_for = [item for item in self._pool if not item.whole.future.done()]
        batch: list[Part] = []
        if asked_for:
            first, longest = min(asked_for, key=lambda item: item.rank), 0
            most = self.limits.batch_tokens / first.options.weight
            alike = [item for item in asked_for if item.options == first.options]
            share = math.ceil((len(asked_for) + self._running) / len(self._threads))
            for item in sorted(alike, key=lambda item: (abs(item.tokens - first.tokens), item.rank)):
                longest = max(longest, item.tokens)
                if batch and (len(batch) == share or longest * (len(batch) + 1) > most):
                    break
                batch.append(item)
            work = first.options.weight * sum(item.tokens for item in batch)
            requests = len({id(item.whole.turn) for item in asked_for})
            self._clock = max(self._clock, first.rank) + work / requests
        chosen = set(map(id, batch))
        left = [item for item in asked_for if id(item) not in chosen]
        waited, wait = ({id(item.whole) for item in items} for items in (self._pool, left))
        with self._changed:
            self._count -= len(waited - wait)
            self._running += len(batch)
        self._pool = left
        return batch

    def _answer(self, batch: list[Part]) -> None:
        """Answer each part of a batch; where the batch fails, each half is tried, so that one text fails."""
        try:
            answers = self.answer([item.text for item in batch], batch[0].options)
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(batch)} texts got {len(answers)} answers.")
        except Exception as error:
            if len(batch) == 1:
                settle(batch[0].whole.future, error)
                return
            middle = len(batch) // 2
            self._answer(batch[:middle])
            self._answer(batch[middle:])
            return
        for item, records in zip(batch, answers):
            self._take(item, records)

    def _take(self, item: Part, records: Records) -> None:
        """Keep the records of a part; those of the last part make the answer to the text."""
        text = item.whole
        with self._changed:
            text.found[item.place] = records
            found = [one for one in text.found if one is not None]
        if len(found) == len(text.found):
            try:
                settle(text.future, text.join(found))
            except Exception as error:
                settle(text.future, error)


def settle(future: Future, outcome: Records | Exception) -> None:
    """Give a future its result or its error, unless it was cancelled."""
    try:
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
    except InvalidStateError:
        pass
