"""Keep tokenized rows on disk, and find them again by content: that of the rows and of the tokenizer.

Neither the paths of files nor the identity of objects matters, so that the same rows are tokenized once.
"""

import hashlib
import inspect
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets

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


def rows_content(rows: datasets.Dataset) -> bytes:
    """Return a digest of all values of a data set: equal for equal rows, wherever they were read from."""
    digest = hashlib.blake2b(repr(rows.features).encode(), digest_size=16)
    for table in rows.with_format("arrow").iter(10_000):
        for batch in table.combine_chunks().to_batches():
            digest.update(batch.serialize())
    return digest.digest()


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
    digest = hashlib.blake2b(rows_content(rows), digest_size=16)
    files = {inspect.getsourcefile(inspect.unwrap(part)) for part in (function, type(tokenizer))}
    for code in sorted(str(file) for file in files):
        digest.update(Path(code).read_bytes())
    digest.update(tokenizer_content(tokenizer).encode())
    digest.update("".join(function_source(value) for value in arguments.values() if callable(value)).encode())
    digest.update(datasets.fingerprint.Hasher.hash((function, arguments, features)).encode())
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "fun_transformer"
    folder.mkdir(parents=True, exist_ok=True)
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
