"""练习：右移标签 · From labels to decoder inputs (docs/course.md, chapter 1).

Run `python -m course.exercises.labels`.
"""

import torch

from course.exercises.checking import check


def shift_right(labels: torch.Tensor, start: int, pad: int) -> torch.Tensor:
    """Return what the decoder reads in training, so that at each place it predicts the label of this place.

    解码器在第 i 个位置只读到第 i 个词之前的词，并预测第 i 个词。

    Args:
        labels: (batch, length), with -100 where the loss counts nothing.
        start: The token that a target begins with.
        pad: The token of padding: an embedding has no row -100.

    Returns:
        (batch, length).
    """
    raise NotImplementedError


if __name__ == "__main__":
    check("labels", shift_right)
