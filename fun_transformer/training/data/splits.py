"""From the recipe's section `data` to checked rows: load each split, drop bad rows, hold some out for validation.

Rows come from files, from the Hub or from a built-in data set. A row that cannot be used (an empty side, no text)
stops the run or is dropped, as the recipe says, and is counted in a `RowReport`: nothing disappears silently.
"""

import glob
from collections import Counter
from pathlib import Path

import datasets
import numpy as np

from ..recipe.arguments import SPLITS, DataArguments, SplitArguments
from .built_in import load_built_in
from .caching import processes_for
from .cleaning import clean, find_duplicates, row_keys
from .files import (
    FORMATS,
    PAIR,
    check_columns,
    file_format,
    find_shards,
    from_generator,
    generate_file_pairs,
    generate_line_pairs,
    progress_bars,
    read_rows,
    to_pair,
)
from .report import RowReport, choose_good


def load_pairs(split: SplitArguments, name: str, keep_stress: bool, report: RowReport) -> datasets.Dataset:
    """Return all rows of one corpus as `source`, `target`, `problem` (and `references`).

    Args:
        split: What the recipe says of the corpus.
        name: Of the split that it belongs to.
        keep_stress: Whether the phonemes of `builtin:cmudict` keep their stress digits.
        report: Gets an entry for a built-in data set.

    Raises:
        ValueError: A file or column is missing, or a file cannot be read.
    """
    if split.dataset and split.dataset.startswith("builtin:"):
        return load_built_in(split, name, keep_stress, report)
    is_file = not split.dataset or file_format(split.dataset) in FORMATS
    files = find_shards(split.dataset) if split.dataset else [path for path in (split.source, split.target) if path]
    for path in files if is_file else []:
        if not Path(path).is_file():
            raise ValueError(f"data.{name}: there is no file {path}.")
        if not Path(path).stat().st_size:
            raise ValueError(f"data.{name}: the file {path} is empty.")
    if not split.dataset:
        return from_generator(generate_line_pairs, files, source=split.source, target=split.target)
    columns = {"source_column": split.source_column, "target_column": split.target_column}
    if is_file and file_format(split.dataset) != ".parquet":
        for path in files:
            first = next(read_rows(path), None)
            if first is None:
                raise ValueError(f"data.{name}: the file {path} has no rows.")
            check_columns(first, split, name)
        return from_generator(generate_file_pairs, files, paths=files, **columns)
    rows = load_parquet(files) if is_file else load_hub(split, name)
    if not len(rows):
        raise ValueError(f"data.{name}: {split.dataset} has no rows.")
    check_columns(rows[0], split, name)
    with progress_bars(shown=len(rows) >= 5000):
        return rows.map(
            to_pair,
            fn_kwargs=columns,
            remove_columns=rows.column_names,
            features=PAIR,
            num_proc=processes_for(len(rows)),
        )


def load_parquet(paths: list[str]) -> datasets.Dataset:
    """Return the rows of one or several parquet files.

    Raises:
        ValueError: A file cannot be read.
    """
    with progress_bars(shown=False):
        try:
            return datasets.Dataset.from_parquet([glob.escape(path) for path in paths])
        except Exception as error:
            raise ValueError(f"{' '.join(paths)} cannot be read: {error.__cause__ or error}") from error


def load_hub(split: SplitArguments, name: str) -> datasets.Dataset:
    """Return one split of a data set on the Hub.

    Raises:
        ValueError: It cannot be loaded.
    """
    dataset = split.dataset or ""
    if Path(dataset).is_file():
        raise ValueError(
            f"data.{name}.dataset={dataset} is a file of unknown form. It must end in {', '.join(FORMATS)}; "
            "plain text files are named in pairs, as source and target."
        )
    try:
        return datasets.load_dataset(dataset, split.config, split=split.split or name)
    except Exception as error:
        raise ValueError(f"data.{name}: the data set {dataset} could not be loaded: {error}") from error


def load_splits(data_args: DataArguments, seed: int) -> tuple[datasets.DatasetDict, RowReport]:
    """Load and check all splits that the recipe names; without a validation split, hold some of train out.

    Args:
        data_args: The recipe's section `data`.
        seed: Of the held-out rows and of `max_rows`.

    Returns:
        The splits with text columns `source` and `target` (and `references`, a list, where a source has several
        right targets), and the report.

    Raises:
        ValueError: Data are missing, or bad rows are refused.
    """
    splits, report = datasets.DatasetDict(), RowReport()
    for name in SPLITS:
        if getattr(data_args, name).is_named:
            splits[name] = load_split(name, data_args, seed, report)
    if "validation" not in splits:
        splits, report = hold_out(splits, report, data_args.validation_rows, seed)
    known = row_keys(splits["train"], ["source"])
    for name in splits.keys() - {"train"}:
        report.splits[name]["also_in_train"] = int(np.isin(row_keys(splits[name], ["source"]), known).sum())
    return splits, report


