"""What a run leaves for people: what it was started with, its curve, and a card for its model."""

import json
from pathlib import Path
from typing import Any

import yaml

from ..recipe.arguments import RunArguments
from ..tables import METRICS
from .checkpoints import write_whole


def draw_curve(output_dir: Path) -> Path | None:
    """Draw `training_curve.png` from `metrics.jsonl`; None where matplotlib is not installed."""
    try:
        from fun_transformer.visualization import plot_training_curve
    except ImportError:
        return None
    path = output_dir / "training_curve.png"
    plot_training_curve(output_dir / "metrics.jsonl", path)
    return path


def describe_data(arguments: RunArguments) -> str:
    """Where the training data came from."""
    return " and ".join(
        corpus.dataset or f"{Path(corpus.source or '').name} and {Path(corpus.target or '').name}"
        for corpus in arguments.data.train.corpora
    )


def write_card(
    folder: Path,
    arguments: RunArguments,
    task: str,
    command: str,
    facts: dict[str, Any],
    scores: dict[str, dict[str, Any]],
    samples: list[dict[str, Any]],
) -> None:
    """Write the model card.

    Args:
        folder: The model's folder.
        arguments: The recipe.
        task: The pipeline that the model is used with.
        command: The command line of the run.
        facts: Rows of the table "How it was trained".
        scores: Measured scores by split.
        samples: Generated rows, of which a few are shown.
    """
    name = Path(arguments.output_dir or "model").name
    splits = list(scores)
    metrics = [metric for metric in METRICS if any(metric in scores[split] for split in splits)]
    measured = [
        {"type": metric, "value": round(scores[split][metric], 4), "name": f"{METRICS[metric].title}, {split}"}
        for split in splits
        for metric in metrics
        if metric in scores[split]
    ]
    header = {
        "library_name": "transformers",
        "tags": ["fun_transformer", task],
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": task},
                        "dataset": {"type": "text", "name": describe_data(arguments)},
                        "metrics": measured,
                    }
                ],
            }
        ],
    }
    rows = [[METRICS[m].title, *(_number(scores[split].get(m)) for split in splits)] for m in metrics]
    signatures = {
        f"- {METRICS[metric].title}: `{scores[split][f'{metric}_signature']}`"
        for split in splits
        for metric in metrics
        if f"{metric}_signature" in scores[split]
    }
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {name}",
        "",
        'A Transformer ("Attention Is All You Need") trained with `fun_transformer`.',
        "",
        "## Scores",
        "",
        *_table(["", *splits], rows),
        "",
        *sorted(signatures),
        "",
        "## How it was trained",
        "",
        *_table(["", ""], [[key, str(value)] for key, value in facts.items()]),
        "",
        "```bash",
        command,
        "```",
        "",
        "## How to use it",
        "",
        "```python",
        "import fun_transformer  # registers the model and the pipelines",
        "from transformers import pipeline",
        "",
        f'pipe = pipeline("{task}", model="PATH_OR_NAME_OF_THIS_MODEL")',
        f"print(pipe({json.dumps(samples[len(samples) // 2]['source'] if samples else 'text', ensure_ascii=False)}))",
        "```",
    ]
    if samples:
        spread = samples[:: max(1, len(samples) // 8)][:8]
        shown = [[row["source"], row["references"][0], row["prediction"]] for row in spread]
        lines += ["", "## Examples it was tested on", "", *_table(["source", "reference", "model"], shown)]
    write_whole(folder / "README.md", "\n".join(lines) + "\n")


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else ""


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, *rows)]
    return [
        "| " + " | ".join(cells[0]) + " |",
        "|" + " --- |" * len(header),
        *("| " + " | ".join(row) + " |" for row in cells[1:]),
    ]
