"""Parallel text, from files, the Hub or the built-in data sets, to checked rows and token ids.

Whatever the form, each split becomes a `datasets.Dataset` with the text columns `source` and `target`. A row that
cannot be used (a side that is empty or no text, more tokens than allowed) stops the run or is dropped, as the recipe
says, and is counted in a `RowReport`: nothing disappears silently. Files are read by the standard library's readers,
line breaks are \\n and \\r\\n only, and nothing is guessed: "null", "NA", "007" and "2011-03-10" stay text.
"""

import contextlib
import csv
import glob
import hashlib
import importlib.util
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from fun_transformer.tokenization_fun_transformer import tag_language

from .args import SPLITS, DataArguments, SplitArguments
from .caching import cores, map_by_content, processes_for
from .cleaning import clean, find_duplicates, row_keys

COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")
FORMATS = (".jsonl", ".json", ".tsv", ".csv", ".parquet")
PAIR = datasets.Features({name: datasets.Value("string") for name in ("source", "target", "problem")})
PAIR_AND_REFERENCES = datasets.Features({**PAIR, "references": datasets.List(datasets.Value("string"))})
RAGGED = "\0columns"  # marks a row with more or fewer fields than the header
BUILT_IN_SEED = 2017  # test words stay test words whatever the seed of a run


# ── Report ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class RowReport:
    """How many rows were read and kept, and why the others were not; one entry for each split (or shared file)."""

    splits: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, origin: str, read: int, dropped: dict[str, int]) -> None:
        """Records one split: where it came from, the rows read, the rows dropped by reason."""
        dropped = {reason: rows for reason, rows in dropped.items() if rows}
        self.splits[name] = {"origin": origin, "read": read, "kept": read - sum(dropped.values()), "dropped": dropped}

    def followed_by(self, later: "RowReport") -> "RowReport":
        """This report and that of a later step on the kept rows, as one."""
        both = RowReport(dict(self.splits))
        for name, entry in later.splits.items():
            first = self.splits.get(name, {"origin": entry["origin"], "read": entry["read"], "dropped": {}})
            both.splits[name] = first | {"kept": entry["kept"], "dropped": first["dropped"] | entry["dropped"]}
        return both

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The report as plain JSON-able values."""
        return self.splits

    def __str__(self) -> str:
        lines = [("split", "read", "kept", "dropped", "from")]
        for name, entry in self.splits.items():
            dropped = "; ".join(f"{reason}: {rows:,}" for reason, rows in entry["dropped"].items()) or "-"
            lines.append((name, f"{entry['read']:,}", f"{entry['kept']:,}", dropped, entry["origin"]))
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
        notes = [
            f"{entry['also_in_train']:,} of {entry['kept']:,} {name} rows have a source that also stands in train."
            for name, entry in self.splits.items()
            if entry.get("also_in_train")
        ]
        return "\n".join(table + notes)


def choose_good(
    dataset: datasets.Dataset, problems: Sequence[str], name: str, origin: str, bad_rows: str
) -> tuple[datasets.Dataset, dict[str, int]]:
    """The rows without a problem, and the number of the others by reason.

    Args:
        dataset: the rows.
        problems: (rows,) what is wrong with each; "" if nothing.
        name: the split, for the error.
        origin: where the split comes from, for the error.
        bad_rows: "refuse" or "drop".

    Raises:
        ValueError: there are bad rows and they are refused, or no row is good.
    """
    bad = Counter(problem for problem in problems if problem)
    if bad and bad_rows == "refuse":
        found = []
        for problem, count in bad.most_common():
            first = [str(row) for row, other in enumerate(problems, 1) if other == problem][:5]
            more = ", ..." if count > len(first) else ""
            found.append(f"{problem}: {count:,} (row{'s' * (count > 1)} {', '.join(first)}{more})")
        raise ValueError(
            f"data.{name} ({origin}): {bad.total():,} of {len(problems):,} rows cannot be used. {'; '.join(found)}. "
            "Correct them, or leave them out with --data.bad_rows drop."
        )
    if bad.total() == len(problems):
        reasons = f" ({'; '.join(f'{problem}: {count:,}' for problem, count in bad.items())})" if bad else ""
        raise ValueError(f"data.{name} ({origin}) has no row that can be used{reasons}.")
    if bad:
        dataset = dataset.select(np.flatnonzero(np.asarray(problems, dtype=object) == ""))
    return dataset, dict(bad)


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def file_format(path: str) -> str:
    """A file's ending before that of its compression: ".jsonl" for "train.jsonl.xz"."""
    endings = [ending.lower() for ending in Path(path).suffixes]
    return ([ending for ending in endings if ending not in COMPRESSIONS] or [""])[-1]


