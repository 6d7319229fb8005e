"""Metrics against sacreBLEU itself and hand-counted edits."""

import pytest
import sacrebleu

from fun_transformer.training.metrics import compute_metrics, edit_distance, is_chinese
from fun_transformer.training.tables import METRICS

TEXT_METRICS = [name for name, metric in METRICS.items() if metric.compares_texts]


def test_bleu_and_chrf_are_sacrebleus():
    predictions, references = ["the cat sat on the mat .", "a dog runs"], ["the cat sat on a mat .", "a dog ran home"]
    scores = compute_metrics(["bleu", "chrf"], predictions, [[text] for text in references])
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(predictions, [references]).score)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(predictions, [references]).score)
    assert "tok:13a" in scores["bleu_signature"] and "nc:6" in scores["chrf_signature"]


def test_chinese_references_are_counted_by_character():
    scores = compute_metrics(["bleu"], ["今天天气很好。"], [["今天天气很好。"]])
    assert scores["bleu"] == pytest.approx(100) and "tok:zh" in scores["bleu_signature"]
    assert is_chinese([["我用 Python 写程序和文章"]]) and not is_chinese([["He said 你好 to me"]])


def test_rows_may_have_different_numbers_of_references():
    predictions = ["A B C", "D E", "F"]
    references = [["X", "A B C"], ["D E"], ["F G H", "G", "F F"]]
    scores = compute_metrics(TEXT_METRICS, predictions, references)
    assert scores["wer"] == pytest.approx(100 / 3) and scores["exact"] == pytest.approx(200 / 3)
    assert scores["per"] == pytest.approx(
        100 * 1 / (3 + 2 + 1)
    )  # F against G: one edit, and the shorter of two nearest
    assert "nrefs:var" in scores["bleu_signature"]


def test_spaces_do_not_count_in_pronunciations():
    assert compute_metrics(["per", "wer"], [" A  B "], [["A B"]]) == {"per": 0.0, "wer": 0.0}


@pytest.mark.parametrize(
    "left, right, distance",
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_edit_distance_counts_edits(left, right, distance):
    assert edit_distance(list(left), list(right)) == distance == edit_distance(list(right), list(left))


def test_nothing_generated_is_all_wrong_but_finite():
    scores = compute_metrics(TEXT_METRICS, ["", ""], [["A B"], ["C"]])
    assert scores["per"] == scores["wer"] == 100 and scores["bleu"] == scores["chrf"] == scores["exact"] == 0


@pytest.mark.parametrize(
    "names, predictions, references, message",
    [
        (["blue"], ["a"], [["a"]], "no metric of texts 'blue'. .* Did you mean bleu"),
        (["loss"], ["a"], [["a"]], "There are bleu, chrf, per, wer, exact"),
        (["bleu"], [], [], "cannot be compared"),
        (["bleu"], ["a"], [["a"], ["b"]], "cannot be compared"),
        (["bleu"], ["a", "b"], [["a"], []], "Row 1 has no reference"),
    ],
)
def test_mistakes_are_explained(names, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        compute_metrics(names, predictions, references)
