"""Layer types: local and linear attention and convolution, alone against loops, and in the model against the slow way.

That whole models equal NumPy, and their gradients its slopes, test_modeling_oracles.py says.
"""

import json
import math
import shutil

import numpy as np
import pytest
import torch
import yaml
from forked_runs import RECIPE, read_metrics, write_digits_recipe
from reference.numpy_transformer import gated_convolution, linear_attention
from test_generation import SEARCHES, likely_to_go_on, search
from torch import nn
from transformers import CompileConfig, DynamicCache, EncoderDecoderCache, StaticCache

from fun_transformer import FunTransformerForCausalLM, FunTransformerForConditionalGeneration
from fun_transformer.hub.code import travelling_files
from fun_transformer.mixers import (
    GatedConvolution,
    LinearAttention,
    RecurrentState,
    bidirectional_linear_attention,
    causal_linear_attention,
    feature_map,
)

BOTH_KERNELS = pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
LAYERS = {
    "local": {"encoder_layer_types": ["sliding_attention"] * 2, "decoder_layer_types": ["sliding_attention"] * 3},
    "linear": {"encoder_layer_types": ["linear_attention"] * 2, "decoder_layer_types": ["linear_attention"] * 3},
    "conv": {"encoder_layer_types": ["conv"] * 2, "decoder_layer_types": ["conv"] * 3},
    "mixed": {
        "encoder_layer_types": ["conv", "sliding_attention"],
        "decoder_layer_types": ["linear_attention", "sliding_attention", "full_attention"],
        "norm_position": "pre",
    },
    "mixed otherwise": {
        "encoder_layer_types": ["linear_attention", "full_attention"],
        "decoder_layer_types": ["full_attention", "conv", "sliding_attention"],
        "position_embedding_type": "learned",
    },
}
LAYERS = {name: {"sliding_window": 3} | fields for name, fields in LAYERS.items()}
EACH = pytest.mark.parametrize("fields", LAYERS.values(), ids=LAYERS)


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@pytest.fixture
def sources():
    """Sources of 9, 1 and 5 tokens, padded on the right; the first is longer than any window here."""
    lengths = torch.tensor([9, 1, 5])
    mask = (torch.arange(9) < lengths[:, None]).long()
    return {"input_ids": torch.randint(5, 23, (3, 9)) * mask, "attention_mask": mask}


# Linear attention


@pytest.fixture
def heads():
    """Query, key and value, (batch, heads, seq_len, head_dim), keys and queries after the feature map."""
    query, key, value = torch.randn(3, 2, 3, 7, 4, dtype=torch.float64)
    return feature_map(query), feature_map(key), value, query, key


