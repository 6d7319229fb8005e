"""Means of weights over training: of the last or best saved models (paper, section 6.1), or a running mean.

    python -m fun_transformer.training.model.averaging runs/a/model runs/b/model --output_dir runs/mean

The paper's base model is the mean of its last five checkpoints. A running (exponential) mean, EMA, is kept during
training instead: after each step, mean = decay * mean + (1 - decay) * weights.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel
from transformers import AutoTokenizer, PreTrainedModel

from ...files import commit_folder
from ...hub.code import saved_class
from ..recipe.base import is_adapter
from ..run.checkpoints import find_model_problem


def average_models(folders: Sequence[Path], load: Callable[[Path], PreTrainedModel]) -> PreTrainedModel:
    """Load the mean of the weights of several models.

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


def moving_average(model: torch.nn.Module, decay: float) -> AveragedModel:
    """Begin an exponential moving average of a model's parameters; `update_parameters` counts a step of the optimizer.

    For the first steps the decay is lower, (1 + t) / (10 + t), so that the random initial weights are soon forgotten.

    Args:
        model: Its parameters are followed.
        decay: Between 0 and 1; 0.999 is a mean over about the last 1,000 steps.
    """

    @torch.no_grad()
    def update(means, weights, counted) -> None:
        steps = int(counted)  # the initial weights were counted as one
        torch._foreach_lerp_(means, weights, 1 - min(decay, (1 + steps) / (10 + steps)))

    average = AveragedModel(model, multi_avg_fn=update)
    average.update_parameters(model)
    average.register_load_state_dict_pre_hook(read_older_average)
    return average


def read_older_average(average: AveragedModel, state: dict[str, Any], *_: Any) -> None:
    """Rename the entries of a checkpoint of version 0.1.0: a number of steps, and a list of means."""
    if "means" in state:
        state["n_averaged"] = torch.tensor(state.pop("steps") + 1)
        means = {id(parameter): mean for parameter, mean in zip(average.parameters(), state.pop("means"), strict=True)}
        own = average.state_dict(keep_vars=True)
        state |= {name: means[id(tensor)] for name, tensor in own.items() if id(tensor) in means}


def class_of(folders: Sequence[Path]) -> type[PreTrainedModel]:
    """Return the class that all models were saved from, of any family that is known here.

    Raises:
        ValueError: They are of several classes, or of one whose code is in a repo.
    """
    configs = [json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in folders]
    names = [(config.get("architectures") or [config.get("model_type")])[0] for config in configs]
    if len(set(names)) > 1:
        raise ValueError(f"The models are of several classes, {', '.join(sorted(set(map(str, names))))}: no mean.")
    found = saved_class(configs[0])
    if found is None:
        raise ValueError(
            f"The code of {names[0]} is neither in this package nor in transformers. Average it in a script of yours: "
            "fun_transformer.training.model.averaging.average_models(folders, load)."
        )
    return found


def tokenizer_folder(folder: Path) -> Path:
    """Return where the tokenizer of a model is: beside it, or, for one of RUN/models, in RUN/tokenizer.

    Raises:
        ValueError: There is none.
    """
    for place in (folder, folder.resolve().parents[1] / "tokenizer"):
        if (place / "tokenizer_config.json").is_file():
            return place
    raise ValueError(f"{folder} has no tokenizer (tokenizer_config.json). Save the one of its model there.")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Write the mean of several models of the same configuration.")
    parser.add_argument("folders", nargs="+", type=Path, help="model folders")
    parser.add_argument("--output_dir", type=Path, required=True, help="gets the mean and the first's tokenizer")
    options = parser.parse_args(argv)
    try:
        if options.output_dir.exists():
            raise ValueError(f"{options.output_dir} exists. Name another folder.")
        for folder in options.folders:
            if is_adapter(folder):
                raise ValueError(
                    f"{folder} holds an adapter, and the mean of two adapters is not the adapter of a mean. Average "
                    "whole models, which training.lora.merge: true writes."
                )
            if problem := find_model_problem(folder):
                raise ValueError(f"The model {folder} is not readable: {problem}. Leave it out, or put back a copy.")
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(options.folders[0]))
        model = average_models(options.folders, class_of(options.folders).from_pretrained)
        partial = options.output_dir.with_name(f".{options.output_dir.name}.partial")
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        commit_folder(partial, options.output_dir)
    except (OSError, ValueError) as error:
        print(f"averaging: {error}", file=sys.stderr)
        return 2
    print(f"Mean of {len(options.folders)} models: {options.output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
