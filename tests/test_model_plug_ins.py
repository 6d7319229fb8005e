"""Positions that are not added to embeddings, and mixers and positions that a user adds: all that models do works."""

import math

import pytest
import torch
from test_generation import SEARCHES, likely_to_go_on, search
from torch import nn
from transformers import CompileConfig
from transformers.models.t5.modeling_t5 import T5Attention

from fun_transformer import FunTransformerConfig, FunTransformerForCausalLM, FunTransformerForConditionalGeneration
from fun_transformer.masks import packing_problem
from fun_transformer.mixers import MIXERS, Mixer, recurrent_state
from fun_transformer.positions import POSITIONS, Positions, RelativePositions, RotaryPositions
from fun_transformer.training.data.batches import pad_batch
from fun_transformer.training.data.packing import pack_batch


class Alibi(Positions):
    """Subtract m (i - j) from the scores, m = 2^(-8 h / heads) for head h (Press et al. 2022, arXiv:2108.12409)."""

    def __init__(self, config, num_heads, is_causal):
        super().__init__(config, num_heads, is_causal)
        self.slopes = [2 ** (-8 * head / num_heads) for head in range(1, num_heads + 1)]

    def bias(self, query_position_ids, key_position_ids):
        apart = (query_position_ids[:, None, :, None] - key_position_ids[:, None, None, :]).abs()
        return -apart * torch.tensor(self.slopes).view(-1, 1, 1)  # (batch or 1, heads, query_len, key_len)


class MovingAverage(Mixer):
    """The mean of all tokens so far, or of the whole text in the encoder, after a projection."""

    def __init__(self, config, num_heads, layer_idx, is_causal=False):
        super().__init__(config, num_heads, layer_idx, is_causal)
        self.value_proj = nn.Linear(config.d_model, config.d_model)

    def forward(self, hidden_states, attention_mask=None, past_key_values=None, **kwargs):
        if attention_mask is None:
            attention_mask = hidden_states.new_ones(hidden_states.shape[:2])
        is_token = attention_mask.unsqueeze(-1).to(hidden_states)  # (batch, query_len, 1)
        total, count = (self.value_proj(hidden_states) * is_token).cumsum(1), is_token.cumsum(1)
        if not self.is_causal:
            total, count = total[:, -1:], count[:, -1:]
        memory = recurrent_state(past_key_values, self.layer_idx)
        if memory is not None:
            if memory.is_initialized:
                total, count = total + memory.keys, count + memory.values
            memory.update(total[:, -1:], count[:, -1:], hidden_states.shape[1])
        return (total / count.clamp(min=1)).expand_as(hidden_states), None


AVERAGES = {"encoder_layer_types": ["moving_average"] * 2}
AVERAGES["decoder_layer_types"] = ["moving_average", "full_attention", "moving_average"]
WINDOWS = {"encoder_layer_types": ["sliding_attention"] * 2, "sliding_window": 3}
WINDOWS["decoder_layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
PLUG_INS = {
    "rotary": {"position_embedding_type": "rotary"},
    "rotary in windows": {"position_embedding_type": "rotary", "norm_position": "pre", **WINDOWS},
    "relative": {"position_embedding_type": "relative", "norm_position": "pre"},
    "alibi in windows": {"position_embedding_type": "alibi", **WINDOWS},
    "averages": AVERAGES,
}
EACH = pytest.mark.parametrize("fields", PLUG_INS.values(), ids=PLUG_INS)
ENCODING = pytest.mark.parametrize("fields", list(PLUG_INS.values())[:4], ids=list(PLUG_INS)[:4])
BOTH_KERNELS = pytest.mark.parametrize("kernel", ["eager", "sdpa"])


@pytest.fixture(autouse=True)
def plugged_in(monkeypatch):
    """What a user's file does when it is imported."""
    monkeypatch.setitem(POSITIONS, "alibi", Alibi)
    monkeypatch.setitem(MIXERS, "moving_average", MovingAverage)


@pytest.fixture
def model_of(tiny_model):
    """A function from config fields and kernel to a tiny model whose positions matter."""

    def build(fields, kernel="sdpa"):
        model = tiny_model(kernel, **fields)
        for module in model.modules():
            if isinstance(module, RelativePositions):
                nn.init.normal_(module.distance_bias.weight, std=2.0)
        return model

    return build


@pytest.fixture
def sources(tiny_batch):
    return {name: tiny_batch[name] for name in ("input_ids", "attention_mask")}


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def gradients(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


# Positions do something, and the same under all kernels


@ENCODING
def test_order_matters(fields, model_of):
    model = model_of(fields)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[5, 6, 7, 8]]), decoder_input_ids=torch.tensor([[1, 9, 10, 11]]))
        source = model(input_ids=torch.tensor([[6, 5, 7, 8]]), decoder_input_ids=torch.tensor([[1, 9, 10, 11]]))
        target = model(input_ids=torch.tensor([[5, 6, 7, 8]]), decoder_input_ids=torch.tensor([[1, 10, 9, 11]]))
    for changed in (source, target):
        assert (changed.logits[0, -1] - expected.logits[0, -1]).abs().max() > 1e-3


