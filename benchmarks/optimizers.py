"""Optimizers beside each other: scores of one recipe at equal updates, with each learning rate of a small grid.

    python -m benchmarks.optimizers hub_configs/g2p-en/recipe.yaml --training.max_steps 400 \\
        --rates 2e-3 4e-3 8e-3 --output benchmarks/results/optimizers.json

takes turns, so that what else the machine does strikes all alike, and counts the CPU seconds of the steps. Only the
validation split is looked at. What it does not know are options of the trainer. The results are written after every
run, and the same command goes on where it stopped.
"""

import argparse
import dataclasses
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from fun_transformer.files import write_atomically
from fun_transformer.training import SplitArguments, TrainingLoop, parse_arguments, train
from fun_transformer.training.run.environment import describe_environment


class TimedLoop(TrainingLoop):
    """Counts the CPU seconds of its steps."""

    cpu_seconds = 0.0

    def train_step(self, done: float) -> Any:
        start = time.process_time()
        step = super().train_step(done)
        self.cpu_seconds += time.process_time() - start
        return step


def measure(words: list[str], folder: Path) -> dict[str, Any]:
    """Train with a recipe; the scores of each evaluation and of the final model on the validation split."""
    arguments = parse_arguments([*words, f"--output_dir={folder}", "--overwrite"])
    data = dataclasses.replace(arguments.data, test=SplitArguments())
    loops: list[TimedLoop] = []

    def make(*parts: Any) -> TrainingLoop:
        loops.append(TimedLoop(*parts))
        return loops[0]

    final = train(dataclasses.replace(arguments, data=data), loop=make).scores["validation"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = {line["step"]: line["loss"] for line in lines if line["split"] == "validation"}
    scores = {name: value for name, value in final.items() if isinstance(value, float)}
    return {"losses": steps, "final": scores, "cpu_seconds": round(loops[0].cpu_seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--optimizers", nargs="+", default=["adamw", "muon"])
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-3, 2e-3, 4e-3], help="learning rates")
    parser.add_argument("--folder", default="runs/optimizers")
    parser.add_argument("--output", type=Path, required=True, help="where the results go (JSON)")
    options, more = parser.parse_known_args()
    command = f"python -m benchmarks.optimizers {shlex.join(sys.argv[1:])}"
    results: dict[str, Any] = {"command": command, "environment": describe_environment(), "runs": []}
    if options.output.exists():
        results["runs"] = json.loads(options.output.read_text(encoding="utf-8"))["runs"]
    for rate in options.rates:
        for optimizer in options.optimizers:
            about = {"optim": optimizer, "learning_rate": rate}
            if any(run | about == run for run in results["runs"]):
                continue
            words = [options.recipe, *more, *(f"--training.{name}={value}" for name, value in about.items())]
            results["runs"].append(about | measure(words, Path(options.folder, f"{optimizer}-{rate:g}")))
            write_atomically(options.output, json.dumps(results, indent=1))
            print(json.dumps(results["runs"][-1]), flush=True)


if __name__ == "__main__":
    main()