@pytest.mark.parametrize("causal", [False, True])
def test_linear_attention_equals_the_sum_over_all_pairs(causal, heads):
    query, key, value, *raw = heads
    if causal:
        start = (torch.zeros(2, 3, 4, 4).double(), torch.zeros(2, 3, 4, 1).double())
        found = causal_linear_attention(query, key, value, *start)[0]
    else:
        found = bidirectional_linear_attention(query, key, value)
    for row, head in np.ndindex(2, 3):
        expected, _ = linear_attention(*(states[row, head].numpy() for states in (*raw, value)), causal)
        np.testing.assert_allclose(found[row, head].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("chunk_len", [1, 2, 3, 7])
def test_the_recurrent_form_equals_the_parallel_one(chunk_len, heads):
    query, key, value, *_ = heads
    start = (torch.randn(2, 3, 4, 4).double(), torch.rand(2, 3, 4, 1).double())
    expected = causal_linear_attention(query, key, value, *start, chunk_len=100)
    found = causal_linear_attention(query, key, value, *start, chunk_len=chunk_len)
    close(found, expected, 1e-12)
    first, last = zip(*(states.split([4, 3], dim=-2) for states in (query, key, value)))
    half = causal_linear_attention(*first, *start)
    rest = causal_linear_attention(*last, *half[1:], chunk_len=chunk_len)
    close((torch.cat([half[0], rest[0]], dim=-2), *rest[1:]), expected, 1e-12)


def test_the_state_of_the_paper_is_a_sum_over_tokens(heads):
    query, key, value, *_ = heads
    start = (torch.zeros(2, 3, 4, 4).double(), torch.zeros(2, 3, 4, 1).double())
    _, state, normalizer = causal_linear_attention(query, key, value, *start, chunk_len=2)
    close(state, sum(key[..., j, :, None] * value[..., j, None, :] for j in range(7)), 1e-12)
    close(normalizer[..., 0], sum(key[..., j, :] for j in range(7)), 1e-12)


def test_the_feature_map_is_positive_and_needs_float32():
    states = torch.tensor([-20.0, -1.0, 0.0, 2.0])
    close(feature_map(states), torch.tensor([0.0, math.exp(-1), 1.0, 3.0]))
    assert feature_map(states.bfloat16()).dtype == torch.float32


def test_the_sums_of_linear_attention_run_in_float32_under_autocast(tiny_config):
    mixer, seen = LinearAttention(tiny_config(), 2, 0, is_causal=True), {}
    for name, module in mixer.named_children():
        module.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)}))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        mixer(torch.randn(2, 300, 16))
    query, key, value = (mixer.split_heads(seen[f"{name}_proj"][1]) for name in "qkv")
    assert query.dtype == torch.bfloat16
    expected = mixer.attend(feature_map(query), feature_map(key), value.float(), None)
    close(seen["out_proj"][0], expected.transpose(1, 2).flatten(-2), 1e-6)


# Convolution


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("is_causal", [False, True])
def test_the_convolution_equals_a_plain_loop(is_causal, kernel_size, tiny_config):
    mixer = GatedConvolution(tiny_config(conv_kernel_size=kernel_size), 2, 0, is_causal).double()
    hidden_states = torch.randn(2, 6, 16, dtype=torch.float64)
    found, weights = mixer(hidden_states)
    assert weights is None
    for row in range(2):
        arrays = [states.detach().numpy() for states in (hidden_states[row], mixer.conv.weight, mixer.conv.bias)]
        np.testing.assert_allclose(found[row].detach().numpy(), gated_convolution(*arrays, is_causal), atol=1e-12)


@pytest.mark.parametrize("kernel_size", [1, 2, 5])
def test_a_convolution_goes_on_where_it_stopped(kernel_size, tiny_config):
    config = tiny_config(conv_kernel_size=kernel_size, decoder_layers=1, decoder_layer_types=["conv"])
    mixer = GatedConvolution(config, 2, 0, is_causal=True)
    hidden_states = torch.randn(2, 6, 16)
    cache = DynamicCache(config=config)
    parts = [mixer(part, past_key_values=cache)[0] for part in hidden_states.split([1, 3, 1, 1], dim=1)]
    close(torch.cat(parts, dim=1), mixer(hidden_states)[0])
    assert cache.layers[0].keys.shape == (2, kernel_size - 1, 16)


def test_a_fresh_convolution_passes_its_variance_on(tiny_config):
    """So do fresh projections. The gate lets a quarter of the variance through."""
    fields = {"d_model": 64, "encoder_layers": 1, "encoder_layer_types": ["conv"], "conv_kernel_size": 5}
    model = FunTransformerForConditionalGeneration(tiny_config(**fields))
    with torch.no_grad():
        mixed = model.model.encoder.layers[0].self_attn(torch.randn(8, 200, 64))[0]
    assert 0.8 < mixed.std() < 1.4
    assert not model.model.encoder.layers[0].self_attn.conv.bias.any()


# The cache


