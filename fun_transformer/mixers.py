"""What mixes the tokens of a text: self-attention, or what takes its place.

Linear attention and convolution are here; their cost grows with n, not n^2. All mixers share one contract,
`(hidden_states, attention_mask, past_key_values) -> output, weights`, where these two have no weights to show. While
generating, each of them keeps a state of constant size instead of all keys and values.

`MIXERS` is an open table: add a class to it, and the layer types of a config may name it.
"""

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.cache_utils import (
    STATIC_LAYER_TYPE_MAPPING,
    Cache,
    CacheLayerMixin,
    DynamicLayer,
    EncoderDecoderCache,
    StaticCache,
    StaticLayer,
)

from .attention import MultiHeadAttention, SlidingWindowAttention

RECURRENT_STATE = "fun_transformer_state"  # the name of `RecurrentState` in transformers' table of cache layers
EPSILON = 1e-6  # the least denominator of linear attention: where all is padding, it would be 0


class RecurrentState(CacheLayerMixin):
    """Two tensors of constant size in place of all keys and values, and the number of tokens that went into them.

    transformers' own `LinearAttentionLayer` counts no tokens, so that a decoder of nothing else could not generate.
    It is the same for a dynamic and a static cache, but is not compiled: the number of tokens is a plain int. A state
    cannot forget a token, so it cannot be cropped, which assisted generation needs.
    """

    _layer_type = RECURRENT_STATE  # registers the class for `DynamicCache(config=...)`
    is_sliding = False
    supports_early_init = False

    def __init__(self, **kwargs):
        super().__init__()
        self.cumulative_length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Note where the state lives."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, num_tokens: int = 0, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Replace the state by one that knows `num_tokens` more; both tensors are of (batch, ...)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states, value_states
        self.cumulative_length += num_tokens
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of tokens that are seen, and of those that are forgotten."""
        return self.cumulative_length + query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of tokens that went in."""
        return self.cumulative_length

    def get_max_length(self) -> int:
        """Return -1: any number of tokens goes in."""
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse, unless nothing is to be removed."""
        if tokens_to_remove != 0:
            raise ValueError(
                "Layers such as linear_attention and conv keep a state from which no token can be removed. Generate "
                "without an assistant, or use full_attention."
            )

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch."""
        if self.is_initialized:
            self.keys, self.values = (states.repeat_interleave(repeats, dim=0) for states in (self.keys, self.values))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows of the batch."""
        if self.is_initialized:
            self.keys, self.values = self.keys[indices], self.values[indices]


STATIC_LAYER_TYPE_MAPPING[RECURRENT_STATE] = RecurrentState


def is_recurrent(layer: object) -> bool:
    """Say whether a layer of a cache is a `RecurrentState`, of this module or of a copy of it from the Hub."""
    return getattr(layer, "_layer_type", None) == RECURRENT_STATE


def recurrent_state(past_key_values: Cache | None, layer_idx: int) -> RecurrentState | None:
    """Return the state of a decoder's layer from a cache with or without a part for the source; None without a cache.

    Raises:
        ValueError: When the cache is not made for the model.
    """
    if past_key_values is None:
        return None
    layers = getattr(past_key_values, "self_attention_cache", past_key_values).layers
    if layer_idx >= len(layers) or not is_recurrent(layers[layer_idx]):
        raise ValueError(
            f"The cache has no state for layer {layer_idx}, which keeps no keys and values. Make the cache with "
            "DynamicCache(config=model.config)."
        )
    return layers[layer_idx]


def keep_the_whole_source(past_key_values: EncoderDecoderCache, source_len: int) -> None:
    """Let the source's part of a cache keep all keys, as attention to the source is always full.

    transformers gives it the same layers as the target's part, which may keep a window or a state: those that are
    still empty are replaced.
    """
    cache = past_key_values.cross_attention_cache
    for layer_idx, layer in enumerate(cache.layers):
        forgets = getattr(layer, "is_sliding", False) or is_recurrent(layer)
        if forgets and not past_key_values.is_updated.get(layer_idx):
            is_static = isinstance(cache, StaticCache)
            cache.layers[layer_idx] = StaticLayer(max_cache_len=source_len) if is_static else DynamicLayer()


def feature_map(states: torch.Tensor) -> torch.Tensor:
    """Compute phi(x) = elu(x) + 1 (equation 7) in float32 at least: positive, with a gradient where x < 0."""
    return nn.functional.elu(states.to(torch.promote_types(states.dtype, torch.float32))) + 1


def bidirectional_linear_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attend to all tokens: c_i = phi(q_i) S / phi(q_i) z, S = sum_j phi(k_j) v_j^T, z = sum_j phi(k_j) (equation 5).

    Args:
        query, key: (batch, heads, seq_len, head_dim), after the feature map; keys of padding are zero.
        value: (batch, heads, seq_len, head_dim).

    Returns:
        (batch, heads, seq_len, head_dim).
    """
    state = key.transpose(-2, -1) @ value  # (batch, heads, head_dim, head_dim)
    normalizer = key.sum(dim=-2).unsqueeze(-1)  # (batch, heads, head_dim, 1)
    return (query @ state) / (query @ normalizer).clamp(min=EPSILON)


