"""Score a trained model again, on its own test rows or on others: `fun-transformer evaluate RUN`.

    fun-transformer evaluate runs/mine --generation.num_beams 5
    fun-transformer evaluate runs/mine --data.test.source news.zh --data.test.target news.en --output news.json

The run's recipe says how; each of its settings can be replaced on the command line. On several processes:
`accelerate launch -m fun_transformer.training.evaluate RUN`.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from datasets import DatasetDict
from transformers import AutoTokenizer
from transformers.utils import logging

from ..files import write_atomically
from ..text_parts import trained_features
from .data.features import check_features
from .data.report import RowReport
from .data.sources import find_shards
from .data.splits import load_split, load_splits
from .engine import ErrorOfMainProcess, build_accelerator, main_process_first
from .model.loading import load_model, trusts_code
from .recipe.arguments import SPLITS, DataArguments, RunArguments
from .recipe.base import is_adapter, starts_from_model
from .recipe.defaults import resolve
from .recipe.model_config import check_kernel, limit_lengths, longest_text
from .recipe.reading import parse_arguments
from .run.folder import named_inputs, start_folder
from .run.run import Run, Scores
from .scoring import score, show_scores
from .tables import OBJECTIVES


def evaluate(
    arguments: RunArguments, model: str | Path, split: str = "test", accelerator: Accelerator | None = None
) -> Scores:
    """Score a model on a split of a recipe.

    Args:
        arguments: The recipe.
        model: Folder of the model, with its tokenizer.
        split: "test", "validation" or "train".
        accelerator: Built from the recipe when None.

    Raises:
        ValueError: When the recipe has no such split, or its data or its attention kernel are not usable.
    """
    accelerator = accelerator or build_accelerator(arguments)
    check_kernel(arguments, accelerator.device, trains=False)
    modality = OBJECTIVES[arguments.objective].modality
    splits, report = main_process_first(load_one_split, arguments.data, split, arguments.training.seed, modality)
    if starts_from_model(arguments) and not is_adapter(
        Path(model)
    ):  # the one that is scored says what it is, wherever it started from
        arguments = replace(arguments, model=arguments.model | {"path": str(model)})
    arguments = resolve(arguments, len(splits[split]), accelerator.device)
    objective = OBJECTIVES[arguments.objective](splits, arguments.training)
    kernel = arguments.training.attn_implementation
    loaded = load_model(arguments, objective, model, kernel)
    loaded.to(accelerator.device)
    objective.read_config(loaded.config)
    of_model = replace(arguments, model={"path": str(model)})
    objective.read_sources(loaded.config, of_model)
    tokenizer = AutoTokenizer.from_pretrained(model, **trusts_code(arguments))
    if features := trained_features(tokenizer):
        check_features({tuple(features)}, splits[split], split)
    data = limit_lengths(arguments.data, longest_text(loaded.config))
    splits, of_tokens = main_process_first(objective.prepare_rows, splits, tokenizer, data)
    accelerator.print(report.followed_by(of_tokens))
    run = Run(accelerator, arguments, objective, tokenizer, splits, Path(model).parent)
    return score(run, loaded, split)


def load_one_split(data: DataArguments, split: str, seed: int, modality: str) -> tuple[DatasetDict, RowReport]:
    """Load one split; the others only where it was held out from train.

    Raises:
        ValueError: When the recipe has no such split, or its data are not usable.
    """
    report = RowReport()
    if getattr(data, split).is_named:
        return DatasetDict({split: load_split(split, data, seed, report, modality)}), report
    if split == "test":
        raise ValueError("The recipe has no data.test. Name some, or score another split: --split validation.")
    splits, report = load_splits(data, seed, modality)
    return DatasetDict({split: splits[split]}), report


def read_options(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Read the words of the command line; what is not known here belongs to the recipe."""
    parser = argparse.ArgumentParser(
        prog="fun-transformer evaluate",
        description="Score a trained model on a split of its recipe.",
        epilog="All settings of the recipe can follow, such as --generation.num_beams 5 (see train --help).",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run (with recipe.yaml and model/)")
    parser.add_argument("--split", choices=SPLITS, help="what to score on (default: test, else validation)")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="another model of the run's kind")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write the scores there")
    parser.add_argument("--predictions", type=Path, metavar="FILE.jsonl", help="write the generated rows there")
    return parser.parse_known_args(argv)


def find_data(arguments: RunArguments, run: Path, settings: list[str]) -> None:
    """Replace paths of data that are not here by those seen from where the run was started, or from above its folder.

    Args:
        arguments: The run's recipe; its splits may be changed.
        run: The run's folder.
        settings: Words of the command line: splits that it names are left as they are.
    """
    places = [Path(start_folder(run)), *run.resolve().parents]
    for name in SPLITS:
        if any(word.startswith(f"--data.{name}") for word in settings):
            continue
        for corpus in getattr(arguments.data, name).corpora:
            for field in ("dataset", "source", "target"):
                if path := getattr(corpus, field):
                    found = (str(place / path) for place in places if is_there(str(place / path)))
                    setattr(corpus, field, path if is_there(path) else next(found, path))


def is_there(path: str) -> bool:
    """Return whether a path or a pattern names something on the disk."""
    return any(Path(shard).exists() for shard in find_shards(path))


def check_outputs(arguments: RunArguments, outputs: list[Path]) -> None:
    """Refuse to write over what is read.

    Raises:
        ValueError: Naming the file.
    """
    for name, path in named_inputs(arguments):
        for output in outputs:
            if output.exists() and Path(path).exists() and output.samefile(path):
                raise ValueError(f"{output} would be written over {name}={path}. Name another file.")


def write_results(options: argparse.Namespace, found: Scores) -> None:
    """Write the files that the command line asks for."""
    if options.output:
        text = json.dumps({"split": options.split, **found.values}, indent=1, ensure_ascii=False)
        write_atomically(options.output, text + "\n")
    if options.predictions:
        rows = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in found.samples)
        write_atomically(options.predictions, rows)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    options, settings = read_options(argv)
    try:
        recipe, model = options.run / "recipe.yaml", options.model or options.run / "model"
        for path in (recipe, model / ("adapter_config.json" if is_adapter(model) else "config.json")):
            if not path.is_file():
                raise ValueError(
                    f"{options.run} is no finished run: there is no {path}. To score any model or finished outputs, "
                    "name the data, too: fun-transformer evaluate MODEL_OR_FILE DATA."
                )
        for path in filter(None, (options.output, options.predictions)):
            if not path.resolve().parent.is_dir():
                raise ValueError(f"There is no folder {path.parent} for {path.name}.")
        logging.disable_progress_bar()
        of_training = "--training.metric_for_best_model=loss"  # always measured, whatever metrics are asked for now
        arguments: Any = replace(parse_arguments([str(recipe), of_training, *settings]), resume="no")
        find_data(arguments, options.run, settings)
        check_outputs(arguments, [path for path in (options.output, options.predictions) if path])
        accelerator = build_accelerator(arguments)
        options.split = options.split or ("test" if arguments.data.test.is_named else "validation")
        found = evaluate(arguments, model, options.split, accelerator)
    except ErrorOfMainProcess:
        return 2
    except (ValueError, OSError) as error:
        print(f"fun-transformer evaluate: {error}", file=sys.stderr)
        return 2
    accelerator.print(f"{options.split}: {show_scores(found.values)}")
    if accelerator.is_main_process:
        write_results(options, found)
    accelerator.end_training()
    return 0


if __name__ == "__main__":
    sys.exit(main())
