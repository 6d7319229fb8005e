"""Learning rates by formula, and which parameters decay."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from forked_runs import write_digits_recipe

from fun_transformer.training.optimization import build_optimizer, learning_rate_factor
from fun_transformer.training.recipe.arguments import RunArguments, TrainingArguments
from fun_transformer.training.train import check_start


def test_noam_is_the_formula_of_the_paper():
    for step in (1, 100, 4000, 100_000):
        expected = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
        assert learning_rate_factor("noam", step, 4000, 0.0, 512) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["inverse_sqrt", "linear", "cosine"])
def test_warmup_rises_linearly_to_the_peak(schedule):
    factors = [learning_rate_factor(schedule, step, 10, 0.0, 512) for step in range(1, 11)]
    assert factors == pytest.approx([step / 10 for step in range(1, 11)])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_linear_and_cosine_end_at_zero(schedule):
    assert learning_rate_factor(schedule, 1000, 10, 1.0, 512) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate_factor(schedule, 500, 10, 0.5, 512) == pytest.approx(0.5)


def test_inverse_sqrt_halves_at_four_times_the_warmup():
    assert learning_rate_factor("inverse_sqrt", 400, 100, 0.5, 512) == pytest.approx(0.5)


@pytest.mark.parametrize("schedule", ["noam", "inverse_sqrt", "linear", "cosine"])
def test_no_warmup_is_allowed(schedule):
    assert math.isfinite(learning_rate_factor(schedule, 1, 0, 0.0, 512))


def steps(model, optimizer, numbers):
    """Train on a batch of its own for each number."""
    for number in numbers:
        ids = torch.randint(3, 23, (4, 7), generator=torch.Generator().manual_seed(number))
        model(input_ids=ids, labels=ids, num_items_in_batch=28.0).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def test_muon_has_the_matrices_inside_the_layers_and_adamw_all_else(tiny_model):
    model = tiny_model(tie_word_embeddings=False)
    optimizer = build_optimizer(model, TrainingArguments(learning_rate=1e-3, weight_decay=0.1, optim="muon"))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    muon, output, spared = ([names[id(p)] for p in group["params"]] for group in optimizer.param_groups)
    assert all(name.endswith(("_proj.weight", "fc1.weight", "fc2.weight")) for name in muon)
    assert output == ["lm_head.weight"] and not any(name.endswith("_proj.weight") for name in spared)
    assert len(muon) + len(output) + len(spared) == len(names)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.1, 0.0]


def test_a_step_of_muon_is_an_orthogonal_matrix_as_large_as_a_step_of_adamw(tiny_model):
    model = tiny_model()
    weight = model.model.encoder.layers[0].feed_forward.fc1.weight
    optimizer = build_optimizer(model, TrainingArguments(learning_rate=0.1, weight_decay=0.0, optim="muon"))
    before = weight.detach().clone()
    steps(model, optimizer, [1])
    singular = torch.linalg.svdvals((weight - before).detach()) / (0.1 * 0.2 * max(weight.shape) ** 0.5)
    assert singular.min() > 0.3 and singular.max() < 1.3  # Newton and Schulz come near enough in five rounds


def test_muon_goes_on_from_its_state_to_the_last_bit(tiny_model):
    settings = TrainingArguments(learning_rate=1e-2, optim="muon")
    whole, halves = tiny_model(dropout=0.0), tiny_model(dropout=0.0)
    halves.load_state_dict(whole.state_dict())
    steps(whole, build_optimizer(whole, settings), range(6))
    first = build_optimizer(halves, settings)
    steps(halves, first, range(3))
    second = build_optimizer(halves, settings)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(halves, second, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))


@pytest.mark.slow
def test_a_run_with_muon_goes_on_to_the_last_bit(tmp_path, children):
    recipe = write_digits_recipe(tmp_path)
    options = ["--training.optim", "muon", "--training.schedule", "inverse_sqrt"]
    assert children.run(recipe, tmp_path / "run", *options, "--training.max_steps", "8") == [0]
    assert children.run(recipe, tmp_path / "run", *options, "--resume") == [0], children.log(tmp_path / "run")
    assert children.run(recipe, tmp_path / "whole", *options) == [0]
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert weights[0] == weights[1]


def test_only_matrices_decay(tiny_model):
    model = tiny_model()
    optimizer = build_optimizer(model, TrainingArguments(learning_rate=1e-3, weight_decay=0.1))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    assert decay[id(model.model.encoder.layers[0].feed_forward.fc1.weight)] == 0.1
    assert decay[id(model.model.encoder.embed_tokens.weight)] == 0.0
    assert decay[id(model.model.encoder.layers[0].final_layer_norm.weight)] == 0.0
    assert all(isinstance(p, torch.Tensor) for group in optimizer.param_groups for p in group["params"])


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_muon_is_refused_where_matrices_are_spread_over_processes(kind):
    arguments = RunArguments(training=TrainingArguments(optim="muon"))
    accelerator = SimpleNamespace(distributed_type=kind, device=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"training\.optim=muon needs whole matrices on each process"):
        check_start(arguments, accelerator)
