"""Dropout on CPUs: our own random numbers must drop as often, scale as much and repeat as exactly as torch's."""

import pytest
import torch
from torch.testing import assert_close

from fun_transformer.dropout import Dropout, dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_dropped_with_probability_p_and_the_rest_scaled(p, dtype):
    torch.manual_seed(0)
    dropped = dropout(torch.ones(1001, 1003, dtype=dtype), p, training=True)
    share = (dropped == 0).float().mean().item()
    assert abs(share - p) < 4 * (p * (1 - p) / dropped.numel()) ** 0.5  # four standard deviations
    assert_close(dropped[dropped != 0].unique(), torch.tensor([1 / (1 - p)], dtype=dtype))


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    kept = (dropout(torch.ones(2**20), 0.5, training=True) != 0).float()
    for distance in range(1, 9):  # four numbers come out of one draw
        pairs = (kept[:-distance] * kept[distance:]).mean().item()
        assert abs(pairs - 0.25) < 0.002


@pytest.mark.parametrize("shape", [(), (0, 4), (1,), (3,), (5, 7)])
def test_any_shape_is_kept(shape):
    assert dropout(torch.ones(shape), 0.2, training=True).shape == shape


def test_gradients_pass_where_values_do():
    states = torch.randn(64, 64, requires_grad=True)
    dropped = dropout(states, 0.3, training=True)
    dropped.sum().backward()
    assert_close(states.grad, (dropped != 0) / 0.7)


def test_the_seed_decides():
    states = torch.randn(64, 64)
    torch.manual_seed(1)
    first = dropout(states, 0.3, training=True)
    assert not torch.equal(first, dropout(states, 0.3, training=True))
    torch.manual_seed(1)
    assert torch.equal(first, dropout(states, 0.3, training=True))


def test_nothing_is_dropped_in_evaluation_nor_everything_kept_at_one():
    states = torch.randn(8, 8)
    assert Dropout(0.5).eval()(states) is states
    assert dropout(states, 0.0, training=True) is states
    assert not dropout(states, 1.0, training=True).any()
