"""An evaluation as one HTML page: scores, breakdowns and the worst rows side by side.

The page loads nothing and runs no script. Every text of the data is escaped.
"""

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from ..files import whole_file
from ..visualization.html import language_of
from .breakdown import Breakdown
from .data import EvaluationData
from .pictures import draw_attention, draw_bars
from .significance import Comparison, comparison_table
from .systems import System

TEMPLATE = Path(__file__).with_name("report.html")
WORST = 20
# What is compared: a character of a script without spaces, a word, spaces, another sign.
PIECE = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff]|[^\W\u2e80-\u9fff\uf900-\ufaff]+|\s+|.", re.DOTALL)


@dataclass
class Report:
    """What a page shows.

    Attributes:
        data: The rows.
        systems: What answered; the worst rows are those of the first.
        scores: By system and metric.
        signatures: By metric.
        row_scores: By system, chrF of each row (rows,).
        comparisons: With the other systems.
        breakdowns: Of the scores.
    """

    data: EvaluationData
    systems: list[System]
    scores: dict[str, dict[str, float]]
    signatures: dict[str, str]
    row_scores: dict[str, list[float]]
    comparisons: list[Comparison] = field(default_factory=list)
    breakdowns: list[Breakdown] = field(default_factory=list)


def write_report(report: Report, path: str | os.PathLike) -> None:
    """Write the page.

    Raises:
        FileNotFoundError: The folder is not there.
    """
    names = [system.name for system in report.systems]
    keys = [f'<span class="key system{i % 6}"></span>{escape(name)}' for i, name in enumerate(names)]
    keys.append("<del>only in the reference</del> <ins>only in the output</ins>")
    sections = [score_section(report), *map(breakdown_section, report.breakdowns), worst_section(report)]
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{' and '.join(names)} on {report.data.name}"),
        rows=f"{len(report.data):,}",
        legend=" ".join(keys),
        sections="\n".join(sections),
    )
    with whole_file(path) as partial:
        partial.write_text(page, encoding="utf-8")


def html_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table; numbers have two digits."""
    cells = [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def score_section(report: Report) -> str:
    """Return the scores of all systems, what sacreBLEU says of them, and the tests."""
    metrics = list(next(iter(report.scores.values())))
    parts = [
        "<section><h2>Scores</h2>",
        html_table(["", *metrics], [[name, *found.values()] for name, found in report.scores.items()]),
        *(f"<p>{escape(name)} <code>{escape(signature)}</code></p>" for name, signature in report.signatures.items()),
    ]
    if report.comparisons:
        parts += [
            "<h2>Differences to the first system</h2>",
            "<p>Scores with their 95 % interval, and p values of sacreBLEU's paired tests.</p>",
            html_table(*comparison_table(report.comparisons)),
        ]
    return "".join([*parts, "</section>"])


def breakdown_section(breakdown: Breakdown) -> str:
    """Return a chart of the first metric (F of words), and all scores as a table."""
    return (
        f"<section><h2>{escape(breakdown.title)}</h2><p>{escape(breakdown.note[:1].upper() + breakdown.note[1:])} The "
        f"bars: {escape(breakdown.charted)}.</p>{draw_bars(breakdown, breakdown.charted)}"
        f"{html_table(*breakdown.table())}</section>"
    )


def worst_section(report: Report) -> str:
    """Return the rows whose output by the first system has the lowest chrF."""
    scores = report.row_scores[report.systems[0].name]
    worst = sorted(range(len(scores)), key=lambda row: scores[row])[:WORST]
    rows = "".join(show_row(report, row) for row in worst)
    name = escape(report.systems[0].name)
    return f"<section><h2>The {len(worst)} rows with the lowest chrF of {name}</h2>{rows}</section>"


def show_row(report: Report, row: int) -> str:
    """Return a row: source, references, each system's output with what differs, and the attention of models."""
    data, entries = report.data, []
    source = data.sources[row] if data.sources else ""
    if source:
        entries.append(entry("source", spanned(source)))
    entries += [entry("reference", spanned(text)) for text in data.references[row]]
    pictures = []
    for system in report.systems:
        output, score = system.outputs[row], report.row_scores[system.name][row]
        nearest = max(data.references[row], key=lambda text: difflib.SequenceMatcher(None, text, output).ratio())
        entries.append(entry(f"{system.name} ({score:.1f})", show_differences(nearest, output)))
        if source and (found := system.attention(source, output)):
            pictures.append(
                f"<details><summary>attention of {escape(system.name)}</summary>{draw_attention(found)}</details>"
            )
    group = f", {escape(data.groups[row])}" if data.groups else ""
    return f"<article><h3>Row {row + 1}{group}</h3><dl>{''.join(entries)}</dl>{''.join(pictures)}</article>"


def entry(name: str, content: str) -> str:
    """Return a name and what belongs to it, which is HTML."""
    return f"<dt>{escape(name)}</dt><dd>{content}</dd>"


def spanned(text: str) -> str:
    """Return an escaped text that names its language, where its letters tell it."""
    language = language_of(text)
    return f'<span lang="{language}">{escape(text)}</span>' if language else f"<span>{escape(text)}</span>"


def show_differences(reference: str, output: str) -> str:
    """Return an output with the words that only one of both texts has marked, as HTML."""
    if not output:
        return "<del>" + escape(reference) + "</del>"
    left, right = PIECE.findall(reference), PIECE.findall(output)
    parts = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        gone, new = escape("".join(left[i:j])), escape("".join(right[k:m]))
        if kind == "equal":
            parts.append(new)
        else:
            parts += [f"<del>{gone}</del>" * bool(gone), f"<ins>{new}</ins>" * bool(new)]
    language = language_of(output)
    return f'<span lang="{language}">{"".join(parts)}</span>' if language else f"<span>{''.join(parts)}</span>"
