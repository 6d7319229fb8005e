"""Copying: the next token is either made from the vocabulary or copied from the source (See et al. 2017, section 2.2).

    p(token) = g softmax(logits)[token] + (1 - g) (sum of a_j over the places j of the source that hold the token)

(arXiv:1704.04368). a is attention over the source with a query and a key of its own, and the gate g in (0, 1) is read
from the decoder's state and from what it attends to. Where most of the answer is in the question, as in inflection,
names and numbers, a model need not learn to say each token by itself.
"""

import torch
from torch import nn
from torch.nn.functional import logsigmoid
from transformers import PreTrainedConfig

from .masks import Packing

LEAST = 1e-9  # probability of a token that the source does not hold; its logarithm has to be finite


class CopyLayer(nn.Module):
    """Attention over the source that decides what to copy, and how likely copying is."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.query = nn.Linear(config.d_model, config.d_model)
        self.key = nn.Linear(config.d_model, config.d_model)
        self.gate = nn.Linear(2 * config.d_model, 1)

    def forward(
        self,
        logits: torch.Tensor,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        source_ids: torch.Tensor,
        source_mask: torch.Tensor | None = None,
        packing: Packing | None = None,
    ) -> torch.Tensor:
        """Mix what the decoder would say with what it would copy.

        Args:
            logits: (batch, target_len, vocab_size), of the output layer.
            hidden_states: (batch, target_len, d_model), of the decoder.
            encoder_hidden_states: (batch, source_len, d_model).
            source_ids: (batch, source_len).
            source_mask: (batch, source_len), 1 = token, 0 = padding.
            packing: The segments of packed rows; each copies from its own source.

        Returns:
            Logarithms of probabilities, (batch, target_len, vocab_size), in float32 or wider.
        """
        scores = self.query(hidden_states) @ self.key(encoder_hidden_states).transpose(1, 2)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) * hidden_states.shape[-1] ** -0.5
        if packing is not None:
            is_own = packing["target_segment_ids"].unsqueeze(2) == packing["source_segment_ids"].unsqueeze(1)
            scores = scores.masked_fill(~is_own, torch.finfo(scores.dtype).min)
        elif source_mask is not None:
            scores = scores.masked_fill(source_mask.unsqueeze(1) == 0, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1)  # (batch, target_len, source_len)
        context = weights.to(encoder_hidden_states.dtype) @ encoder_hidden_states  # (batch, target_len, d_model)
        gate = self.gate(torch.cat([hidden_states, context], dim=-1)).to(scores.dtype)  # (batch, target_len, 1)
        places = source_ids.unsqueeze(1).expand_as(weights)
        copied = torch.zeros_like(logits, dtype=scores.dtype).scatter_add(-1, places, weights)
        made = logits.to(scores.dtype).log_softmax(dim=-1)
        return torch.logaddexp(logsigmoid(gate) + made, logsigmoid(-gate) + copied.clamp(min=LEAST).log())
