"""Masks: who may look at whom, for each type of layer, against the formulas."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AttentionInterface
from transformers.cache_utils import DynamicCache

from fun_transformer import FunTransformerEncoderModel, FunTransformerForCausalLM
from fun_transformer.masks import decoder_masks, encoder_masks, mask_settings, padding_mask

BOTH_KERNELS = pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
TYPES = ["full_attention", "sliding_attention"]
MIXED = {"encoder_layer_types": TYPES, "decoder_layer_types": [*TYPES, "conv"], "sliding_window": 2}
PADDING = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def eager(config):
    config._attn_implementation = "eager"
    return config


def allowed(mask):
    """An additive mask as a boolean one, (batch, query_len, key_len); rows that see nothing are left as they are."""
    return (mask[:, 0] == 0).numpy()


def formula(may, query_len=5, key_len=5):
    """(batch, query_len, key_len): the formula, on keys that are no padding; the last query is the last key."""
    first = key_len - query_len
    band = np.array([[may(i, j) for j in range(key_len)] for i in range(first, key_len)])
    return band & PADDING.bool().numpy()[:, None, :key_len]


def test_the_encoders_masks_are_the_formulas(tiny_config):
    masks = encoder_masks(eager(tiny_config(**MIXED)), torch.empty(3, 5, 0), PADDING)
    assert list(masks) == TYPES
    np.testing.assert_array_equal(allowed(masks["full_attention"]), formula(lambda i, j: True))
    np.testing.assert_array_equal(allowed(masks["sliding_attention"]), formula(lambda i, j: abs(i - j) <= 2))


def test_the_decoders_masks_are_the_formulas(tiny_config):
    masks = decoder_masks(eager(tiny_config(**MIXED)), torch.empty(3, 5, 0), PADDING, None)
    np.testing.assert_array_equal(allowed(masks["full_attention"]), formula(lambda i, j: j <= i))
    np.testing.assert_array_equal(allowed(masks["sliding_attention"]), formula(lambda i, j: i - 2 < j <= i))
    assert torch.equal(masks["conv"], PADDING.bool())


def test_masks_go_on_where_the_cache_ends(tiny_config):
    """Local layers keep one token less than the window: what is forgotten has no column in their mask."""
    config = eager(tiny_config(**MIXED))
    cache = DynamicCache(config=config)
    for layer_idx in (0, 1):
        cache.update(torch.zeros(3, 2, 3, 8), torch.zeros(3, 2, 3, 8), layer_idx)
    masks = decoder_masks(config, torch.empty(3, 2, 0), PADDING, cache)
    expected = formula(lambda i, j: j <= i, query_len=2)
    np.testing.assert_array_equal(allowed(masks["full_attention"]), expected)
    expected = formula(lambda i, j: i - 2 < j <= i, query_len=2)[:, :, 2:]
    np.testing.assert_array_equal(allowed(masks["sliding_attention"]), expected)
    assert torch.equal(masks["conv"], PADDING[:, 3:].bool())
    assert decoder_masks(config, torch.empty(3, 2, 0), masks, cache) is masks


def test_a_mask_of_pairs_is_refused_where_it_would_be_ignored(tiny_config):
    assert padding_mask(tiny_config(), torch.empty(1, 4, 0), None) is None
    with pytest.raises(ValueError, match=r"4 dimensions.*\(batch, seq_len\)"):
        padding_mask(tiny_config(), torch.empty(1, 4, 0), torch.ones(1, 1, 4, 4))


def test_weights_that_are_asked_for_choose_the_eager_kernel(tiny_model):
    config, kwargs = tiny_model("sdpa").config, {"output_attentions": True}
    chosen, mask_like = mask_settings(config, torch.zeros(2, 3, 16), kwargs)
    assert (chosen._attn_implementation, kwargs["attn_implementation"]) == ("eager", "eager")
    assert config._attn_implementation == "sdpa"
    assert mask_like.shape == (2, 3, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert mask_settings(config, torch.zeros(2, 3, 16), {})[1].dtype == torch.bfloat16


# Local attention is full attention with another mask


def band(length, may):
    """A mask for both kernels: (1, 1, length, length), 0 or the least number."""
    kept = torch.tensor([[may(i, j) for j in range(length)] for i in range(length)])
    return torch.zeros(1, 1, length, length).masked_fill(~kept, torch.finfo(torch.float32).min)


@BOTH_KERNELS
def test_local_attention_is_full_attention_under_a_band(attn_implementation, tiny_config):
    text = torch.randint(5, 23, (2, 12))
    for model_class, stack, may in (
        (FunTransformerEncoderModel, "encoder", lambda i, j: abs(i - j) <= 3),
        (FunTransformerForCausalLM, "decoder", lambda i, j: i - 3 < j <= i),
    ):
        config = tiny_config()
        types = {f"{stack}_layer_types": ["sliding_attention"] * getattr(config, f"{stack}_layers")}
        full, local = model_class(config).eval(), model_class(tiny_config(**types, sliding_window=3)).eval()
        local.load_state_dict(full.state_dict())
        for model in (full, local):
            model.set_attn_implementation(attn_implementation)
        with torch.no_grad():
            everything, expected = full(text)[0], full(text, attention_mask=band(12, may))[0]
            found = local(text)[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert (found - everything).abs().max() > 1e-2


@BOTH_KERNELS
@pytest.mark.parametrize("cached", [False, True])
def test_a_window_longer_than_the_text_is_full_attention(cached, attn_implementation, tiny_model, tiny_batch):
    full = tiny_model(attn_implementation)
    types = {"encoder_layer_types": ["sliding_attention"] * 2, "decoder_layer_types": ["sliding_attention"] * 3}
    local = tiny_model(attn_implementation, **types, sliding_window=7)
    assert full.state_dict().keys() == local.state_dict().keys()
    with torch.no_grad():
        expected, found = (model(**tiny_batch, use_cache=cached).logits for model in (full, local))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_the_window_is_that_of_fused_kernels(tiny_model):
    """Kernels that take no mask count the token itself, on each side; `sliding_window - 1` tokens beside it."""
    types = {"encoder_layer_types": ["sliding_attention"] * 2, "decoder_layer_types": ["sliding_attention"] * 3}
    model = tiny_model(**types, sliding_window=4).model
    seen = {}

    def attention(module, query, key, value, attention_mask, sliding_window=None, **kwargs):
        seen[module.is_causal, module is model.decoder.layers[0].encoder_attn] = sliding_window
        return nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2), None

    AttentionInterface.register("spy", attention)
    try:
        model.set_attn_implementation("spy")
        model.decoder.layers = model.decoder.layers[:1]
        model(input_ids=torch.ones(1, 3).long(), decoder_input_ids=torch.ones(1, 3).long())
    finally:
        AttentionInterface._global_mapping.pop("spy")
    assert seen == {(False, False): 5, (True, False): 4, (False, True): None}
