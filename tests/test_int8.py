"""Weights in 8 bits: near the model, smaller, the same in every batch, and loaded wherever a model is."""

import copy
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

from fun_transformer import FunTransformerForConditionalGeneration
from fun_transformer.evaluation.data import EvaluationData
from fun_transformer.export import NotKept, export_model, find_format
from fun_transformer.hub.code import travelling_files
from fun_transformer.int8 import Int8Config, Int8Embedding, Int8Linear, has_products, packed_weight, quantize_int8
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

WIDE = {"d_model": 32, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
VARIANTS = {
    "tied": {},
    "untied": {"tie_word_embeddings": False, "share_encoder_decoder_embeddings": False},
    "separate vocabularies": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 29},
    "pre-norm": {"norm_position": "pre"},
    "learned": {"position_embedding_type": "learned"},
    "relative": {"position_embedding_type": "relative"},
}
EACH = pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
LINES = ["The black cat sat.", "Another dog ran away.", "今天我们吃什么？", "The whole street was asleep."]


def layer_of(linear: nn.Linear) -> Int8Linear:
    layer = Int8Linear(linear.in_features, linear.out_features, linear.bias is not None)
    layer.set_weight(linear.weight)
    if linear.bias is not None:
        layer.bias.data.copy_(linear.bias)
    return layer


def by_hand(states: np.ndarray, linear: nn.Linear, greatest: int) -> np.ndarray:
    """The formulas of int8.py, in whole numbers of NumPy."""
    weight = linear.weight.detach().numpy().astype(np.float64)
    weight_scale = np.abs(weight).max(axis=1) / 127
    numbers = np.round(weight / weight_scale[:, None]).astype(np.int64)
    scale = np.maximum(np.abs(states).max(axis=1, keepdims=True), 1e-12) / greatest
    products = np.round(states / scale).astype(np.int64) @ numbers.T
    return products * scale * weight_scale + (0 if linear.bias is None else linear.bias.detach().numpy())


@torch.no_grad()
@pytest.mark.skipif(not has_products(), reason="torch multiplies no whole numbers on this processor")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_a_product_is_that_of_whole_numbers(rows, bias):
    linear = nn.Linear(24, 10, bias=bias)
    layer = layer_of(linear)
    states = torch.randn(rows, 24) * torch.logspace(-3, 3, rows)[:, None]
    states[rows // 2] = 0.0
    expected = by_hand(states.numpy().astype(np.float64), linear, packed_weight(layer).greatest)
    scale = states.abs().amax(dim=1).numpy()[:, None] + 1
    np.testing.assert_allclose(
        layer(states).numpy() / scale, expected / scale, atol=1e-2
    )  # a number may be rounded up
    assert np.abs(layer(states).numpy() / scale - expected / scale).mean() < 1e-4


@torch.no_grad()
def test_a_row_does_not_depend_on_its_batch():
    layer, states = layer_of(nn.Linear(24, 10)), torch.randn(50, 24)
    together = layer(states)
    for some in (states[:1], states[:7]):
        torch.testing.assert_close(layer(some), together[: len(some)], atol=1e-5, rtol=1e-5)
    assert layer(states.view(5, 10, 24)).shape == (5, 10, 10) and layer(states[:0]).shape == (0, 10)
    assert layer(states.bfloat16()).dtype == torch.bfloat16


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_what_is_no_number_stays_none(rows):
    layer, states = layer_of(nn.Linear(24, 10)), torch.randn(rows, 24)
    states[0, 3] = torch.nan
    outputs = layer(states)
    assert outputs[0].isnan().all() and not outputs[1:].isnan().any()


def test_gradients_of_the_states_are_those_of_the_weights_as_floats():
    linear = nn.Linear(24, 10)
    layer, states = layer_of(linear), torch.randn(4, 24, requires_grad=True)
    layer(states).sum().backward()
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    torch.testing.assert_close(states.grad, layer.weight.sum(0).expand(4, 24))
    assert (layer.weight - linear.weight).abs().max() <= linear.weight.abs().max() / 254 + 1e-6


@torch.no_grad()
def test_changed_weights_are_used():
    layer, states = layer_of(nn.Linear(24, 10)), torch.randn(4, 24)
    layer(states)
    layer.weight_scale.zero_()
    torch.testing.assert_close(layer(states), layer.bias.expand(4, 10))


@EACH
@torch.no_grad()
def test_a_model_loads_as_it_was_saved(fields, tiny_model, tiny_batch, tmp_path):
    model = tiny_model(**WIDE, **fields)
    small = quantize_int8(copy.deepcopy(model))
    small.save_pretrained(tmp_path)
    loaded, info = FunTransformerForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert json.loads((tmp_path / "config.json").read_text())["quantization_config"] == {"quant_method": "fun_int8"}
    logits = loaded(**tiny_batch).logits
    torch.testing.assert_close(logits, small(**tiny_batch).logits, atol=0, rtol=0)
    assert 0 < (logits - model(**tiny_batch).logits).abs().max() < 0.3
    is_tied = model.config.tie_word_embeddings
    assert isinstance(loaded.lm_head, Int8Linear) and isinstance(loaded.model.decoder.embed_tokens, Int8Embedding)
    assert (loaded.lm_head.int8_weight is loaded.model.decoder.embed_tokens.int8_weight) == is_tied
    assert (loaded.lm_head.weight_scale is loaded.model.decoder.embed_tokens.weight_scale) == is_tied
    assert not any(type(module) is nn.Linear for module in loaded.modules())


@torch.no_grad()
def test_a_model_is_quantized_while_it_loads(tiny_model, tiny_batch, tmp_path):
    model = tiny_model(**WIDE)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, quantization_config=Int8Config())
    expected = quantize_int8(model)(**tiny_batch).logits
    torch.testing.assert_close(loaded(**tiny_batch).logits, expected, atol=0, rtol=0)
    assert loaded.lm_head.int8_weight is loaded.model.encoder.embed_tokens.int8_weight


