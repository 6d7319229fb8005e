"""The page on attention: scores and weights against their formulas in NumPy, and what all of a kind have in common."""

import numpy as np
import pytest
import torch
from torch import nn

from fun_transformer.attention import SCORES, WEIGHTS, eager_attention, relu_weights, scaled_dot_product_scores

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


WEIGHTS_BY_FORMULA = {
    "softmax": lambda e: np.exp(e) / np.exp(e).sum(-1, keepdims=True),
    "relu": lambda e: np.maximum(e, 0) / np.maximum(e, 0).sum(-1, keepdims=True),
    "hard": lambda e: e == e.max(-1, keepdims=True),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_their_formula_over_the_keys_that_may_be_seen(name):
    scores = torch.randn(BATCH, QUERIES, KEYS)
    scores[..., 0] = scores[..., 0].abs()  # each query finds something
    scores[..., -2:] += 9  # and would rather look at what it may not
    mask = torch.zeros(QUERIES, KEYS)
    mask[:, -2:] = torch.finfo(mask.dtype).min
    weights = WEIGHTS[name](scores, mask)
    close(weights[..., :-2], WEIGHTS_BY_FORMULA[name](array(scores)[..., :-2]).astype(float))
    close(weights.sum(-1), np.ones((BATCH, QUERIES)))
    assert not weights[..., -2:].any()
    close(WEIGHTS[name](scores, None), WEIGHTS_BY_FORMULA[name](array(scores)).astype(float))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("name", "expected"), [("softmax", [1 / 4] * 4), ("relu", [0, 0, 0, 0]), ("hard", [1, 0, 0, 0])]
)
def test_a_row_that_may_see_nothing_gets_no_nan(name, expected, dtype):
    scores = torch.randn(1, 4, dtype=dtype, requires_grad=True)
    weights = WEIGHTS[name](scores, torch.full((1, 4), torch.finfo(dtype).min, dtype=dtype))
    close(weights, np.array([expected], dtype=float))
    (weights * torch.arange(4)).sum().backward()
    assert scores.grad.isfinite().all()


def test_a_query_without_a_positive_score_looks_at_nothing_and_leaves_the_others_alone():
    scores = torch.tensor([[-1.0, -2.0, 0.0], [3.0, -1.0, 1.0]], requires_grad=True)
    weights = relu_weights(scores, None)
    close(weights, np.array([[0, 0, 0], [0.75, 0, 0.25]]))
    weights[:, 0].sum().backward()
    close(scores.grad, np.array([[0, 0, 0], [1 / 16, 0, -3 / 16]]))


@pytest.mark.parametrize("name", ["softmax", "relu"])
def test_soft_weights_have_the_gradient_of_their_formula(name):
    scores = torch.randn(QUERIES, KEYS, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: WEIGHTS[name](e, None), scores)


def test_hard_weights_have_the_gradient_of_the_softmax():
    scores, values = torch.randn(QUERIES, KEYS), torch.randn(QUERIES, KEYS)
    gradients = []
    for name in ("hard", "softmax"):
        leaf = scores.clone().requires_grad_()
        (WEIGHTS[name](leaf, None) * values).sum().backward()
        gradients.append(leaf.grad)
    assert gradients[0].all()
    close(gradients[0], gradients[1].double())


def test_eager_attention_is_the_fused_kernel_step_by_step():
    query, key, value = (torch.randn(BATCH, 2, length, WIDTH) for length in (QUERIES, KEYS, KEYS))
    context, weights = eager_attention(nn.Identity(), query, key, value, None, WIDTH**-0.5)
    expected = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    close(context, expected.double())
    close(weights.sum(-1), np.ones((BATCH, 2, QUERIES)))
