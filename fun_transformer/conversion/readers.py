"""Which tools' models are read, and which tool a source is of."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING

from .source import Reader, load_weights, words_in

OF_WEIGHTS = (".bin", ".ckpt", ".pt", ".pth", ".safetensors")


def _reader(text: str, module: str) -> Reader:
    """Return a reader whose file of this folder is loaded when it is first asked."""

    def late(name: str) -> Callable[..., Any]:
        return lambda *arguments: getattr(import_module(f".{module}", __package__), name)(*arguments)

    return Reader(text, late("is_source"), late("read"))


READERS: dict[str, Reader] = {  # in the order in which they are asked whether a source is theirs
    "marian": _reader(
        "a folder of MarianMT (OPUS-MT), PEGASUS, Blenderbot or M2M100 (NLLB) in transformers", "marian"
    ),
    "joeynmt": _reader("the folder of a JoeyNMT run, or a .ckpt in it", "joeynmt"),
    "eole": _reader("the folder of an eole checkpoint, or a .pt file of OpenNMT-py 3", "eole"),
    "torch": _reader("a state dict of torch.nn.Transformer with embeddings", "torch_nn"),
}


def find_reader(source: Path, kind: str | None = None) -> Reader:
    """Return who reads a source.

    Raises:
        ValueError: There is no such kind, or the source is of none, cannot be read, or came from a model of ours.
        OSError: There is no such source.
    """
    if not source.exists():
        raise FileNotFoundError(f"There is no file or folder {source}.")
    if reason := why_not_converted(source):
        raise ValueError(f"{source} {reason}")
    if kind is not None:
        if kind not in READERS:
            raise ValueError(f"There is no kind {kind}. Choose one of {', '.join(READERS)}.")
        return READERS[kind]
    for reader in READERS.values():
        if reader.is_source(source):
            return reader
    if source.is_file() and source.suffix in OF_WEIGHTS and not words_in(source):
        load_weights(source)  # says why it cannot be read
    known = "; ".join(f"{name}: {reader.text}" for name, reader in READERS.items())
    raise ValueError(f"{source} is of no kind that is known ({known}). If it is one of them, say so with --from.")


def why_not_converted(source: Path) -> str:
    """Return why what is one of our own models or exports is not converted; "" for all else."""
    if source.is_file() and source.name not in ("model.bin", "model.safetensors"):
        return ""
    folder = source if source.is_dir() else source.parent
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    config = config if isinstance(config, dict) else {}
    model_type = str(config.get("model_type"))
    if (folder / "model.bin").is_file() and list(folder.glob("*_vocabulary.*")):
        reason = "is a folder of CTranslate2, which is not read back: convert the model that it was made from."
    elif "transformers.js_config" in config and not [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        reason = "is an export to ONNX, which is not read back: convert the model that it was made from."
    elif model_type in CONFIG_MAPPING and CONFIG_MAPPING[model_type].__module__.startswith("fun_transformer."):
        reason = f"is a model of this package already ({model_type}): use it as it is."
    else:
        reason = ""
    return reason
