"""Masks: which tokens may a token look at? (paper, sections 3.1 and 3.2.3)

    padding   no token looks at what only fills up a row;
    causal    a target token looks at itself and those before it;
    local     a token looks at its neighbours: a band along the diagonal (Luong et al. 2015, arXiv:1508.04025);
    packed    where a row holds several sentences, none looks at another (Krell et al. 2021, arXiv:2107.02027).

How each looks to the kernel in use (boolean, additive, blocks, or none at all), transformers knows. A table gives each
type of layer its own; layers without attention weights get the padding alone, (batch, query_len), True = token.
"""

import copy
from collections.abc import Callable
from typing import TypedDict

import torch
from transformers.cache_utils import Cache, StaticCache
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
    create_causal_mask,
    create_sliding_window_causal_mask,
)

from .configuration_fun_transformer import FunTransformerConfig
from .positions import sentences_of
from .varlen import Segments

# Kernels that keep packed sentences apart. All but the last get masks that transformers makes from a function.
PACKED_KERNELS = ("eager", "sdpa", "flex_attention", "varlen")
PACKED_TYPES = ("full_attention", "sliding_attention")  # layers that do


class Packing(TypedDict):
    """Where the sentences of a packed batch lie: a row of sources and a row of targets, as many and in one order.

    Offsets are (sentences + 1,) of int32: 0, then where each sentence ends; a sentence may be empty on both sides. The
    lengths, plain numbers so that no GPU has to be asked, are those of the longest sentences or more.
    """

    source_offsets: torch.Tensor
    target_offsets: torch.Tensor
    longest_source: int
    longest_target: int


def segments_of(packing: Packing | None, query: str, key: str) -> Segments | None:
    """Which tokens of `query` see which of `key`, both "source" or "target"; None where nothing is packed."""
    if packing is None:
        return None
    return Segments(
        *(packing[f"{side}_offsets"] for side in (query, key)), *(packing[f"longest_{side}"] for side in (query, key))
    )  # type: ignore[arg-type]


def same_sentence(segments: Segments, query_len: int, key_len: int) -> Callable:
    """The rule of packed rows, as transformers makes masks from it: (batch, head, query, key) -> may attend."""
    query_sentences = sentences_of(segments.query_offsets, query_len)  # (query_len,)
    key_sentences = sentences_of(segments.key_offsets, key_len)  # (key_len,)
    return lambda batch, head, query, key: query_sentences[query] == key_sentences[key]


def check_packing(config: FunTransformerConfig, stack: str, mask_like: torch.Tensor, *others: object) -> None:
    """Refuse what packed rows cannot go with, rather than let sentences see each other.

    Args:
        config, mask_like: From `mask_settings`.
        stack: "encoder" or "decoder".
        others: The padding mask and the cache, which must be None.

    Raises:
        ValueError: Naming what does not fit.
    """
    if config._attn_implementation not in PACKED_KERNELS:
        raise ValueError(
            f"attn_implementation={config._attn_implementation} does not keep packed sentences apart. Choose one of "
            f"{', '.join(PACKED_KERNELS)}."
        )
    for layer_type in config.stack_layer_types(stack):
        if layer_type not in PACKED_TYPES:
            raise ValueError(
                f"Layers of type {layer_type} mix packed sentences. Leave packing out, or choose {stack}_layer_types "
                f"from {', '.join(PACKED_TYPES)}."
            )
    if mask_like.shape[0] != 1 or any(other is not None for other in others):
        raise ValueError(
            f"Packed sentences make one row, without attention_mask and cache; got {mask_like.shape[0]} row(s)"
            f"{' and one of these' * any(other is not None for other in others)}."
        )


def mask_settings(
    config: FunTransformerConfig, hidden_states: torch.Tensor, kwargs: dict
) -> tuple[FunTransformerConfig, torch.Tensor]:
    """Choose the attention kernel of a call, and what its masks are made from.

    Fused kernels never build the attention weights: a call that asks for them runs eager attention.

    Args:
        config: The model's.
        hidden_states: (batch, seq_len, d_model).
        kwargs: The keyword arguments of the call; gets `attn_implementation` where it differs from the config's.

    Returns:
        The config to make masks with, and an empty tensor (batch, seq_len, 0) of the dtype to make them in: under
        autocast that of the scores, which is not that of the hidden states.
    """
    device_type = hidden_states.device.type
    names = ("output_attentions", "output_cross_attentions")
    wanted = any(kwargs.get(name, getattr(config, name, False)) for name in names)
    if wanted and config._attn_implementation != "eager":
        config = copy.copy(config)
        config._attn_implementation = "eager"
        kwargs["attn_implementation"] = "eager"
    autocast = torch.is_autocast_enabled(device_type)
    dtype = torch.get_autocast_dtype(device_type) if autocast else hidden_states.dtype
    return config, hidden_states.new_empty((*hidden_states.shape[:2], 0), dtype=dtype)


