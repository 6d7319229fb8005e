"""Batches by token budget: complete, reproducible, equal over processes, and almost without padding."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from training.batching import TokenBudgetBatches, pad_batch

MULTI30K = Path(__file__).parents[2] / "shared" / "data" / "multi30k"


def random_lengths(rows, seed=0):
    rng = np.random.default_rng(seed)
    source = rng.poisson(20, rows) + 1
    return source, np.maximum(1, (source * rng.normal(1, 0.2, rows)).astype(int))


def efficiency(batches, source, target):
    padded = sum(len(rows) * (source[rows].max() + target[rows].max()) for rows in batches)
    return (source.sum() + target.sum()) / padded


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_every_row_appears_exactly_once_over_all_processes(world_size):
    source, target = random_lengths(1000)
    ranks = [TokenBudgetBatches(source, target, 512, 3, rank, world_size).batches(5) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    rows = [row for batches in ranks for batch in batches for row in batch]
    assert sorted(rows) == list(range(1000))


def test_no_batch_exceeds_the_budget_but_a_single_long_row():
    source, target = random_lengths(1000)
    source[17] = 600
    batches = TokenBudgetBatches(source, target, 512, 3)
    assert batches.oversized == 1
    for rows in batches.batches(0):
        assert rows == [17] or len(rows) * (source[rows].max() + target[rows].max()) <= 512


def test_the_order_depends_on_seed_and_epoch_alone():
    lengths = random_lengths(500)
    batches = TokenBudgetBatches(*lengths, 512, seed=3)
    first = batches.batches(4)
    batches.batches(9)
    assert first == batches.batches(4) == TokenBudgetBatches(*lengths, 512, seed=3).batches(4)
    assert first != batches.batches(5) and first != TokenBudgetBatches(*lengths, 512, seed=4).batches(4)


def test_an_epoch_does_not_go_from_short_to_long():
    source, target = random_lengths(3000)
    longest = [source[rows].max() for rows in TokenBudgetBatches(source, target, 512, 3).batches(0)]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


def test_rows_are_repeated_only_when_there_are_fewer_than_processes():
    ranks = [TokenBudgetBatches([3, 4], [3, 4], 100, 0, rank, 5).batches(0) for rank in range(5)]
    assert all(len(batches) == 1 and len(batches[0]) == 1 for batches in ranks)
    assert {batches[0][0] for batches in ranks} == {0, 1}


def test_accelerate_finds_no_batch_size():
    assert not hasattr(TokenBudgetBatches([1], [1], 8, 0), "batch_size")


@pytest.mark.skipif(not MULTI30K.exists(), reason="Multi30k is not here")
def test_padding_is_at_most_a_twentieth_on_multi30k():
    lengths = []
    for side in ("de", "en"):
        with gzip.open(MULTI30K / f"train.{side}.gz", "rt", encoding="utf-8") as lines:
            lengths.append(np.array([len(line.split()) + 3 for line in lines]))
    assert efficiency(TokenBudgetBatches(*lengths, 4096, 0).batches(0), *lengths) >= 0.95


@pytest.mark.parametrize(
    "arguments", [([1], [1, 2], 8, 0), ([], [], 8, 0), ([1], [1], 0, 0), ([1], [1], 8, 0, 2, 2), ([1], [1], 8, 0, -1)]
)
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        TokenBudgetBatches(*arguments)


def test_a_batch_is_padded_on_the_right_to_its_longest():
    batch = pad_batch([{"input_ids": [5, 2], "labels": [6, 7, 2]}, {"input_ids": [8, 9, 2], "labels": [2]}], 0)
    assert batch["input_ids"].tolist() == [[5, 2, 0], [8, 9, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [[6, 7, 2], [2, -100, -100]]
    assert all(tensor.dtype == torch.long for tensor in batch.values())


def test_an_epoch_begun_on_some_processes_is_finished_on_others_with_every_row_once():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, size=(2, 101))

    def part(world_size, done=()):
        """The batches of all processes, in the order of training."""
        ranks = [TokenBudgetBatches(*lengths, 100, 5, rank, world_size).batches(3, done) for rank in range(world_size)]
        return [batch for step in zip(*ranks, strict=True) for batch in step]

    one, two = part(1), part(2)
    assert all(set(halved) <= set(whole) for whole, halved in zip(one, two, strict=False))  # the same order
    seen = part(1)[:7] + part(2, [(1, 7)])[: 2 * 5] + part(3, [(1, 7), (2, 5)])[: 3 * 2]
    seen += part(1, [(1, 7), (2, 5), (3, 2)])
    assert sorted(row for batch in seen for row in batch) == list(range(101))
    assert part(2, [(1, len(one))]) == []
