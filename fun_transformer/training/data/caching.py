"""Keep tokenized rows on disk, and find them again by content: that of the rows and of the tokenizer.

Neither the paths of files nor the identity of objects matters, so that the same rows are tokenized once. What takes
long to find out about many rows, their content among it, is kept as well, under the name that `datasets` gives to them
(`remembered`): to read ten million rows again takes minutes.
"""

import hashlib
import inspect
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ..platform import available_cores

SIDES = (  # how they differ
    *("source_type", "target_type", "lowercase", "normalization", "target_tokenizer", "src_lang", "tgt_lang"),
)
ROWS_PER_PROCESS = 20_000  # starting a process takes as long as some thousand rows


def processes_for(rows: int) -> int | None:
    """Return how many processes are to work on this many rows; None for this one alone."""
    processes = min(available_cores(), rows // ROWS_PER_PROCESS)
    return processes if processes > 1 else None


def processes_of(folder: Path, key: str) -> int | None:
    """Return how many processes made what is kept under a key, so that others find it again; None where one did."""
    done = re.search(r"_of_(\d+)", next((path.name for path in folder.glob(f"{key}_*_of_*.arrow")), ""))
    return int(done[1]) if done else None


def cache_folder() -> Path:
    """Return the folder of what is kept, which is made where it is missing."""
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "fun_transformer"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def name_of(rows: datasets.Dataset, *parts: Any) -> str:
    """Return a name for what is found out about a data set; "" where that is not worth keeping, or has no safe name.

    `datasets` names rows by how they were made. So that nothing is mixed up where somebody changes its files, their
    sizes and times are in the name as well. Few rows are looked at quickly, and rows in memory are new each time.

    Args:
        rows: Of any origin.
        parts: What else decides the outcome; the code of functions among them, and their file, counts.
    """
    files = [Path(file["filename"]) for file in rows.cache_files]
    if len(rows) < ROWS_PER_PROCESS or not files or not datasets.is_caching_enabled():
        return ""
    states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    functions = [part for part in parts if callable(part)]
    digest = hashlib.blake2b(repr((rows._fingerprint, len(rows), states)).encode(), digest_size=16)
    digest.update(repr([part for part in parts if not callable(part)]).encode())
    for function in functions:
        try:
            digest.update(Path(inspect.getsourcefile(function) or "").read_bytes())
        except (OSError, TypeError):  # no file, as in an interactive session
            return ""
        digest.update(f"{function.__module__}.{function.__qualname__}".encode())
    return digest.hexdigest()


def remembered(rows: datasets.Dataset, function: Callable[..., np.ndarray], *arguments: Any) -> np.ndarray:
    """Return what a function finds out about a data set, from the disk where it has been found before.

    Args:
        rows: Of any origin.
        function: From the rows and the arguments to an array of numbers.
        arguments: Given to the function; of values that `repr` tells apart.
    """
    name = name_of(rows, function, arguments)
    if not name:
        return function(rows, *arguments)
    path = cache_folder() / f"{name}.npy"
    try:
        return np.load(path)
    except (OSError, ValueError, EOFError):  # not there, or cut short
        found = function(rows, *arguments)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as partial:
        np.save(partial, found)
    os.replace(partial.name, path)
    return found


def read_learned(folder: Path, kind: Any) -> Any:
    """Read a tokenizer as it was when it had been learned, without what says where it was read from."""
    tokenizer = kind.from_pretrained(folder)
    for name in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)
    tokenizer.name_or_path = ""
    return tokenizer


def learned_once(rows: datasets.Dataset, learn: Callable[[], Any], kind: type, *parts: Any) -> Any:
    """Return the tokenizer that was learned from rows, from the disk where it has been learned before.

    Args:
        rows: That it is learned from.
        learn: Learns it.
        kind: Its class.
        parts: What else decides the outcome, as in `name_of`.
    """
    name = name_of(rows, kind, *parts)
    if not name:
        return learn()
    folder = cache_folder() / name
    if folder.is_dir():
        try:
            return read_learned(folder, kind)
        except Exception:  # each damage has its own
            shutil.rmtree(folder, ignore_errors=True)
    tokenizer = learn()
    with tempfile.TemporaryDirectory(dir=folder.parent, suffix=".partial") as partial:
        tokenizer.save_pretrained(partial)
        if not folder.exists():
            shutil.copytree(partial, f"{partial}.whole")
            os.replace(f"{partial}.whole", folder)
    return tokenizer


@contextmanager
def single_threaded_tokenizers() -> Iterator[None]:
    """Keep `tokenizers` from starting threads inside the block.

    Child processes share the cores already, and a forked one must not start threads.
    """
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        del os.environ["TOKENIZERS_PARALLELISM"]
        if before is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def rows_content(rows: datasets.Dataset) -> np.ndarray:
    """Return a digest of all values of a data set, 16 bytes: equal for equal rows, wherever they were read from."""
    digest = hashlib.blake2b(repr(rows.features).encode(), digest_size=16)
    for table in rows.with_format("arrow").iter(10_000):
        for batch in table.combine_chunks().to_batches():
            digest.update(batch.serialize())
    return np.frombuffer(digest.digest(), dtype=np.uint8)


def tokenizer_content(tokenizer: Any) -> str:
    """Return everything that decides how a tokenizer encodes, without the settings of its last call."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return datasets.fingerprint.Hasher.hash(tokenizer)
    state = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    options = {name: tokenizer.init_kwargs.get(name) for name in SIDES}
    return json.dumps([type(tokenizer).__name__, state, options], sort_keys=True)


def function_source(function: Callable) -> str:
    """Return the code of a function or method; "" where it is not known, as in an interactive session."""
    try:
        return inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError):
        return ""


def map_by_content(
    rows: datasets.Dataset,
    function: Callable,
    tokenizer: Any,
    features: datasets.Features,
    title: str,
    **arguments: Any,
) -> datasets.Dataset:
    """Map a function over batches of rows, once for the same rows, tokenizer, function and arguments.

    Args:
        rows: Of any origin.
        function: From a batch of rows, `tokenizer` and the arguments to columns; a change to its file is noticed.
        tokenizer: Given to the function.
        features: Of the result.
        title: For the progress bar.
        arguments: Given to the function; must not hold what differs from start to start. Of functions among them, a
            change to their own code is noticed.

    Returns:
        The result, from the disk where it has been made before.
    """
    digest = hashlib.blake2b(remembered(rows, rows_content).tobytes(), digest_size=16)
    files = {inspect.getsourcefile(inspect.unwrap(part)) for part in (function, type(tokenizer))}
    for code in sorted(str(file) for file in files):
        digest.update(Path(code).read_bytes())
    digest.update(tokenizer_content(tokenizer).encode())
    digest.update("".join(function_source(value) for value in arguments.values() if callable(value)).encode())
    digest.update(datasets.fingerprint.Hasher.hash((function, arguments, features)).encode())
    folder = cache_folder()
    key = digest.hexdigest()
    processes = processes_of(folder, key) or processes_for(len(rows))
    with single_threaded_tokenizers():
        return rows.map(
            function,
            batched=True,
            fn_kwargs={"tokenizer": tokenizer, **arguments},
            features=features,
            num_proc=processes,
            cache_file_name=str(folder / f"{key}.arrow"),
            new_fingerprint=key,
            desc=title,
        )
