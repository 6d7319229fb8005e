"""Several runs in one process, one after the other, as in a notebook."""

import dataclasses

import pytest
from forked_runs import write_digits_recipe

from fun_transformer.training.train import main, train

SHORT = ["--training.max_steps", "2", "--training.eval_steps", "2", "--training.save_steps", "2"]

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def precision_of(folder):
    card = (folder / "model" / "README.md").read_text(encoding="utf-8")
    return next(line.split("|")[2].strip() for line in card.splitlines() if line.startswith("| precision"))


def test_each_run_of_a_process_has_its_own_precision(tmp_path):
    recipe = str(write_digits_recipe(tmp_path))
    for number, precision in enumerate(("fp32", "bf16", "fp32")):
        run = tmp_path / str(number)
        options = ["--training.precision", precision, "--training.packing", "null", "--output_dir", str(run)]
        assert main([recipe, *SHORT, *options]) == 0
        assert precision_of(run) == precision
    weights = [(tmp_path / number / "model" / "model.safetensors").read_bytes() for number in "012"]
    assert weights[0] == weights[2] != weights[1]


def twice():
    """What trains in place of `train`: the recipe, and then the same in another precision."""

    def run(arguments, command):
        train(arguments, command)
        training = dataclasses.replace(arguments.training, precision="bf16", packing=None)
        train(dataclasses.replace(arguments, training=training, output_dir=f"{arguments.output_dir}-2"), command)

    return run


@pytest.mark.slow
def test_several_processes_train_once_and_are_told_so(children, tmp_path):
    recipe, run = write_digits_recipe(tmp_path), tmp_path / "run"
    patch = ["test_training_two_runs", "twice"]
    codes = children.run(recipe, run, *SHORT, "--training.precision", "fp32", processes=2, patch=patch)
    assert codes == [2, 2], children.log(run)
    assert precision_of(run) == "fp32" and "Start new ones for another run" in children.log(run)
