"""Scores of an evaluation, and the table of them: what each is called and which way is better.

Those that compare generated texts are `evaluate.Metric`s that need no network, in percent:

- BLEU, chrF and chrF++ compare with references by n-grams, TER by edits of words; sacreBLEU computes them, and its
  signature says exactly how.
- PER, the phoneme error rate: edits (insertions, deletions, substitutions) to the nearest reference, divided by that
  reference's length, both summed over the corpus. A unit is a word between spaces, so a phoneme.
- WER, the word error rate of speech recognition, is the same of words, and CER of characters.
- G2P WER, the word error rate of papers on grapheme-to-phoneme conversion: the share of *sequences* (one for each word
  of the dictionary) that equal none of their references. In recipes and cards of version 0.1 it is called `wer`, too.
- Same picture: the share of formulas in LaTeX that look like their reference when both are drawn.
- Exact match: the share of sequences that equal one of their references, character by character.

A metric of your own is a class like these, in a file that `--plugin` names (docs/plugins.md).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import evaluate
import sacrebleu
from sacrebleu.metrics.base import Metric as SacreMetric

from .data.formulas import draw_formula
from .tables import METRICS, register_metric, unknown_name


class Metric:
    """A number that an evaluation gives."""

    name: str  # in recipes and in metrics.jsonl
    title: str  # in cards
    lower_is_better = False
    compares_texts = False  # whether it may be one of generation.metrics


@register_metric
class Loss(Metric):
    """The loss of the model, without label smoothing."""

    name, title, lower_is_better = "loss", "cross-entropy (nats a token)", True


@register_metric
class Perplexity(Metric):
    """The exponential of the loss."""

    name, title, lower_is_better = "perplexity", "perplexity", True


@register_metric
class Accuracy(Metric):
    """The share of labels that are right."""

    name, title = "accuracy", "accuracy (%)"


@register_metric
class F1(Metric):
    """The harmonic mean of precision and recall."""

    name, title = "f1", "F1 (%)"


class ReferenceMetric(Metric, evaluate.Metric):
    """A metric of predictions against their references, one or several for each prediction.

    `compute(predictions=[...], references=[[...], ...])` returns `{name: score}`; sacreBLEU's return a
    `{name}_signature`, too. References may be plain texts where each prediction has one. A subclass gives `name`,
    `title` and `score`.
    """

    compares_texts = True

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("keep_in_memory", True)
        super().__init__(**kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "",
            citation="",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
            ),
        )

    def compute(self, *, references: Any = None, **kwargs: Any) -> Any:
        """Return the score, as `evaluate.Metric.compute` does; a reference that is a text counts as a list of one."""
        rows = None if references is None else [[row] if isinstance(row, str) else list(row) for row in references]
        return super().compute(references=rows, **kwargs)

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float | str]:
        return {self.name: self.score(predictions, references)}

    def score(self, predictions: list[str], references: list[list[str]]) -> float:
        """Return the score, in percent unless the title says otherwise.

        Args:
            predictions: (rows,) the generated texts.
            references: (rows,) the accepted texts of each row.
        """
        raise NotImplementedError


def reference_streams(references: Sequence[Sequence[str]]) -> list[list[Any]]:
    """Return references by number and then by row, as sacreBLEU takes them; None where a row has fewer than others.

    Args:
        references: (rows,) the accepted texts of each row.
    """
    most = max(map(len, references))
    return [[row[n] if n < len(row) else None for row in references] for n in range(most)]


class SacreBLEUMetric(ReferenceMetric):
    """A metric that sacreBLEU computes, with its signature."""

    def scorer(self, references: list[list[str]]) -> SacreMetric:
        """Return the metric of sacreBLEU."""
        raise NotImplementedError

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float | str]:
        scorer = self.scorer(references)
        score = scorer.corpus_score(predictions, reference_streams(references)).score
        return {self.name: score, f"{self.name}_signature": str(scorer.get_signature())}


@register_metric
class BLEU(SacreBLEUMetric):
    """BLEU = BP * exp(mean of log p_n), p_n the precision of n-grams up to 4 (Papineni et al. 2002)."""

    name = "bleu"
    title = "BLEU"

    def __init__(self, tokenize: str = "auto", **kwargs: Any):
        super().__init__(**kwargs)
        self.tokenize = tokenize

    def scorer(self, references: list[list[str]]) -> SacreMetric:
        """Return sacreBLEU's BLEU, which cuts into words as it was told, or as the script asks for."""
        tokenize = self.tokenize
        if tokenize == "auto":
            tokenize = choose_bleu_tokenize(text for row in references for text in row)
        return sacrebleu.BLEU(tokenize=tokenize)


