"""What `benchmarks.translation` compares: one set of weights in several programs, types and formats.

    pip install 'fun-transformer[ct2,onnx]'

Each contender is made from the same folder: loaded, or exported and loaded. It translates a batch of texts, from text
to text. JoeyNMT and eole take part in `benchmarks.training`: no weights of ours can be given to them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import fun_transformer  # noqa: F401 (registers the models)
from fun_transformer.export import find_format
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


def exported(name: str, quantization: str | None, load: Callable[[Path, Workshop], Any]) -> Build:
    """What `fun-transformer export` writes, run by the program that it is for.

    Args:
        name: Of the format.
        quantization: One of the format's, or None.
        load: Returns what translates, from the folder.
    """

    def build(workshop: Workshop) -> Translate:
        try:
            format = find_format(name)
            model, folder = workshop.load(), workshop.folder / f"{name}-{quantization}"
            format.check(model, workshop.tokenizer, quantization)
            if not folder.exists():
                folder.mkdir()
                format.write(model, workshop.tokenizer, folder, quantization)
            return load(folder, workshop)
        except (ImportError, ValueError) as error:
            raise Unavailable(str(error)) from error

    return build


def stock(dtype: torch.dtype) -> Callable[[Path, Workshop], Translate]:
    """A class of transformers, in a type."""

    def load(folder: Path, workshop: Workshop) -> Translate:
        return with_generate(AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype), workshop.tokenizer)

    return load


def ctranslate2(compute_type: str) -> Callable[[Path, Workshop], Translate]:
    """CTranslate2 itself, without a line of ours between the tokens and its answers."""

    def load(folder: Path, workshop: Workshop) -> Translate:
        from ctranslate2 import Translator

        tokenizer = workshop.tokenizer
        settings = {"compute_type": compute_type, "intra_threads": workshop.threads, "inter_threads": 1}
        translator = Translator(str(folder), DEVICE.type, **settings)

        def translate(texts: list[str], num_beams: int) -> list[str]:
            tokens = [tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer(texts)["input_ids"]]
            length = {"max_decoding_length": MAX_NEW_TOKENS, "length_penalty": 1.0}
            results = translator.translate_batch(tokens, beam_size=num_beams, **length)
            ids = [tokenizer.convert_tokens_to_ids(result.hypotheses[0]) for result in results]
            return tokenizer.batch_decode(ids, skip_special_tokens=True)

        return translate

    return load


def onnx_runtime(folder: Path, workshop: Workshop) -> Translate:
    """ONNX Runtime for each step, and the search of transformers."""
    from fun_transformer.export.onnx_model import OnnxModel

    if DEVICE.type != "cpu":
        raise Unavailable("ONNX Runtime is asked for CPUs alone")
    return with_generate(OnnxModel.open(folder), workshop.tokenizer)


CONTENDERS: dict[str, Build] = {
    "ours fp32": ours(torch.float32),
    "ours bf16": ours(torch.bfloat16),
    "ours int8": ours_int8,
    "MarianMT fp32": exported("marian", None, stock(torch.float32)),
    "MarianMT bf16": exported("marian", None, stock(torch.bfloat16)),
    "CTranslate2 fp32": exported("ct2", None, ctranslate2("float32")),
    "CTranslate2 bf16": exported("ct2", None, ctranslate2("bfloat16")),
    "CTranslate2 int8": exported("ct2", "int8", ctranslate2("int8")),
    "ONNX Runtime fp32": exported("onnx", None, onnx_runtime),
    "ONNX Runtime int8": exported("onnx", "int8", onnx_runtime),
}
