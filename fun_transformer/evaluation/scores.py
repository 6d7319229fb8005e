"""Scores of outputs against references, by the metrics of the trainer, decided once for a whole table.

How BLEU and TER cut text into words is chosen by the script of all references, so that every part of a breakdown is
cut in the same way. sacreBLEU's command gives the same figures for the same files and signature.
"""

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import sacrebleu
from sacrebleu.metrics.base import Metric as SacreMetric

from ..training.metrics import (
    BLEU,
    RatioMetric,
    SacreBLEUMetric,
    choose_bleu_tokenize,
    label_scores,
    reference_streams,
    tag_scores,
)
from ..training.tables import METRICS, unknown_name

# Of lines that are one label, or one tag a word: what is measured, and its title.
LABEL_METRICS = {
    "accuracy": "accuracy (%)",
    "f1": "F1 (%), mean over labels",
    "tag_accuracy": "accuracy of tags (%)",
    "tag_f1": "F1 of chunks (%)",
}
CHRF = sacrebleu.CHRF()  # of single rows


class Scoring:
    """Several metrics of outputs, with the choices that hold for all rows.

    Args:
        names: Of metrics: those of texts in `METRICS`, and `LABEL_METRICS`.
        references: (rows,) of all rows.
        bleu_tokenize: How BLEU cuts text into words, by sacreBLEU's names; "auto": by the script of the references.
        language: Of the references, where it is known.

    Raises:
        ValueError: A metric or bleu_tokenize is not known, or needs a package that is not installed.
    """

    def __init__(
        self,
        names: Sequence[str],
        references: Sequence[Sequence[str]],
        bleu_tokenize: str = "auto",
        language: str | None = None,
    ):
        known = {name: metric for name, metric in METRICS.items() if metric.compares_texts}
        for name in names:
            if name not in known and name not in LABEL_METRICS:
                raise ValueError(unknown_name("metric of outputs", name, [*known, *LABEL_METRICS]))
        if bleu_tokenize == "auto":
            bleu_tokenize = choose_bleu_tokenize((text for row in references for text in row), language)
        if bleu_tokenize not in sacrebleu.BLEU.TOKENIZERS:
            raise ValueError(unknown_name("tokenization of BLEU", bleu_tokenize, ["auto", *sacrebleu.BLEU.TOKENIZERS]))
        self.names = list(dict.fromkeys(names))
        self.bleu_tokenize = bleu_tokenize
        self.metrics = {name: known[name]() for name in self.names if name in known}
        self.scorers: dict[str, SacreMetric] = {}
        for name, metric in self.metrics.items():
            if isinstance(metric, BLEU):
                metric.tokenize = bleu_tokenize
            if isinstance(metric, SacreBLEUMetric):
                try:
                    self.scorers[name] = metric.scorer([list(row) for row in references])
                except RuntimeError as error:  # names the package that this tokenization needs
                    raise ValueError(f"{name} cannot be computed: {error}") from error
        self.signatures: dict[str, str] = {}

    def title(self, name: str) -> str:
        """Return what a metric is called in tables."""
        return METRICS[name].title if name in self.metrics else LABEL_METRICS[name]

    def lower_is_better(self, name: str) -> bool:
        """Return whether a smaller score of a metric is the better one."""
        return name in self.metrics and METRICS[name].lower_is_better

    def score(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
        """Return the score of each metric; `signatures` then says how sacreBLEU's were computed.

        Args:
            outputs: (rows,) all of them or some.
            references: (rows,) the accepted texts of these.
        """
        found: dict[str, float] = {}
        for name in self.names:
            if name in self.scorers:
                found[name] = self.scorers[name].corpus_score(list(outputs), reference_streams(references)).score
                self.signatures[name] = str(self.scorers[name].get_signature())
            elif name in self.metrics:
                metric: Any = self.metrics[name]
                values = metric.compute(predictions=list(outputs), references=[list(row) for row in references])
                found[name] = float(values[name])
        return {name: found[name] if name in found else score_labels(name, outputs, references) for name in self.names}

    def row_counts(self, name: str) -> Callable[[str, list[str]], tuple[float, float]] | None:
        """Return what gives a row's share in the two sums of a metric that is their ratio; None of other metrics."""
        if isinstance(metric := self.metrics.get(name), RatioMetric):
            return metric.counts
        return {"accuracy": right_label, "tag_accuracy": right_tags}.get(name)

    def row_scores(self, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        """Return chrF of each row by itself, the best over its references."""
        return [CHRF.sentence_score(output, list(row)).score for output, row in zip(outputs, references)]


def score_labels(name: str, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return accuracy or F1 of lines that are labels, or tags between spaces; any reference counts.

    Raises:
        ValueError: An output has not as many tags as its reference.
    """
    true = [output if output in row else row[0] for output, row in zip(outputs, references)]
    if not name.startswith("tag_"):
        return label_scores(list(outputs), true)[name]
    predicted, right = [text.split() for text in outputs], [text.split() for text in true]
    for number, (tags, others) in enumerate(zip(predicted, right), 1):
        if len(tags) != len(others):
            raise ValueError(
                f"Output {number} has {len(tags)} tags and its reference {len(others)}: {name} needs one a word."
            )
    return tag_scores(predicted, right)[name.removeprefix("tag_")]


def right_label(output: str, accepted: list[str]) -> tuple[float, float]:
    """Return 1 for a right label, and 1."""
    return float(output in accepted), 1.0


def right_tags(output: str, accepted: list[str]) -> tuple[float, float]:
    """Return the number of right tags, and of all."""
    tags, others = output.split(), (output if output in accepted else accepted[0]).split()
    return float(sum(tag == other for tag, other in zip(tags, others))), float(len(others))


def show_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table of text: the first column to the left, numbers to the right with two digits."""
    cells = [list(map(str, header))]
    cells += [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(text_width, column)) for column in zip(*cells)]
    lines = []
    for row in cells:
        fillings = [" " * (width - text_width(cell)) for width, cell in zip(widths, row)]
        parts = [
            filling + cell if number else cell + filling for number, (cell, filling) in enumerate(zip(row, fillings))
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def text_width(text: str) -> int:
    """Return the width of a text on a terminal, where a Chinese character takes two cells."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
