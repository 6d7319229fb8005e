"""Alignment error rate of attention and gradients on 50 pairs aligned by hand, beside a statistical aligner.

    python -m benchmarks.alignment MODEL train.jsonl --columns zh en --eflomal ENVIRONMENT/bin/python \\
        --output benchmarks/results/alignment-zh-en.json

The aligner is eflomal (Östling and Tiedemann 2016), which learns from the same pairs as the model did and from the 50:
its IBM models with fertility, both directions and their symmetrizations. It is installed into an environment of its
own (`pip install eflomal`), whose Python is named. Heads that are chosen by gold are chosen on one half and judged on
the other. data/alignments-zh-en.jsonl has the pairs, written and aligned for this benchmark; they are in the public
domain (CC0): "0-1" is a sure link of word 0 to word 1, "0?1" a possible one.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import fun_transformer  # noqa: F401 (registers the models)
from benchmarks.guards import read_pairs
from benchmarks.noise import Pair
from fun_transformer.decoding import (
    Aligner,
    Heads,
    Links,
    alignment_error_rate,
    choose_heads,
    parse_links,
    split_words,
)
from fun_transformer.files import write_atomically
from fun_transformer.training.run.environment import describe_environment

GOLD = Path(__file__).parent / "data" / "alignments-zh-en.jsonl"
# Run by the Python of eflomal's environment: aligns lines "source ||| target" of a file, writes both directions.
EFLOMAL = """
import sys
from eflomal import Aligner
pairs = [line.split(" ||| ") for line in open(sys.argv[1], encoding="utf-8").read().splitlines()]
sides = [[line + "\\n" for line in side] for side in zip(*pairs)]
Aligner(model=3).align(*sides, links_filename_fwd=sys.argv[2], links_filename_rev=sys.argv[3])
"""


class HandMade:
    """The pairs aligned by hand, and their words."""

    def __init__(self, path: Path = GOLD):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        self.sources = [row["zh"] for row in rows]
        self.targets = [row["en"] for row in rows]
        self.links = [parse_links(row["links"]) for row in rows]
        self.words = {row[side]: row[f"{side}_words"].split() for row in rows for side in ("zh", "en")}

    def split(self, text: str) -> list[str]:
        """Return the words of one of the texts; those of others are its characters, as `split_words` has them."""
        return self.words.get(text) or split_words(text)

    def error(self, aligner: Aligner) -> float:
        """Return the error rate of an aligner."""
        found = aligner.align(self.sources, self.targets)
        return alignment_error_rate([one.links for one in found], self.links)


def halves_error(aligner: Aligner, gold: HandMade) -> tuple[float, list[Heads]]:
    """Return the error rate where each half is aligned by the heads that the other half chose, and the heads."""
    links: dict[int, Links] = {}
    chosen = []
    for part in (0, 1):
        here, other = (range(start, len(gold.sources), 2) for start in (part, 1 - part))
        pick = [[side[i] for i in other] for side in (gold.sources, gold.targets)]
        heads = choose_heads(aligner, *pick, gold=[gold.links[i] for i in other])
        judged = Aligner(aligner.model, aligner.tokenizer, heads, gold.split)
        found = judged.align([gold.sources[i] for i in here], [gold.targets[i] for i in here])
        links |= zip(here, (one.links for one in found))
        chosen.append(heads)
    return alignment_error_rate([links[i] for i in range(len(gold.sources))], gold.links), chosen


def run_eflomal(python: str, pairs: list[Pair], gold: HandMade) -> dict[str, float]:
    """Return the error rates of eflomal, which aligns single hanzi: their links count for the words they are in."""
    texts = [*pairs, *zip(gold.sources, gold.targets)]
    lines = [
        f"{' '.join(split_words(source))} ||| {' '.join(split_words(target)).casefold()}" for source, target in texts
    ]
    with tempfile.TemporaryDirectory() as folder:
        names = [str(Path(folder, name)) for name in ("pairs", "forward", "reverse")]
        Path(names[0]).write_text("\n".join(lines), encoding="utf-8")
        subprocess.run([python, "-c", EFLOMAL, *names], check=True, stderr=subprocess.DEVNULL)
        directions = []
        for name in names[1:]:
            found = Path(name).read_text(encoding="utf-8").splitlines()[len(pairs) :]
            directions.append([of_words(line, source, gold) for line, source in zip(found, gold.sources, strict=True)])
    forward, reverse = directions
    merged = {
        "forward": forward,
        "reverse": reverse,
        "intersection": [a & b for a, b in zip(forward, reverse)],
        "union": [a | b for a, b in zip(forward, reverse)],
        "grow-diag": [grow_diagonally(a, b) for a, b in zip(forward, reverse)],
    }
    return {name: alignment_error_rate([sorted(one) for one in links], gold.links) for name, links in merged.items()}


def of_words(line: str, source: str, gold: HandMade) -> set[tuple[int, int]]:
    """Return the links of a line of single hanzi as links of the source's words."""
    owners = [i for i, word in enumerate(gold.words[source]) for _ in split_words(word)]
    return {(owners[i], j) for i, j in parse_links(line).possible}


