"""Figures of one style: colours that all eyes tell apart, letters large enough, upright Chinese; no trace is left.

No window, no pyplot, no changed defaults; files appear whole. An SVG file is light or dark as its reader's system is.
"""

import importlib.util
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cycler import cycler
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from ..files import whole_file

__all__ = [
    "COLOURS",
    "INK",
    "LINE",
    "PAPER",
    "QUIET",
    "SIGNED",
    "SIZE",
    "SMALL",
    "WEIGHTS",
    "WIDTH",
    "drawing",
    "label_columns",
    "name_axes",
    "new_figure",
    "save_figure",
    "text_width",
    "theme_style",
]

WIDTH = 8.4  # inches: what a page of docs shows at full size
SIZE, SMALL = 10, 9  # points of letters; nothing is smaller
PAPER, INK, QUIET, LINE = "#fefefe", "#1f2328", "#59636e", "#d1d9e0"
# Okabe and Ito (2008), but yellow, which is too light for lines: blue, vermilion, green, purple, orange, sky, gray.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b5578f", "#e69f00", "#56b4e9", "#7d8590")
WEIGHTS = "cividis"  # of what is 0 or more: dark is low, bright is high
SIGNED = LinearSegmentedColormap.from_list("signed", ["#00497a", "#5aa5d6", "#f6f6f6", "#f0a35e", "#a84300"])
# What a dark page has instead; colours that are not here stay.
DARK = {PAPER: "#15181c", INK: "#f0f3f6", QUIET: "#a3adb8", LINE: "#434c56", COLOURS[0]: "#4aa3df"}


# Chinese, Japanese and Korean characters, their punctuation and full-width forms.
CJK = re.compile(r"[\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
CJK_FONTS = [
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "Noto Sans CJK JP",  # the name under which matplotlib sees the first face of NotoSansCJK.ttc
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "STHeiti",
    "Heiti SC",
    "Droid Sans Fallback",
    "Arial Unicode MS",
]
# matplotlib's settings while a figure is drawn and saved.
STYLE: Any = {
    "font.size": SIZE,
    "axes.titlesize": SIZE,
    "axes.labelsize": SIZE,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "text.color": INK,
    "axes.titlecolor": INK,
    "axes.labelcolor": INK,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "axes.edgecolor": QUIET,
    "grid.color": LINE,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "image.cmap": WEIGHTS,
    "image.interpolation": "nearest",
    "svg.fonttype": "path",  # Chinese letters need no font of the reader's
    "svg.hashsalt": "fun_transformer",  # the same figure is the same file
}


@contextmanager
def drawing(text: str = "") -> Iterator[None]:
    """Draw in this style within the block.

    Args:
        text: All letters of the figure: they decide whether a Chinese font is needed.
    """
    with rc_context(STYLE | {"font.family": fonts_for(text)}):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches, that arranges its parts so that no label is cut."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike) -> None:
    """Write a picture to a file, which never holds half of it.

    Raises:
        ValueError: The file name's ending is no picture format that matplotlib knows.
        FileNotFoundError: The folder is not there.
    """
    path = Path(path)
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in figure.canvas.get_supported_filetypes():
        raise ValueError(f'"{path.name}" must end in a picture format, such as .png, .pdf or .svg.')
    with whole_file(path) as partial:
        if suffix != "svg":
            figure.savefig(partial, format=suffix, dpi=150)
            return
        figure.savefig(partial, format="svg", dpi=150, metadata={"Date": None})
        drawn = partial.read_text(encoding="utf-8")
        partial.write_text(re.sub("(<svg [^>]*>)", rf"\1\n{theme_style()}", drawn, count=1), encoding="utf-8")


def theme_style() -> str:
    """Return an SVG's style element: where the reader's system is dark, colours get their dark counterparts."""
    rules = (
        f'[style*="{part}: {light}"], [{part}="{light}"] {{ {part}: {dark} !important }}'
        for light, dark in DARK.items()
        for part in ("fill", "stroke")
    )
    return f"<style>@media (prefers-color-scheme: dark) {{ {' '.join(rules)} }}</style>"


def name_axes(axes: Axes, x: str = "", y: str = "", title: str = "") -> None:
    """Name the axes of a curve: the y axis upright above it, for a name turned by 90 degrees is hard to read."""
    axes.set_title("\n".join(filter(None, [title, y and f"↑ {y}"])))
    axes.set_xlabel(x)


def label_columns(axes: Axes, labels: Sequence[str], cell: float, points: float, step: int = 1) -> None:
    """Write labels above the columns of a matrix: side by side if they fit, else Chinese upright, one below the other.

    Args:
        axes: Of the matrix.
        labels: One a column.
        cell: Width of a column in inches.
        points: Size of the letters.
        step: Every how many columns have a label.
    """
    axes.xaxis.tick_top()
    shown = labels[::step]
    fits = max(map(text_width, labels), default=0) * 0.6 * points / 72 <= 0.95 * cell * step
    written = [text if fits or not CJK.search(text) else "\n".join(text) for text in shown]
    axes.set_xticks(
        range(0, len(labels), step), labels=written, fontsize=points, parse_math=False, linespacing=1, ha="center"
    )
    for label, text in zip(axes.get_xticklabels(), shown):
        if not fits and not CJK.search(text) and text_width(text) > 2:
            label.set_rotation(90)


def fonts_for(text: str) -> list[str]:
    """Return font families for a text, in the order in which matplotlib searches them: DejaVu Sans, then a CJK font.

    A text that needs a CJK font where there is none gives a warning: its characters will be drawn as boxes.
    """
    families = ["DejaVu Sans"]  # comes with matplotlib: Latin, phonetic and mathematical signs
    if CJK.search(text):
        installed = {font.name for font in font_manager.fontManager.ttflist}
        cjk = next((name for name in CJK_FONTS if name in installed), None) or _font_of_mplfonts()
        if cjk is None:
            warnings.warn(
                "No font with Chinese characters was found: they will be boxes. Install one, such as Noto Sans CJK, "
                "or: pip install mplfonts",
                stacklevel=3,
            )
        else:
            families.append(cjk)
    return families


def text_width(text: str) -> int:
    """Return the width of a text in half-widths: a CJK character is two Latin ones wide."""
    return len(text) + len(CJK.findall(text))


def _font_of_mplfonts() -> str | None:
    """Register the font file of the package mplfonts, which is not imported: that would change the defaults."""
    package = importlib.util.find_spec("mplfonts")
    if package is None or not package.submodule_search_locations:
        return None
    path = Path(package.submodule_search_locations[0], "fonts", "NotoSansCJKsc-Regular.otf")
    if not path.is_file():
        return None
    font_manager.fontManager.addfont(path)
    return font_manager.get_font(path).family_name
