"""Models behind pairs of languages, each with its queue."""

import asyncio
import math
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from ..decoding import Glossary
from ..pipeline_batches import PartsPipeline
from ..pipeline_records import FIGURES
from ..text_parts import has_words
from .batching import Batcher, Options, Parts, Records
from .languages import Pair, find_language
from .limits import Limits
from .metrics import Metrics

# What a request asks for by a name of ours, and its name in a pipeline.
ASKED = {"scores": "return_scores", "alignments": "return_alignments", "protect": "protect"}


class Cores:
    """The cores of a CPU, shared by threads that compute a batch each: a text that is alone has them all.

    Args:
        workers: How many batches are computed at a time.
        threads: Of torch, for all of them.
    """

    def __init__(self, workers: int, threads: int) -> None:
        self.workers, self.threads = workers, threads
        self._running = 0
        self._lock = threading.Lock()

    @contextmanager
    def share(self, texts: int) -> Iterator[None]:
        """Give the calling thread, which has some texts, its part of the cores."""
        with self._lock:
            self._running += 1
            is_alone = texts == self._running == 1
        part = self.threads if is_alone else max(self.threads // self.workers, 1)
        torch.get_num_threads()  # when a thread first looks, it takes the number of the process
        torch.set_num_threads(part)
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1


class Translator:
    """A model that translates one or more pairs of languages.

    Args:
        name: As people know the model.
        pipes: A translation pipeline for each pair; they share model and tokenizer. As many threads call them as
            they say that batches can be computed at a time.
        num_beams: What the pipelines were told, if anything; more translations than that get as many beams.
    """

    def __init__(self, name: str, pipes: Mapping[Pair, Any], num_beams: int | None = None) -> None:
        self.name, self.pipes, self.num_beams = name, dict(pipes), num_beams
        self.tokenizer = next(iter(self.pipes.values())).tokenizer
        self.cores = Cores(min(pipe.count_workers() for pipe in self.pipes.values()), torch.get_num_threads())

    def count_tokens(self, text: str) -> int:
        """Return how many tokens a text has."""
        return len(self.tokenizer(text, verbose=False)["input_ids"])

    def arguments(self, options: Options) -> dict[str, Any]:
        """Return what a pipeline is told."""
        asked = options.asked
        arguments: dict[str, Any] = {name: True for mine, name in ASKED.items() if asked.get(mine)}
        if (count := asked.get("nbest", 1)) > 1:
            arguments["num_return_sequences"] = count
            if count > (self.num_beams or count):
                arguments["num_beams"] = count
        if terms := asked.get("glossary"):
            arguments["glossary"] = Glossary(terms)
        return arguments

    def cut(self, text: str, options: Options) -> Parts:
        """Return the parts of a text, so that its answer is that of the pipeline, which cuts it in the same way."""
        pipe = self.pipes[options.pair]
        if not isinstance(pipe, PartsPipeline):
            return Parts([text], lambda found: tidy(found[0]))
        parts = pipe._parts(text, **pipe._preprocess_params)
        copies = pipe._preprocess_params.get("long_text") == "sentences"
        read = [i for i, part in enumerate(parts) if not copies or has_words(part)]

        def join(found: list[Records]) -> Records:
            answers = dict(zip(read, found))
            results = [answers.get(i) or [pipe._copied(part, **arguments)] for i, part in enumerate(parts)]
            records = pipe._join(parts, results)
            if not read:  # the model had no part in it
                records = [record | {name: None for name in FIGURES if name in record} for record in records]
            return tidy(records)

        arguments = self.arguments(options) if len(read) < len(parts) else {}
        return Parts([parts[i] for i in read], join)

    def answer(self, texts: list[str], options: Options) -> list[Records]:
        """Return the translations of each text, or of each part of one, best first."""
        pipe, arguments = self.pipes[options.pair], self.arguments(options)
        if isinstance(pipe, PartsPipeline) and pipe._preprocess_params.get("long_text") == "sentences":
            arguments["long_text"] = "split"  # they are sentences already, and fit
        with self.cores.share(len(texts)):
            found = pipe(texts, **arguments)
        return [one if isinstance(one, list) else [one] for one in found]


class Translators:
    """All models of a server, found by the languages that a client names.

    Args:
        translators: No two for one pair.
        limits: Of the queue of each.
        metrics: Which count the batches.

    Raises:
        ValueError: Two models translate the same languages, or there is none.
    """

    def __init__(self, translators: Iterable[Translator], limits: Limits, metrics: Metrics) -> None:
        self.limits = limits
        self.by_pair: dict[Pair, Translator] = {}
        for translator in translators:
            for pair in translator.pipes:
                if (other := self.by_pair.setdefault(pair, translator)) is not translator:
                    raise ValueError(
                        f"{other.name} and {translator.name} both translate {'-'.join(pair)}. Leave one of them out, "
                        "or say which languages it has: MODEL=zh-en"
                    )
        if not self.by_pair:
            raise ValueError("There is no model to serve. Give one or more.")
        self.batchers: dict[Translator, Batcher] = {}
        for translator in dict.fromkeys(self.by_pair.values()):
            on_batch = metrics.count_batch(translator.name)
            workers = translator.cores.workers
            batcher = Batcher(translator.answer, translator.count_tokens, limits, on_batch, workers, translator.cut)
            metrics.watch_waiting(translator.name, partial(getattr, batcher, "waiting"))
            self.batchers[translator] = batcher

    @property
    def sources(self) -> list[str]:
        """Return the languages that can be translated."""
        return sorted({source for source, _ in self.by_pair})

    @property
    def targets(self) -> list[str]:
        """Return the languages that can be translated into."""
        return sorted({target for _, target in self.by_pair})

    @property
    def are_alive(self) -> bool:
        """Tell whether all models answer."""
        return all(batcher.is_alive for batcher in self.batchers.values())

    def targets_of(self, source: str) -> list[str]:
        """Return what a language can be translated into."""
        return sorted(target for one, target in self.by_pair if one == source)

    def find_pair(self, source: str, target: str) -> Pair:
        """Return the pair of languages that a client means; the same language twice means a text that stays.

        Raises:
            ValueError: No model has it.
        """
        known = find_language(source, self.sources)
        wanted = find_language(target, self.targets_of(known) if known else self.targets)
        if known and wanted:
            return known, wanted
        if known and find_language(target, [known]):
            return known, known
        pairs = ", ".join("-".join(pair) for pair in sorted(self.by_pair)[:20])
        raise ValueError(f"There is no translation from {source[:32]!r} to {target[:32]!r} here. There are: {pairs}.")

    async def translate(self, texts: list[str], options: list[Options]) -> list[Records]:
        """Return the translations of each text; a blank text, and one that stays in its language, is its own.

        A task that is cancelled takes its texts out of the queue.

        Raises:
            QueueFullError: Too many texts wait.
            ClosedError: The server is being stopped.
            Exception: Whatever the model raised for one of the texts.
        """
        alike: dict[Options, list[int]] = {}
        for i, (text, one) in enumerate(zip(texts, options)):
            if text.strip() and one.pair in self.by_pair:
                alike.setdefault(one, []).append(i)
        futures: dict[int, Future] = {}
        try:
            for one, read in alike.items():
                batcher = self.batchers[self.by_pair[one.pair]]
                futures |= zip(read, batcher.submit([texts[i] for i in read], one))
        except Exception:
            for future in futures.values():
                future.cancel()
            raise
        found = dict(zip(futures, await asyncio.gather(*map(asyncio.wrap_future, futures.values()))))
        return [found.get(i, [{"translation_text": text}]) for i, text in enumerate(texts)]

    def close(self) -> None:
        """Answer what waits, then stop."""
        for batcher in self.batchers.values():
            batcher.close()


def tidy(records: Records) -> Records:
    """Return records without figures that JSON has no number for, such as minus infinity."""
    for record in records:
        for name, value in record.items():
            values = value if isinstance(value, list) else [value]
            if any(isinstance(one, float) and not math.isfinite(one) for one in values):
                record[name] = None
    return records