@BOTH_KERNELS
@EACH
@pytest.mark.parametrize("steps", [[1] * 8, [5, 1, 2]], ids=str)
def test_cached_logits_equal_uncached_ones(steps, fields, attn_implementation, tiny_model, sources):
    model = tiny_model(attn_implementation, **fields)
    target = torch.randint(5, 23, (3, 8))
    with torch.no_grad():
        expected = model(**sources, decoder_input_ids=target, use_cache=False).logits
        encoder_outputs = model.get_encoder()(**sources)
        source = {"encoder_outputs": encoder_outputs, "attention_mask": sources["attention_mask"]}
        for cache in (
            None,
            EncoderDecoderCache(DynamicCache(config=model.config), DynamicCache(config=model.config)),
            EncoderDecoderCache(StaticCache(model.config, 8), StaticCache(model.config, 9)),
        ):
            logits = []
            for part in target.split(steps, dim=1):
                output = model(**source, decoder_input_ids=part, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                logits.append(output.logits)
            close(torch.cat(logits, dim=1), expected)
            assert cache.get_seq_length() == 8
            assert {layer.keys.shape[2] for layer in cache.cross_attention_cache.layers} == {9}


@EACH
def test_cached_logits_of_left_padded_targets_equal_uncached_ones(fields, tiny_model, sources):
    model = tiny_model(**fields)
    target = torch.randint(5, 23, (3, 8))
    mask = torch.ones(3, 8).long()
    mask[0, :3] = mask[2, :1] = 0
    with torch.no_grad():
        expected = model(**sources, decoder_input_ids=target, decoder_attention_mask=mask, use_cache=False).logits
        alone = model(input_ids=sources["input_ids"][:1], decoder_input_ids=target[:1, 3:], use_cache=False).logits
        close(expected[:1, 3:], alone)
        for first in (1, 4):  # padding alone, then one token after the other; and a prompt
            cache, stop = None, 0
            for start, stop in zip([0, *range(first, 8)], range(first, 9)):
                output = model(
                    **sources,
                    decoder_input_ids=target[:, start:stop],
                    decoder_attention_mask=mask[:, :stop],
                    past_key_values=cache,
                    use_cache=True,
                )
                cache = output.past_key_values
                rows = mask[:, stop - 1].bool()
                close(output.logits[rows, -1], expected[rows, stop - 1])


@EACH
@pytest.mark.parametrize("kind", ["greedy", "beam", "beam sampling"])
def test_searches_agree_with_no_cache_and_with_a_static_one(kind, fields, tiny_model, sources):
    model = likely_to_go_on(tiny_model(**fields))
    expected, expected_scores = search(model, sources, **SEARCHES[kind], use_cache=False)
    for settings in ({}, {"cache_implementation": "static", "disable_compile": True}):
        found, scores = search(model, sources, **SEARCHES[kind], **settings)
        assert found == expected
        close(scores, expected_scores, 1e-4)


def test_a_window_needs_no_cache_of_its_own(tiny_model, sources):
    """A cache that was not told of the window keeps all tokens; the mask hides what the window does not reach."""
    model = tiny_model(**LAYERS["local"])
    target = torch.randint(5, 23, (3, 8))
    cache, logits = EncoderDecoderCache(DynamicCache(), DynamicCache()), []
    with torch.no_grad():
        expected = model(**sources, decoder_input_ids=target, use_cache=False).logits
        for part in target.split([5, 1, 2], dim=1):
            logits.append(model(**sources, decoder_input_ids=part, past_key_values=cache).logits)
    close(torch.cat(logits, dim=1), expected)
    assert cache.self_attention_cache.layers[0].keys.shape[2] == 8


@pytest.mark.slow
def test_compiled_code_finds_the_same(tiny_model, sources):
    """States of linear attention and convolution are not compiled with a static cache; windows are."""
    settings = {"max_new_tokens": 8, "min_new_tokens": 8}
    compiled = CompileConfig(backend="eager", fullgraph=True, mode=None)
    compiled._compile_all_devices = True
    local = LAYERS["local"] | {"decoder_layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    model = likely_to_go_on(tiny_model(**local))
    expected, _ = search(model, sources, **settings)
    assert search(model, sources, **settings, cache_implementation="static", compile_config=compiled)[0] == expected
    model = tiny_model(**LAYERS["mixed"])
    inputs = {**sources, "decoder_input_ids": torch.randint(5, 23, (3, 6)), "use_cache": False}
    with torch.no_grad():
        exported = torch.export.export(model, (), inputs).module()
        close(exported(**inputs).logits, model(**inputs).logits)


def test_states_do_not_grow_and_windows_stop_growing(tiny_model, sources):
    model = tiny_model(**LAYERS["mixed"])
    sizes = []
    for length in (6, 30):
        target = torch.randint(5, 23, (3, length))
        cache = model(**sources, decoder_input_ids=target, use_cache=True).past_key_values.self_attention_cache
        sizes.append([layer.keys.numel() + layer.values.numel() for layer in cache.layers])
    (state, window, _), full = sizes[0], [size[2] for size in sizes]
    assert [size[:2] for size in sizes] == [[state, window]] * 2
    assert full[1] == 5 * full[0]
    assert (state, window) == (3 * 2 * (8 * 8 + 8), 2 * 3 * 2 * 2 * 8)
    cache = tiny_model(**LAYERS["conv"])(**sources, decoder_input_ids=target, use_cache=True).past_key_values
    assert cache.self_attention_cache.layers[0].keys.untyped_storage().nbytes() == 3 * 2 * 16 * 4


def test_a_state_is_reset_repeated_and_selected_but_not_cropped(tiny_model, sources):
    model = tiny_model(**LAYERS["linear"])
    target = torch.randint(5, 23, (3, 4))
    first = model(**sources, decoder_input_ids=target, use_cache=True)
    state = first.past_key_values.self_attention_cache.layers[1]
    keys = state.keys
    state.batch_repeat_interleave(2)
    state.batch_select_indices(torch.tensor([5, 0]))
    close(state.keys, keys[[2, 0]])
    state.reorder_cache(torch.tensor([1, 1]))
    close(state.keys, keys[[0, 0]])
    state.crop(0)
    with pytest.raises(ValueError, match=r"no token can be removed.*full_attention"):
        state.crop(-1)
    assert (state.get_seq_length(), state.get_mask_sizes(2), state.get_max_length()) == (4, (6, 0), -1)
    state.reset()
    assert state.get_seq_length() == 0
    assert not state.keys.any()
    fresh = RecurrentState()
    fresh.batch_repeat_interleave(2)
    fresh.batch_select_indices(torch.tensor([0]))
    fresh.reorder_cache(torch.tensor([0]))
    assert fresh.get_seq_length() == 0


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_cache_that_is_not_made_for_the_model_is_refused(kind, tiny_model, sources):
    model = tiny_model(**LAYERS[kind])
    with pytest.raises(ValueError, match=r"no state for layer 0.*DynamicCache\(config=model.config\)"):
        model(
            **sources,
            decoder_input_ids=torch.ones(3, 2).long(),
            past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
        )


@EACH
def test_the_decoder_alone_goes_on_with_prompts_of_different_lengths(fields, tiny_config):
    model = FunTransformerForCausalLM(tiny_config(**fields)).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(2)
    prompts = [[1, 8, 9, 17, 6], [1, 8]]
    expected = [search(model, {"input_ids": torch.tensor([row])}, use_cache=False)[0][0] for row in prompts]
    batch = {
        "input_ids": torch.tensor([[1, 8, 9, 17, 6], [0, 0, 0, 1, 8]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [0, 0, 0, 1, 1]]),
    }
    for settings in ({}, {"cache_implementation": "static", "disable_compile": True}):
        assert search(model, batch, **settings)[0] == expected


# Padding, order and reach


@BOTH_KERNELS
@EACH
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_never_changes_the_logits(side, fields, attn_implementation, tiny_model):
    model = tiny_model(attn_implementation, **fields)
    source, target = torch.randint(5, 23, (2, 6)), torch.randint(5, 23, (2, 5))
    columns = (4, 0) if side == "left" else (0, 4)

    def pad(rows, value):
        return nn.functional.pad(rows, columns, value=value)

    with torch.no_grad():
        expected = model(input_ids=source, decoder_input_ids=target).logits
        for value in (0, 7):  # whatever stands there is masked
            masks = {"attention_mask": pad(torch.ones_like(source), 0)}
            masks["decoder_attention_mask"] = pad(torch.ones_like(target), 0)
            logits = model(input_ids=pad(source, value), decoder_input_ids=pad(target, value), **masks).logits
            close(logits[masks["decoder_attention_mask"].bool()].view_as(expected), expected)


@BOTH_KERNELS
@EACH
def test_a_row_of_padding_gives_no_nan(fields, attn_implementation, tiny_model, tiny_batch):
    model = tiny_model(attn_implementation, **fields).train()
    tiny_batch["decoder_attention_mask"] = (tiny_batch["labels"] != -100).long()
    for name in ("attention_mask", "decoder_attention_mask"):
        tiny_batch[name][1] = 0
    output = model(**tiny_batch, skip_logits=False)
    output.loss.backward()
    assert output.logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def reached(model, stack, position, length=12):
    """The positions of the encoder's or decoder's output that notice another token at a position."""
    text = torch.randint(5, 14, (1, length))
    changed = text.clone()
    changed[0, position] = 20
    source = torch.randint(5, 23, (1, 4))
    with torch.no_grad():
        if stack == "encoder":
            before, after = (model.get_encoder()(ids).last_hidden_state for ids in (text, changed))
        else:
            before, after = (model(input_ids=source, decoder_input_ids=ids).logits for ids in (text, changed))
    return (before - after).abs().amax(dim=-1)[0].gt(1e-6).nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("layer_type", "stack", "expected"),
    [
        ("sliding_attention", "encoder", range(3, 10)),  # three on each side
        ("sliding_attention", "decoder", range(6, 9)),  # three, itself included
        ("linear_attention", "encoder", range(12)),
        ("linear_attention", "decoder", range(6, 12)),
        ("conv", "encoder", range(4, 9)),  # a width of five
        ("conv", "decoder", range(6, 11)),
        ("full_attention", "decoder", range(6, 12)),
    ],
)
def test_a_token_reaches_as_far_as_one_layer_does(layer_type, stack, expected, tiny_model):
    types = {"encoder_layer_types": [layer_type], "decoder_layer_types": [layer_type]}
    fields = {"encoder_layers": 1, "decoder_layers": 1, "sliding_window": 3, "conv_kernel_size": 5}
    model = tiny_model(**types, **fields)
    assert reached(model, stack, position=6) == list(expected)


# The model


def test_linear_attention_has_the_weights_of_full_attention(tiny_model):
    full, linear = tiny_model().state_dict(), tiny_model(**LAYERS["linear"]).state_dict()
    assert {name: tensor.shape for name, tensor in full.items()} == {n: tensor.shape for n, tensor in linear.items()}
    names = {name.split("self_attn.")[1] for name in tiny_model(**LAYERS["conv"]).state_dict() if "self_attn." in name}
    assert names == {"conv.weight", "conv.bias"}


@EACH
def test_checkpointed_gradients_are_the_same(fields, tiny_model, tiny_batch):
    found = []
    for checkpointing in (False, True):
        model = tiny_model(dropout=0.0, **fields).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**tiny_batch).loss.backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    close(*found)


