"""From the recipe's section `data` to checked rows: load each split, drop bad rows, hold some out for validation.

Rows come from files, from the Hub or from a built-in data set. A row that cannot be used (an empty side, no text)
stops the run or is dropped, as the recipe says, and is counted in a `RowReport`: nothing disappears silently.
"""

from collections import Counter
from typing import Any

import datasets
import numpy as np

from ..recipe.arguments import SPLITS, DataArguments, SplitArguments
from .caching import remembered
from .cleaning import clean, find_duplicates, row_keys
from .features import check_features, feature_sets
from .files import progress_bars
from .report import RowReport, check_rows, good_rows
from .sources import load_pairs

EXAMPLES = 2000  # rows that show what kind of text a corpus has


def load_splits(data_args: DataArguments, seed: int, modality: str = "text") -> tuple[datasets.DatasetDict, RowReport]:
    """Load and check all splits that the recipe names; without a validation split, hold some of train out.

    Args:
        data_args: The recipe's section `data`.
        seed: Of the held-out rows and of `max_rows`.
        modality: What the sources are: "text", "speech" or "image".

    Returns:
        The splits with text columns `source`, `target` and `place`, which is where the user finds the row (and
        `references`, a list, where a source has several right targets), and the report.

    Raises:
        ValueError: Data are missing, or bad rows are refused.
    """
    splits, report = datasets.DatasetDict(), RowReport()
    for name in SPLITS:
        if getattr(data_args, name).is_named:
            splits[name] = load_split(name, data_args, seed, report, modality)
    if "validation" not in splits:
        splits, report = hold_out(splits, report, data_args.validation_rows, seed)
    known, features = remembered(splits["train"], row_keys, ["source"]), feature_sets(splits["train"])
    for name in splits.keys() - {"train"}:
        check_features(features, splits[name], name)
        keys = remembered(splits[name], row_keys, ["source"])
        report.splits[name]["also_in_train"] = int(is_among(keys, known).sum())
    return splits, report


def load_split(
    name: str, data_args: DataArguments, seed: int, report: RowReport, modality: str = "text"
) -> datasets.Dataset:
    """Return the good rows of all corpora of a split, at most `max_rows`, and enter it in the report.

    Raises:
        ValueError: Data are missing, or bad rows are refused.
    """
    split: SplitArguments = getattr(data_args, name)
    parts, read, dropped = [], 0, Counter[str]()
    for number, corpus in enumerate(split.corpora):
        rows, found = load_corpus(corpus, name, data_args, report, modality)
        if split.mix:
            report.add(f"{name} {number + 1}", str(corpus), len(rows) + sum(found.values()), found)
            rows = rows.add_column("corpus", np.full(len(rows), number, dtype=np.int32))
        read, dropped = read + len(rows) + sum(found.values()), dropped + Counter(found)
        parts.append(rows)
    parts = with_same_columns(parts)
    rows = datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    if data_args.max_rows and len(rows) > data_args.max_rows:
        dropped["beyond max_rows"] = len(rows) - data_args.max_rows
        rows = rows.shuffle(seed=seed).select(range(data_args.max_rows))
    report.add(name, f"{len(parts)} corpora" if split.mix else str(split), read, dict(dropped))
    return rows


def with_same_columns(parts: list[datasets.Dataset]) -> list[datasets.Dataset]:
    """Give all corpora of a split the columns that any of them has: one reference, no tags."""
    texts = datasets.List(datasets.Value("string"))
    for column in ("references", "tags"):
        if any(column in part.column_names for part in parts):
            parts = [part if column in part.column_names else fill_column(part, column, texts) for part in parts]
    return parts


def fill_column(rows: datasets.Dataset, column: str, kind: Any) -> datasets.Dataset:
    """Add `references` with the target alone, or empty `tags`."""

    def values(batch: dict[str, list[str]]) -> dict[str, list[list[str]]]:
        return {column: [[target] if column == "references" else [] for target in batch["target"]]}

    return rows.map(values, batched=True, features=datasets.Features({**rows.features, column: kind}))


def load_corpus(
    corpus: SplitArguments, name: str, data_args: DataArguments, report: RowReport, modality: str = "text"
) -> tuple[datasets.Dataset, dict[str, int]]:
    """Return the good rows of one corpus, cleaned if it is for training, and the number of the others by reason.

    Raises:
        ValueError: Data are missing, or bad rows are refused.
    """
    rows = load_pairs(corpus, name, data_args.keep_stress, report, modality)
    problems = column_texts(rows, "problem")
    dropped = check_rows(rows, problems, name, [str(corpus)], data_args.bad_rows)
    rows = good_rows(rows, problems)
    if name == "train" and data_args.clean:  # what a filter finds is dropped, never refused
        with progress_bars(shown=len(rows) >= 5000):
            problems = column_texts(clean(rows, data_args.clean), "problem")
        if "duplicates" in data_args.clean:
            problems[find_duplicates(rows) & (problems == "")] = "repeats an earlier pair"
        dropped |= check_rows(rows, problems, name, [str(corpus)], "drop")
        rows = good_rows(rows, problems)
    return rows.remove_columns("problem"), dropped


