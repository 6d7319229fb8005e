"""A search as a tree: what was tried at each step, what it scored, what was kept."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from .figures import COLOURS, QUIET, SMALL, WIDTH, drawing, new_figure, save_figure, text_width

ROW = 0.27  # inches from leaf to leaf
LETTERS = 9  # beside each other in a step, at least: with more steps they become smaller


@dataclass(frozen=True)
class Node:
    """A token that was tried.

    Attributes:
        token: As it is shown.
        parent: The number of the node before it among all nodes; None for the start.
        score: What is written beside it.
        state: "kept" for another step, "pruned", "ended" (a finished output), or "best" of the outputs.
    """

    token: str
    parent: int | None
    score: float
    state: str = "kept"


def plot_search_tree(nodes: Sequence[Node], path: str | os.PathLike | None = None, title: str = "") -> Figure:
    """Draw a search from left to right: what was kept is blue, what was given up gray, the best output orange.

    Args:
        nodes: The first is the start; each comes after its parent.
        path: Where to write the picture (.png, .pdf, .svg); nothing is written when None.
        title: What the picture shows.

    Raises:
        ValueError: There is no node, or a node comes before its parent.
    """
    parents = [node.parent for node in nodes]
    if not nodes or parents[0] is not None or any(p is None or not 0 <= p < i for i, p in enumerate(parents) if i):
        raise ValueError("A tree has a start, without a parent, and then each node after its parent.")
    places = _places(parents)
    best = {number for start, node in enumerate(nodes) if node.state == "best" for number in _way_back(parents, start)}
    continued = set(parents)
    depth, height = max(x for x, _ in places), max(y for _, y in places)
    inches = WIDTH / (depth + 1)  # a step
    letter = 0.62 * min(SMALL, 72 * inches / LETTERS) / 72
    with drawing("".join([title, *(node.token for node in nodes)])):
        figure = new_figure(WIDTH, ROW * (height + 1) + 0.4)
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.set_title(title)
        axes.set(xlim=(0, depth + 1), ylim=(height + 0.5, -0.5))
        for number, (node, (x, y)) in enumerate(zip(nodes, places)):
            is_dead = node.state == "pruned" or (node.state == "kept" and number not in continued)
            colour = COLOURS[1] if number in best else QUIET if is_dead else COLOURS[0]
            if node.parent is not None:
                old_x, old_y = places[node.parent]
                end = old_x + (letter * (text_width(nodes[node.parent].token) + 6.5)) / inches
                axes.plot([end, x - 0.03], [old_y, y], color=colour, linewidth=2 if number in best else 1)
            style: dict[str, Any] = {"va": "center", "fontsize": letter * 72 / 0.62, "parse_math": False}
            axes.text(x, y, node.token, color=colour, **style)
            if node.parent is not None:
                score = x + letter * (text_width(node.token) + 0.8) / inches
                axes.text(score, y, f"{node.score:.2f}", color=QUIET, **style)
        if path is not None:
            save_figure(figure, path)
    return figure


def _way_back(parents: Sequence[int | None], number: int | None) -> Iterator[int]:
    """Yield a node and all before it."""
    while number is not None:
        yield number
        number = parents[number]


def _places(parents: Sequence[int | None]) -> list[tuple[int, float]]:
    """Return (step, line) of each node: leaves have a line each, a node is in the middle of its children."""
    children: list[list[int]] = [[] for _ in parents]
    steps = [0] * len(parents)
    for number, parent in enumerate(parents):
        if parent is not None:
            children[parent].append(number)
            steps[number] = steps[parent] + 1
    lines = [0.0] * len(parents)
    leaves, stack = 0, [(0, False)]
    while stack:
        number, is_done = stack.pop()
        if not children[number]:
            lines[number], leaves = leaves, leaves + 1
        elif is_done:
            lines[number] = sum(lines[child] for child in children[number]) / len(children[number])
        else:
            stack += [(number, True), *((child, False) for child in reversed(children[number]))]
    return list(zip(steps, lines))
