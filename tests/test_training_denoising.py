"""Denoising: which spans are hidden, that they are others in each epoch, and that the model begins a translator."""

import json
import random
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset, DatasetDict
from forked_runs import write_digits_recipe

from fun_transformer import FunTransformerForConditionalGeneration
from fun_transformer.training.data.batches import ALONE, PaddedBatches, Share, TokenBudgetSampler
from fun_transformer.training.data.infilling import hide_spans
from fun_transformer.training.data.packing import PackedBatches, PackingSampler
from fun_transformer.training.data.rows import TokenRows
from fun_transformer.training.data.stream import BatchStream
from fun_transformer.training.model.initialization import take_weights
from fun_transformer.training.objectives import Denoising
from fun_transformer.training.recipe.arguments import TrainingArguments
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.train import train
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

MASK, END, TAG = 4, 2, 9
TEXTS = [" ".join(random.Random(n).choices("abcdefghijkl", k=3 + n % 9)) for n in range(40)]

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def hide(length, draw=0):
    """A text of `length` different tokens between a tag and its end, with spans of it hidden."""
    ids = np.array([TAG, *range(10, 10 + length), END], dtype=np.int32)
    return ids.tolist(), hide_spans(ids, MASK, {TAG, END}, random.Random(draw)).tolist()


