"""What the runs of benchmarks.lineage say: figures read from their curves, a table, two pictures."""

import itertools
import statistics
from pathlib import Path
from typing import Any

LENGTHS = (5, 10, 15, 20, 30)  # upper ends of the buckets of source length: letters of `reverse`, words else


def at_time(points: list[dict[str, float]], seconds: float) -> float:
    """The score of a curve at a moment, on a straight line between its points; 0 at the beginning."""
    before = {"seconds": 0.0, "score": 0.0}
    for point in points:
        if point["seconds"] >= seconds:
            share = (seconds - before["seconds"]) / (point["seconds"] - before["seconds"])
            return before["score"] + share * (point["score"] - before["score"])
        before = point
    return before["score"]


def until_share(points: list[dict[str, float]], key: str, share: float = 0.9) -> float:
    """Updates or seconds (`key`) until a curve reaches a share of its best score, by straight lines between points."""
    wanted = share * max(point["score"] for point in points)
    before = {key: 0.0, "score": 0.0}
    for point in points:
        if point["score"] >= wanted:
            part = (wanted - before["score"]) / (point["score"] - before["score"]) if wanted else 0.0
            return before[key] + part * (point[key] - before[key])
        before = point
    raise AssertionError("the best point reaches it")


def is_at_plateau(run: dict[str, Any]) -> bool:
    """Whether patience ended a run, and not a limit of steps or minutes."""
    scores = [point["score"] for point in run["curve"]]
    return bool(run.get("patience")) and len(scores) - 1 - scores.index(max(scores)) >= run["patience"]


# Of a system: colour, marker. Those of one family share a panel and no colour.
FAMILIES = {"RNN": lambda name: name.startswith("RNN"), "convolution, Transformer": lambda name: name[:3] != "RNN"}
METRICS = {"exact": "exactly right (%)", "chrf": "chrF", "bleu": "BLEU"}