def grow_diagonally(forward: set[tuple[int, int]], reverse: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return the links of both directions, and neighbours of these in either whose word has no link (Koehn 2003)."""
    links, more = forward & reverse, True
    while more:
        more = False
        for i, j in sorted((forward | reverse) - links):
            beside = any((i + a, j + b) in links for a in (-1, 0, 1) for b in (-1, 0, 1))
            if beside and (all(s != i for s, _ in links) or all(t != j for _, t in links)):
                links.add((i, j))
                more = True
    return links


def measure_model(model, tokenizer, pairs: list[Pair], gold: HandMade) -> dict[str, Any]:
    """Return the error rates of a model: by default, chosen without gold, chosen by gold, by gradient."""
    aligner = Aligner(model, tokenizer, split=gold.split)
    sources, targets = (list(side) for side in zip(*pairs))
    unaided = choose_heads(aligner, sources, targets)
    by_gold, chosen = halves_error(aligner, gold)
    results: dict[str, Any] = {
        "default": gold.error(aligner),
        "chosen without gold": gold.error(Aligner(model, tokenizer, unaided, gold.split)),
        "chosen by the other half": by_gold,
        "heads": {"without gold": str(unaided), "by halves": [str(heads) for heads in chosen]},
    }
    start = time.process_time()
    results["gradient"] = gold.error(Aligner(model, tokenizer, Heads(None), gold.split))
    results["gradient_seconds"] = time.process_time() - start
    if unaided.layer is not None:
        for layer in range(model.config.decoder_layers):
            for step in ("choosing", "reading"):
                heads = Heads(layer, None, step)
                results[f"layer {layer}, {step}"] = gold.error(Aligner(model, tokenizer, heads, gold.split))
    return results


def main() -> None:
    """Measure the model, and the aligner where there is one; write and print the error rates."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder or name of a model from Chinese to English")
    parser.add_argument("data", help="the pairs that it was trained on (jsonl, .xz or not)")
    parser.add_argument("--columns", nargs=2, default=["zh", "en"], help="of the data")
    parser.add_argument("--pairs", type=int, default=500, help="of the data, to choose heads without gold")
    parser.add_argument("--eflomal", metavar="PYTHON", help="of an environment with eflomal")
    parser.add_argument("--output", type=Path, help="where the results go (JSON)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    gold, pairs = HandMade(), read_pairs(options.data, options.columns)
    model = AutoModelForSeq2SeqLM.from_pretrained(options.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    results = {"model": measure_model(model, tokenizer, pairs[: options.pairs], gold)}
    if options.eflomal:
        results["eflomal"] = run_eflomal(options.eflomal, pairs, gold)
    for system, rates in results.items():
        for name, rate in rates.items():
            print(f"{system:8} {name:26} {rate if isinstance(rate, dict) else round(rate, 3)}")
    if options.output:
        words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]  # no folders of ours
        about = {"command": f"python -m benchmarks.alignment {shlex.join(words)}"}
        about |= {"environment": describe_environment()}
        write_atomically(options.output, json.dumps(about | results, indent=1) + "\n")


if __name__ == "__main__":
    main()
