"""What guards find and mend on noisy inputs, by kind of noise.

    python -m benchmarks.guards MODEL test.jsonl --columns zh en --output benchmarks/results/guards-zh-en.json

Each row of the table has the inputs of one kind: how many outputs had faults without guard and with it, how many loops
were left, which fallbacks were taken, chrF against the clean translation where there is one, and the time.
"""

import argparse
import json
import lzma
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sacrebleu
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import fun_transformer  # noqa: F401 (registers the models)
from benchmarks.noise import KINDS, Pair, noisy_inputs
from fun_transformer.decoding import FALLBACKS, Generate, generator, guarded
from fun_transformer.files import write_atomically
from fun_transformer.training.run.environment import describe_environment


def read_pairs(path: str, columns: list[str]) -> list[Pair]:
    """Return the pairs of a jsonl file, .xz or not, from columns or the `translation` of each row."""
    opener = lzma.open if path.endswith(".xz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows = [row.get("translation", row) for row in rows]
    return [(row[columns[0]], row[columns[1]]) for row in rows]


def measure(generate: Generate, inputs: list[tuple[str, str, str]], fallbacks: list[str]) -> dict[str, Any]:
    """Return the figures of one kind of noise."""
    sources = [source for _, source, _ in inputs]
    start = time.process_time()
    plain = [output.text for output in generate(sources)]
    without = time.process_time() - start
    start = time.process_time()
    guarded_outputs = guarded(generate, sources, fallbacks=fallbacks)
    seconds = time.process_time() - start
    faulty = [i for i, one in enumerate(guarded_outputs) if one.faults and inputs[i][2]]
    references = [inputs[i][2] for i in faulty]
    return {
        "inputs": len(inputs),
        "faulty_without": sum(bool(one.faults) for one in guarded_outputs),
        "found": count(fault for one in guarded_outputs for fault in one.faults),
        "faulty_with": sum(bool(one.left) for one in guarded_outputs),
        "left": count(fault for one in guarded_outputs for fault in one.left),
        "fallbacks": count(one.fallback for one in guarded_outputs if one.fallback),
        "chrf_of_faulty_without": chrf([plain[i] for i in faulty], references),
        "chrf_of_faulty_with": chrf([guarded_outputs[i].text for i in faulty], references),
        "seconds_without": round(without, 2),
        "seconds_with": round(seconds, 2),
    }


def count(names: Iterable[str]) -> dict[str, int]:
    """Return how often each name is there, the most frequent first."""
    return dict(Counter(names).most_common())


def chrf(texts: list[str], references: list[str]) -> float | None:
    """Return the chrF of texts, None for none."""
    return round(sacrebleu.corpus_chrf(texts, [references]).score, 1) if texts else None


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the results in Markdown."""
    head = ["noise", "inputs", "faulty without guard", "of these loops", "faulty with guard", "loops left"]
    head += ["chrF of the faulty, without", "with", "CPU s without", "with"]
    lines = [head, ["---"] * len(head)]
    for kind, row in results.items():
        loops = row["found"].get("loop", 0), row["left"].get("loop", 0)
        figures = [row["inputs"], row["faulty_without"], loops[0], row["faulty_with"], loops[1]]
        figures += [row[name] for name in ("chrf_of_faulty_without", "chrf_of_faulty_with")]
        figures += [row[name] for name in ("seconds_without", "seconds_with")]
        lines.append([kind, *("-" if figure is None else str(figure) for figure in figures)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure each kind, write the results and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder or name of a model that translates")
    parser.add_argument("data", help="clean pairs that it was not trained on (jsonl, .xz or not)")
    parser.add_argument("--columns", nargs=2, default=["source", "target"], help="of the data")
    parser.add_argument("--count", type=int, default=1000, help="inputs, of all kinds together")
    parser.add_argument("--fallbacks", nargs="*", choices=list(FALLBACKS), default=list(FALLBACKS))
    parser.add_argument("--num_beams", type=int, default=4)
    parser.add_argument("--max_new_tokens", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="where the results go (JSON)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = AutoModelForSeq2SeqLM.from_pretrained(options.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    search = {"num_beams": options.num_beams, "max_new_tokens": options.max_new_tokens}
    generate = generator(model, tokenizer, batch_size=options.batch_size, **search)
    inputs = noisy_inputs(read_pairs(options.data, options.columns), options.count, options.seed)
    results = {}
    for kind in KINDS:
        results[kind] = measure(generate, [row for row in inputs if row[0] == kind], options.fallbacks)
    print(table(results))
    if options.output:
        words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]  # no folders of ours
        about = {"command": f"python -m benchmarks.guards {shlex.join(words)}", "environment": describe_environment()}
        text = json.dumps(about | {"kinds": results}, indent=1, ensure_ascii=False)
        write_atomically(options.output, text + "\n")


if __name__ == "__main__":
    main()
