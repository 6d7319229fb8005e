"""ONNX: graphs that compute what the model does, in the layout that transformers.js reads."""

import copy
import json

import pytest
import torch

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from fun_transformer import FunTransformerTokenizer  # noqa: E402
from fun_transformer.export import export_model, find_format, onnx_graphs, onnx_weights  # noqa: E402
from fun_transformer.export.onnx import describe, save_tokenizer  # noqa: E402
from fun_transformer.export.onnx_model import OnnxModel, run  # noqa: E402
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer  # noqa: E402

LINES = ["The black cat sat.", "Another dog ran away.", "今天我们吃什么？", "The whole street was asleep."]
SOURCE = torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 0, 0]])
MASK = (SOURCE != 0).long()
TARGET = torch.tensor([[1, 5, 6, 7], [1, 8, 9, 10]])


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(LINES * 5, settings=TokenizerSettings(type="bpe", vocab_size=300))


def session(graph):
    return onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def decode(graph, states, target, cache=None):
    """Return the logits of a target, and the cache."""
    empty = {name: torch.zeros(2, 2, 0, 8) for name in onnx_graphs.cache_names(2)}
    results = run(
        session(graph),
        encoder_attention_mask=MASK,
        input_ids=target,
        encoder_hidden_states=states,
        use_cache_branch=torch.tensor([cache is not None]),
        **(cache or empty),
    )
    kept = {name.replace("present", "past_key_values"): value for name, value in results.items() if name != "logits"}
    return results["logits"], kept


def build(positions):
    from fun_transformer import FunTransformerConfig, FunTransformerForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 2}
    config = FunTransformerConfig(vocab_size=40, position_embedding_type=positions, **sizes, **heads)
    model = FunTransformerForConditionalGeneration(config)
    for weight in model.parameters():
        weight.data += 0.2 * torch.randn_like(weight)
    model.eval().set_attn_implementation("eager")
    return model


def with_graphs(model):
    return model, [onnx_graphs.export_encoder(model), *onnx_graphs.export_decoder(model)]


