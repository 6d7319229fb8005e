"""练习：学习 BPE 的合并规则 · Learn the merges of BPE (docs/course.md, chapter 2).

Run `python -m course.exercises.bpe`.
"""

from course.exercises.checking import check


def learn_merges(words: dict[str, int], count: int) -> list[tuple[str, str]]:
    """Return the first merges of byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909).

    每一步：找出出现最多的相邻两块（按词频计数；一样多时取字典序最小的），把它们合并成一块，再重新数。

    Each word begins as its letters. In each step, count the pairs of neighbours in all words (as often as the word
    occurs), take the most frequent one (of equals the first in the order of `sorted`), and join it wherever it is,
    from left to right. Stop early when no pair is left.

    Args:
        words: Words and how often they occur.
        count: Merges to learn.

    Returns:
        Pairs of pieces, in the order in which they were learned.
    """
    raise NotImplementedError


if __name__ == "__main__":
    check("bpe", learn_merges)
