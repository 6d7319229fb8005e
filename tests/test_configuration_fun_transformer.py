"""The configuration: the paper's base model by default, and a clear word when fields do not fit together."""

import dataclasses

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, DynamicCache

from fun_transformer import FunTransformerConfig

PAPER_BASE = {
    "vocab_size": 37000,
    "d_model": 512,
    "encoder_layers": 6,
    "decoder_layers": 6,
    "encoder_attention_heads": 8,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 2048,
    "decoder_ffn_dim": 2048,
    "activation_function": "relu",
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "label_smoothing": 0.1,
    "position_embedding_type": "sinusoidal",
    "norm_position": "post",
    "final_layer_norm": None,
    "layer_norm_eps": 1e-5,
    "encoder_layer_types": None,
    "decoder_layer_types": None,
    "sliding_window": None,
    "scale_embedding": True,
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "is_encoder_decoder": True,
    "use_cache": True,
}


def test_defaults_are_the_papers_base_model():
    config = FunTransformerConfig()
    assert {name: getattr(config, name) for name in PAPER_BASE} == PAPER_BASE
    assert config.decoder_vocab_size == config.vocab_size
    assert config.model_type == "fun_transformer"


def test_every_field_survives_saving(tmp_path, tiny_config):
    config = tiny_config(
        decoder_vocab_size=31,
        share_encoder_decoder_embeddings=False,
        tie_word_embeddings=False,
        norm_position="pre",
        final_layer_norm=False,
        layer_norm_eps=1e-6,
        position_embedding_type="learned",
        activation_function="gelu",
        scale_embedding=False,
        label_smoothing=0.2,
        attention_dropout=0.3,
        encoder_layer_types=["conv", "sliding_attention"],
        decoder_layer_types=["linear_attention", "full_attention", "conv"],
        sliding_window=5,
        conv_kernel_size=4,
        eos_token_id=[2, 3],
    )
    config.save_pretrained(tmp_path)
    for loaded in (FunTransformerConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is FunTransformerConfig
        for field in dataclasses.fields(FunTransformerConfig):
            if field.name not in ("transformers_version", "architectures"):
                assert getattr(loaded, field.name) == getattr(config, field.name), field.name


def test_the_usual_aliases_work(tiny_config):
    config = tiny_config()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (16, 2, 4)
    config.hidden_size = 32
    assert config.d_model == 32


def test_unrelated_fields_are_kept_as_transformers_keeps_them(tmp_path):
    FunTransformerConfig(source_language="zh", id2label={0: "no", 1: "yes"}).save_pretrained(tmp_path)
    loaded = FunTransformerConfig.from_pretrained(tmp_path)
    assert loaded.source_language == "zh"
    assert loaded.num_labels == 2


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("d_modle", "d_model"),
        ("encoder_layer", "encoder_layers"),
        ("decoder_attention_head", "decoder_attention_heads"),
        ("norm_positions", "norm_position"),
        ("label_smooting", "label_smoothing"),
        ("vocabsize", "vocab_size"),
    ],
)
def test_a_misspelt_field_is_refused_with_the_nearest_known_one(wrong, meant):
    with pytest.raises(ValueError, match=f"{wrong}.*{meant}"):
        FunTransformerConfig(**{wrong: 1})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"d_model": 500, "decoder_attention_heads": 4}, ["d_model=500", "encoder_attention_heads=8", "496 or 504"]),
        ({"d_model": 512, "decoder_attention_heads": 7}, ["decoder_attention_heads=7", "511 or 518"]),
        ({"d_model": 4}, ["d_model=4", "such as 8"]),
        ({"d_model": 9, "encoder_attention_heads": 3, "decoder_attention_heads": 3}, ["d_model=9", "even"]),
        ({"decoder_vocab_size": 31}, ["decoder_vocab_size=31", "share_encoder_decoder_embeddings=False"]),
        ({"dropout": 1.5}, ["dropout=1.5", "below 1"]),
        ({"label_smoothing": -0.1}, ["label_smoothing=-0.1"]),
        ({"encoder_layers": 0}, ["encoder_layers=0", "at least 1"]),
        ({"norm_position": "middle"}, ["norm_position", "post", "pre"]),
        ({"position_embedding_type": "alibi"}, ["position_embedding_type", "sinusoidal", "learned", "rotary"]),
        ({"layer_norm_eps": 0}, ["layer_norm_eps", "above 0"]),
        ({"activation_function": "tanh"}, ["activation_function", "relu"]),
        ({"d_model": "512"}, ["d_model", "int"]),
        ({"encoder_layer_types": ["conv"]}, ["encoder_layer_types has 1", "encoder_layers=6", "None for full"]),
        ({"decoder_layer_types": ["lstm"] * 6}, ["decoder_layer_types", "linear_attention"]),
        ({"decoder_layer_types": ["sliding_attention"] * 6}, ["sliding_window is None", "8 for example"]),
        ({"sliding_window": 1}, ["sliding_window=1", "at least 2"]),
        ({"conv_kernel_size": 0}, ["conv_kernel_size=0", "at least 1"]),
    ],
    ids=str,
)
def test_fields_that_do_not_fit_are_refused_in_words(fields, words):
    with pytest.raises((StrictDataclassError, ValueError, TypeError)) as error:
        FunTransformerConfig(**fields)
    message = f"{error.value} {error.value.__cause__}"
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize("is_encoder_decoder", [True, False])
def test_a_cache_learns_from_the_config_what_each_layer_keeps(is_encoder_decoder):
    """Without that, transformers takes a `sliding_window` for the window of all layers."""
    types = ["full_attention", "sliding_attention", "linear_attention", "conv"]
    fields = {"decoder_layers": 4, "encoder_layers": 4, "sliding_window": 5, "is_encoder_decoder": is_encoder_decoder}
    config = FunTransformerConfig(decoder_layer_types=types, **fields)
    layers = DynamicCache(config=config.get_text_config(decoder=True)).layers
    names = ["DynamicLayer", "DynamicSlidingWindowLayer", "RecurrentState", "RecurrentState"]
    assert [type(layer).__name__ for layer in layers] == names
    assert layers[1].sliding_window == 5
    layers = DynamicCache(config=FunTransformerConfig(**fields)).layers
    assert [type(layer).__name__ for layer in layers] == ["DynamicLayer"] * 4
    assert not hasattr(config, "layer_types")


def test_odd_widths_are_fine_for_learned_positions():
    config = FunTransformerConfig(
        d_model=9, encoder_attention_heads=3, decoder_attention_heads=3, position_embedding_type="learned"
    )
    assert config.d_model == 9
