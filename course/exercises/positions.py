"""练习：正弦位置编码 · Sinusoidal positions (docs/course.md, chapter 8).

Run `python -m course.exercises.positions`.
"""

import torch

from course.exercises.checking import check


def sinusoidal_positions(length: int, d_model: int) -> torch.Tensor:
    """Return the paper's encoding of the positions 0, 1, ..., length - 1 (section 3.5).

        PE(pos, 2i)     = sin(pos / 10000^(2i / d_model))
        PE(pos, 2i + 1) = cos(pos / 10000^(2i / d_model))

    偶数列是正弦，奇数列是余弦。

    Args:
        length: How many positions.
        d_model: Numbers of each, even.

    Returns:
        (length, d_model).
    """
    raise NotImplementedError


if __name__ == "__main__":
    check("positions", sinusoidal_positions)
