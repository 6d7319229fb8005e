"""Which recipe and which files each table of docs/results.md is made of, for `benchmarks.tables`.

The trainer reads most of the files as they are; those in a form of their own become rows first.
"""

import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fun_transformer.training.data.readers import read_lines

from .g2p_data import read_dictionary

Words = list[str]


@dataclass(frozen=True)
class Table:
    """A task with public data.

    Attributes:
        recipe: A file of `hub_configs`.
        files: What the folder of its data must have.
        prepare: Name the data to the trainer: from the folder of the data, and one for files that are written.
        metrics: What is reported.
        texts: Give the training texts, from the folder of the data, where there is a recipe for pretraining.
    """

    recipe: str
    files: tuple[str, ...]
    prepare: Callable[[Path, Path], Words]
    metrics: tuple[str, ...]
    texts: Callable[[Path], Iterator[str]] | None = None


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write rows as jsonl."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def name_tables(paths: list[Path], source: str = "source", target: str = "target") -> Words:
    """Name a table for train, validation and test each, and its columns."""
    words = []
    for split, path in zip(("train", "validation", "test"), paths, strict=True):
        words += [f"--data.{split}.dataset={path}", f"--data.{split}.source_column={source}"]
        words += [f"--data.{split}.target_column={target}"]
    return words


# ── Translation ──────────────────────────────────────────────────────────────────────────────────────────────────


def captions(source: str, target: str) -> Table:
    """Multi30k, from one language to another: test_2016_flickr."""
    names = ("train", "val", "test_2016_flickr")

    def prepare(data: Path, _: Path) -> Words:
        splits = zip(("train", "validation", "test"), names, strict=True)
        sides = (("source", source), ("target", target))
        return [f"--data.{split}.{side}={data / name}.{lang}.gz" for split, name in splits for side, lang in sides]

    files = tuple(f"{name}.{lang}.gz" for name in names for lang in (source, target))
    return Table("captions-de-en/recipe.yaml", files, prepare, ("bleu", "chrf"))


def tatoeba(data: Path, _: Path) -> Words:
    """Name the Chinese and English sides of the Tatoeba pairs."""
    paths = [data / f"{split}.jsonl.xz" for split in ("train", "validation", "test")]
    return name_tables(paths, "translation.zh", "translation.en")


def cmudict(data: Path, folder: Path) -> Words:
    """Write the split of the published tables as rows: words of dev that training has are left out of it."""
    train, dev, test = (read_dictionary(str(data / name)) for name in CMUDICT)
    dev = {word: pronunciations for word, pronunciations in dev.items() if word not in train}
    pairs = [{"source": word, "target": target} for word, targets in train.items() for target in targets]
    write_rows(folder / "train.jsonl", pairs)
    for name, words in (("dev", dev), ("test", test)):
        rows = [{"source": word, "target": found[0], "references": found} for word, found in words.items()]
        write_rows(folder / f"{name}.jsonl", rows)
    words = name_tables([folder / f"{name}.jsonl" for name in ("train", "dev", "test")])
    words += [f"--data.{split}.references_column=references" for split in ("validation", "test")]
    return [*words, "--generation.metrics=per,g2p_wer", "--generation.batch_size=512"]


CMUDICT = tuple(f"cmudict-0.7b.{name}.xz" for name in ("train-dev-20-21", "train-dev-1-21", "test"))


def scan(split: str, cutoff: int | None = None) -> Table:
    """SCAN, where commands become actions: lines `IN: jump twice OUT: I_JUMP I_JUMP`.

    Args:
        split: "simple" or "length".
        cutoff: Split the rows of both files again: outputs of up to this many actions train (Newman et al. 2020).
    """
    names = tuple(f"tasks_{part}_{split}.txt.xz" for part in ("train", "test"))

    def prepare(data: Path, folder: Path) -> Words:
        lines = [[line.strip() for line in read_lines(data / name)] for name in names]
        pairs = [[line.removeprefix("IN: ").split(" OUT: ") for line in part if line] for part in lines]
        if cutoff:
            both = [*pairs[0], *pairs[1]]
            pairs = [
                [pair for pair in both if (len(pair[1].split()) > cutoff) == is_long] for is_long in (False, True)
            ]
        for part, rows in zip(("train", "test"), pairs, strict=True):
            write_rows(folder / f"{part}.jsonl", [{"source": source, "target": target} for source, target in rows])
        return [f"--data.{part}.dataset={folder / f'{part}.jsonl'}" for part in ("train", "test")]

    return Table("scan/recipe.yaml", names, prepare, ("exact",))