def causal_linear_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    state: torch.Tensor,
    normalizer: torch.Tensor,
    chunk_len: int = 128,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Attend to the tokens so far, of which all that is known is S_i and z_i (equations 9 to 11).

    Tokens of a chunk see each other in parallel, and those before it through the state. A chunk of one token is the
    paper's recurrent network, a chunk of all tokens is masked attention without a softmax; the result is the same.

    Args:
        query, key: (batch, heads, query_len, head_dim), after the feature map; keys of padding are zero.
        value: (batch, heads, query_len, head_dim).
        state: S, (batch, heads, head_dim, head_dim), of the tokens before; zeros at the start.
        normalizer: z, (batch, heads, head_dim, 1).
        chunk_len: Number of tokens in a chunk.

    Returns:
        Contexts (batch, heads, query_len, head_dim), and S and z with these tokens.
    """
    contexts = []
    for q, k, v in zip(*(states.split(chunk_len, dim=-2) for states in (query, key, value))):
        scores = (q @ k.transpose(-2, -1)).tril()  # (batch, heads, chunk_len, chunk_len)
        total = scores.sum(dim=-1, keepdim=True) + q @ normalizer  # (batch, heads, chunk_len, 1)
        contexts.append((scores @ v + q @ state) / total.clamp(min=EPSILON))  # (batch, heads, chunk_len, head_dim)
        state = state + k.transpose(-2, -1) @ v
        normalizer = normalizer + k.sum(dim=-2).unsqueeze(-1)
    return torch.cat(contexts, dim=-2), state, normalizer


class Mixer(nn.Module):
    """The contract of what may take the place of self-attention; a class says by three constants what it needs.

    mask_type: What `forward` gets as its `attention_mask`. "padding" is (batch, query_len), True = token;
        "full_attention" and "sliding_attention" are masks of pairs of tokens, as the attention kernel in use wants
        them.
    cache_type: What a layer keeps while generating: a `RecurrentState`, or all keys and values ("full_attention"), or
        those within the window ("sliding_attention").
    keeps_segments_apart: No token of a packed row sees another segment, so that rows may be packed.
    """

    mask_type = "padding"
    cache_type = RECURRENT_STATE
    keeps_segments_apart = False

    def __init__(self, config: PreTrainedConfig, num_heads: int, layer_idx: int, is_causal: bool = False):
        """Build the mixer of one layer.

        Args:
            config: The model's.
            num_heads: Attention heads of the stack.
            layer_idx: Number of the layer in its stack, and of its part of the cache.
            is_causal: No token may see a later one.
        """
        super().__init__()
        self.layer_idx = layer_idx
        self.is_causal = is_causal


class LinearAttention(Mixer):
    """c_i = sum_j phi(q_i) . phi(k_j) v_j / sum_j phi(q_i) . phi(k_j) (Katharopoulos et al. 2020, arXiv:2006.16236).

    Without the softmax the sums over j do not depend on the query: O(n d^2), and in the decoder a recurrent network.
    Projections are those of full attention, and so are their names. `attention_dropout` has no weights to drop here.
    """

    def __init__(self, config: PreTrainedConfig, num_heads: int, layer_idx: int, is_causal: bool = False):
        super().__init__(config, num_heads, layer_idx, is_causal)
        self.head_dim = config.d_model // num_heads
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.k_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def split_heads(self, states: torch.Tensor) -> torch.Tensor:
        """Split (batch, seq_len, d_model) into (batch, heads, seq_len, head_dim)."""
        return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, None]:
        """Mix tokens.

        Args:
            hidden_states: (batch, query_len, d_model).
            attention_mask: (batch, query_len), True = token.
            past_key_values: The cache, whose state grows by these tokens.
            **kwargs: What only attention reads: settings of kernels, and positions.

        Returns:
            (batch, query_len, d_model), and None: there are no weights.
        """
        query, key = (feature_map(self.split_heads(proj(hidden_states))) for proj in (self.q_proj, self.k_proj))
        value = self.split_heads(self.v_proj(hidden_states)).to(key.dtype)  # all (batch, heads, query_len, head_dim)
        if attention_mask is not None:
            key = key * attention_mask[:, None, :, None]
        with torch.autocast(hidden_states.device.type, enabled=False):  # sums over a text need float32
            context = self.attend(query, key, value, past_key_values)
        context = context.transpose(1, 2).flatten(-2).to(hidden_states.dtype)  # (batch, query_len, d_model)
        return self.out_proj(context), None

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, past_key_values: Cache | None
    ) -> torch.Tensor:
        """Turn queries, keys and values, each (batch, heads, query_len, head_dim), into contexts of that shape."""
        if not self.is_causal:
            return bidirectional_linear_attention(query, key, value)
        memory = recurrent_state(past_key_values, self.layer_idx)
        if memory is not None and memory.is_initialized:
            state, normalizer = memory.keys, memory.values
        else:
            state = key.new_zeros((*key.shape[:2], self.head_dim, self.head_dim))
            normalizer = key.new_zeros((*key.shape[:2], self.head_dim, 1))
        context, state, normalizer = causal_linear_attention(query, key, value, state, normalizer)
        if memory is not None:
            memory.update(state, normalizer, query.shape[-2])
        return context


class GatedConvolution(Mixer):
    """A * sigmoid(B), where [A; B] = W [x_(i-l); ...; x_(i+r)] + b (Gehring et al. 2017, arXiv:1705.03122, 3.2).

    Each token sees the k around it in the encoder and the last k in the decoder, and N layers see N (k - 1) + 1. The
    paper has only such layers, and sums with a residual times sqrt(0.5); here the layer's own residual and norm do
    that. Padding counts as zeros, as does what lies beyond the text: pad prompts on the left, where they begin.
    """

    def __init__(self, config: PreTrainedConfig, num_heads: int, layer_idx: int, is_causal: bool = False):
        super().__init__(config, num_heads, layer_idx, is_causal)
        self.kernel_size = config.conv_kernel_size
        self.conv = nn.Conv1d(config.d_model, 2 * config.d_model, config.conv_kernel_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, None]:
        """Mix tokens; arguments and results are those of `LinearAttention.forward`."""
        if attention_mask is not None:
            hidden_states = hidden_states * attention_mask.unsqueeze(-1)
        left = self.kernel_size - 1 if self.is_causal else self.kernel_size // 2
        right = self.kernel_size - 1 - left
        memory = recurrent_state(past_key_values, self.layer_idx)
        if memory is not None and memory.is_initialized:
            inputs = torch.cat([memory.keys, hidden_states], dim=1)  # (batch, kernel_size - 1 + query_len, d_model)
        else:
            inputs = nn.functional.pad(hidden_states, (0, 0, left, right))  # the same shape
        if memory is not None:
            last = inputs[:, inputs.shape[1] - left :].clone()  # (batch, kernel_size - 1, d_model)
            memory.update(last, last[:, :0], hidden_states.shape[1])
        doubled = self.conv(inputs.transpose(1, 2)).transpose(1, 2)  # (batch, query_len, 2 * d_model)
        return nn.functional.glu(doubled, dim=-1), None


MIXERS: dict[str, type[nn.Module]] = {
    "full_attention": MultiHeadAttention,
    "sliding_attention": SlidingWindowAttention,
    "linear_attention": LinearAttention,
    "conv": GatedConvolution,
}

__all__ = ["MIXERS", "RECURRENT_STATE", "Mixer", "RecurrentState", "recurrent_state"]
