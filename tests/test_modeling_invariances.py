"""What must not change the model's answer (padding, the rest of the batch, a reload), and what must (order)."""

import copy
import dataclasses
import itertools
import pickle

import pytest
import torch
from accelerate.utils import convert_to_fp32
from torch import nn

from fun_transformer import FunTransformerForConditionalGeneration, FunTransformerModel

BOTH_KERNELS = pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
BOTH_POSITIONS = pytest.mark.parametrize("position_embedding_type", ["sinusoidal", "learned"])


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def pad_left(rows, columns, value):
    return nn.functional.pad(rows, (columns, 0), value=value)


def pad_right(rows, columns, value):
    return nn.functional.pad(rows, (0, columns), value=value)


def gradients(model, **inputs):
    """The loss, and name -> gradient of every parameter."""
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


# Padding


@BOTH_KERNELS
@BOTH_POSITIONS
@pytest.mark.parametrize("pad", [pad_left, pad_right])
def test_source_padding_never_changes_the_logits(pad, position_embedding_type, attn_implementation, tiny_model):
    model = tiny_model(attn_implementation, position_embedding_type=position_embedding_type)
    source, target = torch.randint(5, 23, (2, 6)), torch.randint(5, 23, (2, 4))
    with torch.no_grad():
        expected = model(input_ids=source, decoder_input_ids=target).logits
        for value in (0, 7):  # whatever stands there is masked
            padded = pad(source, 3, value)
            mask = pad(torch.ones_like(source), 3, 0)
            close(model(input_ids=padded, attention_mask=mask, decoder_input_ids=target).logits, expected)


@BOTH_KERNELS
@BOTH_POSITIONS
@pytest.mark.parametrize("pad", [pad_left, pad_right])
def test_target_padding_never_changes_the_logits(pad, position_embedding_type, attn_implementation, tiny_model):
    model = tiny_model(attn_implementation, position_embedding_type=position_embedding_type)
    source, target = torch.randint(5, 23, (2, 6)), torch.randint(5, 23, (2, 4))
    with torch.no_grad():
        expected = model(input_ids=source, decoder_input_ids=target).logits
        for value in (0, 7):
            mask = pad(torch.ones_like(target), 3, 0)
            padded = pad(target, 3, value)
            logits = model(input_ids=source, decoder_input_ids=padded, decoder_attention_mask=mask).logits
            close(logits[mask.bool()].view_as(expected), expected)


def test_padding_never_changes_the_loss_or_the_gradients(tiny_model, tiny_batch):
    model = tiny_model()
    loss, expected = gradients(model, **tiny_batch)
    tiny_batch["input_ids"] = pad_right(tiny_batch["input_ids"], 5, 0)
    tiny_batch["attention_mask"] = pad_right(tiny_batch["attention_mask"], 5, 0)
    for ignored in (-100, model.config.pad_token_id):
        labels = pad_right(tiny_batch["labels"], 4, -100)
        labels[labels == -100] = ignored
        for count in (None, (labels != -100).sum()):  # as a Trainer counts
            padded_loss, padded_gradients = gradients(
                model, **{**tiny_batch, "labels": labels, "num_items_in_batch": count}
            )
            close(padded_loss, loss)
            close(padded_gradients, expected)


def test_a_model_without_a_pad_token_trains_on_labels_padded_with_minus_100(tiny_model, tiny_batch):
    model = tiny_model()
    expected_loss, expected = gradients(model, **tiny_batch)
    model.config.pad_token_id = None
    loss, found = gradients(model, **tiny_batch)
    close(loss, expected_loss)
    close(found, expected)


def test_a_row_does_not_see_the_batch_around_it(tiny_model, tiny_batch):
    model = tiny_model()
    with torch.no_grad():
        logits = model(**tiny_batch).logits
        for order in ([2, 0, 1], [1], [0, 0, 0]):
            rows = {name: tensor[order] for name, tensor in tiny_batch.items()}
            close(model(**rows).logits, logits[order])


