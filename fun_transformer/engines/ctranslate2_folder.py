"""A Transformer of ours as a folder that CTranslate2 loads: its weights, vocabularies, config and our tokenizer.

CTranslate2 has both orders of norm, tables of positions, one vocabulary or two, and counts positions from 0 as we do.
So each weight goes to its place as it is: no permutation, and no token is left out.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..configuration_fun_transformer import FunTransformerConfig
from ..files import write_atomically
from ..frontends import refuse_features
from ..positions import POSITIONS

MODEL_TYPE = "fun_transformer_ctranslate2"
POSITION_TYPES = ("sinusoidal", "learned")
TABLE_LENGTH = 1024  # positions that a folder knows where the model knows any
ACTIVATIONS = {"relu": "RELU", "gelu": "GELU", "silu": "SWISH"}
# float32 besides, which is what a folder has without one of these.
QUANTIZATIONS = ("int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16")
NOT_OURS = ("auto_map", "custom_pipelines", "dtype", "transformers_version")  # entries of a config that end here


def is_of_another_family(model) -> bool:
    """Say whether a model is none of this package's, so that tools of transformers may know it."""
    return not type(model).__module__.startswith(f"{__package__.split('.')[0]}.")


def check_model(model) -> None:
    """Find out whether CTranslate2 can say all of a model.

    Raises:
        ValueError: It cannot, with the reason.
    """
    config = model.config
    if not isinstance(config, FunTransformerConfig) or not config.is_encoder_decoder:
        own = "CTranslate2 converts other families itself: ct2-transformers-converter --model MODEL --output_dir OUT"
        raise ValueError(
            f"A {type(model).__name__} cannot be written for CTranslate2 here, only a "
            f"FunTransformerForConditionalGeneration.{f' {own}' if is_of_another_family(model) else ''}"
        )
    refuse_features(config, "This format of CTranslate2")
    for stack in ("encoder", "decoder"):
        if others := sorted(set(config.stack_layer_types(stack)) - {"full_attention"}):
            raise ValueError(
                f"{stack}_layer_types has {' and '.join(others)}. The Transformer of CTranslate2 has full_attention "
                "alone: train one with it for CTranslate2."
            )
    if config.position_embedding_type not in POSITION_TYPES:
        raise ValueError(
            f"position_embedding_type={config.position_embedding_type} cannot be written for CTranslate2. Train with "
            f"one of {', '.join(POSITION_TYPES)} for it, or choose another format: onnx and torch take all positions."
        )
    if config.copy_attention:
        raise ValueError("copy_attention=True cannot be written for CTranslate2, which has none. Choose torch.")
    ends = model.generation_config.eos_token_id
    if isinstance(ends, list) and len(ends) > 1:
        raise ValueError(f"CTranslate2 ends a text with one token, but eos_token_id={ends}. Choose one.")


def write_folder(model, tokenizer: PreTrainedTokenizerBase, folder: Path, quantization: str | None = None) -> None:
    """Write a model and its tokenizer.

    Args:
        model: A FunTransformerForConditionalGeneration in float32 on the CPU; it stays as it is.
        tokenizer: Its tokenizer.
        folder: An empty folder.
        quantization: One of `QUANTIZATIONS`.
    """
    spec = build_spec(model)
    source, target = vocabularies(model.config, tokenizer)
    spec.register_source_vocabulary(source)
    spec.register_target_vocabulary(target)
    special = tokenizer.special_tokens_map
    start = model.generation_config.decoder_start_token_id
    spec.config.unk_token = special.get("unk_token", "<unk>")
    spec.config.bos_token = special.get("bos_token", "<s>")
    spec.config.eos_token = target[end_of_text(model)]
    spec.config.decoder_start_token = target[model.config.decoder_start_token_id if start is None else start]
    spec.config.layer_norm_epsilon = model.model.encoder.layers[0].final_layer_norm.eps
    spec.validate()
    spec.optimize(quantization=quantization)
    spec.save(str(folder))
    tokenizer.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    write_config(model.config, folder, quantization)


def write_config(config: FunTransformerConfig, folder: Path, quantization: str | None) -> None:
    """Add our config to CTranslate2's, which does not look at what it does not know."""
    file = folder / "config.json"
    ours = {name: value for name, value in config.to_dict().items() if name not in NOT_OURS}
    theirs = json.loads(file.read_text(encoding="utf-8"))
    merged = ours | theirs | {"model_type": MODEL_TYPE, "quantization": quantization}
    write_atomically(file, json.dumps(merged, indent=2, sort_keys=True) + "\n")


def end_of_text(model) -> int:
    """Return the id of the token that ends a text."""
    eos = model.generation_config.eos_token_id
    eos = model.config.eos_token_id if eos is None else eos
    return eos[0] if isinstance(eos, list) else eos


