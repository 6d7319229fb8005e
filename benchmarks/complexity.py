"""What layers cost over the length of a text, by formula and measured: `python -m benchmarks.complexity`.

Writes times, memory, exponents and the picture of both. One thread, one sequence, forward and backward, float32.
"""

import argparse
import dataclasses
import json
import math
import os
import shlex
import sys
from itertools import pairwise
from pathlib import Path

import torch

from fun_transformer.analysis import LayerSizes, Measurement, build_layer, fit_exponent, layer_cost, measure_layer
from fun_transformer.training.run.environment import describe_environment
from fun_transformer.visualization.figures import WIDTH, drawing, name_axes, new_figure, save_figure

# Name -> kind and kernel.
CONTENDERS = {
    "self-attention, eager": ("self_attention", "eager"),
    "self-attention, sdpa": ("self_attention", "sdpa"),
    "restricted attention": ("restricted_attention", "eager"),
    "linear attention": ("linear_attention", "eager"),
    "recurrent (LSTM)": ("recurrent", "eager"),
    "convolution": ("convolution", "eager"),
}
LENGTHS = [64, 128, 256, 512, 1024, 2048, 4096, 8192]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--d_model", type=int, default=256)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--window", type=int, default=64, help="of restricted attention")
    parser.add_argument("--kernel_size", type=int, default=3, help="of the convolution")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--output", default="benchmarks/results/complexity-cpu.json")
    parser.add_argument("--picture", default="docs/images/complexity-cpu.svg")
    return parser.parse_args()


def exponents(kind: str, rows: list[Measurement], sizes: LayerSizes) -> dict[str, float]:
    """Of the table's operations, of time and of memory, over the upper half of the lengths: below, overhead rules."""
    upper = rows[len(rows) // 2 :] if len(rows) > 3 else rows
    lengths = [row.length for row in upper]
    return {
        "operations": fit_exponent(lengths, [layer_cost(kind, length, sizes).operations for length in lengths]),
        "seconds": fit_exponent(lengths, [row.seconds for row in upper]),
        "peak_bytes": fit_exponent(lengths, [row.peak_bytes for row in upper]),
    }


def crossing(first: list[dict], second: list[dict]) -> float | None:
    """The length from which on the first is slower than the second; None where it never is, or always."""
    ratios = [(a["length"], a["seconds"] / b["seconds"]) for a, b in zip(first, second)]
    for (short, low), (long, high) in pairwise(ratios):
        if low <= 1 < high:  # a straight line between the logarithms
            share = -math.log(low) / (math.log(high) - math.log(low))
            return round(short * (long / short) ** share)
    return None


def draw(results: dict, path: str) -> None:
    """Time and memory over the length, both axes logarithmic."""
    with drawing():
        figure = new_figure(WIDTH, 5)
        panels = (("seconds", "seconds"), ("peak_bytes", "peak memory (MiB)"))
        for axes, (name, label) in zip(figure.subplots(1, 2), panels):
            for (contender, found), marker in zip(results["layers"].items(), "osD^vP" * len(results["layers"])):
                unit = 2**20 if name == "peak_bytes" else 1
                lengths, values = zip(*((row["length"], row[name] / unit) for row in found["measured"]))
                axes.plot(lengths, values, marker=marker, label=f"{contender}: n^{found['exponents'][name]:.2f}")
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(lengths[::2], [f"{length:,}" for length in lengths[::2]])
            axes.yaxis.set_major_formatter("{x:,g}")
            name_axes(axes, "length n", label)
            axes.grid()
            axes.legend()
        sizes = results["sizes"]
        figure.suptitle(
            f"One layer, forward and backward, d_model {sizes['d_model']}: {results['environment']['device']}, "
            f"{results['environment']['threads']} thread(s)",
            fontsize="medium",
        )
        save_figure(figure, path)


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    sizes = LayerSizes(options.d_model, options.heads, options.window, options.kernel_size)
    layers, load = {}, os.getloadavg()
    for name in options.only:
        kind, kernel = CONTENDERS[name]
        layer = build_layer(kind, sizes, kernel)
        rows = measure_layer(layer, options.lengths, sizes.d_model, options.device, options.repeats)
        layers[name] = {
            "formula": {length: dataclasses.asdict(layer_cost(kind, length, sizes)) for length in options.lengths},
            "measured": [dataclasses.asdict(row) for row in rows],
            "exponents": exponents(kind, rows, sizes),
        }
        found = layers[name]["exponents"]
        print(
            f"{name:22}  n^{found['operations']:.2f} by formula, n^{found['seconds']:.2f} in time, "
            f"n^{found['peak_bytes']:.2f} in memory; n = {rows[-1].length}: {rows[-1].seconds:.3f} s, "
            f"{rows[-1].peak_bytes / 2**20:,.0f} MiB",
            flush=True,
        )
    attentions = [name for name in layers if name.startswith("self-attention")]
    others = [name for name in layers if name not in attentions]
    measured = {name: layers[name]["measured"] for name in layers}
    results = {
        "command": f"python -m benchmarks.complexity {shlex.join(sys.argv[1:])}".strip(),
        "environment": describe_environment(),
        "load": load,
        "sizes": dataclasses.asdict(sizes),
        "slower_from": {  # the length from which on the first is slower than the second
            f"{first} > {second}": crossing(measured[first], measured[second])
            for first in attentions
            for second in others
        },
        "layers": layers,
    }
    for what, length in results["slower_from"].items():
        print(f"{what}: {f'from n = {length:,} on' if length else 'no crossing'}")
    Path(options.output).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draw(results, options.picture)


if __name__ == "__main__":
    main()
