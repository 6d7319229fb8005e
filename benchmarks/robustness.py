"""What noise in training is worth: a model trained with clean sources and one with noisy ones, for equal time.

    python -m benchmarks.robustness train.de.gz train.en.gz val.de.gz val.en.gz test.de.gz test.en.gz \\
        --minutes 5 --output benchmarks/results/robustness.json

Both have the same model, tokenizer and seed, and train for equally many CPU minutes of one thread, so that a busy
machine is fair to both. Each then translates the test set as it is and with one kind of mistake at a time.
"""

import argparse
import gzip
import json
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

NOISE = {"upper": 0.05, "title": 0.05, "lower": 0.05, "typos": 0.02, "punctuation": 0.1, "split": 0.02, "join": 0.02}
TESTS: dict[str, dict[str, float]] = {
    "clean": {},
    "upper case": {"upper": 1.0},
    "title case": {"title": 1.0},
    "lower case": {"lower": 1.0},
    "5 % typos": {"typos": 0.05},
    "no punctuation": {"punctuation": 1.0},
    "5 % of words torn": {"split": 0.05},
    "5 % of spaces missing": {"join": 0.05},
    "5 % of all": {"typos": 0.05, "punctuation": 0.05, "split": 0.05, "join": 0.05, "upper": 0.05, "lower": 0.05},
}


def read_lines(path: str) -> list[str]:
    """Return the lines of a text file, packed or not."""
    opener: Any = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file]


def recipe(options: argparse.Namespace, folder: Path, with_noise: bool) -> list[str]:
    """Return the words of the command line of one training."""
    words = []
    for split, (source, target) in zip(("train", "validation"), (options.train, options.validation)):
        words += [f"--data.{split}.source={source}", f"--data.{split}.target={target}"]
    words += [f"--data.noise.{name}={value}" for name, value in NOISE.items()] if with_noise else []
    words += ["--model.d_model=128", "--model.encoder_layers=2", "--model.decoder_layers=2", "--model.dropout=0.1"]
    words += ["--model.encoder_attention_heads=4", "--model.decoder_attention_heads=4"]
    words += ["--model.encoder_ffn_dim=512", "--model.decoder_ffn_dim=512", "--tokenizer.vocab_size=4000"]
    words += ["--training.batch_tokens=2048", "--training.learning_rate=2e-3", "--training.warmup_steps=400"]
    words += [f"--training.max_minutes={options.minutes}", "--training.threads=1", f"--training.seed={options.seed}"]
    words += ["--training.eval_steps=500", "--generation.eval_rows=50", "--overwrite"]
    return [*words, f"--output_dir={folder}"]


def score(folder: Path, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return chrF and BLEU of a model on each form of the test set."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from fun_transformer.training.data.noise import Noise
    from fun_transformer.training.metrics import compute_metrics
    from fun_transformer.training.recipe.arguments import NoiseArguments

    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    sources, targets = (read_lines(path)[: options.rows] for path in options.test)
    order = sorted(range(len(sources)), key=lambda row: len(sources[row]))
    scores = {}
    for name, kinds in TESTS.items():
        noise = Noise(NoiseArguments(**kinds), seed=2017)
        texts = [noise(source, 0, row) for row, source in enumerate(sources)]
        found = [""] * len(texts)
        for start in range(0, len(order), 100):
            rows = order[start : start + 100]
            inputs = tokenizer([texts[row] for row in rows], padding=True, return_tensors="pt")
            ids = model.generate(**inputs, num_beams=1, max_new_tokens=80)
            for row, text in zip(rows, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
                found[row] = text
        values = compute_metrics(["chrf", "bleu"], found, [[target] for target in targets])
        scores[name] = {metric: round(value, 2) for metric, value in values.items() if isinstance(value, float)}
        print(folder.name, name, scores[name], flush=True)
    return scores


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train and score both models; return what was measured, with what and by which command."""
    from fun_transformer.training import train
    from fun_transformer.training.loop import TrainingLoop
    from fun_transformer.training.recipe.reading import parse_arguments
    from fun_transformer.training.run.environment import describe_environment

    results: dict[str, Any] = {
        "command": f"python -m benchmarks.robustness {shlex.join(sys.argv[1:])}",
        "environment": describe_environment(),
        "noise": NOISE,
        "tests": TESTS,
        "models": {},
    }
    for name in options.models:
        folder = options.folder / name.replace(" ", "-")
        arguments = parse_arguments(recipe(options, folder, name == "noise"))
        train(arguments, loop=partial(TrainingLoop, clock=time.process_time))
        log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        last = max(log, key=lambda line: line.get("step", 0))
        results["models"][name] = {"steps": last["step"], "scores": score(folder, options)}
        options.output.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return results


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robustness", description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs=6, metavar="FILE", help="source and target of train, validation and test")
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU minutes of each training")
    parser.add_argument("--rows", type=int, default=1000, help="of the test set")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--models", nargs="+", choices=["plain", "noise"], default=["plain", "noise"])
    parser.add_argument("--folder", type=Path, default=Path("runs/robustness"), help="of the trained models")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json")
    options = parser.parse_args()
    options.train, options.validation, options.test = (options.files[at : at + 2] for at in (0, 2, 4))
    run(options)


if __name__ == "__main__":
    main()
