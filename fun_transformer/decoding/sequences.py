"""Sources and targets as a model reads them once more, all tokens at a time (teacher forcing).

Confidence and alignments both need that second reading: of what the model generated, or of targets that are given.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sequences:
    """A batch of sources with one target each.

    Attributes:
        inputs: `input_ids` and `attention_mask`, each (rows, source_len).
        decoder_input_ids: What the decoder reads, (rows, target_len): the start token, then all but the last target.
        target_ids: What it is to say, (rows, target_len).
        is_target: (rows, target_len), False for padding; `</s>` is a target.
    """

    inputs: dict[str, torch.Tensor]
    decoder_input_ids: torch.Tensor
    target_ids: torch.Tensor
    is_target: torch.Tensor

    def read(self, model: PreTrainedModel, **options: Any):
        """Return the outputs of a model over the batch."""
        return model(**self.inputs, decoder_input_ids=self.decoder_input_ids, use_cache=False, **options)


def generated(model: PreTrainedModel, model_inputs, output_ids: torch.Tensor) -> Sequences:
    """Return what `generate` made as sequences to read.

    Args:
        model: The model that generated.
        model_inputs: `input_ids` and, where there is padding, `attention_mask`, each (batch, source_len).
        output_ids: What `generate` returned: (batch * sequences, 1 + target_len), beginning with the start token.

    Raises:
        ValueError: The rows are not those of the sources, or the model is no encoder-decoder.
    """
    check_encoder_decoder(model)
    inputs = {name: model_inputs[name] for name in ("input_ids", "attention_mask") if name in model_inputs}
    inputs.setdefault("attention_mask", torch.ones_like(inputs["input_ids"]))
    batch = len(inputs["input_ids"])
    if output_ids.ndim != 2 or len(output_ids) % batch or output_ids.shape[1] < 2:
        raise ValueError(
            f"output_ids of shape {tuple(output_ids.shape)} are not what generate() returns for {batch} sources: "
            "(sources * num_return_sequences, 1 + target_len)."
        )
    inputs = {name: rows.repeat_interleave(len(output_ids) // batch, dim=0) for name, rows in inputs.items()}
    target_ids = output_ids[:, 1:]  # (rows, target_len)
    is_eos = torch.isin(target_ids, torch.tensor(eos_ids(model), device=target_ids.device, dtype=torch.long))
    before_end = is_eos.cumsum(-1) - is_eos.long() == 0  # up to the first </s>
    return Sequences(inputs, output_ids[:, :-1], target_ids, before_end)


def given(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sources: list[str], targets: list[str]
) -> Sequences:
    """Return pairs of texts as sequences to read.

    Raises:
        ValueError: There are not as many targets as sources, or the model is no encoder-decoder.
    """
    check_encoder_decoder(model)
    if len(sources) != len(targets):
        raise ValueError(f"{len(sources)} sources and {len(targets)} targets: each source needs one target.")
    encoded = tokenizer(sources, return_tensors="pt", padding=True, return_attention_mask=True).to(model.device)
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    rows = tokenizer(text_target=targets).input_ids
    target_len = max(map(len, rows))
    labels = torch.tensor([ids + [-100] * (target_len - len(ids)) for ids in rows], device=model.device)
    is_target = labels != -100  # (rows, target_len)
    target_ids = labels.masked_fill(~is_target, tokenizer.pad_token_id)
    return Sequences(inputs, decoder_input(model, labels, tokenizer.pad_token_id), target_ids, is_target)


def decoder_input(model: PreTrainedModel, labels: torch.Tensor, pad_token_id: int) -> torch.Tensor:
    """Return what the decoder reads to predict labels, (batch, target_len): the start token, then all but the last.

    Args:
        model: An encoder-decoder of transformers.
        labels: (batch, target_len), padded with -100.
        pad_token_id: What is read instead of -100.
    """
    shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
    if callable(shift):
        return shift(labels=labels)
    own = model.generation_config.decoder_start_token_id  # M2M100 and NLLB have no such method
    start = model.config.decoder_start_token_id if own is None else own
    target_ids = labels.masked_fill(labels == -100, pad_token_id)
    return torch.cat([torch.full_like(target_ids[:, :1], start), target_ids[:, :-1]], dim=1)


def eos_ids(model: PreTrainedModel) -> list[int]:
    """Return the ids that end a target."""
    config = getattr(model, "generation_config", None)
    eos = getattr(config, "eos_token_id", None)
    eos = model.config.eos_token_id if eos is None else eos
    return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)


def check_encoder_decoder(model: PreTrainedModel):
    """Refuse a model without a source of its own.

    Raises:
        ValueError: The model is no encoder-decoder.
    """
    if not model.config.is_encoder_decoder:
        raise ValueError(
            f"{type(model).__name__} is no encoder-decoder. Load a model with AutoModelForSeq2SeqLM, such as Marian, "
            "BART or T5."
        )


def target_tokens(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """Return the tokens of target ids; our tokenizers may have a vocabulary of its own for the target."""
    return list(getattr(tokenizer, "convert_target_ids_to_tokens", tokenizer.convert_ids_to_tokens)(ids))


def length_batches(pairs: list[tuple[str, str]], batch_size: int) -> list[list[int]]:
    """Return the numbers of the pairs in batches of like length.

    Raises:
        ValueError: batch_size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} leaves nothing to read. Give 1 or more.")
    order = sorted(range(len(pairs)), key=lambda i: -max(map(len, pairs[i])))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
