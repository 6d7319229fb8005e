"""A picture of a benchmark: `python -m benchmarks.chart benchmarks/results/NAME.json docs/images/NAME.svg`."""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


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


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m benchmarks.chart RESULT.json PICTURE")
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