def read_lines(path: str) -> Iterator[str]:
    """The lines of a text file with their line ends; a byte order mark at its beginning is no text.

    Raises:
        ValueError: the file cannot be unpacked, or a line is not UTF-8.
    """
    try:
        with LocalFileSystem().open(path, "rb", compression="infer") as file:
            for number, line in enumerate(file, 1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}, line {number}: byte 0x{error.object[error.start]:02x} is not UTF-8. Convert the file first, "
            "for example with `iconv -f ENCODING -t UTF-8`."
        ) from error
    except Exception as error:  # each compression has its own
        raise ValueError(f"{path} cannot be read: {error or type(error).__name__}.") from error


def read_rows(path: str) -> Iterator[dict[str, Any]]:
    """The rows of a jsonl, json, tsv or csv file as dicts; blank lines are no rows.

    Raises:
        ValueError: a line is not what the file's ending promises.
    """
    ending = file_format(path)
    lines = read_lines(path)
    if ending == ".json":
        first = next((line for line in lines if line.strip()), "")
        if first.lstrip().startswith("["):
            yield from read_json(first + "".join(lines), path, list)
            return
        lines = read_lines(path)
    if ending in (".json", ".jsonl"):
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield read_json(line, f"{path}, line {number}", dict)
        return
    dialect: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if ending == ".tsv" else {}
    reader = csv.reader(lines, strict=True, **dialect)
    try:
        header = next(reader, [])
        for fields in reader:
            if fields:
                same = len(fields) == len(header)
                yield dict(zip(header, fields)) if same else dict.fromkeys(header) | {RAGGED: len(fields)}
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}. Is it really {ending[1:]}?") from error


def read_json(text: str, place: str, kind: type) -> Any:
    """Parses JSON that must be an object, or a list of objects.

    Raises:
        ValueError: it is something else.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON: {error}. One object a line is expected.") from error
    objects = value if kind is list else [value]
    if not all(isinstance(item, dict) for item in objects):
        raise ValueError(f'{place}: an object such as {{"source": "...", "target": "..."}} is expected.')
    return value


def column_value(row: dict[str, Any], column: str) -> Any:
    """A column's value; dots reach into nested columns.

    Raises:
        KeyError: the row has no such column.
    """
    if column in row:
        return row[column]
    outer, dot, inner = column.partition(".")
    if not dot or not isinstance(row.get(outer), dict):
        raise KeyError(column)
    return column_value(row[outer], inner)


def column_names(row: dict[str, Any]) -> list[str]:
    """The columns of a row, nested ones with dots."""
    names = []
    for name, value in row.items():
        if name == RAGGED:
            continue
        names += [f"{name}.{inner}" for inner in column_names(value)] if isinstance(value, dict) else [name]
    return names


def is_text(value: Any) -> bool:
    """Whether the value is a string that UTF-8 can hold (JSON can smuggle in half a character: "\\ud83d")."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def to_pair(row: dict[str, Any], source_column: str, target_column: str) -> dict[str, str]:
    """A row of any form as `source`, `target` and `problem` ("" if the row can be used)."""
    pair = {"source": "", "target": "", "problem": ""}
    if RAGGED in row:
        return pair | {"problem": "not as many columns as the header"}
    for side, column in (("source", source_column), ("target", target_column)):
        try:
            value = column_value(row, column)
        except KeyError:
            value = None
        pair[side] = value.strip() if is_text(value) else ""
        if not pair[side] and not pair["problem"]:
            empty = value is None or (isinstance(value, str) and not value.strip())
            pair["problem"] = f"{side} is empty" if empty else f"{side} is not text"
    return pair


