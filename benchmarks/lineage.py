"""Why each step of the history was taken: RNNs, convolutions and Transformers of equal size, side by side.

    python -m benchmarks.lineage reverse --d_model 64 --dropout 0 --output benchmarks/results/lineage-reverse.json
    python -m benchmarks.lineage train.jsonl validation.jsonl test.jsonl --columns translation.zh translation.en

Each system trains in a process of its own, with the same data, tokenizer and batches, and is scored at intervals. The
table compares after equally many updates (the best of the models scored, on the test split), and after equal time (on
the validation split, when the fastest had done all its updates). Time is that of the CPU, one thread, so that other
programs do not count. All compute in float32: in bf16, models this small would spend most of their time on kernels for
each new size of a batch. `reverse` is a task without a data set: write up to 24 letters backwards. Scores are exact
matches for `reverse`, else chrF; over all, and by length of the source. Several `--rows` compare how much data each
system needs:

    python -m benchmarks.lineage train.jsonl validation.jsonl test.jsonl ... --rows 1000 3000 10000 30000
"""

import argparse
import bisect
import functools
import itertools
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

RNN = {"model_type": "seq2seq_rnn", "cell": "gru", "encoder_layers": 1, "decoder_layers": 1}
TRANSFORMER = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
TRANSFORMER |= {"norm_position": "pre"}


def layers(kind: str, **fields: Any) -> dict[str, Any]:
    """A Transformer whose self-attention is replaced in all layers."""
    return TRANSFORMER | {"encoder_layer_types": [kind] * 2, "decoder_layer_types": [kind] * 2} | fields


SYSTEMS: dict[str, dict[str, Any]] = {
    "RNN, fixed context": RNN | {"attention_score": "none"},
    "RNN, additive": RNN | {"attention_score": "additive"},
    "RNN, dot": RNN | {"attention_score": "dot"},
    "RNN, local": RNN | {"attention_score": "general", "attention_window": 8},
    "convolution": layers("conv"),
    "Transformer": TRANSFORMER,
    "Transformer, local": layers("sliding_attention", sliding_window=8),
    "Transformer, linear": layers("linear_attention"),
}
LETTERS = "abcdefghijkl"  # of `reverse`
LENGTHS = (5, 10, 15, 20, 30)  # upper ends of the buckets of source length: letters of `reverse`, words else


def write_reverse(folder: Path, rows: int = 30_000) -> list[str]:
    """Words of 1 to 24 of twelve letters and the same backwards, every length equally often; paths of three splits."""
    rng = random.Random(1)
    paths = []
    for split, count in (("train", rows), ("validation", 500), ("test", 1000)):
        words = ["".join(rng.choices(LETTERS, k=1 + row % 24)) for row in range(count)]
        lines = [json.dumps({"source": word, "target": word[::-1]}) for word in words]
        path = folder / f"{split}.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")
        paths.append(str(path))
    return paths


def count_parameters(fields: dict[str, Any]) -> int:
    """Of a model that is never built."""
    import torch
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    import fun_transformer  # noqa: F401 (registers the models)

    config = AutoConfig.for_model(**{"model_type": "fun_transformer", **fields})
    with torch.device("meta"):
        return AutoModelForSeq2SeqLM.from_config(config).num_parameters()


