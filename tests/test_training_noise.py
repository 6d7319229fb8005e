"""Noise in training sources: what it changes, what it leaves alone, and that it is the same for the same row."""

import numpy as np
import pytest
import yaml
from datasets import Dataset
from forked_runs import write_digits_recipe

from fun_transformer.training.data.fresh_rows import FreshRows
from fun_transformer.training.data.noise import Noise
from fun_transformer.training.data.tokenizing import encode_pairs
from fun_transformer.training.recipe.arguments import NoiseArguments
from fun_transformer.training.recipe.checks import check
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.train_tokenizer import train_tokenizer

TEXT = "A man, who is old, reads."
DATA = ["--data.train.source", "a.zh", "--data.train.target", "a.en"]


def noisy(text=TEXT, rows=1, tags=(), prefix="", epoch=0, **settings):
    noise = Noise(NoiseArguments(**settings), 1, tags, prefix)
    return [noise(text, epoch, row) for row in range(rows)]


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("upper", {"A MAN, WHO IS OLD, READS."}),
        ("lower", {"a man, who is old, reads."}),
        ("title", {"A Man, Who Is Old, Reads."}),
        ("punctuation", {"A man, who is old, reads", "A man who is old reads"}),
        ("join", {"Aman,whoisold,reads."}),
    ],
)
def test_what_is_certain_happens(kind, expected):
    assert set(noisy(rows=30, **{kind: 1.0})) == expected


def test_torn_words_have_the_same_letters():
    for text in noisy(rows=20, split=1.0):
        assert text.replace(" ", "") == TEXT.replace(" ", "") and len(text.split()) == 2 * len(TEXT.split()) - 1


def test_typing_errors_are_as_frequent_as_said_and_hit_letters_alone():
    text = "abcdefghij" * 100 + " 12345 .,;"
    changed = noisy(text, rows=20, typos=0.1)
    assert all(other.endswith(" 12345 .,;") for other in changed)
    lengths = [len(other) - len(text) for other in changed]
    assert 0 < abs(np.mean(lengths)) + np.std(lengths) < 30  # as many are left out as doubled
    same = np.mean([sum(a == b for a, b in zip(text[:10], other[:10])) for other in noisy(text, 400, typos=0.01)])
    assert 9 < same < 10


@pytest.mark.parametrize("kind, share", [("upper", 0.3), ("lower", 0.2), ("punctuation", 0.4)])
def test_rows_are_hit_as_often_as_said(kind, share):
    changed = np.mean([text != TEXT for text in noisy(rows=4000, **{kind: share})])
    assert abs(changed - share) < 0.03


def test_the_same_row_of_an_epoch_is_always_changed_alike_and_others_are_not():
    settings = {"typos": 0.2, "split": 0.2, "join": 0.2, "upper": 0.3}
    assert noisy(rows=50, **settings) == noisy(rows=50, **settings)
    assert len(set(noisy(rows=50, **settings))) > 40
    assert noisy(rows=50, **settings) != noisy(rows=50, epoch=1, **settings)


def test_tags_and_the_prefix_stay():
    text = ">>en<< <domain:news> translate: Ein Haus."
    found = noisy(text, 20, [">>en<<", "<domain:news>"], "translate: ", upper=1.0, typos=0.3)
    assert all(other.startswith(">>en<< <domain:news> translate: ") for other in found)
    assert all(other != text and other.isprintable() for other in found)


def test_a_text_of_punctuation_alone_stays():
    assert noisy("...", punctuation=1.0) == ["..."]


def test_text_without_spaces_is_not_torn_and_loses_its_marks():
    assert noisy("今天下雨。", rows=5, split=1.0, join=1.0) == ["今天下雨。"] * 5
    assert noisy("今天下雨。", rows=5, punctuation=1.0) == ["今天下雨"] * 5


def rows_of(longest=1000):
    pairs = {"source": [TEXT] * 3, "target": ["x y"] * 3}
    tokenizer = train_tokenizer([TEXT] * 20, ["x y"] * 20)
    dataset = Dataset.from_dict({**pairs, **encode_pairs(pairs, tokenizer)})
    noise = Noise(NoiseArguments(typos=0.3), 1)
    return dataset, tokenizer, FreshRows(dataset, lambda batch: encode_pairs(batch, tokenizer), longest, noise)


def test_rows_are_read_with_other_sources_and_the_same_targets_in_each_epoch():
    dataset, tokenizer, rows = rows_of()
    first, second = (rows.read(np.array([2, 0]), epoch) for epoch in (0, 1))
    for row, number in zip(first, (2, 0)):
        expected = Noise(NoiseArguments(typos=0.3), 1)(TEXT, 0, number)
        assert tokenizer.decode(row["input_ids"], skip_special_tokens=True) == expected
        assert list(row["labels"]) == dataset[0]["labels"]
    assert list(first[0]["input_ids"]) != list(second[0]["input_ids"])
    assert list(rows.source_lengths) == [len(ids) for ids in dataset["input_ids"]]


def test_a_row_that_would_become_too_long_is_taken_as_it_is():
    dataset, _, _ = rows_of()
    _, _, rows = rows_of(longest=max(len(ids) for ids in dataset["input_ids"]) - 1)
    assert list(rows.read(np.array([0]), 0)[0]["input_ids"]) == dataset[0]["input_ids"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--data.noise.uper", "0.1"], "data.noise.uper is not known. Did you mean data.noise.upper"),
        (["--data.noise.typos", "1.5"], "data.noise.typos must be at most 1"),
        (["--data.noise.typos", "often"], "data.noise.typos must be a number"),
        (["--data.noise.upper", "0.6", "--data.noise.title", "0.6"], "upper, lower and title are 1.2 together"),
        (["--objective", "token_classification", "--data.noise.typos", "0.1"], "data.noise is for objective: seq2seq"),
        (["--objective", "masked_lm", "--data.noise.typos", "0.1"], "data.noise is for objective: seq2seq"),
    ],
)
def test_mistakes_in_the_recipe_are_explained(words, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments([*DATA, *words])


def test_a_recipe_may_switch_noise_off():
    assert not check(parse_arguments([*DATA, "--data.noise.typos", "0"])).data.noise.is_on


@pytest.mark.slow
def test_a_noisy_run_goes_on_to_the_last_bit(tmp_path, children):
    recipe = write_digits_recipe(tmp_path)
    for path in tmp_path.glob("*.jsonl"):  # letters in the place of digits: typing errors are of letters
        path.write_text(path.read_text().translate(str.maketrans("0123456789", "abcdefghij")))
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    content["data"]["noise"] = {"typos": 0.1, "upper": 0.2}
    recipe.write_text(yaml.safe_dump(content), encoding="utf-8")
    options = ["--training.schedule", "inverse_sqrt"]
    assert children.run(recipe, tmp_path / "run", *options, "--training.max_steps", "8") == [0]
    assert children.run(recipe, tmp_path / "run", *options, "--resume") == [0], children.log(tmp_path / "run")
    assert children.run(recipe, tmp_path / "whole", *options) == [0]
    off = ["--data.noise.typos", "0", "--data.noise.upper", "0"]
    assert children.run(recipe, tmp_path / "clean", *options, *off) == [0]
    names = ("run", "whole", "clean")
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in names]
    assert weights[0] == weights[1] != weights[2]
