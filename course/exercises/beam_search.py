"""练习：束搜索 · Beam search (docs/course.md, chapter 10). Run `python -m course.exercises.beam_search`."""

from collections.abc import Callable

from course.exercises.checking import check

END = "</s>"


def beam_search(
    next_tokens: Callable[[tuple[str, ...]], dict[str, float]], beams: int, max_length: int, length_penalty: float
) -> list[str]:
    """Return the text with the best score: the sum of log probabilities / (tokens, END included) ** length_penalty.

    每一步：把所有还活着的前缀都向前写一个词，合在一起，只留下总分（对数概率之和）最高的 beams 个；
    以 END 结尾的就完成了，不再往下写。写满 max_length 个词就停，没写完的也参加最后的比较。

    In each step, write all prefixes that are alive one token further, and keep the `beams` with the highest sums of
    all together. Those that end in END are finished and take no place in the next step. Stop when none is alive, or
    after `max_length` tokens: what is alive then counts, too.

    Args:
        next_tokens: Gives the probability of each next token after a prefix; () is the empty one.
        beams: Prefixes that are kept.
        max_length: Tokens at most.
        length_penalty: 0 compares sums, 1 means.

    Returns:
        The tokens, with END if it was written.
    """
    raise NotImplementedError


if __name__ == "__main__":
    check("beam_search", beam_search)