def column_texts(rows: datasets.Dataset, column: str) -> np.ndarray:
    """Return a column of texts of which there are few different ones, in little memory: (rows,)."""
    encoded = rows.data.column(column).dictionary_encode()
    if not encoded.num_chunks:
        return np.zeros(0, dtype=object)
    encoded = encoded.unify_dictionaries()
    texts = np.array(encoded.chunk(0).dictionary.to_pylist(), dtype=object)  # (different ones,)
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in encoded.chunks])  # (rows of the table,)
    places = rows._indices  # where selected rows are in the table
    return texts[codes if places is None else codes[places.column(0).to_numpy()]]


def is_among(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return whether each key is one of the known ones, of which there may be many more: (keys,).

    Like `np.isin`, which would sort the known ones.
    """
    own, place = np.unique(keys, return_inverse=True)
    if not len(own):
        return np.zeros(0, dtype=bool)
    found = np.minimum(np.searchsorted(own, known), len(own) - 1)  # (known,)
    is_known = np.zeros(len(own), dtype=bool)
    is_known[found[own[found] == known]] = True
    return is_known[place]


def hold_out(
    splits: datasets.DatasetDict, report: RowReport, validation_rows: int, seed: int
) -> tuple[datasets.DatasetDict, RowReport]:
    """Move some of train to validation, with all rows of the same source.

    Where a corpus is trained on in both directions, the other direction of what is held out leaves train, too.

    Returns:
        The splits and the report with what has moved.

    Raises:
        ValueError: No source can be spared.
    """
    train = splits["train"]
    keys = remembered(train, row_keys, ["source"], f"{seed} ")
    is_held_out = sample_keys(keys, max(1, min(validation_rows, len(train) // 10)))
    is_known = is_held_out
    if "corpus" in train.column_names:
        held = row_keys(train.select(np.flatnonzero(is_held_out)), ["source", "target"])
        is_known = is_held_out | np.isin(remembered(train, row_keys, ["target", "source"]), held)
    held_out, kept = np.flatnonzero(is_held_out), np.flatnonzero(~is_known)
    if not len(held_out) or not len(kept):
        raise ValueError(cannot_hold_out(train, validation_rows))
    entry = report.splits["train"]
    result = {"train": train.select(kept), "validation": train.select(held_out)}
    ordered = RowReport({name: rows for name, rows in report.splits.items() if name not in SPLITS}, report.notes)
    dropped = {
        "held out for validation": len(held_out),
        "held out the other way round": int((is_known & ~is_held_out).sum()),
    }
    ordered.add("train", entry["origin"], entry["read"], entry["dropped"] | dropped)
    ordered.add("validation", "held out from train", len(held_out), {})
    if "test" in splits:
        result["test"], ordered.splits["test"] = splits["test"], report.splits["test"]
    return datasets.DatasetDict(result), ordered


def cannot_hold_out(train: datasets.Dataset, validation_rows: int) -> str:
    """Return why no row of train can be held out for validation, for an error."""
    _, sizes = np.unique(row_keys(train, ["source"]), return_counts=True)
    wanted = max(1, min(validation_rows, len(train) // 10))
    if len(sizes) == len(train):
        return f"{len(train)} training rows are too few to hold some out. Name data.validation."
    return (
        f"No row of train can be held out for validation: its {len(train):,} rows have only {len(sizes):,} different "
        f"sources, and a source is held out with all its rows. The rarest has {sizes.min():,}, and at most {wanted:,} "
        "rows (data.validation_rows, and a tenth of train) may go. Name data.validation."
    )


def sample_keys(keys: np.ndarray, rows: int) -> np.ndarray:
    """Sample whole groups of rows with the same key, lowest keys first, as many as fit into `rows` rows.

    Args:
        keys: The key of each row, (all rows,).
        rows: How many rows to sample at most.

    Returns:
        Whether each row is in the sample, (all rows,).
    """
    lowest = 4 * rows + 1  # keys that are looked at: nearly always enough, and far from all
    while True:
        is_all = lowest >= len(keys)
        limit = None if is_all else np.partition(keys, lowest)[lowest]
        places = np.arange(len(keys)) if limit is None else np.flatnonzero(keys < limit)  # whole groups
        _, group_of_row, sizes = np.unique(keys[places], return_inverse=True, return_counts=True)
        is_sampled, left = np.zeros(len(sizes), dtype=bool), rows
        for group, size in enumerate(sizes):
            if size <= left:
                is_sampled[group], left = True, left - size
            if not left:
                break
        if not left or is_all:
            result = np.zeros(len(keys), dtype=bool)
            result[places] = is_sampled[group_of_row]
            return result
        lowest *= 4


def sample_rows(dataset: datasets.Dataset, rows: int, seed: int) -> datasets.Dataset:
    """Return a random sample of at most `rows` rows, in their order."""
    if len(dataset) <= rows:
        return dataset
    return dataset.select(np.sort(np.random.default_rng(seed).choice(len(dataset), rows, replace=False)))


def sample_texts(rows: datasets.Dataset) -> tuple[list[str], list[str]]:
    """Return some sources and their targets, from all parts of a split, as examples of its texts."""
    chosen = rows.select(range(0, len(rows), 1 + len(rows) // EXAMPLES))
    return list(chosen["source"]), list(chosen["target"])
