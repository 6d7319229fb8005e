"""The pipelines that transformers 5 removed: `translation`, `summarization` and `text2text-generation`.

They work for every encoder-decoder model (Marian, BART, T5, NLLB, ours) and answer as they did in transformers 4.
The file teaches the three steps of every pipeline: text to token ids (`preprocess`), token ids to token ids
(`_forward`, which calls `generate`), token ids to text (`postprocess`).

Beyond transformers 4, where asked for: long texts are translated in parts (`long_text`), and a result says how
probable it is (`return_scores`) and what it looked at (`return_attention`). With the package installed: bad results
are made again (`guard`), and words are aligned (`return_alignments`).

    >>> import fun_transformer
    >>> from transformers import pipeline
    >>> pipeline("translation", model="Helsinki-NLP/opus-mt-zh-en")("今天吃什么好")
    [{'translation_text': 'What are we going to eat today?'}]
"""

import copy
import difflib
import inspect
import os
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from importlib import import_module
from itertools import chain, islice
from types import GeneratorType
from typing import Any

import regex
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    Pipeline,
    PreTrainedConfig,
    PreTrainedModel,
    pipelines,
)
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import logging

logger = logging.get_logger(__name__)

# What neither the call nor the model's own generation config says.
DEFAULT_GENERATION = {"max_new_tokens": 256, "num_beams": 4}
LENGTHS = (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens"))  # with and without the start token
TRANSLATION_TASK = re.compile(r"translation_([^_]+)_to_([^_]+)")
LONG_TEXT = ("sentences", "split", "truncate", "error")
MEAN_LENGTH = 256  # characters, the most that the texts of a batch may have on average
# What return_scores adds beside the tokens, and what is a mean over them; what return_alignments adds.
FIGURES = ("log_probability", "mean_log_probability", "min_log_probability", "entropy", "score")
MEANS = ("mean_log_probability", "entropy", "score")
LISTS = ("token_log_probabilities", "target_tokens")
ALIGNED = ("alignment", "source_words", "target_words")
LANGUAGE_TAG = re.compile(r">>[\w-]+<<")  # as Marian and our own models have them: the target language

# Where a long text may be cut, best first: after a paragraph, a sentence, a clause, a word. A dot ends no sentence
# after an abbreviation, an initial or a list's number, nor before a small letter; within 3.14 no space follows it.
ABBREVIATIONS = ("Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Jr", "Sr", "No", "Fig", "Vol", "vs", "e.g", "i.e")
NO_ABBREVIATION = "".join(rf"(?<!\b{re.escape(word)})" for word in ABBREVIATIONS)
NO_INITIAL_OR_NUMBER = r"(?<!\b[A-Z])(?<!\b\d)(?<!\b\d\d)"
ENGLISH_END = rf"(?:{NO_ABBREVIATION}{NO_INITIAL_OR_NUMBER}\.|[!?…])[.!?…]*[\"'”’)\]]*(?=\s)(?!\s+[a-z])"
CUTS = [
    re.compile(r"(?<=\S)\s*?\n\s*"),
    re.compile(rf"(?:[。！？；]+[”’」』）》]*|{ENGLISH_END})\s*"),
    re.compile(r"(?:[，、：]|[,;:](?=\s))\s*"),
    re.compile(r"(?<=\S)\s+"),
]
# What is the same in every language: addresses, code, footnotes, tags. A text of them and of numbers is copied.
# Chinese, Japanese and Korean may follow an address without a space and are no part of it.
NO_ADDRESS = r"\u2010-\u2027\u2E80-\u9FFF\uAC00-\uD7AF\uF900-\uFAFF\uFE30-\uFE4F\uFF00-\uFFEF\U00020000-\U0003FFFF"
IN_ADDRESS = rf"[^\s{NO_ADDRESS}]"
ADDRESS = re.compile(
    rf"(?:(?:https?|ftp|file)://|www\.){IN_ADDRESS}+|(?<!{IN_ADDRESS}){IN_ADDRESS}+@{IN_ADDRESS}+\.[^\W{NO_ADDRESS}]+"
    r"|`[^`]*`|\[\d+\]|<[^<>]*>"
)
LETTER = regex.compile(r"\p{L}")
CHARACTER = regex.compile(r"\X")  # as readers count: a letter with its marks, an emoji with all its signs
SPACELESS = re.compile(r"[\u3000-\u30FF\u3400-\u9FFF\uF900-\uFAFF\uFF00-\uFFEF]")  # hanzi, kana, their punctuation


def language_tag(tokenizer, text: str) -> str:
    """Return the token that a text begins with to name its target language, such as ">>en<<"; "" for none.

    Raises:
        ValueError: There are two of them.
    """
    unknown = (None, tokenizer.unk_token_id)
    tags = [tag for tag in LANGUAGE_TAG.findall(text) if tokenizer.convert_tokens_to_ids(tag) not in unknown]
    if len(tags) > 1:
        raise ValueError(f"A text has one target language, but here are {' and '.join(tags)}. Leave one of them.")
    return tags[0] if tags and text.lstrip().startswith(tags[0]) else ""


class Prefixed(str):
    """A source text with the beginning that its target must have; otherwise a plain string."""

    prefix: str

    def __new__(cls, text: str, prefix: str):
        """Return the text; `prefix` is the beginning of its target."""
        prefixed = super().__new__(cls, text)
        prefixed.prefix = prefix
        return prefixed


def has_beginning(text: str) -> bool:
    """Tell whether the target of a text must have a beginning."""
    return isinstance(text, Prefixed) and bool(text.prefix)


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
            kwargs = kwargs | _home("decoding.mbr", "mbr=...").SAMPLING | {"num_return_sequences": mbr}
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
        choice = _home("decoding.mbr", "mbr=...").choose([record[f"{self.return_name}_text"] for record in records])
        return [records[choice.index] | {"utility": choice.utility}]

    def _generate_guarded(self, texts: list[str], *args, **kwargs) -> list[list[dict]]:
        """Do what `_generate` does, and make again what has faults; the best of several sequences counts."""
        guards = _home("decoding.guards", "guard=True")
        find_faults = _home("decoding.faults", "guard=True").find_faults

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
            words = _home("decoding.words", "return_alignments=True").split_words(text)
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
        _check_text(text)
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


class Text2TextGenerationPipeline(PartsPipeline):
    """Text in, text out: `[{"generated_text": str}]` for a string and for a list of strings.

    With `num_return_sequences` above 1 a list of strings gives a list of such lists. A generator or a dataset
    (`KeyDataset`) is streamed: one list per text, as soon as it is there. The texts of a list are put into batches
    (`batch_size=...`) by length, so that little is padded, and answered in the order given.

    With `long_text="sentences"` or "split" the parts of texts are put into those batches, and their results joined.
    """

    _load_tokenizer: Any = True  # which parts transformers loads
    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    tokenizer: Any
    return_name = "generated"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if not (self.model.config.is_encoder_decoder and self.model.can_generate()):
            raise ValueError(
                f"{type(self.model).__name__} is not an encoder-decoder that generates text, which the task "
                f'"{self.task}" needs. Load it with AutoModelForSeq2SeqLM, or use the task "text-generation".'
            )
        if self.tokenizer is None:
            raise ValueError(f'The task "{self.task}" needs a tokenizer: pass tokenizer=...')
        # T5 and old BART checkpoints keep a prefix ("summarize: ") and generation parameters for each task.
        tasks = getattr(self.model.config, "task_specific_params", None) or {}
        self.task_params = dict(tasks.get(self.task, {}))
        self.prefix = self.task_params.pop("prefix", None) or getattr(self.model.config, "prefix", None) or ""

    def _sanitize_parameters(
        self,
        truncation=None,
        long_text=None,
        max_source_length=None,
        guard=None,
        glossary=None,
        protect=None,
        mbr=None,
        num_beam_groups=None,
        diversity_penalty=None,
        return_scores=None,
        return_attention=None,
        return_alignments=None,
        return_finished=None,
        return_tensors=None,
        clean_up_tokenization_spaces=None,
        **generate_kwargs,
    ):
        """Sort keyword arguments by the step they belong to: (preprocess, forward, postprocess)."""
        if long_text not in (None, *LONG_TEXT):
            raise ValueError(f"long_text={long_text!r} is unknown. Choose one of {', '.join(map(repr, LONG_TEXT))}.")
        _check_counts(generate_kwargs | {"max_source_length": max_source_length})
        if guard and return_tensors:
            raise ValueError("guard=True looks at texts and return_tensors=True returns none. Leave one of them out.")
        preprocess = {"truncation": truncation, "long_text": long_text, "max_source_length": max_source_length}
        is_file = isinstance(glossary, (str, os.PathLike))
        if glossary is not None and (is_file or not hasattr(glossary, "find")):
            terms = _home("decoding.glossary", "glossary=...").Glossary
            glossary = terms.load(glossary) if is_file else terms(glossary)
        keep_text = return_alignments or glossary is not None or None
        preprocess |= {"guard": guard, "mbr": mbr, "protect": protect, "keep_text": keep_text}
        if num_beam_groups:
            search = _home("decoding.diverse", "num_beam_groups=...").DiverseBeamSearch
            penalty = {} if diversity_penalty is None else {"penalty": diversity_penalty}
            generate_kwargs["custom_generate"] = search(num_beam_groups, **penalty)
        elif diversity_penalty is not None:
            raise ValueError(
                f"diversity_penalty={diversity_penalty} is for groups of beams: give num_beam_groups too."
            )
        if num_beam_groups and (glossary is not None or protect):
            raise ValueError("A search in groups of beams forces no terms: leave out num_beam_groups, or the terms.")
        forward = {"return_scores": return_scores, "return_attention": return_attention}
        forward |= {"return_alignments": return_alignments, "return_finished": return_finished, "glossary": glossary}
        postprocess = {
            "return_tensors": return_tensors,
            "clean_up_tokenization_spaces": clean_up_tokenization_spaces,
        }
        return (
            _without_none(preprocess),
            _without_none(forward) | _over({}, generate_kwargs),
            _without_none(postprocess),
        )

    def __call__(self, inputs, *args, **kwargs):
        """Generate a text for each text.

        Args:
            inputs: A string, a list of strings, a generator of strings or a `torch` dataset of strings.
            args: Handed on to `Pipeline`.
            kwargs: What `pipeline()` takes too, and all that `generate` takes (`num_beams`, `max_new_tokens`, ...):
                batch_size: Texts, or parts of texts, generated for at a time.
                long_text: What to do with a text that has more tokens than the model takes (`max_source_tokens`):
                    "split" it at sentence ends, "truncate" it, or raise an "error". By default it is given to the
                    model as it is. With "sentences" each sentence is a part, of short texts too, and a part without
                    words (a number, an address, a rule) is copied.
                max_source_length: The most tokens that a text may have, for `long_text`, instead of that limit.
                truncation: As the tokenizer's.
                guard: Look for loops, copies, and texts that are empty or far too long or short, and make them again
                    in other ways. Adds `faults`, `fallbacks` and `faults_left` (lists of names).
                glossary: Terms that the results must have where the texts have them: a dictionary from source to
                    target ("" leaves a term as it is, "|" parts alternatives), a file of two columns or a `Glossary`.
                protect: Copy addresses, numbers, code and tags letter by letter.
                mbr: Sample this many results and take the one that agrees most with the others; adds `utility`.
                num_beam_groups: Search in groups of beams that keep away from each other's words, by the
                    `diversity_penalty` (0.5).
                prefix: How the result begins: a string, for a list one for each text ("" for none). A text with a
                    beginning is not split.
                return_scores: Add `log_probability`, `mean_log_probability`, `min_log_probability`, `entropy` and
                    `score`, by which beam search ranks; `token_log_probabilities` and `target_tokens` (lists).
                return_alignments: Add `alignment`, which source word each target word translates ("0-0 1-2"), with
                    `source_words` and `target_words`.
                return_attention: Add `attention` (layers, heads, target_len, source_len), the cross-attention, with
                    `source_tokens` and `target_tokens`.
                return_finished: Add `finished`: whether the text has an end, rather than the greatest length.
                return_tensors: `generated_token_ids` instead of `generated_text`.
                clean_up_tokenization_spaces: As the tokenizer's.

        Returns:
            A list of dictionaries with the key `generated_text`; for a list of strings and several sequences each, a
            list of such lists.
        """
        if (prefix := kwargs.pop("prefix", None)) is not None:
            inputs = _with_prefix(inputs, prefix)
        if "glossary" in kwargs:  # read once, not for each batch
            kwargs["glossary"] = self._sanitize_parameters(glossary=kwargs["glossary"])[1].get("glossary")
        options = self._preprocess_params | self._sanitize_parameters(**kwargs)[0]
        in_parts = options.get("long_text") in ("split", "sentences") or options.get("guard") or options.get("mbr")
        _check_mbr(options | self._forward_params | kwargs)
        if isinstance(inputs, str) and in_parts:
            return self._answer_list([inputs], options, *args, **kwargs)[0]
        if not isinstance(inputs, list):
            if in_parts and isinstance(inputs, (GeneratorType, torch.utils.data.Dataset)):
                return self._answer_stream(inputs, options, *args, **kwargs)
            return super().__call__(inputs, *args, **kwargs)
        if not inputs:
            return []
        results = self._answer_list(inputs, options, *args, **kwargs)
        is_one = (self._forward_params | kwargs).get("num_return_sequences") in (None, 1)  # a fallback may find one
        if is_one and all(len(records) == 1 for records in results):
            return [records[0] for records in results]
        return results

    @property
    def max_source_tokens(self) -> int | None:
        """The longest source in tokens: the smaller of the tokenizer's `model_max_length` and the config's positions.

        None when neither says one: T5 has relative positions and any length. Our sinusoids take more than
        `max_position_embeddings` too, but seldom well.
        """
        config = self.model.config
        limits = [getattr(config, f"max_{of}position_embeddings", None) for of in ("", "encoder_")]
        limits.append(self.tokenizer.model_max_length)  # its "no limit" is 1e30
        return min((limit for limit in limits if limit and limit < 10**9), default=None)

    def preprocess(
        self,
        text,
        truncation=False,
        long_text=None,
        max_source_length=None,
        keep_text=False,
        protect=False,
        guard=None,
        mbr=None,
        **languages,
    ):
        """Encode one text: `input_ids` and `attention_mask`, each (1, source_len), and what the later steps need."""
        _check_text(text)
        if long_text is None and max_source_length is not None:
            raise ValueError(f'max_source_length={max_source_length} needs long_text="split", "truncate" or "error".')
        language_tag(self.tokenizer, self.prefix + text)  # refuses two
        limit = max_source_length or self.max_source_tokens
        prefix = text.prefix if isinstance(text, Prefixed) else None
        if long_text in ("split", "sentences"):  # spaces between parts are no part of them
            text = text.strip()
        if protect:
            protected = _home("decoding.placeholders", "protect=True").protect(str(text), self.tokenizer)
            text = protected.text
        cut = long_text == "truncate" and limit is not None
        options = {"truncation": True, "max_length": limit} if cut else {"truncation": truncation}
        model_inputs = self.encode(text, **options, **languages)
        if keep_text:
            model_inputs["source_text"] = str(text)
        if protect:
            model_inputs["protected"] = protected
        if prefix is not None:
            model_inputs["target_prefix"] = prefix
        source_len = model_inputs["input_ids"].shape[1]
        if long_text == "error" and limit is not None and source_len > limit:
            raise ValueError(
                f"A text of {source_len} tokens is longer than the {limit} that the model takes. Shorten it, or "
                'choose long_text="split" or "truncate".'
            )
        return model_inputs

    def encode(self, text, **kwargs):
        """Turn a text into ids, with the prefix of the task."""
        model_inputs = self.tokenizer(self.prefix + text, return_tensors="pt", **kwargs)
        model_inputs.pop("token_type_ids", None)  # BERT-style tokenizers make them, `generate` refuses them
        return model_inputs

    def _forward(
        self,
        model_inputs,
        return_scores=False,
        return_attention=False,
        return_alignments=False,
        return_finished=False,
        glossary=None,
        **generate_kwargs,
    ):
        """Generate `output_ids` (batch, sequences, target_len), and what `_inspect` finds in them."""
        texts = _a_list(model_inputs.pop("source_text", None))
        prefixes = _a_list(model_inputs.pop("target_prefix", None))
        protected = _a_list(model_inputs.pop("protected", None))
        batch, source_len = model_inputs["input_ids"].shape
        generate_kwargs = self._fill_generate_kwargs(_without_none(generate_kwargs))
        params = self._generation_params(generate_kwargs)
        _check_counts(params)
        self.check_lengths(source_len, params)
        if glossary is not None or protected:
            constrain = _home("decoding.glossary", "glossary=...").constrain
            terms = [glossary.find(text) for text in texts] if glossary is not None else [[] for _ in range(batch)]
            terms = [[*some, *one.terms] for some, one in zip(terms, protected)] if protected else terms
            generate_kwargs |= constrain(self.tokenizer, terms, params.get("num_beams") or 1)
        if prefixes and any(prefixes):
            forced = _home("decoding.prefix", "prefix=...").prefixed(self.tokenizer, prefixes)["logits_processor"]
            generate_kwargs["logits_processor"] = [*(generate_kwargs.get("logits_processor") or []), *forced]
        output_ids = self.model.generate(**model_inputs, **generate_kwargs)  # (batch * sequences, target_len)
        outputs = {"output_ids": output_ids}
        if return_scores or return_attention:
            outputs |= _inspect(self.model, model_inputs, output_ids, params, return_scores, return_attention)
        if return_finished:
            outputs["finished"] = _is_eos(output_ids[:, 1:], params).any(-1)
        sequences = len(output_ids) // batch
        found = {name: rows.reshape(batch, sequences, *rows.shape[1:]) for name, rows in outputs.items()}
        if return_alignments:
            aligned = self._aligner.align_generated(texts, model_inputs, output_ids)
            found["alignments"] = [aligned[i : i + sequences] for i in range(0, len(aligned), sequences)]
        return found | ({"protected": protected} if protected else {})

    @cached_property
    def _aligner(self):
        return _home("decoding.alignment", "return_alignments=True").Aligner(self.model, self.tokenizer)

    def postprocess(self, model_outputs, return_tensors=False, clean_up_tokenization_spaces=False):
        """Decode the sequences of one text."""
        protected = _a_list(model_outputs.pop("protected", None))
        alignments = model_outputs.pop("alignments", [])
        alignments = alignments[0] if alignments and isinstance(alignments[0], list) else alignments  # a batch of one
        model_outputs = {name: rows[0] for name, rows in model_outputs.items()}
        output_ids = model_outputs["output_ids"]  # (sequences, target_len)
        if return_tensors:
            records = [{f"{self.return_name}_token_ids": ids} for ids in output_ids]
        else:
            texts = self.tokenizer.batch_decode(
                output_ids,
                skip_special_tokens=True,
                clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            )
            records = [{f"{self.return_name}_text": text} for text in texts]
        if "is_target" in model_outputs:
            for i, record in enumerate(records):
                record |= _findings(self.tokenizer, {name: rows[i] for name, rows in model_outputs.items()})
        for record, finished in zip(records, model_outputs.get("finished", [])):
            record["finished"] = bool(finished)
        for record, alignment in zip(records, alignments):
            record |= zip(ALIGNED, (str(alignment), alignment.source_words, alignment.target_words))
        for name in [f"{self.return_name}_text", *ALIGNED[1:]] if protected else []:
            for record in (record for record in records if name in record):
                restore, value = protected[0].restore, record[name]
                record[name] = restore(value) if isinstance(value, str) else list(map(restore, value))
        return records

    def save_pretrained(self, save_directory, **kwargs):
        """Save model and tokenizer, and this file where the config names it, for those without the package."""
        super().save_pretrained(save_directory, **kwargs)
        if "custom_pipelines" in vars(self.model.config):
            custom_object_save(self, save_directory)

    def check_lengths(self, source_len: int, params: dict):
        """Warn about lengths that hardly fit the task; `params` rule the generation."""

    def _fill_generate_kwargs(self, generate_kwargs: dict) -> dict:
        """Add what neither the call nor the model's generation config says: the task's and our defaults."""
        config: GenerationConfig | None = generate_kwargs.get("generation_config")
        given = self._generation_params(generate_kwargs)
        defaults = DEFAULT_GENERATION | {"pad_token_id": self.tokenizer.pad_token_id}
        defaults["num_beams"] = max(defaults["num_beams"], given.get("num_return_sequences") or 1)
        if "max_length" in given:  # `max_new_tokens` would win over it
            del defaults["max_new_tokens"]
        added = {name: value for name, value in defaults.items() if name not in given}
        if config is None:
            wanted, own = _over(_over({}, self.task_params), generate_kwargs), self.model.generation_config
            is_free = "num_beams" not in generate_kwargs and not given.get("do_sample")
            sequences = given.get("num_return_sequences") or 1
            if is_free and sequences > (given.get("num_beams") or sequences):  # the model's own beams are too few
                wanted["num_beams"] = sequences
            needed = {name for name, value in wanted.items() if value is not None or getattr(own, name) is not None}
            return added | {name: wanted[name] for name in needed}
        config = copy.deepcopy(config)
        config.update(**added)
        for length, new_tokens in LENGTHS:  # `generate` takes what is None here from the model
            if getattr(config, length) is not None and getattr(config, new_tokens) is None:
                setattr(config, new_tokens, max(getattr(config, length) - 1, 0))  # the start token counts in lengths
        return generate_kwargs | {"generation_config": config}

    def _generation_params(self, generate_kwargs: dict) -> dict:
        """Return what rules a call: its own parameters, over its generation config or the task's, over the model's."""
        config = generate_kwargs.get("generation_config")
        middle = self.task_params if config is None else config.to_diff_dict()
        return _over(_over(self.model.generation_config.to_diff_dict(), middle), generate_kwargs)


class SummarizationPipeline(Text2TextGenerationPipeline):
    """Summarise: `[{"summary_text": str}]`."""

    return_name = "summary"

    def check_lengths(self, source_len: int, params: dict):
        """Warn about a summary that could be longer than its text, and about limits that contradict each other."""
        name, max_length = _max_length(params)
        min_length = params.get("min_new_tokens") or params.get("min_length") or 0
        if max_length < min_length:
            logger.warning(f"Your min_length={min_length} must be less than your {name}={max_length}.")
        if source_len < max_length:
            logger.warning(
                f"Your {name} is set to {max_length}, but your input_length is only {source_len}. A summary is "
                f"usually shorter than its text: you might consider decreasing it, "
                f"e.g. summarizer('...', {name}={source_len // 2})"
            )


def takes_languages(model: PreTrainedModel, tokenizer, task: str) -> bool:
    """Tell whether `src_lang` and `tgt_lang` mean something: to a model of many languages, or to T5 for this task."""
    if TRANSLATION_TASK.fullmatch(task) and task in (getattr(model.config, "task_specific_params", None) or {}):
        return True
    return hasattr(tokenizer, "_build_translation_inputs") and bool(getattr(tokenizer, "languages", True))


def check_language(tokenizer, language: str, name: str) -> None:
    """Refuse a language that a tokenizer of many languages does not know: it would be taken for an unknown word.

    Args:
        tokenizer: Of NLLB, M2M100, mBART or their like. Our own looks at languages itself.
        language: The tokenizer's name for it.
        name: The argument, `src_lang` or `tgt_lang`.
    """
    if hasattr(tokenizer, "languages"):
        return
    tables = [getattr(tokenizer, table, None) for table in ("lang_code_to_token", "lang_code_to_id")]
    known = list(tables[0] or tables[1] or tokenizer.get_added_vocab())
    if language in known or f"__{language}__" in known:
        return
    known = sorted(code for code in known if not code.startswith("<"))
    near = difflib.get_close_matches(language, known, n=1, cutoff=0.4)
    near = near or [code for code in known if code.startswith(language[:2].lower())][:1]
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"{name}={language} is no language of this model's tokenizer, which knows {len(known):,}, such as "
        f"{', '.join(known[:3])}.{hint}"
    )


