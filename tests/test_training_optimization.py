"""Learning rates by formula, and which parameters decay."""

import math

import pytest
import torch

from fun_transformer.training.optimization import build_optimizer, learning_rate_factor
from fun_transformer.training.recipe.arguments import TrainingArguments


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


def test_only_matrices_decay(tiny_model):
    model = tiny_model()
    optimizer = build_optimizer(model, TrainingArguments(learning_rate=1e-3, weight_decay=0.1))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(model.parameters()))
    assert decay[id(model.model.encoder.layers[0].feed_forward.fc1.weight)] == 0.1
    assert decay[id(model.model.encoder.embed_tokens.weight)] == 0.0
    assert decay[id(model.model.encoder.layers[0].final_layer_norm.weight)] == 0.0
    assert all(isinstance(p, torch.Tensor) for group in optimizer.param_groups for p in group["params"])