@BOTH_KERNELS
@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_a_fully_padded_row_gives_no_nan_and_does_not_touch_the_others(
    norm_position, attn_implementation, tiny_model, tiny_batch
):
    model = tiny_model(attn_implementation, norm_position=norm_position)
    kept = {name: tensor[[0, 2]] for name, tensor in tiny_batch.items()}
    expected_loss, expected = gradients(model, **kept)
    expected_logits = model(**kept).logits
    tiny_batch["input_ids"][1] = 0
    tiny_batch["attention_mask"][1] = 0
    tiny_batch["labels"][1] = -100
    logits = model(**tiny_batch).logits
    assert logits.isfinite().all()
    close(logits[[0, 2]], expected_logits)
    loss, found = gradients(model, **tiny_batch)
    close(loss, expected_loss)
    close(found, expected)


@BOTH_KERNELS
def test_an_empty_target_row_gives_no_nan(attn_implementation, tiny_model, tiny_batch):
    model = tiny_model(attn_implementation)
    decoder_attention_mask = (tiny_batch["labels"] != -100).long()
    decoder_attention_mask[1] = 0
    loss, found = gradients(model, **tiny_batch, decoder_attention_mask=decoder_attention_mask)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in found.values())


def test_nothing_but_ignored_labels_gives_a_loss_of_zero(tiny_model, tiny_batch):
    loss, found = gradients(tiny_model(), **{**tiny_batch, "labels": torch.full_like(tiny_batch["labels"], -100)})
    assert loss == 0
    assert not any(gradient.any() for gradient in found.values())


# Order and causality


@BOTH_KERNELS
@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_a_target_token_changes_only_what_follows(norm_position, attn_implementation, tiny_model):
    model = tiny_model(attn_implementation, norm_position=norm_position)
    source, target = torch.randint(5, 23, (1, 6)), torch.randint(5, 14, (1, 7))
    changed = target.clone()
    changed[0, 3] = 20
    with torch.no_grad():
        before = model(input_ids=source, decoder_input_ids=target).logits
        after = model(input_ids=source, decoder_input_ids=changed).logits
    difference = (before - after).abs().amax(dim=-1)[0]  # (target_len,)
    assert (difference[:3] < 1e-6).all()
    assert (difference[3:] > 1e-3).all()


@BOTH_KERNELS
def test_every_source_token_reaches_every_position(attn_implementation, tiny_model):
    model = tiny_model(attn_implementation)
    source, target = torch.randint(5, 14, (1, 6)), torch.randint(5, 23, (1, 4))
    with torch.no_grad():
        before = model(input_ids=source, decoder_input_ids=target)
        for position in range(6):
            changed = source.clone()
            changed[0, position] = 20
            after = model(input_ids=changed, decoder_input_ids=target)
            for name in ("encoder_last_hidden_state", "logits"):
                difference = (getattr(before, name) - getattr(after, name)).abs().amax(dim=-1)
                assert (difference > 1e-4).all(), (name, position)


@BOTH_POSITIONS
def test_permuting_the_source_or_the_target_changes_the_output(position_embedding_type, tiny_model):
    model = tiny_model(position_embedding_type=position_embedding_type)
    source, target = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[1, 9, 10, 11]])
    with torch.no_grad():
        expected = model(input_ids=source, decoder_input_ids=target).logits[0, -1]
        swapped_source = model(input_ids=source[:, [1, 0, 2, 3]], decoder_input_ids=target).logits[0, -1]
        swapped_target = model(input_ids=source, decoder_input_ids=target[:, [0, 2, 1, 3]]).logits[0, -1]
    assert (swapped_source - expected).abs().max() > 1e-2
    assert (swapped_target - expected).abs().max() > 1e-2


def test_sinusoids_have_no_longest_sentence_and_learned_positions_do(tiny_model):
    long = torch.randint(5, 23, (1, 40))  # max_position_embeddings is 32
    short = long[:, :32]
    with torch.no_grad():
        assert tiny_model()(input_ids=long, decoder_input_ids=long).logits.isfinite().all()
    learned = tiny_model(position_embedding_type="learned")
    learned(input_ids=short, decoder_input_ids=short)
    for inputs in ({"input_ids": long, "decoder_input_ids": short}, {"input_ids": short, "decoder_input_ids": long}):
        with pytest.raises(ValueError, match=r"40.*32|32.*40"):
            learned(**inputs)


# Kernels and precisions


