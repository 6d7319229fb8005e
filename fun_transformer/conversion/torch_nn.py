"""State dicts of `torch.nn.Transformer` with embeddings and an output layer, as tutorials write them.

A state dict says neither how many heads there are nor where norms are: settings do, as fields of our configuration.
What is not said is as torch has it: post-norm, ReLU, 8 heads, embeddings times sqrt(d_model).
"""

import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..configuration_fun_transformer import FunTransformerConfig
from ..positions import SinusoidalPositions
from .source import Converted, Options, load_weights, words_in
from .vocabulary import load_tokenizer
from .weights import build_model, is_sinusoidal, number_of, rename, some, split_thirds

# What people call the parts, and what they are called here.
PARTS = {
    "src_embedding": ("src_tok_emb", "src_embedding", "src_embed", "src_emb", "encoder_embedding", "enc_embedding"),
    "tgt_embedding": (
        *("tgt_tok_emb", "tgt_embedding", "tgt_embed", "tgt_emb", "trg_embedding", "trg_emb", "decoder_embedding"),
        "dec_embedding",
    ),
    "embedding": ("embedding", "tok_emb", "embed", "emb", "shared_embedding"),
    "generator": (
        "generator",
        "fc_out",
        "out",
        "output_layer",
        "linear",
        "lm_head",
        "head",
        "projection",
        "proj",
        "fc",
    ),
    "src_positions": ("src_pos_emb", "src_position_embedding", "src_pos_embedding"),
    "tgt_positions": ("tgt_pos_emb", "trg_position_embedding", "tgt_position_embedding", "tgt_pos_embedding"),
    "positions": ("positional_encoding", "pos_encoder", "pos_embedding", "pos_emb", "positional_embedding", "pos_enc"),
}
TABLES = ("pos_embedding", "pe", "pos_encoding", "positional_encoding", "encoding")  # buffers of sinusoids
LAYER = {
    r"self_attn\.(.+)": r"self_attn.\1",
    r"multihead_attn\.(.+)": r"encoder_attn.\1",
    r"linear1\.(.+)": r"feed_forward.fc1.\1",
    r"linear2\.(.+)": r"feed_forward.fc2.\1",
    r"norm1\.(.+)": r"self_attn_layer_norm.\1",
}
NORMS = {
    "encoder": {r"norm2\.(.+)": r"final_layer_norm.\1"},
    "decoder": {r"norm2\.(.+)": r"encoder_attn_layer_norm.\1", r"norm3\.(.+)": r"final_layer_norm.\1"},
}
PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile and wrappers
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "weights")


def state_dict_of(found: Any) -> dict[str, torch.Tensor] | None:
    """Return the weights in what a file holds: itself, or an entry such as "model_state_dict"; None if there are none.

    Prefixes that all names have are taken away.
    """
    if isinstance(found, dict):
        for name in ("", *WRAPPERS):
            inner = found.get(name) if name else found
            if isinstance(inner, dict) and inner and all(isinstance(value, torch.Tensor) for value in inner.values()):
                weights = inner
                for prefix in PREFIXES:
                    if all(key.startswith(prefix) for key in weights):
                        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
                return weights
    return None


def is_source(path: Path) -> bool:
    """Tell whether a file holds weights of `torch.nn.Transformer`."""
    if not path.is_file() or path.suffix not in (".pt", ".pth", ".bin", ".ckpt", ".safetensors"):
        return False
    return any(re.search(r"decoder\.layers\.0\.multihead_attn\.in_proj_weight$", word) for word in words_in(path))


def read(path: Path, options: Options) -> Converted:
    """Convert a state dict.

    Raises:
        ValueError: It is none, has parts that are not known or not ours, or needs settings or a tokenizer.
        OSError: There is no such file.
    """
    weights = state_dict_of(load_weights(path))
    if weights is None:
        raise ValueError(f"{path} holds no state dict. Save one: torch.save(model.state_dict(), ...).")
    if not options.tokenizer:
        raise ValueError(
            "A state dict has no vocabulary. Give --tokenizer: a folder with a tokenizer of transformers, or files "
            "with one token a line, for both sides or one for each."
        )
    parts, stacks = find_parts(weights, options.names)
    renamed = rename_parts(parts) | rename_stacks(stacks)
    tokenizer, notes = load_tokenizer(options.tokenizer)
    config = read_config(renamed, parts, options.settings, tokenizer)
    model = build_model(config, renamed, parts.get("generator.bias"))
    model.generation_config.pad_token_id = config.pad_token_id

    def run(source_ids: torch.Tensor, target_ids: torch.Tensor) -> torch.Tensor:
        return run_torch(config, parts, stacks, source_ids, target_ids)

    return Converted(model, tokenizer, notes, run=run)