def test_scores_are_those_of_the_formulas(tiny_config):
    """q_i rotated by i times k_j rotated by j depends on i - j alone; a bias is added to the scores."""
    torch.manual_seed(0)
    rotary, (query, key) = RotaryPositions(tiny_config(), 2, False), torch.randn(2, 1, 2, 6, 8)
    places = torch.arange(6).unsqueeze(0)
    scores = [rotary.rotate(query, places + shift) @ rotary.rotate(key, places + shift).mT for shift in (0, 7)]
    close(*scores, 1e-4)
    model = FunTransformerForConditionalGeneration(tiny_config(position_embedding_type="relative")).eval()
    encoder = model.get_encoder()
    attention, bias = encoder.layers[0].self_attn, encoder.embed_positions.bias(places, places)
    inputs = torch.randint(5, 23, (1, 6))
    weights = model(inputs, decoder_input_ids=inputs, output_attentions=True).encoder_attentions[0]
    embeds = encoder.embed_tokens(inputs) * math.sqrt(model.config.d_model)  # nothing is added
    query, key = (attention.split_heads(proj(embeds)) for proj in (attention.q_proj, attention.k_proj))
    close(weights, (query @ key.mT / 2 + bias).softmax(-1))  # heads are 4 wide


@pytest.mark.parametrize("farthest", [17, 128])
@pytest.mark.parametrize("is_causal", [False, True])
def test_buckets_of_distances_are_those_of_t5(is_causal, farthest, tiny_config):
    distances, config = torch.arange(-300, 301), tiny_config(relative_attention_max_distance=farthest)
    expected = T5Attention._relative_position_bucket(distances, not is_causal, max_distance=farthest)
    assert torch.equal(RelativePositions(config, 2, is_causal).buckets(distances), expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"position_embedding_type": "rotary", "d_model": 20},
            "4 heads of d_model=20 are 5 wide. Choose d_model as a",
        ),
        ({"position_embedding_type": "rotary", "encoder_layer_types": ["linear_attention"] * 2}, "rotary tells posi"),
        ({"position_embedding_type": "relative", "decoder_layer_types": ["linear_attention"] * 3}, "see no order"),
        ({"relative_attention_max_distance": 16}, "relative_attention_max_distance=16 must be above 16"),
    ],
    ids=str,
)
def test_positions_that_a_model_cannot_have_are_refused(fields, message, tiny_config):
    with pytest.raises(Exception) as error:  # which the library's strict dataclass wraps
        tiny_config(**fields)
    assert message in f"{error.value} {error.value.__cause__}"


@ENCODING
def test_eager_equals_sdpa(fields, model_of, tiny_batch):
    found = []
    for kernel in ("eager", "sdpa"):
        model = model_of({**fields, "dropout": 0.0}, kernel).train()
        found.append(gradients(model, tiny_batch))
        if fields["position_embedding_type"] == "relative":
            assert found[-1][1]["model.encoder.embed_positions.distance_bias.weight"].any()
            assert found[-1][1]["model.decoder.embed_positions.distance_bias.weight"].any()
    close(*found)


def test_a_kernel_that_cannot_add_a_bias_is_refused(model_of, tiny_batch):
    model = model_of(PLUG_INS["relative"])
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="flash_attention_2 cannot add the bias of position_embedding_type=relative"):
        model(**tiny_batch)


