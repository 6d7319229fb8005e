"""How a training went, from its metrics.jsonl: loss, learning rate and validation scores over the steps."""

import json
import os

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator

from .figures import COLOURS, QUIET, WIDTH, drawing, name_axes, new_figure, save_figure

SPLITS = {
    "train": {"color": COLOURS[0], "alpha": 0.7},
    "validation": {"color": COLOURS[1], "marker": "o", "markersize": 4},
    "test": {"color": COLOURS[2], "marker": "*", "markersize": 10, "linestyle": "none"},
}
LABELS = {"train": "train (with dropout and label smoothing)"}  # why it lies above the validation loss
METRIC_NAMES = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "ter": "TER",
    "per": "PER",
    "wer": "WER",
    "g2p_wer": "WER",
    "cer": "CER",
}
# Numbers of a validation row that are no score.
NO_SCORE = {"step", "epoch", "loss", "perplexity", "learning_rate", "seconds", "tokens", "tokens_per_second"}


def plot_training_curve(metrics_path: str | os.PathLike, picture_path: str | os.PathLike) -> Figure:
    """Draw the curves of a run: loss above, then the learning rate, then the scores, as far as they were logged.

    Args:
        metrics_path: Metrics.jsonl, one object a line with at least `step`, `split` and `loss`. After a resumed run a
            step may occur twice: the later line counts. An unfinished last line is left out.
        picture_path: Where to write the picture (.png, .pdf, .svg).

    Raises:
        ValueError: A line is no JSON object, or there is no loss to draw.
    """
    rows = _read_rows(metrics_path)
    losses = {split: _points(rows, "loss", split) for split in SPLITS}
    losses = {split: points for split, points in losses.items() if points}
    if not losses:
        raise ValueError(f"{os.fspath(metrics_path)} has no line with a step and a loss yet.")
    learning_rate = _points(rows, "learning_rate", "train")
    scores = {name: _points(rows, name, "validation") for name in _score_names(rows)}

    heights = [3.2] + [1.1] * bool(learning_rate) + [2.2] * bool(scores)
    with drawing():
        figure = new_figure(WIDTH - 1, sum(heights) + 0.8)
        panels = iter(figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)[:, 0])
        _draw_losses(next(panels), losses)
        if learning_rate:
            axes = next(panels)
            axes.plot(*zip(*learning_rate), color=QUIET)
            name_axes(axes, y="learning rate")
            axes.yaxis.set_major_formatter("{x:g}")
        if scores:
            axes = next(panels)
            for (name, points), marker in zip(scores.items(), "osD^v" * len(scores)):
                axes.plot(*zip(*points), label=METRIC_NAMES.get(name, name), marker=marker)
            name_axes(axes, y="validation scores")
            axes.legend()
        for axes in figure.axes:
            axes.grid()
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        figure.axes[-1].set_xlabel("step")
        save_figure(figure, picture_path)
    return figure


def _draw_losses(axes, losses: dict[str, list[tuple[int, float]]]) -> None:
    for split, points in losses.items():
        axes.plot(*zip(*points), label=LABELS.get(split, split), **SPLITS[split])
    values = [loss for points in losses.values() for _, loss in points if loss > 0]
    if values and max(values) > 10 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    name_axes(axes, y="loss")
    axes.legend()


def _score_names(rows: list[dict]) -> list[str]:
    names = {
        name
        for row in rows
        if row.get("split") == "validation"
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return sorted(names - NO_SCORE)


def _points(rows: list[dict], name: str, split: str) -> list[tuple[int, float]]:
    """(step, value) in the order of the steps, the later line where a step comes twice."""
    points = {row["step"]: row[name] for row in rows if row.get("split") == split and {"step", name} <= row.keys()}
    return sorted((step, value) for step, value in points.items() if value is not None)


def _read_rows(path: str | os.PathLike) -> list[dict]:
    with open(path, encoding="utf-8") as file:
        lines = file.readlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines) and not line.endswith("\n"):
                break  # the run was killed while it wrote
            raise ValueError(f"{os.fspath(path)}, line {number} is no JSON object: {error}") from error
    return rows
