"""Text infilling, the noise of BART (Lewis et al. 2020, arXiv:1910.13461, section 2.2): spans of a text become a mask.

A span of any length becomes one mask, so that a model that writes the text again must also learn how many tokens are
missing. Three tenths of the tokens are hidden, in spans whose lengths have a Poisson distribution with lambda 3, as in
the paper; but a span has at least one token here, so that no text gets longer, and spans do not touch.
"""

import math
import random
from collections.abc import Collection
from itertools import accumulate

import numpy as np

HIDDEN = 0.3  # of the tokens
LAMBDA = 3.0  # of the lengths of spans
LENGTHS = range(1, 13)  # 4 of 100,000 spans would be longer
CUMULATIVE = list(accumulate(LAMBDA**length / math.factorial(length) for length in LENGTHS))


def hide_spans(ids: np.ndarray, mask_id: int, kept: Collection[int], rng: random.Random) -> np.ndarray:
    """Return a text with spans of its tokens hidden.

    Args:
        ids: (length,) Tokens of a text.
        mask_id: Takes the place of a span.
        kept: Tokens that stay where a text begins or ends with them: its language, its end.
        rng: Decides which spans.

    Returns:
        (new_length,), at most as long; the text as it is where there is nothing to hide.
    """
    tokens = ids.tolist()
    first, last = 0, len(tokens)
    while first < last and tokens[first] in kept:
        first += 1
    while last > first and tokens[last - 1] in kept:
        last -= 1
    hidden = math.ceil(HIDDEN * (last - first))
    if not hidden:
        return ids
    lengths, left = [], hidden
    for length in rng.choices(LENGTHS, cum_weights=CUMULATIVE, k=hidden):
        if left:
            lengths.append(min(length, left))
            left -= lengths[-1]
    # A span comes after a number of tokens that are shown: choosing different numbers keeps spans apart.
    shown_before = sorted(rng.sample(range(last - first - hidden + 1), len(lengths)))
    noisy, place, gone = tokens[:first], first, 0
    for shown, length in zip(shown_before, lengths, strict=True):
        start = first + shown + gone
        noisy += [*tokens[place:start], mask_id]
        place, gone = start + length, gone + length
    return np.array(noisy + tokens[place:], dtype=ids.dtype)
