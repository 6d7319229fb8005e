"""The models that use one half of the translator: encoder, masked and causal language models, classifiers."""

import copy

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    AutoModelForTokenClassification,
)

from fun_transformer import (
    FunTransformerEncoderModel,
    FunTransformerForCausalLM,
    FunTransformerForConditionalGeneration,
    FunTransformerForMaskedLM,
    FunTransformerForSequenceClassification,
    FunTransformerForTokenClassification,
    FunTransformerModel,
)

HEADS = {
    "encoder": (AutoModelForTextEncoding, FunTransformerEncoderModel),
    "masked": (AutoModelForMaskedLM, FunTransformerForMaskedLM),
    "causal": (AutoModelForCausalLM, FunTransformerForCausalLM),
    "sequence": (AutoModelForSequenceClassification, FunTransformerForSequenceClassification),
    "token": (AutoModelForTokenClassification, FunTransformerForTokenClassification),
}
VARIANTS = {
    "paper": {},
    "pre-norm": {"norm_position": "pre"},
    "learned": {"position_embedding_type": "learned"},
    "all apart": {"decoder_vocab_size": 31, "share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
}
EVERY_HEAD = pytest.mark.parametrize("head", HEADS)
EVERY_VARIANT = pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
BOTH_KERNELS = pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
PROMPTS = [[5, 9, 6, 13, 22], [7], [14, 6, 21]]


@pytest.fixture
def build(tiny_config):
    """A function from a head's name and config fields to a tiny model in eval mode, with random biases and norms."""

    def build_head(head, attn_implementation="sdpa", **fields):
        torch.manual_seed(0)
        model = HEADS[head][1](tiny_config(**{"num_labels": 3, **fields}))
        model.set_attn_implementation(attn_implementation)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.3 * torch.randn_like(parameter))
        return model.eval()

    return build_head


@pytest.fixture
def labels():
    """A function from a head's name to labels for `PROMPTS` padded on the right; the encoder alone has none."""
    ids = torch.randint(5, 23, (3, 5))
    of_tokens = torch.randint(0, 3, (3, 5))
    of_tokens[1, 1:] = of_tokens[2, 3:] = ids[1, 1:] = ids[2, 3:] = -100
    every = {"masked": ids, "causal": ids, "sequence": torch.tensor([2, 0, 1]), "token": of_tokens}
    return every.__getitem__


def padded(rows, side):
    """input_ids and attention_mask, (rows, longest)."""
    longest = max(map(len, rows))
    ids, mask = [], []
    for row in rows:
        padding = [0] * (longest - len(row))
        ids.append(padding + row if side == "left" else row + padding)
        mask.append(padding + [1] * len(row) if side == "left" else [1] * len(row) + padding)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def result(model, **inputs):
    """The logits, or the hidden states of a model that has none."""
    with torch.no_grad():
        output = model(**inputs)
    return output.last_hidden_state if isinstance(model, FunTransformerEncoderModel) else output.logits


def likely_to_go_on(model):
    """Random weights repeat one token or stop at once; larger output weights make the searches disagree."""
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    return model


# Padding and direction


@EVERY_HEAD
@EVERY_VARIANT
@BOTH_KERNELS
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(side, attn_implementation, fields, head, build):
    model = build(head, attn_implementation, **fields)
    batch = padded(PROMPTS, side)
    found = result(model, **batch)
    for row, prompt in enumerate(PROMPTS):
        expected = result(model, input_ids=torch.tensor([prompt]))[0]
        kept = found[row] if head == "sequence" else found[row][batch["attention_mask"][row].bool()]
        torch.testing.assert_close(kept, expected, atol=1e-5, rtol=1e-5)


@EVERY_HEAD
def test_a_row_of_padding_gives_finite_numbers(head, build):
    model = build(head)
    batch = padded(PROMPTS, "right")
    batch["attention_mask"][1] = 0
    assert result(model, **batch).isfinite().all()


@EVERY_HEAD
@EVERY_VARIANT
@BOTH_KERNELS
def test_only_the_causal_model_never_looks_ahead(attn_implementation, fields, head, build):
    if head == "sequence":
        return
    model = build(head, attn_implementation, **fields)
    ids = torch.randint(5, 23, (2, 7))
    changed = ids.clone()
    changed[:, 4] = 3
    before, after = result(model, input_ids=ids), result(model, input_ids=changed)
    unchanged = torch.isclose(before, after, atol=1e-6).all(dim=-1).all(dim=0)  # (seq_len,)
    assert unchanged.tolist() == [head == "causal"] * 4 + [False] * 3


