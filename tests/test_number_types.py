"""The type that a model computes in: by default a fast one that loses little, otherwise what is asked for."""

import pytest
import torch
from test_pipelines import TEXTS, TINY_MODELS, tiny_tokenizer
from transformers import AutoModelForSeq2SeqLM, MarianMTModel, pipeline

from fun_transformer import TranslationPipeline
from fun_transformer.cli import build_parser
from fun_transformer.commands.predict import load_answerer
from fun_transformer.commands.translate import load_translator
from fun_transformer.evaluation.systems import Generation, load_models
from fun_transformer.number_types import fastest_dtype, has_fast_bfloat16, set_dtype
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

CPU = torch.device("cpu")
FAST = torch.bfloat16 if has_fast_bfloat16() else torch.float32
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One model saved in each type, by its name."""
    found = {}
    tokenizer = train_tokenizer(TEXTS * 5, settings=TokenizerSettings(type="char", vocab_size=40))
    for name in ("float32", "float16"):
        torch.manual_seed(1)
        found[name] = tmp_path_factory.mktemp(name)
        model = TINY_MODELS["marian"]()
        model.resize_token_embeddings(len(tokenizer))
        model.generation_config.max_new_tokens = 4
        model.to(getattr(torch, name)).save_pretrained(found[name])
        tokenizer.save_pretrained(found[name])
    return found


def set_processor(monkeypatch, is_fast):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: is_fast)


@pytest.mark.parametrize("saved", HALVES)
def test_a_processor_with_bfloat16_computes_halves_in_it_and_another_in_float32(monkeypatch, saved):
    set_processor(monkeypatch, True)
    assert fastest_dtype(saved, CPU) == torch.bfloat16
    assert fastest_dtype(torch.float32, CPU) == torch.float32
    set_processor(monkeypatch, False)
    assert fastest_dtype(saved, CPU) == torch.float32
    assert fastest_dtype(saved, torch.device("cuda")) == saved


@pytest.mark.parametrize(
    ("saved", "options", "expected"),
    [
        ("float16", {}, FAST),
        ("float16", {"dtype": "auto"}, FAST),
        ("float16", {"dtype": torch.float16}, torch.float16),
        ("float16", {"dtype": "float32"}, torch.float32),
        ("float16", {"model_kwargs": {"dtype": torch.float16}}, torch.float16),
        ("float32", {}, torch.float32),
        ("float32", {"dtype": torch.bfloat16}, torch.bfloat16),
    ],
)
def test_a_pipeline_computes_in_a_fast_type_or_in_the_one_that_is_named(folders, saved, options, expected):
    pipe = pipeline("translation", model=str(folders[saved]), device="cpu", **options)
    assert {parameter.dtype for parameter in pipe.model.parameters()} == {expected} == {pipe.model.dtype}
    assert pipe("the cat")[0].keys() == {"translation_text"}


def test_a_model_that_is_handed_over_stays_as_it_is_unless_a_type_is_named():
    model, tokenizer = TINY_MODELS["marian"]().half(), tiny_tokenizer()
    assert TranslationPipeline(model, tokenizer, device="cpu").model.dtype == torch.float16
    assert TranslationPipeline(model, tokenizer, device="cpu", dtype="float32").model.dtype == torch.float32


@pytest.mark.parametrize("name", ["marian", "t5", "fun_transformer"])
def test_another_type_is_that_of_a_model_loaded_so(name, tmp_path):
    torch.manual_seed(1)
    TINY_MODELS[name]().half().save_pretrained(tmp_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    set_dtype(model, "bfloat16")
    expected = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    torch.testing.assert_close(
        model.state_dict(), expected.state_dict(), check_dtype=False
    )  # T5 keeps some in float32
    assert model.generate(input_ids=torch.tensor([[4, 5, 2]]), max_new_tokens=3).shape[0] == 1


@pytest.mark.parametrize(("dtype", "expected"), [(None, FAST), ("float16", torch.float16), ("float32", torch.float32)])
def test_commands_load_a_model_in_the_type_that_is_named(folders, dtype, expected):
    folder, options = str(folders["float16"]), ["--device", "cpu", *(["--dtype", dtype] if dtype else [])]
    args = build_parser().parse_args(["translate", "--model", folder, *options])
    assert load_translator(args).model.dtype == expected
    args = build_parser().parse_args(["predict", folder, *options])
    assert load_answerer(args, with_lists=False).model.dtype == expected
    system = load_models([folder], "model", Generation(device="cpu", dtype=dtype or "auto"))
    assert system.pipe.model.dtype == expected


@pytest.mark.parametrize("dtype", ["float8", torch.int8, 16])
def test_an_unknown_type_is_refused(dtype):
    with pytest.raises(ValueError, match="Choose one of auto, float32, bfloat16, float16"):
        set_dtype(TINY_MODELS["marian"](), dtype)


def test_a_quantized_model_stays_as_it_is():
    model: MarianMTModel = TINY_MODELS["marian"]().half()
    model.hf_quantizer = object()
    set_dtype(model, "auto")
    assert model.dtype == torch.float16