def test_attentions_are_those_of_layers_with_weights(tiny_model, tiny_batch):
    output = tiny_model("sdpa", **LAYERS["mixed"])(**tiny_batch, output_attentions=True)
    source_len, target_len = tiny_batch["input_ids"].shape[1], tiny_batch["labels"].shape[1]
    assert [weights.shape[2:] for weights in output.encoder_attentions] == [(source_len, source_len)]
    assert [weights.shape[2:] for weights in output.decoder_attentions] == [(target_len, target_len)] * 2
    assert len(output.cross_attentions) == 3
    assert not output.encoder_attentions[0][0, :, 0, 4:].any(), "the window is 3"
    output = tiny_model("sdpa", **LAYERS["conv"])(**tiny_batch, output_attentions=True)
    assert not output.encoder_attentions
    assert len(output.cross_attentions) == 3


@EACH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_float32(dtype, fields, tiny_model, tiny_batch):
    model = tiny_model(**fields)
    with torch.no_grad():
        expected = model(**tiny_batch).logits
        with torch.autocast("cpu", dtype=dtype):
            close(model(**tiny_batch).logits.float(), expected, 0.1)
        logits = model.to(dtype)(**tiny_batch).logits
    assert logits.dtype == dtype
    close(logits.float(), expected, 0.1)
    _, scores = search(model, {name: tiny_batch[name] for name in ("input_ids", "attention_mask")}, num_beams=3)
    assert scores.isfinite().all()


