"""Metrics against sacreBLEU itself and hand-counted edits."""

import dataclasses
import sys

import pytest
import sacrebleu
from datasets import Dataset
from forked_runs import write_digits_recipe

from fun_transformer.training.metrics import choose_bleu_tokenize, compute_metrics, edit_distance
from fun_transformer.training.recipe.arguments import (
    DataArguments,
    GenerationArguments,
    RunArguments,
    SplitArguments,
)
from fun_transformer.training.recipe.checks import check
from fun_transformer.training.recipe.defaults import describe_choices
from fun_transformer.training.scoring import resolve_bleu
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


WITHOUT_SPACES = {
    "zh": "今天天气很好，我们去公园。",
    "ja": "この電車は次の駅で止まりません。",
    "katakana": "コンピューターサイエンス。",
    "th": "รถไฟขบวนนี้ไม่หยุดที่สถานีถัดไป",
    "lo": "ລົດໄຟຂະບວນນີ້ບໍ່ຢຸດຢູ່ສະຖານີຕໍ່ໄປ",
    "km": "រថភ្លើងនេះមិនឈប់នៅស្ថានីយបន្ទាប់ទេ។",
    "my": "ဒီရထားကနောက်ဘူတာမှာမရပ်ဘူး။",
    "bo": "མེ་འཁོར་འདི་ས་ཚིགས་རྗེས་མར་མི་འགོར།",
    "nom": "\U00021a38\U000213c1\U00021be2\U00022b05\U00026a5b\U000210c8",
}


@pytest.mark.parametrize("text", WITHOUT_SPACES.values(), ids=WITHOUT_SPACES)
def test_equal_text_without_spaces_scores_100(text):
    scores = compute_metrics(["bleu"], [text], [[text]])
    assert scores["bleu"] == pytest.approx(100)
    assert 0 < compute_metrics(["bleu"], [text[:-2] + "x"], [[text]])["bleu"] < 100


@pytest.mark.parametrize("tokenize", ["zh", "char", "13a"])
def test_the_tokenization_can_be_named_and_is_in_the_signature(tokenize):
    predictions, references = ["この電車は次の駅で止まりません。"], [["この電車は次の駅に止まりません。"]]
    scores = compute_metrics(["bleu"], predictions, references, tokenize)
    expected = sacrebleu.BLEU(tokenize=tokenize).corpus_score(predictions, [references[0]]).score
    assert scores["bleu"] == pytest.approx(expected) and f"tok:{tokenize}" in scores["bleu_signature"]


@pytest.mark.parametrize(
    ("text", "language", "tokenize"),
    [
        ("我用 Python 写程序和文章", None, "zh"),
        ("He said 你好 to me", None, "13a"),
        ("He said 你好 to me", "zh", "13a"),
        ("東京都庁", None, "zh"),
        ("東京都庁", "ja", "char"),
        ("東京都庁", "jpn_Jpan", "char"),
        ("wǒ yào chī fàn", "zh", "13a"),
        ("한국어는 띄어쓰기를 한다", None, "13a"),
        ("1, 2, 3", None, "13a"),
        ("", None, "13a"),
    ],
)
def test_the_script_decides_how_bleu_cuts_text(text, language, tokenize):
    assert choose_bleu_tokenize([text], language) == tokenize


def recipe_and_rows(*corpora, **options):
    """A recipe of corpora, each a language and its targets, and the training rows."""
    parts = [SplitArguments(dataset=f"{number}.tsv", tgt_lang=name) for number, (name, _) in enumerate(corpora)]
    train = SplitArguments(mix=parts) if len(parts) > 1 else parts[0]
    rows = {"target": [text for _, texts in corpora for text in texts]}
    if len(parts) > 1:
        rows["corpus"] = [number for number, (_, texts) in enumerate(corpora) for _ in texts]
    arguments = RunArguments(data=DataArguments(train=train), generation=GenerationArguments(**options))
    return arguments, Dataset.from_dict(rows)


@pytest.mark.parametrize(
    ("corpora", "tokenize"),
    [
        ([("en", ["It rains ."] * 3000)], "13a"),
        ([("zh", ["今天下雨"] * 5)], "zh"),
        ([("en", ["It rains ."] * 50), ("zh", ["今天下雨"])], "zh"),  # what zh does to English is what 13a does
        ([("en", ["It rains ."] * 50), ("th", ["ฝนตก"])], "char"),
    ],
)
def test_a_run_decides_once_by_its_training_targets(corpora, tokenize):
    arguments, rows = recipe_and_rows(*corpora)
    resolved = resolve_bleu(arguments, rows)
    assert resolved.generation.bleu_tokenize == tokenize and arguments.generation.bleu_tokenize == "auto"
    assert f"generation.bleu_tokenize {tokenize}" in describe_choices(arguments, resolved, 5)
    named, _ = recipe_and_rows(*corpora, bleu_tokenize="intl")
    assert resolve_bleu(named, rows).generation.bleu_tokenize == "intl"
    masked = dataclasses.replace(arguments, objective="masked_lm")
    assert resolve_bleu(masked, rows) == masked


