"""Minimum Bayes risk decoding: of several outputs, take the one that agrees most with all the others.

The most probable output is often not a good one. With candidates y_1 .. y_n of a source, each of them also stands in
for a reference (Eikema and Aziz 2020, arXiv:2005.10283; Freitag et al. 2022, arXiv:2111.09388):

    y* = argmax_i 1/n sum_j utility(y_i, y_j).

The candidates are an n-best list or, better, samples. `SAMPLING` is epsilon sampling (Freitag et al. 2023,
arXiv:2305.09860), which leaves out tokens whose probability is below 0.02.

    >>> output_ids = model.generate(**inputs, **SAMPLING, num_return_sequences=16)
    >>> texts = tokenizer.batch_decode(output_ids, skip_special_tokens=True)
    >>> [choose(texts[start : start + 16]).text for start in range(0, len(texts), 16)]
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

SAMPLING: dict[str, Any] = {"do_sample": True, "num_beams": 1, "top_k": 0, "epsilon_cutoff": 0.02}
ORDERS = 6  # of the character n-grams of chrF
BETA = 2  # recall weighs this much more than precision


@dataclass(frozen=True)
class Choice:
    """The chosen one of several outputs.

    Attributes:
        text: The output.
        index: Its number among the candidates, the first of equal texts.
        utility: Its mean utility with all candidates as references, 0 to 100.
    """

    text: str
    index: int
    utility: float


def choose(candidates: Sequence[str], utility: str = "chrf") -> Choice:
    """Return the candidate with the greatest mean utility; the first of equals.

    Args:
        candidates: Outputs for the same source; one that comes several times weighs as much.
        utility: A name of `UTILITIES`.

    Raises:
        ValueError: There is no candidate, or no such utility.
    """
    if utility not in UTILITIES:
        raise ValueError(f"{utility!r} is no utility. Choose from {', '.join(UTILITIES)}.")
    if not candidates:
        raise ValueError("No candidates to choose from: give at least one output.")
    counts = Counter(candidates)  # in the order of their first occurrence
    texts = list(counts)
    weights = torch.tensor(list(counts.values()), dtype=torch.float64) / len(candidates)
    means = UTILITIES[utility](texts) @ weights  # (texts,)
    best = int(means.argmax())
    return Choice(texts[best], list(candidates).index(texts[best]), float(means[best]))


def chrf(texts: list[str]) -> torch.Tensor:
    """Return chrF of each text with each text as its reference, (texts, references), as sacrebleu computes it."""
    precisions = recalls = orders = torch.zeros(len(texts), len(texts), dtype=torch.float64)
    for order in range(1, ORDERS + 1):
        counts = _counts(["".join(text.split()) for text in texts], order)  # (texts, n-grams)
        totals = counts.sum(-1)
        matches = torch.stack([torch.minimum(counts, row).sum(-1) for row in counts])  # (texts, references)
        is_there = (totals[:, None] > 0) & (totals > 0)
        precisions = precisions + torch.where(is_there, matches / totals[:, None].clamp_min(1), 0)
        recalls = recalls + torch.where(is_there, matches / totals.clamp_min(1), 0)
        orders = orders + is_there
    precision, recall = precisions / orders.clamp_min(1), recalls / orders.clamp_min(1)
    denominator = BETA**2 * precision + recall
    return 100 * (1 + BETA**2) * precision * recall / denominator.where(denominator > 0, 1)


def bleu(texts: list[str]) -> torch.Tensor:
    """Return sentence BLEU of each text with each text as its reference, (texts, references).

    Raises:
        ImportError: sacrebleu, which computes it, is not installed.
    """
    try:
        import sacrebleu
    except ImportError as error:
        raise ImportError("utility='bleu' needs sacrebleu: pip install sacrebleu. Or choose 'chrf'.") from error
    metric = sacrebleu.BLEU(effective_order=True)
    rows = [[metric.sentence_score(text, [reference]).score for reference in texts] for text in texts]
    return torch.tensor(rows, dtype=torch.float64)


UTILITIES: dict[str, Callable[[list[str]], torch.Tensor]] = {"chrf": chrf, "bleu": bleu}


def _counts(texts: list[str], order: int) -> torch.Tensor:
    """Return how often each n-gram of characters is in each text, (texts, n-grams)."""
    ngrams = [Counter(text[i : i + order] for i in range(len(text) - order + 1)) for text in texts]
    places = {ngram: place for place, ngram in enumerate(dict.fromkeys(ngram for row in ngrams for ngram in row))}
    counts = torch.zeros(len(texts), len(places), dtype=torch.float64)
    for i, row in enumerate(ngrams):
        for ngram, count in row.items():
            counts[i, places[ngram]] = count
    return counts
