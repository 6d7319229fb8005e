"""Why each step of the history was taken: RNNs, convolutions and Transformers of equal size, side by side.

    python -m benchmarks.lineage reverse --d_model 64 --dropout 0 --output benchmarks/results/lineage-reverse.json
    python -m benchmarks.lineage train.jsonl validation.jsonl test.jsonl --columns translation.zh translation.en

Each system trains in a process of its own, with the same data, tokenizer and batches, and is scored at intervals. With
`--patience` it trains until its score no longer rises, at most for `--steps` and `--minutes`. The table tells what the
best of the models scored reaches on the test split, how long it took to 90 % of its best validation score, and where
that was when the fastest system ended. Time is that of the CPU, one thread, so that other programs do not count. All
compute in float32: in bf16, models this small would spend most of their time on kernels for each new size of a batch.
`reverse` is a task without a data set: write up to 24 letters backwards. Scores are exact matches for `reverse`, else
chrF; over all, and by length of the source.

Several `--learning_rates` are tried first, for `--trial_steps` with each system and the first seed; the best on the
validation split is the system's. Each may name its warm-up, `4e-3:400`:

    python -m benchmarks.lineage train.jsonl validation.jsonl test.jsonl ... --learning_rates 2e-3 4e-3 4e-3:400

Several `--rows` compare how much data each system needs:

    python -m benchmarks.lineage train.jsonl validation.jsonl test.jsonl ... --rows 1000 3000 10000 30000

What is in `--output` is not done again, so the same command goes on after an interruption, or with more seeds.
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

from .lineage_results import LENGTHS, draw, draw_over_rows, table

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


def train_one(task: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Train one system and score it; called in a process of its own.

    Args:
        task: system, rows, seed, learning_rate, warmup_steps; is_trial: fewer steps, and the test split is not read.
        options: Of the command line.
    """
    import torch

    from fun_transformer.training.loop import TrainingLoop
    from fun_transformer.training.recipe.reading import parse_arguments
    from fun_transformer.training.train import train

    metric = "exact" if options.data == ["reverse"] else "chrf"
    with tempfile.TemporaryDirectory() as folder:
        # A GPU computes while the process waits, so its time is that on the wall.
        on_gpu = torch.accelerator.is_available()
        loop = functools.partial(TrainingLoop, clock=time.monotonic if on_gpu else time.process_time)
        scores = train(parse_arguments(command_of(task, options, Path(folder))), loop=loop).scores
        run = Path(folder, "run")
        points = curve(read_lines(run / "metrics.jsonl"), metric)
        if task["is_trial"]:
            return {**task, "score": max(point["score"] for point in points), "curve": points}
        tested = read_lines(run / "predictions.jsonl")
        speeds = [line["tokens_per_second"] for line in read_lines(run / "metrics.jsonl") if line["split"] == "train"]
        return {
            **{key: value for key, value in task.items() if key != "is_trial"},
            "patience": options.patience,
            "score": scores["test"][metric],
            "metric": metric,
            "tokens_per_second": statistics.median(speeds),
            "curve": points,
            "generated_per_second": generation_speed(run / "model", [row["source"] for row in tested[:200]]),
            "by_length": by_length(tested, metric),
            "parameters": sum(p.numel() for p in load(run / "model").parameters()),
            "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        }


def command_of(task: dict[str, Any], options: argparse.Namespace, folder: Path) -> list[str]:
    """The arguments of a training in a folder, which gets the config and the data of `reverse`."""
    reverse = options.data == ["reverse"]
    metric = "exact" if reverse else "chrf"
    system = of_equal_size(task["system"], len(LETTERS) + 5 if reverse else options.vocab_size, options.d_model)
    config = folder / "config.json"
    config.write_text(json.dumps({"dropout": options.dropout, **system}), encoding="utf-8")
    splits = dict(
        zip(("train", "validation", "test"), write_reverse(folder) if reverse else options.data, strict=True)
    )
    if task["is_trial"]:
        del splits["test"]
    command = [f"--model.config={config}", f"--output_dir={folder}/run", f"--training.seed={task['seed']}"]
    for split, path in splits.items():
        command += [f"--data.{split}.dataset={path}", "--data.bad_rows=drop"]
        command += [f"--data.{split}.{side}_column={c}" for side, c in zip(("source", "target"), options.columns)]
    if reverse:
        command += ["--tokenizer.type=char", "--tokenizer.min_frequency=1"]
    else:
        command += [f"--tokenizer.vocab_size={options.vocab_size}"]
    command += [f"--data.max_rows={task['rows']}"] if task["rows"] else []
    steps = options.trial_steps if task["is_trial"] else options.steps
    command += [f"--training.max_steps={steps}", "--training.schedule=inverse_sqrt"]
    command += [f"--training.batch_tokens={options.batch_tokens}", "--training.packing=null"]
    command += ["--training.precision=fp32", "--training.threads=1"]
    command += [f"--training.{field}={task[field]}" for field in ("learning_rate", "warmup_steps")]
    every = options.steps // options.evaluations
    command += [f"--training.eval_steps={every}", f"--training.save_steps={options.steps}"]
    command += ["--training.logging_steps=10", f"--training.metric_for_best_model={metric}"]
    command += [f"--generation.metrics={metric}", "--generation.max_new_tokens=64"]
    command += [f"--generation.eval_rows={options.eval_rows}", "--generation.batch_size=300"]
    command += [f"--training.patience={options.patience}"] if options.patience else []
    command += [f"--training.max_minutes={options.minutes}"] if options.minutes else []
    return command


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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
    rates_help = "the highest rate, or RATE:WARMUP (updates, else 200); several are tried for each system"
    parser.add_argument("--learning_rates", nargs="+", type=rate_and_warmup, default=[(1e-3, 200)], help=rates_help)
    parser.add_argument("--trial_steps", type=int, help="updates of each try (a fifth of --steps)")
    parser.add_argument("--patience", type=int, help="stop a run after this many evaluations without a better score")
    parser.add_argument("--minutes", type=float, help="of training of a run, at most")
    parser.add_argument("--evaluations", type=int, default=5, help="on the way")
    parser.add_argument("--eval_rows", type=int, default=300, help="of the validation split that are scored then")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--only", nargs="*", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--output", help="where the results go (JSON); runs that are there are not done again")
    parser.add_argument("--picture", help="where the picture goes")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # in the child process: what to train
    options = parser.parse_args()
    options.trial_steps = options.trial_steps or max(1, options.steps // 5)
    if options.one:
        print("\n" + json.dumps(train_one(json.loads(options.one), options)))
        return
    results = read_results(options.output)
    systems = results["systems"]
    # A B A B: what else the machine does strikes all alike.
    for seed, rows, name in itertools.product(options.seeds, options.rows, options.only):
        label = name if len(options.rows) == 1 else f"{name}, {rows:,} rows"
        if any(run["seed"] == seed for run in systems.get(label, [])):
            continue
        rate, warmup = choose_rate(name, results, options)
        task = {"system": name, "rows": rows, "seed": seed, "learning_rate": rate, "warmup_steps": warmup}
        systems.setdefault(label, []).append(in_a_process(task | {"is_trial": False}))
        print(f"seed {seed}, {label}: {systems[label][-1]['score']:.1f}", flush=True)
        write_results(results, options.output)
    print(table(systems))
    if options.picture:
        several = len({run["rows"] for runs in systems.values() for run in runs}) > 1
        (draw_over_rows if several else draw)(systems, Path(options.picture))


def rate_and_warmup(text: str) -> tuple[float, int]:
    """`2e-3`, or `2e-3:400` with the updates of its warm-up."""
    rate, _, warmup = text.partition(":")
    return float(rate), int(warmup or 200)


def in_a_process(task: dict[str, Any]) -> dict[str, Any]:
    """What `train_one` gives, called in a process of its own."""
    child = [sys.executable, "-m", "benchmarks.lineage", *sys.argv[1:], "--one", json.dumps(task)]
    done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def choose_rate(name: str, results: dict[str, Any], options: argparse.Namespace) -> tuple[float, int]:
    """The system's best learning rate on the validation split, with its warm-up; those not tried yet are tried."""
    if len(options.learning_rates) == 1:
        return options.learning_rates[0]
    tries = results["tries"].setdefault(name, [])
    for rate, warmup in options.learning_rates:
        if any((found["learning_rate"], found["warmup_steps"]) == (rate, warmup) for found in tries):
            continue
        task = {"system": name, "rows": options.rows[0], "seed": options.seeds[0], "is_trial": True}
        tries.append(in_a_process(task | {"learning_rate": rate, "warmup_steps": warmup}))
        print(f"{name}, learning rate {rate:g}, warm-up {warmup}: {tries[-1]['score']:.1f}", flush=True)
        write_results(results, options.output)
    best = max(tries, key=lambda found: found["score"])
    return best["learning_rate"], best["warmup_steps"]


def read_results(output: str | None) -> dict[str, Any]:
    """What an earlier call has written: it is not done again."""
    found = json.loads(Path(output).read_text(encoding="utf-8")) if output and Path(output).exists() else {}
    return {"tries": found.get("tries", {}), "systems": found.get("systems", {})}


def write_results(results: dict[str, Any], output: str | None) -> None:
    """Write the runs so far."""
    if not output:
        return
    from fun_transformer.files import write_atomically
    from fun_transformer.training.run.environment import describe_environment

    words = [Path(word).name if Path(word).is_file() else word for word in sys.argv[1:]]  # no folders of ours
    found = {
        "command": f"python -m benchmarks.lineage {shlex.join(words)}",
        "environment": describe_environment(),
        "load": os.getloadavg(),
        **results,
    }
    write_atomically(Path(output), json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