def test_the_whole_model_without_a_target_names_the_encoder_model(tiny_config):
    with pytest.raises(ValueError, match="FunTransformerEncoderModel"):
        FunTransformerModel(tiny_config())(torch.tensor(PROMPTS[:1]))


@EVERY_HEAD
def test_embeddings_instead_of_ids_give_the_same(head, build):
    model = build(head)
    ids = torch.randint(5, 23, (2, 6))
    embeds = model.get_input_embeddings()(ids)
    torch.testing.assert_close(result(model, inputs_embeds=embeds), result(model, input_ids=ids))


# The causal model's cache and generate()


@EVERY_VARIANT
@BOTH_KERNELS
@pytest.mark.parametrize("steps", [[1] * 5, [3, 1, 1], [3, 2]], ids=str)
def test_cached_logits_equal_uncached_ones(steps, attn_implementation, fields, build):
    model = build("causal", attn_implementation, **fields)
    batch = padded(PROMPTS, "left")
    expected = result(model, **batch, use_cache=False)
    cache, stop = None, 0
    for part in batch["input_ids"].split(steps, dim=1):
        start, stop = stop, stop + part.shape[1]
        with torch.no_grad():
            output = model(part, batch["attention_mask"][:, :stop], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        kept = batch["attention_mask"][:, start:stop].bool()
        torch.testing.assert_close(output.logits[kept], expected[:, start:stop][kept], atol=1e-5, rtol=1e-5)
    assert len(cache) == 3  # decoder_layers; encoder_layers is 2


@EVERY_VARIANT
def test_cached_logits_need_no_mask(fields, build):
    model = build("causal", **fields)
    ids = torch.randint(5, 23, (2, 6))
    with torch.no_grad():
        cache = model(ids[:, :4]).past_key_values
    found = result(model, input_ids=ids[:, 4:], past_key_values=cache)
    torch.testing.assert_close(found, result(model, input_ids=ids)[:, 4:], atol=1e-5, rtol=1e-5)


SEARCHES = {
    "greedy": {"num_beams": 1},
    "beam": {"num_beams": 4, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "num_beams": 1, "top_k": 10},
}


def search(model, inputs, **settings):
    """What generate() adds to the prompts, up to `</s>`: beam search fills rows with it where padding has the id 0."""
    torch.manual_seed(0)
    sequences = model.generate(**inputs, **{"max_new_tokens": 8, **settings})
    rows = sequences[:, inputs["input_ids"].shape[1] :].tolist()
    return [row[: row.index(2)] if 2 in row else row for row in rows]


@EVERY_VARIANT
@pytest.mark.parametrize("kind", SEARCHES)
def test_searches_with_every_cache_agree(kind, fields, build):
    model = likely_to_go_on(build("causal", **fields))
    batch = padded(PROMPTS, "left")
    expected = search(model, batch, **SEARCHES[kind], use_cache=False)
    assert search(model, batch, **SEARCHES[kind]) == expected
    assert search(model, batch, **SEARCHES[kind], cache_implementation="static", disable_compile=True) == expected
    assert max(map(len, expected)) > 4


@EVERY_VARIANT
@pytest.mark.parametrize("cache_implementation", ["dynamic", "static"])
@pytest.mark.parametrize("kind", ["greedy", "beam"])
def test_left_padded_prompts_go_on_as_they_do_alone(kind, cache_implementation, fields, build):
    model = likely_to_go_on(build("causal", **fields))
    settings = {**SEARCHES[kind], "cache_implementation": cache_implementation, "disable_compile": True}
    expected = []
    for prompt in PROMPTS:
        expected += search(model, {"input_ids": torch.tensor([prompt])}, **settings)
    assert search(model, padded(PROMPTS, "left"), **settings) == expected


def test_generate_reads_one_token_a_step(build):
    model = build("causal")
    read = []
    model.get_decoder().layers[0].register_forward_hook(lambda _, __, output: read.append(output.shape[1]))
    model.generate(**padded(PROMPTS, "left"), max_new_tokens=4, min_new_tokens=4)
    assert read == [5, 1, 1, 1]


@pytest.mark.parametrize("keep", [1, 2, torch.tensor([0, 3])], ids=str)
def test_logits_to_keep_keeps_those(keep, build):
    model = build("causal")
    ids = torch.randint(5, 23, (2, 6))
    every = result(model, input_ids=ids)
    expected = every[:, -keep:] if isinstance(keep, int) else every[:, keep]
    torch.testing.assert_close(result(model, input_ids=ids, logits_to_keep=keep), expected)


# Losses


@pytest.mark.parametrize("head", ["masked", "causal"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_of_the_labels_that_count(label_smoothing, head, build, labels):
    model, batch = build(head, label_smoothing=label_smoothing), padded(PROMPTS, "right")
    output = model(**batch, labels=labels(head))
    logits, expected_labels = output.logits, labels(head)
    if head == "causal":
        logits, expected_labels = logits[:, :-1], expected_labels[:, 1:]
    expected = F.cross_entropy(
        logits.flatten(0, 1), expected_labels.flatten(), ignore_index=-100, label_smoothing=label_smoothing
    )
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize("head", ["masked", "token"])
def test_logits_without_a_label_do_not_reach_the_loss(head, build, labels):
    model, batch = build(head), padded(PROMPTS, "right")
    some = labels(head).clone()
    some[0, 1:] = -100
    some[1:] = -100
    expected = F.cross_entropy(result(model, **batch)[0, :1], some[0, :1], label_smoothing=0.1 * (head == "masked"))
    torch.testing.assert_close(model(**batch, labels=some).loss, expected)


def test_labels_that_were_shifted_already_give_the_same_loss(build, labels):
    model, batch = build("causal"), padded(PROMPTS, "right")
    shifted = F.pad(labels("causal")[:, 1:], (0, 1), value=-100)
    expected = model(**batch, labels=labels("causal"))
    torch.testing.assert_close(model(**batch, shift_labels=shifted).loss, expected.loss)


@EVERY_HEAD
def test_the_losses_of_parts_add_up_to_that_of_the_batch(head, build, labels):
    if head == "encoder":
        return
    model, batch = build(head), padded(PROMPTS, "right")
    counted = labels(head)[:, 1:] if head == "causal" else labels(head)
    count = (counted != -100).sum()
    expected = model(**batch, labels=labels(head)).loss
    parts = 0
    for rows in (slice(0, 1), slice(1, 3)):
        part = {name: tensor[rows] for name, tensor in batch.items()}
        parts += model(**part, labels=labels(head)[rows], num_items_in_batch=count).loss
    torch.testing.assert_close(parts, expected)


@EVERY_HEAD
@pytest.mark.parametrize("count", [None, 0, torch.tensor(0), torch.tensor(7)], ids=str)
def test_a_batch_without_labels_has_the_loss_0(count, head, build, labels):
    """As when none of a few tokens is masked: NaN would end the training of the model."""
    if head == "encoder":
        return
    model, batch = build(head), padded(PROMPTS, "right")
    loss = model(**batch, labels=torch.full_like(labels(head), -100), num_items_in_batch=count).loss
    loss.backward()
    assert loss == 0
    assert not any(parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


def as_a_trainer_counts(head, labels):
    return (labels[:, 1:] if head == "causal" else labels).ne(-100).sum()


@pytest.mark.parametrize("head", ["masked", "causal"])
def test_labels_padded_with_the_pad_token_cost_what_others_cost(head, build, labels):
    """A Trainer counts them, since they are not -100: the loss of a batch with much padding became small."""
    model, batch = build(head), padded(PROMPTS, "right")
    expected = model(**batch, labels=labels(head)).loss
    filled = labels(head).masked_fill(labels(head) == -100, model.config.pad_token_id)
    for count in (None, as_a_trainer_counts(head, filled), int(as_a_trainer_counts(head, filled))):
        torch.testing.assert_close(model(**batch, labels=filled, num_items_in_batch=count).loss, expected)


@pytest.mark.parametrize("head", ["masked", "causal"])
def test_a_pad_token_that_ends_texts_is_learned(head, build, labels):
    model, batch = build(head, pad_token_id=2, eos_token_id=2, label_smoothing=0.0), padded(PROMPTS, "right")
    ends = labels(head).clone()
    ends[0, 4] = 2
    without = ends.masked_fill(ends == 2, -100)
    kept = as_a_trainer_counts(head, ends)
    end = model(**batch, labels=ends.where(ends == 2, -100)).loss
    others = model(**batch, labels=without, num_items_in_batch=kept).loss
    torch.testing.assert_close(model(**batch, labels=ends).loss, others + end / kept)


@pytest.mark.parametrize("head", ["sequence", "token"])
def test_a_class_with_the_number_of_the_pad_token_is_a_class(head, build):
    model, batch = build(head), padded(PROMPTS, "right")
    zeros = torch.zeros(3, dtype=torch.long) if head == "sequence" else torch.zeros(3, 5, dtype=torch.long)
    assert model.config.pad_token_id == 0
    expected = -result(model, **batch).log_softmax(-1)[..., 0]
    for count in (None, zeros.numel(), 2 * zeros.numel()):
        loss = model(**batch, labels=zeros, num_items_in_batch=count).loss
        torch.testing.assert_close(loss, expected.sum() / (count or zeros.numel()))


@pytest.mark.parametrize("head", ["masked", "causal"])
def test_training_returns_logits_only_when_asked(head, build, labels):
    model, batch = build(head).train(), padded(PROMPTS, "right")
    with pytest.raises(AttributeError, match="skip_logits=False"):
        _ = model(**batch, labels=labels(head)).logits
    assert model(**batch, labels=labels(head), skip_logits=False).logits is not None
    assert model(**batch).logits is not None
    assert model.eval()(**batch, labels=labels(head)).logits is not None
    assert "logits" not in model(**batch, labels=labels(head), skip_logits=True)


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "target", "loss"),
    [
        ("regression", 1, torch.tensor([0.5, -1.0, 2.0]), lambda logits, target: F.mse_loss(logits[:, 0], target)),
        ("regression", 2, torch.randn(3, 2), F.mse_loss),
        ("single_label_classification", 3, torch.tensor([2, 0, 1]), F.cross_entropy),
        ("multi_label_classification", 3, torch.eye(3), F.binary_cross_entropy_with_logits),
    ],
    ids=["one number", "two numbers", "one label", "labels"],
)
@pytest.mark.parametrize("is_named", [True, False])
def test_problem_types_have_the_librarys_losses(is_named, problem_type, num_labels, target, loss, build):
    if not is_named and (problem_type, num_labels) == ("regression", 2):
        return  # floats for several labels are several labels, unless said otherwise
    named = {"problem_type": problem_type} if is_named else {}
    model, batch = build("sequence", num_labels=num_labels, **named), padded(PROMPTS, "right")
    output = model(**batch, labels=target)
    torch.testing.assert_close(output.loss, loss(output.logits, target))
    assert model.config.problem_type == problem_type
    parts = [{name: tensor[rows] for name, tensor in batch.items()} for rows in ([0], [1, 2])]
    found = sum(
        model(**part, labels=target[rows], num_items_in_batch=target.numel()).loss
        for part, rows in zip(parts, ([0], [1, 2]), strict=True)
    )
    torch.testing.assert_close(found, output.loss)


@pytest.mark.parametrize("head", ["sequence", "token"])
def test_classifiers_drop_out_what_they_classify(head, build):
    model = build(head, dropout=0.5).train()
    model.model.eval()
    batch = padded(PROMPTS, "right")
    assert not torch.allclose(result(model, **batch), result(model, **batch))


def test_a_causal_loss_keeps_no_cache(build, labels):
    model, batch = build("causal"), padded(PROMPTS, "right")
    assert model(**batch, labels=labels("causal")).past_key_values is None
    assert model(**batch).past_key_values is not None


@EVERY_HEAD
@EVERY_VARIANT
def test_gradients_reach_every_parameter(fields, head, build, labels):
    model, batch = build(head, **fields), padded(PROMPTS, "right")
    if head == "encoder":
        model(**batch).last_hidden_state.square().sum().backward()
    else:
        model(**batch, labels=labels(head)).loss.backward()
    missing = [name for name, parameter in model.named_parameters() if not _has_gradient(name, parameter)]
    assert missing == []


def _has_gradient(name, parameter):
    """A key's bias shifts all scores of a query alike, which the softmax undoes: its gradient is 0 up to rounding."""
    return parameter.grad is not None and (parameter.grad.any() or name.endswith("k_proj.bias"))


@EVERY_HEAD
def test_gradient_checkpointing_changes_no_gradient(head, build, labels):
    model, batch = build(head, dropout=0.0).train(), padded(PROMPTS, "right")
    targets = {} if head == "encoder" else {"labels": labels(head)}

    def gradients():
        model.zero_grad()
        output = model(**batch, **targets)
        (output.loss if targets else output.last_hidden_state.square().sum()).backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    expected = gradients()
    model.gradient_checkpointing_enable()
    torch.testing.assert_close(gradients(), expected)


# Saving, loading, sharing


@EVERY_HEAD
@EVERY_VARIANT
def test_a_saved_model_comes_back_identical(fields, head, build, tmp_path):
    model, (auto_class, model_class) = build(head, **fields), HEADS[head]
    model.save_pretrained(tmp_path)
    loaded, report = auto_class.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is model_class
    assert not any(report.values()), report
    batch = padded(PROMPTS, "right")
    assert torch.equal(result(loaded.eval(), **batch), result(model, **batch))
    assert loaded.config.to_diff_dict() == model.config.to_diff_dict()


@pytest.mark.parametrize("head", ["encoder", "masked", "sequence", "token"])
@pytest.mark.parametrize("body", [True, False], ids=["body", "translator"])
@EVERY_VARIANT
def test_a_translators_encoder_becomes_every_encoder_model(fields, body, head, tiny_model, tmp_path):
    translator = tiny_model(**fields)
    source = translator.model if body else translator
    source.save_pretrained(tmp_path)
    model, report = HEADS[head][0].from_pretrained(tmp_path, output_loading_info=True)
    untied = fields.get("tie_word_embeddings", True) is False
    new = {
        "masked": {"mask_head.weight"} if untied else set(),
        "sequence": {"classifier.weight", "classifier.bias"},
        "token": {"classifier.weight", "classifier.bias"},
    }
    assert report["missing_keys"] == new.get(head, set())
    saved = set(source.state_dict()) - set(source.all_tied_weights_keys)
    assert report["unexpected_keys"] == {name for name in saved if "encoder." not in name}
    batch = padded(PROMPTS, "left")
    with torch.no_grad():
        expected = translator.get_encoder()(**batch).last_hidden_state
        found = model.eval().get_encoder()(**batch).last_hidden_state
    assert torch.equal(found, expected)


@pytest.mark.parametrize("head", ["encoder", "sequence", "token"])
def test_a_masked_models_encoder_becomes_a_classifier(head, build, tmp_path):
    masked = build("masked", tie_word_embeddings=False)
    masked.save_pretrained(tmp_path)
    model, report = HEADS[head][0].from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"] == (set() if head == "encoder" else {"classifier.weight", "classifier.bias"})
    assert report["unexpected_keys"] == {"mask_head.weight"}
    batch = padded(PROMPTS, "right")
    assert torch.equal(model.eval().get_encoder()(**batch)[0], masked.get_encoder()(**batch)[0])


@EVERY_HEAD
def test_every_head_becomes_a_translator_and_keeps_its_part(head, build, tmp_path):
    model = build(head)
    model.save_pretrained(tmp_path)
    translator = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert translator.config.is_encoder_decoder
    assert type(FunTransformerModel.from_pretrained(tmp_path)) is FunTransformerModel  # AutoModel keeps to one stack
    kept = translator.state_dict()
    for name, tensor in model.base_model.state_dict().items():
        assert torch.equal(kept[f"model.{name}"], tensor), name
    assert translator.generate(torch.tensor(PROMPTS[:1]), max_new_tokens=3).shape[0] == 1


@pytest.mark.parametrize("is_shared", [True, False], ids=["shared embedding", "embeddings apart"])
def test_a_translators_decoder_becomes_a_causal_model(is_shared, tiny_model, tmp_path):
    translator = tiny_model(**({} if is_shared else VARIANTS["all apart"]))
    translator.save_pretrained(tmp_path)
    mapping = {"key_mapping": {"encoder.embed_tokens": "decoder.embed_tokens"}} if is_shared else {}
    model, report = FunTransformerForCausalLM.from_pretrained(tmp_path, output_loading_info=True, **mapping)
    assert report["missing_keys"] == set()
    assert all("encoder" in name for name in report["unexpected_keys"])  # encoder.*, and cross-attention
    kept = translator.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())


@EVERY_HEAD
@pytest.mark.parametrize("is_encoder_decoder", [True, False])
def test_the_config_that_was_given_is_not_changed(is_encoder_decoder, head, tiny_config):
    config = tiny_config(**VARIANTS["all apart"], is_encoder_decoder=is_encoder_decoder)
    before = copy.deepcopy(config.to_dict())
    model = HEADS[head][1](config)
    assert config.to_dict() == before
    assert not model.config.is_encoder_decoder
    assert FunTransformerForConditionalGeneration(model.config).config.is_encoder_decoder


@pytest.mark.parametrize("head", ["masked", "causal"])
@EVERY_VARIANT
def test_resized_embeddings_keep_the_old_logits_and_load(fields, head, build, tmp_path):
    model, batch = build(head, **fields), padded(PROMPTS, "right")
    before = result(model, **batch)
    model.resize_token_embeddings(40)
    torch.testing.assert_close(result(model, **batch)[..., : before.shape[-1]], before)
    model.save_pretrained(tmp_path)
    loaded = HEADS[head][0].from_pretrained(tmp_path)
    assert torch.equal(result(loaded.eval(), **batch), result(model, **batch))
    assert loaded.get_output_embeddings().weight.shape[0] == 40


@EVERY_HEAD
@BOTH_KERNELS
def test_attention_weights_and_hidden_states_are_shown(attn_implementation, head, build):
    model = build(head, attn_implementation)
    output = model(**padded(PROMPTS, "right"), output_attentions=True, output_hidden_states=True)
    layers, heads = (3, 2) if head == "causal" else (2, 4)
    assert [weights.shape for weights in output.attentions] == [(3, heads, 5, 5)] * layers
    assert [states.shape for states in output.hidden_states] == [(3, 5, 16)] * (layers + 1)
    for weights in output.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, heads, 5))


