"""An attention map as one HTML page: choose a token and see where it looks. It loads nothing from the network.

The page itself, with its style and script, is `attention_page.html`; it draws with `draw.js`, which other pages use
too. That and the data are put into it here.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from ..analysis.attention import AttentionMap, Kind, View
from ..files import whole_file

TEMPLATE, DRAWING = (Path(__file__).with_name(name) for name in ("attention_page.html", "draw.js"))
NAMES = {"cross": "cross: target to source", "encoder": "encoder", "decoder": "decoder"}
# In this order: Japanese and Korean texts hold Chinese characters too.
LANGUAGES = {"ja": "[\u3040-\u30ff]", "ko": "[\uac00-\ud7a3]", "zh": "[\u2e80-\u2fdf\u3400-\u9fff\uf900-\ufaff]"}


def write_attention_page(
    attention_map: AttentionMap,
    path: str | os.PathLike,
    layer: int | None = None,
    head: int | None = None,
    kind: Kind = "cross",
) -> None:
    """Write a page on which all kinds, layers and heads can be looked at.

    Args:
        attention_map: What `fun_transformer.analysis.cross_attention` returned.
        path: Where to write the page.
        layer: Shown first, counted from 0; the last one when None.
        head: Shown first, counted from 0; the mean over all heads when None.
        kind: Shown first: "cross", or the self-attention of the "encoder" or the "decoder".

    Raises:
        ValueError: There is no such layer, head or kind.
        FileNotFoundError: The folder is not there.
    """
    view = attention_map.view(kind)
    place, head = view.find_layer(layer), view.find_head(head)
    data: dict[str, Any] = {
        "kind": kind,
        "layer": str(place),
        "head": "mean" if head is None else str(head),
        "views": {name: _view_data(name, view) for name, view in attention_map.views().items()},
    }
    if attention_map.alternatives:  # of the target's tokens
        data["views"]["cross"]["lines"][-1]["choices"] = [
            [[token, round(1000 * share)] for token, share in choices] for choices in attention_map.alternatives
        ]
    # In JSON a "<" occurs only in strings: escaped, no text can end the script element.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    page = TEMPLATE.read_text(encoding="utf-8").replace("/* draw.js */", DRAWING.read_text(encoding="utf-8"))
    page = page.replace('type="application/json">{}<', f'type="application/json">{text}<')
    with whole_file(path) as partial:
        partial.write_text(page, encoding="utf-8")


def language_of(text: str) -> str:
    """Return the language tag of a text whose letters tell it: "zh", "ja" or "ko"; else "", unknown to HTML."""
    return next((language for language, letters in LANGUAGES.items() if re.search(letters, text)), "")


def _view_data(kind: str, view: View) -> dict:
    """Return what the page's script reads: weights in thousandths, and one line of tokens, or two if they differ."""
    lines = [{"side": "key", "name": view.key_name, "lang": language_of(view.texts[0]), "tokens": view.keys}]
    if kind == "cross":
        lines += [
            {"side": "query", "name": view.query_name, "lang": language_of(view.texts[1]), "tokens": view.queries}
        ]
    else:
        lines[0]["side"] = "query"
    weights = (view.weights * 1000).round().int().tolist()
    return {"name": NAMES[kind], "lines": lines, "layers": view.layers, "weights": weights}