def draw(systems: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Quality by source length, and over time: a panel for each family, where the other's lines are gray.

    Lines are means over seeds; where there are several, bars show the lowest and the highest.
    """
    from fun_transformer.visualization.figures import WIDTH, drawing, name_axes, new_figure, save_figure

    metric = first(systems)["metric"]
    lengths = [length for length in map(str, LENGTHS) if length in first(systems)["by_length"]]
    by_length = {
        name: (list(range(len(lengths))), [[run["by_length"][length] for run in runs] for length in lengths])
        for name, runs in systems.items()
    }
    over_time = {name: best_so_far(runs) for name, runs in systems.items()}
    families = {family: list(filter(holds, systems)) for family, holds in FAMILIES.items()}
    families = {family: names for family, names in families.items() if names}
    with drawing():
        figure = new_figure(WIDTH, 7.6)
        grid = figure.subplots(2, len(families), sharey=True, sharex="row", squeeze=False)
        for (family, names), (above, below) in zip(families.items(), grid.T):
            for axes, curves in ((above, by_length), (below, over_time)):
                _draw_family(axes, curves, names)
                axes.set_ylim(bottom=0)
                axes.grid(axis="y")
            above.set_xticks(range(len(lengths)), lengths)
            score = METRICS.get(metric, metric)
            name_axes(above, "length of the source, at most (test split, at the end)", score, family)
            name_axes(below, "CPU-seconds of training (validation split, best so far)", score)
            below.legend(loc="upper left", bbox_to_anchor=(0, -0.24), ncols=2)
        save_figure(figure, path)


def _draw_family(axes, curves: dict[str, tuple[list[float], list[list[float]]]], names: list[str]) -> None:
    """Lines of the named systems over those of the others; x values and, for each, the scores of all seeds."""
    from fun_transformer.visualization.figures import COLOURS, LINE

    for name, (x, values) in curves.items():
        if name not in names:
            axes.plot(x, list(map(statistics.mean, values)), color=LINE, linewidth=1)
    for number, name in enumerate(names):
        x, values = curves[name]
        means = list(map(statistics.mean, values))
        style = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": "osD^"[number % 4],
            "markevery": max(1, len(x) // 8),
        }
        style["linestyle"] = ("-", "--", "-.", ":")[number % 4]
        axes.plot(x, means, label=name, **style)
        if len(values[0]) > 1:  # seeds; a little beside each other, so that no bar hides another
            step = (number - 1.5) * (max(x) - min(x)) / 120
            ends = [
                [mean - min(row) for mean, row in zip(means, values)],
                [max(row) - mean for mean, row in zip(means, values)],
            ]
            kept = slice(0, None, style["markevery"])
            beside = [place + step for place in x][kept]
            axes.errorbar(
                beside,
                means[kept],
                [end[kept] for end in ends],
                color=COLOURS[number % len(COLOURS)],
                fmt="none",
                linewidth=1,
            )


def best_so_far(runs: list[dict[str, Any]]) -> tuple[list[float], list[list[float]]]:
    """Seconds, and at each of them the best score until then of each run; a run that ended keeps its best."""
    curves = [run["curve"] for run in runs]
    seconds = [
        statistics.mean(point["seconds"] for point in points if point) for points in itertools.zip_longest(*curves)
    ]
    scores = [list(itertools.accumulate((point["score"] for point in points), max)) for points in curves]
    return seconds, [[row[min(place, len(row) - 1)] for row in scores] for place in range(len(seconds))]


def draw_over_rows(systems: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Quality by the number of training rows, a line for each system: mean and range over seeds."""
    from fun_transformer.visualization.figures import WIDTH, drawing, name_axes, new_figure, save_figure

    with drawing():
        figure = new_figure(WIDTH - 1.4, 4.5)
        axes = figure.subplots()
        for number, name in enumerate(dict.fromkeys(runs[0]["system"] for runs in systems.values())):
            found = sorted(
                (runs for runs in systems.values() if runs[0]["system"] == name), key=lambda runs: runs[0]["rows"]
            )
            rows, values = [runs[0]["rows"] for runs in found], [[run["score"] for run in runs] for runs in found]
            means = list(map(statistics.mean, values))
            ends = [[mean - min(row) for mean, row in zip(means, values)]]
            ends += [[max(row) - mean for mean, row in zip(means, values)]]
            axes.errorbar(rows, means, ends, marker="osD^v"[number % 5], capsize=2, label=name)
        axes.set_xscale("log")
        axes.set_xticks(rows, [f"{count:,}" for count in rows], minor=False)
        metric = found[0][0]["metric"]
        name_axes(axes, "training pairs", f"{METRICS.get(metric, metric)}, test split")
        axes.legend()
        save_figure(figure, path)


def table(systems: dict[str, list[dict[str, Any]]]) -> str:
    """Means over seeds, with half the range where there are several, as Markdown."""
    time_of_fastest = min(run["curve"][-1]["seconds"] for runs in systems.values() for run in runs)
    columns = {
        "test": lambda run: run["score"],
        "validation": lambda run: max(point["score"] for point in run["curve"]),
        "at plateau": is_at_plateau,
        "updates": lambda run: run["curve"][-1]["step"],
        "updates to 90 %": lambda run: until_share(run["curve"], "step"),
        "seconds to 90 %": lambda run: until_share(run["curve"], "seconds"),
        "equal time": lambda run: at_time(run["curve"], time_of_fastest),
        **{f"<= {length}": lambda run, x=length: run["by_length"][x] for length in first(systems)["by_length"]},
        "tok/s": lambda run: run["tokens_per_second"],
        "generated tok/s": lambda run: run["generated_per_second"],
        "peak GB": lambda run: run["peak_gigabytes"],
        "parameters": lambda run: run["parameters"],
    }
    lines = [["system", *columns]]
    for name, runs in systems.items():
        cells = [[read(run) for run in runs] for read in columns.values()]
        lines.append([name, *map(show, cells)])
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


def first(systems: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Any run: all have the same columns."""
    return next(iter(systems.values()))[0]


def show(values: list[float]) -> str:
    """Mean ± half the range, with as many digits as say something; of yes and no, how many are yes."""
    if isinstance(values[0], bool):
        return f"{sum(values)} of {len(values)}"
    mean, half = statistics.mean(values), (max(values) - min(values)) / 2
    if mean >= 1000:
        return f"{mean:,.0f}"
    digits = 2 if mean < 10 else 1
    return f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if len(values) > 1 else "")