def check_columns(row: dict[str, Any], split: SplitArguments, name: str) -> None:
    """Checks that the first row has both columns.

    Raises:
        ValueError: one is missing; lists those there are.
    """
    for side, column in (("source_column", split.source_column), ("target_column", split.target_column)):
        try:
            column_value(row, column)
        except KeyError:
            raise ValueError(
                f"data.{name}.{side}: {split.dataset} has no column {column}. "
                f"Its columns are {', '.join(column_names(row))}."
            ) from None


def find_shards(name: str) -> list[str]:
    """The files that a path or a pattern such as `part-*.jsonl` names, in the order of their names."""
    return [name] if Path(name).exists() else sorted(glob.glob(name, recursive=True)) or [name]


def generate_file_pairs(
    paths: list[str], source_column: str, target_column: str, stamp: tuple
) -> Iterator[dict[str, str]]:
    """The pairs of jsonl, json, tsv or csv files; `stamp` only makes the cache notice changes."""
    for path in paths:
        for row in read_rows(path):
            yield to_pair(row, source_column, target_column)


def generate_line_pairs(source: str, target: str, stamp: tuple) -> Iterator[dict[str, str]]:
    """The pairs of two line-aligned files.

    Raises:
        ValueError: they have different numbers of lines.
    """
    counts = [0, 0]
    for pair in zip_longest(read_lines(source), read_lines(target)):
        counts = [count + (line is not None) for count, line in zip(counts, pair)]
        if None not in pair:
            yield to_pair(dict(zip(("source", "target"), pair)), "source", "target")
    if counts[0] != counts[1]:
        raise ValueError(
            f"{source} has {counts[0]:,} lines and {target} has {counts[1]:,}. Line by line they must be translations."
        )


def file_stamp(*paths: str) -> tuple:
    """What changes when one of the files, or this module, does."""
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    files = [(str(Path(path).resolve()), Path(path).stat()) for path in paths]
    return (code, *((path, stat.st_size, stat.st_mtime_ns) for path, stat in files))


@contextlib.contextmanager
def progress_bars(shown: bool) -> Iterator[None]:
    """Shows or hides the progress bars of `datasets` for a while."""
    disabled = datasets.are_progress_bars_disabled()
    if not shown or not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            datasets.enable_progress_bars()


def from_generator(generator: Any, features: datasets.Features = PAIR, **arguments: Any) -> datasets.Dataset:
    """A data set on disk, made once for the same arguments; errors of the generator come out as they are.

    An argument that is a list of several files is shared out to several processes.
    """
    shards = max((len(value) for value in arguments.values() if isinstance(value, list)), default=1)
    processes = min(shards, cores()) if shards > 1 else None
    with progress_bars(shown=False):
        try:
            return datasets.Dataset.from_generator(
                generator, features=features, gen_kwargs=arguments, num_proc=processes
            )
        except datasets.exceptions.DatasetGenerationError as error:
            if isinstance(error.__cause__, ValueError):
                raise error.__cause__ from None
            raise


# ── Built-in data ────────────────────────────────────────────────────────────────────────────────────────────────


def data_file(package: str, *parts: str) -> Path:
    """A data file of an installed package, found without importing the package.

    Raises:
        ValueError: the package is not installed.
    """
    module = package.replace("-", "_")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(
            f"The data of builtin:{module.partition('_')[0]} are in the package {package}, which is not installed. "
            f"Run `pip install {package}`, or `pip install fun-transformer[demo]`."
        )
    return Path(spec.origin).parent.joinpath(*parts)


def draw_groups(groups: Iterable[str], rows: int, seed: int) -> set[str]:
    """Draws whole groups of rows, as many as fit into `rows` rows, in an order that hangs on seed and name only.

    Args:
        groups: (all rows,) the group of each row.
        rows: how many rows to draw at most.
        seed: of the order.

    Returns:
        The names of the drawn groups.
    """
    sizes = Counter(groups)
    drawn, left = set(), rows
    for group in sorted(sizes, key=lambda group: hashlib.blake2b(f"{seed} {group}".encode()).digest()):
        if sizes[group] <= left:
            drawn.add(group)
            left -= sizes[group]
        if not left:
            break
    return drawn