@EACH
@BOTH_KERNELS
def test_a_row_of_padding_gives_no_nan(kernel, fields, model_of, tiny_batch):
    model = model_of(fields, kernel).train()
    tiny_batch["decoder_attention_mask"] = (tiny_batch["labels"] != -100).long()
    for name in ("attention_mask", "decoder_attention_mask"):
        tiny_batch[name][1] = 0
    loss, found = gradients(model, tiny_batch)
    assert loss.isfinite() and all(gradient.isfinite().all() for gradient in found.values())


# Padding and packing


@EACH
@BOTH_KERNELS
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(side, kernel, fields, model_of):
    model = model_of(fields, kernel)
    source, target = torch.randint(5, 23, (2, 6)), torch.randint(5, 23, (2, 5))
    columns = (4, 0) if side == "left" else (0, 4)
    padded = [nn.functional.pad(tokens, columns) for tokens in (source, target)]
    masks = [nn.functional.pad(torch.ones_like(tokens), columns) for tokens in (source, target)]
    with torch.no_grad():
        expected = model(source, decoder_input_ids=target).logits
        logits = model(padded[0], masks[0], padded[1], masks[1]).logits
    close(logits[masks[1].bool()].view_as(expected), expected)


@ENCODING
@BOTH_KERNELS
def test_packed_rows_are_the_padded_ones(kernel, fields, model_of, sentence_pairs):
    rows = [{"input_ids": source, "labels": labels} for source, labels in sentence_pairs]
    model = model_of({**fields, "dropout": 0.0}, kernel).train()
    expected = gradients(model, pad_batch(rows, 0))
    close(gradients(model, pack_batch(rows, 0, 16, 3)), expected, 1e-4)


def test_a_plug_in_says_whether_it_allows_packing(tiny_config, monkeypatch):
    assert packing_problem(tiny_config(position_embedding_type="alibi"), "sdpa") is None
    problem = packing_problem(tiny_config(**AVERAGES), "sdpa")
    assert problem.startswith("Layers of type moving_average mix the segments of a packed row. Choose encoder_layer_")
    assert packing_problem(tiny_config(**AVERAGES), "sdpa", stacks=()) is None
    monkeypatch.setattr(Alibi, "keeps_segments_apart", False)
    assert "position_embedding_type" in packing_problem(tiny_config(position_embedding_type="alibi"), "sdpa")


# The cache


