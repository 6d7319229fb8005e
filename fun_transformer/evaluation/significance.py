"""Is the difference between two systems more than chance? sacreBLEU's own two tests answer for every metric it can.

- Paired bootstrap (Koehn 2004): draw as many rows as there are, with replacement, 1,000 times; how often is a
  difference as large as the real one due to the draw?
- Approximate randomisation (Riezler and Maxwell 2005): swap the outputs of each row with probability 1/2, 10,000
  times; how often does the difference become as large as the real one?

A difference of zero has p = 1. Metrics that are a ratio of sums over rows (exact match, PER, accuracy, COMET's mean)
go through the same code.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sacrebleu.significance import PairedTest

from ..training.metrics import reference_streams
from .scores import Scoring

TESTS = {"bs": "paired bootstrap", "ar": "approximate randomisation"}


@dataclass(frozen=True)
class Comparison:
    """A metric of several systems; the others are compared with the first.

    Attributes:
        metric: Its name.
        systems: (systems,) names.
        scores: (systems,).
        intervals: (systems,) half of the 95 % interval of the bootstrap.
        p_bootstrap: (systems,) p value of the difference to the first, which has None.
        p_randomisation: (systems,) likewise.
        signature: Says which metric, seed and numbers of samples.
    """

    metric: str
    systems: list[str]
    scores: list[float]
    intervals: list[float]
    p_bootstrap: list[float | None]
    p_randomisation: list[float | None]
    signature: str


class Ratio(NamedTuple):
    """A score as sacreBLEU's tests read it."""

    name: str
    score: float


class RatioSignature:
    """What describes a test of a ratio, as sacreBLEU writes it."""

    def __init__(self) -> None:
        self.info: dict[str, Any] = {}

    def update(self, key: str, value: Any) -> None:
        """Add an entry."""
        self.info[key] = value

    def __str__(self) -> str:
        return "|".join(f"{key}:{value}" for key, value in self.info.items())


class RatioStatistics:
    """A ratio of sums over rows, in the form that sacreBLEU's tests ask for.

    Args:
        name: Of the metric.
        counts: Gives the share of a row in both sums, by its output and references.
        percent: Whether the score is in percent.
    """

    def __init__(self, name: str, counts: Callable[[Any, Any], tuple[float, float]], percent: bool = True):
        self.name, self.counts, self.factor = name, counts, 100.0 if percent else 1.0

    def _extract_corpus_statistics(self, outputs: Sequence[Any], references: Any) -> list[list[float]]:
        rows = ([text for text in row if text is not None] for row in zip(*references))
        return [list(self.counts(output, row)) for output, row in zip(outputs, rows)]

    def _aggregate_and_compute(self, statistics: Any) -> Ratio:
        return self._compute_score_from_stats(np.sum(np.asarray(statistics, dtype=np.float64), axis=0))

    def _compute_score_from_stats(self, sums: Any) -> Ratio:
        return Ratio(self.name, self.factor * float(sums[0]) / max(1.0, float(sums[1])))

    def get_signature(self) -> RatioSignature:
        """Return what describes the metric; sacreBLEU adds seed and samples."""
        return RatioSignature()


def compare(
    systems: Mapping[str, Sequence[str]], references: Sequence[Sequence[str]], scoring: Scoring
) -> list[Comparison]:
    """Compare systems with the first of them by both tests.

    Args:
        systems: Outputs (rows,) by name.
        references: (rows,) the accepted texts of each row.
        scoring: The metrics. Those that are no sum over rows (F1) cannot be tested and are left out.

    Raises:
        ValueError: There is only one system.
    """
    if len(systems) < 2:
        raise ValueError("A comparison needs two systems.")
    found = []
    for name in scoring.names:
        counts = scoring.row_counts(name)
        if name in scoring.scorers:
            metric: Any = scoring.scorers[name]
        elif counts:
            metric = RatioStatistics(name, counts)
        else:
            continue
        found.append(compare_metric(name, metric, systems, reference_streams(references)))
    return found


def compare_row_scores(name: str, scores: Mapping[str, Sequence[float]]) -> Comparison:
    """Compare the means of scores that each row has by itself, such as COMET's.

    Args:
        name: Of the metric.
        scores: (rows,) by system.
    """
    rows = len(next(iter(scores.values())))
    metric = RatioStatistics(name, lambda score, _: (score, 1.0), percent=False)
    return compare_metric(name, metric, scores, [[""] * rows])


def compare_metric(name: str, metric: Any, systems: Mapping[str, Any], references: list[list[Any]]) -> Comparison:
    """Run both tests for one metric."""
    results: dict[str, list[Any]] = {}
    signatures: dict[str, Any] = {}
    for test in TESTS:
        paired = PairedTest(list(systems.items()), {name: metric}, references, test_type=test)
        found, scores = paired()
        ((key, signatures[test]),) = found.items()
        results[test] = scores[key]
    signatures["bs"].update("ar", signatures["ar"].info["ar"])
    bootstrap = results["bs"]
    return Comparison(
        name,
        list(systems),
        [float(result.score) for result in bootstrap],
        [float(result.ci) for result in bootstrap],
        p_values(bootstrap),
        p_values(results["ar"]),
        str(signatures["bs"]),
    )


def p_values(results: Sequence[Any]) -> list[float | None]:
    """Return sacreBLEU's p values, but 1 where there is no difference: it calls systems of equal scores different."""
    first = results[0].score
    return [None, *(1.0 if result.score == first else float(result.p_value) for result in results[1:])]


def comparison_table(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: scores with their 95 % interval, and the p values of their difference to the first."""
    rows = []
    for found in comparisons:
        for number, system in enumerate(found.systems):
            tests = [found.p_bootstrap[number], found.p_randomisation[number]]
            score = f"{found.scores[number]:.2f} ± {found.intervals[number]:.2f}"
            rows.append([found.metric, system, score, *("" if p is None else f"{p:.4f}" for p in tests)])
    return ["metric", "system", "score (95 %)", "p (bootstrap)", "p (randomisation)"], rows
