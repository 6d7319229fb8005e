"""The kernel `varlen`: attention inside each sentence of a packed row, with neither padding nor a mask in memory.

A packed row holds many sentences, one after the other. Under a dense mask attention computes the scores of all pairs
of its tokens, and throws most of them away; this kernel of torch is told where each sentence lies and computes only
what is kept (Dao 2023, arXiv:2307.08691). It runs on GPUs, in 16 bits.
"""

from typing import NamedTuple

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


class Segments(NamedTuple):
    """Sentence i of the queries sees sentence i of the keys: the mask that `varlen` takes, and others are made from.

    Offsets are (sentences + 1,) of int32: 0, then where each sentence ends. The lengths may be more than the longest.
    """

    query_offsets: torch.Tensor
    key_offsets: torch.Tensor
    longest_query: int
    longest_key: int


def varlen_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Segments | torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Attend sentence by sentence; what is not packed goes to the kernel `sdpa`.

    Args:
        module: The attention layer; says whether it is causal.
        query: (1, heads, query_len, head_dim), of float16 or bfloat16; head_dim a multiple of 8.
        key, value: (1, heads, key_len, head_dim).
        attention_mask: Where the sentences lie; a mask, or None, where nothing is packed.
        scaling: As in `attention.scaled_dot_product_scores`.
        dropout: Of the weights: this kernel has none.
        sliding_window: How many tokens local attention sees to each side, itself included.

    Returns:
        The context (1, query_len, heads, head_dim); no weights.

    Raises:
        ValueError: When weights are to be dropped.
    """
    if not isinstance(attention_mask, tuple):
        kwargs |= {"scaling": scaling, "dropout": dropout}
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)
    if dropout:
        raise ValueError(f"The kernel varlen drops no attention weights. Set attention_dropout=0, got {dropout}.")
    from torch.nn.attention.varlen import varlen_attn

    beside = -1 if sliding_window is None else sliding_window - 1
    query, key, value = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))  # (len, heads, head_dim)
    window = (beside, 0 if module.is_causal else beside)
    context = varlen_attn(query, key, value, *attention_mask, scale=scaling, window_size=window)
    return context.unsqueeze(0), None  # (1, query_len, heads, head_dim)
