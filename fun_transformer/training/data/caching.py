"""Results on disk that are found again by their content: the rows and the tokenizer, not their paths or objects."""

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

SIDES = ("source_type", "target_type", "lowercase", "target_tokenizer", "src_lang", "tgt_lang")  # how they differ
ROWS_PER_PROCESS = 20_000  # starting a process takes as long as some thousand rows


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes_for(rows: int) -> int | None:
    """How many processes work on so many rows; None for this one alone."""
    processes = min(cores(), rows // ROWS_PER_PROCESS)
    return processes if processes > 1 else None


@contextmanager
def single_threaded_tokenizers() -> Iterator[None]:
    """Inside, `tokenizers` starts no threads: forked processes must not, and share the cores already."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        del os.environ["TOKENIZERS_PARALLELISM"]
        if before is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def rows_content(rows: datasets.Dataset) -> bytes:
    """Digest of all values of a data set: equal for equal rows, wherever they were read from."""
    digest = hashlib.blake2b(repr(rows.features).encode(), digest_size=16)
    for table in rows.with_format("arrow").iter(10_000):
        for batch in table.combine_chunks().to_batches():
            digest.update(batch.serialize())
    return digest.digest()


def tokenizer_content(tokenizer: Any) -> str:
    """Everything that decides how a tokenizer encodes; what its last call asked for does not count."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return datasets.fingerprint.Hasher.hash(tokenizer)
    state = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    options = {name: tokenizer.init_kwargs.get(name) for name in SIDES}
    return json.dumps([type(tokenizer).__name__, state, options], sort_keys=True)


def map_by_content(
    rows: datasets.Dataset,
    function: Callable,
    tokenizer: Any,
    features: datasets.Features,
    title: str,
    **arguments: Any,
) -> datasets.Dataset:
    """`rows.map(function)` in several processes, done once for the same rows, tokenizer, function and arguments.

    Args:
        rows: Of any origin.
        function: From a batch of rows, `tokenizer` and the arguments to columns; a change to its file is noticed.
        tokenizer: Given to the function.
        features: Of the result.
        title: For the progress bar.
        arguments: Given to the function; must not hold what differs from start to start.
    """
    digest = hashlib.blake2b(rows_content(rows), digest_size=16)
    files = {inspect.getsourcefile(inspect.unwrap(part)) for part in (function, type(tokenizer))}
    for code in sorted(str(file) for file in files):
        digest.update(Path(code).read_bytes())
    digest.update(tokenizer_content(tokenizer).encode())
    digest.update(datasets.fingerprint.Hasher.hash((function, arguments, features)).encode())
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "fun_transformer"
    folder.mkdir(parents=True, exist_ok=True)
    key = digest.hexdigest()
    done = re.search(r"_of_(\d+)", next((path.name for path in folder.glob(f"{key}_*_of_*.arrow")), ""))
    processes = int(done[1]) if done else processes_for(len(rows))  # found again on another number of cores
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
