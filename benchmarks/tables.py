"""The figures of docs/results.md: a shipped recipe with several seeds, each scored once on the test set.

    python -m benchmarks.tables conll2000 --data data/conll2000 --output benchmarks/results/table-conll2000.json
    python -m benchmarks.tables sst2 --data data/sst2 --pretrain --text captions.en.gz --seeds 1 --output ...
    python -m benchmarks.tables multi30k-en-de --data data/multi30k --output ... \\
        --config_file training/configs/one_gpu_compiled.yaml

`--data` is a folder with the files of the task as they are distributed (`python -m benchmarks.tables --help` lists
them). On a GPU all seeds train at once, else one after the other; each is a run of the trainer in a folder of its own.
The results are written after each: the same command goes on where it stopped, and one with other seeds adds to them.
With `--pretrain` a masked language model learns first, from the training texts and `--text`, once for all seeds.
Words after `--` are settings of the trainer for every seed: `-- --training.max_steps 100`.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from fun_transformer.files import write_atomically
from fun_transformer.training.data.readers import read_lines
from fun_transformer.training.recipe.arguments import SPLITS
from fun_transformer.training.run.environment import describe_environment
from fun_transformer.training.tables import METRICS

from .tables_data import TABLES, Table, write_rows

ROOT = Path(__file__).parents[1]


def run_trainer(words: list[str], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train in a process of its own, or go on with a training; return what it measured and took.

    Args:
        words: Recipe and settings.
        folder: Of the run; what is printed goes to a file beside it.
        options: With `threads` and `config_file`.

    Raises:
        SystemExit: The training failed.
    """
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(options.config_file)]
    command = [sys.executable, *(launcher if options.config_file else []), "-m", "fun_transformer.training", *words]
    command += [f"--training.threads={options.threads}"] if options.threads else []
    command += ["--output_dir", str(folder), "--resume", "auto"]
    is_resumed = (folder / "checkpoints").is_dir()
    start = time.monotonic()
    with open(f"{folder}.log", "ab") as log:
        child = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"The training of {folder} ended with code {child.returncode}; {folder}.log says why.")
    facts = {"wall_seconds": time.monotonic() - start, "cpu_seconds": used.ru_utime + used.ru_stime}
    facts = {name: round(value, 1) for name, value in facts.items()}
    return read_log(folder) | facts | ({"resumed": True} if is_resumed else {})


def read_log(folder: Path) -> dict[str, Any]:
    """Return steps, tokens and seconds of a run, its scores on validation on the way, and on test at the end."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    by_split = {split: [line for line in lines if line["split"] == split] for split in SPLITS}
    counts = ("step", "tokens", "seconds")
    facts: dict[str, Any] = {name: line[name] for line in lines for name in counts if name in line}  # the last ones
    names = [name for name in by_split["validation"][-1] if name in METRICS]
    facts["validation"] = {name: [round(line[name], 4) for line in by_split["validation"]] for name in names}
    if by_split["test"]:
        facts["test"] = {name: value for name, value in by_split["test"][-1].items() if name not in ("step", "split")}
    return facts


def pretrain(table: Table, words: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Train a masked language model on the training texts and all `--text`, where that is not done yet."""
    texts = options.folder / "texts.jsonl"
    lines = list(table.texts(options.data))
    for path in options.text:
        lines += [line.strip() for line in read_lines(path)]
    write_rows(texts, [{"source": line} for line in dict.fromkeys(lines) if line.strip()])
    validation = [word for word in words if word.startswith("--data.validation.")]
    command = [f"hub_configs/{Path(table.recipe).parent}/pretrain.yaml", f"--data.train.dataset={texts}", *validation]
    command += [f"--training.max_steps={options.pretrain_steps}"] if options.pretrain_steps else []
    return run_trainer([*command, "--training.seed=1"], options.folder / "pretrained", options)


