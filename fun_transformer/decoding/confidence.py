"""How sure was the model? Log-probability and entropy of each token of a target, read by teacher forcing.

For a target y_1 .. y_n of a source x, log p(y_t) is log p(y_t | y_1 .. y_{t-1}, x), the model's own, whatever a search
or a logits processor made of it; the entropy is -sum_v p(v) log p(v) over the vocabulary at t, in nats. Beam search
ranks by sum_t log p(y_t) / n^length_penalty (Wu et al. 2016, section 7, in the form that transformers uses).

    >>> score_texts(model, tokenizer, ["今天吃什么好"], ["What shall we eat today?"])[0].mean_log_probability
    -1.62
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..pipeline_records import reading_copy
from .sequences import Sequences, generated, given, length_batches, target_tokens


@dataclass(frozen=True)
class Confidence:
    """The log-probabilities (natural logarithm) and entropies (nats) of one target.

    Attributes:
        tokens: The target's tokens, `</s>` with them (target_len).
        log_probabilities: log p of each (target_len); 0 for those that the model did not choose.
        entropies: Of the distribution that each was chosen from (target_len); 0 for those likewise.
        is_forced: Which ones the model did not choose, such as the target language (target_len).
    """

    tokens: list[str]
    log_probabilities: list[float]
    entropies: list[float]
    is_forced: list[bool]

    @property
    def mean_log_probability(self) -> float:
        """Return the mean over the tokens that the model chose."""
        chosen = self._chosen(self.log_probabilities)
        return math.fsum(chosen) / len(chosen)

    @property
    def min_log_probability(self) -> float:
        """Return that of the least probable token."""
        return min(self._chosen(self.log_probabilities))

    @property
    def entropy(self) -> float:
        """Return the mean entropy over the tokens that the model chose."""
        chosen = self._chosen(self.entropies)
        return math.fsum(chosen) / len(chosen)

    def beam_score(self, length_penalty: float = 1.0) -> float:
        """Return what beam search ranks by, `sequences_scores` of `generate`."""
        return math.fsum(self.log_probabilities) / len(self.tokens) ** length_penalty

    def record(self) -> dict[str, Any]:
        """Return the fields for a line of output, by the names that the pipelines use."""
        return {
            "log_probability": math.fsum(self.log_probabilities),
            "mean_log_probability": self.mean_log_probability,
            "min_log_probability": self.min_log_probability,
            "entropy": self.entropy,
            "target_tokens": self.tokens,
            "token_log_probabilities": self.log_probabilities,
        }

    def _chosen(self, values: list[float]) -> list[float]:
        """Return the values of the tokens that the model chose; 0.0 where it chose none."""
        return [value for value, forced in zip(values, self.is_forced) if not forced] or [0.0]


def score_generated(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    model_inputs,
    output_ids: torch.Tensor,
    generate_kwargs: dict[str, Any] | None = None,
) -> list[Confidence]:
    """Tell how sure a model was of what it generated.

    Args:
        model: The model that generated.
        tokenizer: Its tokenizer.
        model_inputs: `input_ids` and `attention_mask`, each (batch, source_len).
        output_ids: What `generate` returned: (batch * sequences, 1 + target_len).
        generate_kwargs: What was given to `generate` beside them, which tells the tokens that were forced. By default
            only the model's generation config does.

    Returns:
        One confidence for each row of `output_ids`.
    """
    sequences = generated(model, model_inputs, output_ids)
    forced = forced_tokens(model, sequences.target_ids, generate_kwargs or {})
    return _score(model, tokenizer, sequences, forced)


def score_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: list[str],
    targets: list[str],
    batch_size: int = 32,
) -> list[Confidence]:
    """Tell how probable given targets are, such as the translations of other systems.

    Args:
        model: An encoder-decoder of transformers.
        tokenizer: Its tokenizer, with its languages set where it has several.
        sources: The source texts, with their prefix where the model wants one.
        targets: One text for each.
        batch_size: Pairs read at a time.

    Returns:
        One confidence for each pair, in the order given.
    """
    if len(sources) != len(targets):
        raise ValueError(f"{len(sources)} sources and {len(targets)} targets: each source needs one target.")
    pairs = list(zip(sources, targets))
    found: dict[int, Confidence] = {}
    for batch in length_batches(pairs, batch_size):
        sequences = given(model, tokenizer, [sources[i] for i in batch], [targets[i] for i in batch])
        found |= zip(batch, _score(model, tokenizer, sequences, torch.zeros_like(sequences.is_target)))
    return [found[i] for i in range(len(pairs))]


def forced_tokens(model: PreTrainedModel, target_ids: torch.Tensor, generate_kwargs: dict[str, Any]) -> torch.Tensor:
    """Return which tokens of (rows, target_len) the model did not choose: the first and the last, where forced."""
    names = ("forced_bos_token_id", "forced_eos_token_id", "max_new_tokens", "max_length")
    configs = (generate_kwargs.get("generation_config"), model.generation_config)

    def find(name: str):
        values = [getattr(config, name, None) for config in configs]
        return generate_kwargs.get(name, values[1] if values[0] is None else values[0])

    params = {name: find(name) for name in names}
    if generate_kwargs.get("max_length") and not generate_kwargs.get("max_new_tokens"):
        params["max_new_tokens"] = None
    longest = params["max_new_tokens"] or (params["max_length"] or 0) - 1  # `max_length` counts the start token
    forced = torch.zeros_like(target_ids, dtype=torch.bool)
    if params["forced_bos_token_id"] is not None:
        forced[:, 0] = True
    if params["forced_eos_token_id"] is not None and target_ids.shape[1] == longest:
        forced[:, -1] = True
    return forced


@torch.no_grad()
def _score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sequences: Sequences, forced: torch.Tensor
) -> list[Confidence]:
    """Read sequences once and return the confidence of each row; `forced` is (rows, target_len)."""
    reader = reading_copy(model) if model.training else model  # dropout would make figures of chance
    logits = sequences.read(reader).logits  # (rows, target_len, vocab_size)
    found = []
    rows = zip(logits, sequences.target_ids, sequences.is_target, forced)
    for row_logits, target_ids, is_target, is_forced in rows:  # one by one: vocabularies are large
        log_probs = row_logits[is_target].float().log_softmax(-1)  # (target_len, vocab_size)
        ids, chosen = target_ids[is_target], ~is_forced[is_target]
        entropies = -(log_probs.exp() * log_probs.clamp_min(torch.finfo(log_probs.dtype).min)).sum(-1)  # (target_len)
        found.append(
            Confidence(
                tokens=target_tokens(tokenizer, ids.tolist()),
                log_probabilities=(log_probs.gather(-1, ids[:, None])[:, 0] * chosen).tolist(),
                entropies=(entropies * chosen).tolist(),
                is_forced=(~chosen).tolist(),
            )
        )
    return found
