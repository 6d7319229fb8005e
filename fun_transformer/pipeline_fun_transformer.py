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

import difflib
import functools
import re
from functools import cached_property
from types import GeneratorType
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, pipelines
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import logging

from .number_types import set_dtype
from .pipeline_batches import PartsPipeline
from .pipeline_options import (
    check_counts,
    check_mbr,
    fill_generate_kwargs,
    home,
    max_length_of,
    position_limit,
    ruling_params,
    sort_options,
    without_none,
)
from .pipeline_records import ALIGNED, findings, inspect_sequences, is_eos_of
from .text_parts import Prefixed, check_text, language_tag, with_prefix

logger = logging.get_logger(__name__)

TRANSLATION_TASK = re.compile(r"translation_([^_]+)_to_([^_]+)")


class Text2TextGenerationPipeline(PartsPipeline):
    """Text in, text out: `[{"generated_text": str}]` for a string and for a list of strings.

    With `num_return_sequences` above 1 a list of strings gives a list of such lists. A generator or a dataset
    (`KeyDataset`) is streamed: one list per text, as soon as it is there. The texts of a list are put into batches
    (`batch_size=...`) by their numbers of tokens, so that little is padded, and answered in the order given. On a CPU
    batches are computed side by side.

    With `long_text="sentences"` or "split" the parts of texts are put into those batches, and their results joined.
    """

    _load_tokenizer: Any = True  # which parts transformers loads
    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    tokenizer: Any
    auto_class, kind = "AutoModelForSeq2SeqLM", "text"
    return_name = "generated"

    def __init__(self, model, tokenizer=None, *args, engine=None, **kwargs):
        dtype = kwargs.get("dtype")
        if engine is not None:
            model = home("engines", f"engine={engine!r}").with_engine(model, tokenizer, engine)
        super().__init__(model, tokenizer, *args, **kwargs)
        if not (self.model.config.is_encoder_decoder and self.model.can_generate()):
            raise ValueError(
                f"{type(self.model).__name__} is not an encoder-decoder that generates text, which the task "
                f'"{self.task}" needs. Load it with AutoModelForSeq2SeqLM, or use the task "text-generation".'
            )
        if self.model.main_input_name != "input_ids":
            raise ValueError(
                f"{type(self.model).__name__} reads {self.model.main_input_name}, not text, which the task "
                f'"{self.task}" needs. Use the task "automatic-speech-recognition" for speech, "image-to-text" for '
                "pictures."
            )
        if self.tokenizer is None:
            raise ValueError(f'The task "{self.task}" needs a tokenizer: pass tokenizer=...')
        # T5 and old BART checkpoints keep a prefix ("summarize: ") and generation parameters for each task.
        tasks = getattr(self.model.config, "task_specific_params", None) or {}
        self.task_params = dict(tasks.get(self.task, {}))
        self.prefix = self.task_params.pop("prefix", None) or getattr(self.model.config, "prefix", None) or ""
        set_dtype(self.model, dtype)  # `pipeline()` says "auto" where it was given none

    def _sanitize_parameters(self, **kwargs):
        check_options = getattr(self.model, "check_pipeline_options", None)  # a model of an engine
        if check_options is not None:
            check_options(kwargs)
        return sort_options(kwargs)

    def __call__(self, inputs, *args, **kwargs):
        """Generate a text for each text.

        Args:
            inputs: A string, a list of strings, a generator of strings or a `torch` dataset of strings.
            args: Handed on to `Pipeline`.
            kwargs: What `pipeline()` takes too, and all that `generate` takes (`num_beams`, `max_new_tokens`, ...):
                batch_size: The most texts, or parts of texts, of a batch; fewer where they are long.
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
            inputs = with_prefix(inputs, prefix)
        if "glossary" in kwargs:  # read once, not for each batch
            kwargs["glossary"] = self._sanitize_parameters(glossary=kwargs["glossary"])[1].get("glossary")
        options = self._preprocess_params | self._sanitize_parameters(**kwargs)[0]
        in_parts = options.get("long_text") in ("split", "sentences") or options.get("guard") or options.get("mbr")
        check_mbr(options | self._forward_params | kwargs)
        if isinstance(inputs, str) and (in_parts or self._is_blank(inputs, kwargs)):
            return self._answer_list([inputs], options, *args, **kwargs)[0]
        if not isinstance(inputs, list):
            is_stream = isinstance(inputs, (GeneratorType, torch.utils.data.Dataset))
            if is_stream and (in_parts or self._texts_a_batch(kwargs) > 1):
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
        check_text(text)
        if long_text is None and max_source_length is not None:
            raise ValueError(f'max_source_length={max_source_length} needs long_text="split", "truncate" or "error".')
        language_tag(self.tokenizer, self.prefix + text)  # refuses two
        limit = max_source_length or self.max_source_tokens
        prefix = text.prefix if isinstance(text, Prefixed) else None
        if long_text in ("split", "sentences"):  # spaces between parts are no part of them
            text = text.strip()
        if protect:
            protected = home("decoding.placeholders", "protect=True").protect(str(text), self.tokenizer)
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
                'choose long_text="split" or "truncate" (--long-text in the commands).'
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
        """Generate `output_ids` (batch, sequences, target_len), and what `inspect_sequences` finds in them."""
        texts = _a_list(model_inputs.pop("source_text", None))
        prefixes = _a_list(model_inputs.pop("target_prefix", None))
        protected = _a_list(model_inputs.pop("protected", None))
        batch, source_len = model_inputs["input_ids"].shape
        own = self.model.generation_config
        generate_kwargs = fill_generate_kwargs(
            without_none(generate_kwargs),
            self.task_params,
            own,
            self.tokenizer.pad_token_id,
            position_limit(self.model),
        )
        params = ruling_params(generate_kwargs, self.task_params, own)
        if params.get("num_beams") == 1 and "generation_config" not in generate_kwargs:
            generate_kwargs.setdefault("length_penalty", 1.0)  # the model's is for beams, as transformers would say
        check_counts(params)
        self.check_lengths(source_len, params)
        if glossary is not None or protected:
            constrain = home("decoding.glossary", "glossary=...").constrain
            terms = [glossary.find(text) for text in texts] if glossary is not None else [[] for _ in range(batch)]
            terms = [[*some, *one.terms] for some, one in zip(terms, protected)] if protected else terms
            generate_kwargs |= constrain(self.tokenizer, terms, params.get("num_beams") or 1)
        if prefixes and any(prefixes):
            forced = home("decoding.prefix", "prefix=...").prefixed(self.tokenizer, prefixes)["logits_processor"]
            generate_kwargs["logits_processor"] = [*(generate_kwargs.get("logits_processor") or []), *forced]
        output_ids = self.model.generate(**model_inputs, **generate_kwargs)  # (batch * sequences, target_len)
        outputs = {"output_ids": output_ids}
        if return_scores or return_attention:
            outputs |= inspect_sequences(self.model, model_inputs, output_ids, params, return_scores, return_attention)
        if return_finished:
            outputs["finished"] = is_eos_of(output_ids[:, 1:], params).any(-1)
        sequences = len(output_ids) // batch
        found = {name: rows.reshape(batch, sequences, *rows.shape[1:]) for name, rows in outputs.items()}
        if return_alignments:
            aligned = self._aligner.align_generated(texts, model_inputs, output_ids)
            found["alignments"] = [aligned[i : i + sequences] for i in range(0, len(aligned), sequences)]
        return found | ({"protected": protected} if protected else {})

    @cached_property
    def _aligner(self):
        return home("decoding.alignment", "return_alignments=True").Aligner(self.model, self.tokenizer)

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
                record |= findings(self.tokenizer, {name: rows[i] for name, rows in model_outputs.items()})
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


class SummarizationPipeline(Text2TextGenerationPipeline):
    """Summarise: `[{"summary_text": str}]`."""

    return_name = "summary"

    def check_lengths(self, source_len: int, params: dict):
        """Warn about a summary that could be longer than its text, and about limits that contradict each other."""
        name, max_length = max_length_of(params)
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
        return preprocess | without_none({"src_lang": src_lang, "tgt_lang": tgt_lang}), forward, postprocess

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
        name, max_length = max_length_of(params)
        if source_len > 0.9 * max_length:
            logger.warning(
                f"Your input_length: {source_len} is bigger than 0.9 * {name}: {max_length}. You might consider "
                f"increasing it, e.g. translator('...', {name}={2 * source_len})"
            )


def _a_list(values) -> list:
    """Return what a batch holds for each text: a list, but for a batch of one."""
    return values if isinstance(values, list) else [] if values is None else [values]


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

# What `register_pipelines` has registered: task -> the class as `config.custom_pipelines` names it.
_REGISTERED: dict[str, str] = {}


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
        custom = vars(config)["custom_pipelines"]
        entries = custom.items() if isinstance(custom, dict) else ()
        code = {task: info.get("impl") if isinstance(info, dict) else None for task, info in entries}
        return {
            task: custom[task]
            for task, name in code.items()
            if isinstance(name, str) and name.split("--")[-1] != _REGISTERED.get(task)
        }

    def __set__(self, config, value):
        vars(config)["custom_pipelines"] = value


def register_pipelines(tasks=TASKS):
    """Make `pipeline("translation")` and its siblings work again; a second call changes nothing.

    Five things of transformers are touched: the list of removed tasks and the tasks that are called something else now
    (both are looked at before the registry; versions before 5.19 have neither), the registry, the registry's aliases,
    and what configs answer for `custom_pipelines`.

    Args:
        tasks: Task -> class and default, as in `TASKS`.
    """
    PreTrainedConfig.custom_pipelines = _CustomPipelines()
    registry = pipelines.PIPELINE_REGISTRY
    for task, (pipeline_class, default) in tasks.items():
        _REGISTERED[task] = f"{pipeline_class.__module__.rpartition('.')[2]}.{pipeline_class.__name__}"
        getattr(pipelines, "REMOVED_TASKS", {}).pop(task, None)
        if registry.supported_tasks.get(task, {}).get("impl") is not pipeline_class:
            auto_class = getattr(transformers, pipeline_class.auto_class)
            registry.register_pipeline(
                task, pipeline_class, pt_model=auto_class, default={"model": default}, type=pipeline_class.kind
            )
            # Without this `pipe.save_pretrained` would write custom code, which asks for trust when it is loaded.
            del pipeline_class._registered_impl
    if not isinstance(registry.task_aliases, _TranslationAliases):
        registry.task_aliases = _TranslationAliases(registry.task_aliases)
    resolve = getattr(pipelines, "_resolve_deprecated_task", None)
    if resolve is not None and not hasattr(resolve, "__wrapped__"):

        @functools.wraps(resolve)
        def resolve_others(task):
            return task if task in _REGISTERED else resolve(task)

        pipelines._resolve_deprecated_task = resolve_others
