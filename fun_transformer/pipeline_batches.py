"""Texts become batches of parts of like length, and their results become answers in the order of the texts."""

import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

from transformers import Pipeline

from .pipeline_options import OF_FORWARD, home, ruling_params
from .pipeline_records import ALIGNED, FIGURES, LISTS, join_records
from .pipeline_workers import answer_side_by_side, count_workers
from .text_parts import (
    LANGUAGE_TAG,
    Prefixed,
    check_text,
    has_beginning,
    has_words,
    language_tag,
    split_sentences,
    split_text,
)

TOKENS_A_TEXT = 64  # the most that the texts of a batch may have on average
STREAM_BATCHES = 16  # the most that are read ahead of a stream
TEXTS_A_COUNT = 1000  # whose tokens are counted at a time


def token_batches(lengths: Sequence[int], tokens: int, most: int | None = None) -> Iterator[list[int]]:
    """Cut texts into batches of like length that hold about equally many tokens.

    One long text must not make its whole batch long: none is more than about twice as long as another.

    Args:
        lengths: Of the texts, in tokens.
        tokens: The most of a batch, padding counted; a longer text has a batch of its own.
        most: The most texts of a batch.

    Yields:
        Which texts, longest first.
    """
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch:
            longest = lengths[batch[0]]
            is_shorter = 2 * lengths[i] + TOKENS_A_TEXT // 8 < longest
            if is_shorter or len(batch) == most or longest * (len(batch) + 1) > tokens:
                yield batch
                batch = []
        batch.append(i)
    if batch:
        yield batch


def count_tokens(tokenizer, texts: list[str]) -> list[int]:
    """Return how many tokens each text has."""
    counts: list[int] = []
    for start in range(0, len(texts), TEXTS_A_COUNT):
        some = [str(text) for text in texts[start : start + TEXTS_A_COUNT]]
        counts += map(len, tokenizer(some, verbose=False)["input_ids"])
    return counts


def _items(texts) -> Iterator:
    """Return the items of an iterator or of a dataset, which knows only its length and `[i]`."""
    return (texts[i] for i in range(len(texts))) if hasattr(texts, "__len__") else iter(texts)


