"""Batches by token budget: complete, reproducible, equal over processes, and almost without padding."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from training.batching import Mixture, PackedBatches, TokenBudgetBatches, pack_batch, pad_batch

MULTI30K = Path(__file__).parents[2] / "shared" / "data" / "multi30k"
BOTH_KINDS = pytest.mark.parametrize("kind", [TokenBudgetBatches, PackedBatches])


def random_lengths(rows, seed=0):
    rng = np.random.default_rng(seed)
    source = rng.poisson(20, rows) + 1
    return source, np.maximum(1, (source * rng.normal(1, 0.2, rows)).astype(int))


def listed(batches):
    return [rows.tolist() for rows in batches]


def efficiency(batches, source, target):
    padded = sum(len(rows) * (source[rows].max() + target[rows].max()) for rows in batches)
    return (source.sum() + target.sum()) / padded


@BOTH_KINDS
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_every_row_appears_exactly_once_over_all_processes(world_size, kind):
    source, target = random_lengths(1000)
    ranks = [kind(source, target, 512, 3, rank, world_size).batches(5) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert sorted(np.concatenate([batch for batches in ranks for batch in batches])) == list(range(1000))


def test_no_batch_exceeds_the_budget_but_a_single_long_row():
    source, target = random_lengths(1000)
    source[17] = 600
    batches = TokenBudgetBatches(source, target, 512, 3)
    assert batches.oversized == 1
    for rows in batches.batches(0):
        assert rows.tolist() == [17] or len(rows) * (source[rows].max() + target[rows].max()) <= 512


@pytest.mark.parametrize("multiple", [1, 16])
def test_packed_batches_are_full_of_real_tokens_and_never_over_the_budget(multiple):
    source, target = random_lengths(1000)
    source[17] = 600
    batches = PackedBatches(source, target, 512, 3, multiple=multiple)
    rows = [{"input_ids": np.ones(s), "labels": np.ones(t)} for s, t in zip(source, target)]
    sizes = []
    for chosen in batches.batches(0):
        batch = pack_batch([rows[row] for row in chosen], 0, multiple)
        sizes.append(batch["input_ids"].shape[1] + batch["labels"].shape[1])
        assert sizes[-1] == batches.size(chosen)
        assert chosen.tolist() == [17] or sizes[-1] <= 512
        assert batch["input_ids"].shape[1] % multiple == 0 == batch["labels"].shape[1] % multiple
    assert np.mean(sizes) > 512 - (source + target).mean() - 2 * multiple


@BOTH_KINDS
def test_the_order_depends_on_seed_and_epoch_alone(kind):
    lengths = random_lengths(500)
    batches = kind(*lengths, 512, seed=3)
    first = listed(batches.batches(4))
    batches.batches(9)
    assert first == listed(batches.batches(4)) == listed(kind(*lengths, 512, seed=3).batches(4))
    assert first != listed(batches.batches(5))
    assert first != listed(kind(*lengths, 512, seed=4).batches(4))


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


def test_a_packed_batch_is_one_row_and_knows_where_each_sentence_ends():
    rows = [{"input_ids": [5, 2], "labels": [6, 7, 2]}, {"input_ids": [8, 9, 2], "labels": [2]}]
    batch = pack_batch(rows, 0)
    assert batch["input_ids"].tolist() == [[5, 2, 8, 9, 2]] and batch["labels"].tolist() == [[6, 7, 2, 2]]
    packing = batch["packing"]
    assert packing["source_offsets"].tolist() == [0, 2, 5] and packing["target_offsets"].tolist() == [0, 3, 4]
    assert (packing["longest_source"], packing["longest_target"]) == (3, 3)
    assert packing["source_offsets"].dtype == torch.int32 and batch["input_ids"].dtype == torch.long


def test_a_packed_batch_of_round_size_ends_in_a_sentence_that_no_loss_counts():
    rows = [{"input_ids": [5, 2], "labels": [6, 7, 2]}, {"input_ids": [9, 2], "labels": [2]}]
    batch = pack_batch(rows, 0, multiple=4)
    assert batch["input_ids"].tolist() == [[5, 2, 9, 2, 0, 0, 0, 0]]  # never none: the target's needs one to look at
    assert batch["labels"].tolist() == [[6, 7, 2, 2, -100, -100, -100, -100]]
    packing = batch["packing"]
    assert packing["source_offsets"].tolist() == [0, 2, 4, 8] and packing["target_offsets"].tolist() == [0, 3, 4, 8]
    offsets = pack_batch([*rows, *rows], 0, multiple=4)["packing"]["source_offsets"]
    assert offsets.tolist() == [0, 2, 4, 6, 8, 12, 12, 12]
    assert packing["longest_source"] == 4 == packing["longest_target"]


@BOTH_KINDS
def test_an_epoch_begun_on_some_processes_is_finished_on_others_with_every_row_once(kind):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, size=(2, 101))

    def part(world_size, done=()):
        """The batches of all processes, in the order of training."""
        ranks = [kind(*lengths, 100, 5, rank, world_size).batches(3, done) for rank in range(world_size)]
        return [batch.tolist() for step in zip(*ranks, strict=True) for batch in step]

    one, two = part(1), part(2)
    assert all(set(halved) <= set(whole) for whole, halved in zip(one, two, strict=False))  # the same order
    seen = part(1)[:7] + part(2, [(1, 7)])[: 2 * 5] + part(3, [(1, 7), (2, 5)])[: 3 * 2]
    seen += part(1, [(1, 7), (2, 5), (3, 2)])
    assert sorted(row for batch in seen for row in batch) == list(range(101))
    assert part(2, [(1, len(one))]) == []


def drawn_of(mixture, epoch, sizes):
    """How often each row is drawn in an epoch, by corpus."""
    counts = np.bincount(mixture.draw(7, epoch), minlength=sum(sizes))
    return np.split(counts, np.cumsum(sizes)[:-1])


def test_one_weight_for_all_and_temperature_one_shows_each_row_once():
    for counts in drawn_of(Mixture(np.repeat([0, 1], [90, 10]), [3.0, 3.0]), 0, [90, 10]):
        assert (counts == 1).all()


def test_a_weight_multiplies_the_rows_of_a_corpus_and_none_comes_twice_before_all_came_once():
    large, small = drawn_of(Mixture(np.repeat([0, 1], [90, 10]), [1.0, 9.0]), 0, [90, 10])
    assert (large.sum(), small.sum()) == (50, 50) and set(small) == {5} and set(large) == {0, 1}


def test_a_high_temperature_draws_equally_from_all_and_never_forgets_one():
    sizes = [900, 90, 10]
    shares = {
        t: [c.sum() for c in drawn_of(Mixture(np.repeat([0, 1, 2], sizes), [1, 1, 1], t), 0, sizes)]
        for t in (1, 5, 1e9)
    }
    assert shares[1] == sizes and np.ptp(shares[1e9]) <= 1
    assert shares[1][2] < shares[5][2] < shares[1e9][2]
    assert drawn_of(Mixture(np.repeat([0, 1], [999, 1]), [1, 1e-9]), 0, [999, 1])[1].sum() == 1


def test_the_draw_is_a_function_of_seed_and_epoch_and_its_batches_hold_all_of_it():
    lengths = random_lengths(500)
    corpora = np.repeat([0, 1], [450, 50])
    mixed = [TokenBudgetBatches(*lengths, 512, 3, rank, 2, Mixture(corpora, [1, 5])) for rank in range(2)]
    first = [listed(ranks.batches(4)) for ranks in mixed]
    assert len(first[0]) == len(first[1]) and listed(mixed[0].batches(5)) != first[0]
    assert [listed(ranks.batches(4)) for ranks in mixed] == first
    rows = sorted(row for batches in first for batch in batches for row in batch)
    assert rows == sorted(Mixture(corpora, [1, 5]).draw(3, 4))