@pytest.mark.parametrize("position_embedding_type", ["sinusoidal", "learned"])
@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_eager_equals_sdpa(norm_position, position_embedding_type, tiny_model, tiny_batch):
    fields = {"norm_position": norm_position, "position_embedding_type": position_embedding_type}
    eager, sdpa = tiny_model("eager", **fields), tiny_model("sdpa", **fields)
    close(eager(**tiny_batch).logits, sdpa(**tiny_batch).logits)
    eager_loss, eager_gradients = gradients(eager, **tiny_batch)
    sdpa_loss, sdpa_gradients = gradients(sdpa, **tiny_batch)
    close(eager_loss, sdpa_loss)
    close(eager_gradients, sdpa_gradients)


@BOTH_KERNELS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_finite_and_near_float32(dtype, attn_implementation, tiny_model, tiny_batch):
    model = tiny_model(attn_implementation)
    loss = model(**tiny_batch).loss.item()
    tiny_batch["attention_mask"][1] = 0  # with a fully padded row, too
    tiny_batch["labels"][1] = -100
    with torch.no_grad():
        expected = model(**tiny_batch).logits
    model = model.to(dtype)
    loss, found = gradients(model, **tiny_batch)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in found.values())
    with torch.no_grad():
        logits = model(**tiny_batch).logits
    close(logits.float(), expected, tolerance=0.15)


