"""Checkpoints of eole (a folder with config.json, vocab.json and safetensors) and of OpenNMT-py 3 (a .pt file).

Both train pre-norm Transformers whose output layer has a bias. Sources are their tokens, without an end.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from ..configuration_fun_transformer import FunTransformerConfig
from .sentencepiece_file import read_sentencepiece
from .source import Converted, Options, load_weights, words_in
from .vocabulary import Vocabulary, build_tokenizer, sentencepiece_backend, whitespace_backend
from .weights import build_model, rename

SPECIAL = {"unk_token": "<unk>", "pad_token": "<blank>", "bos_token": "<s>", "eos_token": "</s>"}
FILLER = "averyunlikelytoken"  # pads a vocabulary to a multiple
ATTENTION = {"linear_query": "q_proj", "linear_keys": "k_proj", "linear_values": "v_proj", "final_linear": "out_proj"}
EOLE = {
    "input_layernorm": "self_attn_layer_norm",
    r"mlp\.gate_up_proj": "feed_forward.fc1",
    r"mlp\.down_proj": "feed_forward.fc2",
}
OPENNMT = {
    r"feed_forward\.w_1": "feed_forward.fc1",
    r"feed_forward\.w_2": "feed_forward.fc2",
    r"feed_forward\.layer_norm": "final_layer_norm",
}
ENCODER = {
    "eole": {**EOLE, "post_attention_layernorm": "final_layer_norm"},
    "opennmt": {**OPENNMT, "layer_norm": "self_attn_layer_norm"},
}
DECODER = {
    "eole": {
        **EOLE,
        "precontext_layernorm": "encoder_attn_layer_norm",
        "post_attention_layernorm": "final_layer_norm",
    },
    "opennmt": {**OPENNMT, "layer_norm_1": "self_attn_layer_norm", "layer_norm_2": "encoder_attn_layer_norm"},
}
PLAIN: dict[
    str, tuple[Any, ...]
] = {  # what must have this value, or be missing; anything else has no place in a model of ours
    "layer_norm": ("standard", "standardFP32"),
    "parallel_residual": (False,),
    "shared_layer_norm": (False,),
    "ffn_layernorm": (False,),
    "relative_positions_buckets": (0,),
    "max_relative_positions": (0,),
    "sliding_window": (0,),
    "num_experts": (0,),
    "num_kv": (0,),
    "heads_kv": (None,),
    "head_dim": (None,),
    "attn_scaling": (None,),
    "query_norm": (False,),
    "key_norm": (False,),
    "value_norm": (False,),
    "q_gating": (False,),
    "layer_types": (None,),
    "encoder_layer_style": ("standard",),
    "final_encoder_layer_norm": (True,),
    "self_attn_type": ("scaled-dot", "scaled-dot-flash"),
    "position_shift": (0,),
    "normalize": (False,),
    "generator_function": ("softmax",),
    "copy_attn": (False,),
    "coverage_attn": (False,),
    "lora_layers": ([], None),
    "add_estimator": (False,),
}
NORM_EPS = {"eole": 1e-5, "opennmt": 1e-6}
ACTIVATIONS = ("relu", "gelu")  # silu has a gate in OpenNMT-py


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint of either tool says.

    Attributes:
        tool: "eole" or "opennmt".
        folder: Where its files are.
        weights: By the tool's names.
        vocab: Tokens of "src" and "tgt", and names of special tokens.
        model: Settings of the model, those of stacks under "encoder" and "decoder".
        transforms: What is done to texts before they are cut at spaces, in this order.
        files: Settings of these transforms.
    """

    tool: str
    folder: Path
    weights: Mapping[str, torch.Tensor]
    vocab: dict[str, Any]
    model: dict[str, Any]
    transforms: list[str]
    files: dict[str, Any]


def is_source(path: Path) -> bool:
    """Tell whether a folder is a checkpoint of eole, or a file one of OpenNMT-py."""
    if path.is_dir():
        return (path / "vocab.json").is_file() and (path / "config.json").is_file() and bool(safetensors_in(path))
    return path.suffix == ".pt" and {"opt", "vocab", "generator"} <= words_in(path)


