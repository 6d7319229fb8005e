"""Which words does each word look at? Cross-attention and both self-attentions of a pair of texts, as tensors.

Bahdanau et al. (2015), Figure 3, drew alignments first; Vaswani et al. (2017), section 3.2.3, names the three uses of
attention. In cross-attention, row t holds the weights alpha_t1 .. alpha_tS with which the decoder mixed the S source
states when it chose target token t. They sum to 1 in every layer and head. In self-attention, row i belongs to the
token that the stack read at i; the decoder reads its start token and then the target, one step behind.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..pipeline_records import reading_copy

Kind = Literal["cross", "encoder", "decoder"]
ALTERNATIVES = 5  # tokens that could have been written


@dataclass(frozen=True)
class View:
    """One of the three attentions: rows are the tokens that look, columns the tokens that they look at.

    Attributes:
        weights: (layers, heads, query_len, key_len).
        queries: The tokens that look (query_len).
        keys: The tokens that they look at (key_len).
        query_name: What the looking tokens are, such as "target".
        key_name: What the others are, such as "source".
        texts: The texts they come from: one, or source and target.
        layers: The numbers of the layers, counted from 0; not all have weights where some mix tokens in another way.
    """

    weights: torch.Tensor
    queries: list[str]
    keys: list[str]
    query_name: str
    key_name: str
    texts: tuple[str, ...]
    layers: list[int]

    def find_layer(self, layer: int | None) -> int:
        """Return the place of a layer in the weights; of the last one for None.

        Raises:
            ValueError: There is no such layer, or it has no weights.
        """
        if layer is None:
            return len(self.layers) - 1
        if layer in self.layers:
            return self.layers.index(layer)
        if layer >= 0 and self.layers != list(range(len(self.layers))):
            raise ValueError(f"layer={layer} has no weights: layers {', '.join(map(str, self.layers))} have some.")
        return _check_index(layer, len(self.layers), "layer")

    def find_head(self, head: int | None) -> int | None:
        """Return the number of a head; None, for the mean over all heads, stays None.

        Raises:
            ValueError: There is no such head.
        """
        return None if head is None else _check_index(head, self.weights.shape[1], "head")


@dataclass(frozen=True)
class AttentionMap:
    """The attention of one pair of texts.

    Attributes:
        source: The source text.
        target: The target text.
        source_tokens: Its tokens, readable (source_len).
        target_tokens: Its tokens, readable (target_len).
        weights: Cross-attention, (layers, heads, target_len, source_len); row t chose target token t.
        encoder_weights: (layers, heads, source_len, source_len); None where the encoder has no attention.
        decoder_weights: (layers, heads, target_len, target_len), zero above the diagonal; None likewise.
        decoder_tokens: What the decoder read: its start token, then all target tokens but the last (target_len).
        layers: By kind, the numbers of the layers that have weights, where not all have.
        alternatives: Of each target token, the likeliest tokens in its place with their probabilities, and itself.
    """

    source: str
    target: str
    source_tokens: list[str]
    target_tokens: list[str]
    weights: torch.Tensor
    encoder_weights: torch.Tensor | None = None
    decoder_weights: torch.Tensor | None = None
    decoder_tokens: list[str] = field(default_factory=list)
    layers: dict[Kind, list[int]] = field(default_factory=dict)
    alternatives: list[list[tuple[str, float]]] = field(default_factory=list)

    def views(self) -> dict[Kind, View]:
        """Return the attentions that the model has, by kind."""
        source, target, read = self.source_tokens, self.target_tokens, self.decoder_tokens
        found: dict[Kind, tuple] = {
            "cross": (self.weights, target, source, "target", "source", (self.source, self.target)),
            "encoder": (self.encoder_weights, source, source, "source", "source", (self.source,)),
            "decoder": (self.decoder_weights, read, read, "target so far", "target so far", (self.target,)),
        }
        return {
            kind: View(*(*values, self.layers.get(kind, list(range(len(values[0]))))))
            for kind, values in found.items()
            if values[0] is not None and values[1]  # weights, and tokens that look
        }

    def view(self, kind: Kind) -> View:
        """Return one attention.

        Raises:
            ValueError: There is no such kind, or the model has none of it.
        """
        views = self.views()
        if kind not in views:
            lacking = kind in get_args(Kind)
            reason = f"The model has no {kind} self-attention" if lacking else f'"{kind}" is no kind of attention'
            raise ValueError(f"{reason}. Choose one of: {', '.join(views)}.")
        return views[kind]


@torch.no_grad()
def cross_attention(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    source: str,
    target: str | None = None,
    **generate_kwargs: Any,
) -> AttentionMap:
    """Run a model once over a pair of texts and keep what its encoder and decoder attended to.

    Args:
        model: An encoder-decoder of transformers with attention, which may be in use by other threads: a copy with the
            same weights runs, in eval mode and with eager attention.
        tokenizer: The model's tokenizer.
        source: The source text.
        target: The target text to force; generated by the model when None.
        generate_kwargs: For `model.generate`, when the target is generated.

    Returns:
        The attention map.

    Raises:
        ValueError: The model is no encoder-decoder or gives no attention weights; generate_kwargs beside a target.
    """
    if not model.config.is_encoder_decoder:
        raise ValueError(f"{type(model).__name__} has no cross-attention: it is not an encoder-decoder.")
    if target is not None and generate_kwargs:
        raise ValueError(
            f"target= is forced, nothing is generated: {', '.join(generate_kwargs)} would have no effect."
        )
    encoded = tokenizer(source, return_tensors="pt").to(model.device)
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask") if name in encoded}
    reader = reading_copy(model, "eager")  # which alone returns weights
    if target is None:
        sequence = reader.generate(**inputs, **generate_kwargs)[:1]  # type: ignore[operator]  # (1, 1 + target_len)
        read_ids, target_ids = sequence[:, :-1], sequence[:, 1:]  # (1, target_len)
        decoder = {"decoder_input_ids": read_ids}
    else:
        target_ids = tokenizer(text_target=target, return_tensors="pt").input_ids.to(model.device)
        decoder = {"labels": target_ids}  # the model itself knows how to make its input of them
        shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        read_ids = shift(labels=target_ids) if callable(shift) else target_ids[:, :0]
    outputs = reader(**inputs, **decoder, output_attentions=True, use_cache=False)
    if not outputs.cross_attentions:
        raise ValueError(f"{type(model).__name__} returned no cross-attention weights.")
    return AttentionMap(
        source=source,
        target=str(tokenizer.decode(target_ids[0], skip_special_tokens=True)) if target is None else target,
        source_tokens=_readable_tokens(tokenizer, inputs["input_ids"][0].tolist(), is_source=True),
        target_tokens=_readable_tokens(tokenizer, target_ids[0].tolist()),
        weights=torch.cat(outputs.cross_attentions).float().cpu(),  # (layers, heads, target_len, source_len)
        encoder_weights=_stack(outputs.get("encoder_attentions")),  # (layers, heads, source_len, source_len)
        decoder_weights=_stack(outputs.get("decoder_attentions")),  # (layers, heads, target_len, target_len)
        decoder_tokens=_readable_tokens(tokenizer, read_ids[0].tolist()),
        layers=_layers_with_weights(model.config),
        alternatives=_likeliest(tokenizer, outputs.logits[0].float().softmax(-1).cpu(), target_ids[0].cpu()),
    )


@torch.no_grad()
def attention_over_features(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, inputs: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, list[str]]:
    """Generate from speech or a picture, and keep what the decoder attended to.

    Args:
        model: An encoder-decoder; a copy with the same weights runs, with eager attention.
        tokenizer: The model's.
        inputs: Of one source, from the model's feature extractor or image processor.

    Returns:
        Cross-attention (layers, heads, target_len, source_len), and the tokens that were generated (target_len).
    """
    reader = reading_copy(model, "eager")
    there = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    sequence = reader.generate(**there)[:1]  # type: ignore[operator]  # (1, 1 + target_len)
    outputs = reader(**there, decoder_input_ids=sequence[:, :-1], output_attentions=True, use_cache=False)
    tokens = _readable_tokens(tokenizer, sequence[0, 1:].tolist())
    return torch.cat(outputs.cross_attentions).float().cpu(), tokens


def _likeliest(tokenizer, shares: torch.Tensor, written: torch.Tensor) -> list[list[tuple[str, float]]]:
    """Return the likeliest tokens of each place, and the written one where it is none of them.

    Args:
        tokenizer: The model's.
        shares: Probabilities, (target_len, vocabulary).
        written: (target_len,).
    """
    rows = []
    for row, token in zip(shares, written.tolist()):
        best = row.topk(min(ALTERNATIVES, len(row))).indices.tolist()
        ids = best if token in best else [*best, token]
        rows.append(list(zip(_readable_tokens(tokenizer, ids), row[ids].tolist())))
    return rows


def _check_index(index: int, count: int, name: str) -> int:
    """Return an index counted from 0, where negative ones count from the end."""
    if not -count <= index < count:
        raise ValueError(f"{name}={index} does not exist: the model has {name}s 0 to {count - 1}.")
    return index % count


def _stack(attentions: tuple[torch.Tensor, ...] | None) -> torch.Tensor | None:
    """Join the weights of the layers, each (1, heads, query_len, key_len); None where a model has none."""
    if not attentions or any(weights is None for weights in attentions):
        return None
    return torch.cat(attentions).float().cpu()  # (layers, heads, query_len, key_len)


def _layers_with_weights(config) -> dict[Kind, list[int]]:
    """Return, by stack, the layers that have attention weights, where the config gives each layer a type."""
    layers: dict[Kind, list[int]] = {}
    kinds: tuple[Kind, ...] = ("encoder", "decoder")
    for kind in kinds:
        if layer_types := getattr(config, f"{kind}_layer_types", None):
            layers[kind] = [i for i, name in enumerate(layer_types) if name in ("full_attention", "sliding_attention")]
    return layers


def _readable_tokens(tokenizer, ids: list[int], is_source: bool = False) -> list[str]:
    """Return tokens as a person writes them: no word-start marks; a space is ␣; parts of characters are bytes."""
    special = set(tokenizer.all_special_ids)
    to_tokens, options = tokenizer.convert_ids_to_tokens, {}
    if getattr(tokenizer, "target_vocab_size", None):  # each side has a vocabulary of its own
        options = {"use_source_tokenizer": is_source}
        to_tokens = to_tokens if is_source else tokenizer.convert_target_ids_to_tokens
    tokens = []
    for token_id, token in zip(ids, to_tokens(ids)):
        # Byte-level vocabularies (BART) hold "Ġcat" and "ä½ł": decoding gives " cat" and "你".
        text = token if token_id in special else tokenizer.decode([token_id], **options).strip()
        if "\ufffd" in text or re.fullmatch("<0x[0-9A-F]{2}>", token):
            text = token
        tokens.append((text if text.isprintable() else text.encode("unicode_escape").decode()) or "␣")
    return tokens
