"""How the learning rate rises and falls. 学习率。 `python -m examples.learning_rates [OUTPUT_DIR]`

    noam(step) = d_model^-0.5 min(step^-0.5, step warmup^-1.5)    (section 5.3 of the paper)

Draws learning_rate_noam.svg, for several widths and warm-ups, and learning_rate_schedules.svg.
"""

import sys
from pathlib import Path

from fun_transformer.training.optimization import learning_rate_factor
from fun_transformer.visualization import plot_lines

STEPS = 20_000
NOAM = [(512, 4000), (512, 8000), (256, 4000)]  # (d_model, warmup_steps)


def curve(schedule: str, warmup_steps: int, d_model: int) -> tuple[list[int], list[float]]:
    """Steps, and the factor at each."""
    steps = list(range(20, STEPS + 1, 20))
    return steps, [learning_rate_factor(schedule, step, warmup_steps, step / STEPS, d_model) for step in steps]


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    noam = {f"d_model {d_model}, warmup {warmup}": curve("noam", warmup, d_model) for d_model, warmup in NOAM}
    for name, (steps, rates) in noam.items():
        peak = max(rates)
        print(f"noam, {name}: highest at step {steps[rates.index(peak)]:,}: {peak:.2e}")
    names = {"x_name": "步 step", "y_name": "学习率 learning rate"}
    plot_lines(noam, folder / "learning_rate_noam.svg", title="noam：论文的学习率 the paper's", **names)

    others = {schedule: curve(schedule, 2000, 512) for schedule in ("inverse_sqrt", "linear", "cosine")}
    names["y_name"] = "乘以 times learning_rate"
    plot_lines(
        others, folder / "learning_rate_schedules.svg", title="预热 2,000 步，然后下降 warm-up, then down", **names
    )


if __name__ == "__main__":
    main()