def safetensors_in(folder: Path) -> list[Path]:
    """Return the weights of an eole checkpoint."""
    return sorted(folder.glob("model.*.safetensors"))


def read(path: Path, options: Options) -> Converted:
    """Convert a checkpoint.

    Raises:
        ValueError: It has what a model of ours cannot say, or is damaged.
        OSError: A file is missing.
    """
    if path.is_dir() and options.checkpoint:
        path = path / options.checkpoint
    found = read_eole(path) if path.is_dir() else read_opennmt(path)
    notes: list[str] = []
    sides = [make_vocabulary(found, side) for side in ("src", "tgt")]
    if len({(side.ids[side.pad], side.ids[side.bos], side.ids[side.eos]) for side in sides}) > 1:
        raise ValueError("The special tokens of source and target have different numbers.")
    weights = rename(found.weights, name_patterns(found.tool))
    bias = weights.pop("lm_head.bias", None)
    backends = [build_backend(found, side, vocabulary, notes) for side, vocabulary in zip(("src", "tgt"), sides)]
    config = read_config(found, sides)
    if missing := backends[0].get_vocab_size() - len(sides[0].tokens):
        add_rows(config, weights, missing, sides[0])
        notes.append(
            f"{missing} pieces of the SentencePiece model that the vocabulary lacks are read as {sides[0].unk}"
        )
    model = build_model(config, weights, bias)
    if bias is not None and found.model.get("share_decoder_embeddings"):
        notes.append("the output layer has a bias, and so is no longer the embedding: a matrix more")
    set_generation(model, sides[1])
    return Converted(model, build_tokenizer(backends[0], sides[0], backends[1]), notes)


def read_eole(folder: Path) -> Checkpoint:
    """Read a checkpoint of eole.

    Raises:
        ValueError: It is damaged.
        OSError: A file is missing.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder} has no readable config.json and vocab.json: {error}.") from error
    weights: dict[str, torch.Tensor] = {}
    for file in safetensors_in(folder):
        weights |= load_weights(file)
    transforms = config.get("transforms") or []
    return Checkpoint(
        "eole", folder, weights, vocab, config["model"], transforms, config.get("transforms_configs") or {}
    )


def read_opennmt(path: Path) -> Checkpoint:
    """Read a checkpoint of OpenNMT-py 3; its settings are an `argparse.Namespace`, which runs nothing.

    Raises:
        ValueError: It is damaged, or an older one whose vocabulary is code.
        OSError: A file is missing.
    """
    found = load_weights(path, [argparse.Namespace])
    if not isinstance(found, dict) or not {"model", "vocab", "opt"} <= found.keys():
        raise ValueError(f"{path} is no checkpoint of OpenNMT-py 3 in its own format (save_format: pytorch).")
    opt = vars(found["opt"])
    stacks = {stack: {"layers": opt[f"{stack[:3]}_layers"]} for stack in ("encoder", "decoder")}
    for stack in stacks:
        stacks[stack][f"{stack}_type"] = opt[f"{stack}_type"]
    model = opt | stacks | {"mlp_activation_fn": opt["pos_ffn_activation_fn"]}
    types = opt.get("position_encoding_type")
    model["embeddings"] = {"position_encoding_type": types if opt["position_encoding"] else None}
    weights = dict(found["model"])
    weights |= {f"generator.{name}": weight for name, weight in (found["generator"] or {}).items()}
    transforms = opt["data"]["corpus_1"]["transforms"] if "corpus_1" in opt["data"] else opt["transforms"]
    return Checkpoint("opennmt", path.parent, weights, found["vocab"], model, transforms, {"all": opt})


def name_patterns(tool: str) -> dict[str, str | None]:
    """Return a tool's names of weights, and ours."""
    tables: dict[str, dict[str, str | None]] = {
        "eole": {
            r"src_emb\.embeddings\.weight": "model.encoder.embed_tokens.weight",
            r"tgt_emb\.embeddings\.weight": "model.decoder.embed_tokens.weight",
            r"src_emb\.pe\.weight": "model.encoder.embed_positions.weight",
            r"tgt_emb\.pe\.weight": "model.decoder.embed_positions.weight",
            r"(src|tgt)_emb\.pe\.pe": None,  # sinusoids
            r".*\.layer_scalar": None,  # of Gemma; 1 in others
        },
        "opennmt": {
            r"(encoder|decoder)\.embeddings\.make_embedding\.emb_luts\.0\.weight": r"model.\1.embed_tokens.weight",
            r"(encoder|decoder)\.embeddings\.make_embedding\.pe\.pe": None,
        },
    }
    patterns = tables[tool]
    patterns |= {
        r"generator\.(weight|bias)": r"lm_head.\1",
        r"(encoder|decoder)\.layer_norm\.(.+)": r"model.\1.layer_norm.\2",
    }
    attention = {rf"self_attn\.{theirs}": f"self_attn.{ours}" for theirs, ours in ATTENTION.items()}
    to_source = {rf"context_attn\.{theirs}": f"encoder_attn.{ours}" for theirs, ours in ATTENTION.items()}
    for stack, sublayers in (("encoder", ENCODER[tool]), ("decoder", DECODER[tool] | to_source)):
        for theirs, ours in (attention | sublayers).items():
            pattern = rf"{stack}\.transformer(?:_layers)?\.(\d+)\.{theirs}\.(weight|bias)"
            patterns[pattern] = rf"model.{stack}.layers.\1.{ours}.\2"
    return patterns


