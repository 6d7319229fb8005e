"""A picture of a benchmark: `python -m benchmarks.chart benchmarks/results/NAME.json docs/images/NAME.svg`."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.translation import baseline
from fun_transformer.visualization.figures import (
    COLOURS,
    INK,
    SMALL,
    WIDTH,
    drawing,
    name_axes,
    new_figure,
    save_figure,
)

OURS, OTHERS = COLOURS[0], COLOURS[6]


def draw(results: dict, path: Path) -> None:
    """Bars of real tokens per second, each with its ratio to the first contender's and the range of its turns."""
    kind = results["counted"]  # "cpu", or "wall" on a GPU
    rates = {name: medians[kind] for name, medians in results["medians"].items()}
    first = next(iter(rates.values()))
    turns = [[turn["tokens"] / turn[kind] for turn in results["turns"][name]] for name in rates]
    ends = [[rate - min(found) for rate, found in zip(rates.values(), turns)]]
    ends += [[max(found) - rate for rate, found in zip(rates.values(), turns)]]
    limit = results["matmul_flops"]["bfloat16"] / results["flops_per_token"]
    unit = "second" if kind == "wall" else "CPU-second, one thread"
    with drawing():
        figure = new_figure(WIDTH, 0.36 * len(rates) + 1.4)
        axes = figure.subplots()
        colours = [OURS if name.startswith("ours") else OTHERS for name in rates]
        bars = axes.barh(list(rates), list(rates.values()), color=colours, xerr=ends, ecolor=INK, capsize=2)
        labels = [f"  {rate:,.0f}  ({rate / first:.2f})" for rate in rates.values()]
        axes.bar_label(bars, labels, padding=4, fontsize=SMALL)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.tick_params(axis="y", labelsize="medium", length=0)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.22 * max(rates.values()))
        note = f"bf16 matrix products alone would allow {limit:,.0f}"  # far to the right of all bars
        name_axes(axes, f"real tokens per {unit} (over the first)\n{note}", title=results["environment"]["device"])
        save_figure(figure, path)


def draw_translation(results: dict, path: Path) -> None:
    """Bars of sentences per second for each way to translate, each with its ratio to MarianMT's in float32."""
    cases = results["cases"]
    names = list(next(iter(cases.values())))
    unit = "second" if results["counted"] == "wall" else f"CPU-second, threads: {results['threads']}"
    with drawing():
        figure = new_figure(WIDTH, 0.32 * len(names) + 1.6)
        grid = figure.subplots(1, len(cases), sharey=True)
        for axes, (case, rows) in zip(np.atleast_1d(grid), cases.items()):
            rates = [rows[name]["sentences_per_second"] for name in names]
            first = baseline(rows)["sentences_per_second"]
            colours = [OURS if name.startswith("ours") else OTHERS for name in names]
            bars = axes.barh(names, rates, color=colours)
            labels = [f"{rate:,.0f} ({rate / first:.1f})" for rate in rates]
            axes.bar_label(bars, labels, padding=3, fontsize=SMALL)
            axes.set_xlim(0, 1.75 * max(rates))
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.tick_params(axis="y", labelsize="medium", length=0)
            axes.set_title(case.replace("-batch", ", batch of ").replace("beam5", "5 beams"))
        axes.invert_yaxis()  # of all: they share it
        figure.supxlabel(
            f"sentences per {unit} (over MarianMT fp32); {results['environment']['device']}", fontsize=SMALL
        )
        save_figure(figure, path)


def draw_sizes(results: dict, path: Path) -> None:
    """Lines of tokens a CPU-second and of memory over the size of the batch, one for each model, solid for ours."""
    points = results["points"]
    widths = sorted({point["d_model"] for point in points})
    with drawing():
        figure = new_figure(WIDTH, 4.8)
        speed, memory = figure.subplots(1, 2)
        for contender in dict.fromkeys(point["contender"] for point in points):
            style = "o-" if contender.startswith("ours") else "s--"
            for width, colour in zip(widths, COLOURS * len(widths)):
                own = [point for point in points if (point["contender"], point["d_model"]) == (contender, width)]
                own.sort(key=lambda point: point["batch_tokens"])
                batches = [point["batch_tokens"] for point in own]
                looks = {"color": colour, "label": f"{contender.split(',')[0]}, d_model {width:,}"}
                speed.plot(batches, [point["tokens_per_cpu_second"] for point in own], style, **looks)
                memory.plot(batches, [point["bytes"] / 2**30 for point in own], style, **looks)
        for axes, name in ((speed, "real tokens per CPU-second"), (memory, "GiB beyond the libraries")):
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(sorted({point["batch_tokens"] for point in points}))
            axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1024:g}k")
            axes.yaxis.set_major_formatter("{x:,g}")
            name_axes(axes, "tokens of a batch, padding included", name)
            axes.grid()
        figure.legend(*speed.get_legend_handles_labels(), loc="outside lower left", ncols=len(widths))
        figure.suptitle(results["environment"]["device"], fontsize="medium")
        save_figure(figure, path)


def draw_by_kind(results: dict[str, Any], path: Path) -> None:
    """Draw the results of any benchmark that has a picture, told by what its file holds."""
    if "layers" in results:
        importlib.import_module("benchmarks.complexity").draw(results, path)
    elif "runs" in results:
        importlib.import_module("benchmarks.head_starts").draw(results["runs"], path)
    elif isinstance(next(iter(results.get("systems", {}).values()), None), dict):
        importlib.import_module("benchmarks.equal_time").draw(results["systems"], path)
    elif "systems" in results:
        importlib.import_module("benchmarks.lineage_results").draw(results["systems"], path)
    elif "cases" in results:
        draw_translation(results, path)
    elif "points" in results:
        draw_sizes(results, path)
    else:
        draw(results, path)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m benchmarks.chart RESULT.json PICTURE")
    draw_by_kind(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
