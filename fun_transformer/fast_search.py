"""Beam search, greedy search and sampling over a `FastDecoder`: what `generate` finds, sooner.

The searches are those of transformers' `GenerationMixin`, choice by choice: the same candidates, length penalty, rules
of stopping, scores and outputs. Two things differ, beside the decoder:

    finished texts leave the batch   so that a batch does not cost the length of its longest text for each of them
    candidates                       the best few of num_beams * vocab_size scores lie in the blocks of scores with the
                                     highest maxima: no other block is looked at twice
"""

from typing import Any

import torch
from torch.nn import functional as F
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation import (
    EosTokenCriteria,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    GenerateBeamEncoderDecoderOutput,
    GenerateEncoderDecoderOutput,
    MaxLengthCriteria,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

from .fast_decoder import FastDecoder

NEVER = -1e9  # the score of what cannot be chosen, as in transformers
EMPTY = -1  # what follows the end of a text, and the beam index of a prompt
BLOCKS = 50  # into which the scores of a beam are divided
SMALL_VOCABULARY = 2048  # below it all scores are compared at once
LEAVING_SHARE = 8  # finished texts leave when they are at least one in eight: moving the others has its price
# They look at one row at a time, so that it does not matter which others are in the batch.
ROW_BY_ROW = {
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
}


def best_places(log_probs: torch.Tensor, scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the best continuations of the beams of each text.

    Args:
        log_probs: Of each token after each beam (batch, beams, vocab_size).
        scores: Of the beams (batch, beams).
        count: How many continuations.

    Returns:
        Their scores, and their places in beams * vocab_size, both (batch, count), the best first.
    """
    batch_size, beams, vocab_size = log_probs.shape
    if vocab_size < SMALL_VOCABULARY or count > beams * BLOCKS:
        return torch.topk((log_probs + scores[:, :, None]).flatten(1), count)  # type: ignore[return-value]
    width = vocab_size // BLOCKS
    in_blocks = log_probs[:, :, : width * BLOCKS].unflatten(-1, (BLOCKS, width))
    maxima = (in_blocks.amax(dim=-1) + scores[:, :, None]).flatten(1)  # (batch, beams * BLOCKS)
    blocks = torch.topk(maxima, count).indices  # (batch, count)
    of_beam, of_block = blocks // BLOCKS, blocks % BLOCKS
    begins = of_beam * vocab_size + of_block * width
    places = (begins[:, :, None] + torch.arange(width, device=blocks.device)).flatten(1)  # (batch, count * width)
    values = log_probs.flatten(1).gather(1, places).unflatten(1, (count, width))
    values = (values + scores.gather(1, of_beam)[:, :, None]).flatten(1)
    if width * BLOCKS < vocab_size:  # what is in no block
        rest = torch.arange(beams * vocab_size, device=blocks.device).view(beams, vocab_size)[:, width * BLOCKS :]
        places = torch.cat([places, rest.flatten().expand(batch_size, -1)], dim=1)
        values = torch.cat([values, (log_probs[:, :, width * BLOCKS :] + scores[:, :, None]).flatten(1)], dim=1)
    values, chosen = torch.topk(values, count)
    return values, places.gather(1, chosen)


class Search:
    """What the searches share: the call, and when a text is over.

    Args:
        decoder: What scores the next tokens.
        logits_processor: Change these scores.
        stopping_criteria: Say which texts are over.
        generation_config: That of the call.
    """

    def __init__(
        self,
        decoder: FastDecoder,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
    ):
        self.decoder, self.config = decoder, generation_config
        self.logits_processor, self.stopping_criteria = logits_processor, stopping_criteria
        ends = [] if generation_config.eos_token_id is None else torch.as_tensor(generation_config.eos_token_id)
        self.ends: list[int] = ends if isinstance(ends, list) else ends.flatten().tolist()
        pad = generation_config.pad_token_id
        self.pad = int(pad) if pad is not None else self.ends[0] if self.ends else EMPTY
        self.returns_all = bool(generation_config.return_dict_in_generate)
        self.kept: dict[str, list[torch.Tensor]] = {"scores": [], "logits": []}
        self.knows_criteria = all(type(one) in (MaxLengthCriteria, EosTokenCriteria) for one in stopping_criteria)
        self.may_leave = (
            self.knows_criteria
            and not generation_config.do_sample
            and not self.returns_all
            and all(type(one) in ROW_BY_ROW for one in logits_processor)
        )

    def are_over(self, tokens: torch.Tensor, length: int) -> torch.Tensor:
        """Say which texts end with their new tokens, where only tokens and lengths end a text.

        Args:
            tokens: Of any shape.
            length: Of the texts with these tokens.

        Returns:
            The shape of `tokens`, of bool.
        """
        over = torch.zeros_like(tokens, dtype=torch.bool)
        for criterion in self.stopping_criteria:
            if isinstance(criterion, EosTokenCriteria):
                for end in criterion.eos_token_id.tolist():
                    over |= tokens == end
            elif length >= criterion.max_length:
                over.fill_(True)
        return over

    def keep(self, name: str, values: torch.Tensor) -> None:
        """Keep scores or logits of a step, if they are to be returned."""
        if self.returns_all and getattr(self.config, f"output_{name}"):
            self.kept[name].append(values.clone())

    def returned(self, name: str) -> tuple[torch.Tensor, ...] | None:
        """Return what was kept, a tensor for each step; None if it was not asked for."""
        return tuple(self.kept[name]) if self.returns_all and getattr(self.config, f"output_{name}") else None


class BeamSearch(Search):
    """Keep the `num_beams` likeliest beginnings of each text, and the best that are finished."""

    def run(self, input_ids: torch.Tensor) -> Any:
        """Search.

        Args:
            input_ids: (batch * num_beams, prompt_len), the rows of a text are equal.

        Returns:
            What `generate` returns.
        """
        beams = self.config.num_beams
        prompts = input_ids.view(-1, beams, input_ids.shape[1])  # (batch, num_beams, prompt_len)
        batch_size, _, self.prompt_len = prompts.shape
        self.texts = torch.arange(batch_size, device=input_ids.device)  # numbers of the texts that are not over
        # Of each beam its tokens, and the rows of the batch that they were found in (batch, num_beams, 2, length).
        self.running = torch.stack([prompts, torch.full_like(prompts, EMPTY)], dim=2)
        self.scores = torch.full(prompts.shape[:2], NEVER, dtype=torch.float32, device=input_ids.device)
        self.scores[:, 0] = 0.0  # all beams are equal: only the first counts
        self.finished = self.running  # the same for beams that are finished, or places for them
        self.finished_scores = torch.full_like(self.scores, NEVER)
        self.is_finished = torch.zeros_like(self.scores, dtype=torch.bool)
        self.may_improve = torch.ones_like(self.is_finished[:, :1])
        self.left: list[tuple[torch.Tensor, ...]] = []
        tokens = prompts[:, :1, -1]  # (batch, 1)
        while tokens.numel() > 0:
            tokens = self.advance(self.decoder.step(tokens).float())
        return self.result()

    def advance(self, logits: torch.Tensor) -> torch.Tensor:
        """Choose the next tokens of all beams.

        Args:
            logits: (batch, vocab_size) at the first step, then (batch * num_beams, vocab_size).

        Returns:
            (batch, num_beams), the tokens; nothing when the search is over.
        """
        count = max(2, 1 + len(self.ends)) * self.config.num_beams
        scores, places = self.continuations(logits, count)
        vocab_size, length = logits.shape[-1], self.running.shape[-1] + 1
        parents, tokens = places // vocab_size, places % vocab_size  # (batch, count)
        candidates = None
        if self.knows_criteria:
            are_over = self.are_over(tokens, length)
        else:
            candidates = self.extend(parents, tokens)
            scores_so_far = self.returned("scores")
            are_over = self.stopping_criteria(candidates[:, :, 0].flatten(0, 1), scores_so_far).view_as(tokens)
        if self.logits_processor or bool(are_over[:, : self.config.num_beams].any()):
            self.finish(self.extend(parents, tokens) if candidates is None else candidates, scores, are_over)

        running_scores = scores + are_over * NEVER
        chosen = torch.topk(running_scores, self.config.num_beams).indices  # (batch, num_beams)
        parents, tokens = parents.gather(1, chosen), tokens.gather(1, chosen)
        self.running, self.scores = self.extend(parents, tokens), running_scores.gather(1, chosen)
        self.decoder.reorder(parents)
        self.look_ahead(length)
        if self.is_over(are_over):
            return tokens[:0]
        return self.let_leave(tokens)

    def continuations(self, logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Score all continuations, and choose some, as `best_places` does."""
        config, log_probs = self.config, F.log_softmax(logits, dim=-1)
        beams = log_probs.shape[0] // self.texts.shape[0]
        if beams < config.num_beams and (
            self.logits_processor or self.returns_all or config.do_sample or count > logits.shape[-1]
        ):
            logits, log_probs = (x.repeat_interleave(config.num_beams, dim=0) for x in (logits, log_probs))
            beams = config.num_beams
        if self.logits_processor:
            log_probs = self.logits_processor(self.running[:, :, 0].flatten(0, 1), log_probs)
        self.keep("logits", logits)
        self.keep("scores", log_probs)
        log_probs = log_probs.view(-1, beams, log_probs.shape[-1])
        scores = self.scores[:, :beams]
        if not config.do_sample:
            return best_places(log_probs, scores, count)
        totals = (log_probs + scores[:, :, None]).flatten(1)  # (batch, num_beams * vocab_size)
        places = torch.multinomial(F.softmax(totals, dim=-1), num_samples=count)
        return totals.gather(1, places), places

    def extend(self, parents: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Append tokens to beams, both (batch, count); return (batch, count, 2, length + 1) as `self.running` is."""
        rows = parents + self.texts[:, None] * self.config.num_beams
        last = torch.stack([tokens, rows], dim=-1).unsqueeze(-1)  # (batch, count, 2, 1)
        index = parents[:, :, None, None].expand(-1, -1, *self.running.shape[2:])
        return torch.cat([self.running.gather(1, index), last], dim=-1)

    def finish(self, candidates: torch.Tensor, scores: torch.Tensor, are_over: torch.Tensor) -> None:
        """Keep the best of what is finished and what is now.

        Args:
            candidates: (batch, count, 2, length).
            scores: (batch, count).
            are_over: (batch, count).
        """
        config, length = self.config, candidates.shape[-1]
        just_finished = are_over.clone()
        just_finished[:, config.num_beams :] = False  # the others are there to go on with
        scores = scores / ((length - self.prompt_len) ** config.length_penalty)
        is_full = self.is_finished.all(dim=-1, keepdim=True) & (config.early_stopping is True)
        for is_closed in (is_full, ~self.may_improve, ~just_finished):
            scores = scores + is_closed * NEVER
        finished = F.pad(self.finished, (0, length - self.finished.shape[-1]), value=EMPTY)
        merged_scores = torch.cat([self.finished_scores, scores], dim=1)
        best = torch.topk(merged_scores, config.num_beams).indices  # (batch, num_beams)
        self.finished_scores = merged_scores.gather(1, best)
        self.is_finished = torch.cat([self.is_finished, just_finished], dim=1).gather(1, best)
        index = best[:, :, None, None].expand(-1, -1, 2, length)
        self.finished = torch.cat([finished, candidates], dim=1).gather(1, index)

    def look_ahead(self, length: int) -> None:
        """Find out in which texts a beam that goes on may still beat a finished one.

        Args:
            length: That of the beams.
        """
        config = self.config
        longest = config.max_length if config.early_stopping == "never" and config.length_penalty > 0.0 else length
        best = self.scores[:, :1] / ((longest - self.prompt_len) ** config.length_penalty)
        worst = self.finished_scores.amin(dim=1, keepdim=True).where(self.is_finished, NEVER)  # (batch, num_beams)
        self.may_improve = self.may_improve & (best > worst).any(dim=-1, keepdim=True)

    def is_over(self, are_over: torch.Tensor) -> bool:
        """Say whether no text goes on; `are_over` (batch, count) says which continuations were ends."""
        is_full = self.is_finished.all() & (self.config.early_stopping is True)
        return not bool(self.may_improve.any() & ~is_full & ~are_over.all())

    def let_leave(self, tokens: torch.Tensor) -> torch.Tensor:
        """Take texts that are over out of the batch; return the next tokens of the others, (batch, num_beams)."""
        if not self.may_leave:
            return tokens
        is_full = self.is_finished.all(dim=-1)  # (batch,)
        goes_on = ~is_full if self.config.early_stopping is True else ~is_full | self.may_improve[:, 0]
        leaving = goes_on.shape[0] - int(goes_on.sum())
        if leaving == 0 or leaving * LEAVING_SHARE < goes_on.shape[0]:
            return tokens
        self.take_leave(~goes_on)
        stays = goes_on.nonzero()[:, 0]
        self.decoder.keep(stays)
        names = ("texts", "running", "scores", "finished", "finished_scores", "is_finished", "may_improve")
        for name in names:
            setattr(self, name, getattr(self, name).index_select(0, stays))
        return tokens.index_select(0, stays)

    def take_leave(self, leaves: torch.Tensor) -> None:
        """Keep the results of texts, (batch,) of bool."""
        self.left.append((self.texts[leaves], self.finished[leaves], self.finished_scores[leaves]))

    def result(self) -> Any:
        """Put the texts in order; return what `generate` returns."""
        self.take_leave(torch.ones_like(self.texts, dtype=torch.bool))
        texts, found, scores = zip(*self.left)
        longest = max(part.shape[-1] for part in found)
        order = torch.cat(texts).argsort()
        found = torch.cat([F.pad(part, (0, longest - part.shape[-1]), value=EMPTY) for part in found])[order]
        count = self.config.num_return_sequences
        sequences, rows = found[:, :count].flatten(0, 1).unbind(dim=1)  # both (batch * count, longest)
        generated = int((rows != EMPTY).sum(dim=1).max())
        rows = rows[:, self.prompt_len : self.prompt_len + generated].int()
        fill = (self.pad or self.ends[0]) if self.ends else EMPTY  # as in transformers: token 0 is no padding here
        sequences = sequences.masked_fill(sequences == EMPTY, fill)[:, : self.prompt_len + generated]
        if not self.returns_all:
            return sequences
        return GenerateBeamEncoderDecoderOutput(
            sequences=sequences,
            sequences_scores=torch.cat(scores)[order][:, :count].flatten() if self.config.output_scores else None,
            scores=self.returned("scores"),
            logits=self.returned("logits"),
            beam_indices=rows,
            past_key_values=self.decoder.cache(self.prompt_len),
        )


class Sampling(Search):
    """Go on with the likeliest token (greedy search), or with one that is drawn."""

    def run(self, input_ids: torch.Tensor, streamer: Any = None) -> Any:
        """Search.

        Args:
            input_ids: (batch * num_return_sequences, prompt_len), the rows of a text are equal.
            streamer: Gets each token as soon as it is there.

        Returns:
            What `generate` returns.
        """
        beams, prompt_len = self.decoder.num_beams, input_ids.shape[1]
        may_leave = self.may_leave and streamer is None
        has_end = any(hasattr(criterion, "eos_token_id") for criterion in self.stopping_criteria)
        rows = torch.arange(input_ids.shape[0], device=input_ids.device)  # numbers of the texts that are not over
        goes_on = torch.ones_like(rows, dtype=torch.bool)
        left: list[tuple[torch.Tensor, torch.Tensor]] = []
        tokens = input_ids[::beams, -1]
        while bool(goes_on.any()):
            logits = self.decoder.step(tokens.view(self.decoder.batch_size, -1)).float()
            if logits.shape[0] < input_ids.shape[0]:
                logits = logits.repeat_interleave(beams, dim=0)
            tokens = self.choose(input_ids, logits)
            if has_end:
                tokens = tokens.where(goes_on, self.pad)
            input_ids = torch.cat([input_ids, tokens[:, None]], dim=-1)
            goes_on = goes_on & ~(
                self.are_over(tokens, input_ids.shape[1])
                if self.knows_criteria
                else self.stopping_criteria(input_ids, self.returned("scores"))
            )
            if streamer is not None:
                streamer.put(tokens.cpu())
            leaving = goes_on.shape[0] - int(goes_on.sum()) if may_leave else 0
            if leaving and leaving * LEAVING_SHARE >= goes_on.shape[0] and leaving < goes_on.shape[0]:
                left.append((rows[~goes_on], input_ids[~goes_on]))
                stays = goes_on.nonzero()[:, 0]
                self.decoder.keep(stays)
                rows, input_ids, tokens, goes_on = (
                    x.index_select(0, stays) for x in (rows, input_ids, tokens, goes_on)
                )
        if streamer is not None:
            streamer.end()
        sequences = self.in_order([*left, (rows, input_ids)])
        if not self.returns_all:
            return sequences
        return GenerateEncoderDecoderOutput(
            sequences=sequences,
            scores=self.returned("scores"),
            logits=self.returned("logits"),
            past_key_values=self.decoder.cache(prompt_len),
        )

    def in_order(self, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """Put the texts of all parts, each with their numbers (count,) and tokens (count, length), into one tensor."""
        longest = parts[-1][1].shape[1]
        tokens = [F.pad(part, (0, longest - part.shape[1]), value=self.pad) for _, part in parts]
        return torch.cat(tokens)[torch.cat([numbers for numbers, _ in parts]).argsort()]

    def choose(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Choose a token for each row of `input_ids` (batch, length) from its logits (batch, vocab_size)."""
        scores = self.logits_processor(input_ids, logits) if self.logits_processor else logits
        self.keep("scores", scores)
        self.keep("logits", logits)
        if not self.config.do_sample:
            return scores.max(dim=-1).indices  # the first of equal ones, as argmax(), but sooner
        return torch.multinomial(F.softmax(scores, dim=-1), num_samples=1).squeeze(1)


__all__ = ["BeamSearch", "Sampling"]