class PartsPipeline(Pipeline):
    """Answers texts in parts, in batches of like length, and again where an answer has faults.

    What becomes of a part is up to the pipelines that follow.
    """

    tokenizer: Any
    return_name: str
    max_source_tokens: Any
    encode: Any
    task_params: dict

    def _answer_list(self, texts: list[str], options: dict, *args, **kwargs) -> list[list[dict]]:
        """Return the records of each text; parts of like length share a batch."""
        parts_of_texts = [self._parts(text, **options) for text in texts]
        parts = list(chain.from_iterable(parts_of_texts))
        may_copy = options.get("long_text") == "sentences"
        is_read = [not self._is_blank(part, kwargs) and (not may_copy or has_words(part)) for part in parts]
        read = [i for i, is_one in enumerate(is_read) if is_one]
        generate = self._generate_guarded if options.get("guard") else self._generate
        found = dict(zip(read, generate([parts[i] for i in read], *args, **kwargs)))
        copies = 1 if may_copy else (self._forward_params | kwargs).get("num_return_sequences") or 1
        results = (
            found.get(i) or [self._copied(part, **kwargs) for _ in range(copies)] for i, part in enumerate(parts)
        )
        answers = [self._join(parts, [next(results) for _ in parts]) for parts in parts_of_texts]
        for parts, records in zip(parts_of_texts, answers):
            if may_copy and not any(map(has_words, parts)):  # the model had no part in it
                for record in records:
                    record |= {name: None for name in FIGURES if name in record}
        return answers

    def _answer_stream(self, texts, options: dict, *args, **kwargs) -> Iterator[list[dict]]:
        """Yield the records of each text; a batch of texts is read first, then more, to be sorted by length."""
        items, size, batches = _items(texts), self._texts_a_batch(kwargs), 1
        while chunk := list(islice(items, size * batches)):
            yield from self._answer_list(chunk, options, *args, **kwargs)
            batches = min(2 * batches, STREAM_BATCHES) if size > 1 else 1

    def _generate(self, texts: list[str], *args, **kwargs) -> list[list[dict]]:
        """Return the records of texts that the model is given as they are, in batches of like length."""
        mbr = (self._preprocess_params | kwargs).get("mbr")
        if mbr and kwargs.get("num_beams") != 1:  # a guard's greedy search samples nothing
            kwargs = kwargs | home("decoding.mbr", "mbr=...").SAMPLING | {"num_return_sequences": mbr}
        call = super().__call__

        def answer(batch: list[int]) -> list[list[dict]]:
            return call([texts[i] for i in batch], *args, **kwargs | {"batch_size": len(batch)})

        found: dict[int, list[dict]] = {}
        calls = self.call_count  # a call for each batch would look as if the texts came one by one
        workers = self.count_workers(**kwargs)
        batches = self._batches(texts, self._texts_a_batch(kwargs), workers)
        for batch, records in answer_side_by_side(answer, batches, min(workers, len(batches))):
            found |= zip(batch, records)
            self.call_count = calls + 1
        answers = [found[i] for i in range(len(texts))]
        return [self._agreed(records) for records in answers] if mbr else answers

    def _batches(self, texts: list[str], most: int, workers: int) -> list[list[int]]:
        """Return which texts share a batch; few texts are shared out among the workers."""
        if most > 1:
            most = min(most, math.ceil(len(texts) / workers))
        lengths = count_tokens(self.tokenizer, texts) if len(texts) > 1 else [1] * len(texts)
        return list(token_batches(lengths, most * TOKENS_A_TEXT, most))

    def count_workers(self, **kwargs) -> int:
        """Return how many batches of a call can be computed at a time: 1 where its tokenizer changes between texts."""
        preprocess, forward, _ = self._sanitize_parameters(**kwargs)
        preprocess = self._preprocess_params | preprocess
        cuts = preprocess.get("truncation") or preprocess.get("long_text") == "truncate"
        switches = hasattr(self.tokenizer, "_build_translation_inputs") and not hasattr(self.tokenizer, "languages")
        if cuts or switches or kwargs.get("num_workers") or self._num_workers:
            return 1
        given = {name: value for name, value in (self._forward_params | forward).items() if name not in OF_FORWARD}
        params = ruling_params(given, self.task_params, self.model.generation_config)
        params.pop("generation_config", None)  # what it says is in the others
        return count_workers(self.device, params)

    def _agreed(self, records: list[dict]) -> list[dict]:
        """Return the one of several records that agrees most with the others."""
        choice = home("decoding.mbr", "mbr=...").choose([record[f"{self.return_name}_text"] for record in records])
        return [records[choice.index] | {"utility": choice.utility}]

    def _generate_guarded(self, texts: list[str], *args, **kwargs) -> list[list[dict]]:
        """Do what `_generate` does, and make again what has faults; the best of several sequences counts."""
        guards = home("decoding.guards", "guard=True")
        find_faults = home("decoding.faults", "guard=True").find_faults

        def generate(sources: list[str], **options) -> list:
            if options.get("num_beams") == 1:
                options["num_return_sequences"] = 1  # greedy search finds one
            options = getattr(self.model, "fallback_options", dict)(options)  # a model of an engine
            results = self._generate(sources, *args, **kwargs | options | {"return_finished": True})
            return [guards.Output(records[0][name], records[0]["finished"], records) for records in results]

        name, answers = f"{self.return_name}_text", []
        is_translation = self.return_name == "translation"
        outputs: dict[int, Any] = {}
        for has_prefix in (False, True):  # a text with a beginning is never cut into parts
            chosen = [i for i, text in enumerate(texts) if has_beginning(text) == has_prefix]
            fallbacks = [fallback for fallback in guards.FALLBACKS if not (has_prefix and fallback == "parts")]
            sources = [texts[i] for i in chosen]
            outputs |= zip(chosen, guards.guarded(generate, sources, is_translation, fallbacks) if chosen else [])
        for source, output in ((text, outputs[i]) for i, text in enumerate(texts)):
            records = output.extra or [self._unscored(output.text, **kwargs)]  # put together of parts, or cut
            made = [output.fallback] if output.fallback else []
            added = {"faults": output.faults, "fallbacks": made, "faults_left": output.left}
            answers.append([record | {key: list(value) for key, value in added.items()} for record in records])
            for record in answers[-1][1:]:  # the best one alone was made again, or found to be well
                left = find_faults(source, record[name], record["finished"], is_translation)
                record |= {"faults": record["faults"] if made else left, "faults_left": left}
        if not kwargs.get("return_finished"):
            for record in chain.from_iterable(answers):
                record.pop("finished", None)
        return answers

    def _is_blank(self, part: str, kwargs: dict) -> bool:
        """Tell whether the model has nothing to read, nor a beginning to go on with: the answer is empty, too."""
        has_beginning = getattr(part, "prefix", "")
        return not part.strip() and not has_beginning and not (self._postprocess_params | kwargs).get("return_tensors")

    def _copied(self, text: str, **kwargs) -> dict:
        """Return the record of a part that is copied: the model chose nothing in it, so that its figures add 0."""
        text = LANGUAGE_TAG.sub("", text).strip()
        record = self._unscored(text, **kwargs)
        if "utility" in record:
            record["utility"] = 100.0
        record |= {name: [] if name in LISTS else 0.0 for name in record if name in (*FIGURES, *LISTS)}
        if "alignment" in record:
            words = home("decoding.words", "return_alignments=True").split_words(text)
            links = " ".join(f"{i}-{i}" for i in range(len(words)))
            record |= {"alignment": links, "source_words": words, "target_words": words}
        if (self._preprocess_params | kwargs).get("guard"):
            record |= {"faults": [], "fallbacks": [], "faults_left": []}
        return record

    def _unscored(self, text: str, **kwargs) -> dict:
        """Return a record whose text the model did not generate in one go, None in all that was asked for."""
        options = self._forward_params | self._sanitize_parameters(**kwargs)[1]
        asked = [*FIGURES, *LISTS] if options.get("return_scores") else []
        asked += ["attention", "source_tokens", "target_tokens"] if options.get("return_attention") else []
        asked += ALIGNED if options.get("return_alignments") else []
        asked += ["utility"] if (self._preprocess_params | kwargs).get("mbr") else []
        return {f"{self.return_name}_text": text} | dict.fromkeys(asked)

    @property
    def guard(self) -> bool:
        """Return whether results are looked at and made again, where a call says nothing else."""
        return bool(self._preprocess_params.get("guard"))

    @property
    def mbr(self) -> int | None:
        """Return how many results are sampled to choose from, where a call says nothing else."""
        return self._preprocess_params.get("mbr")

    def _texts_a_batch(self, kwargs: dict) -> int:
        return kwargs.get("batch_size") or self._batch_size or 1

    def _parts(self, text: str, long_text=None, max_source_length=None, **options) -> list[str]:
        """Return what the model is given of a text: the text, or parts of it where it is to be split."""
        check_text(text)
        if long_text not in ("split", "sentences") or has_beginning(text):
            return [text]
        limit = max_source_length or self.max_source_tokens
        if limit is None and long_text == "split":
            return [text]
        languages = {name: options[name] for name in ("src_lang", "tgt_lang") if name in options}
        tag = language_tag(self.tokenizer, text)
        before = f"{tag} " if tag else ""

        def fits(part: str) -> bool:
            if limit is None:
                return True
            return self.encode(before + part, verbose=False, **languages)["input_ids"].shape[1] <= limit

        text_alone = text.lstrip().removeprefix(tag).lstrip() if tag else text
        pieces = split_sentences(text_alone) if long_text == "sentences" else [text_alone]
        parts = chain.from_iterable(split_text(piece, fits) for piece in pieces)
        found = [before + part for part in parts if part.strip()] or [text]
        return [Prefixed(part, "") for part in found] if isinstance(text, Prefixed) else found  # all of a batch are

    def _join(self, parts: list[str], results: list[list[dict]]) -> list[dict]:
        """Join the records of the parts of a text: the i-th best of the text is the i-th best of every part."""
        if len(parts) == 1:
            return results[0]
        count = max(map(len, results))
        results = [records + records[-1:] * (count - len(records)) for records in results]  # a copy has one
        return [join_records(parts, list(records)) for records in zip(*results)]
