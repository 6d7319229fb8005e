"""Beam search of transformers with another choice of beams at each step.

The loop, its caches and its rules of when a search is over stay those of `generate`; what is chosen among the
continuations is ours. A search is a callable for `generate(..., custom_generate=search)`.
"""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.generation import GenerationMixin


class SteeredModel:
    """A model as beam search sees it: everything is the model's, but the choice of continuations.

    Args:
        model: The model that generates; it is not changed.
    """

    def __init__(self, model: PreTrainedModel):
        self.model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model."""
        return self.model(*args, **kwargs)

    def search(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        """Run the beam search of transformers with this choice; arguments and result are those of its loop."""
        return GenerationMixin._beam_search(self, input_ids, **kwargs)  # type: ignore[arg-type]

    def choose(self, log_probs: torch.Tensor, sequences: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
        """Choose continuations, the ones to keep first.

        Args:
            log_probs: Of each beam with each token after it (batch, num_beams * vocab_size).
            sequences: The beams (batch, num_beams, length).
            count: How many to choose for each text.

        Returns:
            Their log-probabilities, and their places in the second dimension of `log_probs`, both (batch, count).
        """
        return torch.topk(log_probs, k=count)  # type: ignore[return-value]

    def keep(self, chosen: torch.Tensor) -> None:
        """Learn which of the continuations chosen are the next beams (batch, num_beams)."""

    def _get_top_k_continuations(
        self,
        accumulated_log_probs: torch.Tensor,
        running_sequences: torch.Tensor,
        running_beam_indices: torch.Tensor,
        cur_len: int,
        decoder_prompt_len: int,
        do_sample: bool,
        beams_to_keep: int,
        num_beams: int,
        batch_size: int,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the chosen continuations as the loop wants them: log-probabilities, sequences, beam indices."""
        if do_sample:
            raise ValueError("This search chooses the best continuations: leave out do_sample=True.")
        log_probs, places = self.choose(accumulated_log_probs, running_sequences[:, :, :cur_len], beams_to_keep)
        vocab_size = accumulated_log_probs.shape[-1] // num_beams
        beams, tokens = places // vocab_size, places % vocab_size  # (batch, beams_to_keep)
        sequences = torch.take_along_dim(running_sequences, beams[..., None], dim=1)
        sequences[:, :, cur_len] = tokens
        beam_indices = torch.take_along_dim(running_beam_indices, beams[..., None], dim=1)
        rows = beams + torch.arange(batch_size, device=beams.device)[:, None] * num_beams
        beam_indices[:, :, cur_len - decoder_prompt_len] = rows
        return log_probs, sequences, beam_indices

    def _get_running_beams_for_next_iteration(
        self,
        topk_log_probs: torch.Tensor,
        topk_running_sequences: torch.Tensor,
        topk_running_beam_indices: torch.Tensor,
        next_token_hits_stopping_criteria: torch.Tensor,
        num_beams: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the first of the chosen continuations that are not finished: sequences, scores, beam indices."""
        is_over = next_token_hits_stopping_criteria
        first = torch.argsort(is_over.long(), dim=1, stable=True)[:, :num_beams]
        self.keep(first)
        scores = topk_log_probs + is_over * -1e9
        return (
            torch.take_along_dim(topk_running_sequences, first[..., None], dim=1),
            torch.take_along_dim(scores, first, dim=1),
            torch.take_along_dim(topk_running_beam_indices, first[..., None], dim=1),
        )
