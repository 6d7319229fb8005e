"""Masks: which tokens may a token look at? (paper, sections 3.1 and 3.2.3)

    padding   no token looks at what only fills up a row;
    causal    a target token looks at itself and those before it;
    local     a token looks at its neighbours: a band along the diagonal (Luong et al. 2015, arXiv:1508.04025);
    packed    where a row holds several sentences, none looks at another (Krell et al. 2021, arXiv:2107.02027).

How each looks to the kernel in use (boolean, additive, blocks, or none at all), transformers knows. A table gives each
type of layer its own; layers without attention weights get the padding alone, (batch, query_len), True = token.
"""

import copy
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

PACKED_KERNELS = ("eager", "sdpa")  # those that take a mask of any form
PACKED_TYPES = ("full_attention", "sliding_attention")  # layers that keep packed sentences apart


class Packing(TypedDict):
    """Which sentence of its row each token of a packed batch belongs to: 1, 2, ..., the same for source and target.

    (batch, source_len) and (batch, target_len). 0 is filler. Each row has some in its source, for that of its target
    to look at: whoever may attend to nothing would get NaN from some kernels.
    """

    source_sentences: torch.Tensor
    target_sentences: torch.Tensor


def window_of(config: FunTransformerConfig, layer_type: str) -> dict[str, int]:
    """How far a type of layer sees, as `packed_mask` takes it."""
    return {"sliding_window": config.sliding_window} if layer_type == "sliding_attention" else {}


def packed_mask(
    config: FunTransformerConfig,
    mask_like: torch.Tensor,
    query_sentences: torch.Tensor,
    key_sentences: torch.Tensor,
    is_causal: bool = False,
    sliding_window: int | None = None,
) -> torch.Tensor:
    """Make the mask of packed rows: a token sees its own sentence.

    transformers would make the same one from a rule for two tokens, and take as long as some layers do.

    Args:
        config, mask_like: From `mask_settings`.
        query_sentences, key_sentences: (batch, query_len) and (batch, key_len), from a `Packing`.
        is_causal: No token sees a later one.
        sliding_window: A token sees so many to each side, if causal itself included.

    Returns:
        (batch, 1, query_len, key_len): True = may attend; for the kernel `eager` 0 and the dtype's minimum.
    """
    allowed = query_sentences[:, None, :, None] == key_sentences[:, None, None, :]  # (batch, 1, query_len, key_len)
    query, key = (torch.arange(x.shape[1], device=x.device) for x in (query_sentences, key_sentences))
    ahead = key - query[:, None]  # (query_len, key_len)
    if is_causal:
        allowed = allowed & (ahead <= 0)
    if sliding_window is not None:
        allowed = allowed & (ahead.abs() < sliding_window + (not is_causal))
    if config._attn_implementation == "eager":
        forbidden = torch.finfo(mask_like.dtype).min
        return torch.zeros_like(allowed, dtype=mask_like.dtype).masked_fill(~allowed, forbidden)
    return allowed


def check_packing(config: FunTransformerConfig, stack: str, *others: object) -> None:
    """Refuse what packed rows cannot go with, rather than let sentences see each other.

    Args:
        config: From `mask_settings`.
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
    if any(other is not None for other in others):
        raise ValueError("Packed rows go without attention_mask and cache, and got one. Leave it out, or packing.")


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
    packing: Packing | None = None,
) -> dict:
    """Make one mask for each type of the encoder's layers.

    Args:
        config, mask_like: From `mask_settings`.
        attention_mask: (batch, source_len), 1 = token, 0 = padding.
        packing: The sentences of packed rows.

    Returns:
        Layer type -> mask.
    """
    layer_types = dict.fromkeys(config.stack_layer_types("encoder"))
    if packing is not None:
        check_packing(config, "encoder", attention_mask)
        sentences = (packing["source_sentences"], packing["source_sentences"])
        return {name: packed_mask(config, mask_like, *sentences, **window_of(config, name)) for name in layer_types}
    return {name: BIDIRECTIONAL_MASKS[name](config, mask_like, attention_mask) for name in layer_types}


def decoder_masks(
    config: FunTransformerConfig,
    mask_like: torch.Tensor,
    attention_mask: torch.Tensor | dict | None,
    past_key_values: Cache | None,
    packing: Packing | None = None,
) -> dict:
    """Make one mask for each type of the decoder's layers.

    Args:
        config, mask_like: From `mask_settings`.
        attention_mask: (batch, past_len + target_len), 1 = token, 0 = padding; or what this function returned before,
            as when `generate` makes masks ahead of compiled code.
        past_key_values: The cache, with or without one for the source.
        packing: The sentences of packed rows.

    Returns:
        Layer type -> mask. Layers of one type keep equally many tokens, so the first of each says how many there are.
    """
    if packing is not None:
        check_packing(config, "decoder", attention_mask, past_key_values)
        sentences = (packing["target_sentences"], packing["target_sentences"])
        return {
            name: packed_mask(config, mask_like, *sentences, is_causal=True, **window_of(config, name))
            for name in dict.fromkeys(config.stack_layer_types("decoder"))
        }
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
        )
        for layer_type in dict.fromkeys(layer_types)
    }


def cross_mask(
    config: FunTransformerConfig,
    mask_like: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    encoder_attention_mask: torch.Tensor | None,
    packing: Packing | None = None,
) -> torch.Tensor | None:
    """Make the mask for attention from target to source: padding is not seen, in packed rows nor another sentence.

    Args:
        config, mask_like: From `mask_settings`.
        encoder_hidden_states: (batch, source_len, d_model).
        encoder_attention_mask: (batch, source_len), 1 = token, 0 = padding.
        packing: The sentences of packed rows.
    """
    if packing is not None:
        check_packing(config, "decoder", encoder_attention_mask)
        return packed_mask(config, mask_like, packing["target_sentences"], packing["source_sentences"])
    encoder_hidden_states = encoder_hidden_states.to(mask_like.dtype)
    return create_bidirectional_mask(config, mask_like, encoder_attention_mask, encoder_hidden_states)


__all__ = ["PACKED_KERNELS", "PACKED_TYPES"]
