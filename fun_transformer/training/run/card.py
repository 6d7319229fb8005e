"""What a run leaves for people: its curve, and a card for its model."""

from pathlib import Path
from typing import Any

from ...files import write_atomically
from ...hub import Score, TrainingFacts, training_card
from ..recipe.arguments import RunArguments, SplitArguments
from ..tables import METRICS
from .environment import describe_environment
from .run import Run, Scores


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


def write_card(folder: Path, run: Run, details: dict[str, Any], found: dict[str, Scores]) -> None:
    """Write the model card.

    Args:
        folder: The model's folder.
        run: The run.
        details: What the training came to: the `command`, and rows of the table "How it was trained".
        found: Scores by split; of the generated rows a few are shown.
    """
    environment = describe_environment()
    scores = [
        Score(metric, kind.title, split, part.values[metric], part.values.get(f"{metric}_signature"))
        for metric, kind in METRICS.items()
        for split, part in found.items()
        if metric in part.values
    ]
    facts = TrainingFacts(
        data=describe_data(run.arguments),
        command=details["command"],
        details={
            "rows for training": f"{len(run.splits['train']):,}",
            **{name: text for name, text in details.items() if name != "command"},
            "device": f"{run.accelerator.num_processes} x {environment['device']}, "
            f"{environment['threads']} CPU threads",
            "precision": run.accelerator.mixed_precision.replace("no", "fp32"),
            "seed": run.arguments.training.seed,
            "versions": ", ".join(f"{name} {version}" for name, version in environment["versions"].items()),
        },
        scores=scores,
        samples=[sample for part in found.values() for sample in part.samples],
    )
    card = training_card(run.output_dir.name, run.objective.pipeline, facts)
    write_atomically(folder / "README.md", card)