def of_equal_size(name: str, vocab_size: int, d_model: int) -> dict[str, Any]:
    """A system's config, so wide that it has about as many parameters as the Transformer of width `d_model`."""

    def widened(system: dict[str, Any], width: int) -> dict[str, Any]:
        ffn = {} if "model_type" in system else {"encoder_ffn_dim": 4 * width, "decoder_ffn_dim": 4 * width}
        return system | {"vocab_size": vocab_size, "d_model": width} | ffn

    def size(width: int) -> int:
        return count_parameters(widened(SYSTEMS[name], width))

    wanted = count_parameters(widened(TRANSFORMER, d_model))
    widths = range(d_model // 2, 4 * d_model, 4 * max(1, d_model // 64))  # four heads
    above = bisect.bisect_left(widths, wanted, key=size)
    return widened(SYSTEMS[name], min(widths[above - 1 : above + 1], key=lambda width: abs(size(width) - wanted)))


def train_one(name: str, rows: int | None, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train and score one system; called in a process of its own."""

    import torch

    from fun_transformer.training.loop import TrainingLoop
    from fun_transformer.training.recipe.reading import parse_arguments
    from fun_transformer.training.train import train

    reverse = options.data == ["reverse"]
    metric = "exact" if reverse else "chrf"
    system = of_equal_size(name, len(LETTERS) + 5 if reverse else options.vocab_size, options.d_model)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.json")
        config.write_text(json.dumps({"dropout": options.dropout, **system}), encoding="utf-8")
        files = write_reverse(Path(folder)) if reverse else options.data
        command = [f"--model.config={config}", f"--output_dir={folder}/run", f"--training.seed={seed}"]
        for split, path in zip(("train", "validation", "test"), files, strict=True):
            command += [f"--data.{split}.dataset={path}", "--data.bad_rows=drop"]
            command += [f"--data.{split}.{side}_column={c}" for side, c in zip(("source", "target"), options.columns)]
        if reverse:
            command += ["--tokenizer.type=char", "--tokenizer.min_frequency=1"]
        else:
            command += [f"--tokenizer.vocab_size={options.vocab_size}"]
        command += [f"--data.max_rows={rows}"] if rows else []
        command += [f"--training.max_steps={options.steps}", "--training.schedule=inverse_sqrt"]
        command += [f"--training.batch_tokens={options.batch_tokens}", "--training.packing=null"]
        command += ["--training.precision=fp32", "--training.threads=1"]
        command += [f"--training.learning_rate={options.learning_rate}", "--training.warmup_steps=200"]
        every = options.steps // options.evaluations
        command += [f"--training.eval_steps={every}", f"--training.save_steps={options.steps}"]
        command += [
            "--training.logging_steps=10",
            f"--training.metric_for_best_model={metric}",
            f"--generation.metrics={metric}",
        ]
        command += ["--generation.max_new_tokens=64", "--generation.eval_rows=300", "--generation.batch_size=300"]
        command += [f"--training.patience={options.patience}"] if options.patience else []
        command += [f"--training.max_minutes={options.minutes}"] if options.minutes else []
        # A GPU computes while the process waits, so its time is that on the wall.
        on_gpu = torch.accelerator.is_available()
        loop = functools.partial(TrainingLoop, clock=time.monotonic if on_gpu else time.process_time)
        scores = train(parse_arguments(command), loop=loop).scores["test"]
        run = Path(folder, "run")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        tested = [json.loads(line) for line in (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
        return {
            "system": name,
            "rows": rows,
            "seed": seed,
            "score": scores[metric],
            "metric": metric,
            "tokens_per_second": statistics.median(x["tokens_per_second"] for x in lines if x["split"] == "train"),
            "curve": curve(lines, metric),
            "generated_per_second": generation_speed(run / "model", [row["source"] for row in tested[:200]]),
            "by_length": by_length(tested, metric),
            "parameters": sum(p.numel() for p in load(run / "model").parameters()),
            "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        }


def curve(lines: list[dict[str, Any]], metric: str) -> list[dict[str, float]]:
    """Validation scores over updates and seconds of training alone, from the lines of metrics.jsonl."""
    points, seconds, tokens = [], 0.0, 0
    for line in lines:
        if line["split"] == "train":
            seconds += (line["tokens"] - tokens) / line["tokens_per_second"]
            tokens = line["tokens"]
        elif line["split"] == "validation":
            points.append({"step": line["step"], "seconds": seconds, "score": line[metric]})
    return points


def at_time(points: list[dict[str, float]], seconds: float) -> float:
    """The score of a curve at a moment, on a straight line between its points; 0 at the beginning."""
    before = {"seconds": 0.0, "score": 0.0}
    for point in points:
        if point["seconds"] >= seconds:
            share = (seconds - before["seconds"]) / (point["seconds"] - before["seconds"])
            return before["score"] + share * (point["score"] - before["score"])
        before = point
    return before["score"]


def load(folder: Path) -> Any:
    """A model of any kind."""
    from transformers import AutoModelForSeq2SeqLM

    import fun_transformer  # noqa: F401 (registers the models)

    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval()


def generation_speed(folder: Path, sources: list[str]) -> float:
    """Generated tokens a CPU-second: greedy, 50 sources at a time."""
    from transformers import AutoTokenizer

    model, tokenizer = load(folder), AutoTokenizer.from_pretrained(folder)
    tokens, start = 0, time.process_time()
    for first in range(0, len(sources), 50):
        inputs = tokenizer(sources[first : first + 50], padding=True, return_tensors="pt")
        ids = model.generate(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, max_new_tokens=64)
        tokens += int((ids != tokenizer.pad_token_id).sum())
    return tokens / (time.process_time() - start)


def by_length(rows: list[dict[str, Any]], metric: str) -> dict[str, float]:
    """The score of the rows whose source is at most so long, and longer than the bucket before."""
    from fun_transformer.training.metrics import compute_metrics

    scores, least = {}, 0
    for most in LENGTHS:
        sizes = [len(row["source"].split()) if " " in row["source"] else len(row["source"]) for row in rows]
        chosen = [row for row, size in zip(rows, sizes) if least < size <= most]
        if chosen:
            predictions, references = [row["prediction"] for row in chosen], [row["references"] for row in chosen]
            scores[str(most)] = compute_metrics([metric], predictions, references)[metric]
        least = most
    return scores


def draw(systems: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Quality by source length, and over time, a line for each system: mean and range over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained", sharey=True)
    for name, runs in systems.items():
        style = {"linestyle": "--" if name.startswith("RNN") else "-", "label": name}
        lengths = [length for length in map(str, LENGTHS) if length in runs[0]["by_length"]]
        values = [[run["by_length"][length] for run in runs] for length in lengths]
        (line,) = left.plot(lengths, list(map(statistics.mean, values)), marker="o", **style)
        left.fill_between(lengths, [min(row) for row in values], [max(row) for row in values], alpha=0.12)
        points = list(zip(*(run["curve"] for run in runs)))
        seconds, scores = ([[point[key] for point in row] for row in points] for key in ("seconds", "score"))
        x = list(map(statistics.mean, seconds))
        right.plot(x, list(map(statistics.mean, scores)), color=line.get_color(), marker=".", **style)
        right.fill_between(x, list(map(min, scores)), list(map(max, scores)), color=line.get_color(), alpha=0.12)
    left.set_xlabel(f"length of the source, at most (test split, after {runs[0]['curve'][-1]['step']:,} updates)")
    left.set_ylabel({"exact": "exactly right (%)"}.get(runs[0]["metric"], runs[0]["metric"]))
    right.set_xlabel("CPU-seconds of training (validation split)")
    left.legend(fontsize="small")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)


def draw_over_rows(systems: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Quality by the number of training rows, a line for each system: mean and range over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for name in dict.fromkeys(runs[0]["system"] for runs in systems.values()):
        found = sorted(
            (runs for runs in systems.values() if runs[0]["system"] == name), key=lambda runs: runs[0]["rows"]
        )
        rows, values = [runs[0]["rows"] for runs in found], [[run["score"] for run in runs] for runs in found]
        axes.plot(rows, list(map(statistics.mean, values)), marker="o", label=name)
        axes.fill_between(rows, list(map(min, values)), list(map(max, values)), alpha=0.12)
    axes.set_xscale("log")
    axes.set_xticks(rows, [f"{count:,}" for count in rows], minor=False)
    axes.set_xlabel("training pairs")
    axes.set_ylabel(f"{found[0][0]['metric']}, test split")
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)


def table(systems: dict[str, list[dict[str, Any]]]) -> str:
    """Means over seeds, with half the range where there are several, as Markdown."""
    time_of_fastest = min(run["curve"][-1]["seconds"] for runs in systems.values() for run in runs)
    columns = {
        "equal updates": lambda run: run["score"],
        "equal time": lambda run: at_time(run["curve"], time_of_fastest),
        **{f"<= {length}": lambda run, x=length: run["by_length"][x] for length in first(systems)["by_length"]},
        "tok/s": lambda run: run["tokens_per_second"],
        "generated tok/s": lambda run: run["generated_per_second"],
        "peak GB": lambda run: run["peak_gigabytes"],
        "parameters": lambda run: run["parameters"],
    }
    lines = [["system", *columns]]
    for name, runs in systems.items():
        cells = [[float(read(run)) for run in runs] for read in columns.values()]
        lines.append([name, *map(show, cells)])
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


def first(systems: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Any run: all have the same columns."""
    return next(iter(systems.values()))[0]


def show(values: list[float]) -> str:
    """Mean ± half the range, with as many digits as say something."""
    mean, half = statistics.mean(values), (max(values) - min(values)) / 2
    if mean >= 1000:
        return f"{mean:,.0f}"
    digits = 2 if mean < 10 else 1
    return f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if len(values) > 1 else "")


def main() -> None:
    """Train every system with every seed, print the table, write results and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", help="reverse, or three data files: train, validation, test")
    parser.add_argument("--columns", nargs=2, default=["source", "target"], help="of the data files")
    parser.add_argument("--vocab_size", type=int, default=8000)
    parser.add_argument("--d_model", type=int, default=128, help="of the Transformer; the others get its size")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--rows", nargs="+", type=int, default=[None], help="of each split, at most")
    parser.add_argument("--steps", type=int, default=1000, help="updates of each run")
    parser.add_argument("--batch_tokens", type=int, default=2048)
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="the highest")
    parser.add_argument("--patience", type=int, help="stop a run after this many evaluations without a better score")
    parser.add_argument("--minutes", type=float, help="of training of a run, at most")
    parser.add_argument("--evaluations", type=int, default=5, help="on the way")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--only", nargs="*", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--output", help="where the results go (JSON); runs that are there are not done again")
    parser.add_argument("--picture", help="where the picture goes")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # in the child process: system, rows, seed
    options = parser.parse_args()
    if options.one:
        print("\n" + json.dumps(train_one(*json.loads(options.one), options)))
        return
    systems = read_results(options.output)
    # A B A B: what else the machine does strikes all alike.
    for seed, rows, name in itertools.product(options.seeds, options.rows, options.only):
        label = name if len(options.rows) == 1 else f"{name}, {rows:,} rows"
        if any(run["seed"] == seed for run in systems.get(label, [])):
            continue
        one = json.dumps([name, rows, seed])
        child = [sys.executable, "-m", "benchmarks.lineage", *sys.argv[1:], "--one", one]
        done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True)
        systems.setdefault(label, []).append(json.loads(done.stdout.splitlines()[-1]))
        print(f"seed {seed}, {label}: {systems[label][-1]['score']:.1f}", flush=True)
        if options.output:
            write_results(systems, Path(options.output))
    print(table(systems))
    if options.picture:
        several = len({run["rows"] for runs in systems.values() for run in runs}) > 1
        (draw_over_rows if several else draw)(systems, Path(options.picture))


def read_results(output: str | None) -> dict[str, list[dict[str, Any]]]:
    """The runs that an earlier call has written: they are not done again."""
    if not output or not Path(output).exists():
        return {}
    return json.loads(Path(output).read_text(encoding="utf-8"))["systems"]


def write_results(systems: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Write the runs so far."""
    from fun_transformer.files import write_atomically
    from fun_transformer.training.run.environment import describe_environment

    words = [Path(word).name if Path(word).is_file() else word for word in sys.argv[1:]]  # no folders of ours
    results = {
        "command": f"python -m benchmarks.lineage {shlex.join(words)}",
        "environment": describe_environment(),
        "load": os.getloadavg(),
        "systems": systems,
    }
    write_atomically(path, json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
