"""Attention: a query looks at all keys and gets a weighted mean of their values (paper, section 3.2).

    Attention(Q, K, V) = softmax(Q K^T / sqrt(d_k)) V

In the words of the course: the scores e_ij say how well query i matches key j, the weights alpha_ij are their softmax
over j, and the context c_i is the sum of alpha_ij v_j.

How well a query matches a key has been scored in four ways. The scaled dot product is the Transformer's; the other
three, from the RNN years, are modules on one contract, `score(query, score.keys(states))`:

    additive         e_ij = v_a^T tanh(W_a s_i + U_a h_j)     Bahdanau et al. 2015 (arXiv:1409.0473), A.1.2
    dot              e_ij = s_i . h_j                         Luong et al. 2015 (arXiv:1508.04025), section 3.1
    general          e_ij = s_i^T W_a h_j                     Luong et al. 2015, section 3.1
    scaled dot       e_ij = (W_q s_i) . (W_k h_j) / sqrt(d_k) Vaswani et al. 2017, section 3.2.1

s_i is the decoder's state, h_j the encoder's. `keys` is the part that depends on h_j alone: it is computed once for a
source, not once for a target token.

How scores become weights has been answered in three ways, functions on one contract, `weights(scores, mask)`:

    softmax          alpha_ij = exp(e_ij) / sum_k exp(e_ik)    every key gets a share          Bahdanau et al. 2015
    ReLU             alpha_ij = relu(e_ij) / sum_k relu(e_ik)  keys scored below 0 get none    Zhang et al. 2021
    hard             alpha_ij = [j = argmax_k e_ik]            one key gets all                Xu et al. 2015

The Transformer does this in several heads at once: `MultiHeadAttention`.
"""

from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs

from .dropout import dropout as dropout_of
from .positions import TokenPositions


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