@register_metric
class ChrF(SacreBLEUMetric):
    """chrF2: F-score of character n-grams up to 6, recall counts twice (Popovic 2015)."""

    name = "chrf"
    title = "chrF"

    def scorer(self, references: list[list[str]]) -> SacreMetric:
        """Return sacreBLEU's chrF2."""
        return sacrebleu.CHRF()


@register_metric
class ChrFPlusPlus(SacreBLEUMetric):
    """chrF++: chrF2 with n-grams of words up to 2 beside those of characters (Popovic 2017)."""

    name = "chrf++"
    title = "chrF++"

    def scorer(self, references: list[list[str]]) -> SacreMetric:
        """Return sacreBLEU's chrF2++."""
        return sacrebleu.CHRF(word_order=2)


@register_metric
class TranslationEditRate(SacreBLEUMetric):
    """TER: edits and shifts of words to the nearest reference, by the mean reference length (Snover et al. 2006).

    Words are what is between spaces, or single characters of Chinese and Japanese where those are most.
    """

    name = "ter"
    title = "translation edit rate (%)"
    lower_is_better = True

    def scorer(self, references: list[list[str]]) -> SacreMetric:
        """Return sacreBLEU's TER."""
        has_spaces = choose_bleu_tokenize(text for row in references for text in row) == "13a"
        return sacrebleu.TER(normalized=not has_spaces, asian_support=not has_spaces)


class RatioMetric(ReferenceMetric):
    """A metric that is one sum over the rows divided by another; a subclass gives `counts`.

    How sure a difference is can be found out from the counts of rows.
    """

    def counts(self, prediction: str, accepted: list[str]) -> tuple[int, int]:
        """Return what a row adds to both sums.

        Args:
            prediction: The generated text.
            accepted: The accepted ones.
        """
        raise NotImplementedError

    def score(self, predictions: list[str], references: list[list[str]]) -> float:
        """Return the ratio, in percent."""
        rows = [self.counts(prediction, accepted) for prediction, accepted in zip(predictions, references)]
        return 100 * sum(above for above, _ in rows) / max(1, sum(below for _, below in rows))


@register_metric
class PhonemeErrorRate(RatioMetric):
    """PER = sum of edits to the nearest reference / sum of that reference's length; may exceed 100."""

    name = "per"
    title = "phoneme error rate (%)"
    lower_is_better = True

    def counts(self, prediction: str, accepted: list[str]) -> tuple[int, int]:
        """Return edits to the nearest reference, and its length."""
        units = prediction.split()
        return min((edit_distance(units, other.split()), len(other.split())) for other in accepted)


@register_metric
class SequenceErrorRate(RatioMetric):
    """The word error rate of grapheme-to-phoneme papers: share of sequences that equal none of their references."""

    name = "g2p_wer"
    title = "G2P word error rate (%)"
    lower_is_better = True

    def counts(self, prediction: str, accepted: list[str]) -> tuple[int, int]:
        """Return 1 for a wrong sequence, and 1."""
        return int(prediction.split() not in [other.split() for other in accepted]), 1


@register_metric
class WordErrorRate(RatioMetric):
    """WER = sum of edits of words to the nearest reference / sum of that reference's words; may exceed 100."""

    name = "wer"
    title = "word error rate (%)"
    lower_is_better = True

    def counts(self, prediction: str, accepted: list[str]) -> tuple[int, int]:
        """Return edits to the nearest reference, and its length."""
        words = prediction.split()
        return min((edit_distance(words, other.split()), len(other.split())) for other in accepted)


@register_metric
class CharacterErrorRate(RatioMetric):
    """CER: the same of characters, outer white space apart and inner as one space; may exceed 100."""

    name = "cer"
    title = "character error rate (%)"
    lower_is_better = True

    def counts(self, prediction: str, accepted: list[str]) -> tuple[int, int]:
        """Return edits to the nearest reference, and its length."""
        letters = " ".join(prediction.split())
        others = [" ".join(other.split()) for other in accepted]
        return min((edit_distance(letters, other), len(other)) for other in others)


@register_metric
class ExactMatch(RatioMetric):
    """Share of predictions that equal one of their references, outer white space apart."""

    name = "exact"
    title = "exact match (%)"

    def counts(self, prediction: str, accepted: list[str]) -> tuple[int, int]:
        """Return 1 for a right sequence, and 1."""
        return int(prediction.strip() in [other.strip() for other in accepted]), 1


