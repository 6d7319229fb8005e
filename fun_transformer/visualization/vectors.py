"""A map of words: the two directions in which their vectors differ most (PCA; Pearson 1901)."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from .figures import fonts_for, new_figure, save_figure


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
    with rc_context({"font.family": fonts_for("".join([*words, *(groups or [])]))}):
        figure = new_figure(7, 6)
        axes = figure.subplots()
        for group in dict.fromkeys(groups or [""] * len(words)):
            chosen = [place for place in range(len(words)) if groups is None or groups[place] == group]
            axes.scatter(places[chosen, 0], places[chosen, 1], s=18, label=group or None)
        for word, place in zip(words, places):
            axes.annotate(word, place, xytext=(3, 3), textcoords="offset points", fontsize="small")
        axes.margins(0.12)
        axes.set_xlabel(f"first component ({share[0]:.0%} of the variance)")
        axes.set_ylabel(f"second component ({share[1]:.0%})")
        if groups is not None:
            axes.legend()
        save_figure(figure, picture_path)
    return figure