# ── Labels ───────────────────────────────────────────────────────────────────────────────────────────────────────


def sst2(data: Path, _: Path) -> Words:
    """Name text and label, which have no header."""
    return name_tables([data / f"{name}.tsv.xz" for name in ("train", "dev", "test")], "0", "1")


def chnsenticorp(data: Path, _: Path) -> Words:
    """Name the columns of the reviews: dev is the test set, as the test file has no labels; train gives validation."""
    words = []
    for split, name in (("train", "train"), ("test", "dev")):
        words += [f"--data.{split}.dataset={data / name}.tsv.xz", f"--data.{split}.source_column=text_a"]
        words.append(f"--data.{split}.target_column=label")
    return words


def conll2000(data: Path, folder: Path) -> Words:
    """Write the sentences as rows; the last 936 of the training set are for validation."""
    train, test = (list(read_chunks(data, name)) for name in ("train", "test"))
    for name, rows in (("train", train[:8000]), ("validation", train[8000:]), ("test", test)):
        write_rows(folder / f"{name}.jsonl", rows)
    return name_tables([folder / f"{name}.jsonl" for name in ("train", "validation", "test")], "words", "tags")


def read_chunks(data: Path, name: str) -> Iterator[dict[str, str]]:
    """Read sentences of CoNLL-2000: a word, its part of speech and its chunk tag a line, blank lines between."""
    text = zipfile.ZipFile(data / "conll2000.zip").read(f"conll2000/{name}.txt").decode("utf-8")
    for block in text.strip().split("\n\n"):
        columns = [line.split() for line in block.splitlines()]
        yield {"words": " ".join(cells[0] for cells in columns), "tags": " ".join(cells[2] for cells in columns)}


def column(name: str, place: int, skip: int = 0) -> Callable[[Path], Iterator[str]]:
    """Give a reader of a column of a tsv file, after some lines of header."""

    def texts(data: Path) -> Iterator[str]:
        rows = (line.rstrip("\n").split("\t") for line in list(read_lines(data / name))[skip:])
        return (row[place] for row in rows if len(row) > place)

    return texts


def chunk_texts(data: Path) -> Iterator[str]:
    """Read the sentences that training has."""
    return (row["words"] for row in list(read_chunks(data, "train"))[:8000])


REVIEWS = ("train.tsv.xz", "dev.tsv.xz", "test.tsv.xz")
LABEL = ("accuracy",)
TABLES = {
    "cmudict": Table("g2p-en-distilled/teacher.yaml", CMUDICT, cmudict, ("per", "g2p_wer")),
    "multi30k-de-en": captions("de", "en"),
    "multi30k-en-de": captions("en", "de"),
    "tatoeba-zh-en": Table(
        "tatoeba-zh-en/recipe.yaml",
        ("train.jsonl.xz", "validation.jsonl.xz", "test.jsonl.xz"),
        tatoeba,
        ("bleu", "chrf"),
    ),
    "scan-simple": scan("simple"),
    "scan-length": scan("length"),
    "scan-length-26": scan("length", cutoff=26),
    "sst2": Table("sentiment-en/recipe.yaml", REVIEWS, sst2, LABEL, column("train.tsv.xz", 0)),
    "chnsenticorp": Table(
        "sentiment-zh/recipe.yaml", REVIEWS[:2], chnsenticorp, LABEL, column("train.tsv.xz", 1, skip=1)
    ),
    "conll2000": Table("chunking-en/recipe.yaml", ("conll2000.zip",), conll2000, ("f1", "accuracy"), chunk_texts),
}
