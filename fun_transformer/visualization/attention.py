"""Attention weights as pictures: one layer, or all layers and heads as small multiples."""

import math
import os
import textwrap

import numpy as np
from matplotlib.figure import Figure

from ..analysis.attention import AttentionMap, Kind, View
from .figures import SMALL, WEIGHTS, drawing, label_columns, new_figure, save_figure, text_width

MAX_INCHES = 14  # a side of the matrix: more tokens than fit become smaller cells
MAX_INCHES_OF_ALL = 20  # a side of all matrices of all layers and heads together


def plot_attention(
    attention_map: AttentionMap,
    path: str | os.PathLike | None = None,
    layer: int | None = None,
    head: int | None = None,
    kind: Kind = "cross",
) -> Figure:
    """Draw one layer of an attention map: what is looked at on the x axis, what looks on the y axis.

    Args:
        attention_map: What `fun_transformer.analysis.cross_attention` returned.
        path: Where to write the picture (.png, .pdf, .svg); nothing is written when None.
        layer: Counted from 0, the last one when None.
        head: Counted from 0, the mean over all heads when None.
        kind: "cross" (target looks at source), or the self-attention of the "encoder" or the "decoder".

    Raises:
        ValueError: There is no such layer, head or kind.
    """
    view = attention_map.view(kind)
    place, head = view.find_layer(layer), view.find_head(head)
    if head is None:
        count = view.weights.shape[1]
        weights, name = view.weights[place].mean(dim=0), f"mean of {count} heads" if count > 1 else "its only head"
    else:
        weights, name = view.weights[place, head], f"head {head}"
    with drawing("".join([*view.texts, *view.queries, *view.keys])):
        figure = _draw_matrix(view, weights.numpy(), f"weights of layer {view.layers[place]}, {name}")
        if path is not None:
            save_figure(figure, path)
    return figure


def plot_attention_heads(
    attention_map: AttentionMap, path: str | os.PathLike | None = None, kind: Kind = "cross"
) -> Figure:
    """Draw all layers and heads of an attention map as small multiples: a row a layer, a column a head.

    Args:
        attention_map: What `fun_transformer.analysis.cross_attention` returned.
        path: Where to write the picture (.png, .pdf, .svg); nothing is written when None.
        kind: As in `plot_attention`.

    Raises:
        ValueError: There is no such kind.
    """
    view = attention_map.view(kind)
    layers, heads, query_len, key_len = view.weights.shape
    points = 7
    cell = 1.15 * points / 72  # inches: every token can have a label
    cell = min(cell, MAX_INCHES_OF_ALL / (heads * key_len), MAX_INCHES_OF_ALL / (layers * query_len))
    step = math.ceil(1.15 * points / 72 / cell)
    x_labels, y_labels = (max(map(text_width, tokens)) * 0.6 * points / 72 for tokens in (view.keys, view.queries))
    panel_width, panel_height = max(0.9, key_len * cell), max(0.9, query_len * cell)
    width, height = heads * (panel_width + 0.1) + y_labels + 1.4, layers * (panel_height + 0.1) + x_labels + 1.2
    with drawing("".join([*view.texts, *view.queries, *view.keys])):
        figure = new_figure(width, height)
        panels = figure.subplots(layers, heads, sharey=True, squeeze=False)
        image = _draw_panels(view, panels, points, step)
        title = _wrap_title(view.texts, columns=int(width / 0.085))
        figure.suptitle(f"{title}\n↓ {view.query_name}   → {view.key_name}", fontsize=SMALL, parse_math=False)
        bar = figure.colorbar(image, ax=panels, fraction=0.3 / width, pad=0.1 / width, aspect=30)
        bar.ax.set_title("weight", fontsize=SMALL)
        if path is not None:
            save_figure(figure, path)
    return figure


def _draw_panels(view: View, panels: np.ndarray, points: int, step: int):
    """Draw every head into its panel (layers, heads), with each `step`-th token as a label; return the last image."""
    for layer, row in enumerate(panels):
        for head, axes in enumerate(row):
            weights = view.weights[layer, head].numpy()
            image = axes.imshow(weights, cmap=WEIGHTS, vmin=0, vmax=1, aspect="auto")
            label_columns(axes, view.keys, 0, points, step)
            axes.tick_params(length=1, pad=1, labelsize=points, labeltop=layer == 0)
        row[0].set_ylabel(f"layer {view.layers[layer]}", fontsize=SMALL, rotation=0, ha="right", va="center")
    for head, axes in enumerate(panels[-1]):
        axes.set_xlabel(f"head {head}", fontsize=SMALL)
    panels[0][0].set_yticks(range(0, len(view.queries), step), labels=view.queries[::step], parse_math=False)
    return image


def _draw_matrix(view: View, weights: np.ndarray, legend: str) -> Figure:
    """Draw weights (query_len, key_len) in cells that are as large as the number of tokens allows."""
    query_len, key_len = weights.shape
    cell = min(0.45, MAX_INCHES / max(key_len, query_len))  # inches
    points = min(11.0, max(5.0, 0.6 * 72 * cell))
    step = math.ceil(points / (72 * cell))  # cells smaller than a letter: label every second, third, ...
    letter = 0.6 * points / 72  # inches
    x_labels, y_labels = (max(map(text_width, tokens)) * letter for tokens in (view.keys, view.queries))

    matrix_width, matrix_height = max(2.0, key_len * cell), max(2.0, query_len * cell)
    width = matrix_width + y_labels + 1.2
    title = _wrap_title(view.texts, columns=int(width / 0.085))
    height = matrix_height + (0.2 if x_labels <= cell else x_labels) + 1.2 + 0.2 * title.count("\n")

    figure = new_figure(width, height)
    axes = figure.add_subplot()
    image = axes.imshow(weights, cmap=WEIGHTS, vmin=0, aspect="auto")
    label_columns(axes, view.keys, cell, points, step)
    axes.set_yticks(range(0, query_len, step), labels=view.queries[::step], fontsize=points, parse_math=False)
    axes.tick_params(length=2)
    axes.set_title(f"↓ {view.query_name}   → {view.key_name}", fontsize=SMALL)
    axes.set_xlabel(legend, fontsize=SMALL)
    figure.suptitle(title, parse_math=False)
    bar = 0.15  # inches
    figure.colorbar(image, ax=axes, fraction=2 * bar / width, pad=bar / width, aspect=matrix_height / bar)
    return figure


def _wrap_title(texts: tuple[str, ...], columns: int) -> str:
    """Put each text on lines of its own, at most three lines each."""
    lines = []
    for text in (texts[0], *("→ " + text for text in texts[1:])):
        wide = max(1, text_width(text) / max(1, len(text)))
        lines += textwrap.wrap(text, int(columns / wide), max_lines=3, placeholder=" …")
    return "\n".join(lines)