@EACH
def test_save_and_load_give_identical_logits(fields, tiny_model, tiny_batch, tmp_path):
    model = tiny_model(**fields)
    model.save_pretrained(tmp_path)
    loaded, info = FunTransformerForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    torch.testing.assert_close(loaded(**tiny_batch).logits, model(**tiny_batch).logits, atol=0, rtol=0)
    assert loaded.config.to_diff_dict() == model.config.to_diff_dict()
    assert "layer_types" not in json.loads((tmp_path / "config.json").read_text())


STRANGER = """
import sys
sys.modules["fun_transformer"] = None
import torch
from transformers import AutoModelForSeq2SeqLM
first, again = sys.argv[1:]
AutoModelForSeq2SeqLM.from_pretrained(first, trust_remote_code=True).save_pretrained(again)
model = AutoModelForSeq2SeqLM.from_pretrained(again, trust_remote_code=True)
print(type(model).__module__.split(".")[0], model.generate(torch.tensor([[5, 6, 7, 8, 9]]), max_new_tokens=9).tolist())
"""


@pytest.mark.slow
def test_their_code_travels_with_the_model(tiny_model, strangers, tmp_path):
    model = likely_to_go_on(tiny_model(**LAYERS["mixed"]))
    expected = model.generate(torch.tensor([[5, 6, 7, 8, 9]]), max_new_tokens=9).tolist()
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    files = travelling_files(config, {})
    assert {"masks.py", "mixers.py"} <= files.keys()
    for file in files.values():
        shutil.copy(file, folder)
    names = {
        "AutoConfig": "configuration_fun_transformer.FunTransformerConfig",
        "AutoModelForSeq2SeqLM": "modeling_fun_transformer.FunTransformerForConditionalGeneration",
    }
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": names}))
    modules = str(tmp_path / "modules")
    output = strangers.python("-c", STRANGER, folder, tmp_path / "again", cwd=tmp_path, HF_MODULES_CACHE=modules)
    assert output.rstrip("\n") == f"transformers_modules {expected}"


