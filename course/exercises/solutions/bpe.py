"""The merges of BPE: the solution, and seven ways to get them wrong."""

from collections import Counter
from itertools import pairwise


def count_pairs(words, weigh=True):
    pairs = Counter()
    for pieces, number in words.items():
        for pair in pairwise(pieces):
            pairs[pair] += number if weigh else 1
    return pairs


def join(pieces, pair):
    joined, place = [], 0
    while place < len(pieces):
        step = 2 if pieces[place : place + 2] == pair else 1
        joined.append("".join(pieces[place : place + step]))
        place += step
    return tuple(joined)


def join_words(words, pair):
    joined = Counter()
    for pieces, number in words.items():
        joined[join(pieces, pair)] += number
    return joined


def first_sorted(pairs):
    return min(pairs, key=lambda pair: (-pairs[pair], pair))


def learn(words, count, weigh=True, choose=first_sorted):
    """Learn merges; `choose` takes the next one of the counted pairs."""
    left, merges = {tuple(word): number for word, number in words.items()}, []
    for _ in range(count):
        pairs = count_pairs(left, weigh)
        if not pairs:
            break
        merges.append(choose(pairs))
        left = join_words(left, merges[-1])
    return merges


def solution(words, count):
    return learn(words, count)


def words_counted_once(words, count):
    return learn(words, count, weigh=False)


def last_of_equals(words, count):
    return learn(words, count, choose=lambda pairs: max(pairs, key=lambda pair: (pairs[pair], pair)))


def first_seen_of_equals(words, count):
    return learn(words, count, choose=lambda pairs: max(pairs, key=lambda pair: pairs[pair]))


def rarest_first(words, count):
    return learn(words, count, choose=lambda pairs: min(pairs, key=lambda pair: (pairs[pair], pair)))


def joined_as_text(words, count):
    left, merges = {" ".join(word): number for word, number in words.items()}, []
    for _ in range(count):
        pairs = count_pairs({tuple(word.split()): number for word, number in left.items()})
        if not pairs:
            break
        merges.append(first_sorted(pairs))
        joined = Counter()
        for word, number in left.items():
            joined[word.replace(" ".join(merges[-1]), "".join(merges[-1]))] += number
        left = joined
    return merges


def never_counted_again(words, count):
    pairs = count_pairs({tuple(word): number for word, number in words.items()})
    return sorted(pairs, key=lambda pair: (-pairs[pair], pair))[:count]


def joined_across_words(words, count):
    text = tuple("".join(word * number for word, number in words.items()))
    return learn({"".join(text): 1}, count)


CASES = [
    ({"low": 5, "lower": 2, "newest": 6, "widest": 3}, 6),
    ({"aaab": 1, "ab": 3}, 3),
    ({"ab": 1, "cd": 1}, 9),
    ({"ba": 2, "ab": 2}, 2),
    ({"ab": 2, "baaba": 3, "acbac": 5, "aaacba": 2}, 6),
]

MISTAKES = {
    "每个词只数了一次：要乘上词频。 · Each word is counted once: count it as often as it occurs.": words_counted_once,
    "一样多时取了最后一对，应取字典序最小的。 · Of equal pairs the last one was taken: take the first of the sorted "
    "ones.": last_of_equals,
    "一样多时取了最先见到的一对，应取字典序最小的。 · Of equal pairs the one that was seen first was taken: take the "
    "first of the sorted ones.": first_seen_of_equals,
    "用字符串替换来合并，会把 “xa b” 里的 “a b” 也并掉：要按整块比较。 · Joining by str.replace also finds “a b” in "
    "“xa b”: compare whole pieces.": joined_as_text,
    "合并之后没有重新数：新的块从不会再被合并。 · Pairs are not counted again after a merge: what was joined is never "
    "joined further.": never_counted_again,
    "取了最少的一对，应取最多的。 · The rarest pair was taken: take the most frequent one.": rarest_first,
    "跨词合并了：一个词的最后一块和下一个词的第一块不是相邻的。 · Pairs go across words: the end of a word and the "
    "beginning of the next are no neighbours.": joined_across_words,
}
