"""Train on a track until its target is reached, and write a record.

    python -m benchmarks.speedrun cmudict --data FOLDER
    python -m benchmarks.speedrun cmudict-demo --training.threads 2 --training.seed 7
    python -m benchmarks.speedrun --table

All settings of a recipe can follow, such as --training.learning_rate 2e-3.
"""

import argparse
import dataclasses
import functools
import json
import math
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.equal_time import without_folder
from benchmarks.speedrun.records import RECORDS, write_record, write_table
from benchmarks.speedrun.tracks import SPLITS, TRACKS, Track, digest
from fun_transformer.training import RunArguments, SplitArguments, TrainingLoop, parse_arguments, train
from fun_transformer.training.evaluate import evaluate
from fun_transformer.training.recipe.reading import flat_values
from fun_transformer.training.run.checkpoints import checkpoint_folders, read_state
from fun_transformer.training.run.environment import describe_environment
from fun_transformer.training.tables import METRICS

ROOT = Path(__file__).parents[2]


def reaches(track: Track, score: float, target: float) -> bool:
    """Whether a score is at least as good as a target."""
    return score <= target if METRICS[track.metric].lower_is_better else score >= target


class UntilTarget(TrainingLoop):
    """Ends when an evaluation has reached the target, or with the recipe.

    Args:
        reached: Tells of a score on the validation split whether it is good enough.
    """

    def __init__(self, *parts: Any, reached: Callable[[float], bool]):
        super().__init__(*parts)
        self.reached = reached

    def is_over(self, done: float) -> bool:
        best = self.kept.best_score
        return super().is_over(done) or (best is not None and self.reached(best))


