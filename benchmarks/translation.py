"""Translation speed beside the peers, in one run: sentences per second, A B A B, with the same weights and strings.

    python -m benchmarks.translation MODEL test.jsonl.xz --columns zh en --output RESULTS.json
    python -m benchmarks.translation MODEL test.jsonl.xz --columns zh en --limit 998 --rounds 1 --cases beam5-batch32

Every contender gets the same batches, sorted by length, and does everything from text to text. Counted are seconds of
the processor, on a GPU those of the clock. "Equal" counts the outputs that are those of our own model in float32.
Machines are noisy: compare ratios within a run, not figures of two runs. What is not installed, or cannot hold the
weights of the model, is left out with a line that says why: see `benchmarks.translators`.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import sacrebleu
import torch

from benchmarks.decoding import read_pairs
from benchmarks.translators import CONTENDERS, DEVICE, Translate, Unavailable, Workshop, synchronize
from fun_transformer.files import write_atomically
from fun_transformer.training.run.environment import describe_environment

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


class Case(NamedTuple):
    """How sentences are translated."""

    num_beams: int
    batch_size: int


CASES = {
    "greedy-batch1": Case(1, 1),
    "beam5-batch1": Case(5, 1),
    "greedy-batch32": Case(1, 32),
    "beam5-batch32": Case(5, 32),
}


def instructions() -> list[str]:
    """Name the instructions of the processor that decide which type is fast, where the system tells them."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [name for name in INSTRUCTIONS if name in flags]


def translate_all(translate: Translate, texts: list[str], case: Case) -> tuple[list[str], dict[str, float]]:
    """Translate all texts in batches; return the outputs and the seconds, of the clock and of the processor."""
    synchronize()
    wall, cpu, outputs = time.monotonic(), time.process_time(), []
    for start in range(0, len(texts), case.batch_size):
        outputs += translate(texts[start : start + case.batch_size], case.num_beams)
    synchronize()
    return outputs, {"wall": time.monotonic() - wall, "cpu": time.process_time() - cpu}


def build_all(names: list[str], workshop: Workshop) -> tuple[dict[str, Translate], dict[str, str]]:
    """Build the contenders.

    Returns:
        What translates, by name, and why others cannot take part.
    """
    built, missing = {}, {}
    for name in names:
        try:
            built[name] = CONTENDERS[name](workshop)
        except Unavailable as reason:
            missing[name] = str(reason)
            print(f"left out: {name}: {reason}", flush=True)
        torch.set_num_threads(workshop.threads)
    return built, missing


def measure(contenders: dict[str, Translate], texts: list[str], case: Case, rounds: int) -> dict[str, dict[str, Any]]:
    """Let all contenders translate the same texts in turn.

    Returns:
        By contender: its outputs and its turns.
    """
    found: dict[str, dict[str, Any]] = {name: {"turns": []} for name in contenders}
    for translate in contenders.values():  # the first batches allocate, and compile
        translate_all(translate, texts[: 2 * case.batch_size], case)
    for number in range(rounds):
        for name, translate in contenders.items():
            found[name]["outputs"], turn = translate_all(translate, texts, case)
            found[name]["turns"].append(turn)
            speeds = f"{len(texts) / turn['wall']:8.1f} /s {len(texts) / turn['cpu']:8.1f} /cpu-s"
            print(f"  {number + 1} {name:26} {speeds}", flush=True)
    return found


def figures(found: dict[str, dict[str, Any]], references: list[str], counted: str) -> dict[str, dict[str, Any]]:
    """Return speed, equal outputs and scores of each contender; the first one's outputs are those to be equal to."""
    right = next(iter(found.values()))["outputs"]
    return {
        name: {
            "sentences_per_second": len(right) / statistics.median(turn[counted] for turn in one["turns"]),
            "equal": sum(output == other for output, other in zip(one["outputs"], right)),
            "bleu": sacrebleu.corpus_bleu(one["outputs"], [references]).score,
            "chrf": sacrebleu.corpus_chrf(one["outputs"], [references]).score,
            "turns": one["turns"],
        }
        for name, one in found.items()
    }


def table(cases: dict[str, dict[str, dict[str, Any]]], sentences: int) -> str:
    """Return a Markdown table: a row for each contender, and for each case its speed and its equal outputs."""
    lines = [f"| | {' | '.join(cases)} | BLEU | chrF |", "| --- |" + " --- |" * (len(cases) + 2)]
    for name in next(iter(cases.values())):
        cells = []
        for rows in cases.values():
            ratio = rows[name]["sentences_per_second"] / baseline(rows)["sentences_per_second"]
            cells.append(
                f"{rows[name]['sentences_per_second']:,.0f} ({ratio:.2f}), {rows[name]['equal']} of {sentences} equal"
            )
        last = list(cases.values())[-1][name]
        lines.append(f"| {name} | {' | '.join(cells)} | {last['bleu']:.2f} | {last['chrf']:.2f} |")
    return "\n".join(lines)


def baseline(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the row that others are compared with: transformers' own model in float32, or else the first."""
    return rows.get("MarianMT fp32", next(iter(rows.values())))


def main() -> None:
    """Run the contenders, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a translation model of this project")
    parser.add_argument("data", help="jsonl file of pairs, .xz or not")
    parser.add_argument("--columns", nargs=2, default=["source", "target"], metavar=("SOURCE", "TARGET"))
    parser.add_argument("--limit", type=int, default=128, help="pairs that are read (default: 128)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender (default: 3)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), help="these contenders alone")
    parser.add_argument("--output", help="where to write the results (JSON)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pairs = sorted(read_pairs(options.data, options.columns, options.limit), key=lambda pair: len(pair[0]))
    texts, references = map(list, zip(*pairs))
    counted = "cpu" if DEVICE.type == "cpu" else "wall"  # other programs take wall time, too
    cases = {}
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(options.model, Path(folder), options.threads)
        contenders, missing = build_all(options.only or list(CONTENDERS), workshop)
        for name in options.cases:
            print(name, flush=True)
            cases[name] = figures(measure(contenders, texts, CASES[name], options.rounds), references, counted)
    per = "second" if counted == "wall" else f"CPU-second, threads: {options.threads}"
    print(f"\nsentences per {per} (and the ratio to the baseline)\n{table(cases, len(texts))}")
    if options.output:
        words = [Path(word).name if Path(word).exists() else word for word in sys.argv[1:]]  # no folders of ours
        results = {
            "command": f"python -m benchmarks.translation {shlex.join(words)}",
            "environment": describe_environment(),
            "instructions": instructions(),
            "threads": options.threads,
            "counted": counted,
            "load": os.getloadavg(),
            "sentences": len(texts),
            "left_out": missing,
            "cases": cases,
        }
        write_atomically(Path(options.output), json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
