"""The pipelines that transformers 5 removed: `translation`, `summarization` and `text2text-generation`.

They work for every encoder-decoder model (Marian, BART, T5, NLLB, ours) and answer as they did in transformers 4.
The file teaches the three steps of every pipeline: text to token ids (`preprocess`), token ids to token ids
(`_forward`, which calls `generate`), token ids to text (`postprocess`).

    >>> import fun_transformer
    >>> from transformers import pipeline
    >>> pipeline("translation", model="Helsinki-NLP/opus-mt-zh-en")("今天吃什么好")
    [{'translation_text': 'What are we going to eat today?'}]
"""

import copy
import re

from transformers import AutoModelForSeq2SeqLM, GenerationConfig, Pipeline, PreTrainedConfig, pipelines
from transformers.utils import logging

logger = logging.get_logger(__name__)

# What neither the call nor the model's own generation config says.
DEFAULT_GENERATION = {"max_new_tokens": 256, "num_beams": 4}
TRANSLATION_TASK = re.compile(r"translation_([^_]+)_to_([^_]+)")


class Text2TextGenerationPipeline(Pipeline):
    """Text in, text out: `[{"generated_text": str}]` for a string and for a list of strings.

    With `num_return_sequences` above 1 a list of strings gives a list of such lists. A generator or a dataset
    (`KeyDataset`) is streamed: one list per text, as soon as it is there. The texts of a list are put into batches
    (`batch_size=...`) by length, so that little is padded, and answered in the order given.
    """

    _load_tokenizer = True
    _load_processor = _load_image_processor = _load_video_processor = _load_feature_extractor = False
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
        return_tensors=None,
        clean_up_tokenization_spaces=None,
        **generate_kwargs,
    ):
        """Sorts keyword arguments by the step they belong to: (preprocess, forward, postprocess)."""
        preprocess = {"truncation": truncation}
        postprocess = {
            "return_tensors": return_tensors,
            "clean_up_tokenization_spaces": clean_up_tokenization_spaces,
        }
        return _without_none(preprocess), generate_kwargs, _without_none(postprocess)

    def __call__(self, inputs, *args, **kwargs):
        """Generates a text for each text.

        Args:
            inputs: a string, a list of strings, a generator of strings or a `torch` dataset of strings.
            kwargs: `batch_size`, `truncation`, `return_tensors`, `clean_up_tokenization_spaces` and all that
                `generate` takes (`num_beams`, `max_new_tokens`, `num_return_sequences`, ...).

        Returns:
            A list of dictionaries with the key `generated_text` (`generated_token_ids` with `return_tensors=True`);
            for a list of strings and several sequences each, a list of such lists.
        """
        if not isinstance(inputs, list):
            return super().__call__(inputs, *args, **kwargs)
        if not inputs:
            return []
        for text in inputs:
            _check_text(text)
        longest_first = sorted(range(len(inputs)), key=lambda i: len(inputs[i]), reverse=True)
        results = super().__call__([inputs[i] for i in longest_first], *args, **kwargs)
        results = [records for _, records in sorted(zip(longest_first, results), key=lambda pair: pair[0])]
        if all(len(records) == 1 for records in results):
            return [records[0] for records in results]
        return results

    def preprocess(self, text, truncation=False):
        """Encodes one text: `input_ids` and `attention_mask`, each (1, source_len)."""
        _check_text(text)
        model_inputs = self.tokenizer(self.prefix + text, truncation=truncation, return_tensors="pt")
        model_inputs.pop("token_type_ids", None)  # BERT-style tokenizers make them, `generate` refuses them
        return model_inputs

    def _forward(self, model_inputs, **generate_kwargs):
        """Generates: `output_ids` (batch, sequences, target_len)."""
        batch, source_len = model_inputs["input_ids"].shape
        generate_kwargs = self._fill_generate_kwargs(_without_none(generate_kwargs))
        self.check_lengths(source_len, self._generation_params(generate_kwargs))
        output_ids = self.model.generate(**model_inputs, **generate_kwargs)  # (batch * sequences, target_len)
        return {"output_ids": output_ids.reshape(batch, -1, output_ids.shape[-1])}  # (batch, sequences, target_len)

    def postprocess(self, model_outputs, return_tensors=False, clean_up_tokenization_spaces=False):
        """Decodes the sequences of one text."""
        if return_tensors:
            return [{f"{self.return_name}_token_ids": ids} for ids in model_outputs["output_ids"][0]]
        texts = self.tokenizer.batch_decode(
            model_outputs["output_ids"][0],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
        )
        return [{f"{self.return_name}_text": text} for text in texts]

    def check_lengths(self, source_len: int, params: dict):
        """Warns about lengths that hardly fit the task; `params` rule the generation."""

    def _fill_generate_kwargs(self, generate_kwargs: dict) -> dict:
        """Adds what the call leaves open, and the model's generation config too: the task's and our defaults."""
        config: GenerationConfig | None = generate_kwargs.get("generation_config")
        given = self._generation_params(generate_kwargs)
        defaults = DEFAULT_GENERATION | {"pad_token_id": self.tokenizer.pad_token_id}
        if "max_length" in given:  # `max_new_tokens` would win over it
            del defaults["max_new_tokens"]
        added = {name: value for name, value in defaults.items() if name not in given}
        if config is None:
            return added | self.task_params | generate_kwargs
        config = copy.deepcopy(config)
        config.update(**added)
        return generate_kwargs | {"generation_config": config}

    def _generation_params(self, generate_kwargs: dict) -> dict:
        """What rules a call: its own parameters, on top of its generation config or the task's, on the model's."""
        config = generate_kwargs.get("generation_config")
        middle = self.task_params if config is None else config.to_diff_dict()
        return self.model.generation_config.to_diff_dict() | middle | generate_kwargs


