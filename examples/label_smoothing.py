"""Label smoothing: do not be too sure. 标签平滑：别太自信。

`python -m examples.label_smoothing [OUTPUT_DIR]` draws label_smoothing.svg.

    q(k) = (1 - epsilon) [k = y] + epsilon / V      loss = -sum_k q(k) log p(k)      (section 5.4 of the paper)
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from fun_transformer.visualization.figures import WIDTH, drawing, name_axes, new_figure, save_figure

WORDS = ["eat", "drink", "cook", "buy", "like", "make"]  # a vocabulary; the true word is the first
EPSILON = 0.1


def target(epsilon: float, size: int) -> np.ndarray:
    """The distribution that the model is to learn: a little for every word, the rest for the true one."""
    q = np.full(size, epsilon / size)
    q[0] += 1 - epsilon
    return q


def loss(p_true: np.ndarray, epsilon: float, size: int) -> np.ndarray:
    """The loss where the true word gets p and the others share the rest equally."""
    q = target(epsilon, size)
    return -q[0] * np.log(p_true) - (1 - q[0]) * np.log((1 - p_true) / (size - 1))


def draw(curves: dict[float, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    """The target distributions beside each other, and the loss over what the model gives the true word."""
    names = ("目标分布 target q(k)", "损失 loss", "模型给正确词的概率 p(y)，其余词平分")
    with drawing("".join(names)):
        figure = new_figure(WIDTH, 3.4)
        bars, lines = figure.subplots(1, 2)
        for number, (epsilon, (p, values)) in enumerate(curves.items()):
            places = np.arange(len(WORDS)) + 0.4 * number - 0.2
            drawn = bars.bar(places, target(epsilon, len(WORDS)), 0.38, label=f"ε = {epsilon:g}")
            shown = [
                f"{share:.3g}" if place == 0 or (place == 1 and epsilon) else ""
                for place, share in enumerate(target(epsilon, len(WORDS)))
            ]
            bars.bar_label(drawn, shown, padding=2, fontsize="small")
            lines.plot(p, values, "-" if epsilon else "--", color=f"C{number}", label=f"ε = {epsilon:g}")
            lines.plot(p[values.argmin()], values.min(), "o", color=f"C{number}", clip_on=False)
        bars.set_xticks(range(len(WORDS)), [f"{WORDS[0]}\n= y", *WORDS[1:]])
        bars.set_ylim(0, 1.1)
        name_axes(bars, y=names[0])
        name_axes(lines, names[2], names[1])
        lines.set(xlim=(0.3, 1), ylim=(0, 1.5))
        lines.grid()
        lines.legend()
        bars.legend()
        save_figure(figure, path)


def main() -> None:
    size = len(WORDS)
    logits = torch.randn(1, size, generator=torch.Generator().manual_seed(0))
    by_hand = -(torch.tensor(target(EPSILON, size)).float() * logits.log_softmax(-1)).sum()
    torch.testing.assert_close(cross_entropy(logits, torch.tensor([0]), label_smoothing=EPSILON), by_hand)
    print(f"By hand equals torch's cross_entropy: {by_hand:.4f}")

    p = np.linspace(0.3, 0.9999, 2000)
    curves = {epsilon: (p, loss(p, epsilon, size)) for epsilon in (0.0, EPSILON)}
    for epsilon, (_, values) in curves.items():
        entropy = -sum(share * math.log(share) for share in target(epsilon, size) if share)
        print(
            f"epsilon {epsilon}: least loss {values.min():.3f} at p = {p[values.argmin()]:.3f}; entropy {entropy:.3f}"
        )
    draw(curves, Path(sys.argv[1] if len(sys.argv) > 1 else ".") / "label_smoothing.svg")


if __name__ == "__main__":
    main()
