"""Which tools' models are read, and which tool a source is of."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from .source import Reader


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
        ValueError: There is no such kind, or the source is of none.
        OSError: There is no such source.
    """
    if not source.exists():
        raise FileNotFoundError(f"There is no file or folder {source}.")
    if kind is not None:
        if kind not in READERS:
            raise ValueError(f"There is no kind {kind}. Choose one of {', '.join(READERS)}.")
        return READERS[kind]
    for reader in READERS.values():
        if reader.is_source(source):
            return reader
    known = "; ".join(f"{name}: {reader.text}" for name, reader in READERS.items())
    raise ValueError(f"{source} is of no kind that is known ({known}). If it is one of them, say so with --from.")
