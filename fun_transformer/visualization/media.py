"""What a model listens to or looks at: the attention of each token over a spectrogram, or over a picture."""

import os

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from .figures import COLOURS, SMALL, WEIGHTS, WIDTH, drawing, name_axes, new_figure, save_figure

PICTURES_WIDE = 12  # squares beside each other


def plot_speech_attention(
    features: np.ndarray,
    weights: np.ndarray,
    tokens: list[str],
    path: str | os.PathLike | None = None,
    seconds_per_frame: float = 0.01,
) -> Figure:
    """Draw a spectrogram, and below it which part of it each token looks at.

    Args:
        features: (frames, num_mel_bins).
        weights: (target_len, source_len) Of one layer, a head or the mean of all.
        tokens: (target_len,) The tokens that look.
        path: Where to write the picture (.png, .pdf, .svg); nothing is written when None.
        seconds_per_frame: From one frame to the next.
    """
    seconds = len(features) * seconds_per_frame
    with drawing("".join(tokens)):
        figure = new_figure(WIDTH, 2.6 + 0.25 * len(tokens))
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, max(1.0, 0.25 * len(tokens))])
        bins = features.shape[1]
        above.imshow(features.T, aspect="auto", origin="lower", extent=(0, seconds, 0, bins), cmap="magma")
        name_axes(above, y="mel bin")
        image = below.imshow(weights, aspect="auto", extent=(0, seconds, len(tokens), 0), cmap=WEIGHTS)
        below.set_yticks(np.arange(len(tokens)) + 0.5, labels=tokens, parse_math=False)
        name_axes(below, "seconds", title="where each token looks")
        figure.colorbar(image, ax=below).ax.set_title("weight", fontsize=SMALL)
        if path is not None:
            save_figure(figure, path)
    return figure


def plot_picture_attention(
    picture: np.ndarray, weights: np.ndarray, tokens: list[str], path: str | os.PathLike | None = None
) -> Figure:
    """Draw a picture once for each token, and on it where the token looks.

    Args:
        picture: (height, width), black = 0.
        weights: (target_len, rows, columns) Of one layer, a head or the mean of all; rows are from top to bottom.
        tokens: (target_len,) The tokens that look.
        path: Where to write the picture (.png, .pdf, .svg); nothing is written when None.
    """
    height, width = picture.shape
    across = min(len(tokens), max(1, round(PICTURES_WIDE * height / width)))
    down = -(-len(tokens) // across)
    cell = WIDTH / across  # inches
    with drawing("".join(tokens)):
        figure = new_figure(WIDTH, down * (cell * height / width + 0.35))
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, token, places in zip(axes, tokens, weights, strict=False):
            axis.imshow(picture, cmap="gray", extent=(0, width, height, 0))
            seen = 0.8 * places / max(places.max(), 1e-9)  # what is not looked at stays paper
            look = np.ones_like(places)
            axis.imshow(look, cmap=ListedColormap(COLOURS[4]), alpha=seen, extent=(0, width, height, 0))
            axis.set_title(token, loc="center", pad=3, parse_math=False)
        if path is not None:
            save_figure(figure, path)
    return figure
