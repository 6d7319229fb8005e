"""What a run leaves for people: its curve, and a card for its model."""

import json
import re
from pathlib import Path
from typing import Any

from ...files import write_atomically
from ...hub import Score, TrainingFacts, training_card
from ...hub.usage import BASE_PLACEHOLDER, Loading
from ..recipe.arguments import RunArguments, SplitArguments
from ..recipe.base import is_adapter, is_own, model_name, starts_from_model
from ..recipe.model_config import mixing_config
from ..tables import METRICS
from .environment import describe_environment
from .run import Run, Scores

START = "start"  # the split, in metrics.jsonl, of scores before the first step
HUB_NAME = r"[\w.-]+/[\w.-]+|[a-z][\w.-]*"


def draw_curve(output_dir: Path) -> Path | None:
    """Draw `training_curve.png` from `metrics.jsonl`; None where matplotlib is not installed."""
    try:
        from ...visualization import plot_training_curve
    except ImportError:
        return None
    path = output_dir / "training_curve.png"
    plot_training_curve(output_dir / "metrics.jsonl", path)
    return path


def describe_data(arguments: RunArguments) -> str:
    """Name where the training data came from, without the folders of this machine."""

    def name(corpus: SplitArguments) -> str:
        if corpus.dataset is None:
            return f"{Path(corpus.source or '').name} and {Path(corpus.target or '').name}"
        is_here = Path(corpus.dataset).is_absolute() or Path(corpus.dataset).exists()
        return Path(corpus.dataset).name if is_here else corpus.dataset

    return arguments.data.name or " and ".join(name(corpus) for corpus in arguments.data.train.corpora)


def hub_datasets(arguments: RunArguments) -> list[str]:
    """Name the data sets of the Hub that a model was trained on."""
    names = (corpus.dataset or "" for corpus in arguments.data.train.corpora)
    return sorted({name for name in names if re.fullmatch(HUB_NAME, name) and not Path(name).exists()})


def start_values(output_dir: Path, split: str | None) -> dict[str, Any]:
    """Read from the log what the model scored before the first step; empty where nothing was scored then."""
    path = output_dir / "metrics.jsonl"
    if split is None or not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    first = [line for line in lines if line["step"] == 0]
    whole = [line for line in first if line["split"] == START and line.get("of") == split]
    return next(iter([*whole, *(line for line in first if line["split"] == split)]), {})


def describe_loading(folder: Path, run: Run) -> Loading | None:
    """Say what the model of a run needs to be loaded; None for a whole one of this package, which has pipelines."""
    arguments = run.arguments
    if not starts_from_model(arguments):
        return None
    own, path = is_own(mixing_config(arguments)), arguments.model["path"]
    base = (BASE_PLACEHOLDER if Path(path).is_dir() else path) if is_adapter(folder) else None
    if own and base is None:
        return None
    trusted = bool(arguments.model.get("trust_remote_code")) and not own
    return Loading(run.objective.model_class.__name__, needs_package=own, needs_trust=trusted, base=base)


def shown(sample: dict[str, Any], modality: str) -> dict[str, Any]:
    """Return a generated row as a card shows it: of a file its name, without the folders of this machine."""
    return sample if modality == "text" else sample | {"source": Path(sample["source"]).name}


def write_card(folder: Path, run: Run, details: dict[str, Any], found: dict[str, Scores]) -> None:
    """Write the model card.

    Args:
        folder: The model's folder, with its config.
        run: The run.
        details: What the training came to: the `command`, and rows of the table "How it was trained".
        found: Scores by split; of the generated rows a few are shown.
    """
    environment = describe_environment()
    arguments = run.arguments
    scores, before = (
        [
            Score(metric, kind.title, split, values[metric], values.get(f"{metric}_signature"))
            for metric, kind in METRICS.items()
            for split, values in columns
            if metric in values
        ]
        for columns in (
            [(split, part.values) for split, part in found.items()],
            [(f"{split}, before", start_values(run.output_dir, split)) for split in found],
        )
    )
    base = model_name(arguments.model["path"]) if starts_from_model(arguments) else None
    facts = TrainingFacts(
        data=describe_data(arguments),
        command=details["command"],
        details={
            "rows for training": f"{len(run.splits['train']):,}",
            **{name: text for name, text in details.items() if name != "command"},
            "device": f"{run.accelerator.num_processes} x {environment['device']}, "
            f"{environment['threads']} CPU threads",
            "precision": run.accelerator.mixed_precision.replace("no", "fp32"),
            "seed": arguments.training.seed,
            "versions": ", ".join(f"{name} {version}" for name, version in environment["versions"].items()),
        },
        scores=scores,
        samples=[shown(sample, run.objective.modality) for part in found.values() for sample in part.samples],
        before=before,
        datasets=hub_datasets(arguments),
        base_model=base,
        base_is_on_hub=base is not None and not Path(arguments.model["path"]).is_dir(),
        source_prefix=arguments.data.source_prefix,
        loading=describe_loading(folder, run),
    )
    card = training_card(run.output_dir.name, run.objective.pipeline, facts)
    write_atomically(folder / "README.md", card)