@pytest.mark.slow
@pytest.mark.parametrize("layer_type", ["sliding_attention", "linear_attention", "conv"])
def test_it_learns_to_reverse(layer_type, tiny_config, assert_learns_to_reverse):
    fields = {"encoder_layer_types": [layer_type], "decoder_layer_types": [layer_type], "sliding_window": 3}
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0, "label_smoothing": 0.0}
    assert_learns_to_reverse(FunTransformerForConditionalGeneration(tiny_config(**sizes, **fields)))


@pytest.mark.slow
def test_a_recipe_trains_them(children, tmp_path):
    path = write_digits_recipe(tmp_path)
    recipe = yaml.safe_load(path.read_text())
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "sliding_window": 4}
    types = [["conv", "sliding_attention"], ["linear_attention", "conv"]]
    layer_types = dict(zip(("encoder_layer_types", "decoder_layer_types"), types))
    recipe["model"] = RECIPE["model"] | sizes | layer_types
    recipe["training"] |= {"max_steps": 2, "eval_steps": 2, "save_steps": 2}
    path.write_text(yaml.safe_dump(recipe))
    assert children.run(path, tmp_path / "run") == [0]
    assert [line["step"] for line in read_metrics(tmp_path / "run", "train")] == [1, 2]
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert {name: config[name] for name in layer_types} == layer_types
