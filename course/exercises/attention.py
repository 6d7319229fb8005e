"""练习：亲手写注意力 · Attention by hand (docs/course.md, chapter 5). Run `python -m course.exercises.attention`."""

import torch

from course.exercises.checking import check


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, may_attend: torch.Tensor) -> torch.Tensor:
    """Return softmax(Q K^T / sqrt(d_k)) V, where hidden keys get no weight.

    被遮住的键，权重是 0；每一行的权重加起来是 1。

    Args:
        query: (heads, query_len, head_dim).
        key, value: (heads, key_len, head_dim).
        may_attend: (query_len, key_len), True where a query may look at a key; each row has one True at least.

    Returns:
        (heads, query_len, head_dim).
    """
    raise NotImplementedError


if __name__ == "__main__":
    check("attention", attention)
