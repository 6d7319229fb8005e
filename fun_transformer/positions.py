"""Positions: attention sees a set of tokens, so something has to tell it their order (paper, section 3.5).

An encoding of positions can do so in three places. It is a class that overrides the method of the place that it uses:

    forward   add a vector to each embedding     sinusoidal (Vaswani et al. 2017), learned (Gehring et al. 2017)
    rotate    turn queries and keys              rotary (Su et al. 2021, arXiv:2104.09864)
    bias      add a number to each score         relative, as in T5 (Raffel et al. 2020, arXiv:1910.10683)

The first two know where a token is in its text; attention with the others knows only how far two tokens are apart.

All read `position_ids` of shape (batch, seq_len), never the row of the batch. `POSITIONS` is an open table: add a
class, and a config can name it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedConfig


def position_ids_from_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """Number the tokens of each row from 0, so that padding on either side moves none of them.

    Args:
        attention_mask: (batch, seq_len), 1 = token, 0 = padding.

    Returns:
        (batch, seq_len) of int64; padding before the first token gets 0.
    """
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def position_ids_from_segments(segment_ids: torch.Tensor) -> torch.Tensor:
    """Number the tokens of packed rows: each segment begins with 0.

    Args:
        segment_ids: (batch, seq_len), which segment of its row each token belongs to; 0 = padding.

    Returns:
        (batch, seq_len) of int64; 0 for padding.
    """
    places = torch.arange(segment_ids.shape[1], device=segment_ids.device).expand_as(segment_ids)  # (batch, seq_len)
    begins = nn.functional.pad(segment_ids[:, 1:] != segment_ids[:, :-1], (1, 0), value=True)  # (batch, seq_len)
    first = places.where(begins, 0).cummax(-1).values  # (batch, seq_len): place of the segment's first token
    return (places - first).where(segment_ids > 0, 0)


def position_ids_of_keys(
    position_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    past_len: int | torch.Tensor,
    first: int,
    count: int,
) -> torch.Tensor:
    """Number the tokens that a call attends to, those in the cache included.

    Args:
        position_ids: (batch or 1, query_len), those of the call itself.
        attention_mask: (batch, past_len + query_len), 1 = token, 0 = padding; anything else tells no positions.
        past_len: Number of tokens in the cache.
        first: Number of the first key; a window has forgotten those before it.
        count: Number of keys. A static cache has empty slots at its end, whose positions do not matter.

    Returns:
        (batch or 1, count) of int64.
    """
    if isinstance(past_len, int) and past_len == 0:
        known = position_ids
    elif isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2:
        known = position_ids_from_mask(attention_mask)
    else:
        return torch.arange(first, first + count, device=position_ids.device).unsqueeze(0)
    empty = max(0, first + count - known.shape[1])
    return nn.functional.pad(known, (0, empty))[:, first : first + count]


class Positions(nn.Module):
    """The contract of an encoding of positions; each method does nothing until a class overrides it.

    Compute tables from `position_ids` on the fly: a buffer that is not saved holds garbage after `from_pretrained`.
    """

    keeps_segments_apart = True  # reads position_ids alone, and so allows packed rows

    def __init__(self, config: PreTrainedConfig, num_heads: int, is_causal: bool):
        """Build the encoding of one stack, which all its layers share.

        Args:
            config: The model's.
            num_heads: Attention heads of the stack, each d_model / num_heads wide.
            is_causal: No token of the stack sees a later one.
        """
        super().__init__()

    @classmethod
    def longest_text(cls, config: PreTrainedConfig) -> int | None:
        """Return how many tokens of a text have a position; None where there is no limit."""
        return None

    @classmethod
    def overrides(cls, method: str) -> bool:
        """Say whether the encoding does something in a place: "forward", "rotate" or "bias"."""
        return getattr(cls, method) is not getattr(Positions, method)

    def forward(self, position_ids: torch.Tensor, length: int) -> torch.Tensor | None:
        """Return what is added to embeddings.

        Args:
            position_ids: (batch, seq_len).
            length: Length of the text so far, the cache included; 0 for packed rows, which cannot say.

        Returns:
            (batch, seq_len, d_model), or None for nothing.
        """
        return None

    def rotate(self, states: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Turn queries or keys of self-attention; keys are turned before they go into the cache.

        Args:
            states: (batch, heads, seq_len, head_dim).
            position_ids: (batch or 1, seq_len).

        Returns:
            (batch, heads, seq_len, head_dim).
        """
        return states

    def bias(self, query_position_ids: torch.Tensor, key_position_ids: torch.Tensor) -> torch.Tensor | None:
        """Return what is added to the scores of self-attention.

        Args:
            query_position_ids: (batch or 1, query_len).
            key_position_ids: (batch or 1, key_len).

        Returns:
            (batch or 1, heads, query_len, key_len), or None for nothing.
        """
        return None


class TokenPositions(NamedTuple):
    """Where the tokens of a call are in their texts; travels beside the masks, down to self-attention."""

    position_ids: torch.Tensor  # (batch or 1, query_len)
    rotate: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None  # None where nothing is turned

    def turn(self, states: torch.Tensor) -> torch.Tensor:
        """Turn queries or keys, (batch, heads, query_len, head_dim), where the encoding does so."""
        return states if self.rotate is None else self.rotate(states, self.position_ids)


