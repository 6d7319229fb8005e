"""Attention by hand: the solution, and seven ways to get it wrong."""

import torch

HIDDEN = torch.finfo(torch.float32).min


def scores_of(query, key):
    return query @ key.transpose(-2, -1)  # (heads, query_len, key_len)


def solution(query, key, value, may_attend):
    scores = scores_of(query, key) / query.shape[-1] ** 0.5
    weights = scores.masked_fill(~may_attend, HIDDEN).softmax(-1)
    return weights @ value  # (heads, query_len, head_dim)


def without_scaling(query, key, value, may_attend):
    return scores_of(query, key).masked_fill(~may_attend, HIDDEN).softmax(-1) @ value


def scaled_by_the_whole_dimension(query, key, value, may_attend):
    scores = scores_of(query, key) / query.shape[-1]
    return scores.masked_fill(~may_attend, HIDDEN).softmax(-1) @ value


def softmax_over_queries(query, key, value, may_attend):
    scores = scores_of(query, key) / query.shape[-1] ** 0.5
    return scores.masked_fill(~may_attend, HIDDEN).softmax(-2) @ value


def without_mask(query, key, value, may_attend):
    return (scores_of(query, key) / query.shape[-1] ** 0.5).softmax(-1) @ value


def mask_after_softmax(query, key, value, may_attend):
    weights = (scores_of(query, key) / query.shape[-1] ** 0.5).softmax(-1)
    return weights.masked_fill(~may_attend, 0.0) @ value


def mask_as_zeros(query, key, value, may_attend):
    scores = scores_of(query, key) / query.shape[-1] ** 0.5
    return scores.masked_fill(~may_attend, 0.0).softmax(-1) @ value


def mask_turned_round(query, key, value, may_attend):
    scores = scores_of(query, key) / query.shape[-1] ** 0.5
    return scores.masked_fill(may_attend, HIDDEN).softmax(-1) @ value


def make_case(seed: int, query_len: int, key_len: int) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(2, query_len, 4, generator=generator)
    key, value = torch.randn(2, 2, key_len, 4, generator=generator)
    may_attend = torch.rand(query_len, key_len, generator=generator) < 0.6
    may_attend[:, 0] = True
    return query, key, value, may_attend


CASES = [make_case(1, 3, 3), make_case(2, 2, 5)]

MISTAKES = {
    "没有除以 sqrt(d_k)。 · The scores are not divided by sqrt(d_k).": without_scaling,
    "除以了 d_k，应该除以它的平方根。 · Divide by the square root of d_k, not by d_k.": scaled_by_the_whole_dimension,
    "softmax 的方向错了：每个查询的权重之和应为 1，要对键做 softmax。 · The softmax is over the queries: the weights "
    "of each query have to sum to 1 over the keys (dim=-1).": softmax_over_queries,
    "没有用掩码。 · The mask is not used.": without_mask,
    "softmax 之后才遮，权重加起来不到 1：要在 softmax 之前把分数变成很小的数。 · The mask comes after the softmax, so "
    "weights do not sum to 1: hide scores before it.": mask_after_softmax,
    "把分数填成了 0：exp(0) = 1，被遮住的键仍有权重，要填一个很小的数。 · Hidden scores became 0, and exp(0) = 1: "
    "fill in a very small number.": mask_as_zeros,
    "掩码反了：True 表示可以看。 · The mask is turned round: True means that a query may look.": mask_turned_round,
}