class TranslationPipeline(Text2TextGenerationPipeline):
    """Translate: `[{"translation_text": str}]`.

    Models for many languages (NLLB, M2M100, mBART) need `src_lang=...` and `tgt_lang=...`, at the start or in a
    call; the task name `translation_xx_to_yy` says them too, and so may the tokenizer's folder. Other models do not
    look at them.
    """

    return_name = "translation"

    def _sanitize_parameters(self, src_lang=None, tgt_lang=None, **kwargs):
        if (src_lang or tgt_lang) and not takes_languages(self.model, self.tokenizer, self.task):
            logger.warning_once("This model looks at neither src_lang nor tgt_lang: it has one language on each side.")
        preprocess, forward, postprocess = super()._sanitize_parameters(**kwargs)
        return preprocess | _without_none({"src_lang": src_lang, "tgt_lang": tgt_lang}), forward, postprocess

    def encode(self, text, src_lang=None, tgt_lang=None, **kwargs):
        """Turn a text into ids, with the languages where the tokenizer asks for them."""
        if not hasattr(self.tokenizer, "_build_translation_inputs"):
            return super().encode(text, **kwargs)
        if match := TRANSLATION_TASK.fullmatch(self.task):
            src_lang, tgt_lang = src_lang or match[1], tgt_lang or match[2]
        src_lang, tgt_lang = self.check_languages(src_lang, tgt_lang)
        return self.tokenizer._build_translation_inputs(
            self.prefix + text, return_tensors="pt", src_lang=src_lang, tgt_lang=tgt_lang, **kwargs
        )

    def check_languages(self, src_lang: str | None, tgt_lang: str | None) -> tuple[str | None, str | None]:
        """Return the languages of a text, which the tokenizer knows: where none is named, those it was saved with."""
        if hasattr(self.tokenizer, "languages"):  # our own: it looks at them itself
            return src_lang, tgt_lang
        pair = (src_lang, tgt_lang)
        if pair == (None, None):
            saved = self.tokenizer.init_kwargs
            pair = (saved.get("src_lang"), saved.get("tgt_lang"))
        checked = vars(self).setdefault("_languages", set())
        for name, language in zip(("src_lang", "tgt_lang"), pair):
            if language is None:
                raise ValueError(
                    f"{name} is missing: this model knows many languages. Give both, such as src_lang=CODE and "
                    "tgt_lang=CODE (on the command line --src-lang CODE --tgt-lang CODE)."
                )
            if language not in checked:
                check_language(self.tokenizer, language, name)
                checked.add(language)
        return pair

    def _forward(self, model_inputs, **generate_kwargs):
        # The target language, one id in all rows: a batch holds it once a row.
        forced = model_inputs.pop("forced_bos_token_id", None)
        if forced is not None:
            generate_kwargs["forced_bos_token_id"] = forced[0] if isinstance(forced, list) else forced
        return super()._forward(model_inputs, **generate_kwargs)

    def check_lengths(self, source_len: int, params: dict):
        """Warn about a text that is nearly as long as its translation may be."""
        name, max_length = _max_length(params)
        if source_len > 0.9 * max_length:
            logger.warning(
                f"Your input_length: {source_len} is bigger than 0.9 * {name}: {max_length}. You might consider "
                f"increasing it, e.g. translator('...', {name}={2 * source_len})"
            )


