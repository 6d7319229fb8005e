"""A picture of exposure bias: what a model's own mistakes cost it, position by position."""

import os

from matplotlib.figure import Figure

from ..analysis.exposure import ExposureGap
from .figures import COLOURS, WIDTH, drawing, name_axes, new_figure, save_figure


def plot_exposure_gap(gap: ExposureGap, picture_path: str | os.PathLike, min_count: int = 5) -> Figure:
    """Draw the loss and the accuracy after true prefixes and after the model's own; the gap is shaded.

    Args:
        gap: From `fun_transformer.analysis.exposure_gap`.
        picture_path: Where to write the picture (.png, .pdf, .svg).
        min_count: Positions that fewer references have are left out: a mean of a few is noise.

    Raises:
        ValueError: No position has that many references.
    """
    shown = sum(count >= min_count for count in gap.counts)  # counts never rise
    if not shown:
        raise ValueError(f"No position has min_count={min_count} references. Give more data, or a lower min_count.")
    positions = range(1, shown + 1)
    panels = (
        ("loss of the true token (nats)", gap.teacher_forced_loss, gap.free_running_loss),
        ("accuracy", gap.teacher_forced_accuracy, gap.free_running_accuracy),
    )
    with drawing():
        figure = new_figure(WIDTH - 1.4, 5.5)
        for axes, (name, forced, free) in zip(figure.subplots(2, sharex=True), panels):
            forced, free = forced[:shown], free[:shown]
            axes.plot(positions, forced, marker="o", label="after the true prefix (teacher forcing)")
            axes.plot(positions, free, "--", marker="s", label="after its own prefix (free-running)")
            axes.fill_between(positions, forced, free, alpha=0.15, color=COLOURS[1])
            name_axes(axes, y=name)
            axes.set_ylim(bottom=0)
            axes.grid()
        figure.axes[0].legend()
        figure.axes[1].set_xlabel("position in the target")
        save_figure(figure, picture_path)
    return figure