def settings_of(model: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield all settings of a model, those of its embeddings and stacks too."""
    for name, value in model.items():
        if isinstance(value, dict):
            yield from value.items()
        else:
            yield name, value


def read_config(found: Checkpoint, sides: list[Vocabulary]) -> FunTransformerConfig:
    """Return the configuration of a checkpoint.

    Raises:
        ValueError: The model has what ours cannot say.
    """
    model = found.model
    for name, value in settings_of(model):
        if name in PLAIN and value not in PLAIN[name]:
            raise ValueError(f"The model has {name}: {value}, which a model of ours cannot say.")
    for stack in ("encoder", "decoder"):
        if not model.get(stack) or model[stack].get(f"{stack}_type", "transformer") != "transformer":
            kind = (model.get(stack) or {}).get(f"{stack}_type")
            raise ValueError(f"The {stack} is {kind}: only transformer has a place in a model of ours.")

    def setting(stack: str, name: str) -> Any:
        return model[stack].get(name, model.get(name))

    activation: Any = both(model, "mlp_activation_fn") or "relu"
    if activation not in ACTIVATIONS:
        raise ValueError(f"The model has the activation {activation}; only {' and '.join(ACTIVATIONS)} are known.")
    width = both(model, "hidden_size")
    vocabulary, target = sides
    fields: dict[str, Any] = {}
    for stack in ("encoder", "decoder"):
        fields |= {
            f"{stack}_layers": setting(stack, "layers"),
            f"{stack}_attention_heads": setting(stack, "heads") or 8,
            f"{stack}_ffn_dim": setting(stack, "transformer_ff") or 2048,
        }
    return FunTransformerConfig(
        **fields,
        **positions_of(found),
        vocab_size=len(vocabulary.tokens),
        decoder_vocab_size=len(target.tokens),
        d_model=width,
        norm_position="pre",
        layer_norm_eps=both(model, "norm_eps") or NORM_EPS[found.tool],
        activation_function=activation,
        share_encoder_decoder_embeddings=bool(model.get("share_embeddings")),
        tie_word_embeddings=bool(model.get("share_decoder_embeddings")),
        pad_token_id=vocabulary.ids[vocabulary.pad],
        bos_token_id=vocabulary.ids[vocabulary.bos],
        eos_token_id=vocabulary.ids[vocabulary.eos],
        decoder_start_token_id=target.ids[found.vocab.get("decoder_start_token") or target.bos],
    )


def both(model: dict[str, Any], name: str) -> Any:
    """Return what encoder and decoder say, or the model for both.

    Raises:
        ValueError: They differ, which ours cannot.
    """
    values = [model[stack].get(name, model.get(name)) for stack in ("encoder", "decoder")]
    if values[0] != values[1]:
        raise ValueError(f"The encoder has {name}: {values[0]}, the decoder {values[1]}; in ours they are alike.")
    return values[0]


def positions_of(found: Checkpoint) -> dict[str, Any]:
    """Return how positions are told, as fields of the configuration.

    Raises:
        ValueError: In a way that ours cannot.
    """
    embeddings = found.model.get("embeddings") or {}
    kind = embeddings.get("position_encoding_type", "SinusoidalInterleaved")
    if kind == "SinusoidalInterleaved":
        return {"position_embedding_type": "sinusoidal", "scale_embedding": True}
    if kind == "Learned":
        longest = embeddings["n_positions"]
        return {"position_embedding_type": "learned", "max_position_embeddings": longest, "scale_embedding": False}
    raise ValueError(f"The model has position_encoding_type: {kind}; known are SinusoidalInterleaved and Learned.")


def make_vocabulary(found: Checkpoint, side: str) -> Vocabulary:
    """Return the tokens of a side; only targets end in `</s>`."""
    special = SPECIAL | (found.vocab.get("specials") or {})
    names = {name.removesuffix("_token"): token for name, token in special.items() if name in SPECIAL}
    tokens = found.vocab[side]
    return Vocabulary(tokens, **names, ends=side == "tgt")


def build_backend(found: Checkpoint, side: str, vocabulary: Vocabulary, notes: list[str]) -> Tokenizer:
    """Return the tokenizer of a side; what it leaves to others is added to the notes.

    Of sources it may have more tokens than the vocabulary: pieces that are read as unknown. Targets are only joined.
    """
    transforms = [name for name in found.transforms if not name.startswith(("filtertoolong", "suffix", "prefix"))]
    if transforms == ["sentencepiece"]:
        settings = found.files.get("sentencepiece") or found.files.get("all") or {}
        model = settings.get(f"{side}_subword_model") or settings.get("src_subword_model")
        if not model:
            raise ValueError(f"The settings name no {side}_subword_model for the transform sentencepiece.")
        file = find_file(found.folder, model)
        known = set(vocabulary.tokens)
        extra = [piece for piece in read_sentencepiece(file).texts if piece not in known and side == "src"]
        wider = Vocabulary([*vocabulary.tokens, *extra], *special_of(vocabulary), ends=vocabulary.ends)
        return sentencepiece_backend(wider, file)
    if transforms:
        notes.append(f"{side}: apply {', '.join(transforms)} to texts first; they are cut at spaces")
    else:
        notes.append(f"{side}: texts are cut at spaces, as the tool does")
    return whitespace_backend(vocabulary)


def special_of(vocabulary: Vocabulary) -> tuple[str, str, str, str]:
    """Return the special tokens as `Vocabulary` takes them."""
    return vocabulary.pad, vocabulary.bos, vocabulary.eos, vocabulary.unk


def find_file(folder: Path, name: str) -> Path:
    """Return a file that the settings name: beside the checkpoint, or where it was."""
    beside = folder / Path(name.replace("${MODEL_PATH}/", "")).name
    return beside if beside.is_file() else Path(name)


def add_rows(
    config: FunTransformerConfig, weights: dict[str, torch.Tensor], number: int, vocabulary: Vocabulary
) -> None:
    """Give the source's embedding rows that are equal to the unknown token's, apart from the target's."""
    source = "model.encoder.embed_tokens.weight"
    old = weights[source]
    if config.share_encoder_decoder_embeddings:
        weights["model.decoder.embed_tokens.weight"] = old
        config.share_encoder_decoder_embeddings = False
    unknown = old[vocabulary.ids[vocabulary.unk]]
    weights[source] = torch.cat([old, unknown.expand(number, -1)])
    config.vocab_size += number


def set_generation(model: Any, target: Vocabulary) -> None:
    """Never generate what the tool never learned to write: the beginning of a text, and what only fills up."""
    filled = [number for number, token in enumerate(target.tokens) if token.startswith(FILLER)]
    model.generation_config.suppress_tokens = [target.ids[target.pad], target.ids[target.bos], *filled]