def run_track(track: Track, arguments: RunArguments, stop: float, tests: bool = True) -> dict[str, Any] | None:
    """Train until the validation split reaches `stop`; then score the test split, once.

    Args:
        track: What is to be reached.
        arguments: The recipe, with all splits.
        stop: A score at least as good as the track's target.
        tests: Whether to look at the test split at all.

    Returns:
        What the run is known by; None when the final model misses the target on the validation split, of which all
        rows count now. The test split is not looked at then.
    """
    unseen = dataclasses.replace(arguments, data=dataclasses.replace(arguments.data, test=SplitArguments()))
    loop = functools.partial(UntilTarget, reached=lambda score: reaches(track, score, stop))
    result = train(unseen, shlex.join(sys.argv), loop=loop)
    if not result.scores:
        raise ValueError(f"{result.folder} holds a finished run. Name another --output_dir, or give --overwrite.")
    validation = result.scores["validation"][track.metric]
    if not reaches(track, validation, track.target):
        print(f"{track.metric} {validation:.2f} on the validation split: {track.target:g} is not reached.")
        return None
    state = read_state(checkpoint_folders(result.folder)[-1])
    environment = describe_environment()
    lines = map(json.loads, (result.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    test = evaluate(arguments, result.folder / "model").values if tests else {track.metric: math.nan}
    recipe = flat_values(parse_arguments([str(result.folder / "recipe.yaml")]))
    return {
        "metric": track.metric,
        "target": track.target,
        "test": test[track.metric],
        "test_scores": test,
        "validation": validation,
        "seconds": round(state["seconds"], 1),
        "steps": state["step"],
        "tokens": state["tokens"],
        "curve": [
            {"step": line["step"], "seconds": line["seconds"], track.metric: line[track.metric]}
            for line in lines
            if line["split"] == "validation" and track.metric in line and "seconds" in line
        ],
        "seed": arguments.training.seed,
        "environment": environment,
        "load": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "recipe": {name: in_checkout(value) for name, value in recipe.items()},
    }


def in_checkout(value: Any) -> Any:
    """Return a value of a recipe; a file of this checkout by its path inside it, which others have, too."""
    return value.removeprefix(f"{ROOT}/") if isinstance(value, str) else value


def check_options(options: argparse.Namespace, settings: list[str]) -> None:
    """Refuse what makes no record, before anything is trained.

    Raises:
        ValueError: Naming it.
    """
    fixed = [word for word in settings if word.startswith(tuple(f"--data.{split}" for split in SPLITS))]
    if fixed:
        raise ValueError(f"{fixed[0]}: the data of a track are fixed. --data names the folder where they are.")
    track = TRACKS[options.track]
    if options.stop is not None and not reaches(track, options.stop, track.target):
        raise ValueError(
            f"--stop {options.stop:g} is worse than the target, {track.target:g}. Leave it out, or be strict."
        )
    revision = describe_environment()["git_revision"]
    if not options.no_record and (revision is None or revision.endswith("+")):
        raise ValueError(
            "A record names the commit with which it can be repeated, and files here differ from theirs. Commit them "
            "first, or try things out with --no-record."
        )


def check_arguments(arguments: RunArguments) -> None:
    """Refuse a recipe that brings more than a track gives, or leaves some of it out.

    Raises:
        ValueError: Naming the setting.
    """
    given = {
        "data.max_rows": arguments.data.max_rows,
        "model.path": arguments.model.get("path"),
        "tokenizer.path": arguments.tokenizer.path,
        "training.init_from": arguments.training.init_from,
        "training.source_vectors": arguments.training.source_vectors,
        "training.target_vectors": arguments.training.target_vectors,
        **{f"data.{split} (several)": len(getattr(arguments.data, split).corpora) > 1 for split in SPLITS},
    }
    if found := [name for name, value in given.items() if value]:
        raise ValueError(f"{found[0]} is not allowed: a run has all rows of its track alone, and begins from nothing.")


def read_options(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Read the words of the command line; what is not known here belongs to the recipe."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speedrun", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("track", nargs="?", choices=list(TRACKS), help="what is to be reached")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="the data of the track, as README.md lists them")
    parser.add_argument("--recipe", type=Path, metavar="FILE.yaml", help="another recipe than the track's")
    parser.add_argument("--stop", type=float, help="stop at this score on validation (default: the target)")
    parser.add_argument("--output_dir", type=Path, metavar="FOLDER", help="of the run (default: runs/speedrun-TRACK)")
    parser.add_argument("--records", type=Path, default=RECORDS, metavar="FOLDER", help="where a record is written")
    parser.add_argument("--no-record", action="store_true", help="try things out: never look at the test split")
    parser.add_argument("--table", action="store_true", help="write the table of all records into README.md, and end")
    options, settings = parser.parse_known_args(argv)
    if not options.table and options.track is None:
        parser.error(f"Name a track: {', '.join(TRACKS)}.")
    return options, settings


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit code: 0 where the target was reached."""
    options, settings = read_options(argv)
    if options.table:
        write_table()
        return 0
    track = TRACKS[options.track]
    output_dir = options.output_dir or Path("runs", f"speedrun-{options.track}")
    try:
        check_options(options, settings)
        fixed = [*track.options(options.data, output_dir), f"--training.metric_for_best_model={track.metric}"]
        arguments = parse_arguments(
            [str(options.recipe or track.recipe), *settings, *fixed, f"--output_dir={output_dir / 'run'}"]
        )
        check_arguments(arguments)
        stop = track.target if options.stop is None else options.stop
        found = run_track(track, arguments, stop, tests=not options.no_record)
    except (ValueError, OSError) as error:
        print(f"benchmarks.speedrun: {error}", file=sys.stderr)
        return 2
    if found is None:
        return 1
    print(f"{track.metric} {found['validation']:.2f} on validation after {found['seconds']:,.0f} s of training")
    if options.no_record:
        return 0
    print(f"{track.metric} {found['test']:.2f} on the test split")
    if not reaches(track, found["test"], track.target):
        print(f"The target, {track.target:g}, is missed there: no record.")
        return 1
    environment = found["environment"]
    record = {
        "track": options.track,
        "commit": environment["git_revision"],
        "hardware": hardware(environment),
        "data": digest([options.data / name for name in track.files]) if track.files else "",
        **found,
        "command": shlex.join(["python", "-m", "benchmarks.speedrun", *map(without_folder, argv or sys.argv[1:])]),
    }
    print(f"Record: {write_record(record, options.records)}. For the table: python -m benchmarks.speedrun --table")
    return 0


def hardware(environment: dict[str, Any]) -> str:
    """A GPU, or a processor with its threads."""
    import torch

    device, threads = environment["device"], environment["threads"]
    return device if torch.cuda.is_available() else f"{device}, {threads} thread{'s' * (threads > 1)}"


if __name__ == "__main__":
    sys.exit(main())
