"""Costs by formula against torch's own counter and the clock; exposure bias where it is known what it must be."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import MarianConfig, MarianMTModel

from fun_transformer import Seq2SeqRNNConfig, Seq2SeqRNNForConditionalGeneration
from fun_transformer.analysis import (
    ExposureGap,
    LayerSizes,
    build_layer,
    cross_attention,
    exposure_gap,
    fit_exponent,
    flops_per_token,
    layer_cost,
    measure_layer,
)
from fun_transformer.analysis.complexity import eager_attention, linear_attention, restricted_attention
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer
from fun_transformer.visualization import plot_exposure_gap


def test_tokens_of_an_attention_map_are_each_in_their_sides_vocabulary(tiny_model):
    sources, targets = ["今天吃什么好"], ["What is good to eat"]
    apart = TokenizerSettings(type="char", vocab_size=40, target_type="word", target_vocab_size=40)
    tokenizer = train_tokenizer(sources, targets, apart)
    sizes = {"vocab_size": len(tokenizer), "decoder_vocab_size": tokenizer.target_vocab_size}
    model = tiny_model(**sizes, share_encoder_decoder_embeddings=False)
    found = cross_attention(model, tokenizer, sources[0], targets[0])
    assert found.source_tokens == [*sources[0], "</s>"]
    assert found.target_tokens == [*targets[0].split(), "</s>"]
    assert found.decoder_tokens == ["<s>", *targets[0].split()]


@pytest.mark.parametrize("source_len, target_len", [(7, 5), (3, 11)])
def test_flops_per_token_equals_torchs_count(tiny_model, source_len, target_len):
    model = tiny_model(attn_implementation="eager")
    source = torch.randint(5, 20, (2, source_len))
    target = torch.randint(5, 20, (2, target_len))
    tokens = 2 * (source_len + target_len)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(source, labels=target, skip_logits=True)
    forward = counter.get_total_flops()
    assert flops_per_token(model.config, source_len, target_len, training=False) * tokens == forward
    with FlopCounterMode(display=False) as counter:
        model(source, labels=target, skip_logits=True).loss.backward()
    assert flops_per_token(model.config, source_len, target_len) * tokens == pytest.approx(3 * forward)
    assert counter.get_total_flops() == 3 * forward


def test_the_exposure_gap_is_that_of_a_loop_over_positions(tiny_model, tiny_batch):
    """Each true token's loss after the model's own prefix, one position at a time, one sentence at a time."""
    model = tiny_model()
    labels, sources, masks = (tiny_batch[name] for name in ("labels", "input_ids", "attention_mask"))
    eos = model.generate(sources, attention_mask=masks, num_beams=1, max_new_tokens=1)[0, 1].item()
    model.generation_config.eos_token_id = eos  # its first choice would end the prefix at once
    gap = exposure_gap(model, [tiny_batch])
    for position in range(labels.shape[1]):
        forced, free = [], []
        for row in range(len(labels)):
            if labels[row, position] == -100:
                continue
            source = {"input_ids": sources[row : row + 1], "attention_mask": masks[row : row + 1]}
            true = model.prepare_decoder_input_ids_from_labels(labels[row : row + 1])
            own = true[:, :1]
            for _ in range(position):
                scores = model(**source, decoder_input_ids=own).logits[:, -1].detach()
                scores[:, eos] = -torch.inf  # held back
                own = torch.cat([own, scores.argmax(-1, keepdim=True)], dim=1)
            for found, prefix in ((forced, true[:, : position + 1]), (free, own)):
                logits = model(**source, decoder_input_ids=prefix).logits[0, -1]
                found.append(torch.nn.functional.cross_entropy(logits, labels[row, position]).item())
        assert gap.counts[position] == len(forced)
        assert gap.teacher_forced_loss[position] == pytest.approx(sum(forced) / len(forced), abs=1e-4)
        assert gap.free_running_loss[position] == pytest.approx(sum(free) / len(free), abs=1e-4)
    assert gap.teacher_forced_loss[0] == pytest.approx(gap.free_running_loss[0])
    assert any(abs(a - b) > 0.01 for a, b in zip(gap.teacher_forced_loss, gap.free_running_loss, strict=True))


def test_a_model_whose_own_prefix_is_the_reference_has_no_gap(tiny_model, tiny_batch):
    """The reference is what the model itself writes: all tokens are right, and both losses are equal."""
    model = tiny_model().train()
    source = {name: tensor for name, tensor in tiny_batch.items() if name != "labels"}
    model.eval()
    written = model.generate(**source, num_beams=1, do_sample=False, min_new_tokens=9, max_new_tokens=9)[:, 1:]
    gap = exposure_gap(model.train(), [{**tiny_batch, "labels": written}])
    assert gap.mean_gap == pytest.approx(0, abs=1e-5)
    assert gap.free_running_accuracy == gap.teacher_forced_accuracy
    assert model.training


def test_batches_of_different_lengths_are_weighted_by_their_tokens(tiny_model, tiny_batch):
    model = tiny_model()
    rows = [{name: tensor[row : row + 1] for name, tensor in tiny_batch.items()} for row in range(3)]
    for row in rows:
        row["labels"] = row["labels"][:, : int((row["labels"] != -100).sum())]
    whole, parts = exposure_gap(model, [tiny_batch]), exposure_gap(model, rows[::-1])
    assert parts.counts == whole.counts == [3, 3, 2, 2, 1, 1]
    assert parts.free_running_loss == pytest.approx(whole.free_running_loss, abs=1e-5)
    with pytest.raises(ValueError, match="no label"):
        exposure_gap(model, [])


@pytest.mark.parametrize("kind", ["rnn", "marian"])
def test_the_exposure_gap_of_other_models(kind, tiny_batch):
    if kind == "rnn":
        model = Seq2SeqRNNForConditionalGeneration(Seq2SeqRNNConfig(vocab_size=23, d_model=16))
    else:
        sizes = {f"{stack}_{name}": 2 for stack in ("encoder", "decoder") for name in ("layers", "attention_heads")}
        ids = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0, "forced_eos_token_id": None}
        model = MarianMTModel(MarianConfig(vocab_size=23, d_model=16, max_position_embeddings=32, **sizes, **ids))
    gap = exposure_gap(model, [tiny_batch])
    assert gap.counts == [3, 3, 2, 2, 1, 1]
    assert gap.teacher_forced_loss[0] == pytest.approx(gap.free_running_loss[0], abs=1e-5)
    assert gap.teacher_forced_loss[1:] != gap.free_running_loss[1:]


def test_the_exposure_picture_leaves_out_positions_of_few_references(tmp_path):
    gap = ExposureGap([1, 1, 1], [1, 2, 3], [0.5, 0.5, 0.5], [0.5, 0.2, 0.1], [9, 5, 1])
    figure = plot_exposure_gap(gap, tmp_path / "gap.png")
    loss, accuracy = figure.axes
    assert list(loss.lines[1].get_ydata()) == [1, 2] and list(accuracy.lines[1].get_ydata()) == [0.5, 0.2]
    assert (tmp_path / "gap.png").exists()
    with pytest.raises(ValueError, match="min_count=10"):
        plot_exposure_gap(gap, tmp_path / "gap.png", min_count=10)


SIZES = LayerSizes(d_model=16, heads=2, window=8, kernel_size=3)


@pytest.mark.parametrize(
    ("kind", "times"),
    [("self_attention", 4), ("linear_attention", 4), ("convolution", 2)],  # two products, or one, of two operations
)
@pytest.mark.parametrize("length", [64, 256])
def test_the_tables_operations_are_torchs_count_but_for_a_constant(kind, times, length):
    layer = build_layer(kind, SIZES)
    with FlopCounterMode(display=False) as counter:
        layer(torch.randn(1, length, 16))
    normalizer = 2 * length * 16 if kind == "linear_attention" else 0
    assert counter.get_total_flops() - normalizer == times * layer_cost(kind, length, SIZES).operations


def test_the_table_is_that_of_the_paper():
    rows = {
        kind: layer_cost(kind, 64, SIZES)
        for kind in ("self_attention", "restricted_attention", "recurrent", "convolution")
    }
    found = {kind: (row.operations, row.sequential_steps, round(row.longest_path, 3)) for kind, row in rows.items()}
    assert found == {
        "self_attention": (64**2 * 16, 1, 1),
        "restricted_attention": (8 * 64 * 16, 1, 64 / 8),
        "recurrent": (64 * 16**2, 64, 64),
        "convolution": (3 * 64 * 16**2, 1, 3.786),  # log_3 64
    }
    with pytest.raises(ValueError, match="kind must be one of self_attention"):
        layer_cost("attention", 64)


@pytest.mark.parametrize("length", [3, 8, 21, 32])
def test_restricted_attention_is_full_attention_in_a_band(length):
    query, key, value = torch.randn(3, 2, 2, length, 4).unbind()
    band = (torch.arange(length)[:, None] - torch.arange(length)).abs() <= 4
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=band)
    torch.testing.assert_close(restricted_attention(query, key, value, window=8), expected)


def test_linear_attention_is_attention_with_another_similarity():
    query, key, value = torch.randn(3, 2, 2, 7, 4).unbind()
    similarity = (torch.nn.functional.elu(query) + 1) @ (torch.nn.functional.elu(key) + 1).transpose(-1, -2)
    expected = similarity / similarity.sum(-1, keepdim=True) @ value
    torch.testing.assert_close(linear_attention(query, key, value), expected)


def test_both_kernels_of_self_attention_give_the_same():
    query, key, value = torch.randn(3, 2, 2, 7, 4).unbind()
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(eager_attention(query, key, value), expected)


def test_the_memory_of_eager_attention_grows_with_the_square_and_that_of_sdpa_does_not():
    lengths = [128, 256, 512]
    peaks = {
        kernel: [row.peak_bytes for row in measure_layer(build_layer("self_attention", SIZES, kernel), lengths, 16)]
        for kernel in ("eager", "sdpa")
    }
    assert fit_exponent(lengths, peaks["eager"]) == pytest.approx(2, abs=0.15)
    assert fit_exponent(lengths, peaks["sdpa"]) < 1.3
    assert peaks["eager"][-1] > 2 * 512 * 512 * 4  # the scores of two heads


@pytest.mark.parametrize("kind", ["restricted_attention", "linear_attention", "recurrent", "convolution"])
def test_every_layer_is_measured(kind):
    (row,) = measure_layer(build_layer(kind, SIZES), [20], 16, repeats=1)
    assert row.length == 20 and row.seconds > 0 and row.peak_bytes >= 20 * 16 * 4


def test_an_exponent_is_found_whatever_the_constant():
    assert fit_exponent([64, 128, 1024], [7.0 * n**1.5 for n in (64, 128, 1024)]) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="two or more lengths"):
        fit_exponent([64], [1.0])
    with pytest.raises(ValueError, match="positive"):
        fit_exponent([64, 128], [1.0, 0.0])
