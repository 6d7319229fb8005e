"""What constrained, diverse and minimum Bayes risk decoding cost, and what they give, on a test set.

    python -m benchmarks.decoding MODEL test.jsonl.xz --columns zh en --output benchmarks/results/decoding-zh-en.json

Terms are rare words of the references, which the outputs are made to contain: recall is the share of terms that are
whole words of the output. BLEU is that of the same sentences; time is processor time, of all decodings over the same
batches.
"""

import argparse
import json
import lzma
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import regex
import sacrebleu
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import fun_transformer  # noqa: F401 (registers the models)
from fun_transformer.decoding import (
    SAMPLING,
    ConstrainedBeamSearch,
    DiverseBeamSearch,
    choose,
    continuing_tokens,
    spell,
)
from fun_transformer.files import write_atomically
from fun_transformer.training.run.environment import describe_environment

WORD = regex.compile(r"(?<![\p{L}\p{N}'’-])\p{L}{3,}(?![\p{L}\p{N}'’-])")
BATCH_SIZE = 32
Options = Callable[[Sequence[int]], dict[str, Any]]  # from the numbers of a batch's texts to arguments of `generate`


def read_pairs(path: str, columns: list[str], limit: int) -> list[tuple[str, str]]:
    """Return pairs of a jsonl file, .xz or not, from columns or the `translation` of each row."""
    opener = lzma.open if path.endswith(".xz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows = [row.get("translation", row) for row in rows]
    return [(row[columns[0]], row[columns[1]]) for row in rows][:limit]


def rare_words(references: list[str], greatest_count: int = 2) -> list[list[str]]:
    """Return the words of each reference that all references together have at most this often, the rarest first."""
    counts = Counter(word for text in references for word in WORD.findall(text))
    found = [dict.fromkeys(WORD.findall(text)) for text in references]
    return [
        sorted((word for word in words if counts[word] <= greatest_count), key=lambda word: counts[word])
        for words in found
    ]


def is_said(term: str, text: str) -> bool:
    """Tell whether a term is a whole word of a text."""
    return regex.search(rf"(?<![\p{{L}}\p{{N}}]){regex.escape(term)}(?![\p{{L}}\p{{N}}])", text) is not None


class Bench:
    """A model and the sentences it decodes.

    Args:
        path: Of the model.
        pairs: Sources and references, which have to have a term each.
    """

    def __init__(self, path: str, pairs: list[tuple[str, str]]):
        self.model = AutoModelForSeq2SeqLM.from_pretrained(path).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.continuing = continuing_tokens(self.tokenizer)
        self.terms = self.spelled(rare_words([reference for _, reference in pairs]))
        kept = [i for i, terms in enumerate(self.terms) if terms]
        kept.sort(key=lambda i: len(pairs[i][0]))
        self.terms = [self.terms[i] for i in kept]
        self.sources, self.references = map(list, zip(*(pairs[i] for i in kept)))

    def spelled(self, words_of_texts: list[list[str]]) -> list[list[str]]:
        """Leave out words that the model's tokens cannot spell."""
        return [[word for word in words if spell(self.tokenizer, [word])] for words in words_of_texts]

    def decode(self, options: Options, count: int = 1) -> tuple[list[list[str]], float]:
        """Return `count` outputs for each source, and the processor time in seconds."""
        outputs: list[list[str]] = []
        start = time.process_time()
        for first in range(0, len(self.sources), BATCH_SIZE):
            batch = range(first, min(first + BATCH_SIZE, len(self.sources)))
            encoded = self.tokenizer([self.sources[i] for i in batch], return_tensors="pt", padding=True)
            inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
            output_ids = self.model.generate(**inputs, num_return_sequences=count, **options(batch))
            texts = self.tokenizer.batch_decode(output_ids, skip_special_tokens=True)
            outputs += [texts[i : i + count] for i in range(0, len(texts), count)]
        return outputs, time.process_time() - start

    def constraints(self, number: int, num_beams: int) -> Options:
        """Return options that force up to this many terms into each output."""
        special = self.tokenizer.all_special_ids

        def options(batch: Sequence[int]) -> dict[str, Any]:
            found = [[spell(self.tokenizer, [term]) for term in self.terms[i][:number]] for i in batch]
            search = ConstrainedBeamSearch([[one for one in row if one] for row in found], special, self.continuing)
            return {"num_beams": num_beams, "custom_generate": search}

        return options

    def figures(self, texts: list[str], seconds: float, number: int = 1) -> dict[str, float]:
        """Return the figures of one output for each source."""
        said = [is_said(term, text) for terms, text in zip(self.terms, texts) for term in terms[:number]]
        return {
            "recall": 100 * sum(said) / len(said),
            "terms": len(said),
            "bleu": sacrebleu.corpus_bleu(texts, [self.references]).score,
            "chrf": sacrebleu.corpus_chrf(texts, [self.references]).score,
            "seconds": seconds,
        }


def measure(bench: Bench, num_beams: int, samples: int) -> dict[str, dict[str, float]]:
    """Return the figures of each way to decode."""
    rows: dict[str, dict[str, float]] = {}

    def note(name: str, texts: list[str], seconds: float, number: int = 1):
        rows[name] = bench.figures(texts, seconds, number)
        print(name, {key: round(value, 2) for key, value in rows[name].items()}, flush=True)

    def first(outputs: list[list[str]]) -> list[str]:
        return [texts[0] for texts in outputs]

    bench.decode(lambda batch: {"num_beams": num_beams})  # warms up
    plain, seconds = bench.decode(lambda batch: {"num_beams": num_beams})
    note("beam search", first(plain), seconds)
    for number in (1, 2, 3):
        rows[f"beam search, up to {number} terms looked for"] = bench.figures(first(plain), seconds, number)
        outputs, spent = bench.decode(bench.constraints(number, num_beams))
        note(f"constrained, up to {number} terms", first(outputs), spent, number)
    terms, bench.terms = bench.terms, bench.spelled(rare_words(first(plain)))  # nothing is to change
    outputs, spent = bench.decode(bench.constraints(1, num_beams))
    note("constrained, a word that beam search says anyway", first(outputs), spent)
    bench.terms = terms
    outputs, spent = bench.decode(bench.constraints(0, num_beams))
    if outputs != plain:
        raise AssertionError("Constrained beam search without constraints differs from plain beam search.")
    note("constrained, no term", first(outputs), spent)
    for name, options in (
        (f"{num_beams} best", {}),
        ("diverse, groups of 1", {"custom_generate": DiverseBeamSearch(num_beams, 0.5)}),
    ):
        outputs, spent = bench.decode(lambda batch, o=options: {"num_beams": num_beams} | o, num_beams)
        best = [
            max(texts, key=lambda text: sacrebleu.sentence_chrf(text, [reference]).score)
            for texts, reference in zip(outputs, bench.references)
        ]
        note(name, first(outputs), spent)
        note(f"{name}, the one nearest to the reference", best, spent)
        words = [len({word for text in texts for word in text.split()}) for texts in outputs]
        rows[name]["different_words"] = sum(words) / len(words)
    torch.manual_seed(1)
    outputs, spent = bench.decode(lambda batch: dict(SAMPLING), samples)
    note("one sample", first(outputs), spent / samples)
    for utility in ("chrf", "bleu"):
        start = time.process_time()
        texts = [choose(candidates, utility).text for candidates in outputs]
        note(f"MBR of {samples} samples, {utility}", texts, spent + time.process_time() - start)
    return rows


def main():
    """Measure and write a table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="folder or name of an encoder-decoder")
    parser.add_argument("data", help="jsonl file of pairs, .xz or not")
    parser.add_argument("--columns", nargs=2, default=["source", "target"], metavar=("SOURCE", "TARGET"))
    parser.add_argument("--limit", type=int, default=300, help="pairs that are read (default: 300)")
    parser.add_argument("--num_beams", type=int, default=4)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--output", type=Path, help="where the table is written")
    args = parser.parse_args()
    bench = Bench(args.model, read_pairs(args.data, args.columns, args.limit))
    rows = measure(bench, args.num_beams, args.samples)
    if args.output:
        table = {
            "command": shlex.join(["python", "-m", "benchmarks.decoding", *sys.argv[1:]]),
            "sentences": len(bench.sources),
            "environment": describe_environment(),
            "rows": rows,
        }
        write_atomically(args.output, json.dumps(table, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
