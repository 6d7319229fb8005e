"""练习：解码器的掩码 · The mask of a decoder (docs/course.md, chapter 3). Run `python -m course.exercises.masks`."""

import torch

from course.exercises.checking import check


def decoder_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """Return which tokens of the target may look at which: itself and those before it, but not padding.

    每个词可以看自己和前面的词，但不能看填充。

    Args:
        attention_mask: (batch, length), 1 = token, 0 = padding.

    Returns:
        (batch, length, length), True where the query (axis 1) may look at the key (axis 2).
    """
    raise NotImplementedError


if __name__ == "__main__":
    check("masks", decoder_mask)
