"""Why each step of the history was taken: RNNs, convolutions and Transformers of about equal size, side by side.

    python -m benchmarks.lineage reverse --seeds 1 2 3 --minutes 2 --output benchmarks/results/lineage-reverse.json
    python -m benchmarks.lineage train.jsonl validation.jsonl test.jsonl --columns translation.zh translation.en

Each system trains in a process of its own, for the same time (`--minutes`) or the same number of updates (`--steps`),
with the same data, tokenizer and batches. `reverse` is a task without a data set: write up to 24 letters backwards.
The table and the picture tell quality (exact match for `reverse`, else chrF) over all and by length of the source,
tokens a second in training and in generation, and peak memory.
"""

import argparse
import json
import os
import random
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RNN = {"model_type": "seq2seq_rnn", "cell": "gru", "encoder_layers": 1, "decoder_layers": 1, "d_model": 192}
TRANSFORMER = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
TRANSFORMER |= {"d_model": 128, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512, "norm_position": "pre"}


def layers(kind: str, **fields: Any) -> dict[str, Any]:
    """A Transformer whose self-attention is replaced in all layers."""
    return TRANSFORMER | {"encoder_layer_types": [kind] * 2, "decoder_layer_types": [kind] * 2} | fields


SYSTEMS: dict[str, dict[str, Any]] = {
    "RNN, fixed context": RNN | {"attention_score": "none", "d_model": 208},
    "RNN, additive": RNN | {"attention_score": "additive"},
    "RNN, dot": RNN | {"attention_score": "dot", "d_model": 200},
    "RNN, local": RNN | {"attention_score": "general", "attention_window": 8},
    "convolution": layers("conv"),
    "Transformer": TRANSFORMER,
    "Transformer, local": layers("sliding_attention", sliding_window=8),
    "Transformer, linear": layers("linear_attention"),
}
LENGTHS = (5, 10, 15, 20, 30)  # upper ends of the buckets of source length: letters of `reverse`, words else


def write_reverse(folder: Path, rows: int = 30_000) -> list[str]:
    """Words of 1 to 24 of twelve letters and the same backwards, every length equally often; paths of three splits."""
    rng = random.Random(1)
    paths = []
    for split, count in (("train", rows), ("validation", 500), ("test", 1000)):
        words = ["".join(rng.choices("abcdefghijkl", k=1 + row % 24)) for row in range(count)]
        lines = [json.dumps({"source": word, "target": word[::-1]}) for word in words]
        path = folder / f"{split}.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")
        paths.append(str(path))
    return paths


