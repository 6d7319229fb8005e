"""Texts become batches of parts of like length, and their results become answers in the order of the texts."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from transformers import Pipeline

from .pipeline_options import home
from .pipeline_records import ALIGNED, FIGURES, LISTS, join_records
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

MEAN_LENGTH = 256  # characters, the most that the texts of a batch may have on average


def like_lengths(order: list[int], lengths: list[int], batch_size: int) -> Iterator[list[int]]:
    """Cut a list of texts into batches without much padding and of limited size.

    One long text must not make its whole batch long: none is more than about twice as long as another.

    Args:
        order: Which text, longest first.
        lengths: Of the texts.
        batch_size: The most texts of a batch; fewer where they are long on average.
    """
    batch: list[int] = []
    for i in order:
        if batch:
            longest = lengths[batch[0]]
            is_shorter = 2 * lengths[i] + MEAN_LENGTH // 8 < longest
            if is_shorter or len(batch) == batch_size or longest * len(batch) >= batch_size * MEAN_LENGTH:
                yield batch
                batch = []
        batch.append(i)
    if batch:
        yield batch


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

    def _answer_list(self, texts: list[str], options: dict, *args, **kwargs) -> list[list[dict]]:
        """Return the records of each text; parts of like length share a batch."""
        parts_of_texts = [self._parts(text, **options) for text in texts]
        parts = list(chain.from_iterable(parts_of_texts))
        may_copy = options.get("long_text") == "sentences"
        read = [i for i, part in enumerate(parts) if not may_copy or has_words(part)]
        generate = self._generate_guarded if options.get("guard") else self._generate
        found = dict(zip(read, generate([parts[i] for i in read], *args, **kwargs)))
        results = (found.get(i) or [self._copied(part, **kwargs)] for i, part in enumerate(parts))
        answers = [self._join(parts, [next(results) for _ in parts]) for parts in parts_of_texts]
        for parts, records in zip(parts_of_texts, answers):
            if may_copy and not any(map(has_words, parts)):  # the model had no part in it
                for record in records:
                    record |= {name: None for name in FIGURES if name in record}
        return answers

    def _answer_stream(self, texts, options: dict, *args, **kwargs) -> Iterator[list[dict]]:
        """Yield the records of each text; as many texts are read at a time as share a batch."""
        items = _items(texts)
        while chunk := list(islice(items, self._texts_a_batch(kwargs))):
            yield from self._answer_list(chunk, options, *args, **kwargs)

    def _generate(self, texts: list[str], *args, **kwargs) -> list[list[dict]]:
        """Return the records of texts that the model is given as they are, in batches of like length."""
        mbr = (self._preprocess_params | kwargs).get("mbr")
        if mbr and kwargs.get("num_beams") != 1:  # a guard's greedy search samples nothing
            kwargs = kwargs | home("decoding.mbr", "mbr=...").SAMPLING | {"num_return_sequences": mbr}
        longest_first = sorted(range(len(texts)), key=lambda i: len(texts[i]), reverse=True)
        found: dict[int, list[dict]] = {}
        calls = self.call_count  # a call for each batch would look as if the texts came one by one
        for batch in like_lengths(longest_first, [len(text) for text in texts], self._texts_a_batch(kwargs)):
            kwargs["batch_size"] = len(batch)
            found |= zip(batch, super().__call__([texts[i] for i in batch], *args, **kwargs))
            self.call_count = calls + 1
        answers = [found[i] for i in range(len(texts))]
        return [self._agreed(records) for records in answers] if mbr else answers

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
