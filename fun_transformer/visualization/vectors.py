"""A map of words: the two directions in which their vectors differ most (PCA; Pearson 1901)."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .figures import COLOURS, SIZE, WIDTH, drawing, name_axes, new_figure, save_figure, text_width

Box = tuple[float, float, float, float]  # left, bottom, right, top
SIDES = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]  # right, up: where a word may be


def plot_word_vectors(
    words: Sequence[str], vectors: np.ndarray, picture_path: str | os.PathLike, groups: Sequence[str] | None = None
) -> Figure:
    """Draw words where the first two principal components of their vectors put them.

    Args:
        words: The words of the map, Chinese too.
        vectors: (words, dimension), such as `keyed_vectors[words]`, or rows of a model's embedding.
        picture_path: Where to write the picture (.png, .pdf, .svg).
        groups: Of each word, for its colour.

    Raises:
        ValueError: Fewer than three words, or not one vector and one group for each.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if len(words) < 3 or vectors.ndim != 2 or len(vectors) != len(words) or vectors.shape[1] < 2:
        raise ValueError(f"A map needs three words or more and a vector for each, got {len(words)}, {vectors.shape}.")
    if groups is not None and len(groups) != len(words):
        raise ValueError(f"{len(words)} words and {len(groups)} groups: give one for each word.")
    centred = vectors - vectors.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    places = left[:, :2] * sizes[:2]  # (words, 2)
    share = sizes[:2] ** 2 / (sizes**2).sum()
    with drawing("".join([*words, *(groups or [])])):
        figure = new_figure(WIDTH - 1, 6)
        axes = figure.subplots()
        names = list(dict.fromkeys(groups or [""] * len(words)))
        for name, colour, marker in zip(names, COLOURS * len(names), "osD^vP*" * len(names)):
            chosen = [place for place in range(len(words)) if groups is None or groups[place] == name]
            axes.scatter(places[chosen, 0], places[chosen, 1], s=22, color=colour, marker=marker, label=name or None)
        axes.margins(0.08)
        name_axes(
            axes,
            f"first component ({share[0]:.0%} of the variance) →",
            f"second component ({share[1]:.0%} of the variance)",
        )
        if groups is not None:
            figure.legend(loc="outside upper left", ncols=3)
        figure.draw_without_rendering()  # so that the places on the paper are known
        _write_words(axes, words, places)
        save_figure(figure, picture_path)
    return figure


def _write_words(axes: Axes, words: Sequence[str], places: np.ndarray) -> None:
    """Write each word on that side of its point where it covers least of the points and words before it."""
    points = axes.transData.transform(places) * 72 / axes.figure.dpi  # on the paper, in points
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in points]
    for word, (x, y), place in zip(words, points, places):
        width = 0.6 * SIZE * text_width(word)
        choices = []
        for right, up in SIDES:
            left, bottom = x + 5 * right - width * (1 - right) / 2, y + 5 * up - SIZE * (1 - up) / 2
            box = (left, bottom, left + width, bottom + SIZE)
            choices.append((sum(_common_area(box, other) for other in taken), (left, bottom), box))
        _, (left, bottom), box = min(choices, key=lambda choice: choice[0])
        taken.append(box)
        axes.annotate(word, place, (left - x, bottom - y), textcoords="offset points", va="bottom", parse_math=False)


def _common_area(box: Box, other: Box) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(width, 0.0) * max(height, 0.0)
