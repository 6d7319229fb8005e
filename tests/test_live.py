"""The graphs of the live page (docs/live) compute what the models compute, with every switch."""

import numpy as np
import pytest
import torch

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

from live_site import TINY, build, ids_of, tiny_rnn, tiny_transformer, vendor  # noqa: E402

import graph  # noqa: E402  isort: skip
import rnn_graph  # noqa: E402  isort: skip

SOURCE, TARGET = [ids_of("bad cafe")], [[1, 17, 14, 16]]


def run(session, inputs):
    """Return the results of a graph by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


@pytest.fixture(scope="module")
def sessions(tiny_live_site):
    """A function from a model's name to its graphs, running."""

    def start(name):
        files = (tiny_live_site / name).glob("*.onnx")
        return {file.stem: onnxruntime.InferenceSession(str(file)) for file in files}

    return start


@pytest.fixture(scope="module")
def answer(sessions):
    """A function from switches to what the decoder computes for a target after a past of keys and values."""
    started, config = sessions("transformer"), tiny_transformer().config
    heads = {
        "encoder_heads": np.ones((config.encoder_layers, config.encoder_attention_heads), np.float32),
        "heads": np.ones((config.decoder_layers, config.decoder_attention_heads), np.float32),
        "cross_heads": np.ones((config.decoder_layers, config.decoder_attention_heads), np.float32),
    }
    on = {name: np.array(1, np.float32) for name in ("positions", "scaling", "causal", "cross")} | heads
    empty = np.zeros((*heads["heads"].shape, 0, config.d_model // config.decoder_attention_heads), np.float32)

    def answer(which="decoder", target=TARGET, past=(empty, empty), **switches):
        given = on | {name: np.asarray(value, np.float32) for name, value in switches.items()}
        common = {name: given[name] for name in ("positions", "scaling")}
        inputs = {"input_ids": np.array(SOURCE), "heads": given["encoder_heads"], **common}
        states = started["encoder"].run(["states"], inputs)[0]
        rest = {name: given[name] for name in ("heads", "cross_heads", "causal", "cross")}
        rest |= {"past_keys": past[0], "past_values": past[1]}
        return run(started[which], {"input_ids": np.array(target), "source": states, **common, **rest})

    return answer


def logits_of(model, **inputs):
    """Return the model's own logits of the next token, (vocab_size,)."""
    with torch.no_grad():
        outputs = model(input_ids=torch.tensor(SOURCE), decoder_input_ids=torch.tensor(TARGET), **inputs)
    return outputs.logits[0, -1].numpy()


def assert_equal_only_with(answer, wanted, **switches):
    """Assert that a switch gives the logits wanted, and that they are others than without it."""
    np.testing.assert_allclose(answer(**switches)["logits"], wanted, atol=1e-4)
    assert np.abs(answer()["logits"] - wanted).max() > 1e-2


@torch.no_grad()
def silence(attention, head=None):
    """Take from an attention layer's output a head, or all."""
    width = attention.head_dim
    columns = slice(None) if head is None else slice(head * width, (head + 1) * width)
    attention.out_proj.weight[:, columns] = 0
    if head is None:
        attention.out_proj.bias.zero_()


@pytest.mark.slow
def test_graphs_give_the_logits_and_weights_of_the_model(answer):
    model, results = tiny_transformer(), answer()
    np.testing.assert_allclose(results["logits"], logits_of(model), atol=1e-4)
    with torch.no_grad():
        ids = {"input_ids": torch.tensor(SOURCE), "decoder_input_ids": torch.tensor(TARGET)}
        outputs = model(**ids, output_attentions=True)
    for name, weights in (("self", outputs.decoder_attentions), ("cross", outputs.cross_attentions)):
        np.testing.assert_allclose(results[f"{name}.weights"], torch.cat(weights).numpy(), atol=1e-4)


@pytest.mark.slow
def test_the_quick_decoder_goes_on_from_its_cache(answer):
    wanted, past = answer()["logits"], answer()
    np.testing.assert_allclose(answer("quick_decoder")["logits"], wanted, atol=1e-5)
    for cut in (1, 2, 3):
        past = answer("quick_decoder", [TARGET[0][:cut]])
        rest = answer("quick_decoder", [TARGET[0][cut:]], (past["self.key"], past["self.value"]))
        np.testing.assert_allclose(rest["logits"], wanted, atol=1e-5)
        np.testing.assert_allclose(rest["self.key"], answer()["self.key"], atol=1e-5)


@pytest.mark.slow
def test_without_positions_the_graphs_are_the_model_without_them(answer):
    model = tiny_transformer("learned")
    model.load_state_dict(tiny_transformer().state_dict(), strict=False)
    with torch.no_grad():
        for stack in (model.model.encoder, model.model.decoder):
            for parameter in stack.embed_positions.parameters():
                parameter.zero_()
    assert_equal_only_with(answer, logits_of(model), positions=0)


@pytest.mark.slow
def test_without_scaling_scores_are_the_products_alone(answer):
    model = tiny_transformer()
    for module in model.modules():
        if hasattr(module, "scaling"):
            module.scaling = 1.0
    assert_equal_only_with(answer, logits_of(model), scaling=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encoder_heads", "heads", "cross_heads"])
def test_a_head_that_is_off_adds_nothing(answer, kind):
    model = tiny_transformer()
    layers = model.model.encoder.layers if kind == "encoder_heads" else model.model.decoder.layers
    on = np.ones((len(layers), layers[0].num_heads), np.float32)
    on[1, 1] = 0
    silence(layers[1].encoder_attn if kind == "cross_heads" else layers[1].self_attn, head=1)
    assert_equal_only_with(answer, logits_of(model), **{kind: on})


@pytest.mark.slow
def test_without_cross_attention_nothing_of_the_source_arrives(answer):
    model = tiny_transformer()
    for layer in model.model.decoder.layers:
        silence(layer.encoder_attn)
    assert_equal_only_with(answer, logits_of(model), cross=0)


@pytest.mark.slow
def test_without_the_mask_tokens_see_later_ones(answer):
    length = len(TARGET[0])
    everything = torch.zeros(1, 1, length, length)  # is added to scores
    assert_equal_only_with(answer, logits_of(tiny_transformer(), decoder_attention_mask=everything), causal=0)
    assert answer(causal=0)["self.weights"][:, :, 0, 1:].max() > 0.01
    assert answer()["self.weights"][:, :, 0, 1:].max() == 0


@pytest.mark.slow
def test_weights_that_graphs_share_are_written_once(tiny_live_site):
    folder = tiny_live_site / "transformer"
    large = [weight for weight in tiny_transformer().parameters() if weight.dim() == 2 and weight.numel() >= 1024]
    assert (folder / "weights.bin").stat().st_size < 1.2 * sum(weight.numel() for weight in large)  # a byte each
    assert all(file.stat().st_size < 100_000 for file in folder.glob("*.onnx"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TINY if name != "transformer"])
def test_rnn_graphs_give_the_logits_and_weights_of_the_model(sessions, name):
    with torch.no_grad():
        ids = {"input_ids": torch.tensor(SOURCE), "decoder_input_ids": torch.tensor(TARGET)}
        wanted = TINY[name]()(**ids, output_attentions=True)
    sides = sessions(name)
    read = run(sides["encoder"], {"input_ids": np.array(SOURCE)})
    state = read["state"]
    for index, token in enumerate(TARGET[0]):
        step = run(sides["decoder"], {"input_ids": np.array([[token]]), "source": read["states"], "state": state})
        state = step["new_state"]
        np.testing.assert_allclose(step["logits"], wanted.logits[0, index].numpy(), atol=1e-4)
        if wanted.cross_attentions:
            weights = wanted.cross_attentions[0][0, 0, index].numpy()
            np.testing.assert_allclose(step["cross.weights"][0, 0, 0], weights, atol=1e-5)


def test_models_that_the_page_does_not_draw_are_refused(tiny_model):
    with pytest.raises(ValueError, match="norm_position=post, and this one has pre"):
        graph.check(tiny_model(norm_position="pre"))
    with pytest.raises(ValueError, match="attention_window=None, and this one has 2"):
        rnn_graph.check(tiny_rnn(attention_score="dot", attention_window=2))


def test_a_runtime_that_is_not_the_one_that_was_checked_is_refused(tmp_path):
    (tmp_path / f"onnxruntime-web-{vendor.VERSION}.tgz").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"its SHA-512 differs\. Delete "):
        vendor.write_runtime(tmp_path / "runtime", tmp_path)
    assert not (tmp_path / "runtime").exists()


def test_folders_without_a_model_and_settings_that_search_does_not_follow_are_refused(tmp_path, tiny_config):
    with pytest.raises(ValueError, match=r"no config\.json and no generation_config\.json"):
        build.build(tmp_path, tmp_path / "site")
    (tmp_path / "generation_config.json").write_text('{"num_beams": 5, "bad_words_ids": [[3]], "min_length": null}')
    with pytest.raises(ValueError, match="has bad_words_ids, which the live page does not follow"):
        build.describe(tmp_path, tiny_config())
