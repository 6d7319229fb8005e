"""Quality over training time beside the peers: the same data, tokenizer and dimensions, a line for each system.

    python -m benchmarks.equal_time hub_configs/g2p-en/recipe.yaml --minutes 4 --grid 5e-4 1e-3 2e-3 \\
        --output benchmarks/results/equal-time-g2p.json --picture docs/images/equal-time-g2p.svg --training.threads 1

Any recipe that generates texts will do, of speech as well; settings of it can follow. Each system trains in a process
of its own. Time is that of the CPU, so that other programs do not count (where there is a GPU, that on the wall),
without evaluations: the clock is stopped while all validation rows are generated for, by one and the same search. With
`--grid`, each system first trains for `--grid_minutes` with each of these learning rates, and goes on with the best on
validation.

Marian trains under transformers' Seq2SeqTrainer as somebody would who knows it well: bf16 where that is fast, eager
attention, batches of like length and about as many tokens as ours, and a learning rate that falls to 0 at the end of
the time, as ours does by the recipe. JoeyNMT and eole (benchmarks/peers.py says how they are installed) have no such
schedule; theirs falls with the root of the steps. Their models are converted to ours to be scored. The peer of speech
is Speech2Text of transformers (benchmarks/speech_peers.py).
"""

import argparse
import contextlib
import functools
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from benchmarks import peers
from benchmarks.speech_peers import speech2text
from fun_transformer.files import write_atomically
from fun_transformer.training import RunArguments, TrainingLoop, build_loop, parse_arguments, prepare
from fun_transformer.training.engine import build_accelerator
from fun_transformer.training.metrics import compute_metrics
from fun_transformer.training.model.building import build_model
from fun_transformer.training.optimization import learning_rate_factor
from fun_transformer.training.recipe.model_config import has_fast_bf16
from fun_transformer.training.run.environment import describe_environment
from fun_transformer.training.run.run import Run
from fun_transformer.training.scoring import generate_texts
from fun_transformer.training.tables import METRICS, OBJECTIVES

Point = dict[str, float]  # seconds, tokens, score


class Stopwatch:
    """Seconds of the CPU, or on the wall where there is a GPU, without those in which it was paused."""

    def __init__(self) -> None:
        self.clock = time.monotonic if torch.cuda.is_available() else time.process_time
        self.begun = self.clock()

    def __call__(self) -> float:
        return self.clock() - self.begun

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        since = self.clock()
        yield
        self.begun += self.clock() - since

    def restart(self) -> None:
        self.begun = self.clock()


class Course:
    """A training on time: its data, its clock, and its scores at certain seconds.

    Args:
        arguments: The recipe; `max_minutes` is the time.
        points: How many scores, evenly over the time.
    """

    def __init__(self, arguments: RunArguments, points: int):
        self.run: Run
        self.run, _ = prepare(arguments, build_accelerator(arguments))
        self.arguments, self.tokenizer, self.splits = self.run.arguments, self.run.tokenizer, self.run.splits
        self.metric = self.arguments.training.metric_for_best_model
        self.seconds = 60 * (self.arguments.training.max_minutes or 1)
        self.marks = [self.seconds * (number + 1) / points for number in range(points)]
        self.clock, self.curve = Stopwatch(), list[Point]()
        config = build_model(self.run).config
        sizes = ("layers", "attention_heads", "ffn_dim")
        names = ["d_model", "dropout", *(f"{side}_{size}" for side in ("encoder", "decoder") for size in sizes)]
        self.dims = {name: getattr(config, name) for name in names}
        self.arguments.model.setdefault("label_smoothing", config.label_smoothing)

    def done(self) -> float:
        """The part of the time that is over."""
        return min(1.0, self.clock() / self.seconds)

    def look(self, model: Callable[[], Any], tokens: int, generate: Callable | None = None) -> None:
        """Score, if it is time.

        Args:
            model: Gives the model.
            tokens: Real tokens that it was trained on.
            generate: Texts of a model for rows; as the trainer does it when None.
        """
        if self.clock() < self.marks[0]:
            return
        seconds = self.clock()
        self.marks = [mark for mark in self.marks if mark > seconds] or [float("inf")]
        with self.clock.paused():
            rows = self.splits["validation"]
            there = "references" in rows.column_names
            references = list(rows["references"]) if there else [[target] for target in rows["target"]]
            generate = generate or functools.partial(generate_texts, self.run, title="validation")
            texts = generate(model(), sources=rows)
            settings = self.arguments.generation
            score = compute_metrics([self.metric], texts, references, settings.bleu_tokenize)[self.metric]
        self.curve.append({"seconds": round(seconds, 1), "tokens": tokens, "score": round(score, 3)})
        print(f"{seconds:7.0f} s {tokens:12,} tokens {self.metric} {score:.2f}", file=sys.stderr, flush=True)


