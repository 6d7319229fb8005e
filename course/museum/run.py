"""Train the right model and each broken one for the same steps, and measure what is seen of the mistake.

python -m course.museum.run            # two minutes; writes course/museum/results.json
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from course.museum.exhibits import EXHIBITS
from course.museum.model import END, IGNORED, SmallTransformer, make_batch
from fun_transformer.files import write_atomically

RESULTS = Path(__file__).with_name("results.json")
STEPS, WARM_UP, RATE, SEED = 1500, 100, 2e-3, 0
SHOWN = 25  # steps of which a loss is the mean


def train(model: SmallTransformer) -> list[float]:
    """Train, and return the mean loss of every SHOWN steps."""
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    losses = []
    for step in range(1, STEPS + 1):
        optimizer.param_groups[0]["lr"] = RATE * min(step / WARM_UP, (WARM_UP / step) ** 0.5)
        source, labels = make_batch(64, generator)
        loss = model.loss(model(source, labels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return [round(sum(losses[i : i + SHOWN]) / SHOWN, 4) for i in range(0, STEPS, SHOWN)]


def right_tokens(model: SmallTransformer, source: torch.Tensor, labels: torch.Tensor) -> float:
    """How many tokens are right where the decoder reads the true ones before it, in percent."""
    with torch.no_grad():
        counts = labels != IGNORED
        return 100 * (model(source, labels).argmax(-1) == labels)[counts].float().mean().item()


def right_texts(model: SmallTransformer, source: torch.Tensor, labels: torch.Tensor, together: int) -> float:
    """How many texts are written without a mistake, in percent.

    Args:
        model: To write with.
        source, labels: (batch, longest).
        together: Texts in a batch; one alone has no padding.
    """
    right = 0
    for rows, answers in zip(source.split(together), labels.split(together), strict=True):
        rows = rows[:, : int((rows != 0).sum(1).max())]
        written = model.generate(rows, answers.shape[1])
        for row, answer in zip(written.tolist(), answers.tolist(), strict=True):
            until = row.index(END) + 1 if END in row else len(row)
            right += row[:until] == [label for label in answer if label != IGNORED]
    return 100 * right / len(source)


def measure(kind: type[SmallTransformer]) -> dict[str, Any]:
    """Train a model and return what is seen of it."""
    torch.manual_seed(SEED)
    model = kind()
    losses = train(model)
    source, labels = make_batch(200, torch.Generator().manual_seed(SEED + 1))
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder, "model.pt"))
        loaded = kind()
        loaded.load(Path(folder, "model.pt"))
    return {
        "losses": losses,
        "tokens": right_tokens(model, source, labels),
        "texts": right_texts(model, source, labels, 50),
        "alone": right_texts(model, source, labels, 1),
        "loaded": right_texts(loaded, source, labels, 50),
    }


def main() -> None:
    """Measure all, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for kind in (SmallTransformer, *(exhibit.broken for exhibit in EXHIBITS)):
        found[kind.__name__] = measure(kind)
        shown = {name: value for name, value in found[kind.__name__].items() if name != "losses"}
        print(f"{kind.__name__:22} loss {found[kind.__name__]['losses'][-1]:.3f} {shown}", flush=True)
    results = {"steps": STEPS, "shown": SHOWN, "seed": SEED, "torch": torch.__version__, "models": found}
    write_atomically(options.output, json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