@lru_cache(maxsize=2)
def read_cmudict(keep_stress: bool) -> tuple[dict[str, list[str]], int, dict[str, int]]:
    """CMUdict: each word's distinct pronunciations, the number of entries, and the entries left out by reason."""
    words: dict[str, list[str]] = {}
    dropped: Counter[str] = Counter()
    entries = 0
    for line in read_lines(str(data_file("cmudict", "data", "cmudict.dict"))):
        head, _, phonemes = line.partition(" #")[0].strip().partition(" ")
        word = re.sub(r"\(\d+\)$", "", head.lower())  # "read(2)" is a further pronunciation of "read"
        pronunciation = phonemes if keep_stress else re.sub(r"\d", "", phonemes)
        entries += 1
        if not re.fullmatch(r"[a-z']*[a-z][a-z']*", word):
            dropped["characters other than a-z and '"] += 1
        elif pronunciation in words.setdefault(word, []):
            dropped["pronunciation repeated"] += 1
        else:
            words[word].append(pronunciation)
    return words, entries, dict(dropped)


def word_families(words: Iterable[str]) -> dict[str, str]:
    """Puts words that differ only by an apostrophe or a possessive into one family: smith, smith's, smiths', smiths.

    They are (nearly) homophones, so a test word with a sibling in training would be no unseen word.
    """
    words = list(words)
    bases = {word.replace("'", ""): word[:-2].replace("'", "") for word in words if word.endswith("'s")}
    families = {}
    for word in words:
        family = word.replace("'", "")
        while family in bases:
            family = bases[family]
        families[word] = family
    return families


@lru_cache(maxsize=1)
def place_words() -> dict[str, str]:
    """The split of each word of CMUdict."""
    families = word_families(read_cmudict(keep_stress=False)[0])
    test = draw_groups(families.values(), 10_000, BUILT_IN_SEED)
    validation = draw_groups((family for family in families.values() if family not in test), 2000, BUILT_IN_SEED)
    places = dict.fromkeys(test, "test") | dict.fromkeys(validation, "validation")
    return {word: places.get(family, "train") for word, family in families.items()}


def generate_cmudict(split: str, keep_stress: bool, stamp: tuple) -> Iterator[dict[str, Any]]:
    """Rows of one split: in train each pronunciation, in validation and test each word with all as references."""
    places = place_words()
    for word, pronunciations in read_cmudict(keep_stress)[0].items():
        if places[word] != split:
            continue
        for target in pronunciations if split == "train" else pronunciations[:1]:
            row = {"source": word, "target": target, "problem": ""}
            yield row if split == "train" else row | {"references": pronunciations}


@lru_cache(maxsize=1)
def read_hsk() -> tuple[dict[str, list[dict[str, str]]], int, dict[str, int]]:
    """The HSK sentences by split, the number of records, and the records left out by reason.

    Validation and test take only pairs of which neither side stands anywhere else, letter case and punctuation apart.
    """
    records = json.loads("".join(read_lines(str(data_file("hsk-sentences-audio", "data", "sentences.json")))))
    dropped: Counter[str] = Counter()
    pairs = []
    for record in records:
        chinese, english = record["chinese"].strip(), record["translation"]["en"].strip()
        if english.lower().startswith("placeholder"):
            dropped["English is a placeholder"] += 1
        elif re.search(r"[\u4e00-\u9fff]", english):
            dropped["English with Chinese characters"] += 1
        else:
            pairs.append({"zh": chinese, "en": english})
    keys = [[re.sub(r"\W", "", text).casefold() for text in pair.values()] for pair in pairs]
    counts = Counter(key for both in keys for key in both)
    lonely = [pair["zh"] for pair, both in zip(pairs, keys) if all(counts[key] == 1 for key in both)]
    test = draw_groups(lonely, 200, BUILT_IN_SEED)
    validation = draw_groups((text for text in lonely if text not in test), 200, BUILT_IN_SEED)
    splits: dict[str, list[dict[str, str]]] = {name: [] for name in SPLITS}
    for pair in pairs:
        splits["test" if pair["zh"] in test else "validation" if pair["zh"] in validation else "train"].append(pair)
    return splits, len(records), dict(dropped)


