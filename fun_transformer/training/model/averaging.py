"""Means of weights over training: of the last or best saved models (paper, section 6.1), or a running mean.

    python -m training.averaging runs/a/model runs/b/model --output_dir runs/mean

The paper's base model is the mean of its last five checkpoints. A running (exponential) mean, EMA, is kept during
training instead: after each step, mean = decay * mean + (1 - decay) * weights.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

import fun_transformer

from ..run.checkpoints import publish


def average_models(folders: Sequence[Path], load: Callable[[Path], PreTrainedModel]) -> PreTrainedModel:
    """A model whose weights are the mean of those of several.

    Args:
        folders: Of models with the same configuration.
        load: Reads one, such as `from_pretrained`.

    Raises:
        ValueError: When two have different parameters.
    """
    model = load(folders[0])
    total = {name: weight.double() for name, weight in model.state_dict().items()}
    for folder in folders[1:]:
        other = load(folder).state_dict()
        shapes = ({name: w.shape for name, w in state.items()} for state in (total, other))
        if next(shapes) != next(shapes):
            raise ValueError(f"{folders[0]} and {folder} have different parameters: their mean has no meaning.")
        for name, weight in other.items():
            total[name] += weight
    mean = {name: (weight / len(folders)).to(model.state_dict()[name].dtype) for name, weight in total.items()}
    model.load_state_dict(mean)
    return model


class MovingAverage:
    """Exponential moving average of a model's parameters.

    For the first steps the decay is lower, (1 + t) / (10 + t), so that the random initial weights are soon forgotten.

    Args:
        model: Whose parameters are followed; their order must not change.
        decay: Between 0 and 1; 0.999 is a mean over about the last 1,000 steps.
    """

    def __init__(self, model: torch.nn.Module, decay: float):
        self.parameters, self.decay, self.steps = list(model.parameters()), decay, 0
        self.means = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Count a step of the optimizer."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.means, [parameter.detach() for parameter in self.parameters], 1 - decay)

    def swap(self) -> None:
        """Exchange the model's weights and the means."""
        for parameter, mean in zip(self.parameters, self.means, strict=True):
            parameter.data, mean.data = mean.data, parameter.data

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model's weights are the means."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"steps": self.steps, "means": self.means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.steps = state["steps"]
        for mean, saved in zip(self.means, state["means"], strict=True):
            mean.copy_(saved)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(description="Write the mean of several models of the same configuration.")
    parser.add_argument("folders", nargs="+", type=Path, help="model folders")
    parser.add_argument("--output_dir", type=Path, required=True, help="gets the mean and the first's tokenizer")
    options = parser.parse_args(argv)
    try:
        if options.output_dir.exists():
            raise ValueError(f"{options.output_dir} exists. Name another folder.")
        kind = getattr(fun_transformer, AutoConfig.from_pretrained(options.folders[0]).architectures[0])
        model = average_models(options.folders, kind.from_pretrained)
        partial = options.output_dir.with_name(f".{options.output_dir.name}.partial")
        model.save_pretrained(partial)
        AutoTokenizer.from_pretrained(options.folders[0]).save_pretrained(partial)
        publish(partial, options.output_dir)
    except (OSError, ValueError) as error:
        print(f"training.averaging: {error}", file=sys.stderr)
        return 2
    print(f"Mean of {len(options.folders)} models: {options.output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