@pytest.fixture(scope="module")
def model_and_graphs():
    return with_graphs(build("sinusoidal"))


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["sinusoidal", "relative"])
def test_graphs_compute_the_models_logits_with_and_without_a_cache(positions, model_and_graphs):
    model, (encoder, *parts) = model_and_graphs if positions == "sinusoidal" else with_graphs(build(positions))
    expected = model(SOURCE, MASK, TARGET).logits.detach()
    states = run(session(encoder), input_ids=SOURCE, attention_mask=MASK)["last_hidden_state"]
    decoder = onnx_graphs.merge(*copy.deepcopy(parts))
    torch.testing.assert_close(decode(decoder, states, TARGET)[0], expected, rtol=1e-4, atol=1e-4)
    first, cache = decode(decoder, states, TARGET[:, :1])
    second, cache = decode(decoder, 0 * states, TARGET[:, 1:2], cache)  # what it needs of the source is in the cache
    third, cache = decode(decoder, 0 * states, TARGET[:, 2:], cache)
    torch.testing.assert_close(torch.cat([first, second, third], dim=1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_end_of_a_text_follows_its_end(model_and_graphs):
    model, (_, *parts) = model_and_graphs
    states = model.model.encoder(SOURCE, MASK).last_hidden_state.detach()
    target = torch.tensor([[1, 2], [1, 5]])
    logits, _ = decode(onnx_graphs.merge(*copy.deepcopy(parts)), states, target)
    expected = model(SOURCE, MASK, target).logits.detach()
    assert logits[0, 1].argmax() == 2 and expected[0, 1].argmax() != 2
    expected[0, 1] = logits[0, 1]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_smaller_weights_take_less_room_and_change_little(model_and_graphs):
    model, graphs = model_and_graphs
    states = model.model.encoder(SOURCE, MASK).last_hidden_state.detach()
    logits = {"fp32": decode(onnx_graphs.merge(*copy.deepcopy(graphs[1:])), states, TARGET)[0]}
    for name, smaller in {"half": onnx_weights.halve_weights, "int8": onnx_weights.quantize_weights}.items():
        parts = [smaller(copy.deepcopy(graph)) for graph in graphs]
        assert not onnx_weights.find_matrices(parts[0].graph)
        session(parts[0])
        logits[name] = decode(onnx_graphs.merge(*parts[1:]), states, TARGET)[0]
    spread = logits["fp32"].std()
    half, eighth = ((logits[name] - logits["fp32"]).std() / spread for name in ("half", "int8"))
    assert 0 < half < 2e-3 and half < eighth < 0.05
    assert {weight.data_type for weight in parts[0].graph.initializer if len(weight.dims) == 2} == {2}  # uint8


@pytest.mark.slow
def test_any_other_variant_answers_as_the_model_does(tiny_model, tokenizer, tmp_path):
    model = tiny_model(
        vocab_size=len(tokenizer),
        norm_position="pre",
        position_embedding_type="learned",
        encoder_layer_types=["linear_attention", "conv"],
        decoder_layers=2,
        decoder_layer_types=["sliding_attention", "full_attention"],
        sliding_window=2,
        encoder_attention_heads=4,
        decoder_attention_heads=2,
        tie_word_embeddings=False,
        share_encoder_decoder_embeddings=False,
        decoder_start_token_id=1,
    )
    model.generation_config.max_new_tokens = 8
    exported = export_model(model, tokenizer, find_format("onnx"), tmp_path / "out", data=LINES)
    assert [(found.num_beams, found.equal) for found in exported.agreements] == [(1, 4), (5, 4)]
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == {
        *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
        *("onnx/encoder_model.onnx", "onnx/decoder_model_merged.onnx"),
    }
    graph = (tmp_path / "out/onnx/decoder_model_merged.onnx").read_bytes()
    assert b"modeling_fun_transformer" not in graph and b"site-packages" not in graph
    loaded = OnnxModel.open(tmp_path / "out")
    batch = tokenizer(LINES, return_tensors="pt", padding=True)
    options = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 8}
    assert torch.equal(loaded.generate(**batch, **options), model.generate(**batch, **options))


def test_the_config_says_what_transformers_js_sizes_its_cache_by(tiny_model):
    config = describe(tiny_model(encoder_attention_heads=4, decoder_attention_heads=2), "int8")
    assert config["model_type"] == "marian" and config["is_encoder_decoder"]
    assert config["encoder_attention_heads"] == config["decoder_attention_heads"] == 2
    assert config["transformers.js_config"] == {"dtype": "q8"}


def test_separate_vocabularies_are_two_tokenizers(tmp_path):
    settings = TokenizerSettings(type="bpe", vocab_size=300, target_vocab_size=290)
    tokenizer = train_tokenizer(LINES * 5, LINES[2:] * 5, settings=settings)
    save_tokenizer(tokenizer, tmp_path)
    saved = json.loads((tmp_path / "target_tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    assert saved["model"]["vocab"] == tokenizer.get_target_vocab()
    assert "target_tokenizer" not in json.loads((tmp_path / "target_tokenizer" / "tokenizer_config.json").read_text())
    again = FunTransformerTokenizer.from_pretrained(tmp_path)
    assert again(LINES, text_target=LINES) == tokenizer(LINES, text_target=LINES)


@pytest.mark.parametrize("what", ["recurrent", "another family"])
def test_what_transformers_js_cannot_run_is_refused(what, tiny_model, tokenizer):
    model = tiny_model(decoder_layer_types=["linear_attention"] * 3) if what == "recurrent" else torch.nn.Linear(1, 1)
    message = "linear_attention, which keeps a state" if what == "recurrent" else "this is a Linear"
    with pytest.raises(ValueError, match=message):
        find_format("onnx").check(model, tokenizer, None)


def test_a_folder_without_graphs_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no onnx/encoder_model\.onnx"):
        OnnxModel.open(tmp_path)


# ── speech and pictures ───────────────────────────────────────────────────────────────────────────────────────────


def build_reader(tokenizer, source, folder):
    """A model of speech or pictures, saved beside the config of its feature extractor."""
    from fun_transformer import FunTransformerConfig, FunTransformerForConditionalGeneration

    torch.manual_seed(1)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "frontend_channels": 4}
    fields = {"num_mel_bins": 8} if source == "speech" else {"image_height": 8, "image_rows": 2}
    fields |= {"vocab_size": len(tokenizer), "source_modality": source, "tie_word_embeddings": False}
    config = FunTransformerConfig(**sizes, **fields)
    model = FunTransformerForConditionalGeneration(config).eval()
    for projection in model.get_decoder().layers[0].encoder_attn.parameters():
        projection.data *= 10  # the source decides more than the target so far
    model.generation_config.max_new_tokens = 6
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text("{}")
    return FunTransformerForConditionalGeneration.from_pretrained(folder)


@pytest.mark.slow
def test_models_of_speech_and_pictures_run_in_onnx_runtime(tokenizer, tmp_path):
    """A model of pictures that keeps rows apart, which has all that one of speech has, and more."""
    (tmp_path / "model").mkdir()
    model = build_reader(tokenizer, "image", tmp_path / "model")
    exported = export_model(model, tokenizer, find_format("onnx"), tmp_path / "onnx")
    assert [found.equal for found in exported.agreements] == [32, 32]
    assert (tmp_path / "onnx" / "preprocessor_config.json").is_file()
    again = OnnxModel.open(tmp_path / "onnx")
    front_end = model.get_encoder().front_end
    features = torch.cat([front_end.sample(30), front_end.sample(30)])
    mask = torch.tensor([[1] * 30, [1] * 17 + [0] * 13])
    inputs = {model.main_input_name: features, "attention_mask": mask}
    states = model.get_encoder()(**inputs).last_hidden_state
    torch.testing.assert_close(again.encoder(**inputs).last_hidden_state, states, atol=1e-4, rtol=1e-4)
    for options in ({}, {"num_beams": 3}):
        assert torch.equal(again.generate(**inputs, **options), model.generate(**inputs, **options))
    with pytest.raises(ValueError, match="A comparison on data reads text"):
        export_model(model, tokenizer, find_format("onnx"), tmp_path / "other", data=["a"])


def test_models_of_speech_and_pictures_are_written_in_8_bits(tokenizer, tmp_path):
    (tmp_path / "model").mkdir()
    model = build_reader(tokenizer, "speech", tmp_path / "model")
    export_model(model, tokenizer, find_format("torch"), tmp_path / "int8", "int8", force=True)
    assert (tmp_path / "int8" / "preprocessor_config.json").is_file()