def generate_hsk(split: str, source_column: str, target_column: str, stamp: tuple) -> Iterator[dict[str, str]]:
    """Rows of one split; `source` is the Chinese and `target` the English side unless columns zh and en are named."""
    for pair in read_hsk()[0][split]:
        yield to_pair({"source": pair["zh"], "target": pair["en"], **pair}, source_column, target_column)


def load_built_in(split: SplitArguments, name: str, keep_stress: bool, report: RowReport) -> datasets.Dataset:
    """One split of a built-in data set; what its file holds besides is reported once, under the data set's name.

    Raises:
        ValueError: there is no such data set or split, or its package is not installed.
    """
    part = split.split or name
    if split.dataset not in ("builtin:cmudict", "builtin:hsk"):
        raise ValueError(f"data.{name}.dataset={split.dataset} is unknown. There are builtin:cmudict and builtin:hsk.")
    if part not in SPLITS:
        raise ValueError(f"data.{name}.split={part}: {split.dataset} has {', '.join(SPLITS)}.")
    columns = {"source": "", "target": ""}
    if split.dataset == "builtin:cmudict":
        check_columns(columns, split, name)
        _, read, dropped = read_cmudict(keep_stress)
        mark = file_stamp(str(data_file("cmudict", "data", "cmudict.dict")))
        features = PAIR if part == "train" else PAIR_AND_REFERENCES
        dataset = from_generator(generate_cmudict, features, split=part, keep_stress=keep_stress, stamp=mark)
    else:
        check_columns(columns | {"zh": "", "en": ""}, split, name)
        _, read, dropped = read_hsk()
        mark = file_stamp(str(data_file("hsk-sentences-audio", "data", "sentences.json")))
        sides = {"source_column": split.source_column, "target_column": split.target_column}
        dataset = from_generator(generate_hsk, split=part, **sides, stamp=mark)
    report.add(split.dataset, "installed package", read, dropped)
    return dataset


# ── Splits ───────────────────────────────────────────────────────────────────────────────────────────────────────


