"""Diverse beam search: groups of beams that keep away from each other's words (Vijayakumar et al. 2016).

The beams are divided into groups that choose one after the other at each step (arXiv:1610.02424, section 4). A token y
has the score

    log p(y | y_1 .. y_{t-1}, x) - penalty * (how many beams of earlier groups have just chosen y),

the paper's Hamming diversity, and the penalties stay in the score of a beam. Each group is a beam search of its own
with its own finished outputs, so one group, or a penalty of 0 for the first one, is plain beam search.

    >>> search = DiverseBeamSearch(num_groups=3, penalty=0.5)
    >>> model.generate(**inputs, num_beams=6, num_return_sequences=6, custom_generate=search)
"""

import copy
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from .steering import SteeredModel


class DiverseBeamSearch:
    """Beam search in groups; a callable for `generate(..., custom_generate=search)`.

    The outputs of all groups are ranked by their scores, penalties included, as transformers 4 did.

    Args:
        num_groups: Into how many groups the beams are divided.
        penalty: For each beam of an earlier group that has just chosen the same token; 0.2 to 0.8 do well (paper).

    Raises:
        ValueError: There is no group, or the penalty is negative.
    """

    def __init__(self, num_groups: int, penalty: float = 0.5):
        if num_groups < 1:
            raise ValueError(f"num_groups={num_groups} leaves no beam. Give 1 (plain beam search) or more.")
        if penalty < 0:
            raise ValueError(f"penalty={penalty} would draw the groups together. Give 0 or more, such as 0.5.")
        self.num_groups = num_groups
        self.penalty = penalty

    def __call__(
        self, model: PreTrainedModel, input_ids: torch.Tensor, generation_config: GenerationConfig, **kwargs: Any
    ) -> Any:
        """Search; called by `generate`.

        Raises:
            ValueError: The beams cannot be divided into the groups.
        """
        num_beams = generation_config.num_beams
        if num_beams % self.num_groups:
            raise ValueError(
                f"num_beams={num_beams} cannot be divided into num_groups={self.num_groups}. Give a multiple, such as "
                f"num_beams={self.num_groups * max(2, num_beams // self.num_groups)}."
            )
        # A group is a text of its own for the loop of beam search: same rows, other names.
        of_group = copy.copy(generation_config)
        of_group.num_beams = of_group.num_return_sequences = num_beams // self.num_groups
        of_group.return_dict_in_generate = True
        steered = DiverseModel(model, self.num_groups, self.penalty)
        output = steered.search(input_ids, generation_config=of_group, **kwargs)
        scores = steered.beam_scores.view(-1, num_beams)  # (batch, num_beams), those of a group side by side
        best = scores.argsort(dim=1, descending=True, stable=True)[:, : generation_config.num_return_sequences]
        rows = (best + torch.arange(len(best), device=best.device)[:, None] * num_beams).flatten()
        lengths = (output.beam_indices[rows] >= 0).sum(-1)
        output.sequences = output.sequences[rows, : input_ids.shape[1] + int(lengths.max())]
        if not generation_config.return_dict_in_generate:
            return output.sequences
        output.beam_indices = output.beam_indices[rows, : int(lengths.max())]
        if output.sequences_scores is not None:
            output.sequences_scores = output.sequences_scores[rows]
        return output


class DiverseModel(SteeredModel):
    """The choice of beams of a diverse search, whose texts are (text, group) pairs.

    Args:
        model: The model that generates.
        num_groups: Groups of each text.
        penalty: See `DiverseBeamSearch`.
    """

    def __init__(self, model: PreTrainedModel, num_groups: int, penalty: float):
        super().__init__(model)
        self.num_groups, self.penalty = num_groups, penalty
        self.is_done: torch.Tensor | None = None  # (batch * num_groups,)
        self.beam_scores = torch.empty(0)  # (batch * num_groups, beams of a group)

    def choose(self, log_probs: torch.Tensor, sequences: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
        """Choose the best continuations of each group in turn, having lowered those that earlier groups chose."""
        groups, num_beams, _ = sequences.shape
        batch, vocab_size = groups // self.num_groups, log_probs.shape[1] // num_beams
        of_groups = log_probs.view(batch, self.num_groups, num_beams, vocab_size)
        done = torch.zeros(groups, device=log_probs.device) if self.is_done is None else self.is_done
        runs = 1 - done.to(log_probs.dtype).view(batch, self.num_groups, 1)
        chosen = log_probs.new_zeros(batch, vocab_size)  # how many beams of earlier groups chose each token
        scores, places = [], []
        for group in range(self.num_groups):
            lowered = of_groups[:, group] - self.penalty * chosen[:, None]  # (batch, num_beams, vocab_size)
            best, places_of_best = torch.topk(lowered.flatten(1), k=count)  # (batch, count)
            tokens = places_of_best % vocab_size
            first = torch.argsort(torch.isin(tokens, self.ends).long(), dim=1, stable=True)[:, :num_beams]
            chosen.scatter_add_(1, tokens.gather(1, first), runs[:, group].expand(-1, num_beams))
            scores.append(best)
            places.append(places_of_best)
        return torch.stack(scores, 1).flatten(0, 1), torch.stack(places, 1).flatten(0, 1)  # (groups, count)

    def search(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        """Run the loop of beam search, knowing which tokens end an output."""
        ends = kwargs["generation_config"].eos_token_id
        ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
        self.ends = torch.tensor(ends, dtype=torch.long, device=input_ids.device)
        return super().search(input_ids, **kwargs)

    def _check_early_stop_heuristic(self, **kwargs: Any) -> torch.Tensor:
        """Note the scores of the finished outputs, and which groups are done and push no other group away any more."""
        can_improve: torch.Tensor = self.model._check_early_stop_heuristic(**kwargs)  # type: ignore[operator]
        self.beam_scores = kwargs["beam_scores"]
        is_full = kwargs["is_sent_finished"].all(-1) if kwargs["early_stopping"] is True else False
        self.is_done = ~can_improve[:, 0] | is_full
        return can_improve
