"""A picture of a benchmark: `python -m benchmarks.chart benchmarks/results/NAME.json docs/images/NAME.svg`."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.translation import baseline


def draw(results: dict, path: Path) -> None:
    """Bars of real tokens per second, each with its ratio to the first contender's and the range of its turns."""
    kind = results["counted"]  # "cpu", or "wall" on a GPU
    rates = {name: medians[kind] for name, medians in results["medians"].items()}
    first = next(iter(rates.values()))
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(rates) + 1.2), layout="constrained")
    colours = ["tab:blue" if name.startswith("ours") else "tab:gray" for name in rates]
    turns = [[turn["tokens"] / turn[kind] for turn in results["turns"][name]] for name in rates]
    ends = [[rate - min(found) for rate, found in zip(rates.values(), turns)]]
    ends += [[max(found) - rate for rate, found in zip(rates.values(), turns)]]
    bars = axes.barh(list(rates), list(rates.values()), color=colours, xerr=ends, ecolor="black", capsize=2)
    axes.bar_label(bars, [f"{rate:,.0f}  ({rate / first:.2f})" for rate in rates.values()], padding=4)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    limit = results["matmul_flops"]["bfloat16"] / results["flops_per_token"]
    axes.axvline(limit, color="tab:red", linestyle="--", linewidth=1)
    axes.text(limit, -0.6, "bf16 matrix products alone", color="tab:red", ha="right", va="bottom", fontsize="small")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08 * max(limit, max(rates.values())))
    axes.set_xlabel("real tokens per " + ("second" if kind == "wall" else "CPU-second, one thread"))
    axes.set_title(results["environment"]["device"], fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def draw_translation(results: dict, path: Path) -> None:
    """Bars of sentences per second for each way to translate, each with its ratio to MarianMT's in float32."""
    cases = results["cases"]
    names = list(next(iter(cases.values())))
    figure, grid = plt.subplots(1, len(cases), figsize=(3.2 * len(cases) + 1.6, 0.32 * len(names) + 1.2), sharey=True)
    figure.set_layout_engine("constrained")
    for axes, (case, rows) in zip(np.atleast_1d(grid), cases.items()):
        rates = [rows[name]["sentences_per_second"] for name in names]
        first = baseline(rows)["sentences_per_second"]
        colours = ["tab:blue" if name.startswith("ours") else "tab:gray" for name in names]
        bars = axes.barh(names, rates, color=colours)
        axes.bar_label(bars, [f"{rate:,.0f}  ({rate / first:.1f})" for rate in rates], padding=3, fontsize="small")
        axes.set_xlim(0, 1.4 * max(rates))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_title(case.replace("-batch", ", batch of ").replace("beam5", "5 beams"), fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
    axes.invert_yaxis()  # of all: they share it
    unit = "second" if results["counted"] == "wall" else f"CPU-second, threads: {results['threads']}"
    figure.supxlabel(f"sentences per {unit}; {results['environment']['device']}", fontsize="medium")
    figure.savefig(path)
    plt.close(figure)


def draw_sizes(results: dict, path: Path) -> None:
    """Lines of tokens a CPU-second and of memory over the size of the batch, one for each model, solid for ours."""
    points = results["points"]
    figure, (speed, memory) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    widths = sorted({point["d_model"] for point in points})
    for contender in dict.fromkeys(point["contender"] for point in points):
        style = "o-" if contender.startswith("ours") else "s--"
        for number, width in enumerate(widths):
            own = [point for point in points if (point["contender"], point["d_model"]) == (contender, width)]
            own.sort(key=lambda point: point["batch_tokens"])
            batches = [point["batch_tokens"] for point in own]
            looks = {"color": f"C{number}", "markersize": 4, "label": f"{contender.split(',')[0]}, d_model {width:,}"}
            speed.plot(batches, [point["tokens_per_cpu_second"] for point in own], style, **looks)
            memory.plot(batches, [point["bytes"] / 2**30 for point in own], style, **looks)
    for axes, title in ((speed, "real tokens per CPU-second"), (memory, "GiB beyond the libraries")):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sorted({point["batch_tokens"] for point in points}))
        axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1024:g}k")
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.set_xlabel("tokens of a batch, padding included")
        axes.set_title(title, fontsize="medium")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*speed.get_legend_handles_labels(), loc="outside right center", fontsize="small", frameon=False)
    figure.suptitle(results["environment"]["device"], fontsize="medium")
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m benchmarks.chart RESULT.json PICTURE")
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    kinds = {"cases": draw_translation, "points": draw_sizes}
    kinds.get(next((name for name in kinds if name in found), ""), draw)(found, Path(sys.argv[2]))
