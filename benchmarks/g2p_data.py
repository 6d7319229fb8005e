"""Writes the data of g2p-en-distilled: a split of CMUdict as rows, and words whose pronunciation is not known.

    python -m benchmarks.g2p_data cmudict-0.7b.train-dev-20-21.xz cmudict-0.7b.train-dev-1-21.xz \\
        cmudict-0.7b.test.xz --words words.txt --output_dir data/g2p

Lines are `WORD  P H O N E S`; a word with several pronunciations has several. Words of the second file that are in the
first, too, are left out of it. Of `--words`, a list from anywhere, those that are in none of the files are kept.
"""

import argparse
import json
import lzma
import re
from collections.abc import Sequence
from pathlib import Path

SPLITS = ("train", "dev", "test")


def read_dictionary(path: str) -> dict[str, list[str]]:
    """The distinct pronunciations of each word, in lower case."""
    found: dict[str, list[str]] = {}
    open_file = lzma.open if path.endswith(".xz") else open
    with open_file(path, "rt", encoding="latin-1") as lines:
        for line in lines:
            word, _, phonemes = line.strip().partition("  ")
            pronunciations = found.setdefault(word.lower(), [])
            if (pronunciation := " ".join(phonemes.split())) not in pronunciations:
                pronunciations.append(pronunciation)
    return found


def choose_words(words: list[str], known: set[str]) -> list[str]:
    """Words that look English and are not known, each once, in their order."""
    spelled = re.compile(r"(?=.*[aeiouy])[a-z]{2,18}('[a-z]{1,2})?")
    return [word for word in dict.fromkeys(words) if word not in known and spelled.fullmatch(word)]


def write_splits(files: Sequence[str], output_dir: Path) -> list[Path]:
    """Write train.jsonl, dev.jsonl and test.jsonl; return their paths."""
    train, dev, test = map(read_dictionary, files)
    dev = {word: pronunciations for word, pronunciations in dev.items() if word not in train}
    output_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, words in zip(SPLITS, (train, dev, test), strict=True):
        rows = []
        for word, pronunciations in words.items():
            row = {"source": word, "target": pronunciations[0], "references": pronunciations}
            rows += [{"source": word, "target": target} for target in pronunciations] if name == "train" else [row]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        paths.append(output_dir / f"{name}.jsonl")
        paths[-1].write_text(lines, encoding="utf-8")
        print(f"{name}.jsonl: {len(rows):,} rows")
    return paths


def main() -> None:
    """Write train.jsonl, dev.jsonl, test.jsonl and unlabelled.txt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs=3, metavar="FILE", help="train, dev and test")
    parser.add_argument("--words", help="text file with a word a line")
    parser.add_argument("--output_dir", type=Path, required=True)
    options = parser.parse_args()
    write_splits(options.files, options.output_dir)
    if options.words:
        words = Path(options.words).read_text(encoding="utf-8").split()
        chosen = choose_words(words, set().union(*map(read_dictionary, options.files)))
        (options.output_dir / "unlabelled.txt").write_text("\n".join(chosen) + "\n", encoding="utf-8")
        print(f"unlabelled.txt: {len(chosen):,} words")


if __name__ == "__main__":
    main()
