"""BPE: how words are cut into tokens. 子词切分：从字符开始，一次又一次合并最常见的一对。

`python -m examples.bpe [OUTPUT_DIR]` learns merges by hand, as Sennrich et al. (2016) do, applies those of the
translator hub_configs/zh-en-small, and draws bpe.svg.
"""

import json
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

import fun_transformer  # noqa: F401  registers the tokenizer
from fun_transformer.visualization import plot_pieces

MODEL = Path(__file__).parents[1] / "hub_configs" / "zh-en-small"
COUNTS = {"low": 5, "lower": 2, "newest": 6, "widest": 3}  # words and how often they occur
SHOWN = ("▁transformer", "今天吃什么好")  # ▁ is the space before a word


def merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """Join the pair wherever it occurs, from left to right."""
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def learn(counts: dict[str, int], steps: int) -> list[tuple[str, str]]:
    """Training: count all pairs of neighbours, merge the most frequent one, count again."""
    words, merges = {word: list(word) for word in counts}, []
    for _ in range(steps):
        pairs = Counter()
        for word, pieces in words.items():
            for pair in pairwise(pieces):
                pairs[pair] += counts[word]
        best, count = pairs.most_common(1)[0]  # of equals the one that was seen first
        print(f"merge {len(merges) + 1}: {best[0]} + {best[1]}, {count} times")
        merges.append(best)
        words = {word: merge(pieces, best) for word, pieces in words.items()}
    return merges


def cut(word: str, merges: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Use: of the merges that fit, always the one that was learned first. The merge and the pieces after it, each."""
    rank = {pair: number for number, pair in enumerate(merges)}
    pieces = list(word)
    steps = [("", pieces)]
    while fitting := [pair for pair in pairwise(pieces) if pair in rank]:
        first = min(fitting, key=rank.__getitem__)
        pieces = merge(pieces, first)
        steps.append((f"{rank[first] + 1:,}: {first[0]} + {first[1]}", pieces))
    return steps


def main() -> None:
    merges = learn(COUNTS, 8)
    print(f"lowest, which was never seen: {' '.join(cut('lowest', merges)[-1][1])}")

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    learned = [tuple(pair) for pair in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]]
    rows = []
    for word in SHOWN:
        steps = cut(word, learned)
        np.testing.assert_equal(steps[-1][1], tokenizer.tokenize(word.replace("▁", " ")))
        rows += steps
        print(f"By hand equals the tokenizer: {' '.join(steps[-1][1])}")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    plot_pieces(rows, folder / "bpe.svg", title="合并的次序（第几条规则）与切分 · merge by merge")


if __name__ == "__main__":
    main()
