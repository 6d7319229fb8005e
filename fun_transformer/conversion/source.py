"""What a reader of other tools' models is, and what a user may say about a source."""

import json
import pickletools
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

OTHER_FRAMEWORKS = ["*.h5", "*.msgpack", "*.ot", "*.onnx"]  # the same weights again


@dataclass(frozen=True)
class Options:
    """What a user says that a source does not say itself.

    Attributes:
        names: Name of a weight, or the beginning of one -> the name that the reader knows it by.
        settings: Fields of `FunTransformerConfig` -> values.
        tokenizer: A folder with a tokenizer of transformers, or one or two files with tokens.
        checkpoint: Which of several checkpoints in a folder.
    """

    names: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    tokenizer: Sequence[str] = ()
    checkpoint: str | None = None


@dataclass(frozen=True)
class Converted:
    """A model of another tool as one of ours.

    Attributes:
        model: The model, in eval mode.
        tokenizer: Its tokenizer.
        notes: What a user should know, a line each.
        run: Runs the source itself where that is possible: ids of sources and of targets so far, both
            (batch, len) without padding -> logits (batch, target_len, vocab_size).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    notes: list[str] = field(default_factory=list)
    run: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None


@dataclass(frozen=True)
class Reader:
    """Reads the models of one tool.

    Attributes:
        text: What it reads, in words.
        is_source: Tells whether a file or folder is of this tool, without loading it.
        read: Converts it.
    """

    text: str
    is_source: Callable[[Path], bool]
    read: Callable[[Path, Options], Converted]


def find_source(source: str | Path) -> Path:
    """Return the file or folder that is converted; of a name on the Hub, what was downloaded of it.

    Raises:
        OSError: There is no such file or folder, and no such name on the Hub, or that cannot be reached.
    """
    from huggingface_hub import snapshot_download

    path = Path(source)
    if path.exists():
        return path
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(source)):
        raise FileNotFoundError(f"There is no file or folder {source}.")
    try:
        return Path(snapshot_download(str(source), ignore_patterns=OTHER_FRAMEWORKS))
    except OSError as error:
        reason = str(error).strip().split("\n")[0]
        raise OSError(
            f"There is no folder {source} here, and the Hub did not give a model {source}: {reason}"
        ) from error


def words_in(path: Path) -> set[str]:
    """Return the names of weights and other strings in a file of weights without loading it; none in other files."""
    try:
        if path.suffix == ".safetensors":
            with path.open("rb") as file:
                return set(json.loads(file.read(int.from_bytes(file.read(8), "little"))))
        with zipfile.ZipFile(path) as archive:
            pickled = [archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")]
        return {word for data in pickled for _, word, _ in pickletools.genops(data) if isinstance(word, str)}
    except (OSError, ValueError, OverflowError, MemoryError, zipfile.BadZipFile):
        return set()


def load_weights(path: Path, also: Sequence[type] = ()) -> Any:
    """Load a file that `torch.save` wrote, or a safetensors file, without running code that is in it.

    Args:
        path: The file.
        also: Classes that it may hold besides tensors and plain Python objects; only harmless ones.

    Raises:
        ValueError: It cannot be read, or only by running code.
        OSError: There is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(list(also)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types: pickle's, zip's, torch's
        if path.suffix == ".safetensors" or zipfile.is_zipfile(path):
            reason = str(error).split("\n")[0]
        elif path.stat().st_size:
            reason = "it is no file that torch.save wrote, or only a part of one. Copy it again."
        else:
            reason = "it is empty. Copy it again."
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise ValueError(
                f"{path} holds Python objects and not only weights; reading them could run any code, so it is not "
                "read. Save its state dict alone: torch.save(model.state_dict(), ...)."
            ) from error
        raise ValueError(f"{path} cannot be read: {reason}") from error