@BOTH_KERNELS
def test_bf16_autocast_stays_near_float32(attn_implementation, tiny_model, tiny_batch):
    model = tiny_model(attn_implementation, dropout=0.0).train()
    tiny_batch["attention_mask"][1] = 0  # with a fully padded row, too
    tiny_batch["labels"][1] = -100
    expected_loss, expected = gradients(model, **tiny_batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model.zero_grad()
        loss = model(**tiny_batch).loss
    loss.backward()
    close(loss.float(), expected_loss, tolerance=0.03)
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32
        close(parameter.grad, expected[name], tolerance=0.05)


# Training


OPTIONS = {
    "position_embedding_type": ["sinusoidal", "learned"],
    "norm_position": ["post", "pre"],
    "activation_function": ["relu", "gelu", "silu"],
    "scale_embedding": [True, False],
    "tie_word_embeddings": [True, False],
    "share_encoder_decoder_embeddings": [True, False],
}


@pytest.mark.parametrize("options", itertools.product(*OPTIONS.values()), ids=str)
def test_every_combination_of_options_trains(options, tiny_model, tiny_batch):
    fields = dict(zip(OPTIONS, options))
    if not fields["share_encoder_decoder_embeddings"]:
        fields["decoder_vocab_size"] = 31
    model = tiny_model(attention_dropout=0.1, activation_dropout=0.1, **fields).train()
    source, target = model.get_encoder().embed_tokens.weight, model.get_decoder().embed_tokens.weight
    assert (source is target) == fields["share_encoder_decoder_embeddings"]
    assert (model.lm_head.weight is target) == fields["tie_word_embeddings"]
    assert len(model.lm_head.weight) == len(target) == model.config.decoder_vocab_size
    loss, found = gradients(model, **tiny_batch)
    assert loss.isfinite()
    for name, gradient in found.items():
        assert gradient.isfinite().all(), name
        # A constant added to all keys changes no softmax: that bias alone has no gradient.
        assert gradient.any() or name.endswith("k_proj.bias"), name


def test_training_and_evaluation_give_the_same_loss(tiny_model, tiny_batch):
    model = tiny_model(dropout=0.0)
    close(model.train()(**tiny_batch).loss, model.eval()(**tiny_batch).loss)


def test_logits_come_when_they_are_wanted(tiny_model, tiny_batch):
    model = tiny_model(dropout=0.0)
    expected = model.eval()(**tiny_batch).logits
    assert "logits" not in model(**tiny_batch, skip_logits=True)
    assert "logits" not in model.train()(**tiny_batch)
    close(model(**tiny_batch, skip_logits=False).logits, expected)
    del tiny_batch["labels"]
    assert model(**tiny_batch, decoder_input_ids=torch.ones(3, 1, dtype=torch.long)).logits is not None


def test_an_output_without_logits_says_how_to_get_them(tiny_model, tiny_batch):
    output = tiny_model().train()(**tiny_batch)
    with pytest.raises(AttributeError, match="skip_logits=False"):
        _ = output.logits
    with pytest.raises(KeyError, match="skip_logits=False"):
        output["logits"]
    for index in (1, -1, slice(2)):
        with pytest.raises(IndexError, match="skip_logits=False"):
            output[index]
    assert output[0] is output["loss"] is output.loss
    assert getattr(output, "logits", None) is output.get("logits") is None
    assert len(output.to_tuple()) == 2 and "logits" not in str(output)  # the loss and the encoder's states
    detached = type(output)(**{name: tensor.detach() for name, tensor in output.items()})
    copies = copy.deepcopy(detached), dataclasses.replace(detached), pickle.loads(pickle.dumps(detached))
    for again in (*copies, convert_to_fp32(output), dataclasses.replace(copies[0])):
        assert again.keys() == output.keys() and not hasattr(again, "logits")


def test_a_loss_of_ones_own_trains_on_logits(tiny_model, tiny_batch):
    model = tiny_model(dropout=0.0, label_smoothing=0.0).train()
    _, expected = gradients(model, **tiny_batch)
    model.zero_grad()
    logits = model(**tiny_batch, skip_logits=False).logits
    nn.CrossEntropyLoss()(logits.flatten(0, 1), tiny_batch["labels"].flatten()).backward()
    close({name: parameter.grad for name, parameter in model.named_parameters()}, expected)


@pytest.mark.slow
def test_training_is_one_graph_with_its_loss(tiny_model, tiny_batch):
    model = tiny_model(dropout=0.0).train()
    expected = model(**tiny_batch).loss
    torch._dynamo.reset()
    output = torch.compile(model, backend="eager", fullgraph=True)(**tiny_batch)
    close(output.loss, expected)
    assert not hasattr(output, "logits")


def test_the_loss_reads_labels_without_a_second_shift(tiny_model, tiny_batch):
    output = tiny_model(label_smoothing=0.0)(**tiny_batch)
    expected = nn.functional.cross_entropy(output.logits.flatten(0, 1), tiny_batch["labels"].flatten())
    close(output.loss, expected)


def test_given_decoder_input_ids_are_used(tiny_model, tiny_batch):
    model = tiny_model()
    shifted = model.prepare_decoder_input_ids_from_labels(tiny_batch["labels"])
    labels = tiny_batch["labels"]
    assert shifted[:, 0].tolist() == [1, 1, 1]
    assert torch.equal(shifted[:, 1:], labels[:, :-1].masked_fill(labels[:, :-1] == -100, 0))
    expected = model(**tiny_batch)
    close(model(**tiny_batch, decoder_input_ids=shifted).loss, expected.loss)
    shifted[:, 0] = 9
    assert (model(**tiny_batch, decoder_input_ids=shifted).logits[:, 0] - expected.logits[:, 0]).abs().max() > 1e-2


@pytest.mark.parametrize("training", [True, False])
def test_token_counts_make_the_loss_of_parts_add_up(training, tiny_model, tiny_batch):
    model = tiny_model(dropout=0.0).train(training)
    tokens = (tiny_batch["labels"] != -100).sum()
    loss, expected = gradients(model, **tiny_batch)
    model.zero_grad()
    parts = []
    for rows in ([0], [1, 2]):
        part = model(**{name: tensor[rows] for name, tensor in tiny_batch.items()}, num_items_in_batch=tokens).loss
        part.backward()
        parts.append(part.detach())
    close(sum(parts), loss)
    close({name: parameter.grad for name, parameter in model.named_parameters()}, expected)


def test_gradient_checkpointing_gives_the_same_gradients(tiny_model, tiny_batch):
    model = tiny_model(dropout=0.0).train()
    loss, expected = gradients(model, **tiny_batch)
    model.gradient_checkpointing_enable()
    calls = []
    for layer in [*model.get_encoder().layers, *model.get_decoder().layers]:
        layer.self_attn.register_forward_hook(lambda *_: calls.append(1))
    checkpointed_loss, found = gradients(model, **tiny_batch)
    assert len(calls) == 2 * (model.config.encoder_layers + model.config.decoder_layers), "nothing was recomputed"
    close(checkpointed_loss, loss)
    close(found, expected)


@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_full_dropout_leaves_only_the_norms(norm_position, tiny_model, tiny_batch):
    """Embeddings and the output of every sublayer are dropped: what is left is zeros that went through the norms."""
    model = tiny_model(norm_position=norm_position, dropout=0.9999999).train()
    decoder_input_ids = model.prepare_decoder_input_ids_from_labels(tiny_batch.pop("labels"))
    output = model.model(**tiny_batch, decoder_input_ids=decoder_input_ids)
    stacks = {model.get_encoder(): output.encoder_last_hidden_state, model.get_decoder(): output.last_hidden_state}
    for stack, found in stacks.items():
        expected = torch.zeros(16)
        for layer in stack.layers if norm_position == "post" else []:
            for name in ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"):
                expected = getattr(layer, name, nn.Identity())(expected)
        close(found, stack.layer_norm(expected).expand_as(found))


@BOTH_KERNELS
@pytest.mark.parametrize("name", ["dropout", "attention_dropout", "activation_dropout"])
def test_dropout_acts_in_training_only(name, attn_implementation, tiny_model, tiny_batch):
    model = tiny_model(attn_implementation, **{"dropout": 0.0, name: 0.5})
    close(model(**tiny_batch).logits, tiny_model(dropout=0.0)(**tiny_batch).logits)
    model.train()
    with torch.no_grad():
        first, second = (model(**tiny_batch, skip_logits=False).logits for _ in range(2))
    assert (first - second).abs().max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_it_learns_to_reverse(norm_position, tiny_config, assert_learns_to_reverse):
    config = tiny_config(
        d_model=32, encoder_layers=1, decoder_layers=1, norm_position=norm_position, dropout=0.0, label_smoothing=0.0
    )
    assert_learns_to_reverse(FunTransformerForConditionalGeneration(config))


# State


@BOTH_KERNELS
def test_forward_creates_nothing(attn_implementation, tiny_model, tiny_batch):
    model = tiny_model(attn_implementation)

    def state():
        return {
            name: (set(vars(module)), set(module._parameters), set(module._buffers), set(module._modules))
            for name, module in model.named_modules()
        }

    before, weights = state(), copy.deepcopy(model.state_dict())
    first = model(**tiny_batch).logits
    assert state() == before
    model.generate(tiny_batch["input_ids"][:, :3], max_new_tokens=3)
    model.train()(**tiny_batch).loss.backward()
    assert state() == before
    torch.testing.assert_close(model.state_dict(), weights, atol=0, rtol=0)
    torch.testing.assert_close(model.eval()(**tiny_batch).logits, first, atol=0, rtol=0)
    assert not list(model.buffers())


SAVED = {
    "paper": {},
    "learned": {"position_embedding_type": "learned"},
    "pre-norm": {"norm_position": "pre"},
    "post-norm and a last norm": {"final_layer_norm": True, "layer_norm_eps": 1e-3},
    "two vocabularies": {"decoder_vocab_size": 31, "share_encoder_decoder_embeddings": False},
    "untied head": {"tie_word_embeddings": False},
    "all apart": {
        "decoder_vocab_size": 31,
        "share_encoder_decoder_embeddings": False,
        "tie_word_embeddings": False,
        "position_embedding_type": "learned",
        "norm_position": "pre",
    },
}


@pytest.mark.parametrize("variant", SAVED)
def test_save_and_load_give_identical_logits(variant, tiny_model, tiny_batch, tmp_path):
    model = tiny_model(**SAVED[variant])
    expected = model(**tiny_batch).logits
    model.save_pretrained(tmp_path)
    loaded, info = FunTransformerForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    torch.testing.assert_close(loaded(**tiny_batch).logits, expected, atol=0, rtol=0)
    assert loaded.num_parameters() == model.num_parameters()  # what was tied is tied again
    assert loaded.config.to_diff_dict() == model.config.to_diff_dict()
    loaded.save_pretrained(tmp_path / "again")
    again = FunTransformerForConditionalGeneration.from_pretrained(tmp_path / "again")
    torch.testing.assert_close(again(**tiny_batch).logits, expected, atol=0, rtol=0)


def test_the_model_without_a_head_loads_from_the_same_folder(tiny_model, tiny_batch, tmp_path):
    model = tiny_model()
    expected = model(**tiny_batch)
    model.save_pretrained(tmp_path)
    body = FunTransformerModel.from_pretrained(tmp_path)
    decoder_input_ids = model.prepare_decoder_input_ids_from_labels(tiny_batch.pop("labels"))
    output = body(**tiny_batch, decoder_input_ids=decoder_input_ids)
    close(output.encoder_last_hidden_state, expected.encoder_last_hidden_state)
    close(model.lm_head(output.last_hidden_state), expected.logits)


@pytest.mark.parametrize("tie_word_embeddings", [True, False])
def test_resized_embeddings_work_and_survive_saving(tie_word_embeddings, tiny_model, tiny_batch, tmp_path):
    model = tiny_model(tie_word_embeddings=tie_word_embeddings)
    before = model(**tiny_batch).logits
    model.resize_token_embeddings(30)
    expected = model(**tiny_batch).logits
    assert expected.shape[-1] == 30
    close(expected[..., :23], before)
    model.save_pretrained(tmp_path)
    loaded = FunTransformerForConditionalGeneration.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**tiny_batch).logits, expected, atol=0, rtol=0)


