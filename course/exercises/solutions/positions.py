"""Sinusoidal positions: the solution, and six ways to get it wrong."""

import torch


def encode(positions, exponents):
    angles = positions[:, None] / 10000.0 ** exponents[None, :]  # (length, d_model / 2)
    return angles.sin(), angles.cos()


def interleave(even, odd):
    return torch.stack((even, odd), dim=-1).flatten(-2)  # (length, d_model)


def exponents_of(d_model):
    return torch.arange(0, d_model, 2) / d_model  # 2i / d_model


def solution(length, d_model):
    return interleave(*encode(torch.arange(length), exponents_of(d_model)))


def exponent_doubled(length, d_model):
    return interleave(*encode(torch.arange(length), 2 * exponents_of(d_model)))


def exponent_halved(length, d_model):
    return interleave(*encode(torch.arange(length), exponents_of(d_model) / 2))


def cosine_first(length, d_model):
    sine, cosine = encode(torch.arange(length), exponents_of(d_model))
    return interleave(cosine, sine)


def in_halves(length, d_model):
    return torch.cat(encode(torch.arange(length), exponents_of(d_model)), dim=-1)


def from_one(length, d_model):
    return interleave(*encode(torch.arange(1, length + 1), exponents_of(d_model)))


def multiplied(length, d_model):
    return interleave(*encode(torch.arange(length), -exponents_of(d_model)))


CASES = [(6, 8), (3, 4), (40, 16)]

MISTAKES = {
    "指数多乘了 2：torch.arange(0, d_model, 2) 已经是 2i。 · The exponent is doubled: torch.arange(0, d_model, 2) is "
    "2i already.": exponent_doubled,
    "指数是 i / d_model，应该是 2i / d_model。 · The exponent is i / d_model; it has to be 2i / "
    "d_model.": exponent_halved,
    "正弦和余弦对调了：偶数列是正弦。 · Sine and cosine have changed places: even columns are sines.": cosine_first,
    "先放了所有正弦，再放余弦：论文里两者交替。 · All sines come first, then all cosines: the paper has them in "
    "turn.": in_halves,
    "位置从 1 开始了，应该从 0 开始。 · Positions begin with 1; the first one is 0.": from_one,
    "乘以了 10000^(2i/d)，应该除以它。 · Positions are multiplied by 10000^(2i/d); divide them.": multiplied,
}
