"""What `benchmarks.translation` compares: one set of weights in several programs, types and formats.

    pip install 'fun-transformer[ctranslate2,onnx,interop]'

Each contender is made from the same folder: loaded, or converted and loaded. It translates a batch of texts, from text
to text. JoeyNMT and eole take part in `benchmarks.training`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, MarianConfig, MarianMTModel

import fun_transformer  # noqa: F401 (registers the models)
from fun_transformer.int8 import Int8Config

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MAX_NEW_TOKENS = 100
Translate = Callable[[list[str], int], list[str]]  # texts of a batch, number of beams -> outputs


class Unavailable(Exception):
    """Why a contender cannot take part."""


class Workshop:
    """The model of a comparison, and a folder for what is made of it.

    Args:
        model: Folder of the model.
        folder: Where converted models are written.
        threads: Threads of each contender.
    """

    def __init__(self, model: str, folder: Path, threads: int):
        self.model, self.folder, self.threads = model, folder, threads
        self.tokenizer = AutoTokenizer.from_pretrained(model)

    def load(self, dtype: torch.dtype = torch.float32) -> Any:
        """Load the model as it is."""
        return AutoModelForSeq2SeqLM.from_pretrained(self.model, dtype=dtype)


Build = Callable[[Workshop], Translate]


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def with_generate(model: Any, tokenizer: Any) -> Translate:
    """Translate with `generate` of a model of transformers."""
    model = model.to(DEVICE).eval()

    def translate(texts: list[str], num_beams: int) -> list[str]:
        encoded = tokenizer(texts, return_tensors="pt", padding=True).to(DEVICE)
        inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        length = {"max_new_tokens": MAX_NEW_TOKENS, "length_penalty": 1.0, "early_stopping": False}
        output_ids = model.generate(**inputs, num_beams=num_beams, do_sample=False, **length)
        return tokenizer.batch_decode(output_ids, skip_special_tokens=True)

    return translate


def ours(dtype: torch.dtype) -> Build:
    """Our model, in a type."""
    return lambda workshop: with_generate(workshop.load(dtype), workshop.tokenizer)


def ours_int8(workshop: Workshop) -> Translate:
    """Our model with weights in 8 bits."""
    model = AutoModelForSeq2SeqLM.from_pretrained(workshop.model, quantization_config=Int8Config())
    return with_generate(model, workshop.tokenizer)


def to_marian(model: Any) -> MarianMTModel:
    """Return a Marian of the same weights, the dimensions of d_model reordered: even ones first, then odd ones."""
    config = model.config
    if (config.norm_position, config.position_embedding_type) != ("post", "sinusoidal"):
        raise Unavailable("Marian has layer norms after sublayers and sinusoids alone")
    shared = ["d_model", "vocab_size", "decoder_vocab_size", "scale_embedding", "activation_function"]
    sizes = ("layers", "attention_heads", "ffn_dim")
    shared += [f"{side}_{name}" for side in ("encoder", "decoder") for name in sizes]
    shared += ["pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "max_position_embeddings"]
    marian = MarianMTModel(MarianConfig(**{name: getattr(config, name) for name in shared}, forced_eos_token_id=None))
    order = torch.cat([torch.arange(0, config.d_model, 2), torch.arange(1, config.d_model, 2)])
    state = {}
    for name, tensor in model.state_dict().items():
        inputs = any(part in name for part in ("q_proj.w", "k_proj.w", "v_proj.w", "fc1.w", "embed", "lm_head"))
        if inputs:
            tensor = tensor[:, order]
        elif any(part in name for part in ("out_proj", "fc2", "layer_norm")):
            tensor = tensor[order]
        state[name.replace("feed_forward.", "")] = tensor
    state["model.shared.weight"] = state["model.encoder.embed_tokens.weight"]
    unknown = marian.load_state_dict(state, strict=False).unexpected_keys
    if unknown:
        raise Unavailable(f"Marian has no {unknown[0]}")
    return marian


def marian(dtype: torch.dtype) -> Build:
    """transformers' own translation model, with our weights."""
    return lambda workshop: with_generate(to_marian(workshop.load()).to(dtype), workshop.tokenizer)


CONTENDERS: dict[str, Build] = {
    "ours fp32": ours(torch.float32),
    "ours bf16": ours(torch.bfloat16),
    "ours int8": ours_int8,
    "MarianMT fp32": marian(torch.float32),
    "MarianMT bf16": marian(torch.bfloat16),
}