@pytest.mark.parametrize("length", [1, 2, 4, 7, 20, 500])
def test_three_tenths_of_the_tokens_give_way_to_masks_that_do_not_touch(length):
    for draw in range(30):
        ids, noisy = hide(length, draw)
        shown = [token for token in noisy if token != MASK]
        assert len(ids) - len(shown) == -(-3 * length // 10)
        assert shown == [token for token in ids if token in shown]  # what is left keeps its order
        assert noisy[0] == TAG and noisy[-1] == END and len(noisy) <= len(ids)
        assert not any(a == b == MASK for a, b in pairwise(noisy))


def test_spans_are_as_long_as_a_poisson_distribution_without_zero_and_lie_everywhere():
    lengths, hidden = [], np.zeros(100)
    for draw in range(300):
        ids, noisy = hide(100, draw)
        gone = np.array([token not in noisy for token in ids[1:-1]])
        hidden += gone
        edges = np.flatnonzero(np.diff([0, *gone, 0]))
        lengths += (edges[1::2] - edges[::2]).tolist()
    assert np.mean(lengths) == pytest.approx(3 / (1 - np.exp(-3)), rel=0.05)  # the last span of a text is cut short
    assert set(range(1, 9)) <= set(lengths)
    assert hidden.min() > 0 and hidden[5:-5].min() > 0.2 * 300 and hidden.max() < 0.4 * 300  # ends are hidden less


def test_nothing_is_hidden_of_an_empty_text():
    ids, noisy = hide(0)
    assert noisy == ids


def objective_and_rows():
    texts = Dataset.from_dict({"source": TEXTS, "target": TEXTS})
    objective = Denoising(DatasetDict(train=texts), TrainingArguments())
    tokenizer = train_tokenizer(**objective.texts(texts), settings=TokenizerSettings(type="word", vocab_size=40))
    return objective, tokenizer, TokenRows(Dataset.from_dict(objective.encode(texts[:], tokenizer)))


def batches_for(packed, share=ALONE):
    """Batches of the rows, padded or packed, and the rows."""
    objective, tokenizer, rows = objective_and_rows()
    sampler = partial(PackingSampler, packing=32) if packed else TokenBudgetSampler
    kind = PackedBatches if packed else PaddedBatches
    return kind(sampler(rows.source_lengths, rows.target_lengths, 160, 1, share), objective, tokenizer), rows


def sources_by_row(batches, rows, epoch):
    """What the sources of an epoch are, by the number of their rows."""
    found = {}
    for numbers in batches.batches(epoch):
        read = batches.refresh(rows.read(numbers, epoch), numbers, epoch)
        found |= {int(number): row["input_ids"].tolist() for number, row in zip(numbers, read)}
    return found


def test_each_epoch_hides_other_spans_the_same_on_any_processes_and_in_packed_rows():
    (alone, rows), epochs = batches_for(packed=False), (0, 1)
    first, second = (sources_by_row(alone, rows, epoch) for epoch in epochs)
    assert len(first) == len(TEXTS) and sum(first[row] != second[row] for row in first) > 30
    assert sources_by_row(*batches_for(packed=True), epoch=1) == second
    halves = [sources_by_row(*batches_for(packed=False, share=Share(rank, 2)), epoch=1) for rank in (0, 1)]
    assert halves[0] | halves[1] == second


@pytest.mark.parametrize("packed", [False, True])
def test_the_model_reads_texts_with_masks_and_writes_whole_ones(packed):
    batches, rows = batches_for(packed)
    tensors = BatchStream(rows, batches, torch.device("cpu"), prefetch=False).take(1)[0].tensors
    tokenizer, numbers = batches.tokenizer, batches.batches(0)[0]
    sources = sources_by_row(batches, rows, 0)
    read, written = tensors["input_ids"].flatten().tolist(), tensors["labels"].flatten().tolist()
    assert [i for i in read if i != tokenizer.pad_token_id] == [i for n in numbers for i in sources[int(n)]]
    assert [i for i in written if i != -100] == [i for n in numbers for i in rows[int(n)]["labels"].tolist()]
    assert tokenizer.mask_token_id in read and tokenizer.mask_token_id not in written


def test_the_languages_of_a_text_and_its_end_are_never_hidden():
    objective, tokenizer, _ = objective_and_rows()
    tokenizer.add_languages({"zh", "en"})
    row = {"input_ids": np.array(tokenizer(">>zh<< a b c").input_ids), "labels": np.array([1])}
    for draw in "abcdefgh":
        noisy = objective.refresh([row], [draw], tokenizer)[0]["input_ids"]
        tokens = tokenizer.convert_ids_to_tokens(noisy)
        assert tokens[0] == ">>zh<<" and tokens[-1] == "</s>" and "<mask>" in tokens[1:-1]


def test_two_vocabularies_are_refused():
    texts = ["a b"] * 3
    settings = TokenizerSettings(type="word", vocab_size=40, target_vocab_size=40)
    objective, _, _ = objective_and_rows()
    with pytest.raises(ValueError, match="one vocabulary, and this tokenizer has two"):
        objective.encode({"source": texts, "target": texts}, train_tokenizer(texts, texts, settings=settings))


def test_a_translator_begins_with_the_encoder_and_the_decoder(tiny_config, tmp_path):
    pretrained = FunTransformerForConditionalGeneration(tiny_config())
    pretrained.save_pretrained(tmp_path)
    model = FunTransformerForConditionalGeneration(tiny_config())
    assert "not in it: none; not needed: none" in take_weights(model, objective_and_rows()[1], tmp_path)
    assert all(torch.equal(ours, pretrained.state_dict()[name]) for name, ours in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--training.r_drop", "5"], "r_drop is for objective: seq2seq, got denoising"),
        (["--training.metric_for_best_model", "bleu"], "bleu is not measured. Choose one of loss"),
        (["--tokenizer.target_vocab_size", "50"], "target_vocab_size: objective: denoising has no target"),
    ],
)
def test_what_has_no_meaning_is_refused(options, message, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    words = ["--objective", "denoising", "--data.train.dataset", str(path.rename(tmp_path / "t.tsv"))]
    with pytest.raises(ValueError, match=message):
        train(parse_arguments([*words, "--output_dir", str(tmp_path / "run"), *options]))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_from_a_text_file_goes_on_to_the_last_bit_and_learns(tmp_path, children):
    recipe = write_digits_recipe(tmp_path)
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    content |= {"objective": "denoising", "data": {"train": {"source": str(tmp_path / "texts.txt")}}}
    content["data"]["noise"] = {"typos": 0.1}
    content["training"] |= {"metric_for_best_model": "loss", "schedule": "inverse_sqrt"}
    recipe.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert children.run(recipe, tmp_path / "run", "--training.max_steps", "8") == [0], children.log(tmp_path / "run")
    assert children.run(recipe, tmp_path / "run", "--resume") == [0], children.log(tmp_path / "run")
    assert children.run(recipe, tmp_path / "whole") == [0]
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert weights[0] == weights[1]
    losses = [
        json.loads(line)["loss"]
        for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
        if '"validation"' in line
    ]
    assert losses[-1] < losses[0]
