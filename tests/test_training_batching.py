"""Batches by token budget: complete, reproducible, equal over processes, and almost without padding."""

import gzip
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fun_transformer.training.data.batches import Mixture, Share, TokenBudgetSampler, pad_batch
from fun_transformer.training.data.packing import PackedBatches, PackingSampler, fill_rows, pack_batch

MULTI30K = Path(__file__).parents[2] / "shared" / "data" / "multi30k"
BOTH_KINDS = pytest.mark.parametrize("kind", [TokenBudgetSampler, partial(PackingSampler, packing=64)])


def random_lengths(rows, seed=0):
    rng = np.random.default_rng(seed)
    source = rng.poisson(20, rows) + 1
    return source, np.maximum(1, (source * rng.normal(1, 0.2, rows)).astype(int))


def multi30k_lengths():
    """About how many tokens the sources and the targets of Multi30k have."""
    lengths = []
    for side in ("de", "en"):
        with gzip.open(MULTI30K / f"train.{side}.gz", "rt", encoding="utf-8") as lines:
            lengths.append(np.array([len(line.split()) + 3 for line in lines]))
    return lengths


def listed(batches):
    return [rows.tolist() for rows in batches]


def efficiency(batches, source, target):
    padded = sum(len(rows) * (source[rows].max() + target[rows].max()) for rows in batches)
    return (source.sum() + target.sum()) / padded


@BOTH_KINDS
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_every_row_appears_exactly_once_over_all_processes(world_size, kind):
    source, target = random_lengths(1000)
    ranks = [kind(source, target, 512, 3, Share(rank, world_size)).batches(5) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert sorted(np.concatenate([batch for batches in ranks for batch in batches])) == list(range(1000))


def test_no_batch_exceeds_the_budget_but_a_single_long_row():
    source, target = random_lengths(1000)
    source[17] = 600
    batches = TokenBudgetSampler(source, target, 512, 3)
    assert batches.oversized == 1
    for rows in batches.batches(0):
        assert rows.tolist() == [17] or len(rows) * (source[rows].max() + target[rows].max()) <= 512


def test_packed_batches_are_full_and_what_is_too_long_has_a_batch_of_its_own():
    source, target = random_lengths(1000)
    source[17] = 600
    batches = PackingSampler(source, target, 512, 3, packing=128)
    chosen = batches.batches(0)
    assert [batches.size(rows) for rows in chosen if 17 in rows] == [2 * 1024]
    assert [rows.tolist() for rows in chosen if 17 in rows] == [[17]]
    others = [rows for rows in chosen if 17 not in rows]
    assert {batches.size(rows) for rows in others} == {512}
    assert np.mean([(source[rows] + target[rows]).sum() / 512 for rows in others]) > 0.9


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
    longest = [source[rows].max() for rows in TokenBudgetSampler(source, target, 512, 3).batches(0)]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


def test_rows_are_repeated_only_when_there_are_fewer_than_processes():
    ranks = [TokenBudgetSampler([3, 4], [3, 4], 100, 0, Share(rank, 5)).batches(0) for rank in range(5)]
    assert all(len(batches) == 1 and len(batches[0]) == 1 for batches in ranks)
    assert {batches[0][0] for batches in ranks} == {0, 1}


def test_accelerate_finds_no_batch_size():
    assert not hasattr(TokenBudgetSampler([1], [1], 8, 0), "batch_size")


@pytest.mark.skipif(not MULTI30K.exists(), reason="Multi30k is not here")
def test_padding_is_at_most_a_twentieth_on_multi30k():
    lengths = multi30k_lengths()
    assert efficiency(TokenBudgetSampler(*lengths, 4096, 0).batches(0), *lengths) >= 0.95


@pytest.mark.parametrize(
    "arguments",
    [
        ([1], [1, 2], 8, 0),
        ([], [], 8, 0),
        ([1], [1], 0, 0),
        ([1], [1], 8, 0, Share(2, 2)),
        ([1], [1], 8, 0, Share(-1, 1)),
    ],
)
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="must be"):
        TokenBudgetSampler(*arguments)