def ours(course: Course) -> None:
    """This package's loop, with the recipe as it is."""
    loop = build_loop(course.run, functools.partial(TrainingLoop, clock=course.clock))
    course.clock.restart()
    while (done := course.done()) < 1:
        loop.train_step(done)
        course.look(lambda: loop.kept.current, loop.progress.tokens)


def marian(course: Course) -> None:
    """Marian under Seq2SeqTrainer, tuned."""
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback

    from benchmarks.contenders import build_marian, real_tokens

    settings, rows = course.arguments.training, course.splits["train"].select_columns(["input_ids", "labels"])
    model = build_marian(course, "eager")
    lengths = sum(len(row["input_ids"]) + len(row["labels"]) for row in rows.select(range(0, len(rows), 50)))
    mean = lengths / len(range(0, len(rows), 50))
    pad, seen = DataCollatorForSeq2Seq(course.tokenizer, model=model), [0]

    def collate(batch: list[dict]) -> dict[str, torch.Tensor]:
        padded = pad(batch)
        seen[0] += real_tokens(padded)
        return padded

    class Looks(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 0:
                course.clock.restart()

        def on_step_end(self, args, state, control, **kwargs):
            course.look(lambda: model, seen[0])
            control.should_training_stop = course.done() >= 1

    def factor(step: int) -> float:
        done, width = course.done() if step else 0.0, course.dims["d_model"]
        return learning_rate_factor(settings.schedule, step + 1, settings.warmup_steps, done, width)

    betas = (settings.adam_beta1, settings.adam_beta2)
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.learning_rate, betas, weight_decay=settings.weight_decay, fused=True
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            folder,
            per_device_train_batch_size=max(1, round(settings.batch_tokens / mean)),
            train_sampling_strategy="group_by_length",
            bf16=has_fast_bf16(course.run.accelerator.device),
            label_smoothing_factor=course.arguments.model["label_smoothing"],
            max_grad_norm=settings.max_grad_norm or 0.0,
            max_steps=10**6,
            seed=settings.seed,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            use_cpu=not torch.cuda.is_available(),
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        trainer = Seq2SeqTrainer(
            model,
            arguments,
            data_collator=collate,
            train_dataset=rows,
            callbacks=[Looks()],
            optimizers=(optimizer, scheduler),
        )
        trainer.train()


def peer(build: Any) -> Callable[[Course], None]:
    """A trainer of benchmarks.peers."""

    def train(course: Course) -> None:
        trainer, tokens = build(course, course.clock), 0
        words = [str(token_id) for token_id in range(len(course.tokenizer))]
        words[course.tokenizer.unk_token_id] = "<unk>"  # as `write_words` writes it

        def generate(converted: Any, sources: Dataset) -> list[str]:
            model, tokenizer = converted.model, converted.tokenizer
            run = Run(**{**vars(course.run), "tokenizer": tokenizer})
            ids = course.tokenizer(list(sources["source"]), add_special_tokens=False).input_ids
            asked = [" ".join(words[number] for number in row) + build.source_end for row in ids]
            answers = generate_texts(run, model, Dataset.from_dict({"source": asked}), "validation")
            numbers = [[words.index(word) for word in answer.split() if word in words] for answer in answers]
            return course.tokenizer.batch_decode(numbers, skip_special_tokens=True)

        course.clock.restart()
        for mark in list(course.marks):
            tokens += trainer(max(0.0, mark - course.clock()))
            course.look(trainer.converted, tokens, generate)

    return train


SYSTEMS: dict[str, Callable[[Course], None]] = {
    "ours": ours,
    "Marian, Seq2SeqTrainer": marian,
    "JoeyNMT": peer(peers.JoeyNMT),
    "eole": peer(peers.Eole),
}
SPEECH_SYSTEMS: dict[str, Callable[[Course], None]] = {"ours": ours, "Speech2Text, a bare loop": speech2text}


def systems_for(recipe: str) -> dict[str, Callable[[Course], None]]:
    """The systems that can learn a recipe's task.

    Raises:
        ValueError: There is no peer for its sources.
    """
    modality = OBJECTIVES[parse_arguments([recipe]).objective].modality
    if modality == "image":
        raise ValueError(f"{recipe} reads pictures: there is no peer for that.")
    return SPEECH_SYSTEMS if modality == "speech" else SYSTEMS


def train_one(name: str, learning_rate: float | None, minutes: float, options: argparse.Namespace) -> dict[str, Any]:
    """Train a system; called in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*options.settings, f"--training.max_minutes={minutes}", f"--output_dir={folder}/run"]
        words += ["--training.max_steps=null", "--training.num_train_epochs=null"]
        words += [f"--training.learning_rate={learning_rate}"] if learning_rate else []
        course = Course(parse_arguments([options.recipe, *words]), options.points if minutes == options.minutes else 1)
        torch.manual_seed(course.arguments.training.seed)
        systems_for(options.recipe)[name](course)
        return {
            "metric": course.metric,
            "learning_rate": course.arguments.training.learning_rate,
            "curve": course.curve,
            "environment": describe_environment(),
        }


def call(name: str, learning_rate: float | None, minutes: float, argv: list[str]) -> dict[str, Any]:
    """Train a system in a process of its own."""
    one = json.dumps([name, learning_rate, minutes])
    command = [sys.executable, "-m", "benchmarks.equal_time", *argv, "--one", one]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def train_system(name: str, options: argparse.Namespace, argv: list[str]) -> dict[str, Any]:
    """Choose a learning rate, if there is a choice, and train a system with it."""
    grid = {rate: call(name, rate, options.grid_minutes, argv) for rate in options.grid}
    chosen = None
    if grid:
        scores = {rate: found["curve"][-1]["score"] for rate, found in grid.items()}
        metric = next(iter(grid.values()))["metric"]
        chosen = sorted(scores, key=scores.__getitem__, reverse=not METRICS[metric].lower_is_better)[0]
        print(f"{name}: {scores}, so {chosen}", flush=True)
    found = call(name, chosen, options.minutes, argv)
    return found | {"grid": {str(rate): point["curve"] for rate, point in grid.items()}}


def time_to(curve: list[Point], score: float, lower_is_better: bool) -> float | None:
    """The seconds after which a curve has reached a score, between its points by a straight line; None if never."""
    sign = 1 if lower_is_better else -1
    before: Point | None = None
    for point in curve:
        if sign * point["score"] <= sign * score:
            if before is None or before["score"] == point["score"]:
                return point["seconds"]
            share = (before["score"] - score) / (before["score"] - point["score"])
            return before["seconds"] + share * (point["seconds"] - before["seconds"])
        before = point
    return None


def table(systems: dict[str, dict[str, Any]]) -> str:
    """What each system reached, and how long the first one takes to that, as Markdown."""
    first = next(iter(systems))
    metric = systems[first]["metric"]
    lines = [f"| system | learning rate | tokens | seconds | {metric} | {first} has that after |", "| --- " * 6 + "|"]
    for name, found in systems.items():
        last = found["curve"][-1]
        seconds = time_to(systems[first]["curve"], last["score"], METRICS[metric].lower_is_better)
        after = "never" if seconds is None else f"{seconds:.0f} s"
        cells = [name, f"{found['learning_rate']:g}", f"{last['tokens']:,}", f"{last['seconds']:.0f}"]
        lines.append("| " + " | ".join([*cells, f"{last['score']:.2f}", after]) + " |")
    return "\n".join(lines)


def draw(systems: dict[str, dict[str, Any]], path: Path) -> None:
    """A line for each system."""
    from fun_transformer.visualization.figures import WIDTH, drawing, name_axes, new_figure, save_figure

    with drawing():
        figure = new_figure(WIDTH - 1, 4.4)
        axes = figure.subplots()
        for (name, found), marker in zip(systems.items(), "osD^vP" * len(systems)):
            x, y = ([point[key] / unit for point in found["curve"]] for key, unit in (("seconds", 60), ("score", 1)))
            axes.plot(
                x,
                y,
                "-" if name == "ours" else "--",
                marker=marker,
                label=name,
                linewidth=2.5 if name == "ours" else 1.3,
            )
        metric, environment = found["metric"], found["environment"]
        if METRICS[metric].lower_is_better:  # what is far from the best would hide the rest
            bests = [min(point["score"] for point in found["curve"]) for found in systems.values()]
            axes.set_ylim(0.9 * min(bests), min(axes.get_ylim()[1], max(4 * min(bests), 1.15 * max(bests))))
        unit = "minutes of training" if torch.cuda.is_available() else "CPU-minutes of training"
        place = f"{unit}; {environment['device']}, {environment['threads']} thread(s)"
        name_axes(axes, place, f"{metric.upper()} on validation")
        axes.grid()
        axes.legend()
        save_figure(figure, path)


def without_folder(word: str) -> str:
    """A word of a command line, without the folders of this machine."""
    return re.sub(r"(^|=)/\S*/", r"\1", word)


def read_options(argv: list[str]) -> argparse.Namespace:
    """Read the words of the command line; what is not known here belongs to the recipe."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.equal_time", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("recipe", help="of the task: data, tokenizer, dimensions, and how we train")
    parser.add_argument("--minutes", type=float, default=4, help="of training, for each system")
    parser.add_argument("--points", type=int, default=8, help="how often each is scored")
    parser.add_argument("--grid", type=float, nargs="*", default=[], help="learning rates to choose from")
    parser.add_argument("--grid_minutes", type=float, default=1, help="of training with each of them")
    parser.add_argument("--only", nargs="*", choices=[*SYSTEMS, *list(SPEECH_SYSTEMS)[1:]], help="these systems alone")
    parser.add_argument("--output", type=Path, help="where the results go (JSON); systems that are there are kept")
    parser.add_argument("--picture", type=Path, help="where the picture goes")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # in the child process: system, learning rate, minutes
    options, options.settings = parser.parse_known_args(argv)
    return options


def main(argv: list[str] | None = None) -> None:
    """Train every system, print the table, write results and picture."""
    argv = sys.argv[1:] if argv is None else argv
    options = read_options(argv)
    if options.one:
        with contextlib.redirect_stdout(sys.stderr):
            found = train_one(*json.loads(options.one), options)
        print("\n" + json.dumps(found))
        return
    systems = {}
    if options.output and options.output.exists():
        systems = json.loads(options.output.read_text(encoding="utf-8"))["systems"]
    known = systems_for(options.recipe)
    names = options.only or [name for name in known if name not in peers.missing()]
    for name in names:
        if name in systems:
            continue
        systems[name] = train_system(name, options, argv)
        if options.output:
            command = f"python -m benchmarks.equal_time {shlex.join(map(without_folder, argv))}"
            write_atomically(options.output, json.dumps({"command": command, "systems": systems}, indent=1) + "\n")
    systems = {name: systems[name] for name in known if name in systems}
    print(table(systems))
    if options.picture:
        draw(systems, options.picture)


if __name__ == "__main__":
    main()
