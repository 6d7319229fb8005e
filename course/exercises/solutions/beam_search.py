"""Beam search: the solution, and eight ways to get it wrong."""

import math

END = "</s>"


def grow(alive, next_tokens):
    """Write each prefix one token further: prefix -> sum of log probabilities."""
    grown = {}
    for prefix, total in alive.items():
        for token, probability in next_tokens(prefix).items():
            grown[(*prefix, token)] = total + math.log(probability)
    return grown


def best(hypotheses, count):
    return dict(sorted(hypotheses.items(), key=lambda item: -item[1])[:count])


def score(prefix, total, length_penalty):
    return total / len(prefix) ** length_penalty


def search(next_tokens, beams, max_length, length_penalty, start=0.0, grow=grow):
    alive, finished = {(): start}, {}
    for _ in range(max_length):
        alive = best(grow(alive, next_tokens), beams)
        finished |= {prefix: total for prefix, total in alive.items() if prefix[-1] == END}
        alive = {prefix: total for prefix, total in alive.items() if prefix[-1] != END}
        if not alive:
            break
    finished |= alive
    return list(max(finished, key=lambda prefix: score(prefix, finished[prefix], length_penalty)))


def solution(next_tokens, beams, max_length, length_penalty):
    return search(next_tokens, beams, max_length, length_penalty)


def greedy(next_tokens, beams, max_length, length_penalty):
    return search(next_tokens, 1, max_length, length_penalty)


def without_length_penalty(next_tokens, beams, max_length, length_penalty):
    return search(next_tokens, beams, max_length, 0.0)


def penalty_multiplied(next_tokens, beams, max_length, length_penalty):
    return search(next_tokens, beams, max_length, -length_penalty)


def stops_at_the_first_end(next_tokens, beams, max_length, length_penalty):
    alive = {(): 0.0}
    for _ in range(max_length):
        alive = best(grow(alive, next_tokens), beams)
        ended = [prefix for prefix in alive if prefix[-1] == END]
        if ended:
            return list(ended[0])
    return list(next(iter(alive)))


def unfinished_dropped(next_tokens, beams, max_length, length_penalty):
    alive, finished = {(): 0.0}, {}
    for _ in range(max_length):
        alive = best(grow(alive, next_tokens), beams)
        finished |= {prefix: total for prefix, total in alive.items() if prefix[-1] == END}
        alive = {prefix: total for prefix, total in alive.items() if prefix[-1] != END}
    return list(max(finished, key=lambda prefix: score(prefix, finished[prefix], length_penalty), default=()))


def ended_ones_take_no_place(next_tokens, beams, max_length, length_penalty):
    alive, finished = {(): 0.0}, {}
    for _ in range(max_length):
        grown = best(grow(alive, next_tokens), 2 * beams)
        finished |= {prefix: total for prefix, total in grown.items() if prefix[-1] == END}
        alive = best({prefix: total for prefix, total in grown.items() if prefix[-1] != END}, beams)
        if not alive:
            break
    finished |= alive
    return list(max(finished, key=lambda prefix: score(prefix, finished[prefix], length_penalty)))


def multiply(alive, next_tokens):
    """Write each prefix one token further: prefix -> product of probabilities."""
    grown = {}
    for prefix, product in alive.items():
        grown |= {(*prefix, token): product * share for token, share in next_tokens(prefix).items()}
    return grown


def without_logarithm(next_tokens, beams, max_length, length_penalty):
    return search(next_tokens, beams, max_length, length_penalty, 1.0, multiply)


def best_of_each_prefix(next_tokens, beams, max_length, length_penalty):
    alive, finished = best(grow({(): 0.0}, next_tokens), beams), {}
    for _ in range(max_length):
        finished |= {prefix: total for prefix, total in alive.items() if prefix[-1] == END}
        alive = {prefix: total for prefix, total in alive.items() if prefix[-1] != END}
        if not alive or len(next(iter(alive))) == max_length:
            break
        grown = [best(grow({prefix: total}, next_tokens), 1) for prefix, total in alive.items()]
        alive = {prefix: total for one in grown for prefix, total in one.items()}
    finished |= alive
    return list(max(finished, key=lambda prefix: score(prefix, finished[prefix], length_penalty)))


