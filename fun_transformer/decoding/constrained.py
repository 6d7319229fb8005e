"""Words that must be in the output: beam search with constraints (lexically constrained decoding).

A constraint is a sequence of tokens, or one of several, that has to occur. Beams that have said different numbers of
those tokens are ranked apart, and each number gets its share of the beams: dynamic beam allocation (Post and Vilar
2018, arXiv:1804.06609), with the turns of Hu et al. (2019, "Improved Lexically Constrained Decoding", section 3): the
best beam of each number, then the second best, and so on, most tokens first. No output ends before all are said, and
when only as many steps are left as it takes to say them, nothing else is said.

    >>> search = ConstrainedBeamSearch([[Constraint(((512, 87),))]])
    >>> model.generate(**inputs, num_beams=5, custom_generate=search)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation import GenerationMixin

from .steering import SteeredModel

IMPOSSIBLE = -1e8  # log-probabilities below are of continuations that are ruled out
LATE = -1e9  # of a continuation after which what is missing does not fit any more


@dataclass(frozen=True)
class Constraint:
    """A phrase that the output must contain, in one of several spellings.

    Attributes:
        spellings: Sequences of token ids, of which one has to occur.
        opening: Spellings that count only where the output begins, such as one without the space before a word.
    """

    spellings: tuple[tuple[int, ...], ...]
    opening: tuple[tuple[int, ...], ...] = ()

    @property
    def least(self) -> int:
        """Return the number of tokens of the shortest spelling that may occur anywhere."""
        return min(map(len, self.spellings))


@dataclass(frozen=True)
class Progress:
    """What a beam has said of the constraints of its text.

    Attributes:
        unmet: The numbers of those that it has not said.
        active: Those, with a spelling of each, whose first `length` tokens were the last ones.
        length: How many tokens these were.
        is_open: Nothing but special tokens was said yet.
        is_closed: The last token ended a constraint.
    """

    unmet: tuple[int, ...]
    active: tuple[tuple[int, tuple[int, ...]], ...] = ()
    length: int = 0
    is_open: bool = True
    is_closed: bool = False

    def missing(self, constraints: Sequence[Constraint]) -> int:
        """Return how many tokens it takes at least to say the rest."""
        total = sum(constraints[i].least for i in self.unmet)
        ways = [len(spelling) - self.length - constraints[i].least for i, spelling in self.active]
        return total + min(ways) if ways else total

    def next_tokens(self, constraints: Sequence[Constraint]) -> set[int]:
        """Return the tokens that go on with a constraint, or begin one."""
        tokens = {spelling[self.length] for _, spelling in self.active}
        return tokens | {spelling[0] for i in self.unmet for spelling in self._beginnings(constraints[i])}

    def after(self, token: int, constraints: Sequence[Constraint], special: frozenset[int]) -> "Progress":
        """Return the progress when a token was said."""
        if token in special:
            return Progress(self.unmet, is_open=self.is_open)
        active = tuple((i, way) for i, way in self.active if way[self.length] == token)
        length = self.length + 1
        if not active:  # what was begun is broken off; the token may begin another one
            length = 1
            active = tuple((i, way) for i in self.unmet for way in self._beginnings(constraints[i]) if way[0] == token)
        said = next((i for i, way in active if len(way) == length), None)
        if said is None:
            return Progress(self.unmet, active, length if active else 0, is_open=False)
        return Progress(tuple(i for i in self.unmet if i != said), is_open=False, is_closed=True)

    def _beginnings(self, constraint: Constraint) -> tuple[tuple[int, ...], ...]:
        return constraint.spellings + constraint.opening if self.is_open else constraint.spellings


class ConstrainedBeamSearch:
    """Beam search whose outputs contain given phrases; a callable for `generate(..., custom_generate=search)`.

    A text without constraints gets what plain beam search gives.

    Args:
        constraints: A list for each text of the batch.
        special_token_ids: Tokens that say nothing, such as the target language; they break no constraint.
        continuing: (vocab_size,) bool, True for tokens that would go on with a word: none of them follows the end of a
            constraint. None where tokens do not tell.
    """

    def __init__(
        self,
        constraints: Sequence[Sequence[Constraint]],
        special_token_ids: Sequence[int] = (),
        continuing: torch.Tensor | None = None,
    ):
        self.constraints = [tuple(of_text) for of_text in constraints]
        self.special = frozenset(special_token_ids)
        self.continuing = continuing

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: torch.Tensor,
        generation_config: GenerationConfig,
        **kwargs: Any,
    ) -> Any:
        """Search; called by `generate`.

        Raises:
            ValueError: There is one beam only, or the constraints do not fit into the longest output.
        """
        num_beams = generation_config.num_beams
        if any(self.constraints) and num_beams < 2:
            raise ValueError(
                "Words that must be in the output need beams to try them in: give num_beams=4, for instance."
            )
        if len(input_ids) != len(self.constraints) * num_beams:
            raise ValueError(
                f"Constraints for {len(self.constraints)} texts, but there are {len(input_ids) // num_beams} texts."
            )
        room = generation_config.max_length - input_ids.shape[1]
        for constraints in self.constraints:
            needed = sum(constraint.least for constraint in constraints) + 1
            if needed > room:
                raise ValueError(
                    f"The words that must be in the output take {needed} tokens with </s>, and it may have {room}. "
                    "Give a larger max_new_tokens, or fewer words."
                )
        eos = generation_config.eos_token_id
        ends = eos if isinstance(eos, list) else [] if eos is None else [eos]
        returned = generation_config.num_return_sequences or 1
        steered = ConstrainedModel(model, self, ends, generation_config.max_length, returned)
        return steered.search(input_ids, generation_config=generation_config, **kwargs)


class ConstrainedModel(SteeredModel):
    """The choice of beams of a constrained search.

    Args:
        model: The model that generates.
        search: With the constraints.
        ends: Ids of `</s>`.
        max_length: Of the output, with what the decoder begins with.
        returned: How many outputs of each text are returned.
    """

    def __init__(
        self, model: PreTrainedModel, search: ConstrainedBeamSearch, ends: list[int], max_length: int, returned: int
    ):
        super().__init__(model)
        self.returned = returned
        self.of_search, self.ends, self.max_length = search, ends, max_length
        self.special = search.special - set(ends)
        self.beams: list[list[Progress]] = []  # of each text
        self.chosen: list[list[Progress]] = []  # the continuations chosen
        self.seen: dict[tuple[int, Progress, int], tuple[Progress, int]] = {}  # by (text, progress, token)
        self.steps_left = max_length  # after the next token

    def choose(self, log_probs: torch.Tensor, sequences: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
        """Choose continuations by turns of what is missing; see the head of this file."""
        batch, num_beams, length = sequences.shape
        if not self.beams:
            self.beams = [
                [Progress(tuple(range(len(constraints))))] * num_beams for constraints in self.of_search.constraints
            ]
        rows = [i for i, constraints in enumerate(self.of_search.constraints) if constraints]
        if not rows:
            return super().choose(log_probs, sequences, count)
        self.steps_left = self.max_length - length - 1
        vocab_size = log_probs.shape[1] // num_beams
        self._rule_out(log_probs.view(batch * num_beams, vocab_size), num_beams)
        best, places = torch.topk(log_probs, k=count)
        candidates = self._candidates(log_probs, rows, places[rows], num_beams)
        self.chosen = [beams[:1] * count for beams in self.beams]
        picked_scores, picked_places = [], []
        for i, of_text in zip(rows, candidates):
            order = by_turns([(missing, score) for score, _, _, missing in of_text], count)
            self.chosen[i] = [of_text[j][2] for j in order]
            picked_scores.append([of_text[j][0] for j in order])
            picked_places.append([of_text[j][1] for j in order])
        best[rows] = torch.tensor(picked_scores, dtype=best.dtype, device=best.device)
        places[rows] = torch.tensor(picked_places, device=places.device)
        return best, places

    def keep(self, chosen: torch.Tensor) -> None:
        """Note the progress of the next beams."""
        if self.chosen:
            self.beams = [[progress[j] for j in row] for progress, row in zip(self.chosen, chosen.tolist())]

    def _check_early_stop_heuristic(
        self,
        is_early_stop_heuristic_unsatisfied: torch.Tensor,
        running_beam_scores: torch.Tensor,
        beam_scores: torch.Tensor,
        is_sent_finished: torch.Tensor,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Tell which texts may still find better outputs, (batch, 1).

        Beams that miss something hold most places, so that it takes long to finish as many outputs as there are
        beams. A text with constraints is over when the best beam that misses least cannot beat the last of the outputs
        that are returned.
        """
        last = beam_scores[:, self.returned - 1 : self.returned]  # (batch, 1)
        has_constraints = torch.tensor([[bool(of_text)] for of_text in self.of_search.constraints]).to(last.device)
        return GenerationMixin._check_early_stop_heuristic(
            is_early_stop_heuristic_unsatisfied=is_early_stop_heuristic_unsatisfied,
            running_beam_scores=running_beam_scores,
            beam_scores=torch.where(has_constraints, last, beam_scores),
            is_sent_finished=torch.where(has_constraints, last > IMPOSSIBLE, is_sent_finished),
            **kwargs,
        )

    def _rule_out(self, log_probs: torch.Tensor, num_beams: int) -> None:
        """Rule out, in (batch * num_beams, vocab_size), an early end, and words that a term would join."""
        beams = [progress for of_text in self.beams for progress in of_text]
        unmet = [row for row, progress in enumerate(beams) if progress.unmet]
        for end in self.ends:
            log_probs[unmet, end] = -torch.inf
        closed = [row for row, progress in enumerate(beams) if progress.is_closed]
        if closed and self.of_search.continuing is not None:
            continuing = self.of_search.continuing.to(log_probs.device).nonzero()[:, 0]
            log_probs[torch.tensor(closed, device=log_probs.device)[:, None], continuing] = -torch.inf

    def _candidates(self, log_probs: torch.Tensor, rows: list[int], places: torch.Tensor, num_beams: int):
        """Return continuations of texts with constraints: (log-probability, place, progress, tokens missing then).

        They are the best of the text, the best of each beam, and those that go on with a constraint. `LATE` is
        the log-probability of one after which there is no room for what is missing.
        """
        vocab_size = log_probs.shape[1] // num_beams
        of_beams = log_probs[rows].view(len(rows), num_beams, vocab_size).argmax(-1)  # (rows, num_beams)
        of_beams += torch.arange(num_beams, device=of_beams.device) * vocab_size
        found = []
        for i, top in zip(rows, torch.cat([places, of_beams], dim=1).tolist()):
            to_consider = set(top)
            for beam, progress in enumerate(self.beams[i]):
                next_tokens = progress.next_tokens(self.of_search.constraints[i])
                to_consider |= {beam * vocab_size + token for token in next_tokens}
            found.append(sorted(to_consider))
        flat = [i * log_probs.shape[1] + place for i, of_text in zip(rows, found) for place in of_text]
        scores = iter(log_probs.flatten()[flat].tolist())
        return [
            [self._candidate(i, place, next(scores), vocab_size) for place in of_text]
            for i, of_text in zip(rows, found)
        ]

    def _candidate(self, i: int, place: int, score: float, vocab_size: int) -> tuple[float, int, Progress, int]:
        beam, token = divmod(place, vocab_size)
        key = (i, self.beams[i][beam], token)
        if key not in self.seen:
            progress = key[1].after(token, self.of_search.constraints[i], self.special)
            self.seen[key] = progress, progress.missing(self.of_search.constraints[i])
        progress, missing = self.seen[key]
        is_late = missing > 0 and missing + 1 > self.steps_left
        return min(score, LATE) if is_late else score, place, progress, missing


def by_turns(candidates: list[tuple[int, float]], count: int) -> list[int]:
    """Return the order in which continuations are kept.

    Args:
        candidates: (tokens missing, log-probability) of each; those below `IMPOSSIBLE` come last.
        count: How many to return.
    """
    banks: dict[int, list[int]] = {}
    for j in sorted(range(len(candidates)), key=lambda j: -candidates[j][1]):
        banks.setdefault(candidates[j][0], []).append(j)
    ranked = []
    for turn, missing in enumerate(sorted(banks)):
        ranked += [(candidates[j][1] < IMPOSSIBLE, rank, turn, j) for rank, j in enumerate(banks[missing])]
    return [j for *_, j in sorted(ranked)[:count]]
