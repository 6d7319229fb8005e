"""Masks say which tokens a token may look at (paper, sections 3.1 and 3.2.3).

    padding   no token looks at padding, which only fills up a row;
    causal    a target token looks at itself and those before it;
    local     a token looks at its neighbours: a band along the diagonal (Luong et al. 2015, arXiv:1508.04025);
    packed    where a row holds several segments, none looks at another (Krell et al. 2021, arXiv:2107.02027).

transformers knows which form of a mask the kernel in use wants (boolean, additive, blocks, or none at all). Each type
of layer gets its own mask, of the kind that its class in `MIXERS` declares. A bias of the scores, such as relative
positions, is added to the mask.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, StaticCache
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
    create_causal_mask,
    create_sliding_window_causal_mask,
)

from .configuration_fun_transformer import FunTransformerConfig
from .frontends import is_text
from .mixers import MIXERS
from .positions import POSITIONS

PACKED_KERNELS = ("eager", "sdpa")  # those that take a mask of any form

# From the number of the first key and the number of keys to (batch or 1, heads, query_len, key_len).
Bias = Callable[[int, int], torch.Tensor]


class Packing(TypedDict):
    """Which segment of its row each token of a packed batch belongs to: 1, 2, ..., the same for source and target.

    (batch, source_len) and (batch, target_len). 0 is padding. Each row needs some padding in its source, so that the
    padding of its target has something to look at: a token that may attend to nothing gets NaN from some kernels.
    """

    source_segment_ids: torch.Tensor
    target_segment_ids: torch.Tensor


def window_of(config: FunTransformerConfig, layer_type: str) -> dict[str, int]:
    """Return how far a type of layer sees, as keyword argument of `packed_mask`."""
    is_local = MIXERS[layer_type].mask_type == "sliding_attention"
    return {"sliding_window": config.sliding_window} if is_local else {}


def packed_mask(
    config: FunTransformerConfig,
    mask_like: torch.Tensor,
    query_segment_ids: torch.Tensor,
    key_segment_ids: torch.Tensor,
    is_causal: bool = False,
    sliding_window: int | None = None,
) -> torch.Tensor:
    """Make the mask of packed rows: a token sees its own segment.

    transformers would make the same one from a rule for two tokens, but takes as long for it as some layers do.

    Args:
        config, mask_like: From `mask_settings`.
        query_segment_ids, key_segment_ids: (batch, query_len) and (batch, key_len), from a `Packing`.
        is_causal: No token sees a later one.
        sliding_window: A token sees this many to each side; if causal, this many with itself included.

    Returns:
        (batch, 1, query_len, key_len): True = may attend; for the kernel `eager` 0 and the dtype's minimum.
    """
    query, key = query_segment_ids[:, None, :, None], key_segment_ids[:, None, None, :]
    allowed = query == key  # (batch, 1, query_len, key_len)
    query, key = (torch.arange(x.shape[1], device=x.device) for x in (query_segment_ids, key_segment_ids))
    ahead = key - query[:, None]  # (query_len, key_len)
    if is_causal:
        allowed = allowed & (ahead <= 0)
    if sliding_window is not None:
        allowed = allowed & (ahead.abs() < sliding_window + (not is_causal))
    if config._attn_implementation == "eager":
        forbidden = torch.finfo(mask_like.dtype).min
        return torch.zeros_like(allowed, dtype=mask_like.dtype).masked_fill(~allowed, forbidden)
    return allowed


def packing_problem(
    config: PreTrainedConfig, kernel: str | None, stacks: Sequence[str] = ("encoder", "decoder")
) -> str | None:
    """Say why a model cannot read packed rows without mixing their segments.

    Args:
        config: The model's, of any model type.
        kernel: Its `attn_implementation`.
        stacks: Those that read packed rows.

    Returns:
        A sentence or two for the user, or None where packing works.
    """
    if not isinstance(config, FunTransformerConfig):
        return f"Packed rows are for models of type fun_transformer, not {config.model_type}. Train without packing."
    if not is_text(config):
        return (
            f"Packed rows are for texts, and the source of this model is {config.source_modality}. Leave packing out."
        )
    for stack in stacks:
        for layer_type in config.stack_layer_types(stack):
            if not MIXERS[layer_type].keeps_segments_apart:
                able = ", ".join(name for name, mixer in MIXERS.items() if mixer.keeps_segments_apart)
                return (
                    f"Layers of type {layer_type} mix the segments of a packed row. Choose {stack}_layer_types from "
                    f"{able}, or leave packing out."
                )
    if not POSITIONS[config.position_embedding_type].keeps_segments_apart:
        able = ", ".join(name for name, encoding in POSITIONS.items() if encoding.keeps_segments_apart)
        return (
            f"Positions of type {config.position_embedding_type} mix the segments of a packed row. Choose "
            f"position_embedding_type from {able}, or leave packing out."
        )
    if kernel not in PACKED_KERNELS:
        return (
            f"attn_implementation={kernel} does not keep the segments of a packed row apart. Choose one of "
            f"{', '.join(PACKED_KERNELS)}, or leave packing out."
        )
    return None


def check_packing(config: FunTransformerConfig, stack: str, *others: object) -> None:
    """Refuse packed rows that would let one segment see another.

    Args:
        config: From `mask_settings`.
        stack: "encoder" or "decoder".
        others: The padding mask and the cache, which must be None.

    Raises:
        ValueError: Naming what does not fit.
    """
    if problem := packing_problem(config, config._attn_implementation, (stack,)):
        raise ValueError(problem)
    if any(other is not None for other in others):
        raise ValueError(
            "Packed rows allow neither attention_mask nor a cache, and got one. Leave it out, or packing."
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
    """Return the padding alone, for layers that know by themselves which tokens may see each other.

    Args:
        config: Not read; all functions that make masks have it, as they have `args` and `kwargs` for a cache.
        mask_like: (batch, query_len, 0).
        attention_mask: (batch, past_len + query_len), 1 = token, 0 = padding.

    Returns:
        (batch, query_len), True = token; None where all are tokens.

    Raises:
        ValueError: When the mask says for each pair of tokens who may see whom.
    """
    if attention_mask is None:
        return None
    if len(attention_mask.shape) != 2:
        raise ValueError(
            f"Layers such as linear_attention and conv know which tokens are padding, not which may see each other: "
            f"attention_mask has {len(attention_mask.shape)} dimensions. Pass one of shape (batch, seq_len)."
        )
    return attention_mask[:, -mask_like.shape[1] :].to(mask_like.device, torch.bool)  # (batch, query_len)


BIDIRECTIONAL_MASKS: dict[str, Callable] = {
    "full_attention": create_bidirectional_mask,
    "sliding_attention": create_bidirectional_sliding_window_mask,
    "padding": padding_mask,
}
CAUSAL_MASKS: dict[str, Callable] = {
    "full_attention": create_causal_mask,
    "sliding_attention": create_sliding_window_causal_mask,
    "padding": padding_mask,
}


def add_bias(
    config: FunTransformerConfig, mask_like: torch.Tensor, mask: torch.Tensor | None, bias: torch.Tensor
) -> torch.Tensor:
    """Add a bias of the scores to a mask.

    Args:
        config, mask_like: From `mask_settings`.
        mask: Boolean or additive, (batch or 1, 1, query_len, key_len); None where each token may see all.
        bias: (batch or 1, heads, query_len, key_len).

    Returns:
        (batch or 1, heads, query_len, key_len), additive: the bias, and the dtype's minimum where the mask forbids.

    Raises:
        ValueError: When the kernel reads no such mask.
    """
    if config._attn_implementation not in PACKED_KERNELS:
        raise ValueError(
            f"attn_implementation={config._attn_implementation} cannot add the bias of "
            f"position_embedding_type={config.position_embedding_type} to the scores. Choose one of "
            f"{', '.join(PACKED_KERNELS)}."
        )
    bias = bias.to(mask_like.dtype)
    least = torch.finfo(bias.dtype).min
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        return bias.where(mask, least)
    return (mask + bias).clamp(min=least)  # never -inf: a row that may attend to nothing would get NaN


def encoder_masks(
    config: FunTransformerConfig,
    mask_like: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packing: Packing | None = None,
    bias: Bias | None = None,
) -> dict:
    """Make one mask for each type of the encoder's layers.

    Args:
        config, mask_like: From `mask_settings`.
        attention_mask: (batch, source_len), 1 = token, 0 = padding.
        packing: The segments of packed rows.
        bias: What is added to the scores.

    Returns:
        Layer type -> mask.
    """
    masks: dict[str, Any] = {}
    if packing is not None:
        check_packing(config, "encoder", attention_mask)
    for layer_type in dict.fromkeys(config.stack_layer_types("encoder")):
        mask_type = MIXERS[layer_type].mask_type
        if packing is not None:
            segment_ids = (packing["source_segment_ids"], packing["source_segment_ids"])
            mask = packed_mask(config, mask_like, *segment_ids, **window_of(config, layer_type))
        else:
            mask = BIDIRECTIONAL_MASKS[mask_type](config, mask_like, attention_mask)
        if bias is not None and mask_type != "padding":
            mask = add_bias(config, mask_like, mask, bias(0, mask_like.shape[1]))
        masks[layer_type] = mask
    return masks


def decoder_masks(
    config: FunTransformerConfig,
    mask_like: torch.Tensor,
    attention_mask: torch.Tensor | dict | None,
    past_key_values: Cache | None,
    packing: Packing | None = None,
    bias: Bias | None = None,
) -> dict:
    """Make one mask for each type of the decoder's layers.

    Args:
        config, mask_like: From `mask_settings`.
        attention_mask: (batch, past_len + target_len), 1 = token, 0 = padding; or what this function returned before,
            as when `generate` makes masks ahead of compiled code.
        past_key_values: The cache, with or without one for the source.
        packing: The segments of packed rows.
        bias: What is added to the scores.

    Returns:
        Layer type -> mask. Layers of one type keep the same number of tokens, so the first of each tells it.
    """
    if isinstance(attention_mask, dict):
        return attention_mask
    if packing is not None:
        check_packing(config, "decoder", attention_mask, past_key_values)
    cache = getattr(past_key_values, "self_attention_cache", past_key_values)
    # A static cache has empty slots, which no mask at all would show. transformers knows, if it can be compiled.
    may_be_none = (not isinstance(cache, StaticCache) or cache.is_compileable) and bias is None
    layer_types = config.stack_layer_types("decoder")
    masks: dict[str, Any] = {}
    for layer_type in dict.fromkeys(layer_types):
        mask_type, layer_idx = MIXERS[layer_type].mask_type, layer_types.index(layer_type)
        if packing is not None:
            segment_ids = (packing["target_segment_ids"], packing["target_segment_ids"])
            mask = packed_mask(config, mask_like, *segment_ids, is_causal=True, **window_of(config, layer_type))
        else:
            mask = CAUSAL_MASKS[mask_type](
                *(config, mask_like, attention_mask, cache), layer_idx=layer_idx, allow_is_causal_skip=may_be_none
            )
        if bias is not None and mask_type != "padding":
            query_len = mask_like.shape[1]
            key_len, first = (query_len, 0) if cache is None else cache.get_mask_sizes(query_len, layer_idx)
            mask = add_bias(config, mask_like, mask, bias(first, key_len))
        masks[layer_type] = mask
    return masks


def cross_mask(
    config: FunTransformerConfig,
    mask_like: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    encoder_attention_mask: torch.Tensor | None,
    packing: Packing | None = None,
) -> torch.Tensor | None:
    """Make the mask for attention from target to source: it hides padding, and in packed rows other segments.

    Args:
        config, mask_like: From `mask_settings`.
        encoder_hidden_states: (batch, source_len, d_model).
        encoder_attention_mask: (batch, source_len), 1 = token, 0 = padding.
        packing: The segments of packed rows.
    """
    if packing is not None:
        check_packing(config, "decoder", encoder_attention_mask)
        return packed_mask(config, mask_like, packing["target_segment_ids"], packing["source_segment_ids"])
    encoder_hidden_states = encoder_hidden_states.to(mask_like.dtype)
    return create_bidirectional_mask(config, mask_like, encoder_attention_mask, encoder_hidden_states)


__all__ = ["Packing", "packing_problem"]
