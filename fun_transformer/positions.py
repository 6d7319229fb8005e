"""Positions: attention sees a set of tokens, so their order has to be added to their embeddings (paper, section 3.5).

Both kinds are indexed by `position_ids` of shape (batch, seq_len), never by the row of the batch.
"""

import torch
from torch import nn


def position_ids_from_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """Number the tokens of each row from 0, so that padding on either side moves none of them.

    Args:
        attention_mask: (batch, seq_len), 1 = token, 0 = padding.

    Returns:
        (batch, seq_len) of int64; padding before the first token gets 0.
    """
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def position_ids_from_sentences(sentences: torch.Tensor) -> torch.Tensor:
    """Number the tokens of packed rows: each sentence begins with 0.

    Args:
        sentences: (batch, seq_len), which sentence of its row each token belongs to; 0 = filler.

    Returns:
        (batch, seq_len) of int64; 0 for filler.
    """
    places = torch.arange(sentences.shape[1], device=sentences.device).expand_as(sentences)  # (batch, seq_len)
    begins = nn.functional.pad(sentences[:, 1:] != sentences[:, :-1], (1, 0), value=True)  # (batch, seq_len)
    first = places.where(begins, 0).cummax(-1).values  # (batch, seq_len): place of the sentence's first token
    return (places - first).where(sentences > 0, 0)


class SinusoidalPositions(nn.Module):
    """PE(pos, 2i) = sin(pos / 10000^(2i/d_model)), PE(pos, 2i+1) = cos(pos / 10000^(2i/d_model)).

    Computed on the fly for whatever positions are asked, so that there is neither a longest text nor a table to save.
    """

    def __init__(self, max_position_embeddings: int, d_model: int):
        super().__init__()
        self.d_model = d_model

    def forward(self, position_ids: torch.Tensor, length: int) -> torch.Tensor:
        """Encode positions.

        Args:
            position_ids: (batch, seq_len).
            length: Length of the text so far; sinusoids have no use for it.

        Returns:
            (batch, seq_len, d_model) of float32.
        """
        even = torch.arange(0, self.d_model, 2, device=position_ids.device, dtype=torch.float32)  # (d_model / 2,)
        wavelength = torch.pow(10000.0, even / self.d_model)  # (d_model / 2,)
        angles = position_ids.unsqueeze(-1) / wavelength  # (batch, seq_len, d_model / 2)
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)  # (batch, seq_len, d_model)


class LearnedPositions(nn.Embedding):
    """One learned vector a position (paper, Table 3, row E; Gehring et al. 2017)."""

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
        return super().forward(position_ids)


POSITIONS = {"sinusoidal": SinusoidalPositions, "learned": LearnedPositions}
