"""The live page (docs/live): its graphs compute what the model computes, with every switch."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

sys.path.insert(0, str(Path(__file__).parents[1] / "docs" / "live"))
import graph  # noqa: E402

SOURCE, TARGET = [[5, 8, 3, 9, 2]], [[1, 4, 7, 6]]


@pytest.fixture(scope="module")
def sessions():
    """A function from a model to what answers for it: (switches) -> (logits, name -> result)."""

    def start(model):
        sides = [onnxruntime.InferenceSession(part.SerializeToString()) for part in graph.export(model)]
        encoder, decoder = sides
        config = model.config
        on = {name: np.array(1, np.float32) for name in ("positions", "scaling", "causal", "cross")}
        shapes = (config.encoder_layers, config.encoder_attention_heads)
        of_decoder = (config.decoder_layers, config.decoder_attention_heads)
        on |= {"encoder_heads": np.ones(shapes, np.float32)}
        on |= {"heads": np.ones(of_decoder, np.float32), "cross_heads": np.ones(of_decoder, np.float32)}

        def answer(**switches):
            given = on | {name: np.asarray(value, np.float32) for name, value in switches.items()}
            common = {name: given[name] for name in ("positions", "scaling")}
            inputs = {"input_ids": np.array(SOURCE), "heads": given["encoder_heads"], **common}
            states = encoder.run(["states"], inputs)[0]
            names = [output.name for output in decoder.get_outputs()]
            rest = {name: given[name] for name in ("heads", "cross_heads", "causal", "cross")}
            results = decoder.run(None, {"input_ids": np.array(TARGET), "source": states, **common, **rest})
            return dict(zip(names, results, strict=True))

        return answer

    return start


@pytest.fixture(scope="module")
def make_model():
    """A function that makes a tiny model of rounded weights, always the same one."""
    from fun_transformer import FunTransformerConfig, FunTransformerForConditionalGeneration

    def make(position_embedding_type="sinusoidal"):
        torch.manual_seed(0)
        sizes = {"d_model": 24, "encoder_ffn_dim": 40, "decoder_ffn_dim": 32, "vocab_size": 19}
        layers = {"encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 2, "decoder_attention_heads": 4}
        config = FunTransformerConfig(**sizes, **layers, position_embedding_type=position_embedding_type)
        model = FunTransformerForConditionalGeneration(config).eval()
        model.set_attn_implementation("eager")
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        graph.round_weights(model)
        return model

    return make


@pytest.fixture(scope="module")
def answer(make_model, sessions):
    """What answers for the tiny model."""
    return sessions(make_model())


def logits_of(model, **inputs):
    """Return the model's own logits, (target_len, vocab_size)."""
    with torch.no_grad():
        return (
            model(input_ids=torch.tensor(SOURCE), decoder_input_ids=torch.tensor(TARGET), **inputs).logits[0].numpy()
        )


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
def test_graphs_give_the_logits_and_weights_of_the_model(answer, make_model):
    model, results = make_model(), answer()
    np.testing.assert_allclose(results["logits"], logits_of(model), atol=1e-4)
    with torch.no_grad():
        ids = {"input_ids": torch.tensor(SOURCE), "decoder_input_ids": torch.tensor(TARGET)}
        outputs = model(**ids, output_attentions=True)
    for name, weights in (("self", outputs.decoder_attentions), ("cross", outputs.cross_attentions)):
        np.testing.assert_allclose(results[f"{name}.weights"], torch.cat(weights).numpy(), atol=1e-5)


@pytest.mark.slow
def test_without_positions_the_graphs_are_the_model_without_them(answer, make_model):
    model = make_model("learned")
    model.load_state_dict(make_model().state_dict(), strict=False)
    with torch.no_grad():
        for stack in (model.model.encoder, model.model.decoder):
            for parameter in stack.embed_positions.parameters():
                parameter.zero_()
    assert_equal_only_with(answer, logits_of(model), positions=0)


@pytest.mark.slow
def test_without_scaling_scores_are_the_products_alone(answer, make_model):
    model = make_model()
    for module in model.modules():
        if hasattr(module, "scaling"):
            module.scaling = 1.0
    assert_equal_only_with(answer, logits_of(model), scaling=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encoder_heads", "heads", "cross_heads"])
def test_a_head_that_is_off_adds_nothing(answer, make_model, kind):
    model = make_model()
    layers = model.model.encoder.layers if kind == "encoder_heads" else model.model.decoder.layers
    on = np.ones((len(layers), layers[0].num_heads), np.float32)
    on[1, 1] = 0
    silence(layers[1].encoder_attn if kind == "cross_heads" else layers[1].self_attn, head=1)
    assert_equal_only_with(answer, logits_of(model), **{kind: on})


@pytest.mark.slow
def test_without_cross_attention_nothing_of_the_source_arrives(answer, make_model):
    model = make_model()
    for layer in model.model.decoder.layers:
        silence(layer.encoder_attn)
    assert_equal_only_with(answer, logits_of(model), cross=0)


@pytest.mark.slow
def test_without_the_mask_tokens_see_later_ones(answer, make_model):
    length = len(TARGET[0])
    everything = torch.zeros(1, 1, length, length)  # is added to scores
    assert_equal_only_with(answer, logits_of(make_model(), decoder_attention_mask=everything), causal=0)
    assert answer(causal=0)["self.weights"][:, :, 0, 1:].min() > 0
    assert answer()["self.weights"][:, :, 0, 1:].max() == 0


def test_models_that_the_page_does_not_draw_are_refused(tiny_model):
    with pytest.raises(ValueError, match="norm_position=post, and this one has pre"):
        graph.check(tiny_model(norm_position="pre"))