def _without_none(params: dict) -> dict:
    return {name: value for name, value in params.items() if value is not None}


def _over(lower: dict, upper: dict) -> dict:
    """Return the parameters of both, where those of `upper` win.

    `generate` would take a number of new tokens before a length, no matter who gave it: a length that is given alone
    unsets the number of new tokens below it.
    """
    unset = {tokens: None for length, tokens in LENGTHS if upper.get(length) and upper.get(tokens) is None}
    return lower | upper | unset


def _check_counts(params: dict):
    """Refuse a search that could find nothing.

    Raises:
        ValueError: A number is below 1.
    """
    for name in ("num_beams", "num_return_sequences", "max_new_tokens", "max_length", "max_source_length"):
        value = params.get(name)
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} leaves nothing to find. Give 1 or more.")


def _check_mbr(params: dict):
    """Refuse what does not go together with samples of which one is taken.

    Raises:
        ValueError: Terms are forced, or several sequences are asked for.
    """
    if not params.get("mbr"):
        return
    if params.get("glossary") is not None or params.get("protect"):
        raise ValueError(
            f"mbr={params['mbr']} samples, which forces no terms: leave out mbr, or glossary and protect."
        )
    if (params.get("num_return_sequences") or 1) > 1:
        raise ValueError(
            f"mbr={params['mbr']} takes one of its samples, but num_return_sequences={params['num_return_sequences']} "
            "asks for more: leave one of them out."
        )


