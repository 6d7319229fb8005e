r"""Formulas from a random grammar, and their pictures as matplotlib draws them: what `builtin:formulas` is made of.

A formula is LaTeX whose parts have spaces between them, "\frac { a } { 2 }", so that a part is a token.
"""

import functools
import io
import random
import re

import numpy as np

HEIGHT = 64  # pixels of a picture
MARGIN = 4  # pixels at its left and right
DPI = 140
SIZE = 11  # points
# No two that look alike: no o, l, u, v, and no alpha beside an a.
SYMBOLS = tuple("abcdkmnpxyz") + tuple("123456789") + (r"\beta", r"\lambda", r"\pi")
OPERATORS = ("+", "-", "=", "<")
KINDS = ("symbol", "power", "index", "fraction", "root")
OUTER, INNER = (4, 2, 1, 2, 1), (8, 2, 1, 1, 1)  # how frequent they are, and inside others
DEEPEST = 2  # fractions in fractions, and so on
MOST_TERMS = 3


def random_formula(rng: random.Random) -> str:
    """Return a formula of one to three terms."""
    return " ".join(sum_of_terms(rng, 0))


def sum_of_terms(rng: random.Random, depth: int) -> list[str]:
    """Return the parts of a sum; the deeper, the shorter it is."""
    parts = term(rng, depth)
    for _ in range(rng.randint(0, max(0, MOST_TERMS - 1 - depth))):
        parts += [rng.choice(OPERATORS if depth == 0 else OPERATORS[:2]), *term(rng, depth)]
    return parts


def term(rng: random.Random, depth: int) -> list[str]:
    """Return the parts of a symbol, alone or with others around it."""
    kind = rng.choices(KINDS, OUTER if depth == 0 else INNER)[0]
    symbol = rng.choice(SYMBOLS)
    if kind == "symbol" or depth >= DEEPEST:
        return [symbol]
    if kind in ("power", "index"):
        return [symbol, "^" if kind == "power" else "_", "{", rng.choice(SYMBOLS), "}"]
    inner = sum_of_terms(rng, depth + 1)
    if kind == "root":
        return [r"\sqrt", "{", *inner, "}"]
    return [r"\frac", "{", *inner, "}", "{", *sum_of_terms(rng, depth + 1), "}"]


def compact(formula: str) -> str:
    """Return a formula without the spaces around braces, which would part an exponent from its base."""
    return re.sub(r" ?([\^_{}]) ?", r"\1", formula)


@functools.lru_cache(maxsize=4096)
def draw_formula(formula: str) -> bytes | None:
    """Draw a formula in black on white, `HEIGHT` pixels high and at least as wide, as a PNG file.

    Returns:
        The same bytes for all formulas that look the same; None where it cannot be drawn, or is higher.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.font_manager import FontProperties
        from matplotlib.mathtext import MathTextParser
        from PIL import Image
    except ImportError as error:
        raise ImportError("Formulas are drawn by matplotlib: pip install 'fun-transformer[viz]'") from error
    try:
        drawn = MathTextParser("agg").parse(f"${compact(formula)}$", DPI, FontProperties(size=SIZE))
    except (ValueError, RuntimeError):  # no LaTeX, or none that mathtext knows
        return None
    ink = np.asarray(drawn.image)  # (height, width), 255 where it is black
    if not ink.size or ink.shape[0] > HEIGHT:
        return None
    top = (HEIGHT - ink.shape[0]) // 2
    paper = np.full((HEIGHT, max(HEIGHT, ink.shape[1] + 2 * MARGIN)), 255, np.uint8)
    paper[top : top + ink.shape[0], MARGIN : MARGIN + ink.shape[1]] -= ink
    file = io.BytesIO()
    Image.fromarray(paper).save(file, "png")
    return file.getvalue()