def garden_path(prefix: tuple[str, ...]) -> dict[str, float]:
    """A likely first word that leads nowhere: greedy search falls for it."""
    if not prefix:
        return {"the": 0.5, "a": 0.4, END: 0.1}
    if prefix[0] == "the":
        return {"cat": 0.3, "dog": 0.3, END: 0.4} if len(prefix) == 1 else {END: 0.9, "sat": 0.1}
    return {"dog": 0.9, END: 0.1} if len(prefix) == 1 else {END: 0.95, "ran": 0.05}


def two_of_one_family(prefix: tuple[str, ...]) -> dict[str, float]:
    """The two best texts begin alike, so that both beams have to go to one prefix."""
    if not prefix:
        return {"x": 0.7, "y": 0.3}
    if prefix[0] == "x":
        follow = {(): {"p": 0.52, "q": 0.48}, ("p",): {"r": 0.5, END: 0.5}, ("q",): {END: 0.9, "r": 0.1}}
        return follow.get(prefix[1:], {END: 1.0})
    return {END: 0.6, "z": 0.4} if len(prefix) == 1 else {END: 1.0}


def long_or_short(prefix: tuple[str, ...]) -> dict[str, float]:
    """A short text with the higher sum, and a long one with the higher mean."""
    if not prefix:
        return {"go": 0.55, "please": 0.45}
    if prefix[0] == "go":
        return {END: 0.7, "on": 0.3}
    return {"come": 0.9, END: 0.1} if len(prefix) == 1 else ({"in": 0.9, END: 0.1} if len(prefix) == 2 else {END: 1.0})


def early_end(prefix: tuple[str, ...]) -> dict[str, float]:
    """A text that ends at once takes the place of a beginning that would have gone on well."""
    if not prefix:
        return {END: 0.35, "a": 0.33, "b": 0.32}
    return {"a": {"x": 0.5, END: 0.5}, "b": {END: 1.0}}[prefix[0]] if len(prefix) == 1 else {END: 1.0}


def one_or_two(prefix: tuple[str, ...]) -> dict[str, float]:
    """Where probabilities are divided in place of their logarithms, a text of one token wins."""
    if not prefix:
        return {END: 0.3, "b": 0.7}
    return {END: 0.7, "c": 0.3} if len(prefix) == 1 else {END: 1.0}


CASES = [
    (garden_path, 2, 5, 0.0),
    (garden_path, 3, 5, 1.0),
    (two_of_one_family, 2, 6, 0.0),
    (long_or_short, 2, 6, 1.0),
    (long_or_short, 2, 3, 1.0),
    (long_or_short, 2, 6, 0.0),
    (early_end, 2, 5, 1.0),
    (one_or_two, 2, 5, 1.0),
]

MISTAKES = {
    "这是贪心搜索：每步只留了一个前缀。 · This is greedy search: one prefix is kept at each step.": greedy,
    "没有用 length_penalty。 · length_penalty is not used.": without_length_penalty,
    "应该除以长度的 length_penalty 次方，不是乘。 · Divide by the length to the power of length_penalty, do not "
    "multiply.": penalty_multiplied,
    "遇到第一个 END 就停了：后面可能有更好的。 · It stops at the first END: a better text may end later.": (
        stops_at_the_first_end
    ),
    "已完成的也占名额：这里每步一共留 beams 个。（transformers 会补满，是另一种做法。） · Those that ended take a "
    "place, too: `beams` are kept of all. (transformers fills up, which is another search.)": ended_ones_take_no_place,
    "没有取对数：概率的乘积除以长度不是平均，要用对数概率之和。 · Logarithms are missing: a product of "
    "probabilities divided by a length is no mean, use sums of log probabilities.": without_logarithm,
    "写满 max_length 而没有 END 的前缀被丢掉了。 · What is alive after max_length tokens is "
    "dropped.": unfinished_dropped,
    "每个前缀各留一个：要把所有的放在一起比，最好的两个可能来自同一个前缀。 · Each prefix keeps its own best: compare "
    "all of them together, as the best two may come from one prefix.": best_of_each_prefix,
}