def vocabularies(config: FunTransformerConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[list[str], list[str]]:
    """Return the tokens of source and target by id; rows of an embedding that no token has get names of their own."""
    to_target = getattr(tokenizer, "convert_target_ids_to_tokens", tokenizer.convert_ids_to_tokens)
    target_size = getattr(tokenizer, "target_vocab_size", None) or len(tokenizer)
    sides = ((tokenizer.convert_ids_to_tokens, len(tokenizer), config.vocab_size),)
    sides += ((to_target, target_size, config.decoder_vocab_size),)
    source, target = (
        [*to_tokens(list(range(min(known, rows)))), *(f"<unused_{i}>" for i in range(known, rows))]
        for to_tokens, known, rows in sides
    )
    return source, target


def read_vocabularies(folder: Path) -> list[list[str]]:
    """Return the tokens of source and target of a folder, by id."""
    names = [folder / f"{side}_vocabulary.json" for side in ("source", "target")]
    if not names[0].is_file():
        names = [folder / "shared_vocabulary.json"] * 2
    return [json.loads(name.read_text(encoding="utf-8")) for name in names]


def longest_text(config: FunTransformerConfig) -> int:
    """Return how many positions a folder has tables of."""
    longest = POSITIONS[config.position_embedding_type].longest_text(config)
    return longest or max(TABLE_LENGTH, config.max_position_embeddings)


def build_spec(model) -> Any:
    """Return the weights of a model by the names of CTranslate2."""
    from ctranslate2 import specs
    from ctranslate2.specs.common_spec import Activation

    from ..decoding.alignment import default_heads

    config = model.config
    options = {
        "pre_norm": True,  # which alone makes room for a last norm; `fill_stack` says the order
        "no_final_norm": not config.has_final_norm(),
        "activation": Activation[ACTIVATIONS[config.activation_function]],
    }
    encoder = specs.TransformerEncoderSpec(config.encoder_layers, config.encoder_attention_heads, **options)
    decoder = specs.TransformerDecoderSpec(
        config.decoder_layers,
        config.decoder_attention_heads,
        # Of the layer where alignments are read, the mean of all heads (decoding/alignment.py).
        alignment_layer=default_heads(config.decoder_layers).layer,
        alignment_heads=config.decoder_attention_heads,
        **options,
    )
    fill_stack(encoder, model.model.encoder)
    fill_stack(decoder, model.model.decoder)
    decoder.projection.weight = array(model.lm_head.weight)
    return specs.TransformerSpec(encoder, decoder)


def fill_stack(spec: Any, stack: nn.Module) -> None:
    """Fill in an encoder or a decoder."""
    config = stack.config
    embeddings = spec.embeddings[0] if isinstance(spec.embeddings, list) else spec.embeddings
    embeddings.weight = array(stack.embed_tokens.weight)
    spec.pre_norm = config.norm_position == "pre"
    spec.scale_embeddings = stack.embed_scale
    longest = longest_text(config)
    with torch.no_grad():
        table = stack.embed_positions(torch.arange(longest)[None], longest)[0]  # (longest, d_model)
    spec.position_encodings.encodings = array(table)
    if isinstance(stack.layer_norm, nn.LayerNorm):
        fill_norm(spec.layer_norm, stack.layer_norm)
    for layer_spec, layer in zip(spec.layer, stack.layers, strict=True):
        fill_attention(layer_spec.self_attention, layer.self_attn, layer.self_attn_layer_norm)
        if hasattr(layer, "encoder_attn"):
            fill_attention(layer_spec.attention, layer.encoder_attn, layer.encoder_attn_layer_norm)
        fill_norm(layer_spec.ffn.layer_norm, layer.final_layer_norm)
        fill_linear(layer_spec.ffn.linear_0, layer.feed_forward.fc1)
        fill_linear(layer_spec.ffn.linear_1, layer.feed_forward.fc2)


def fill_attention(spec: Any, attention: nn.Module, norm: nn.Module) -> None:
    """Fill in attention and its norm: one projection for queries, keys and values, or one for keys and values."""
    fill_norm(spec.layer_norm, norm)
    query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
    groups = [[query, key, value]] if len(spec.linear) == 2 else [[query], [key, value]]
    for linear, parts in zip(spec.linear, groups):
        fill_linear(linear, *parts)
    fill_linear(spec.linear[-1], attention.out_proj)


def fill_linear(spec: Any, *parts: nn.Linear) -> None:
    """Fill in a linear layer, or several that read the same, one below the other."""
    spec.weight = array(torch.cat([part.weight for part in parts]))
    spec.bias = array(torch.cat([part.bias for part in parts]))


def fill_norm(spec: Any, norm: nn.LayerNorm) -> None:
    """Fill in a LayerNorm."""
    spec.gamma, spec.beta = array(norm.weight), array(norm.bias)


def array(tensor: torch.Tensor) -> Any:
    """Return a copy for CTranslate2, which may change it."""
    return tensor.detach().float().cpu().clone().numpy()
