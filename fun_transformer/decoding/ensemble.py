"""Several models of one vocabulary as one: the mean of their probabilities decides each token.

An ensemble is better than its members and as slow as all of them together; what it writes can teach a single model
(`fun-transformer distill`; Kim and Rush 2016, arXiv:1606.07947).

    >>> ensemble = Ensemble([first, second])
    >>> pipeline("translation", model=ensemble, tokenizer=tokenizer)("今天吃什么好")
"""

import copy
import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from ..pipeline_options import position_limit
from .sequences import check_encoder_decoder


def tokens_of(model: PreTrainedModel) -> dict[str, Any]:
    """Return how many tokens a model can read, how many it chooses from, and which are special, by name."""
    config = model.config
    sizes = (config.vocab_size, getattr(config, "decoder_vocab_size", None) or config.vocab_size)
    names = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
    return {"vocabulary sizes": sizes} | {name: getattr(config, name, None) for name in names}


def check_ensemble(models: Sequence[PreTrainedModel]) -> None:
    """Refuse models that do not read and write the same tokens.

    Raises:
        TypeError: It is a model instead of a list.
        ValueError: There is none, their vocabularies or special tokens differ, or torch does not compute them.
    """
    if isinstance(models, PreTrainedModel):
        raise TypeError(
            f"An ensemble takes a list of models, got one {type(models).__name__}: Ensemble([first, second])."
        )
    if not models:
        raise ValueError("An ensemble needs at least one model, got none.")
    for number, model in enumerate(models, 1):
        check_encoder_decoder(model)
        if model.get_encoder() is None:
            raise ValueError(f"Model {number} of the ensemble is computed by another program. Take models of torch.")
        if getattr(model.config, "copy_attention", False):
            raise ValueError(f"Model {number} of the ensemble copies tokens (copy_attention). Take models without it.")
        tokens, first = tokens_of(model), tokens_of(models[0])
        for name in tokens:
            if tokens[name] != first[name]:
                raise ValueError(
                    f"Model {number} of the ensemble has {name} {tokens[name]}, the first has {first[name]}. "
                    "Take models that were trained with the same tokenizer."
                )


def check_tokenizers(tokenizers: Sequence[PreTrainedTokenizerBase], names: Sequence[str]) -> None:
    """Refuse tokenizers whose tokens have other ids than those of the first.

    Args:
        tokenizers: Of models that decide together.
        names: Of the models, for the error.

    Raises:
        ValueError: Naming two models.
    """
    for tokenizer, name in zip(tokenizers, names, strict=True):
        if vocabularies(tokenizer) != vocabularies(tokenizers[0]):
            raise ValueError(f"{name} and {names[0]} have different vocabularies. Train them with one tokenizer.")


def vocabularies(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, int], dict[str, int]]:
    """Return the ids of all tokens of the source and of the target."""
    return tokenizer.get_vocab(), getattr(tokenizer, "get_target_vocab", tokenizer.get_vocab)()


class Encoders(nn.Module):
    """The encoders of several models; their hidden states lie side by side.

    Args:
        models: Encoder-decoders.
    """

    main_input_name = "input_ids"  # `generate` asks for it

    def __init__(self, models: Sequence[PreTrainedModel]):
        super().__init__()
        self.encoders = nn.ModuleList([model.get_encoder() for model in models])

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **shown: Any
    ) -> BaseModelOutput:
        """Read sources.

        Args:
            input_ids: (batch, source_len).
            attention_mask: (batch, source_len), 1 = token, 0 = padding.
            shown: What `generate` would like to see beside the states, which is left out.

        Returns:
            `last_hidden_state` (batch, source_len, sum of the widths).
        """
        states = [encoder(input_ids=input_ids, attention_mask=attention_mask)[0] for encoder in self.encoders]
        return BaseModelOutput(last_hidden_state=torch.cat(states, dim=-1))