class SinusoidalPositions(Positions):
    """PE(pos, 2i) = sin(pos / 10000^(2i/d_model)), PE(pos, 2i+1) = cos(pos / 10000^(2i/d_model)).

    Computed on the fly for any position, so that there is neither a longest text nor a table to save.
    """

    def __init__(self, config: PreTrainedConfig, num_heads: int, is_causal: bool):
        super().__init__(config, num_heads, is_causal)
        self.d_model = config.d_model

    def forward(self, position_ids: torch.Tensor, length: int) -> torch.Tensor:
        """Encode positions.

        Args:
            position_ids: (batch, seq_len).
            length: Not read: sinusoids know any position.

        Returns:
            (batch, seq_len, d_model) of float32.
        """
        even = torch.arange(0, self.d_model, 2, device=position_ids.device, dtype=torch.float32)  # (d_model / 2,)
        wavelength = torch.pow(10000.0, even / self.d_model)  # (d_model / 2,)
        angles = position_ids.unsqueeze(-1) / wavelength  # (batch, seq_len, d_model / 2)
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)  # (batch, seq_len, d_model)


class LearnedPositions(Positions, nn.Embedding):
    """One learned vector for each position (paper, Table 3, row E; Gehring et al. 2017)."""

    def __init__(self, config: PreTrainedConfig, num_heads: int, is_causal: bool):
        nn.Embedding.__init__(self, config.max_position_embeddings, config.d_model)

    @classmethod
    def longest_text(cls, config: PreTrainedConfig) -> int:
        """Return the length of the table."""
        return config.max_position_embeddings

    def forward(self, position_ids: torch.Tensor, length: int) -> torch.Tensor:  # type: ignore[override]
        """Look positions up.

        Args:
            position_ids: (batch, seq_len).
            length: Length of the text so far, at most `max_position_embeddings`.

        Returns:
            (batch, seq_len, d_model).

        Raises:
            ValueError: When the text is longer than the table.
        """
        if not torch.compiler.is_compiling() and length > self.num_embeddings:
            raise ValueError(
                f"A text of {int(length)} tokens is longer than the {self.num_embeddings} learned positions "
                "(max_position_embeddings). Shorten it, or train with a larger table or with sinusoidal positions."
            )
        return nn.Embedding.forward(self, position_ids)


class RotaryPositions(Positions):
    """(x_i, x_{i+d/2}) turned by pos * w_i, w_i = 10000^(-2i/d), for queries and keys (Su et al. 2021, section 3.4.2).

    With queries and keys as complex numbers, score_mn = Re sum_i q_i k_i^* e^{i (m-n) w_i}: it depends on how far the
    two tokens are apart, m - n, and on nothing else about their places. There is neither a longest text nor a weight.
    The paper turns neighbours (x_2i, x_2i+1); which numbers are a pair makes no difference to what can be learned, and
    halves are one operation each.
    """

    def rotate(self, states: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """Turn queries or keys.

        Args:
            states: (batch, heads, seq_len, head_dim).
            position_ids: (batch or 1, seq_len).

        Returns:
            (batch, heads, seq_len, head_dim).
        """
        half = states.shape[-1] // 2
        powers = torch.arange(half, device=states.device, dtype=torch.float32) / half  # (head_dim / 2,)
        angles = position_ids[:, None, :, None] / torch.pow(10000.0, powers)  # (batch or 1, 1, seq_len, head_dim / 2)
        cos, sin = angles.cos().to(states.dtype), angles.sin().to(states.dtype)
        first, second = states.chunk(2, dim=-1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class RelativePositions(Positions):
    """e_ij = q_i . k_j / sqrt(d) + b[bucket(j - i)], one learned b for each head and range of distances.

    Shaw et al. 2018 (arXiv:1803.02155) had a vector for each distance and layer; Raffel et al. 2020 (arXiv:1910.10683,
    section 2.1) made it a number that all layers of a stack share. Half of the buckets hold one distance each, the
    others ever longer ranges up to `relative_attention_max_distance`, and the last one all that is farther. In the
    encoder there are half as many for either side; the decoder sees one side alone.
    """

    BUCKETS = 32

    def __init__(self, config: PreTrainedConfig, num_heads: int, is_causal: bool):
        super().__init__(config, num_heads, is_causal)
        self.farthest, self.is_causal = config.relative_attention_max_distance, is_causal
        self.distance_bias = nn.Embedding(self.BUCKETS, num_heads)

    def buckets(self, distances: torch.Tensor) -> torch.Tensor:
        """Return the bucket of each distance.

        Args:
            distances: Of a key from its query, below 0 for earlier keys; of any shape.

        Returns:
            int64 of that shape, from 0 to `BUCKETS` - 1.
        """
        count = self.BUCKETS if self.is_causal else self.BUCKETS // 2  # for one side
        side = 0 if self.is_causal else (distances > 0) * count
        apart = (-distances).clamp(min=0) if self.is_causal else distances.abs()
        near = count // 2  # from here on a bucket holds several distances
        ranges = (apart.clamp(min=1) / near).log() / math.log(self.farthest / near) * (count - near)
        far = (near + ranges.long()).clamp(max=count - 1)
        return side + torch.where(apart < near, apart, far)

    def bias(self, query_position_ids: torch.Tensor, key_position_ids: torch.Tensor) -> torch.Tensor:
        """Return what is added to the scores of self-attention.

        Args:
            query_position_ids: (batch or 1, query_len).
            key_position_ids: (batch or 1, key_len).

        Returns:
            (batch or 1, heads, query_len, key_len).
        """
        distances = key_position_ids[:, None, :] - query_position_ids[:, :, None]  # (batch or 1, query_len, key_len)
        return self.distance_bias(self.buckets(distances)).permute(0, 3, 1, 2)  # (batch or 1, heads, query, key)


POSITIONS: dict[str, type[Positions]] = {
    "sinusoidal": SinusoidalPositions,
    "learned": LearnedPositions,
    "rotary": RotaryPositions,
    "relative": RelativePositions,
}

__all__ = [
    "POSITIONS",
    "LearnedPositions",
    "Positions",
    "RelativePositions",
    "RotaryPositions",
    "SinusoidalPositions",
    "TokenPositions",
]
