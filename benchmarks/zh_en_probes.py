"""What makes a translator from Chinese fall apart: traditional characters, no final mark, numbers, names, addresses.

    python -m benchmarks.zh_en_probes hub_configs/zh-en-small test.jsonl.xz --output probes.json

The rows of a test split are changed as `benchmarks/zh_en_data.py` changes training rows, by another seed, and
translated. For changed sources BLEU and chrF compare with the unchanged references; where something has to be copied,
the share of outputs that hold it is counted, too.
"""

import argparse
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.zh_en_data import FINAL, address, clock, latin_name, number, read_pairs

SEED = 2026
MADE = 200  # rows of each kind that is made from templates or names
TIMES = (("商店{}开门。", "The store opens at {}."), ("请在{}叫醒我。", "Please wake me up at {}."))
NUMBERS = (  # no template of the training rows is here
    ("我们班有{}个学生。", "There are {} students in our class."),
    ("这台电脑{}元。", "This computer costs {} yuan."),
    ("我用了{}分钟。", "It took me {} minutes."),
    ("这条河长{}公里。", "This river is {} kilometers long."),
    ("他有{}本书。", "He has {} books."),
    *TIMES,
)
ADDRESSES = (
    ("请访问{}。", "Please visit {}."),
    ("这篇文章在{}。", "This article is at {}."),
    ("你可以写信到{}。", "You can write to {}."),
    ("我从{}下载了它。", "I downloaded it from {}."),
)


class Probe(NamedTuple):
    """A source, its reference, and what the translation must hold as it is ("": nothing)."""

    source: str
    reference: str
    copied: str = ""


def named(pairs: list[tuple[str, str]], rng: random.Random) -> Iterator[Probe]:
    """Rows about Tom or Mary, with a name in Latin letters in their place."""
    for chinese, english in pairs:
        for old, latin in (("汤姆", "Tom"), ("玛丽", "Mary")):
            if chinese.count(old) == 1 and len(re.findall(rf"\b{latin}\b", english)) == 1:
                name = latin_name(rng)
                yield Probe(chinese.replace(old, name), re.sub(rf"\b{latin}\b", name, english), name)
                break


def filled(templates: tuple[tuple[str, str], ...], rng: random.Random) -> Iterator[Probe]:
    """Sentences with an address, or with a number or a time of day."""
    for _ in range(MADE):
        template = rng.choice(templates)
        value = address(rng) if templates is ADDRESSES else clock(rng) if template in TIMES else number(rng)
        yield Probe(template[0].format(value), template[1].format(value), value)


def make_probes(pairs: list[tuple[str, str]], traditional: Callable[[str], str]) -> dict[str, list[Probe]]:
    """Probes of each kind from the rows of a test split."""
    rng = random.Random(SEED)
    return {
        "as it is": [Probe(zh, en) for zh, en in pairs],
        "traditional characters": [Probe(traditional(zh), en) for zh, en in pairs],
        "no final mark": [Probe(zh.rstrip(FINAL), en) for zh, en in pairs],
        "Latin names": [*named(pairs, rng)][:MADE],
        "numbers": [*filled(NUMBERS, rng)],
        "addresses": [*filled(ADDRESSES, rng)],
    }


def translate(model: str, sources: list[str], num_beams: int) -> list[str]:
    """Translate with the pipeline, as a user does."""
    from transformers import pipeline

    import fun_transformer  # noqa: F401 (registers the pipeline)

    found = pipeline("translation", model=model)(sources, batch_size=32, num_beams=num_beams, max_new_tokens=100)
    return [row["translation_text"] for row in found]


def main() -> None:
    """Translate the probes, print the scores, write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a model from Chinese to English")
    parser.add_argument("test", nargs="+", help="test files with rows of zh and en")
    parser.add_argument("--num_beams", type=int, default=5)
    parser.add_argument("--output", type=Path, help="gets the scores and the worst copies (.json)")
    options = parser.parse_args()
    from opencc import OpenCC

    from fun_transformer.training.metrics import compute_metrics

    pairs = [(zh, en) for zh, en, _ in read_pairs(options.test)]
    results = {}
    for name, probes in make_probes(pairs, OpenCC("s2t").convert).items():
        outputs = translate(options.model, [probe.source for probe in probes], options.num_beams)
        scores = compute_metrics(["bleu", "chrf"], outputs, [[probe.reference] for probe in probes], "13a")
        lost = [(probe.source, output) for probe, output in zip(probes, outputs) if probe.copied not in output]
        results[name] = {"rows": len(probes), **scores}
        if probes[0].copied:
            results[name] |= {"copied": 1 - len(lost) / len(probes), "lost": lost[:20]}
        print(name, {key: value for key, value in results[name].items() if key != "lost"}, flush=True)
    if options.output:
        options.output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