def load_pairs(split: SplitArguments, name: str, keep_stress: bool, report: RowReport) -> datasets.Dataset:
    """All rows of one split as `source`, `target`, `problem` (and `references`).

    Raises:
        ValueError: a file or column is missing, or a file cannot be read.
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
        return from_generator(generate_line_pairs, source=split.source, target=split.target, stamp=file_stamp(*files))
    columns = {"source_column": split.source_column, "target_column": split.target_column}
    if is_file and file_format(split.dataset) != ".parquet":
        for path in files:
            first = next(read_rows(path), None)
            if first is None:
                raise ValueError(f"data.{name}: the file {path} has no rows.")
            check_columns(first, split, name)
        return from_generator(generate_file_pairs, paths=files, **columns, stamp=file_stamp(*files))
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
    """One or several parquet files.

    Raises:
        ValueError: it cannot be read.
    """
    with progress_bars(shown=False):
        try:
            return datasets.Dataset.from_parquet([glob.escape(path) for path in paths])
        except Exception as error:
            raise ValueError(f"{' '.join(paths)} cannot be read: {error.__cause__ or error}") from error


def load_hub(split: SplitArguments, name: str) -> datasets.Dataset:
    """One split of a data set on the Hub.

    Raises:
        ValueError: it cannot be loaded.
    """
    if Path(split.dataset).is_file():
        raise ValueError(
            f"data.{name}.dataset={split.dataset} is a file of unknown form. It must end in {', '.join(FORMATS)}; "
            "plain text files are named in pairs, as source and target."
        )
    try:
        return datasets.load_dataset(split.dataset, split.config, split=split.split or name)
    except Exception as error:
        raise ValueError(f"data.{name}: the data set {split.dataset} could not be loaded: {error}") from error


def load_splits(data_args: DataArguments, seed: int) -> tuple[datasets.DatasetDict, RowReport]:
    """Loads and checks all splits that the recipe names; without a validation split some of train is held out.

    Args:
        data_args: the recipe's section `data`.
        seed: of the held-out rows and of `max_rows`.

    Returns:
        The splits with text columns `source` and `target` (and `references`, a list, where a source has several
        right targets), and the report.

    Raises:
        ValueError: data are missing, or bad rows are refused.
    """
    splits, report = datasets.DatasetDict(), RowReport()
    for name in SPLITS:
        split: SplitArguments = getattr(data_args, name)
        if not split.is_named:
            continue
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
        splits[name] = rows
    if "validation" not in splits:
        splits, report = hold_out(splits, report, data_args.validation_rows, seed)
    known = row_keys(splits["train"], ["source"])
    for name in splits.keys() - {"train"}:
        report.splits[name]["also_in_train"] = int(np.isin(row_keys(splits[name], ["source"]), known).sum())
    return splits, report


def load_corpus(
    corpus: SplitArguments, name: str, data_args: DataArguments, report: RowReport
) -> tuple[datasets.Dataset, dict[str, int]]:
    """The good rows of one corpus, cleaned if it is trained on, and how many others there were by reason.

    Raises:
        ValueError: data are missing, or bad rows are refused.
    """
    rows = load_pairs(corpus, name, data_args.keep_stress, report)
    rows, dropped = choose_good(rows, column_texts(rows, "problem"), name, str(corpus), data_args.bad_rows)
    if name == "train" and data_args.clean:  # what a filter finds is dropped, never refused
        with progress_bars(shown=len(rows) >= 5000):
            problems = column_texts(clean(rows, data_args.clean), "problem")
        if "duplicates" in data_args.clean:
            problems[find_duplicates(rows) & (problems == "")] = "pair stood before"
        rows, found = choose_good(rows, problems, name, str(corpus), "drop")
        dropped |= found
    return rows.remove_columns("problem"), dropped


def column_texts(rows: datasets.Dataset, column: str) -> np.ndarray:
    """A column of texts that are mostly empty, in little memory. (rows,)"""
    table = rows.select_columns([column]).with_format("arrow")
    texts = [batch[column].to_numpy() for batch in table.iter(10_000)]
    return np.concatenate(texts) if texts else np.zeros(0, dtype=object)


def hold_out(
    splits: datasets.DatasetDict, report: RowReport, validation_rows: int, seed: int
) -> tuple[datasets.DatasetDict, RowReport]:
    """Moves some of train to validation, with all rows of the same source.

    Where a corpus is trained on in both directions, the other direction of what is held out leaves train, too.

    Raises:
        ValueError: no source can be spared.
    """
    train = splits["train"]
    is_drawn = draw_keys(row_keys(train, ["source"], f"{seed} "), max(1, min(validation_rows, len(train) // 10)))
    is_known = is_drawn
    if "corpus" in train.column_names:
        held = row_keys(train.select(np.flatnonzero(is_drawn)), ["source", "target"])
        is_known = is_drawn | np.isin(row_keys(train, ["target", "source"]), held)
    held_out, kept = np.flatnonzero(is_drawn), np.flatnonzero(~is_known)
    if not len(held_out) or not len(kept):
        raise ValueError(f"{len(train)} training rows are too few to hold some out. Name data.validation.")
    entry = report.splits["train"]
    result = {"train": train.select(kept), "validation": train.select(held_out)}
    ordered = RowReport({name: rows for name, rows in report.splits.items() if name not in SPLITS})
    dropped = {
        "held out for validation": len(held_out),
        "held out the other way round": int((is_known & ~is_drawn).sum()),
    }
    ordered.add("train", entry["origin"], entry["read"], entry["dropped"] | dropped)
    ordered.add("validation", "held out from train", len(held_out), {})
    if "test" in splits:
        result["test"], ordered.splits["test"] = splits["test"], report.splits["test"]
    return datasets.DatasetDict(result), ordered


def draw_keys(keys: np.ndarray, rows: int) -> np.ndarray:
    """Draws whole groups of rows with the same key, lowest keys first, as many as fit into `rows` rows. (all rows,)"""
    _, group_of_row, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    is_drawn, left = np.zeros(len(sizes), dtype=bool), rows
    for group, size in enumerate(sizes):
        if size <= left:
            is_drawn[group], left = True, left - size
        if not left:
            break
    return is_drawn[group_of_row]


def draw_rows(dataset: datasets.Dataset, rows: int, seed: int) -> datasets.Dataset:
    """At most so many rows, in their order."""
    if len(dataset) <= rows:
        return dataset
    return dataset.select(np.sort(np.random.default_rng(seed).choice(len(dataset), rows, replace=False)))


def languages_of(data_args: DataArguments, name: str) -> list[str]:
    """The target language of each corpus of a split, where sources name it; else nothing."""
    split = getattr(data_args, name)
    corpora = (split if split.is_named else data_args.train).corpora  # held-out rows are from train
    return [corpus.tgt_lang or "" for corpus in corpora] if data_args.tags_languages else []


def tokenize_splits(
    splits: datasets.DatasetDict, tokenizer: Any, data_args: DataArguments, encode: Any = None
) -> tuple[datasets.DatasetDict, RowReport]:
    """Adds `input_ids` and `labels`, both ending in </s>; refuses or drops rows over the limits.

    Args:
        splits: from `load_splits`.
        tokenizer: encodes sources, and targets given as `text_target`.
        data_args: the recipe's section `data`.
        encode: turns a batch of rows and the tokenizer into `input_ids` and `labels`; `encode_pairs` when None.

    Returns:
        The splits, and the report on the rows that `load_splits` kept.

    Raises:
        ValueError: over-long rows are refused.
    """
    tokenized, report = datasets.DatasetDict(), RowReport()
    limits = {"input_ids": data_args.max_source_tokens, "labels": data_args.max_target_tokens}
    for name, rows in splits.items():
        ids = datasets.List(datasets.Value("int32"))
        with progress_bars(shown=len(rows) >= 5000):
            rows = map_by_content(
                rows,
                encode_rows,
                tokenizer,
                datasets.Features({**rows.features, "input_ids": ids, "labels": ids}),
                f"Tokenizing {name}",
                encode=encode or encode_pairs,
                languages=languages_of(data_args, name),
            )
        problems = np.full(len(rows), "", dtype=object)
        for side, column in (("target", "labels"), ("source", "input_ids")):
            problems[token_lengths(rows, column) > limits[column]] = f"{side} has more than {limits[column]} tokens"
        tokenized[name], dropped = choose_good(rows, problems, name, "tokenized", data_args.bad_rows)
        report.add(name, "tokenized", len(rows), dropped)
    return tokenized, report


def encode_rows(batch: dict[str, list], tokenizer: Any, encode: Callable, languages: list[str]) -> dict[str, list]:
    """Token ids of a batch; before a source stands the language that is wanted, where there are several."""
    if languages:
        corpora = batch.get("corpus") or [0] * len(batch["source"])
        tagged = [tag_language(text, languages[corpus]) for text, corpus in zip(batch["source"], corpora)]
        batch = {**batch, "source": tagged}
    return {"source": batch["source"], **encode(batch, tokenizer)}


def encode_pairs(batch: dict[str, list[str]], tokenizer: Any) -> dict[str, list[list[int]]]:
    """Token ids of a batch of pairs."""
    encoded = tokenizer(batch["source"], text_target=batch["target"], return_attention_mask=False)
    return {"input_ids": encoded["input_ids"], "labels": encoded["labels"]}


def token_lengths(rows: datasets.Dataset, column: str) -> np.ndarray:
    """Number of tokens in a column of token ids. (rows,)"""
    table = rows.with_format("arrow")
    return np.concatenate([pc.list_value_length(batch[column]).to_numpy() for batch in table.iter(10_000)])