def test_separate_embeddings_are_not_resized_by_guess(tiny_model):
    with pytest.raises(ValueError, match="separate embeddings"):
        tiny_model(share_encoder_decoder_embeddings=False).resize_token_embeddings(30)


def test_fresh_weights_are_those_of_the_paper(tiny_config):
    """Xavier for projections; N(0, 1 / d_model) for embeddings, so that scaled ones have the size of the sinusoids."""
    model = FunTransformerForConditionalGeneration(tiny_config(vocab_size=500, d_model=64, decoder_ffn_dim=256))
    embedding = model.get_encoder().embed_tokens.weight
    assert embedding.std().item() == pytest.approx(64**-0.5, rel=0.05)
    layer = model.get_decoder().layers[0]
    for linear in (layer.self_attn.q_proj, layer.encoder_attn.out_proj, layer.feed_forward.fc1):
        bound = (6 / (linear.in_features + linear.out_features)) ** 0.5
        assert linear.weight.abs().max() <= bound
        assert linear.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not linear.bias.any()
    assert layer.final_layer_norm.weight.eq(1).all() and not layer.final_layer_norm.bias.any()


# Outputs


def test_hidden_states_and_attentions_are_returned_when_asked_for(tiny_model, tiny_batch):
    model = tiny_model("eager")
    output = model(**tiny_batch, output_attentions=True, output_hidden_states=True)
    assert len(output.encoder_hidden_states) == model.config.encoder_layers + 1
    assert len(output.decoder_hidden_states) == model.config.decoder_layers + 1
    assert [weights.shape for weights in output.encoder_attentions] == [(3, 4, 7, 7)] * 2
    assert [weights.shape for weights in output.decoder_attentions] == [(3, 2, 6, 6)] * 3
    assert [weights.shape for weights in output.cross_attentions] == [(3, 2, 6, 7)] * 3
    for weights in (*output.decoder_attentions, *output.cross_attentions):
        close(weights.sum(dim=-1), torch.ones(3, 2, 6))
    assert not torch.stack(output.decoder_attentions).triu(1).any(), "the future is attended to"
    plain = model(**tiny_batch)
    assert plain.encoder_attentions is None and plain.decoder_hidden_states is None


def test_attentions_come_under_sdpa_too(tiny_model, tiny_batch):
    expected = tiny_model("eager")(**tiny_batch, output_attentions=True)
    found = tiny_model("sdpa")(**tiny_batch, output_attentions=True)
    for name in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        close(getattr(found, name), getattr(expected, name))
    close(found.logits, expected.logits)


def test_attentions_are_those_before_dropout(tiny_model, tiny_batch):
    model = tiny_model("eager", attention_dropout=0.5).train()
    for weights in model(**tiny_batch, output_attentions=True).cross_attentions:
        close(weights.sum(dim=-1), torch.ones(3, 2, 6))


def test_a_tuple_comes_when_asked_for(tiny_model, tiny_batch):
    model = tiny_model()
    expected = model(**tiny_batch)
    loss, logits, *_ = model(**tiny_batch, return_dict=False)
    close(loss, expected.loss)
    close(logits, expected.logits)


def test_embeddings_can_be_given_in_place_of_ids(tiny_model, tiny_batch):
    model = tiny_model()
    expected = model(**tiny_batch).logits
    inputs_embeds = model.get_input_embeddings()(tiny_batch.pop("input_ids"))
    close(model(**tiny_batch, inputs_embeds=inputs_embeds).logits, expected)
