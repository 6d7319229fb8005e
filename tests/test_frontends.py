"""Speech and pictures as sources: the front end against NumPy, padding, generation, and what is refused."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from fun_transformer import (
    FunTransformerConfig,
    FunTransformerEncoderModel,
    FunTransformerForCausalLM,
    FunTransformerForConditionalGeneration,
    FunTransformerForMaskedLM,
    FunTransformerForSequenceClassification,
    FunTransformerForTokenClassification,
    FunTransformerModel,
)
from fun_transformer.frontends import FRONT_ENDS, FrontEnd, output_lengths, shrink
from fun_transformer.int8 import quantize_int8
from fun_transformer.masks import packing_problem

LENGTHS = [1, 2, 3, 5, 98, 250]
SPEECH = {"source_modality": "speech", "num_mel_bins": 10, "frontend_channels": 6}
IMAGE = {"source_modality": "image", "num_channels": 2, "image_height": 12, "frontend_channels": 6}
ROWS = IMAGE | {"image_rows": 3}
SOURCES = pytest.mark.parametrize("fields", [SPEECH, IMAGE, ROWS], ids=["speech", "image", "rows"])


@pytest.fixture
def build(tiny_config, shake_vectors):
    """A function from config fields to a model whose biases are not 0: they would hide a missing mask."""

    def build(fields, head=FunTransformerForConditionalGeneration):
        return shake_vectors(head(tiny_config(**{"norm_position": "pre"} | fields))).eval()

    return build


def sources(model, lengths=LENGTHS):
    """One source of each length, each in a batch of its own."""
    config = model.config
    if config.source_modality == "speech":
        return [torch.randn(1, length, config.num_mel_bins) for length in lengths]
    return [torch.randn(1, config.num_channels, config.image_height, length) for length in lengths]


def join(model, parts):
    """The arguments of a padded batch: what is in the padding is large."""
    axis = 1 if model.main_input_name == "input_features" else 3
    lengths = torch.tensor([part.shape[axis] for part in parts])
    shape = list(parts[0].shape)
    shape[0], shape[axis] = len(parts), int(lengths.max())
    batch = 100 * torch.randn(shape)
    for row, part in zip(batch, parts):
        row.narrow(axis - 1, 0, part.shape[axis]).copy_(part[0])
    mask = (torch.arange(shape[axis]) < lengths[:, None]).long()
    return {model.main_input_name: batch, "attention_mask": mask}


# ── the formula ───────────────────────────────────────────────────────────────────────────────────────────────────


def numpy_convolution(picture, weight, bias):
    """ReLU of a 3 x 3 convolution of stride 2 of one picture (channels, length, height), padded with zeros."""
    _, length, height = picture.shape
    padded = np.pad(picture, ((0, 0), (1, 1), (1, 1)))
    output = np.zeros((len(weight), (length + 1) // 2, (height + 1) // 2))
    for i in range(output.shape[1]):
        for j in range(output.shape[2]):
            window = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            output[:, i, j] = (weight * window).sum((1, 2, 3)) + bias
    return np.maximum(output, 0)


def numpy_front_end(front_end, picture, rows):
    """The embeddings of one picture without padding, (source_len, d_model)."""
    weights = {name: weight.detach().double().numpy() for name, weight in front_end.named_parameters()}
    for layer in range(len(front_end.convolutions)):
        picture = numpy_convolution(
            picture, weights[f"convolutions.{layer}.weight"], weights[f"convolutions.{layer}.bias"]
        )
    embeds = []
    for place in range(picture.shape[1]):
        for row, part in enumerate(np.split(picture[:, place], rows, axis=1)):  # (channels, height / rows)
            vector = weights["out_proj.weight"] @ part.reshape(-1) + weights["out_proj.bias"]
            if rows > 1:
                vector = vector + len(vector) ** 0.5 * weights["embed_rows.weight"][row]
            embeds.append(vector)
    return np.array(embeds)


@SOURCES
def test_a_front_end_is_two_convolutions_and_a_linear_layer_with_and_without_padding(build, fields):
    model = build(fields, FunTransformerEncoderModel)
    front_end, lengths = model.encoder.front_end, [1, 2, 6, 9]
    parts = sources(model, lengths)
    batch = join(model, parts)
    embeds, mask, places = front_end(batch[model.main_input_name], batch["attention_mask"])
    for row, part in enumerate(parts):
        expected = numpy_front_end(front_end, front_end.to_picture(part)[0].double().numpy(), front_end.rows)
        assert len(expected) == output_lengths(model.config, lengths[row]) == int(mask[row].sum())
        np.testing.assert_allclose(embeds[row, : len(expected)].detach(), expected, atol=1e-5)
        alone, no_mask, _ = front_end(part, None)
        assert no_mask is None
        np.testing.assert_allclose(alone[0].detach(), expected, atol=1e-5)
    assert places.tolist() == [[place // front_end.rows for place in range(3 * front_end.rows)]]


@SOURCES
def test_what_enters_the_encoder_is_as_large_as_positions_are(tiny_config, fields):
    """Sizes as people use them; positions are added to it, whose variance is 1 / 2."""
    sizes = {"d_model": 128, "frontend_channels": 32, "image_height": 48, "num_mel_bins": 80}
    encoder = FunTransformerEncoderModel(tiny_config(**fields | sizes)).eval().encoder
    features = encoder.front_end.sample(200)
    embeds, _, places = encoder.front_end(features, None)
    assert 0.4 < embeds.var() < 4
    hidden_states = encoder.embed(embeds, encoder.locate(embeds, None, places), embeds.shape[1])
    torch.testing.assert_close(hidden_states, embeds + encoder.embed_positions(places, 0))


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("fields", [{}, SPEECH, ROWS], ids=["text", "speech", "rows"])
def test_lengths_after_the_front_end_are_those_of_the_mask(tiny_config, fields, layers):
    config = tiny_config(
        **fields | {"frontend_layers": layers, "image_rows": 1 if layers > 2 else fields.get("image_rows", 1)}
    )
    mask = (torch.arange(250) < torch.tensor(LENGTHS)[:, None]).long()
    assert torch.equal(shrink(config, mask).sum(1), output_lengths(config, torch.tensor(LENGTHS)))
    assert [output_lengths(config, n) for n in LENGTHS] == output_lengths(config, np.array(LENGTHS)).tolist()
    assert shrink(config, None) is None


def test_each_layer_type_and_position_reads_speech(build):
    for more in (
        {"encoder_layer_types": ["sliding_attention", "conv"], "sliding_window": 4},
        {"position_embedding_type": "rotary"},
        {"position_embedding_type": "relative"},
        {"position_embedding_type": "learned", "max_position_embeddings": 64},
        {"norm_position": "post", "encoder_layer_types": ["linear_attention", "full_attention"]},
    ):
        model = build(SPEECH | more)
        parts = sources(model, [9, 30])
        labels = torch.tensor([[4, 5, 2], [6, 7, 2]])
        together = model(**join(model, parts), labels=labels).logits
        for row, part in enumerate(parts):
            alone = model(input_features=part, labels=labels[row : row + 1]).logits
            torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


# ── padding ───────────────────────────────────────────────────────────────────────────────────────────────────────


@SOURCES
def test_a_batch_gives_the_logits_of_its_parts(build, fields):
    model = build(fields)
    parts, labels = sources(model), torch.randint(3, 23, (len(LENGTHS), 4))
    together = model(**join(model, parts), labels=labels).logits
    for row, part in enumerate(parts):
        alone = model(**{model.main_input_name: part}, labels=labels[row : row + 1]).logits
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=1e-4)


@SOURCES
@pytest.mark.parametrize("search", [{"num_beams": 1}, {"num_beams": 3}], ids=["greedy", "beams"])
@pytest.mark.parametrize("cache", [None, "dynamic"], ids=["ours", "transformers"])
def test_a_batch_generates_what_its_parts_do_alone(build, fields, search, cache):
    """Our searches, and with cache="dynamic" the loops of transformers."""
    model = build(fields | {"tie_word_embeddings": False})
    for layer in model.get_decoder().layers:  # the source decides more than the target so far
        for projection in (layer.encoder_attn.q_proj, layer.encoder_attn.k_proj, layer.encoder_attn.out_proj):
            projection.weight.data *= 10
    parts = [part + 3 * torch.randn(1) for part in sources(model)]
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "cache_implementation": cache, **search}
    together = model.generate(**join(model, parts), **settings)
    alone = [model.generate(**{model.main_input_name: part}, **settings) for part in parts]
    assert torch.equal(together, torch.cat(alone))
    assert len({tuple(row.tolist()) for row in together}) > 1


@SOURCES
def test_noise_in_the_padding_changes_nothing(build, fields):
    model = build(fields, FunTransformerEncoderModel)
    batch = join(model, sources(model))
    kept = shrink(model.config, batch["attention_mask"]).bool()
    features = batch[model.main_input_name]
    is_padding = batch["attention_mask"][:, :, None] == 0  # (batch, length, 1)
    if features.dim() == 4:
        is_padding = is_padding.transpose(1, 2).unsqueeze(1)
    first = model(**batch).last_hidden_state[kept]
    for noise in (0.0, 1e4, torch.inf, torch.nan):
        batch[model.main_input_name] = features.masked_fill(is_padding, noise)
        assert torch.equal(model(**batch).last_hidden_state[kept], first)


def test_the_mask_between_the_convolutions_is_needed(build):
    """Masked before the first one only, what its bias makes of the padding leaks into the second."""
    model = build(SPEECH, FunTransformerEncoderModel)
    front_end, part = model.encoder.front_end, sources(model, [5])[0]
    padded = nn.functional.pad(part, (0, 0, 0, 7))
    mask = torch.tensor([[1] * 5 + [0] * 7])
    alone = front_end(part, None)[0]  # (1, 2, d_model)
    torch.testing.assert_close(front_end(padded, mask)[0][:, :2], alone)
    leaked = front_end(padded, None)[0][:, :2]  # zeros where the padding is, as a mask before the first would make
    assert (leaked - alone).abs().max() > 0.1


def test_silence_is_read_as_the_mean(build):
    """A feature extractor divides by the standard deviation of silence, which is 0."""
    model = build(SPEECH)
    silence = torch.full((1, 20, 10), torch.nan)
    outputs = model(input_features=silence, labels=torch.tensor([[4, 2]]))
    assert outputs.loss.isfinite()
    mean = model(input_features=torch.zeros(1, 20, 10), labels=torch.tensor([[4, 2]]))
    assert torch.equal(outputs.logits, mean.logits)


def test_rows_kept_apart_are_told_apart(build):
    """Two pictures whose rows change places: with one vector for a column, or several, the encoder sees it."""
    for fields in (IMAGE, ROWS):
        model = build(fields, FunTransformerEncoderModel)
        picture = sources(model, [8])[0]
        flipped = torch.cat([picture[:, :, 6:], picture[:, :, :6]], dim=2)
        difference = model(pixel_values=picture).last_hidden_state - model(pixel_values=flipped).last_hidden_state
        assert difference.abs().mean() > 0.01
    same = torch.ones(1, 2, 12, 40)  # equal everywhere: only the vectors of the rows differ, away from the borders
    front_end = model.encoder.front_end
    middle = front_end(same, None)[0].view(1, 10, 3, -1)[0, 5]
    assert (middle[0] - middle[1]).abs().max() > 0.1


# ── a model like any other ────────────────────────────────────────────────────────────────────────────────────────


@SOURCES
def test_a_model_is_saved_and_loaded(build, fields, tmp_path):
    model = build(fields)
    model.save_pretrained(tmp_path)
    again = FunTransformerForConditionalGeneration.from_pretrained(tmp_path)
    assert again.main_input_name == model.main_input_name != "input_ids"
    assert FunTransformerForConditionalGeneration.main_input_name == "input_ids"  # that of the class
    part = sources(model, [9])[0]
    labels = torch.tensor([[4, 5, 2]])
    inputs = {model.main_input_name: part, "labels": labels}
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    encoder = FunTransformerEncoderModel.from_pretrained(tmp_path)
    expected = model.get_encoder()(**{model.main_input_name: part}).last_hidden_state
    assert torch.equal(encoder(**{model.main_input_name: part}).last_hidden_state, expected)


def test_a_text_model_says_nothing_of_front_ends(tiny_config, tmp_path):
    config = tiny_config()
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert not [name for name in saved if name.startswith(("front", "image", "num_", "source"))]
    tiny_config(**SPEECH).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["source_modality"] == "speech" and saved["frontend_channels"] == 6
    assert not FunTransformerConfig.from_pretrained(tmp_path).share_encoder_decoder_embeddings


def test_the_output_layer_is_the_only_embedding_and_both_grow(build):
    model = build(SPEECH)
    assert model.get_input_embeddings() is model.get_decoder().embed_tokens
    assert model.lm_head.weight is model.get_decoder().embed_tokens.weight
    assert not hasattr(model.get_encoder(), "embed_tokens")
    model.resize_token_embeddings(30, mean_resizing=False)
    assert model.lm_head.weight.shape[0] == model.config.vocab_size == model.config.decoder_vocab_size == 30


@SOURCES
def test_weights_in_8_bits_and_in_half_precision_read_the_same_source(build, fields):
    model = build(fields)
    part, labels = sources(model, [20])[0], torch.tensor([[4, 5, 6, 2]])
    inputs = {model.main_input_name: part, "labels": labels}
    expected = model(**inputs).logits
    torch.testing.assert_close(model.bfloat16()(**inputs).logits.float(), expected, atol=0.3, rtol=0.1)
    quantized = quantize_int8(model.float())
    torch.testing.assert_close(quantized(**inputs).logits, expected, atol=0.5, rtol=0.2)
    settings = {"max_new_tokens": 4, "min_new_tokens": 4, "num_beams": 2}
    ours = quantized.generate(**{model.main_input_name: part}, **settings)
    theirs = quantized.generate(**{model.main_input_name: part}, **settings, cache_implementation="dynamic")
    assert torch.equal(ours, theirs)


def test_gradients_reach_the_front_end_and_checkpointing_changes_none(build):
    model = build(SPEECH).train()
    model.config.dropout = 0.0
    for module in model.modules():
        if hasattr(module, "p"):
            module.p = 0.0
    batch = join(model, sources(model, [9, 30])) | {"labels": torch.tensor([[4, 5, 2], [6, 7, 2]])}
    gradients = []
    for is_checkpointed in (False, True):
        model.gradient_checkpointing_enable() if is_checkpointed else model.gradient_checkpointing_disable()
        model.zero_grad()
        model(**batch).loss.backward()
        gradients.append([weight.grad.clone() for weight in model.get_encoder().front_end.parameters()])
    for first, second in zip(*gradients):
        assert first.abs().sum() > 0
        torch.testing.assert_close(first, second)


def test_eight_recordings_are_memorised(tiny_config):
    """Noise of 40 to 110 frames, each with a text of its own."""
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 2, "norm_position": "pre", "dropout": 0.0, "label_smoothing": 0.0}
    model = FunTransformerForConditionalGeneration(tiny_config(**SPEECH, **sizes, **heads))
    parts = sources(model, range(40, 120, 10))
    batch, labels = join(model, parts), torch.randint(3, 23, (8, 5))
    labels[:, -1] = 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(model.eval().generate(**batch, max_new_tokens=6)[:, 1:], labels)


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"source_modality": "sound"}, "source_modality=sound is not known.*text, speech, image"),
        ({"source_modality": "speach"}, "Did you mean speech"),
        (IMAGE | {"image_rows": 2}, "image_rows=2 does not divide the 3 rows"),
        (IMAGE | {"image_height": 0}, "image_height=0 must be at least 1"),
        (SPEECH | {"num_mel_bins": 0}, "num_mel_bins=0 must be at least 1"),
        (SPEECH | {"frontend_layers": 0}, "frontend_layers=0 must be at least 1"),
        ({"source_modalty": "speech"}, "Did you mean source_modality"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(tiny_config, fields, words):
    with pytest.raises(Exception, match=words):
        tiny_config(**fields)


@pytest.mark.parametrize(
    ("fields", "inputs", "words"),
    [
        ({}, {"input_features": (1, 5, 10)}, "reads text and got input_features. Pass input_ids"),
        (SPEECH, {"input_ids": None}, "source of this model is speech: pass input_features. It got input_ids"),
        (SPEECH, {"inputs_embeds": (1, 5, 16)}, "pass input_features. It got inputs_embeds"),
        (SPEECH, {}, "pass input_features. It got none"),
        (SPEECH, {"input_features": (1, 5, 80)}, r"is \(1, 5, 80\), but the model reads \(batch, frames, 10\)"),
        (SPEECH, {"input_features": (5, 10)}, r"is \(5, 10\)"),
        (
            SPEECH,
            {"input_features": (1, 5, 10), "attention_mask": (1, 2)},
            r"attention_mask is \(1, 2\).*has 5 places",
        ),
        (IMAGE, {"pixel_values": (1, 3, 12, 9)}, r"is \(1, 3, 12, 9\), but the model reads \(batch, 2, 12, width\)"),
        (IMAGE, {"pixel_values": (1, 2, 9, 12)}, "image processor"),
        (IMAGE, {"input_features": (1, 5, 10)}, "pass pixel_values. It got input_features"),
    ],
)
def test_a_source_of_another_kind_is_refused(tiny_config, fields, inputs, words):
    model = FunTransformerModel(tiny_config(**fields))
    ids = torch.tensor([[1, 4]])
    inputs = {name: ids if shape is None else torch.ones(shape) for name, shape in inputs.items()}
    with pytest.raises(ValueError, match=words):
        model(**inputs, decoder_input_ids=ids)


@pytest.mark.parametrize(("fields", "name"), [(SPEECH, "input_features"), (ROWS, "pixel_values")])
def test_generation_without_a_source_is_refused(build, fields, name):
    with pytest.raises(ValueError, match=f"pass {name} to generate"):
        build(fields).generate(max_new_tokens=2)


@pytest.mark.parametrize(
    "head",
    [
        FunTransformerForCausalLM,
        FunTransformerForMaskedLM,
        FunTransformerForSequenceClassification,
        FunTransformerForTokenClassification,
    ],
)
def test_heads_of_text_refuse_other_sources(tiny_config, head):
    with pytest.raises(ValueError, match="This head reads text, and the source of this model is speech"):
        head(tiny_config(**SPEECH))


def test_packed_rows_are_for_texts(tiny_config):
    assert packing_problem(tiny_config(), "sdpa") is None
    assert "speech" in packing_problem(tiny_config(**SPEECH), "sdpa")


def test_a_front_end_of_ones_own_is_a_line_in_the_table(tiny_config, monkeypatch):
    class Columns(FrontEnd):
        """Reads what is one number high, (batch, length)."""

        input_name, auto_class, task = "input_features", "AutoModelForSpeechSeq2Seq", "automatic-speech-recognition"

        def __init__(self, config):
            super().__init__(config, 1, 1)

        def to_picture(self, features):
            return features[:, None, :, None]

    monkeypatch.setitem(FRONT_ENDS, "columns", Columns)
    model = FunTransformerModel(tiny_config(source_modality="columns"))
    outputs = model(input_features=torch.randn(2, 11), decoder_input_ids=torch.tensor([[1, 4]] * 2))
    assert outputs.encoder_last_hidden_state.shape == (2, 3, 16)
