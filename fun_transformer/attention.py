"""Attention: a query looks at all keys and takes home a weighted mean of their values (paper, section 3.2.1).

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d_k)) V

In the words of the course: the scores e_ij say how well query i matches key j, the weights alpha_ij are their softmax
over j, and the context c_i is the sum of alpha_ij v_j.
"""

import torch
from torch import nn

from .dropout import dropout as dropout_of


def scaled_dot_product_scores(query: torch.Tensor, key: torch.Tensor, scaling: float) -> torch.Tensor:
    """Match every query with every key: e_ij = scaling * q_i . k_j.

    Args:
        query: (batch, heads, query_len, head_dim).
        key: (batch, heads, key_len, head_dim).
        scaling: 1 / sqrt(head_dim) in the paper, so that the softmax does not saturate.

    Returns:
        (batch, heads, query_len, key_len).
    """
    return torch.matmul(query * scaling, key.transpose(-2, -1))  # (batch, heads, query_len, key_len)


def attention_weights(scores: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Turn scores into weights that sum to 1 over the keys: alpha_ij = softmax_j(e_ij).

    Args:
        scores: (batch, heads, query_len, key_len).
        attention_mask: Additive, broadcastable to the scores: 0 = may attend, the dtype's minimum = may not. Not -inf:
            a row that may attend to nothing then gets equal weights instead of NaN.

    Returns:
        (batch, heads, query_len, key_len). The softmax itself runs in float32 inside torch's kernel.
    """
    if attention_mask is not None:
        scores = scores + attention_mask
    return scores.softmax(dim=-1)


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend step by step, the slow twin of the fused kernels; the only one that can show its weights.

    The signature is that of transformers' attention interface, whose fused kernels read more from `kwargs`.

    Args:
        module: The attention layer; says whether it is in training.
        query: (batch, heads, query_len, head_dim).
        key, value: (batch, heads, key_len, head_dim).
        attention_mask: As in `attention_weights`.
        scaling: As in `scaled_dot_product_scores`.
        dropout: Probability of dropping a weight.

    Returns:
        The context (batch, query_len, heads, head_dim) and the weights (batch, heads, query_len, key_len).
    """
    weights = attention_weights(scaled_dot_product_scores(query, key, scaling), attention_mask)
    kept = dropout_of(weights, dropout, module.training)
    context = torch.matmul(kept, value)  # (batch, heads, query_len, head_dim)
    return context.transpose(1, 2), weights  # (batch, query_len, heads, head_dim), ...
