"""The page on attention: each score against its formula in NumPy, and what all scores have in common."""

import numpy as np
import pytest
import torch
from torch import nn

from fun_transformer.attention import SCORES, attention_weights, eager_attention, scaled_dot_product_scores

BATCH, QUERIES, KEYS, WIDTH = 2, 3, 5, 4


def array(tensor):
    return tensor.detach().double().numpy()


def close(actual, expected):
    torch.testing.assert_close(actual.double(), torch.as_tensor(expected), atol=1e-6, rtol=1e-5)


@pytest.fixture
def states():
    """Decoder states s (batch, query_len, d_model) and encoder states h (batch, key_len, d_model)."""
    return torch.randn(BATCH, QUERIES, WIDTH), torch.randn(BATCH, KEYS, WIDTH)


def by_formula(name, score, s, h):
    """e[b, i, j] by the formula of the paper, one pair at a time."""
    weights = {key: array(value) for key, value in score.named_parameters()}
    pair = {
        "dot": lambda s_i, h_j: s_i @ h_j,
        "general": lambda s_i, h_j: s_i @ (weights["k_proj.weight"] @ h_j),
        "additive": lambda s_i, h_j: (
            weights["score.weight"][0] @ np.tanh(weights["q_proj.weight"] @ s_i + weights["k_proj.weight"] @ h_j)
        ),
    }[name]
    return np.array([[[pair(s_i, h_j) for h_j in h[b]] for s_i in s[b]] for b in range(len(s))])


@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_the_formula_of_its_paper(name, states):
    query, keys = states
    score = SCORES[name](WIDTH)
    close(score(query, score.keys(keys)), by_formula(name, score, array(query), array(keys)))


@pytest.mark.parametrize("name", SCORES)
def test_a_score_of_many_queries_is_that_of_each_alone(name, states):
    query, states = states
    score = SCORES[name](WIDTH)
    keys = score.keys(states)
    alone = [score(query[:, i : i + 1], keys) for i in range(QUERIES)]
    close(torch.cat(alone, dim=1), score(query, keys).double())


def test_the_scaled_dot_product_is_that_of_the_paper():
    query, key = torch.randn(BATCH, 2, QUERIES, WIDTH), torch.randn(BATCH, 2, KEYS, WIDTH)
    expected = np.einsum("bhid,bhjd->bhij", array(query), array(key)) / np.sqrt(WIDTH)
    close(scaled_dot_product_scores(query, key, WIDTH**-0.5), expected)


def test_weights_are_a_softmax_over_the_keys_that_may_be_seen():
    scores = torch.randn(BATCH, QUERIES, KEYS)
    mask = torch.zeros(QUERIES, KEYS)
    mask[:, -2:] = torch.finfo(mask.dtype).min
    expected = np.exp(array(scores)[..., :-2])
    expected /= expected.sum(-1, keepdims=True)
    weights = attention_weights(scores, mask)
    close(weights[..., :-2], expected)
    assert not weights[..., -2:].any()


def test_a_row_that_may_see_nothing_gets_no_nan():
    mask = torch.full((1, 1, KEYS), torch.finfo(torch.float32).min)
    close(attention_weights(torch.randn(1, 1, KEYS), mask), np.full((1, 1, KEYS), 1 / KEYS))


def test_eager_attention_is_the_fused_kernel_step_by_step():
    query, key, value = (torch.randn(BATCH, 2, length, WIDTH) for length in (QUERIES, KEYS, KEYS))
    context, weights = eager_attention(nn.Identity(), query, key, value, None, WIDTH**-0.5)
    expected = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    close(context, expected.double())
    close(weights.sum(-1), np.ones((BATCH, 2, QUERIES)))