@EACH
@BOTH_KERNELS
@pytest.mark.parametrize("steps", [[1] * 6, [3, 1, 2]], ids=str)
def test_cached_logits_equal_uncached_ones_wherever_the_padding_is(steps, kernel, fields, model_of, sources):
    model = model_of(fields, kernel)
    target = torch.randint(5, 23, (3, 6))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [1, 0, 0, 1, 1, 1]])
    with torch.no_grad():
        expected = model(**sources, decoder_input_ids=target, decoder_attention_mask=mask, use_cache=False).logits
        cache, logits, stop = None, [], 0
        for step in steps:
            start, stop = stop, stop + step
            part = {"decoder_input_ids": target[:, start:stop], "decoder_attention_mask": mask[:, :stop]}
            output = model(**sources, **part, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            logits.append(output.logits)
        if "sliding_window" not in fields:  # padding takes up the places of a window
            source, third = sources["input_ids"][2:, :4], target[2:][mask[2:].bool()].unsqueeze(0)
            close(expected[2:][mask[2:].bool()], model(source, decoder_input_ids=third).logits[0])
    close(torch.cat(logits, dim=1)[mask.bool()], expected[mask.bool()])


@EACH
@pytest.mark.parametrize("kind", ["greedy", "beam", "three of four beams", "beam sampling"])
def test_searches_agree_with_no_cache_and_with_a_static_one(kind, fields, model_of, sources):
    model = likely_to_go_on(model_of(fields))
    expected, expected_scores = search(model, sources, **SEARCHES[kind], use_cache=False)
    for settings in ({}, {"cache_implementation": "static", "disable_compile": True}):
        found, scores = search(model, sources, **SEARCHES[kind], **settings)
        assert found == expected
        close(scores, expected_scores, 1e-4)


@EACH
@BOTH_KERNELS
@pytest.mark.parametrize("settings", [{}, {"cache_implementation": "static", "disable_compile": True}], ids=str)
def test_prompts_of_different_lengths_go_on_as_they_do_alone(settings, kernel, fields, model_of, tiny_config):
    model = likely_to_go_on(model_of(fields, kernel))
    source = torch.randint(5, 23, (1, 5))
    prompts = [[1, 8, 9, 17, 6], [1, 8]]
    expected = [search(model, {"input_ids": source}, decoder_input_ids=torch.tensor([row]))[0][0] for row in prompts]
    padded, mask = torch.tensor([prompts[0], [0, 0, 0, 1, 8]]), torch.tensor([[1] * 5, [0, 0, 0, 1, 1]])
    batch = {"input_ids": source.expand(2, 5), "decoder_input_ids": padded, "decoder_attention_mask": mask}
    assert search(model, batch, **settings)[0] == expected
    alone = likely_to_go_on(FunTransformerForCausalLM(tiny_config(**fields)).eval())
    alone.set_attn_implementation(kernel)
    expected = [search(alone, {"input_ids": torch.tensor([row])}, use_cache=False)[0][0] for row in prompts]
    assert search(alone, {"input_ids": padded, "attention_mask": mask}, **settings)[0] == expected


# Saving, and the other ways to run a model


@EACH
def test_save_and_load_give_identical_logits(fields, model_of, tiny_batch, tmp_path):
    model = model_of(fields)
    model.save_pretrained(tmp_path)
    loaded, info = FunTransformerForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    torch.testing.assert_close(loaded(**tiny_batch).logits, model(**tiny_batch).logits, atol=0, rtol=0)


@EACH
def test_checkpointed_gradients_are_the_same(fields, model_of, tiny_batch):
    model = model_of({**fields, "dropout": 0.0}).train()
    expected = gradients(model, tiny_batch)
    model.gradient_checkpointing_enable()
    close(gradients(model, tiny_batch), expected)


@pytest.mark.slow
@ENCODING
def test_compiled_code_finds_the_same(fields, model_of, sources, tiny_batch):
    model = likely_to_go_on(model_of({**fields, "dropout": 0.0}))
    settings = {"max_new_tokens": 8, "min_new_tokens": 8}
    compiled = CompileConfig(backend="eager", fullgraph=True, mode=None)
    compiled._compile_all_devices = True
    expected, _ = search(model, sources, **settings)
    assert search(model, sources, **settings, cache_implementation="static", compile_config=compiled)[0] == expected
    expected = gradients(model.train(), tiny_batch)
    torch._dynamo.reset()
    for layer in [*model.get_encoder().layers, *model.get_decoder().layers]:
        layer.compile(backend="eager", fullgraph=True)
    close(gradients(model, tiny_batch), expected)


@pytest.mark.slow
@EACH
def test_they_learn_to_reverse(fields, tiny_config, assert_learns_to_reverse):
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0, "label_smoothing": 0.0}
    types = {name: types[:1] for name, types in fields.items() if name.endswith("layer_types")}
    if fields is AVERAGES:  # the mean of a text does not know its order
        types["encoder_layer_types"] = ["full_attention"]
    assert_learns_to_reverse(FunTransformerForConditionalGeneration(tiny_config(**{**fields, **sizes, **types})))


# Names


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"position_embedding_type": "rotery"}, ["position_embedding_type=rotery", "mean rotary", "sinusoidal"]),
        ({"encoder_layer_types": ["moving_avrage"] * 6}, ["encoder_layer_types=moving_avrage", "mean moving_average"]),
        ({"decoder_layer_types": ["xyz"] * 6}, ["decoder_layer_types=xyz", "conv", "import the code that adds it"]),
    ],
    ids=str,
)
def test_a_name_that_is_in_no_table_is_refused_with_the_nearest_one(fields, words):
    with pytest.raises(Exception) as error:  # which the library's strict dataclass wraps
        FunTransformerConfig(**fields)
    message = f"{error.value} {error.value.__cause__}"
    assert [word for word in words if word not in message] == []


def test_a_name_that_is_set_later_is_refused_when_the_model_is_built(tiny_config):
    config = tiny_config()
    config.position_embedding_type = "rotery"
    with pytest.raises(ValueError, match="mean rotary"):
        FunTransformerForConditionalGeneration(config)