class DotScore(nn.Module):
    """e_ij = s_i . h_j, without weights: training has to bring queries and keys into one space."""

    def __init__(self, d_model: int):
        super().__init__()

    def keys(self, states: torch.Tensor) -> torch.Tensor:
        """Return the states as they are, (batch, key_len, d_model)."""
        return states

    def forward(self, query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Match every query with every key.

        Args:
            query: (batch, query_len, d_model).
            keys: (batch, key_len, d_model), what `keys` returned.

        Returns:
            (batch, query_len, key_len).
        """
        return scaled_dot_product_scores(query, keys, scaling=1.0)  # (batch, query_len, key_len)


class GeneralScore(DotScore):
    """e_ij = s_i^T W_a h_j: a dot product after the keys have been brought into the queries' space."""

    def __init__(self, d_model: int):
        super().__init__(d_model)
        self.k_proj = nn.Linear(d_model, d_model, bias=False)  # W_a

    def keys(self, states: torch.Tensor) -> torch.Tensor:
        """Project states of (batch, key_len, d_model) to W_a h_j, of the same shape."""
        return self.k_proj(states)


class AdditiveScore(nn.Module):
    """e_ij = v_a^T tanh(W_a s_i + U_a h_j): a small network; its inner values take query_len x key_len x d_model."""

    def __init__(self, d_model: int):
        super().__init__()
        self.q_proj = nn.Linear(d_model, d_model, bias=False)  # W_a
        self.k_proj = nn.Linear(d_model, d_model, bias=False)  # U_a
        self.score = nn.Linear(d_model, 1, bias=False)  # v_a

    def keys(self, states: torch.Tensor) -> torch.Tensor:
        """Project states of (batch, key_len, d_model) to U_a h_j, of the same shape."""
        return self.k_proj(states)

    def forward(self, query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Match every query with every key; arguments and result are those of `DotScore.forward`."""
        matched = self.q_proj(query).unsqueeze(-2) + keys.unsqueeze(-3)  # (batch, query_len, key_len, d_model)
        return self.score(matched.tanh()).squeeze(-1)  # (batch, query_len, key_len)


SCORES = {"dot": DotScore, "general": GeneralScore, "additive": AdditiveScore}


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


def relu_weights(scores: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Turn scores into weights with a ReLU where the softmax has exp(): alpha_ij = relu(e_ij) / sum_k relu(e_ik).

    Many weights are then exactly 0. A query all of whose scores are 0 or less looks at nothing: its weights are zeros,
    not NaN, and its context is a zero vector. Such a query has no gradient either: it waits for others to move the
    parameters that they share.

    Sources: Zhang et al. 2021 (arXiv:2104.07012), where looking at nothing is a feature; Shen et al. 2023
    (arXiv:2302.06461) compare ReLU and softmax. Neither divides by the sum, as the course does: it makes the context a
    mean of values.

    Args:
        scores, attention_mask: As in `attention_weights`.

    Returns:
        (batch, heads, query_len, key_len); rows sum to 1, or to 0.
    """
    if attention_mask is not None:
        scores = scores + attention_mask
    return nn.functional.normalize(scores.relu(), p=1.0, dim=-1, eps=1e-6)  # 1e-12, the default, is 0 in float16


def hard_weights(scores: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Look at the one key with the highest score: alpha_ij = [j = argmax_k e_ik].

    Soft attention takes a mean over all keys: a smooth function of the scores, which learns by its gradient like any
    layer. Hard attention picks one key. A small change of the scores picks the same key, so the gradient is 0 wherever
    there is one, and the scores would never learn. Two ways around it:

        REINFORCE        sample the key from the softmax, and make choices that turned out well more likely. Right on
                         average, but noisy: Xu et al. 2015 (arXiv:1502.03044), section 4.1, need a baseline for it.
        straight-through pick the key on the way forward; on the way back, pretend that it was the softmax. A biased
                         gradient, but a quiet one: Bengio et al. 2013 (arXiv:1308.3432), section 4. Done here.

    Luong et al. 2015, section 3.2, avoid the trouble: their local attention is soft, but within a window only.

    Args:
        scores, attention_mask: As in `attention_weights`. A row that may attend to nothing looks at its first key.

    Returns:
        (batch, heads, query_len, key_len): a single 1 in each row, with the gradient of the softmax.
    """
    soft = attention_weights(scores, attention_mask)
    picked = torch.zeros_like(soft).scatter(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
    return picked + (soft - soft.detach())  # picked + 0


WEIGHTS = {"softmax": attention_weights, "relu": relu_weights, "hard": hard_weights}


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
    """Attend step by step: the reference implementation of the fused kernels, and the only one to return weights.

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


NO_GRADIENTS = (
    "attn_implementation=flex_attention computes no gradients on a CPU. Choose one of eager, sdpa, or run the model "
    "under torch.no_grad()."
)


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O, head_i = Attention(Q W_i^Q, K W_i^K, V W_i^V) (3.2.2).

    The three uses of section 3.2.3 are one class: self-attention of the encoder, masked self-attention of the decoder,
    and cross-attention, whose queries come from the decoder and whose keys and values come from the encoder.
    The three constants are explained in `mixers.Mixer`.
    """

    mask_type = "full_attention"
    cache_type = "full_attention"
    keeps_segments_apart = True

    def __init__(self, config: PreTrainedConfig, num_heads: int, layer_idx: int, is_causal: bool = False):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.is_causal = is_causal
        self.head_dim = config.d_model // num_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.k_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def split_heads(self, states: torch.Tensor) -> torch.Tensor:
        """Split (batch, seq_len, d_model) into (batch, heads, seq_len, head_dim)."""
        return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def keys_and_values(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None,
        past_key_values: Cache | None,
        positions: TokenPositions | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Project what is attended to, and keep it: while generating, no key or value is computed twice.

        Returns:
            Keys and values, each (batch, heads, key_len, head_dim), those of earlier steps included.
        """
        is_cross_attention = encoder_hidden_states is not None
        if is_cross_attention and past_key_values is not None and past_key_values.is_updated.get(self.layer_idx):
            layer = past_key_values.cross_attention_cache.layers[self.layer_idx]
            return layer.keys, layer.values  # the source does not change while its translation grows
        attended = encoder_hidden_states if is_cross_attention else hidden_states
        key, value = self.split_heads(self.k_proj(attended)), self.split_heads(self.v_proj(attended))
        if positions is not None:
            key = positions.turn(key)
        if past_key_values is None:
            return key, value
        if is_cross_attention:
            past_key_values.is_updated[self.layer_idx] = True
            return past_key_values.cross_attention_cache.update(key, value, self.layer_idx)
        cache = getattr(past_key_values, "self_attention_cache", past_key_values)  # a decoder alone has only this one
        return cache.update(key, value, self.layer_idx)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        positions: TokenPositions | None = None,
        attn_implementation: str | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend from `hidden_states` to `encoder_hidden_states`, or to themselves when there are none.

        Args:
            hidden_states: (batch, query_len, d_model).
            attention_mask: What `masks.py` makes for the kernel in use.
            encoder_hidden_states: (batch, source_len, d_model).
            past_key_values: The cache, an `EncoderDecoderCache` where there is a source; it grows by this call's keys
                and values.
            positions: Where the tokens are, for encodings that turn queries and keys; for self-attention only.
            attn_implementation: Kernel to use instead of the config's.

        Returns:
            (batch, query_len, d_model), and the weights (batch, heads, query_len, key_len) if the kernel shows them.
        """
        query = self.split_heads(self.q_proj(hidden_states))  # (batch, heads, query_len, head_dim)
        if positions is not None:
            query = positions.turn(query)
        key, value = self.keys_and_values(hidden_states, encoder_hidden_states, past_key_values, positions)
        kernel = attn_implementation or self.config._attn_implementation
        if kernel == "flex_attention" and query.device.type == "cpu" and (query.requires_grad or key.requires_grad):
            raise ValueError(NO_GRADIENTS)
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(kernel, eager_attention)
        context, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )  # (batch, query_len, heads, head_dim), (batch, heads, query_len, key_len)
        context = context.flatten(-2).contiguous()  # (batch, query_len, d_model)
        return self.out_proj(context), weights


class SlidingWindowAttention(MultiHeadAttention):
    """Local attention: full attention with another mask, whose width kernels without masks get as a number."""

    mask_type = "sliding_attention"
    cache_type = "sliding_attention"

    def __init__(self, config: PreTrainedConfig, num_heads: int, layer_idx: int, is_causal: bool = False):
        super().__init__(config, num_heads, layer_idx, is_causal)
        self.sliding_window = config.sliding_window if is_causal else config.sliding_window + 1  # the token included

    def forward(self, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend as `MultiHeadAttention` does."""
        return super().forward(*args, sliding_window=self.sliding_window, **kwargs)
