"""Pictures of numbers: matrices side by side, and curves in one frame. What the examples draw with."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from .figures import fonts_for, new_figure, save_figure, text_width

POINTS = 8  # size of labels and of the numbers in cells
LARGE = 0.2  # inches: cells of this size have borders


@dataclass(frozen=True)
class Panel:
    """A matrix to draw.

    Attributes:
        title: What it shows; may have several lines.
        matrix: (rows, columns), a NumPy array, a CPU tensor, or lists.
        rows: Labels, one a row, or none.
        columns: Labels, one a column, or none.
        row_name: What the rows are.
        column_name: What the columns are.
    """

    title: str
    matrix: Sequence
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    row_name: str = ""
    column_name: str = ""


def plot_matrices(
    panels: Sequence[Panel],
    path: str | os.PathLike | None = None,
    columns: int = 4,
    cell: float = 0.42,
    numbers: bool = False,
    bar: str = "",
) -> Figure:
    """Draw matrices side by side: dark is low, bright is high; where there are negative numbers, blue and red.

    Args:
        panels: At least one.
        path: Where to write the picture (.png, .pdf, .svg); nothing is written when None.
        columns: Panels in a line.
        cell: Side of a matrix's cell, in inches.
        numbers: Write each number into its cell.
        bar: What the colours mean: draws a colour bar with this name beside each panel.
    """
    matrices = [np.asarray(panel.matrix, dtype=float) for panel in panels]
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    texts = "".join("".join([panel.title, *panel.rows, *panel.columns]) for panel in panels)
    letter = 0.6 * POINTS / 72  # inches
    side = max([text_width(label) for panel in panels for label in panel.rows], default=0) * letter
    below = max([text_width(label) for panel in panels for label in panel.columns], default=0) * letter
    widest = max(
        max(matrix.shape[1] * cell, 0.55 * 0.15 * _longest_line(p.title)) for matrix, p in zip(matrices, panels)
    )
    width = columns * (widest + side + 0.5 + 0.9 * bool(bar))
    height = lines * (max(len(matrix) * cell for matrix in matrices) + below + 0.8)
    with rc_context({"font.family": fonts_for(texts)}):
        figure = new_figure(width, height)
        all_axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in all_axes[len(panels) :]:
            axes.set_axis_off()
        for axes, panel, matrix in zip(all_axes, panels, matrices):
            _draw_panel(figure, axes, panel, matrix, numbers, bar)
            if max(map(text_width, panel.columns), default=0) * letter > cell:
                axes.tick_params(axis="x", rotation=90)
            if cell >= LARGE:
                _draw_cell_borders(axes, matrix)
        if path is not None:
            save_figure(figure, path)
    return figure


def plot_lines(
    curves: dict[str, tuple[Sequence[float], Sequence[float]]],
    path: str | os.PathLike | None = None,
    x_name: str = "",
    y_name: str = "",
    title: str = "",
) -> Figure:
    """Draw curves in one frame.

    Args:
        curves: Name -> (x values, y values).
        path: As in `plot_matrices`.
        x_name: What the x axis is.
        y_name: What the y axis is.
        title: What the picture shows.
    """
    with rc_context({"font.family": fonts_for("".join([*curves, x_name, y_name, title]))}):
        figure = new_figure(6.5, 3.6)
        axes = figure.add_subplot()
        for (name, (x, y)), dashes in zip(curves.items(), ["-", "--", "-.", ":"] * len(curves)):
            axes.plot(x, y, dashes, label=name)
        axes.set(xlabel=x_name, ylabel=y_name, title=title)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=POINTS)
        if path is not None:
            save_figure(figure, path)
    return figure


def _draw_panel(figure: Figure, axes, panel: Panel, matrix: np.ndarray, numbers: bool, bar: str) -> None:
    finite = matrix[np.isfinite(matrix)]
    signed = finite.size and finite.min() < 0
    largest = max(abs(finite).max(), 1e-9) if finite.size else 1.0
    colours = (
        {"cmap": "RdBu_r", "norm": TwoSlopeNorm(0, -largest, largest)} if signed else {"cmap": "viridis", "vmin": 0}
    )
    image = axes.imshow(matrix, aspect="auto", interpolation="nearest", **colours)
    axes.set_facecolor("lightgray")  # what a cell of -inf shows
    axes.set_title(panel.title, fontsize=POINTS + 1)
    axes.set_ylabel(panel.row_name, fontsize=POINTS)
    axes.set_xlabel(panel.column_name, fontsize=POINTS)
    axes.tick_params(labelsize=POINTS, length=2)
    for axis, labels in ((axes.xaxis, panel.columns), (axes.yaxis, panel.rows)):
        if labels:
            axis.set_ticks(range(len(labels)), labels=labels, parse_math=False)
    if numbers:
        for (i, j), value in np.ndenumerate(matrix):
            red, green, blue, _ = image.cmap(image.norm(value)) if np.isfinite(value) else (1, 1, 1, 1)
            ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
            text = f"{value:.2f}" if np.isfinite(value) else "−∞"
            axes.text(j, i, text, ha="center", va="center", fontsize=POINTS - 1, color=ink)
    if bar:
        figure.colorbar(image, ax=axes, label=bar)


def _draw_cell_borders(axes, matrix: np.ndarray) -> None:
    rows, columns = matrix.shape
    axes.hlines(np.arange(rows + 1) - 0.5, -0.5, columns - 0.5, colors="white", linewidth=0.8)
    axes.vlines(np.arange(columns + 1) - 0.5, -0.5, rows - 0.5, colors="white", linewidth=0.8)


def _longest_line(text: str) -> int:
    return max(map(text_width, text.splitlines() or [""]))