# Learning


def fit(model, steps, **batch):
    """Train on one batch.

    Returns:
        The last loss.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        loss = model.train()(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    return loss.item()


@pytest.mark.slow
@EVERY_VARIANT
def test_the_masked_model_learns_to_copy_what_is_three_tokens_away(fields, build):
    model = build("masked", dropout=0.0, label_smoothing=0.0, **fields)
    half = torch.randint(5, 23, (64, 3))
    ids = torch.cat([half, half], dim=1)  # what is hidden on one side stands on the other
    hidden = torch.zeros_like(ids, dtype=torch.bool)
    hidden[torch.arange(64), torch.randint(0, 6, (64,))] = True
    batch = {"input_ids": ids.masked_fill(hidden, 4), "labels": ids.masked_fill(~hidden, -100)}
    fit(model, 300, **batch)
    with torch.no_grad():
        guessed = model(batch["input_ids"]).logits.argmax(-1)
    assert (guessed == ids)[hidden].float().mean() > 0.9


@pytest.mark.slow
@EVERY_VARIANT
def test_the_causal_model_learns_to_repeat(fields, build):
    model = build("causal", dropout=0.0, label_smoothing=0.0, **fields)
    ids = torch.stack([torch.arange(start, start + 6) for start in range(5, 15)])  # each token is followed by the next
    fit(model, 200, input_ids=ids, labels=ids)
    found = model.generate(
        torch.tensor([[0, 6, 7], [11, 12, 13]]), max_new_tokens=3, attention_mask=torch.tensor([[0, 1, 1], [1, 1, 1]])
    )
    assert found[:, 3:].tolist() == [[8, 9, 10], [14, 15, 16]]


@pytest.mark.slow
@EVERY_VARIANT
@pytest.mark.parametrize("head", ["sequence", "token"])
def test_classifiers_learn_what_depends_on_the_context(head, fields, build):
    model = build(head, dropout=0.0, num_labels=2, **fields)
    ids = torch.randint(6, 23, (64, 6))
    ids[::2, 3] = 5
    has_five = (ids == 5).any(dim=1).long()
    labels = has_five if head == "sequence" else has_five[:, None].expand(64, 6).contiguous()
    fit(model, 150, input_ids=ids, labels=labels)
    assert (result(model, input_ids=ids).argmax(-1) == labels).float().mean() > 0.95