def test_a_batch_is_padded_on_the_right_to_its_longest():
    batch = pad_batch([{"input_ids": [5, 2], "labels": [6, 7, 2]}, {"input_ids": [8, 9, 2], "labels": [2]}], 0)
    assert batch["input_ids"].tolist() == [[5, 2, 0], [8, 9, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [[6, 7, 2], [2, -100, -100]]
    assert all(tensor.dtype == torch.long for tensor in batch.values())


def test_packed_rows_hold_what_fits_and_say_which_sentence_each_token_belongs_to():
    rows = [([5, 2], [6, 7, 2]), ([8, 9, 2], [2]), ([5, 6, 2], [2])]
    batch = pack_batch([{"input_ids": source, "labels": labels} for source, labels in rows], 0, 8, least_rows=3)
    assert batch["input_ids"].tolist() == [[5, 2, 8, 9, 2, 0, 0, 0], [5, 6, 2, 0, 0, 0, 0, 0], [0] * 8]
    assert batch["labels"].tolist() == [[6, 7, 2, 2, *[-100] * 4], [2, *[-100] * 7], [-100] * 8]
    assert batch["packing"]["source_segment_ids"].tolist() == [[1, 1, 2, 2, 2, 0, 0, 0], [1, 1, 1, *[0] * 5], [0] * 8]
    assert batch["packing"]["target_segment_ids"].tolist() == [[1, 1, 1, 2, *[0] * 4], [1, *[0] * 7], [0] * 8]
    assert all(tensor.dtype == torch.long for tensor in (batch["input_ids"], *batch["packing"].values()))


def test_a_source_leaves_a_place_free_for_padding_to_look_at():
    rows = [{"input_ids": [5] * 8, "labels": [6] * 8}]
    assert pack_batch(rows, 0, 8)["input_ids"].shape == (1, 16)
    assert pack_batch([{"input_ids": [5] * 7, "labels": [6] * 8}], 0, 8)["input_ids"].shape == (1, 8)


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=60),
    st.integers(2, 40),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_packed_batches_have_as_many_rows_as_they_need_or_one_shape_and_lose_no_token(lengths, packing, world_size):
    source, target = (np.array(side) for side in zip(*lengths))
    for rank in range(world_size):
        batches = PackingSampler(source, target, 100, 1, Share(rank, world_size), packing=packing)
        for chosen in batches.batches(0):
            rows = [{"input_ids": [5] * source[row], "labels": [6] * target[row]} for row in chosen]
            batch = PackedBatches(batches, None, SimpleNamespace(pad_token_id=0)).collate(rows)
            count, length = batch["input_ids"].shape
            assert batch["labels"].shape == (count, length) and count <= max(1, 100 // (2 * length))
            assert count == batches.rows_to_keep(length) or (batch["input_ids"] == 5).any(1).all()
            assert 2 * batch["input_ids"].numel() == batches.size(chosen)
            assert length == packing or length < 2 * max(source[chosen].max() + 1, target[chosen].max())
            assert (batch["input_ids"] == 5).sum() == source[chosen].sum()
            assert (batch["labels"] == 6).sum() == target[chosen].sum()


def places_of(sampler, epoch=0):
    """How many places each batch of an epoch has, sources and targets."""
    return [sampler.size(rows) for rows in sampler.batches(epoch)]


@pytest.mark.parametrize("budget", [25_000, 10_000_000])
def test_a_small_epoch_is_one_small_batch_whatever_the_budget(budget):
    source, target = random_lengths(99)
    sampler = PackingSampler(source // 2 + 1, target // 2 + 1, budget, 3, packing=64)
    tokens = int(sampler.source_lengths.sum() + sampler.target_lengths.sum())
    places = places_of(sampler)
    assert len(places) == 1 and tokens <= places[0] < 1.3 * tokens


def test_one_shape_is_kept_where_there_are_several_full_batches():
    lengths = random_lengths(2000)
    many, few = (PackingSampler(*lengths, budget, 3, packing=128) for budget in (4096, 32_768))
    assert {size for epoch in range(3) for size in places_of(many, epoch)} == {4096}
    assert 1 < len(places_of(few)) < 8 and sum(places_of(few)) < 1.15 * sum(map(np.sum, lengths))
    assert sorted(places_of(few))[1:] == [32_768] * (len(places_of(few)) - 1)


def test_texts_that_grew_since_they_were_counted_get_more_rows():
    """BPE-dropout cuts a text into more tokens than the batches were made for."""
    source, target = np.full(40, 7), np.full(40, 7)
    sampler = PackingSampler(source, target, 32, 3, packing=8)
    batches = PackedBatches(sampler, None, SimpleNamespace(pad_token_id=0))
    assert sampler.rows_to_keep(8) == 2
    for grown in (7, 8, 9):
        batch = batches.collate([{"input_ids": [5] * grown, "labels": [6] * grown}] * 3)
        assert (batch["input_ids"] == 5).sum() == (batch["labels"] == 6).sum() == 3 * grown


@pytest.mark.skipif(not MULTI30K.exists(), reason="Multi30k is not here")
def test_packed_rows_are_full_on_multi30k():
    lengths = multi30k_lengths()
    row_of_pair = fill_rows(*lengths, 128)
    assert len(row_of_pair) == len(lengths[0])
    assert sum(map(np.sum, lengths)) >= 0.94 * 2 * 128 * (1 + row_of_pair.max())


def test_a_pair_goes_to_the_first_open_row_with_room_for_it():
    source, target = np.array([3, 3, 2, 6, 1, 7, 7, 1]), np.array([4, 2, 1, 6, 1, 8, 8, 1])
    # Rows of 8 have 7 free places for sources. With two open rows, the third pair of seven closes the first.
    assert fill_rows(source, target, 8, most=2).tolist() == [0, 0, 1, 2, 1, 3, 4, 5]
    assert fill_rows(source, target, 8).tolist() == [0, 0, 1, 2, 0, 3, 4, 1]


def test_rows_are_sorted_as_by_all_keys_at_once():
    rng = np.random.default_rng(0)
    for longest in (60, 100_000):  # the latter does not fit into 16 bits
        lengths = rng.integers(1, longest, size=(2, 2000))
        sampler = TokenBudgetSampler(*lengths, 10**6, 1)
        order = sampler.sort(np.arange(2000), np.random.default_rng(5))
        ties = np.random.default_rng(5).random(2000)
        buckets = np.log(lengths[0]) // np.log(1.1)
        assert order.tolist() == np.lexsort((ties, np.where(buckets % 2, lengths[1], -lengths[1]), buckets)).tolist()


@BOTH_KINDS
def test_an_epoch_begun_on_some_processes_is_finished_on_others_with_every_row_once(kind):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, size=(2, 101))

    def part(world_size, done=()):
        """The batches of all processes, in the order of training."""
        ranks = [kind(*lengths, 100, 5, Share(rank, world_size)).batches(3, done) for rank in range(world_size)]
        return [batch.tolist() for step in zip(*ranks, strict=True) for batch in step]

    one, two = part(1), part(2)
    assert all(set(halved) <= set(whole) for whole, halved in zip(one, two, strict=False))  # the same order
    seen = part(1)[:7] + part(2, [(1, 7)])[: 2 * 5] + part(3, [(1, 7), (2, 5)])[: 3 * 2]
    seen += part(1, [(1, 7), (2, 5), (3, 2)])
    assert sorted(row for batch in seen for row in batch) == list(range(101))
    assert part(2, [(1, len(one))]) == []


def drawn_of(mixture, epoch, sizes):
    """How often each row is drawn in an epoch, by corpus."""
    counts = np.bincount(mixture.sample(7, epoch), minlength=sum(sizes))
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
    mixed = [TokenBudgetSampler(*lengths, 512, 3, Share(rank, 2), Mixture(corpora, [1, 5])) for rank in range(2)]
    first = [listed(ranks.batches(4)) for ranks in mixed]
    assert len(first[0]) == len(first[1]) and listed(mixed[0].batches(5)) != first[0]
    assert [listed(ranks.batches(4)) for ranks in mixed] == first
    rows = sorted(row for batches in first for batch in batches for row in batch)
    assert rows == sorted(Mixture(corpora, [1, 5]).sample(3, 4))


# ── Inside transformers' trainer ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def of_example(tmp_path):
    """A function from steps and options to the trainer of examples/with_seq2seq_trainer.py, and the batches it saw."""
    from examples.with_seq2seq_trainer import TokenBudgetTrainer, build_trainer, make_rows

    def build(steps, **options):
        trainer = build_trainer(TokenBudgetTrainer, make_rows(150), steps, str(tmp_path / "run"))
        for name, value in options.items():
            setattr(trainer.args, name, value)
        seen, collate = [], trainer.data_collator

        def note(rows):
            seen.append([tuple(row["input_ids"]) for row in rows])
            return collate(rows)

        trainer.data_collator = note
        return trainer, seen

    return build


def test_a_sampler_is_a_batch_sampler_of_torch_with_another_order_in_each_epoch():
    sampler = TokenBudgetSampler([3, 5, 4, 9, 2, 7] * 20, [4, 5, 3, 8, 2, 6] * 20, 64, seed=1)
    first = list(sampler)
    assert [rows.tolist() for rows in sampler.batches(0)] == first and len(first) == len(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first and sorted(row for rows in sampler for row in rows) == list(range(120))
    assert not hasattr(sampler, "batch_size")


@pytest.mark.slow
def test_the_trainer_of_transformers_sees_every_row_once_an_epoch_in_our_batches(of_example):
    trainer, seen = of_example(0, max_steps=-1, num_train_epochs=2.0)
    trainer.train()
    count = len(seen) // 2
    first, second = seen[:count], seen[count:]
    rows = sorted(tuple(row["input_ids"]) for row in trainer.train_dataset)
    for epoch in (first, second):
        assert sorted(row for batch in epoch for row in batch) == rows
        assert all(len(batch) == 1 or len(batch) * 2 * max(map(len, batch)) <= 1024 for batch in epoch)
    assert first != second
    assert trainer.state.log_history[-1]["train_loss"] > 0


@pytest.mark.slow
def test_the_trainer_of_transformers_goes_on_with_the_batches_that_it_had_not_seen(of_example):
    whole, of_whole = of_example(8, save_strategy="steps", save_steps=5)
    whole.train()
    again, of_again = of_example(8)
    again.train(resume_from_checkpoint=str(Path(whole.args.output_dir) / "checkpoint-5"))
    assert of_again[-3:] == of_whole[-3:]
    one, other = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


@pytest.mark.slow
def test_the_trainer_of_transformers_hands_our_loss_the_labels_of_the_whole_step(of_example):
    gradients = []
    for accumulated in (1, 2):
        trainer, _ = of_example(1)
        trainer.args.gradient_accumulation_steps = accumulated
        trainer.current_gradient_accumulation_steps = accumulated
        trainer.model.requires_grad_(True)
        for module in trainer.model.modules():
            if isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0
        rows = trainer.train_dataset[:8]
        parts = [pad_batch(rows[part::accumulated], 0) for part in range(accumulated)]
        batches, items = trainer.get_batch_samples(iter(parts), accumulated, trainer.model.device)
        assert int(items) == sum(len(row["labels"]) for row in rows)
        for batch in batches:
            trainer.training_step(trainer.model, batch, items)
        gradients.append({name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)