def describe(runs: list[dict[str, Any]], metrics: tuple[str, ...]) -> str:
    """Return a line of Markdown for each metric: mean, spread, seeds, seconds."""
    lines = ["| metric | mean | from - to | seeds | CPU minutes each | minutes each |", "| --- " * 6 + "|"]
    for metric in metrics:
        values = [run["test"][metric] for run in runs]
        spread = f"{min(values):.2f} - {max(values):.2f}" if len(values) > 1 else ""
        minutes = [statistics.mean(run[name] for run in runs) / 60 for name in ("cpu_seconds", "wall_seconds")]
        cells = [metric, f"{statistics.mean(values):.2f}", spread, str(len(values)), *(f"{m:.1f}" for m in minutes)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train what is not in the results yet, and write them after each run."""
    table, environment = TABLES[options.name], describe_environment()
    options.folder.mkdir(parents=True, exist_ok=True)
    recipe = str(ROOT / "hub_configs" / table.recipe)
    words = table.prepare(options.data, options.folder)
    results: dict[str, Any] = {
        "name": options.name,
        "recipe": f"hub_configs/{table.recipe}",
        "commands": [],
        "runs": [],
    }
    if options.output.is_file():
        results = json.loads(options.output.read_text(encoding="utf-8"))
        if results.get("name") != options.name:
            found = results.get("name")
            raise ValueError(f"{options.output} is of the table {found}, not of {options.name}. Name another file.")
    results["commands"] = list(dict.fromkeys([*results["commands"], options.command]))
    key = "pretrained" if options.pretrain else "from scratch"
    for run in results["runs"]:
        if run["start"] == key and run.get("settings", []) != options.settings:
            found = shlex.join(run.get("settings", [])) or "none"
            raise ValueError(
                f"{options.output} has seed {run['seed']} with the settings {found}, got "
                f"{shlex.join(options.settings) or 'none'}. Name another --output and --folder."
            )
    if options.pretrain:
        facts = pretrain(table, words, options)
        results.setdefault("pretraining", facts)  # a second look at a finished one takes no time
        model = options.folder / "pretrained" / "model"
        words += [f"--training.init_from={model}", f"--tokenizer.path={model}"]

    def one_seed(seed: int) -> None:
        folder = options.folder / f"{key.replace(' ', '-')}-{seed}"
        facts = run_trainer([recipe, *words, f"--training.seed={seed}", *options.settings], folder, options)
        run = {"seed": seed, "start": key, "settings": options.settings, **facts, "environment": environment}
        results["runs"].append(run)
        results["runs"].sort(key=lambda run: (run["start"], run["seed"]))
        write_atomically(options.output, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        print(f"{options.name}, {key}, seed {seed}: {facts.get('test')}", flush=True)

    done = {run["seed"] for run in results["runs"] if run["start"] == key}
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one_seed, [seed for seed in options.seeds if seed not in done]))
    return [run for run in results["runs"] if run["start"] == key and run["seed"] in options.seeds]


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    argv = sys.argv[1:] if argv is None else argv
    files = "\n".join(f"  {name}: {', '.join(table.files)}" for name, table in TABLES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tables",
        description=f"{__doc__.splitlines()[0]}\n\nfiles of --data:\n{files}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=list(TABLES))
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the files named above")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, help="trainings at once (default: all seeds on a GPU, else 1)")
    parser.add_argument("--threads", type=int, help="CPU threads of each training")
    parser.add_argument("--config_file", type=Path, help="of accelerate: training/configs/one_gpu_compiled.yaml")
    parser.add_argument("--pretrain", action="store_true", help="begin with a masked language model")
    parser.add_argument("--text", nargs="+", default=[], metavar="FILE", help="more text for it, a sentence a line")
    parser.add_argument("--pretrain_steps", type=int, help="its updates (default: those of its recipe)")
    parser.add_argument("--folder", type=Path, help="of the runs (default: runs/table-NAME)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json")
    own, _, settings = (list(part) for part in split_at(argv, "--"))
    options = parser.parse_args(own)
    options.settings, options.command = settings, f"python -m benchmarks.tables {shlex.join(argv)}"
    options.data, options.text = options.data.absolute(), [Path(path).absolute() for path in options.text]
    options.config_file = options.config_file and options.config_file.absolute()
    options.folder = (options.folder or Path("runs") / f"table-{options.name}").absolute()
    options.jobs = options.jobs or (len(options.seeds) if torch.cuda.is_available() else 1)
    table = TABLES[options.name]
    if missing := [name for name in table.files if not (options.data / name).is_file()]:
        parser.error(f"{options.data} has no {', '.join(missing)}. --data names the folder with these files.")
    if options.pretrain and table.texts is None:
        names = ", ".join(name for name, other in TABLES.items() if other.texts)
        parser.error(f"{options.name} has no pretraining. Those with one: {names}.")
    if options.text and not options.pretrain:
        parser.error("--text is for --pretrain, which is not there.")
    print(describe(measure(options), table.metrics))


def split_at(words: list[str], mark: str) -> tuple[list[str], list[str], list[str]]:
    """Return the words before a mark, the mark, and those after it; the first alone where there is no mark."""
    place = words.index(mark) if mark in words else len(words)
    return words[:place], words[place : place + 1], words[place + 1 :]


if __name__ == "__main__":
    main()
