"""Charts and attention as SVG elements inside a page: no library, no file, colours that follow the page's."""

from collections.abc import Sequence
from html import escape

from ..analysis.attention import AttentionMap
from .breakdown import Breakdown

BAR, GAP, LABEL, WIDTH = 14, 10, 150, 360  # pixels
CELL, LETTER = 16, 8
FAINT = 0.02  # attention below this is not drawn
LONGEST = 80  # tokens on a side of an attention picture


def text_pixels(text: str) -> int:
    """Return about how wide a text is drawn."""
    return sum(LETTER * (2 if letter > "\u2e7f" else 1) for letter in text)


def shorten(text: str, pixels: int) -> str:
    """Return a text that fits, with an ellipsis where it was cut."""
    if text_pixels(text) <= pixels:
        return text
    while text and text_pixels(text) > pixels - LETTER:
        text = text[:-1]
    return text + "…"


def draw_bars(breakdown: Breakdown, metric: str) -> str:
    """Return a chart of one metric: a group of bars for each part, a bar for each system.

    Args:
        breakdown: With the scores.
        metric: One of its metrics.
    """
    systems = list(breakdown.scores)
    values = {system: breakdown.scores[system][metric] for system in systems}
    largest = max([*(value for row in values.values() for value in row), 1e-9])
    group = BAR * len(systems) + GAP
    height = group * len(breakdown.labels) + GAP
    parts = []
    for number, (label, count) in enumerate(zip(breakdown.labels, breakdown.counts)):
        top = GAP + number * group
        middle = top + BAR * len(systems) / 2 + 4
        shown = escape(shorten(label, LABEL - 15))
        parts.append(
            f'<text x="{LABEL - 8}" y="{middle:g}" text-anchor="end">{shown}'
            f"<title>{escape(label)}: {count:,} {escape(breakdown.counted)}</title></text>"
        )
        for place, system in enumerate(systems):
            value = values[system][number]
            width, y = max(1.0, (WIDTH - 60) * max(0.0, value) / largest), top + place * BAR
            parts.append(
                f'<rect class="system{place % 6}" x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR - 2}">'
                f"<title>{escape(system)}: {value:.2f}</title></rect>"
                f'<text class="number" x="{LABEL + width + 5:.1f}" y="{y + BAR - 4}">{value:.1f}</text>'
            )
    title = escape(f"{metric}, {breakdown.title.lower()}")
    return (
        f'<svg role="img" aria-label="{title}" viewBox="0 0 {LABEL + WIDTH} {height}" width="{LABEL + WIDTH}" '
        f'height="{height}">{"".join(parts)}</svg>'
    )


def draw_attention(found: AttentionMap) -> str:
    """Return the cross-attention of the last layer, the mean over its heads: rows are target tokens."""
    weights = found.weights[-1].mean(dim=0)[:LONGEST, :LONGEST].tolist()  # (target_len, source_len)
    keys, queries = found.source_tokens[:LONGEST], found.target_tokens[:LONGEST]
    left = min(140, max(map(text_pixels, queries), default=0)) + 8
    top = min(140, max(map(text_pixels, keys), default=0)) + 8
    width, height = left + CELL * len(keys) + 2, top + CELL * len(queries) + 2
    parts = token_labels(keys, queries, left, top)
    for row, (query, values) in enumerate(zip(queries, weights)):
        for column, (key, weight) in enumerate(zip(keys, values)):
            if weight >= FAINT:
                x, y = left + column * CELL, top + row * CELL
                parts.append(
                    f'<rect class="cell" x="{x}" y="{y}" width="{CELL - 1}" height="{CELL - 1}" '
                    f'fill-opacity="{weight**0.5:.2f}"><title>{escape(query)} → {escape(key)}: {100 * weight:.0f} %'
                    "</title></rect>"
                )
    frame = f'<rect class="frame" x="{left}" y="{top}" width="{CELL * len(keys)}" height="{CELL * len(queries)}"/>'
    return (
        f'<svg role="img" aria-label="cross-attention" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}">{frame}{"".join(parts)}</svg>'
    )


def token_labels(keys: Sequence[str], queries: Sequence[str], left: int, top: int) -> list[str]:
    """Return the tokens beside the rows, and those above the columns, which are turned."""
    parts = []
    for column, token in enumerate(keys):
        x, y = left + column * CELL + 12, top - 5
        shown = escape(shorten(token, 136))
        parts.append(f'<text x="{x}" y="{y}" transform="rotate(-90 {x} {y})">{shown}</text>')
    for row, token in enumerate(queries):
        shown = escape(shorten(token, 136))
        parts.append(f'<text x="{left - 5}" y="{top + row * CELL + 12}" text-anchor="end">{shown}</text>')
    return parts
