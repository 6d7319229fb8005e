"""The mask of a decoder: the solution, and six ways to get it wrong."""

import torch


def causal(length):
    places = torch.arange(length)
    return places[None, :] <= places[:, None]  # (query_len, key_len)


def solution(attention_mask):
    return causal(attention_mask.shape[1]) & attention_mask.bool()[:, None, :]  # (batch, length, length)


def looks_ahead_only(attention_mask):
    return causal(attention_mask.shape[1]).T & attention_mask.bool()[:, None, :]


def not_at_itself(attention_mask):
    earlier = causal(attention_mask.shape[1]) & ~torch.eye(attention_mask.shape[1], dtype=torch.bool)
    return earlier & attention_mask.bool()[:, None, :]


def padding_forgotten(attention_mask):
    return causal(attention_mask.shape[1]).expand(attention_mask.shape[0], -1, -1)


def padding_of_queries(attention_mask):
    return causal(attention_mask.shape[1]) & attention_mask.bool()[:, :, None]


def future_not_hidden(attention_mask):
    return attention_mask.bool()[:, None, :].expand(-1, attention_mask.shape[1], -1)


def turned_round(attention_mask):
    return ~solution(attention_mask)


CASES = [(torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),), (torch.tensor([[1, 1, 1]]),)]

MISTAKES = {
    "方向反了：现在每个词只能看后面的词。 · Queries and keys have changed places: a token sees those after "
    "it.": looks_ahead_only,
    "每个词也要能看自己，否则第一个词什么都看不到。 · A token may look at itself, else the first one sees "
    "nothing.": not_at_itself,
    "忘了遮住填充。 · Padding is not hidden.": padding_forgotten,
    "遮住的应该是作为键的填充（列），不是作为查询的填充（行）。 · Hide padding as keys (columns), not as queries "
    "(rows): a row of False leaves nothing to look at.": padding_of_queries,
    "没有遮住后面的词：训练时模型会看到答案。 · Later tokens are not hidden: in training the model sees the "
    "answer.": future_not_hidden,
    "反了：True 表示可以看。 · It is turned round: True means that a token may look.": turned_round,
}