class SummarizationPipeline(Text2TextGenerationPipeline):
    """Summarises: `[{"summary_text": str}]`."""

    return_name = "summary"

    def check_lengths(self, source_len: int, params: dict):
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


class TranslationPipeline(Text2TextGenerationPipeline):
    """Translates: `[{"translation_text": str}]`.

    Models for many languages (NLLB, M2M100, mBART) need `src_lang=...` and `tgt_lang=...`, at the start or in a
    call; the task name `translation_xx_to_yy` says them too. Other models do not look at them.
    """

    return_name = "translation"

    def _sanitize_parameters(self, src_lang=None, tgt_lang=None, **kwargs):
        preprocess, forward, postprocess = super()._sanitize_parameters(**kwargs)
        return preprocess | _without_none({"src_lang": src_lang, "tgt_lang": tgt_lang}), forward, postprocess

    def preprocess(self, text, truncation=False, src_lang=None, tgt_lang=None):
        if not hasattr(self.tokenizer, "_build_translation_inputs"):
            return super().preprocess(text, truncation=truncation)
        _check_text(text)
        if match := TRANSLATION_TASK.fullmatch(self.task):
            src_lang, tgt_lang = src_lang or match[1], tgt_lang or match[2]
        return self.tokenizer._build_translation_inputs(
            text, return_tensors="pt", truncation=truncation, src_lang=src_lang, tgt_lang=tgt_lang
        )

    def _forward(self, model_inputs, **generate_kwargs):
        # The target language, one id in all rows: a batch holds it once a row.
        forced = model_inputs.pop("forced_bos_token_id", None)
        if forced is not None:
            generate_kwargs["forced_bos_token_id"] = forced[0] if isinstance(forced, list) else forced
        return super()._forward(model_inputs, **generate_kwargs)

    def check_lengths(self, source_len: int, params: dict):
        name, max_length = _max_length(params)
        if source_len > 0.9 * max_length:
            logger.warning(
                f"Your input_length: {source_len} is bigger than 0.9 * {name}: {max_length}. You might consider "
                f"increasing it, e.g. translator('...', {name}={2 * source_len})"
            )


def _without_none(params: dict) -> dict:
    return {name: value for name, value in params.items() if value is not None}


def _check_text(text):
    if not isinstance(text, str):
        raise TypeError(
            f"This pipeline takes a string, a list of strings, a generator or a torch dataset of strings; got "
            f"{type(text).__name__}. Turn other sequences into a list with list(...)."
        )


def _max_length(params: dict) -> tuple[str, int]:
    """The limit that rules, as `generate` decides: `max_new_tokens` before `max_length`."""
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
    config, so that it is saved again; custom pipelines with other code are left alone.
    """

    def __get__(self, config, config_class=None):
        if config is None:
            return self
        if "custom_pipelines" not in vars(config):
            raise AttributeError(f"{type(config).__name__} has no attribute custom_pipelines")
        ours = {task: f"{__name__.rpartition('.')[2]}.{cls.__name__}" for task, (cls, _) in TASKS.items()}
        custom = vars(config)["custom_pipelines"] or {}
        return {task: info for task, info in custom.items() if info.get("impl", "").split("--")[-1] != ours.get(task)}

    def __set__(self, config, value):
        vars(config)["custom_pipelines"] = value


def register_pipelines():
    """Makes `pipeline("translation")` and its two siblings work again; a second call changes nothing.

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