class Caches:
    """What each model keeps of the tokens so far; each makes its own at the first step.

    Args:
        count: Of models.
    """

    is_compileable = False

    def __init__(self, count: int):
        self.parts: list[Any] = [None] * count

    def get_seq_length(self) -> int:
        """Return the number of tokens so far."""
        return 0 if self.parts[0] is None else self.parts[0].get_seq_length()

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Go on with other beams; those of a source share its keys and values, which stay as they are."""
        for part in self.parts:
            getattr(part, "self_attention_cache", part).reorder_cache(beam_idx)


class Ensemble(PreTrainedModel, GenerationMixin):
    """Several encoder-decoders of one vocabulary that choose each token together.

    p(y_t) = mean over models m of p_m(y_t | y_1 .. y_{t-1}, x), which is what `logits` hold the logarithm of. It
    generates with the settings of the first model, by `generate` and by our pipelines. It is used, not trained.

    Args:
        models: On one device, of any families.

    Raises:
        ValueError: They do not read and write the same tokens.
    """

    main_input_name = "input_ids"
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True  # what the members do is theirs

    def __init__(self, models: Sequence[PreTrainedModel]):
        check_ensemble(models)
        super().__init__(copy.deepcopy(models[0].config))
        self.models = nn.ModuleList(models)
        self.encoder = Encoders(models)
        self.generation_config = copy.deepcopy(models[0].generation_config)
        self._limit_lengths()
        self.eval()

    def _limit_lengths(self) -> None:
        """Read and write no more tokens than the model with the fewest positions can."""
        for name in ("max_position_embeddings", "max_encoder_position_embeddings"):
            limits = [limit for model in self.models if (limit := getattr(model.config, name, None))]
            if limits:
                setattr(self.config, name, min(limits))
        self.position_limit = min(filter(None, map(position_limit, self.models)), default=None)
        for name in ("max_new_tokens", "max_length"):
            length = getattr(self.generation_config, name)
            if length and self.position_limit and length > self.position_limit:
                setattr(self.generation_config, name, self.position_limit)

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """Return the encoders as one."""
        return self.encoder

    def save_pretrained(self, save_directory, **kwargs):
        """Refuse: there is no config of an ensemble.

        Raises:
            ValueError: Always.
        """
        raise ValueError("An ensemble has no file format. Save its models one by one, or distil it into one model.")

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        past_key_values: Caches | None = None,
        use_cache: bool | None = None,
        **shown: Any,
    ) -> Seq2SeqLMOutput:
        """Give the logarithms of the mean probabilities.

        Args:
            input_ids: (batch, source_len).
            attention_mask: (batch, source_len), 1 = token, 0 = padding.
            decoder_input_ids: (batch, target_len).
            encoder_outputs: Of `get_encoder()`, in the place of `input_ids`.
            past_key_values: Of the steps before.
            use_cache: Keep what the next step needs.
            shown: What callers would like to see beside the logits, such as attention, which is left out.

        Returns:
            `logits` (batch, target_len, vocab_size) in float32.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask)
        caches = past_key_values or Caches(len(self.models))
        states = encoder_outputs[0].split(self._widths(), dim=-1)  # of each (batch, source_len, d_model)
        log_probs: list[torch.Tensor] = []  # of each (batch, target_len, vocab_size)
        for number, (model, hidden_states) in enumerate(zip(self.models, states, strict=True)):
            outputs = model(
                encoder_outputs=BaseModelOutput(last_hidden_state=hidden_states.to(model.dtype)),
                attention_mask=attention_mask,
                decoder_input_ids=decoder_input_ids,
                past_key_values=caches.parts[number],
                use_cache=bool(use_cache),
            )
            caches.parts[number] = outputs.past_key_values if use_cache else None
            log_probs.append(outputs.logits.float().log_softmax(-1))
        mean = functools.reduce(torch.logaddexp, log_probs) - math.log(len(log_probs))
        kept: Any = caches if use_cache else None
        return Seq2SeqLMOutput(logits=mean, past_key_values=kept)

    def _widths(self) -> list[int]:
        """Return how wide the hidden states of each encoder are."""
        configs: list[Any] = [model.config for model in self.models]
        return [getattr(config, "d_model", None) or config.hidden_size for config in configs]

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, *args: Any):
        """Give `generate` a cache for each model, which knows what it needs."""
        if generation_config.use_cache:
            model_kwargs["past_key_values"] = Caches(len(self.models))

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: torch.Tensor, past_key_values: Caches | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return what `forward` needs for the next token; `input_ids` are those of the target."""
        done = past_key_values.get_seq_length() if past_key_values is not None else 0
        names = ("attention_mask", "encoder_outputs", "use_cache")
        inputs = {name: kwargs[name] for name in names if name in kwargs}
        return inputs | {"decoder_input_ids": input_ids[:, done:], "past_key_values": past_key_values}
