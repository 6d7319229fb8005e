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


def draw(systems: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Quality by source length, and over time, a line for each system: mean and range over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained", sharey=True)
    for name, runs in systems.items():
        style = {"linestyle": "--" if name.startswith("RNN") else "-", "label": name}
        lengths = [length for length in map(str, LENGTHS) if length in runs[0]["by_length"]]
        values = [[run["by_length"][length] for run in runs] for length in lengths]
        (line,) = left.plot(lengths, list(map(statistics.mean, values)), marker="o", **style)
        left.fill_between(lengths, [min(row) for row in values], [max(row) for row in values], alpha=0.12)
        x, scores = best_so_far(runs)
        right.plot(x, list(map(statistics.mean, scores)), color=line.get_color(), marker=".", **style)
        right.fill_between(x, list(map(min, scores)), list(map(max, scores)), color=line.get_color(), alpha=0.12)
    left.set_xlabel("length of the source, at most (test split, at the end)")
    left.set_ylabel({"exact": "exactly right (%)"}.get(runs[0]["metric"], runs[0]["metric"]))
    right.set_xlabel("CPU-seconds of training (validation split, best so far)")
    left.set_ylim(bottom=0)
    left.legend(fontsize="small")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)


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
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4.5), layout="constrained")
    for name in dict.fromkeys(runs[0]["system"] for runs in systems.values()):
        found = sorted(
            (runs for runs in systems.values() if runs[0]["system"] == name), key=lambda runs: runs[0]["rows"]
        )
        rows, values = [runs[0]["rows"] for runs in found], [[run["score"] for run in runs] for runs in found]
        axes.plot(rows, list(map(statistics.mean, values)), marker="o", label=name)
        axes.fill_between(rows, list(map(min, values)), list(map(max, values)), alpha=0.12)
    axes.set_xscale("log")
    axes.set_xticks(rows, [f"{count:,}" for count in rows], minor=False)
    axes.set_xlabel("training pairs")
    axes.set_ylabel(f"{found[0][0]['metric']}, test split")
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)


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