def train_one(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train and score one system; called in a process of its own."""
    import torch

    import training.train as trainer
    from training.args import parse_arguments

    torch.set_num_threads(options.threads)
    trainer.use_all_cores = lambda processes: torch.set_num_threads(options.threads)
    metric = "exact" if options.data == ["reverse"] else "chrf"
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.json")
        config.write_text(json.dumps({"dropout": 0.1, **SYSTEMS[name]}), encoding="utf-8")
        files = write_reverse(Path(folder)) if options.data == ["reverse"] else options.data
        command = [f"--model.config={config}", f"--output_dir={folder}/run", f"--training.seed={seed}"]
        for split, path in zip(("train", "validation", "test"), files, strict=True):
            command += [f"--data.{split}.dataset={path}", "--data.bad_rows=drop"]
            command += [f"--data.{split}.{side}_column={c}" for side, c in zip(("source", "target"), options.columns)]
        if options.data == ["reverse"]:
            command += ["--tokenizer.type=char", "--tokenizer.min_frequency=1"]
        else:
            command += [f"--tokenizer.vocab_size={options.vocab_size}"]
        limit = f"--training.max_steps={options.steps}" if options.steps else "--training.max_steps=null"
        command += [limit, *([] if options.steps else [f"--training.max_minutes={options.minutes}"])]
        command += ["--training.batch_tokens=2048", "--training.learning_rate=1e-3", "--training.warmup_steps=200"]
        command += [f"--data.max_rows={options.rows}"] if options.rows else []
        command += [f"--generation.metrics={metric}", "--generation.max_new_tokens=64", "--generation.eval_rows=100"]
        command += ["--training.eval_every=1000000", "--training.save_every=1000000", "--training.schedule=linear"]
        scores = trainer.train(parse_arguments(command), "benchmark")["test"]
        run = Path(folder, "run")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        train_lines = [line for line in lines if line["split"] == "train"]
        rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
        return {
            "score": scores[metric],
            "metric": metric,
            "steps": train_lines[-1]["step"],
            "tokens_per_second": statistics.median(line["tokens_per_second"] for line in train_lines),
            "generated_per_second": generation_speed(run / "model", [row["source"] for row in rows[:200]]),
            "by_length": by_length(rows, metric),
            "parameters": sum(p.numel() for p in load(run / "model").parameters()),
            "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        }


def load(folder: Path) -> Any:
    """A model of any kind."""
    from transformers import AutoModelForSeq2SeqLM

    import fun_transformer  # noqa: F401 (registers the models)

    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval()


def generation_speed(folder: Path, sources: list[str]) -> float:
    """Generated tokens a second: greedy, 50 sources at a time."""
    from transformers import AutoTokenizer

    model, tokenizer = load(folder), AutoTokenizer.from_pretrained(folder)
    tokens, start = 0, time.monotonic()
    for first in range(0, len(sources), 50):
        inputs = tokenizer(sources[first : first + 50], padding=True, return_tensors="pt")
        ids = model.generate(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=64)
        tokens += int((ids != tokenizer.pad_token_id).sum())
    return tokens / (time.monotonic() - start)


def by_length(rows: list[dict[str, Any]], metric: str) -> dict[int, float]:
    """The score of the rows whose source is at most so long, and longer than the bucket before."""
    from training.metrics import compute_metrics

    scores, least = {}, 0
    for most in LENGTHS:
        sizes = [len(row["source"].split()) if " " in row["source"] else len(row["source"]) for row in rows]
        chosen = [row for row, size in zip(rows, sizes) if least < size <= most]
        if chosen:
            predictions, references = [row["prediction"] for row in chosen], [row["references"] for row in chosen]
            scores[most] = compute_metrics([metric], predictions, references)[metric]
        least = most
    return scores


def draw(results: dict[str, Any], path: Path) -> None:
    """Quality by source length, a line for each system: mean and spread over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, runs in results["systems"].items():
        lengths = list(runs[0]["by_length"])
        values = [[run["by_length"][length] for run in runs] for length in lengths]
        means = [statistics.mean(row) for row in values]
        (line,) = axes.plot([int(length) for length in lengths], means, marker="o", label=name)
        if len(runs) > 1:
            spread = ([min(row) for row in values], [max(row) for row in values])
            axes.fill_between([int(length) for length in lengths], *spread, color=line.get_color(), alpha=0.12)
    axes.set_xlabel("length of the source, at most")
    axes.set_ylabel({"exact": "exactly right (%)"}.get(runs[0]["metric"], runs[0]["metric"]))
    axes.legend(fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)


def table(systems: dict[str, list[dict[str, Any]]]) -> str:
    """Mean and spread (largest minus smallest) over seeds."""
    columns = ("score", "tokens_per_second", "generated_per_second", "peak_gigabytes", "parameters", "steps")
    lines = [["system", *columns, *(f"<= {length}" for length in next(iter(systems.values()))[0]["by_length"])]]
    for name, runs in systems.items():
        values = [[run[column] for run in runs] for column in columns]
        values += [[run["by_length"][length] for run in runs] for length in runs[0]["by_length"]]
        cells = [f"{statistics.mean(v):,.{0 if statistics.mean(v) >= 100 else 1}f}" for v in values]
        cells[0] += f" ±{(max(values[0]) - min(values[0])) / 2:.1f}"
        lines.append([name, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


def main() -> None:
    """Train every system with every seed, print the table, write results and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", help="reverse, or three data files: train, validation, test")
    parser.add_argument("--columns", nargs=2, default=["source", "target"], help="of the data files")
    parser.add_argument("--vocab_size", type=int, default=8000)
    parser.add_argument("--rows", type=int, help="of each split, at most")
    parser.add_argument("--minutes", type=float, default=2.0, help="of training for each system and seed")
    parser.add_argument("--steps", type=int, help="updates instead of minutes")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--output", help="where to write the results (JSON), and the picture beside them")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # "seed,system": in the child process
    options = parser.parse_args()
    if options.one:
        seed, name = options.one.split(",", 1)
        print("\n" + json.dumps(train_one(name, int(seed), options)))
        return
    from training.checkpoints import write_whole
    from training.report import describe_environment

    systems: dict[str, list[dict[str, Any]]] = {}
    for seed in options.seeds:  # A B A B: what else the machine does strikes all alike
        for name in options.only:
            child = [sys.executable, "-m", "benchmarks.lineage", *sys.argv[1:], "--one", f"{seed},{name}"]
            done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True)
            systems.setdefault(name, []).append(json.loads(done.stdout.splitlines()[-1]))
            print(f"seed {seed}, {name}: {systems[name][-1]['score']:.1f}", flush=True)
    print(table(systems))
    if options.output:
        words = [Path(word).name if Path(word).is_file() else word for word in sys.argv[1:]]  # no folders of ours
        results = {
            "command": f"python -m benchmarks.lineage {shlex.join(words)}",
            "environment": describe_environment(),
            "load": os.getloadavg(),
            "systems": systems,
        }
        write_whole(Path(options.output), json.dumps(results, indent=1))
        draw(json.loads(json.dumps(results)), Path(options.output).with_suffix(".png"))


if __name__ == "__main__":
    main()
