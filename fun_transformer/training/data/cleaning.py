"""Leave doubtful pairs out of a training corpus, by five filters (Koehn et al. 2020 compare many more).

| filter | leaves out |
| --- | --- |
| duplicates | a pair that came before |
| identical | a target that is its source, letter case and spaces apart |
| ratio | a side more than three times longer or shorter than the other suggests, by the corpus's own median |
| script | a side written in another script than that side of the corpus: Chinese, Latin, Cyrillic ... |
| control | control and private-use characters, and the replacement character of a failed decoding |

Nothing is corrected and only `data.train` is cleaned: a test set that is changed measures something else.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import datasets
import numpy as np

from .caching import processes_for, remembered

# Of a row that fails several, the first of these is reported.
FILTERS = ("control", "identical", "script", "ratio", "duplicates")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ue000-\uf8ff\ufffd]")
SCRIPTS = {
    "Chinese or Japanese": r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff",
    "Latin": r"A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02b8\u1e00-\u1eff",
    "Cyrillic": r"\u0400-\u052f",
    "Greek": r"\u0370-\u03ff\u1f00-\u1fff",
    "Arabic": r"\u0600-\u06ff\u0750-\u077f",
    "Hebrew": r"\u0590-\u05ff",
    "Devanagari": r"\u0900-\u097f",
    "Thai": r"\u0e00-\u0e7f",
    "Hangul": r"\u1100-\u11ff\uac00-\ud7af",
}
LETTERS = {name: re.compile(f"[{letters}]") for name, letters in SCRIPTS.items()}
WEIGHTS = {"Chinese or Japanese": 4}  # a character says as much as a few letters; names stay Latin in Chinese text
LEAST_SHARE = 0.2  # of a text's letters that must be of the right script
LARGEST_RATIO = 3.0
FREE_CHARACTERS = 10  # added to both lengths: short texts differ more
SAMPLE_ROWS = 10_000  # how many rows a corpus is measured by


@dataclass(frozen=True)
class Profile:
    """What is usual in a corpus."""

    source_script: str
    target_script: str
    ratio: float  # median of characters of the target per character of the source


def count_letters(text: str) -> dict[str, int]:
    """Return the weighted number of letters of each script that occurs."""
    found = {name: len(letters.findall(text)) * WEIGHTS.get(name, 1) for name, letters in LETTERS.items()}
    return {name: count for name, count in found.items() if count}


def main_script(texts: Sequence[str]) -> str:
    """Return the script of most letters; "" where there are none."""
    totals: dict[str, int] = {}
    for text in texts:
        for name, count in count_letters(text).items():
            totals[name] = totals.get(name, 0) + count
    return max(totals, key=lambda name: totals[name], default="")


def measure(sources: Sequence[str], targets: Sequence[str]) -> Profile:
    """Return the profile of a corpus, from some of its pairs."""
    ratios = [len(target) / max(1, len(source)) for source, target in zip(sources, targets)]
    return Profile(main_script(sources), main_script(targets), float(np.median(ratios)))


def is_wrong_script(text: str, script: str) -> bool:
    """Return whether hardly any of the letters are of the script."""
    counts = count_letters(text)
    return bool(script and counts) and counts.get(script, 0) < LEAST_SHARE * sum(counts.values())


def is_out_of_proportion(source: str, target: str, ratio: float) -> bool:
    """Return whether one side is much longer than the other suggests.

    Args:
        source: Text.
        target: Its translation.
        ratio: Characters of a target per character of its source, in this corpus.
    """
    expected, found = len(source) * ratio + FREE_CHARACTERS, len(target) + FREE_CHARACTERS
    return max(expected, found) > LARGEST_RATIO * min(expected, found)


def find_problem(source: str, target: str, profile: Profile, filters: Sequence[str]) -> str:
    """Return what the filters find wrong with a pair; "" if nothing."""
    if "control" in filters and (CONTROL.search(source) or CONTROL.search(target)):
        return "control characters"
    if "identical" in filters and " ".join(source.casefold().split()) == " ".join(target.casefold().split()):
        return "sides are identical"
    if "script" in filters:
        for side, text, script in (
            ("source", source, profile.source_script),
            ("target", target, profile.target_script),
        ):
            if is_wrong_script(text, script):
                return f"{side} is not {script}"
    if "ratio" in filters and is_out_of_proportion(source, target, profile.ratio):
        return "lengths do not fit"
    return ""


def mark_problems(batch: dict[str, list[str]], profile: Profile, filters: list[str]) -> dict[str, list[str]]:
    """Fill the column `problem` of a batch; a problem that was found earlier stays."""
    rows = zip(batch["source"], batch["target"], batch["problem"])
    return {"problem": [problem or find_problem(source, target, profile, filters) for source, target, problem in rows]}


def clean(rows: datasets.Dataset, filters: Sequence[str]) -> datasets.Dataset:
    """Return the rows with what the filters find in `problem`, duplicates excepted (see `find_duplicates`).

    Args:
        rows: One corpus, with `source`, `target` and `problem`.
        filters: Names of filters.
    """
    filters = [name for name in FILTERS if name in filters and name != "duplicates"]
    if not filters:
        return rows
    sample = rows.select(range(0, len(rows), max(1, len(rows) // SAMPLE_ROWS)))
    profile = measure(sample["source"][:], sample["target"][:])
    options = {"profile": profile, "filters": filters}
    return rows.map(mark_problems, batched=True, fn_kwargs=options, num_proc=processes_for(len(rows)), desc="Cleaning")


def row_keys(rows: datasets.Dataset, columns: Sequence[str], prefix: str = "") -> np.ndarray:
    """Return a number for the text of each row, the same for the same text.

    Args:
        rows: With the columns.
        columns: Whose texts are the row's text.
        prefix: Comes before the text; another prefix gives other numbers.

    Returns:
        The first 64 bits of each text's BLAKE2b hash, (rows,).
    """

    def digests() -> Iterator[bytes]:
        for batch in rows.select_columns(list(columns)).iter(10_000):
            for texts in zip(*(batch[column] for column in columns)):
                yield hashlib.blake2b((prefix + "\0".join(texts)).encode()).digest()[:8]

    return np.frombuffer(b"".join(digests()), dtype=">u8").astype(np.uint64)


def find_duplicates(rows: datasets.Dataset) -> np.ndarray:
    """Return whether each row has come before, with both sides the same: (rows,)."""
    is_duplicate = np.ones(len(rows), dtype=bool)
    is_duplicate[np.unique(remembered(rows, row_keys, ["source", "target"]), return_index=True)[1]] = False
    return is_duplicate
