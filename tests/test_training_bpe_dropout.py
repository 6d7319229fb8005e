"""BPE-dropout cuts words differently each time, in training only, and loses no text."""

from functools import partial

import numpy as np
import pytest
from datasets import Dataset

from fun_transformer.training.data.bpe_dropout import drop_merges
from fun_transformer.training.data.fresh_rows import FreshRows
from fun_transformer.training.data.tokenizing import encode_pairs
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

LINES = ["the brown fox jumps over the brown dog", "a brown dog jumps"] * 20


@pytest.fixture
def tokenizer():
    return train_tokenizer(LINES, settings=TokenizerSettings(type="bpe", vocab_size=330))


@pytest.fixture
def dataset(tokenizer):
    """The lines as sources, the other way round as targets, tokenized."""
    pairs = {"source": LINES[:2], "target": LINES[1::-1]}
    return Dataset.from_dict({**pairs, **encode_pairs(pairs, tokenizer)})


def dropping_rows(dataset, tokenizer, probability, longest=100):
    return FreshRows(dataset, partial(encode_pairs, tokenizer=drop_merges(tokenizer, probability)), longest)


def read(rows, number):
    return rows.read(np.array([number]), epoch=0)[0]


def test_a_row_is_cut_differently_each_time_and_keeps_its_text(dataset, tokenizer):
    rows = dropping_rows(dataset, tokenizer, 0.3)
    plain = dataset[0]["input_ids"]
    seen = {tuple(read(rows, 0)["input_ids"]) for _ in range(20)}
    assert len(seen) > 5
    assert all(len(ids) >= len(plain) for ids in seen)
    assert {tokenizer.decode(ids, skip_special_tokens=True) for ids in seen} == {LINES[0]}
    assert {tokenizer.decode(read(rows, 1)["labels"], skip_special_tokens=True) for _ in range(5)} == {LINES[0]}


def test_the_tokenizer_of_evaluation_stays_as_it_is(dataset, tokenizer):
    drop_merges(tokenizer, 0.9)
    assert {tuple(tokenizer(LINES[0])["input_ids"]) for _ in range(10)} == {tuple(dataset[0]["input_ids"])}


def test_a_row_that_would_become_too_long_is_taken_as_it_is(dataset, tokenizer):
    longest = len(dataset[0]["input_ids"])
    rows = dropping_rows(dataset, tokenizer, 0.9, longest)
    assert [list(read(rows, 0)["input_ids"]) for _ in range(5)] == [dataset[0]["input_ids"]] * 5


def test_lengths_are_those_without_dropout(dataset, tokenizer):
    rows = dropping_rows(dataset, tokenizer, 0.5)
    assert list(rows.source_lengths) == [len(ids) for ids in dataset["input_ids"]]


def test_other_tokenizers_are_refused():
    with pytest.raises(ValueError, match="needs a tokenizer of type bpe"):
        drop_merges(train_tokenizer(LINES, settings=TokenizerSettings(type="char")), 0.1)