def _check_text(text):
    if not isinstance(text, str):
        raise TypeError(
            f"This pipeline takes a string, a list of strings, a generator or a torch dataset of strings; got "
            f"{type(text).__name__}. Turn other sequences into a list with list(...)."
        )


def _a_list(values) -> list:
    """Return what a batch holds for each text: a list, but for a batch of one."""
    return values if isinstance(values, list) else [] if values is None else [values]


def _with_prefix(inputs, prefix: str | list[str]):
    """Return texts with the beginnings of their targets.

    Raises:
        TypeError: They are no string and string, or list and list.
        ValueError: There are not as many of both.
    """
    if isinstance(inputs, str) and isinstance(prefix, str):
        return Prefixed(inputs, prefix)
    if not (isinstance(inputs, list) and isinstance(prefix, list)):
        raise TypeError(
            f"prefix={type(prefix).__name__} does not fit texts that are a {type(inputs).__name__}. Give a string for "
            "a string, and for a list of texts a list of strings."
        )
    if len(inputs) != len(prefix):
        raise ValueError(f"{len(prefix)} prefixes for {len(inputs)} texts: give one for each, '' for none.")
    return [Prefixed(text, beginning) for text, beginning in zip(inputs, prefix)]


def _items(texts) -> Iterator:
    """Return the items of an iterator or of a dataset, which knows only its length and `[i]`."""
    return (texts[i] for i in range(len(texts))) if hasattr(texts, "__len__") else iter(texts)