def find_parts(
    weights: dict[str, torch.Tensor], names: dict[str, str]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Sort weights into parts outside the stacks, by the names of `PARTS`, and those of the stacks.

    Args:
        weights: Of the whole model.
        names: Name or beginning of a name -> the name that is meant, as the user says.

    Returns:
        `src_embedding.weight`, `generator.weight` and so on; `encoder.layers.0.linear1.weight` and so on.

    Raises:
        ValueError: A name of the user is in no weight, or a weight is not known.
    """
    parts, stacks, unknown = {}, {}, []
    if unused := [old for old in names if not any(name == old or name.startswith(f"{old}.") for name in weights)]:
        raise ValueError(f"--map {unused[0]}=...: no weight is called so. There are {some(outer_names(weights))}.")
    for name, weight in weights.items():
        for old, new in names.items():
            if name == old or name.startswith(f"{old}."):
                name = new + name[len(old) :]
        if match := re.fullmatch(r"(?:.*[._])?((?:encoder|decoder)\.(?:layers\.\d+|norm)\..+)", name):
            stacks[match[1]] = weight
        elif part := part_of(name):
            parts[part] = weight
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"What are {some(unknown)}? Say it with --map NAME=PART, where PART is one of {', '.join(PARTS)}; "
            "other parts have no place in a model of ours."
        )
    return parts, stacks


def outer_names(weights: dict[str, torch.Tensor]) -> set[str]:
    """Return the first words of the names of weights."""
    return {name.split(".")[0] for name in weights}


def part_of(name: str) -> str | None:
    """Return what a weight outside the stacks is: `generator.bias` for `fc_out.bias`; None if that is not known."""
    words = name.split(".")
    for part, called in PARTS.items():
        if words[0] in called or words[0] == part:
            table = part.endswith("positions") and words[-1] in TABLES
            return f"{part}.table" if table else f"{part}.{words[-1]}"
    return None


def rename_parts(parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return embeddings, learned positions and the output layer under our names.

    Raises:
        ValueError: There are none, or a table of positions is not the paper's sinusoids.
    """
    renamed = {}
    shared = parts.get("embedding.weight")
    for stack, side in (("encoder", "src"), ("decoder", "tgt")):
        embedding = parts.get(f"{side}_embedding.weight", shared)
        if embedding is None:
            raise ValueError(f"There is no {side}_embedding. Say what it is called: --map NAME={side}_embedding")
        renamed[f"model.{stack}.embed_tokens.weight"] = embedding
        for positions in (f"{side}_positions", "positions"):
            if f"{positions}.weight" in parts:
                renamed.setdefault(f"model.{stack}.embed_positions.weight", parts[f"{positions}.weight"])
            table = parts.get(f"{positions}.table")
            if table is not None and not is_sinusoidal(table.squeeze()):
                raise ValueError(
                    "The positions of the source are not the paper's, sin and cos in turn at each position. A learned "
                    "table is called NAME.weight."
                )
    if "generator.weight" in parts:
        renamed["lm_head.weight"] = parts["generator.weight"]
    return renamed


def rename_stacks(stacks: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of both stacks under our names."""
    patterns: dict[str, str | None] = {}
    for stack, norms in NORMS.items():
        for pattern, new in (LAYER | norms).items():
            patterns[rf"{stack}\.layers\.(\d+)\.{pattern}"] = rf"model.{stack}.layers.\1." + new.replace(r"\1", r"\2")
        patterns[rf"{stack}\.norm\.(.+)"] = rf"model.{stack}.layer_norm.\1"
    pattern = r"(.*\.(?:self_attn|multihead_attn)\.)in_proj_(weight|bias)"
    return rename(split_thirds(stacks, pattern, ("q_proj", "k_proj", "v_proj")), patterns)


def read_config(renamed: dict[str, torch.Tensor], parts: dict[str, Any], settings: dict[str, Any], tokenizer: Any):
    """Return the configuration: sizes are those of the weights, the rest is what the user says.

    Raises:
        ValueError: A setting does not exist or does not fit.
    """
    source, target = (renamed[f"model.{stack}.embed_tokens.weight"] for stack in ("encoder", "decoder"))
    shared = "src_embedding.weight" not in parts
    if not shared and source.shape == target.shape and torch.equal(source, target):
        shared = True
    output = renamed.get("lm_head.weight")
    fields: dict[str, Any] = {
        "vocab_size": len(source),
        "decoder_vocab_size": len(target),
        "d_model": source.shape[1],
        "share_encoder_decoder_embeddings": shared,
        "tie_word_embeddings": output is None or (output.shape == target.shape and torch.equal(output, target)),
        "position_embedding_type": "sinusoidal",
        "label_smoothing": 0.0,
    }
    for stack in ("encoder", "decoder"):
        fields[f"{stack}_layers"] = number_of(f"model.{stack}.layers.", renamed)
        if not fields[f"{stack}_layers"]:
            raise ValueError(f"The source has no layers {stack}.layers.0 and so on: it is no nn.Transformer.")
        fields[f"{stack}_ffn_dim"] = len(renamed[f"model.{stack}.layers.0.feed_forward.fc1.weight"])
        learned = renamed.get(f"model.{stack}.embed_positions.weight")
        if learned is not None:
            fields |= {"position_embedding_type": "learned", "max_position_embeddings": len(learned)}
    norms = {f"model.{stack}.layer_norm.weight" in renamed for stack in ("encoder", "decoder")}
    if len(norms) > 1:
        raise ValueError("One stack of the source ends in a norm, and the other does not. Ours end alike.")
    fields["final_layer_norm"] = norms.pop()
    for name in ("pad", "bos", "eos"):
        fields[f"{name}_token_id"] = getattr(tokenizer, f"{name}_token_id")
    if unknown := settings.keys() - FunTransformerConfig.__dataclass_fields__.keys():
        raise ValueError(f"--set {some(unknown)}: FunTransformerConfig has no such field.")
    fields |= settings
    fields.setdefault("decoder_start_token_id", fields["bos_token_id"])
    for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
        if fields[name] is None:
            raise ValueError(f"The tokenizer has no such token: say --set {name}=NUMBER.")
    return FunTransformerConfig(**fields)


def run_torch(
    config: FunTransformerConfig,
    parts: dict[str, torch.Tensor],
    stacks: dict[str, torch.Tensor],
    source_ids: torch.Tensor,
    target_ids: torch.Tensor,
) -> torch.Tensor:
    """Run the source in `torch.nn` itself.

    Args:
        config: Of the converted model, for what a state dict does not say.
        parts: Embeddings, positions and output layer, from `find_parts`.
        stacks: Encoder and decoder, from there too.
        source_ids: (batch, source_len).
        target_ids: (batch, target_len).

    Returns:
        Logits, (batch, target_len, decoder_vocab_size).
    """
    heads = config.encoder_attention_heads
    common: dict[str, Any] = {"dropout": 0.0, "activation": config.activation_function, "batch_first": True}
    common |= {
        "norm_first": config.norm_position == "pre",
        "layer_norm_eps": config.layer_norm_eps,
        "bias": "encoder.layers.0.linear1.bias" in stacks,
    }
    if config.activation_function == "silu":
        common["activation"] = nn.functional.silu
    width = config.d_model
    encoder_layer = nn.TransformerEncoderLayer(width, heads, config.encoder_ffn_dim, **common)
    decoder_layer = nn.TransformerDecoderLayer(width, config.decoder_attention_heads, config.decoder_ffn_dim, **common)
    has_bias = "encoder.norm.bias" in stacks
    norms = [
        nn.LayerNorm(width, config.layer_norm_eps, bias=has_bias) if config.has_final_norm() else None
        for _ in range(2)
    ]
    encoder = nn.TransformerEncoder(encoder_layer, config.encoder_layers, norms[0], enable_nested_tensor=False)
    decoder = nn.TransformerDecoder(decoder_layer, config.decoder_layers, norms[1])
    both = nn.ModuleDict({"encoder": encoder, "decoder": decoder}).eval()
    both.load_state_dict({name: weight.float() for name, weight in stacks.items()})

    def first(*names: str) -> torch.Tensor:
        return next(parts[f"{name}.weight"] for name in names if f"{name}.weight" in parts)

    def embed(side: str, ids: torch.Tensor) -> torch.Tensor:
        embedding = first(f"{side}_embedding", "embedding")
        states = embedding.float()[ids] * (math.sqrt(width) if config.scale_embedding else 1.0)
        places = torch.arange(ids.shape[1])
        learned = parts.get(f"{side}_positions.weight", parts.get("positions.weight"))
        if learned is not None:
            return states + learned.float()[places]
        return states + SinusoidalPositions(config, heads, False)(places.unsqueeze(0), len(places))

    mask = nn.Transformer.generate_square_subsequent_mask(target_ids.shape[1])
    with torch.no_grad():
        states = decoder(embed("tgt", target_ids), encoder(embed("src", source_ids)), tgt_mask=mask)
    output = first("generator", "tgt_embedding", "embedding")
    bias = parts.get("generator.bias")
    return nn.functional.linear(states, output.float(), None if bias is None else bias.float())
