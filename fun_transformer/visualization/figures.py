"""Figures that leave no trace: no window, no pyplot, no changed defaults; Chinese is rendered; files appear whole."""

import importlib.util
import os
import re
import warnings
from pathlib import Path

from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..files import whole_file

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
        figure.savefig(partial, format=suffix, dpi=150)


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