def _inspect(
    model, model_inputs, output_ids, params: dict, return_scores: bool, return_attention: bool
) -> dict[str, torch.Tensor]:
    """Read generated sequences once more, all tokens at a time, to find out how the model came to them.

    Args:
        model: The model that generated them.
        model_inputs: `input_ids` and `attention_mask`, each (batch, source_len).
        output_ids: (batch * sequences, 1 + target_len), beginning with the decoder's start token.
        params: Of the generation.
        return_scores: Find `log_probs`.
        return_attention: Find `weights`.

    Returns:
        `is_source` (batch * sequences, source_len) and `is_target` (batch * sequences, target_len), false for
        padding; `source_ids`; `log_probs` (batch * sequences, target_len), log p(token | tokens before, source) of
        the model itself, whatever the search made of it; `weights` (batch * sequences, layers, heads, target_len,
        source_len).
    """
    batch, _ = model_inputs["input_ids"].shape
    inputs = {name: rows.repeat_interleave(len(output_ids) // batch, dim=0) for name, rows in model_inputs.items()}
    target_ids = output_ids[:, 1:]  # (batch * sequences, target_len)
    is_eos = _is_eos(target_ids, params)
    found = {
        "source_ids": inputs["input_ids"],
        "is_source": inputs["attention_mask"].bool(),
        "is_target": is_eos.cumsum(-1) - is_eos.long() == 0,  # up to the first </s>
    }
    reader = reading_copy(model, "eager") if return_attention else model  # eager attention alone returns weights
    outputs = reader(
        **inputs, decoder_input_ids=output_ids[:, :-1], output_attentions=return_attention, use_cache=False
    )
    if return_scores:
        found |= _figures(outputs.logits, target_ids, found["is_target"], params)
    if return_attention:
        if not outputs.cross_attentions:
            raise ValueError(f"{type(model).__name__} returned no cross-attention weights.")
        found["weights"] = torch.stack(tuple(outputs.cross_attentions), dim=1)
    return found


def _findings(tokenizer, row: dict[str, torch.Tensor]) -> dict:
    """Return what `_inspect` found in one sequence, without padding."""
    is_target, is_source = row["is_target"], row["is_source"]
    # Our tokenizers may have a vocabulary of its own for the target.
    to_tokens = getattr(tokenizer, "convert_target_ids_to_tokens", tokenizer.convert_ids_to_tokens)
    found = {"target_tokens": to_tokens(row["output_ids"][1:][is_target].tolist())}
    if "log_probs" in row:
        log_probs = row["log_probs"][is_target].tolist()
        found |= {name: row[name].item() for name in FIGURES}
        found |= {"log_probability": sum(log_probs), "token_log_probabilities": log_probs}
    if "weights" in row:
        found["source_tokens"] = tokenizer.convert_ids_to_tokens(row["source_ids"][is_source].tolist())
        found["attention"] = row["weights"][:, :, is_target][..., is_source]  # (layers, heads, target, source)
    return found


def _figures(logits, target_ids, is_target, params: dict) -> dict[str, torch.Tensor]:
    """Return how probable target tokens are: `log_probs` (sequences, target_len), and `FIGURES` (sequences).

    Tokens that the model did not choose have log p = 0 and no part in the means. These are a forced first token, the
    target language, and a `</s>` that is forced at the greatest length.

    Args:
        logits: (sequences, target_len, vocab_size).
        target_ids: (sequences, target_len).
        is_target: False for padding, (sequences, target_len).
        params: Of the generation.
    """
    all_log_probs = logits.float().log_softmax(-1)  # (sequences, target_len, vocab_size)
    name, max_length = _max_length(params)
    is_chosen = is_target.clone()  # (sequences, target_len)
    if params.get("forced_bos_token_id") is not None:
        is_chosen[:, 0] = False
    longest = max_length if name == "max_new_tokens" else max_length - 1  # `max_length` counts the start token
    if params.get("forced_eos_token_id") is not None and target_ids.shape[1] == longest:
        is_chosen[:, -1] = False
    log_probs = all_log_probs.gather(-1, target_ids[..., None])[..., 0] * is_chosen  # (sequences, target_len)
    entropies = torch.special.entr(all_log_probs.exp()).sum(-1) * is_chosen  # (sequences, target_len)
    total, count = log_probs.sum(-1), is_chosen.sum(-1).clamp_min(1)
    return {
        "log_probs": log_probs,
        "log_probability": total,
        "mean_log_probability": total / count,
        "min_log_probability": log_probs.min(-1).values,
        "entropy": entropies.sum(-1) / count,
        "score": total / is_target.sum(-1) ** params.get("length_penalty", 1.0),
    }


def _is_eos(target_ids: torch.Tensor, params: dict) -> torch.Tensor:
    eos = params.get("eos_token_id")
    return torch.isin(target_ids, torch.tensor([] if eos is None else eos, device=target_ids.device).long())


def _home(module: str, needed_by: str):
    """Return a module of the package, which does not travel with a model.

    Raises:
        ImportError: The package is not installed.
    """
    try:
        return import_module(f"fun_transformer.{module}")
    except ModuleNotFoundError as error:
        raise ImportError(f"{needed_by} needs the package: pip install fun-transformer") from error


def reading_copy(model: PreTrainedModel, attn_implementation: str | None = None) -> PreTrainedModel:
    """Return a model with the same weights in eval mode, and with another attention kernel where one is named.

    Only modules and configs are copied, so that other threads may go on using the model as it is.
    """
    weights = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    model = copy.deepcopy(model, weights)  # what is in this memo is not copied
    for part in model.modules():
        forward = inspect.unwrap(vars(part).get("forward", part.forward), stop=inspect.ismethod)
        if getattr(forward, "__self__", part) is not part:  # compiled: still that of the model that was copied
            del part.forward
        # One by one: before transformers 5.20 the model does not tell stacks with a config of their own, as T5's.
        if attn_implementation is not None and isinstance(part, PreTrainedModel):
            part.set_attn_implementation(attn_implementation)
    return model.eval()


def split_text(text: str, fits: Callable[[str], bool], level: int = 0) -> list[str]:
    """Cut a text into parts that fit, at the best places there are, and as few as follow from that.

    No cut parts what a reader takes for one character, such as a letter and its accent, or an emoji of several signs.

    Args:
        text: With all that is in it: the parts put together are the text again.
        fits: Whether the model takes a part.
        level: The first of `CUTS` to try; after the last one, a text is cut in the middle.

    Returns:
        The parts. Paragraphs are never put together, sentences and what is smaller are, as far as they fit.

    Raises:
        ValueError: Not even one character fits.
    """
    if fits(text):
        return [text]
    characters = [match.end() for match in CHARACTER.finditer(text)]  # where they end
    if len(characters) < 2:
        raise ValueError(f"Not even the text {text!r} fits into the model. Choose a larger max_source_length.")
    if level < len(CUTS):
        whole = set(characters)
        ends = [match.end() for match in CUTS[level].finditer(text) if match.end() in whole]
    else:
        ends = [characters[len(characters) // 2 - 1]]
    parts: list[str] = []
    for start, end in zip([0, *ends], [*ends, len(text)]):
        piece = text[start:end]
        if parts and 0 < level < len(CUTS) and fits(parts[-1] + piece):
            parts[-1] += piece
        elif piece:
            parts += split_text(piece, fits, min(level + 1, len(CUTS)))
    return parts


def split_sentences(text: str) -> list[str]:
    """Cut a text after each line break and each sentence; the parts put together are the text again."""
    ends = sorted({match.end() for cut in CUTS[:2] for match in cut.finditer(text)} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends)]


def has_words(text: str) -> bool:
    """Tell whether a text has words to translate, beside its target language, addresses, code and tags."""
    return LETTER.search(ADDRESS.sub(" ", LANGUAGE_TAG.sub(" ", text))) is not None


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


def join_records(parts: list[str], records: list[dict]) -> dict:
    """Join the records of the parts of a text into one.

    Texts are joined by the line breaks or spaces that were between the parts, else by a space, but without one next
    to Chinese and Japanese. Log-probabilities add up, means are those over all tokens; attention becomes a matrix with
    a block for each part, 0 outside them. What one part does not have (None), the whole has not.
    """
    joined = dict(records[0])
    for part, record in zip(parts, records[1:]):
        joined = {name: _join_field(name, joined, record, part) for name in joined}
    return joined


def _join_field(name: str, left: dict, right: dict, part: str) -> Any:
    """Join one field of two records; `part` is what the left one was made of."""
    first, second = left[name], right.get(name)
    if first is None or second is None:
        return None
    if name.endswith("_text"):
        return _join_texts(first, second, part)
    if name == "attention":
        return _block_diagonal(first, second)
    if name.endswith("_token_ids"):
        return torch.cat([first, second])
    if name == "alignment":
        return " ".join(filter(None, [first, _moved(second, len(left["source_words"]), len(left["target_words"]))]))
    if name in ("faults", "fallbacks", "faults_left"):
        return [*first, *(fault for fault in second if fault not in first)]
    if name == "finished":
        return first and second
    if name in ("min_log_probability", "utility"):
        return min(first, second)
    if name in MEANS:
        counts = len(left["target_tokens"]), len(right["target_tokens"])
        return (first * counts[0] + second * counts[1]) / max(sum(counts), 1)
    return first + second


def _moved(alignment: str, source: int, target: int) -> str:
    """Return an alignment of words that have this many others before them."""
    links = [link.split("-") for link in alignment.split()]
    return " ".join(f"{int(i) + source}-{int(j) + target}" for i, j in links)


def _join_texts(left: str, right: str, source: str) -> str:
    """Join two translations; `source` is what the left one was made of."""
    gap = source[len(source.rstrip()) :]
    if "\n" not in gap:
        gap = gap or " "
        if not left or not right or SPACELESS.match(left[-1]) or SPACELESS.match(right[0]):
            gap = ""
    return left + gap + right


def _block_diagonal(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Join two maps (layers, heads, target_len, source_len) into one, whose lengths are the sums of theirs."""
    target_len, source_len = first.shape[-2:]
    right, below = second.shape[-1], second.shape[-2]
    return torch.nn.functional.pad(first, (0, right, 0, below)) + torch.nn.functional.pad(
        second, (source_len, 0, target_len, 0)
    )


def _max_length(params: dict) -> tuple[str, int]:
    """Return the limit that rules, as `generate` decides: `max_new_tokens` before `max_length`."""
    name = "max_length" if params.get("max_new_tokens") is None else "max_new_tokens"
    return name, params[name]


class _TranslationAliases(dict):
    """The registry's task aliases, in which every `translation_xx_to_yy` means `translation`."""

    def __contains__(self, task):
        return super().__contains__(task) or TRANSLATION_TASK.fullmatch(task) is not None

    def __missing__(self, task):
        if task in self:
            return "translation"
        raise KeyError(task)


# The class of each task, and the checkpoint (with its revision) that transformers 4 took when none was named.
TASKS = {
    "translation": (TranslationPipeline, ("google-t5/t5-base", "a9723ea")),
    "summarization": (SummarizationPipeline, ("sshleifer/distilbart-cnn-12-6", "a4f8f3e")),
    "text2text-generation": (Text2TextGenerationPipeline, ("google-t5/t5-base", "a9723ea")),
}


class _CustomPipelines:
    """`config.custom_pipelines` as `pipeline()` sees it: without the tasks that the registry serves with this file.

    A model on the Hub names this file in `custom_pipelines`, for those who do not have the package. `pipeline()` looks
    there before it looks at the registry and would ask for trust_remote_code=True. The value itself stays in the
    config, so that it is saved again; custom pipelines with other code are left alone. What names no code, in a config
    that is damaged, is not shown either.
    """

    def __get__(self, config, config_class=None):
        if config is None:
            return self
        if "custom_pipelines" not in vars(config):
            raise AttributeError(f"{type(config).__name__} has no attribute custom_pipelines")
        ours = {task: f"{__name__.rpartition('.')[2]}.{cls.__name__}" for task, (cls, _) in TASKS.items()}
        custom = vars(config)["custom_pipelines"]
        entries = custom.items() if isinstance(custom, dict) else ()
        code = {task: info.get("impl") if isinstance(info, dict) else None for task, info in entries}
        return {
            task: custom[task]
            for task, name in code.items()
            if isinstance(name, str) and name.split("--")[-1] != ours.get(task)
        }

    def __set__(self, config, value):
        vars(config)["custom_pipelines"] = value


def register_pipelines():
    """Make `pipeline("translation")` and its two siblings work again; a second call changes nothing.

    Four things of transformers are touched: the list of removed tasks (it is looked at before the registry; versions
    before 5.19 have none), the registry, the registry's aliases, and what configs answer for `custom_pipelines`.
    """
    PreTrainedConfig.custom_pipelines = _CustomPipelines()
    registry = pipelines.PIPELINE_REGISTRY
    for task, (pipeline_class, default) in TASKS.items():
        getattr(pipelines, "REMOVED_TASKS", {}).pop(task, None)
        if registry.supported_tasks.get(task, {}).get("impl") is not pipeline_class:
            registry.register_pipeline(
                task, pipeline_class, pt_model=AutoModelForSeq2SeqLM, default={"model": default}, type="text"
            )
            # Without this `pipe.save_pretrained` would write custom code, which asks for trust when it is loaded.
            del pipeline_class._registered_impl
    if not isinstance(registry.task_aliases, _TranslationAliases):
        registry.task_aliases = _TranslationAliases(registry.task_aliases)