@register_metric
class SamePicture(RatioMetric):
    """Share of formulas in LaTeX that look like one of their references where matplotlib draws them."""

    name = "same_picture"
    title = "same picture (%)"

    def counts(self, prediction: str, accepted: list[str]) -> tuple[int, int]:
        """Return 1 for a formula of the same picture, and 1."""
        picture = draw_formula(prediction)
        return int(picture is not None and picture in map(draw_formula, accepted)), 1


def label_scores(predicted: list[str], true: list[str]) -> dict[str, float]:
    """Return accuracy, and F1 as the mean over labels (macro), of one label for each text; in percent."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": 100 * float(accuracy_score(true, predicted)),
        "f1": 100 * float(f1_score(true, predicted, average="macro", zero_division=0)),
    }


def tag_scores(predicted: list[list[str]], true: list[list[str]]) -> dict[str, float]:
    """Return accuracy of tags, and F1 of whole chunks (B-NP I-NP ...) as seqeval and CoNLL-2000 do; in percent."""
    from seqeval.metrics import accuracy_score, f1_score

    return {
        "accuracy": 100 * float(accuracy_score(true, predicted)),
        "f1": 100 * float(f1_score(true, predicted, zero_division=0)),
    }


def edit_distance(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the fewest insertions, deletions and substitutions from one sequence to the other (Levenshtein)."""
    if left == right:
        return 0
    row = list(range(len(right) + 1))  # distances from the units of `left` so far to each beginning of `right`
    for i, unit in enumerate(left, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(right, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (unit != other))
    return row[-1]


# The first words of Unicode's names of letters that are written without spaces between words.
HAN = ("CJK", "IDEOGRAPHIC", "BOPOMOFO")
OTHERS_WITHOUT_SPACES = (
    *("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH", "HENTAIGANA", "NUSHU", "TANGUT", "KHITAN", "YI"),
    *("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "TAI", "NEW", "AHOM", "BALINESE", "JAVANESE"),  # NEW TAI LUE
    *("CUNEIFORM", "EGYPTIAN"),
)


def choose_bleu_tokenize(texts: Iterable[str], language: str | None = None) -> str:
    """Choose how BLEU is to cut texts like these into words, by their script.

    Args:
        texts: Examples.
        language: Of the texts, where it is known: Japanese may be written in Chinese characters alone.

    Returns:
        "13a" where most letters have spaces between words; "zh" for Chinese, which it counts by character and foreign
        words in it as words; "char" for other scripts without spaces, Japanese among them.
    """
    count = Counter(letter for text in texts for letter in text if letter.isalpha())
    han = others = 0
    for letter, times in count.items():
        script = unicodedata.name(letter, "").split(" ")[0]
        if script in HAN and letter < "\U00010000":  # sacreBLEU's zh does not know the rare ones beyond
            han += times
        elif script in HAN or script in OTHERS_WITHOUT_SPACES:
            others += times
    if 2 * (han + others) <= count.total():
        return "13a"
    is_japanese = re.split("[-_]", language or "")[0].lower() in ("ja", "jpn")
    return "zh" if han > 9 * others and not is_japanese else "char"


def compute_metrics(
    names: Sequence[str],
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    bleu_tokenize: str = "auto",
) -> dict[str, float | str]:
    """Return several metrics at once.

    Args:
        names: Those of text metrics in `METRICS`.
        predictions: (rows,) the generated texts.
        references: (rows,) the accepted texts of each row, at least one.
        bleu_tokenize: How BLEU cuts texts into words, by sacreBLEU's names; "auto": by the script of the references.

    Returns:
        Scores in percent, and signatures such as `bleu_signature`.

    Raises:
        ValueError: There is nothing to score, a row has no reference, or a metric is not known.
    """
    known = {name: metric for name, metric in METRICS.items() if metric.compares_texts}
    for name in names:
        if name not in known:
            raise ValueError(unknown_name("metric of texts", name, known))
    if not predictions or len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions and {len(references)} references cannot be compared.")
    if not all(references):
        row = next(row for row, accepted in enumerate(references) if not accepted)
        raise ValueError(f"Row {row} has no reference. Every prediction needs at least one.")
    scores: dict[str, float | str] = {}
    for name in names:
        accepted = [list(row) for row in references]
        metric = BLEU(bleu_tokenize) if known[name] is BLEU else known[name]()
        scores |= metric.compute(predictions=list(predictions), references=accepted)
    return scores