@torch.no_grad()
def test_asking_for_another_dtype_changes_no_scale(tiny_model, tiny_batch, tmp_path):
    small = quantize_int8(tiny_model(**WIDE))
    small.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(loaded(**tiny_batch).logits, small(**tiny_batch).logits, atol=0, rtol=0)


@torch.no_grad()
def test_batches_and_threads_give_what_one_text_gives(tiny_model):
    small = quantize_int8(tiny_model(**WIDE))
    sources = [torch.tensor([[5, 9, 13, 2]]), torch.tensor([[7, 8, 2]])]
    alone = [small.generate(ids, num_beams=3, max_new_tokens=8)[0].tolist() for ids in sources]
    padded = torch.tensor([[5, 9, 13, 2], [7, 8, 2, 0]])
    together = small.generate(padded, attention_mask=(padded != 0).long(), num_beams=3, max_new_tokens=8)
    assert [row[: len(ids)] for row, ids in zip(together.tolist(), alone)] == alone
    with ThreadPoolExecutor(4) as pool:
        again = pool.map(lambda ids: small.generate(ids, num_beams=3, max_new_tokens=8)[0].tolist(), sources * 4)
    assert list(again) == alone * 4


@pytest.mark.parametrize("num_beams", [1, 3])
def test_the_fast_search_finds_what_that_of_transformers_does(num_beams, tiny_model):
    small = quantize_int8(tiny_model(**WIDE))
    source = torch.tensor([[5, 9, 13, 2], [7, 8, 2, 0]])
    call = {"attention_mask": (source != 0).long(), "num_beams": num_beams, "max_new_tokens": 8}
    call |= {"output_scores": True, "return_dict_in_generate": True}
    fast, slow = small.generate(source, **call), small.generate(source, **call, cache_implementation="dynamic")
    assert fast.sequences.tolist() == slow.sequences.tolist()
    for one, other in zip(fast.scores, slow.scores):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_loss_is_computed(tiny_model, tiny_batch):
    model = tiny_model(**WIDE)
    expected = model.eval()(**tiny_batch).loss
    loss = quantize_int8(model)(**tiny_batch).loss
    assert abs(loss - expected) < 0.05


def test_weights_are_not_quantized_twice(tiny_model):
    with pytest.raises(ValueError, match="quantized already"):
        quantize_int8(quantize_int8(tiny_model()))


