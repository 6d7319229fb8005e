"""Find damaged weights without loading them: what their files say, beside the model that the config describes."""

import json
import math
import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from transformers import PreTrainedModel

from .code import is_in_transformers, malformed_fields, saved_class
from .contents import INDEX, WEIGHTS, RepoFiles, is_adapter, local_files, read_json, weight_files, weight_map

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
MAX_HEADER = 100_000_000  # bytes, as in the safetensors library
CHUNK = 1 << 24  # bytes that are looked at together
SHOWN = 3
MANY_LAYERS = 1000
# Fields that may fetch and run code when a model is built.
NOT_BUILT = {"attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor is in a file: its bytes are those from `start` to `end`."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def folder_damage(folder: Path) -> list[str]:
    """Name what would hinder the loading of a folder's weights, as far as the headers of its files tell it."""
    if not folder.is_dir():
        return []
    files = replace(local_files(folder, {path.name for path in folder.iterdir()}), is_local=False)
    if WEIGHTS not in files.names and INDEX not in files.names:
        return []
    try:
        read_json("generation_config.json", files)  # transformers would leave a broken one out without a word
        config = read_json("config.json", files)
        return [] if any(malformed_fields(config, {})) else list(weight_problems(files, config))
    except ValueError as error:
        return [str(error)]


def weight_problems(files: RepoFiles, config: dict[str, Any]) -> Iterator[str]:
    """Name what is wrong with a repo's weights. On the Hub only the headers of their files are read.

    Args:
        files: The files of the repo.
        config: The content of its config.json.
    """
    found: dict[str, dict[str, StoredTensor]] = {}  # file -> its tensors
    broken = False
    for name in weight_files(files):
        if name not in files.names:
            broken = True
            wanted_by = "there are no weights." if name == WEIGHTS else f"{INDEX} names it."
            yield f"{name} is missing: {wanted_by}"
            continue
        try:
            with files.open(name) as file:
                found[name] = read_stored_tensors(file)
        except ValueError as error:
            broken = True
            yield f"{name} is damaged: {error} Save or copy it again."
    if not broken:
        if WEIGHTS not in files.names and not is_adapter(files.names):
            yield from index_problems(weight_map(files), found)
        shapes = {name: tensor.shape for tensors in found.values() for name, tensor in tensors.items()}
        yield from shape_problems(shapes, config)
    if files.is_local:
        for name, tensors in found.items():
            with files.open(name) as file:
                yield from value_problems(name, file, tensors)


def read_stored_tensors(file: BinaryIO) -> dict[str, StoredTensor]:
    """Read the header of a safetensors file: the places of its tensors, which are checked against the file's size.

    Raises:
        ValueError: The file is no safetensors file, or not whole.
    """
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(8)
    if start == b"version ":
        raise ValueError("it is only a pointer of Git LFS; `git lfs pull` fetches the content.")
    if size < 8:
        raise ValueError(f"it has {size} bytes.")
    first = 8 + int.from_bytes(start, "little")
    if first > MAX_HEADER:
        raise ValueError("it does not begin as a safetensors file does.")
    if first > size:
        raise ValueError(f"it ends after {size:,} bytes, inside its header.")
    tensors = parse_header(file.read(first - 8), first)
    end = first
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        dtype = DTYPES.get(tensor.dtype)
        length = tensor.end - tensor.start if dtype is None else math.prod(tensor.shape) * dtype.itemsize
        if tensor.start != end or length < 0 or tensor.end != end + length:
            raise ValueError(f"{name} is not where its header says.")
        end = tensor.end
    if size != end:
        raise ValueError(f"it has {size:,} bytes, where its header says {end:,}.")
    return tensors


def parse_header(text: bytes, first: int) -> dict[str, StoredTensor]:
    """Return the tensors of a header, which counts bytes from the end of it, at `first`.

    Raises:
        ValueError: It is no list of tensors.
    """
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        tensors = {}
        for name, entry in entries.items():
            start, end = (first + operator.index(offset) for offset in entry["data_offsets"])
            tensors[name] = StoredTensor(str(entry["dtype"]), tuple(map(operator.index, entry["shape"])), start, end)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError("its header is no list of tensors.") from error
    if not tensors:
        raise ValueError("it holds no tensors.")
    return tensors


def index_problems(shards: dict[str, str], found: dict[str, dict[str, StoredTensor]]) -> Iterator[str]:
    """Name tensors that are not in the shard that the index names."""
    if lost := [name for name, shard in shards.items() if name not in found[shard]]:
        yield f"{INDEX} names tensors that are not in its files: {some(lost)}. Save the model again."


def shape_problems(shapes: dict[str, tuple[int, ...]], config: dict[str, Any]) -> Iterator[str]:
    """Name tensors that are missing, too many or of another shape than the config's model needs.

    Args:
        shapes: Those of the stored tensors, by name.
        config: The content of config.json. Nothing can be said of a model that this installation does not know.
    """
    model_class = saved_class(config)
    if model_class is None or "quantization_config" in config:
        return
    for field, count in config.items():  # or building the model would take hours
        if field.endswith("layers") and isinstance(count, int) and count > max(MANY_LAYERS, len(shapes)):
            yield f"config.json has {field}={count}, but there are only {len(shapes)} tensors."
            return
    try:
        model = build_on_meta(model_class, config)
    except Exception as error:  # whatever a damaged config makes a model class raise
        yield f"config.json describes no {model_class.__name__} that can be built: {' '.join(str(error).split())}"
        return
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for name in [name for name, shape in expected.items() if shapes.get(name, shape) != shape][:SHOWN]:
        yield f"{name} has the shape {shapes[name]}, but by config.json it is {expected[name]}."
    missing = [name for name in expected if name not in shapes and not is_given_otherwise(name, shapes, model)]
    ignored = model._keys_to_ignore_on_load_unexpected or ()
    extra = [name for name in shapes if name not in expected and not any(re.search(key, name) for key in ignored)]
    if is_in_transformers(model_class) and missing and extra:
        return  # old names, which transformers translates when it loads
    if missing:
        yield f"The weights lack {some(missing)}, which {model_class.__name__} needs. Save the model again."
    if extra and not is_in_transformers(model_class):
        yield f"The weights hold {some(extra)}, which the model of config.json does not have. Save both together."


def build_on_meta(model_class: type[PreTrainedModel], config: dict[str, Any]) -> PreTrainedModel:
    """Build a model without memory for its weights."""

    def plain(fields: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in fields.items() if name not in NOT_BUILT}
        return {name: plain(value) if isinstance(value, dict) else value for name, value in kept.items()}

    config_class: Any = model_class.config_class
    with torch.device("meta"):
        return model_class(config_class.from_dict(plain(config)))


def is_given_otherwise(name: str, stored: dict[str, Any], model: PreTrainedModel) -> bool:
    """Whether a tensor need not be stored: one that it is tied to is, or the model computes it."""
    sources = model.all_tied_weights_keys  # target -> source
    source = sources.get(name, name)
    tied = {source, *(target for target, other in sources.items() if other == source)}
    computed = model._keys_to_ignore_on_load_missing or ()
    return not tied.isdisjoint(stored) or any(re.search(key, name) for key in computed)


def value_problems(file_name: str, file: BinaryIO, tensors: dict[str, StoredTensor]) -> Iterator[str]:
    """Name tensors with values that are not finite; a file is read in pieces, so that it needs little memory."""
    bad = [name for name, tensor in tensors.items() if not is_finite(file, tensor)]
    if bad:
        yield f"{file_name} has values that are NaN or infinite, in {some(bad)}. Publish a model from before that."


def is_finite(file: BinaryIO, tensor: StoredTensor) -> bool:
    """Whether all values of a stored tensor are finite."""
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None or not dtype.is_floating_point:
        return True
    file.seek(tensor.start)
    for start in range(tensor.start, tensor.end, CHUNK):
        values = torch.frombuffer(bytearray(file.read(min(CHUNK, tensor.end - start))), dtype=dtype)
        if dtype.itemsize == 1:
            values = values.float()
        if not values.isfinite().all():
            return False
    return True


def some(names: list[str]) -> str:
    """Return a few names, and how many there are."""
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")
