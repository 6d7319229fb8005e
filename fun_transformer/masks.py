"""Masks: which tokens may a token look at? (paper, sections 3.1 and 3.2.3)

    padding   no token looks at what only fills up a row;
    causal    a target token looks at itself and those before it;
    local     a token looks at its neighbours: a band along the diagonal (Luong et al. 2015, arXiv:1508.04025).

How each looks to the kernel in use (boolean, additive, blocks, or none at all), transformers knows. A table gives each
type of layer its own; layers without attention weights get the padding alone, (batch, query_len), True = token.
"""

import copy

import torch
from transformers.cache_utils import Cache, StaticCache
from transformers.masking_utils import (
    create_bidirectional_mask,
    create_bidirectional_sliding_window_mask,
    create_causal_mask,
    create_sliding_window_causal_mask,
)

from .configuration_fun_transformer import FunTransformerConfig


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


def encoder_masks(config: FunTransformerConfig, mask_like: torch.Tensor, attention_mask: torch.Tensor | None) -> dict:
    """Make one mask for each type of the encoder's layers.

    Args:
        config, mask_like: From `mask_settings`.
        attention_mask: (batch, source_len), 1 = token, 0 = padding.

    Returns:
        Layer type -> mask.
    """
    layer_types = dict.fromkeys(config.stack_layer_types("encoder"))
    return {
        layer_type: BIDIRECTIONAL_MASKS[layer_type](config, mask_like, attention_mask) for layer_type in layer_types
    }


def decoder_masks(
    config: FunTransformerConfig,
    mask_like: torch.Tensor,
    attention_mask: torch.Tensor | dict | None,
    past_key_values: Cache | None,
) -> dict:
    """Make one mask for each type of the decoder's layers.

    Args:
        config, mask_like: From `mask_settings`.
        attention_mask: (batch, past_len + target_len), 1 = token, 0 = padding; or what this function returned before,
            as when `generate` makes masks ahead of compiled code.
        past_key_values: The cache, with or without one for the source.

    Returns:
        Layer type -> mask. Layers of one type keep equally many tokens, so the first of each says how many there are.
    """
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