# ── The export ──


@pytest.fixture
def tokenizer():
    return train_tokenizer(LINES * 5, settings=TokenizerSettings(type="bpe", vocab_size=300))


@pytest.fixture
def model(tiny_model, tokenizer):
    model = tiny_model(**WIDE, vocab_size=len(tokenizer))
    model.generation_config.max_new_tokens = 6
    return model


def test_an_export_is_a_folder_that_pipelines_load(model, tokenizer, tmp_path):
    data = EvaluationData("lines", [[line] for line in LINES], LINES)
    exported = export_model(model, tokenizer, find_format("torch"), tmp_path / "out", "int8", data, force=True)
    assert isinstance(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").lm_head, Int8Linear)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == tokenizer.get_vocab()
    assert "translation_text" in pipeline("translation", model=str(tmp_path / "out"))(LINES[0])[0]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    before, after = exported.scores["chrf"]
    assert f"| chrf | {before:.2f} | {after:.2f} |" in card and str(exported.agreements[1]) in card


def test_the_card_of_the_model_is_kept(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\n---\n\n# A cat\n", encoding="utf-8")
    (tmp_path / "model" / "LICENSE.md").write_text("MIT", encoding="utf-8")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    export_model(model, tokenizer, find_format("torch"), tmp_path / "out", "int8", LINES)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: mit\n---\n\n# A cat\n\n## Weights in 8 bits\n")
    assert (tmp_path / "out" / "LICENSE.md").read_text(encoding="utf-8") == "MIT"


def test_what_loses_quality_is_not_kept(model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("fun_transformer.export.write.MOST_LOST", {"bleu": -101.0})
    data = EvaluationData("lines", [[line] for line in LINES], LINES)
    with pytest.raises(NotKept, match="bleu goes from"):
        export_model(model, tokenizer, find_format("torch"), tmp_path / "out", "int8", data)
    assert not list(tmp_path.iterdir())


def test_other_models_and_plain_copies_are_refused(model, tokenizer, tmp_path):
    from transformers import MarianConfig, MarianMTModel

    sizes = {"vocab_size": 30, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "pad_token_id": 0}
    with pytest.raises(ValueError, match=r"this is a MarianMTModel\. transformers loads other"):
        find_format("torch").check(MarianMTModel(MarianConfig(**sizes)), tokenizer, "int8")
    with pytest.raises(ValueError, match="needs --quantization int8"):
        export_model(model, tokenizer, find_format("torch"), tmp_path / "out")


REMOTE = """
import sys
sys.modules["fun_transformer"] = None
import torch
from transformers import AutoModelForSeq2SeqLM
first, again = sys.argv[1:]
AutoModelForSeq2SeqLM.from_pretrained(first, trust_remote_code=True).save_pretrained(again)
model = AutoModelForSeq2SeqLM.from_pretrained(again, trust_remote_code=True)
ids = model.generate(torch.tensor([[5, 6, 7, 8, 9]]), max_new_tokens=9).tolist()
print(type(model.lm_head).__module__.split(".")[0], model.lm_head.int8_weight.dtype, ids)
"""


@pytest.mark.slow
def test_the_code_travels_with_the_weights(tiny_model, strangers, tmp_path):
    small = quantize_int8(tiny_model(**WIDE))
    expected = small.generate(torch.tensor([[5, 6, 7, 8, 9]]), max_new_tokens=9).tolist()
    folder = tmp_path / "model"
    small.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    files = travelling_files(config, {})
    assert "int8.py" in files
    for file in files.values():
        shutil.copy(file, folder)
    names = {
        "AutoConfig": "configuration_fun_transformer.FunTransformerConfig",
        "AutoModelForSeq2SeqLM": "modeling_fun_transformer.FunTransformerForConditionalGeneration",
    }
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": names}))
    modules = str(tmp_path / "modules")
    output = strangers.python("-c", REMOTE, folder, tmp_path / "again", cwd=tmp_path, HF_MODULES_CACHE=modules)
    assert output.rstrip("\n") == f"transformers_modules torch.int8 {expected}"
