"""From labels to decoder inputs: the solution, and five ways to get it wrong."""

import torch


def begin(labels, start):
    return torch.full_like(labels[:, :1], start)  # (batch, 1)


def without_ignored(ids, pad):
    return ids.masked_fill(ids == -100, pad)


def solution(labels, start, pad):
    return without_ignored(torch.cat([begin(labels, start), labels[:, :-1]], dim=1), pad)  # (batch, length)


def not_shifted(labels, start, pad):
    return without_ignored(labels, pad)


def shifted_twice(labels, start, pad):
    return solution(solution(labels, start, pad), start, pad)


def shifted_left(labels, start, pad):
    return without_ignored(torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], pad)], dim=1), pad)


def ignored_stays(labels, start, pad):
    return torch.cat([begin(labels, start), labels[:, :-1]], dim=1)


def one_too_long(labels, start, pad):
    return without_ignored(torch.cat([begin(labels, start), labels], dim=1), pad)  # (batch, length + 1)


CASES = [
    (torch.tensor([[5, 6, 7, 2], [8, 2, -100, -100]]), 1, 0),
    (torch.tensor([[9, 4, 2]]), 3, 1),
]

MISTAKES = {
    "没有右移：解码器读到的就是它要预测的词，损失会很快降到 0。 · Nothing is shifted: the decoder reads the very "
    "token that it has to predict, and the loss falls to 0.": not_shifted,
    "右移了两次：每个位置少读一个词。 · It is shifted twice: the token before is missing at each "
    "place.": shifted_twice,
    "方向反了：左移让解码器读到后面的词。 · It is shifted to the left: the decoder reads the next "
    "token.": shifted_left,
    "-100 还在：词嵌入没有第 -100 行，要换成 pad。 · -100 is still there: an embedding has no such row, use "
    "pad.": ignored_stays,
    "长了一个：最后一个词不用再读。 · It is one too long: the last token is predicted, not read.": one_too_long,
}
