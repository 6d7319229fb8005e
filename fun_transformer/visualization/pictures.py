"""Pictures of numbers: matrices side by side, and curves in one frame. What the examples draw with."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from .figures import (
    COLOURS,
    INK,
    LINE,
    PAPER,
    SIGNED,
    SMALL,
    WEIGHTS,
    WIDTH,
    drawing,
    label_columns,
    name_axes,
    new_figure,
    save_figure,
    text_width,
)

LARGE = 0.2  # inches: cells of this size have borders
YES, NO = "#0a6fab", "#dde1e6"  # cells of True and of False, which are the same on dark pages


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

    def heading(self) -> str:
        """Return the title, and below it what rows and columns are."""
        names = [f"{arrow} {name}" for arrow, name in (("↓", self.row_name), ("→", self.column_name)) if name]
        return "\n".join(filter(None, [self.title, "   ".join(names)]))


def plot_matrices(
    panels: Sequence[Panel | None],
    path: str | os.PathLike | None = None,
    columns: int = 4,
    cell: float = 0.42,
    numbers: bool = False,
    bar: str | tuple[str, str] = "",
) -> Figure:
    """Draw matrices side by side: dark is low, bright is high; where there are negative numbers, blue and orange.

    Args:
        panels: At least one; None leaves a place empty.
        path: Where to write the picture (.png, .pdf, .svg); nothing is written when None.
        columns: Panels in a line.
        cell: Side of a matrix's cell, in inches.
        numbers: Write each number into its cell.
        bar: What the colours mean. A name draws a colour bar beside each panel; for matrices of True and False two
            names, of True and of False, draw a legend below all.
    """
    there = [panel for panel in panels if panel is not None]
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    names = () if not bar else (bar,) if isinstance(bar, str) else bar
    labels = [text for panel in there for text in (panel.heading(), *panel.rows, *panel.columns)]
    width, height = _size_of_panels(there, cell)
    width = columns * (width + 0.6 * (len(names) == 1))
    height = lines * height + 0.35 * (len(names) == 2)
    with drawing("".join([*labels, *names])):
        figure = new_figure(width, height)
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, panel in zip_longest(grid, panels):
            if panel is None:
                axes.set_axis_off()
                continue
            image = _draw_panel(axes, panel, cell, numbers)
            if len(names) == 1:
                figure.colorbar(image, ax=axes).ax.set_title(names[0], fontsize=SMALL)
        if len(names) == 2:
            keys = [Patch(color=colour, label=name) for colour, name in zip((YES, NO), names)]
            figure.legend(handles=keys, loc="outside lower left", ncols=2)
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
    with drawing("".join([*curves, x_name, y_name, title])):
        figure = new_figure(WIDTH - 1.4, 3.6)
        axes = figure.add_subplot()
        for (name, (x, y)), dashes in zip(curves.items(), ["-", "--", "-.", ":"] * len(curves)):
            axes.plot(x, y, dashes, label=name)
        name_axes(axes, x_name, y_name, title)
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.grid()
        axes.legend()
        if path is not None:
            save_figure(figure, path)
    return figure


def plot_pieces(
    rows: Sequence[tuple[str, Sequence[str]]], path: str | os.PathLike | None = None, title: str = ""
) -> Figure:
    """Draw how a text is cut: a line of boxes for each step.

    Args:
        rows: What was done, such as "e + s", and the pieces after it.
        path: As in `plot_matrices`.
        title: What the picture shows.
    """
    letter = 0.105  # inches for a half-width
    side = max(text_width(name) for name, _ in rows) * letter + 0.3
    widths = [[text_width(piece) * letter + 0.16 for piece in pieces] for _, pieces in rows]
    width, step = side + max(sum(row) + 0.08 * len(row) for row in widths) + 0.1, 0.36
    with drawing("".join([title, *(name + "".join(pieces) for name, pieces in rows)])):
        figure = new_figure(max(width, 0.1 * text_width(title)), step * len(rows) + 0.45)
        axes = figure.add_subplot()
        axes.set(xlim=(0, figure.get_figwidth()), ylim=(step * len(rows), 0))
        axes.set_axis_off()
        axes.set_title(title)
        before: list[str] = []
        for number, ((name, pieces), boxes) in enumerate(zip(rows, widths)):
            y, x = step * (number + 0.5), side
            axes.text(0.05, y, name, va="center", fontsize=SMALL, parse_math=False)
            for piece, box in zip(pieces, boxes):
                is_new = bool(name) and piece not in before
                axes.add_patch(
                    Rectangle((x, y - 0.13), box, 0.26, facecolor=COLOURS[0] if is_new else LINE, edgecolor="none")
                )
                ink = PAPER if is_new else INK
                axes.text(x + box / 2, y, piece, ha="center", va="center", color=ink, parse_math=False)
                x += box + 0.08
            before = list(pieces)
        if path is not None:
            save_figure(figure, path)
    return figure


def _size_of_panels(panels: Sequence[Panel], cell: float) -> tuple[float, float]:
    """Return width and height in inches in which each panel has room for its cells, labels and heading."""
    letter = 0.6 * SMALL / 72  # inches
    side, above = (
        max([text_width(label) for panel in panels for label in getattr(panel, name)], default=0) * letter
        for name in ("rows", "columns")
    )
    heights, widths = zip(*(np.shape(panel.matrix) for panel in panels))
    lines = [line for panel in panels for line in panel.heading().splitlines()]
    wide = max(max(widths) * cell, max(map(text_width, lines), default=0) * letter * 0.95)
    heading = 0.17 * max(panel.heading().count("\n") + 1 for panel in panels)
    return side + wide + 0.2, above + max(heights) * cell + heading + 0.2


def _draw_panel(axes: Axes, panel: Panel, cell: float, numbers: bool):
    """Draw a matrix with its heading and labels; return the image."""
    matrix = np.asarray(panel.matrix)
    if matrix.dtype == bool:
        image = axes.imshow(matrix, aspect="auto", cmap=ListedColormap([NO, YES]), vmin=0, vmax=1)
    else:
        matrix = matrix.astype(float)
        finite = matrix[np.isfinite(matrix)]
        largest = max(abs(finite).max(), 1e-9) if finite.size else 1.0
        if finite.size and finite.min() < 0:
            image = axes.imshow(matrix, aspect="auto", cmap=SIGNED, norm=TwoSlopeNorm(0, -largest, largest))
        else:
            image = axes.imshow(matrix, aspect="auto", cmap=WEIGHTS, vmin=0)
    axes.set_facecolor(NO)  # what a cell of -inf shows
    axes.set_title(panel.heading(), fontsize=SMALL)
    axes.tick_params(labelsize=SMALL, length=2)
    axes.spines[["top", "right"]].set_visible(True)
    if panel.rows:
        axes.set_yticks(range(len(panel.rows)), labels=panel.rows, parse_math=False)
    if panel.columns:
        label_columns(axes, panel.columns, cell, SMALL)
    if numbers:
        _write_numbers(axes, image, matrix)
        for axis, labels in ((axes.xaxis, panel.columns), (axes.yaxis, panel.rows)):
            if not labels:
                axis.set_ticks([])
    if cell >= LARGE:
        _draw_cell_borders(axes, matrix)
    return image


def _write_numbers(axes: Axes, image, matrix: np.ndarray) -> None:
    """Write each number into its cell, in black or white, with as many of two digits as the matrix has."""
    finite = matrix[np.isfinite(matrix)]
    digits = next((digits for digits in (0, 1) if np.allclose(finite, finite.round(digits), atol=1e-9)), 2)
    for (i, j), value in np.ndenumerate(matrix):
        red, green, blue, _ = image.cmap(image.norm(value)) if np.isfinite(value) else (1, 1, 1, 1)
        ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
        text = f"{value:.{digits}f}" if np.isfinite(value) else "−∞"
        axes.text(j, i, text, ha="center", va="center", fontsize=SMALL, color=ink)


def _draw_cell_borders(axes: Axes, matrix: np.ndarray) -> None:
    rows, columns = matrix.shape
    axes.hlines(np.arange(rows + 1) - 0.5, -0.5, columns - 0.5, colors=PAPER, linewidth=0.8)
    axes.vlines(np.arange(columns + 1) - 0.5, -0.5, rows - 0.5, colors=PAPER, linewidth=0.8)