def padding_mask(
    config: FunTransformerConfig, mask_like: torch.Tensor, attention_mask: torch.Tensor | None, *args, **kwargs
) -> torch.Tensor | None:
    """Padding alone, for layers whose order is their own: (batch, query_len), True = token; None where all are.

    Args:
        config: Not read; it is in the signature of all that make masks, as is the cache.
        mask_like: (batch, query_len, 0).
        attention_mask: (batch, past_len + query_len), 1 = token, 0 = padding.

    Raises:
        ValueError: When the mask says for each pair of tokens who may see whom.
    """
    if attention_mask is None:
        return None
    if len(attention_mask.shape) != 2:
        raise ValueError(
            f"Layers of type linear_attention and conv know which tokens are padding, not which may see each other: "
            f"attention_mask has {len(attention_mask.shape)} dimensions. Pass one of shape (batch, seq_len)."
        )
    return attention_mask[:, -mask_like.shape[1] :].to(mask_like.device, torch.bool)  # (batch, query_len)


BIDIRECTIONAL_MASKS = {
    "full_attention": create_bidirectional_mask,
    "sliding_attention": create_bidirectional_sliding_window_mask,
    "linear_attention": padding_mask,
    "conv": padding_mask,
}
CAUSAL_MASKS = {
    "full_attention": create_causal_mask,
    "sliding_attention": create_sliding_window_causal_mask,
    "linear_attention": padding_mask,
    "conv": padding_mask,
}


def encoder_masks(
    config: FunTransformerConfig,
    mask_like: torch.Tensor,
    attention_mask: torch.Tensor | None,
    segments: Segments | None = None,
) -> dict:
    """Make one mask for each type of the encoder's layers.

    Args:
        config, mask_like: From `mask_settings`.
        attention_mask: (batch, source_len), 1 = token, 0 = padding.
        segments: The sentences of a packed row.

    Returns:
        Layer type -> mask.
    """
    layer_types, packed = dict.fromkeys(config.stack_layer_types("encoder")), {}
    if segments is not None:
        check_packing(config, "encoder", mask_like, attention_mask)
        if config._attn_implementation == "varlen":
            return dict.fromkeys(layer_types, segments)
        packed["and_mask_function"] = same_sentence(segments, mask_like.shape[1], mask_like.shape[1])
    return {
        layer_type: BIDIRECTIONAL_MASKS[layer_type](config, mask_like, attention_mask, **packed)
        for layer_type in layer_types
    }


def decoder_masks(
    config: FunTransformerConfig,
    mask_like: torch.Tensor,
    attention_mask: torch.Tensor | dict | None,
    past_key_values: Cache | None,
    segments: Segments | None = None,
) -> dict:
    """Make one mask for each type of the decoder's layers.

    Args:
        config, mask_like: From `mask_settings`.
        attention_mask: (batch, past_len + target_len), 1 = token, 0 = padding; or what this function returned before,
            as when `generate` makes masks ahead of compiled code.
        past_key_values: The cache, with or without one for the source.
        segments: The sentences of a packed row.

    Returns:
        Layer type -> mask. Layers of one type keep equally many tokens, so the first of each says how many there are.
    """
    packed = {}
    if segments is not None:
        check_packing(config, "decoder", mask_like, attention_mask, past_key_values)
        if config._attn_implementation == "varlen":
            return dict.fromkeys(config.stack_layer_types("decoder"), segments)
        packed["and_mask_function"] = same_sentence(segments, mask_like.shape[1], mask_like.shape[1])
    if isinstance(attention_mask, dict):
        return attention_mask
    cache = getattr(past_key_values, "self_attention_cache", past_key_values)
    layer_types = config.stack_layer_types("decoder")
    # A static cache has empty slots, which no mask at all would show. transformers knows, if it can be compiled.
    may_be_none = not isinstance(cache, StaticCache) or cache.is_compileable
    return {
        layer_type: CAUSAL_MASKS[layer_type](
            *(config, mask_like, attention_mask, cache),
            layer_idx=layer_types.index(layer_type),
            allow_is_causal_skip=may_be_none,
            **packed,
        )
        for layer_type in dict.fromkeys(layer_types)
    }


def cross_mask(
    config: FunTransformerConfig,
    mask_like: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    encoder_attention_mask: torch.Tensor | None,
    segments: Segments | None = None,
) -> torch.Tensor | Segments | None:
    """Make the mask for attention from target to source: padding is not seen, in packed rows nor another sentence.

    Args:
        config, mask_like: From `mask_settings`.
        encoder_hidden_states: (batch, source_len, d_model).
        encoder_attention_mask: (batch, source_len), 1 = token, 0 = padding.
        segments: The sentences of two packed rows.
    """
    packed = {}
    if segments is not None:
        check_packing(config, "decoder", mask_like, encoder_attention_mask)
        if config._attn_implementation == "varlen":
            return segments
        packed["and_mask_function"] = same_sentence(segments, mask_like.shape[1], encoder_hidden_states.shape[1])
    encoder_hidden_states = encoder_hidden_states.to(mask_like.dtype)
    return create_bidirectional_mask(config, mask_like, encoder_attention_mask, encoder_hidden_states, **packed)


__all__ = ["PACKED_KERNELS", "PACKED_TYPES"]
