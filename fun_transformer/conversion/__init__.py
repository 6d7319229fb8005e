"""Models of other tools as models of ours, with equal logits; what ours cannot say is refused, with the reason."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from .source import Converted, Options, Reader
from .write import Agreement, convert, find_reader


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

__all__ = ["READERS", "Agreement", "Converted", "Options", "Reader", "convert", "find_reader"]