@pytest.mark.slow
def test_the_recipe_and_the_card_of_a_run_say_how_bleu_cut_its_texts(children, tmp_path):
    recipe, run = write_digits_recipe(tmp_path), tmp_path / "run"
    kana = str.maketrans("0123456789", "あいうえおかきくけこ")
    for split in ("train", "validation", "test"):
        path = tmp_path / f"{split}.jsonl"
        path.write_text(path.read_text(encoding="utf-8").translate(kana), encoding="utf-8")
    options = ["--generation.metrics", "bleu", "--training.metric_for_best_model", "bleu"]
    assert children.run(recipe, run, *options) == [0], children.log(run)
    assert "generation.bleu_tokenize char" in children.log(run)
    assert "bleu_tokenize: char\n" in (run / "recipe.yaml").read_text(encoding="utf-8")
    assert "tok:char" in (run / "model" / "README.md").read_text(encoding="utf-8")
    assert children.run(run / "recipe.yaml", run, "--training.max_steps", "14", "--resume") == [0], children.log(run)


def test_a_tokenization_that_is_not_installed_is_refused_at_once(monkeypatch):
    arguments, _ = recipe_and_rows(("ja", []), bleu_tokenize="ja-mecab")
    monkeypatch.setitem(sys.modules, "MeCab", None)
    monkeypatch.delitem(sys.modules, "sacrebleu.tokenizers.tokenizer_ja_mecab", raising=False)
    with pytest.raises(ValueError, match=r"pip install 'sacrebleu\[ja\]'"):
        check(arguments)
    with pytest.raises(ValueError, match=r"bleu_tokenize must be one of auto, 13a.* Did you mean"):
        check(recipe_and_rows(("ja", []), bleu_tokenize="ja-meca")[0])


def test_rows_may_have_different_numbers_of_references():
    predictions = ["A B C", "D E", "F"]
    references = [["X", "A B C"], ["D E"], ["F G H", "G", "F F"]]
    scores = compute_metrics(TEXT_METRICS, predictions, references)
    assert scores["g2p_wer"] == pytest.approx(100 / 3) and scores["exact"] == pytest.approx(200 / 3)
    assert scores["per"] == pytest.approx(
        100 * 1 / (3 + 2 + 1)
    )  # F against G: one edit, and the shorter of two nearest
    assert "nrefs:var" in scores["bleu_signature"]


def test_spaces_do_not_count_in_pronunciations():
    assert compute_metrics(["per", "g2p_wer"], [" A  B "], [["A B"]]) == {"per": 0.0, "g2p_wer": 0.0}


def test_word_and_character_error_rates_are_those_of_speech():
    references = [["the cat sat on the mat"], ["hello", "hello there world"], ["a b"]]
    predictions = ["the cat on a mat", " hello  world ", "ab"]
    scores = compute_metrics(["wer", "cer"], predictions, references)
    edits = 2 + 1 + 2  # sat is missing and the became a; world is one too many; a b became one word
    assert scores["wer"] == pytest.approx(100 * edits / (6 + 1 + 2))
    assert compute_metrics(["cer"], ["ab"], [["a b"]])["cer"] == pytest.approx(100 / 3)
    assert compute_metrics(["wer", "cer"], ["one two three"], [["one"]]) == {
        "wer": 200.0,
        "cer": pytest.approx(1000 / 3),
    }


def test_formulas_of_one_picture_are_the_same():
    pytest.importorskip("matplotlib")
    pairs = {"x ^ { 2 }": "x ^ 2", "a + b": "b + a", r"\frac { 1 } { 2": r"\frac { 1 } { 2 }"}
    found = [compute_metrics(["same_picture"], [left], [[right]])["same_picture"] for left, right in pairs.items()]
    assert found == [100, 0, 0]


@pytest.mark.parametrize(
    "left, right, distance",
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_edit_distance_counts_edits(left, right, distance):
    assert edit_distance(list(left), list(right)) == distance == edit_distance(list(right), list(left))


def test_nothing_generated_is_all_wrong_but_finite():
    scores = compute_metrics(TEXT_METRICS, ["", ""], [["A B"], ["C"]])
    assert (
        scores["per"] == scores["wer"] == scores["cer"] == 100
        and scores["bleu"] == scores["chrf"] == scores["exact"] == 0
    )


@pytest.mark.parametrize(
    "names, predictions, references, message",
    [
        (["blue"], ["a"], [["a"]], "no metric of texts 'blue'. .* Did you mean bleu"),
        (
            ["loss"],
            ["a"],
            [["a"]],
            "There are bleu, chrf, chrf\\+\\+, ter, per, g2p_wer, wer, cer, exact, same_picture",
        ),
        (["bleu"], [], [], "cannot be compared"),
        (["bleu"], ["a"], [["a"], ["b"]], "cannot be compared"),
        (["bleu"], ["a", "b"], [["a"], []], "Row 1 has no reference"),
    ],
)
def test_mistakes_are_explained(names, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        compute_metrics(names, predictions, references)
