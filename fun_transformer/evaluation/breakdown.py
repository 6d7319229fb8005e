"""Where does a system lose? Scores by the length of the source, by a column such as a domain, and by rare words."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import sacrebleu

from ..training.metrics import choose_bleu_tokenize
from .data import EvaluationData
from .scores import Scoring, show_table

BUCKETS = 6  # of lengths, at most
SHOWN_GROUPS = 20
FREQUENCIES = (0, 1, 2, 5, 10, 100, 1000)  # where the groups of words begin


@dataclass
class Breakdown:
    """Scores of parts of the rows, or of the words.

    Attributes:
        title: What the rows were sorted by.
        note: How, in a sentence.
        counted: What `counts` counts, such as "rows".
        labels: (parts,) their names.
        counts: (parts,) their sizes.
        scores: By system and metric, (parts,).
    """

    title: str
    note: str
    counted: str
    labels: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    scores: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    @property
    def charted(self) -> str:
        """Return the metric for a chart: the first one; of words, F."""
        metrics = list(next(iter(self.scores.values())))
        return "F" if "F" in metrics else metrics[0]

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """Return the header and the rows of a table: a row for each part and system, a column for each metric."""
        metrics = list(next(iter(self.scores.values())))
        several = len(self.scores) > 1
        rows = []
        for part, (label, count) in enumerate(zip(self.labels, self.counts)):
            for number, (system, found) in enumerate(self.scores.items()):
                row = [label, f"{count:,}"] if number == 0 else ["", ""]
                rows.append([*row, *([system] if several else []), *(found[metric][part] for metric in metrics)])
        return ["", self.counted, *(["system"] if several else []), *metrics], rows

    def __str__(self) -> str:
        return f"{self.title}: {self.note}\n{show_table(*self.table())}"


def by_length(data: EvaluationData, systems: dict[str, list[str]], scoring: Scoring) -> Breakdown:
    """Score by the length of the source, in words; in characters where a source is one word or has no spaces.

    Raises:
        ValueError: The data have no sources.
    """
    if not data.sources:
        raise ValueError(f"{data.name} has no sources, whose length could be counted.")
    words = [len(source.split()) for source in data.sources]
    has_words = choose_bleu_tokenize(data.sources) == "13a" and sum(words) > 2 * len(words)
    lengths = words if has_words else [len(re.sub(r"\s", "", source)) for source in data.sources]
    step = bucket_step(lengths)
    parts = [min((length - 1) // step, BUCKETS - 1) if length else 0 for length in lengths]
    last = f"{(BUCKETS - 1) * step + 1} or more"
    labels = [f"{part * step + 1}-{(part + 1) * step}" if step > 1 else str(part + 1) for part in range(BUCKETS - 1)]
    note = f"the length of the source in {'words' if has_words else 'characters'}."
    found = Breakdown("By length", note, "rows")
    return score_parts(found, dict(enumerate([*labels, last])), parts, (data.references, systems, scoring))


def bucket_step(lengths: Sequence[int]) -> int:
    """Return the round width of buckets of which `BUCKETS` hold all lengths but the longest twentieth."""
    long = sorted(lengths)[math.ceil(0.95 * len(lengths)) - 1]
    steps = (digit * 10**power for power in range(12) for digit in (1, 2, 5))
    return next(step for step in steps if BUCKETS * step >= long)


def by_column(data: EvaluationData, column: str, systems: dict[str, list[str]], scoring: Scoring) -> Breakdown:
    """Score by the values of a column, the most frequent first; rare ones beyond `SHOWN_GROUPS` share a part."""
    common = [value for value, _ in Counter(data.groups).most_common()]
    shown = common if len(common) <= SHOWN_GROUPS else common[: SHOWN_GROUPS - 1]
    numbers = {value: number for number, value in enumerate(shown)}
    labels = {**dict(enumerate(shown)), len(shown): f"{len(common) - len(shown)} others"}
    parts = [numbers.get(value, len(shown)) for value in data.groups]
    found = Breakdown(f"By {column}", f"the value of the column {column}.", "rows")
    return score_parts(found, labels, parts, (data.references, systems, scoring))


def score_parts(
    found: Breakdown,
    labels: dict[int, str],
    parts: Sequence[int],
    scored: tuple[Sequence[Sequence[str]], dict[str, list[str]], Scoring],
) -> Breakdown:
    """Fill a breakdown with the scores of the parts that have rows.

    Args:
        found: Without scores.
        labels: Names of the parts.
        parts: (rows,) the part of each row.
        scored: References (rows,), outputs (rows,) by system, and the metrics.
    """
    references, systems, scoring = scored
    rows: dict[int, list[int]] = defaultdict(list)
    for row, part in enumerate(parts):
        rows[part].append(row)
    for part in sorted(rows):
        found.labels.append(labels[part])
        found.counts.append(len(rows[part]))
        for system, outputs in systems.items():
            scores = scoring.score([outputs[row] for row in rows[part]], [references[row] for row in rows[part]])
            for metric, value in scores.items():
                found.scores.setdefault(system, {}).setdefault(metric, []).append(value)
    return found


def by_word_frequency(
    data: EvaluationData,
    systems: dict[str, list[str]],
    bleu_tokenize: str,
    training_texts: Iterable[str] | None = None,
) -> Breakdown:
    """Measure recall, precision and F of target words by how often they occur.

    In each row a word is found as often as it is both in the output and in the reference, at most as often as in
    either (of several references: in the one that has most words of the output). Summed over the rows and the words of
    a group, recall is found / in the references, precision is found / in the outputs, and F their harmonic mean.

    Args:
        data: With the references.
        systems: Outputs (rows,) by name.
        bleu_tokenize: How sacreBLEU cuts a text into words.
        training_texts: Where occurrences are counted; in the references when None.
    """
    cut = word_cutter(bleu_tokenize)
    rows = [[Counter(cut(text)) for text in accepted] for accepted in data.references]
    where = "the references" if training_texts is None else "the training data"
    known = Counter[str]()
    for words in (Counter(cut(text)) for text in training_texts) if training_texts is not None else chain(*rows):
        known.update(words)

    def group(word: str) -> int:
        return max(number for number, begin in enumerate(FREQUENCIES) if known[word] >= begin)

    note = (
        f"recall, precision and F of target words by how often {where} have them (cut by sacreBLEU's {bleu_tokenize})."
    )
    found = Breakdown("By word frequency", note, "words")
    sums = {
        system: word_sums(rows, [Counter(cut(text)) for text in outputs], group) for system, outputs in systems.items()
    }
    first = next(iter(sums.values()))
    groups = [
        number for number in range(len(FREQUENCIES)) if any(counts["wanted"][number] for counts in sums.values())
    ]
    found.labels = [frequency_label(number) for number in groups]
    found.counts = [first["wanted"][number] for number in groups]
    for system, counts in sums.items():
        hits, wanted, given = (counts[name] for name in ("found", "wanted", "given"))
        found.scores[system] = {
            "recall": [100 * hits[number] / max(1, wanted[number]) for number in groups],
            "precision": [100 * hits[number] / max(1, given[number]) for number in groups],
            "F": [200 * hits[number] / max(1, wanted[number] + given[number]) for number in groups],
        }
    return found


def word_cutter(bleu_tokenize: str) -> Callable[[str], list[str]]:
    """Return what cuts a text into the words that BLEU counts."""
    tokenizer = sacrebleu.BLEU(tokenize=bleu_tokenize).tokenizer
    return lambda text: tokenizer(text.strip()).split()


def word_sums(
    rows: Sequence[Sequence[Counter[str]]], outputs: Sequence[Counter[str]], group: Callable[[str], int]
) -> dict[str, Counter[int]]:
    """Return by group how many words the references want, the outputs give, and both have."""
    sums = {name: Counter[int]() for name in ("found", "wanted", "given")}
    for accepted, output in zip(rows, outputs):
        nearest = max(accepted, key=lambda words: (words & output).total())
        for name, words in (("found", nearest & output), ("wanted", nearest), ("given", output)):
            for word, times in words.items():
                sums[name][group(word)] += times
    return sums


def frequency_label(number: int) -> str:
    """Return the name of a group of words, such as "2-4 times"."""
    begin = FREQUENCIES[number]
    end = FREQUENCIES[number + 1] - 1 if number + 1 < len(FREQUENCIES) else None
    if end is None:
        return f"{begin:,} or more times"
    return {0: "never", 1: "once"}.get(begin, f"{begin}-{end} times")