def load_split(name: str, data_args: DataArguments, seed: int, report: RowReport) -> datasets.Dataset:
    """Return the good rows of all corpora of a split, at most `max_rows`, and enter it in the report.

    Raises:
        ValueError: Data are missing, or bad rows are refused.
    """
    split: SplitArguments = getattr(data_args, name)
    parts, read, dropped = [], 0, Counter[str]()
    for number, corpus in enumerate(split.corpora):
        rows, found = load_corpus(corpus, name, data_args, report)
        if split.mix:
            report.add(f"{name} {number + 1}", str(corpus), len(rows) + sum(found.values()), found)
            rows = rows.add_column("corpus", np.full(len(rows), number, dtype=np.int32))
        read, dropped = read + len(rows) + sum(found.values()), dropped + Counter(found)
        parts.append(rows)
    rows = datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    if data_args.max_rows and len(rows) > data_args.max_rows:
        dropped["beyond max_rows"] = len(rows) - data_args.max_rows
        rows = rows.shuffle(seed=seed).select(range(data_args.max_rows))
    report.add(name, f"{len(parts)} corpora" if split.mix else str(split), read, dict(dropped))
    return rows


def load_corpus(
    corpus: SplitArguments, name: str, data_args: DataArguments, report: RowReport
) -> tuple[datasets.Dataset, dict[str, int]]:
    """Return the good rows of one corpus, cleaned if it is for training, and the number of the others by reason.

    Raises:
        ValueError: Data are missing, or bad rows are refused.
    """
    rows = load_pairs(corpus, name, data_args.keep_stress, report)
    rows, dropped = choose_good(rows, column_texts(rows, "problem"), name, str(corpus), data_args.bad_rows)
    if name == "train" and data_args.clean:  # what a filter finds is dropped, never refused
        with progress_bars(shown=len(rows) >= 5000):
            problems = column_texts(clean(rows, data_args.clean), "problem")
        if "duplicates" in data_args.clean:
            problems[find_duplicates(rows) & (problems == "")] = "repeats an earlier pair"
        rows, found = choose_good(rows, problems, name, str(corpus), "drop")
        dropped |= found
    return rows.remove_columns("problem"), dropped


def column_texts(rows: datasets.Dataset, column: str) -> np.ndarray:
    """Return a column of texts that are mostly empty, in little memory: (rows,)."""
    table = rows.select_columns([column]).with_format("arrow")
    texts = [batch[column].to_numpy() for batch in table.iter(10_000)]
    return np.concatenate(texts) if texts else np.zeros(0, dtype=object)


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
    is_held_out = sample_keys(row_keys(train, ["source"], f"{seed} "), max(1, min(validation_rows, len(train) // 10)))
    is_known = is_held_out
    if "corpus" in train.column_names:
        held = row_keys(train.select(np.flatnonzero(is_held_out)), ["source", "target"])
        is_known = is_held_out | np.isin(row_keys(train, ["target", "source"]), held)
    held_out, kept = np.flatnonzero(is_held_out), np.flatnonzero(~is_known)
    if not len(held_out) or not len(kept):
        raise ValueError(f"{len(train)} training rows are too few to hold some out. Name data.validation.")
    entry = report.splits["train"]
    result = {"train": train.select(kept), "validation": train.select(held_out)}
    ordered = RowReport({name: rows for name, rows in report.splits.items() if name not in SPLITS})
    dropped = {
        "held out for validation": len(held_out),
        "held out the other way round": int((is_known & ~is_held_out).sum()),
    }
    ordered.add("train", entry["origin"], entry["read"], entry["dropped"] | dropped)
    ordered.add("validation", "held out from train", len(held_out), {})
    if "test" in splits:
        result["test"], ordered.splits["test"] = splits["test"], report.splits["test"]
    return datasets.DatasetDict(result), ordered


def sample_keys(keys: np.ndarray, rows: int) -> np.ndarray:
    """Sample whole groups of rows with the same key, lowest keys first, as many as fit into `rows` rows.

    Args:
        keys: The key of each row, (all rows,).
        rows: How many rows to sample at most.

    Returns:
        Whether each row is in the sample, (all rows,).
    """
    _, group_of_row, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    is_sampled, left = np.zeros(len(sizes), dtype=bool), rows
    for group, size in enumerate(sizes):
        if size <= left:
            is_sampled[group], left = True, left - size
        if not left:
            break
    return is_sampled[group_of_row]


def sample_rows(dataset: datasets.Dataset, rows: int, seed: int) -> datasets.Dataset:
    """Return a random sample of at most `rows` rows, in their order."""
    if len(dataset) <= rows:
        return dataset
    return dataset.select(np.sort(np.random.default_rng(seed).choice(len(dataset), rows, replace=False)))
