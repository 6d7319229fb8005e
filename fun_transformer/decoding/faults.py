"""Outputs that are no good translation: loops, runaways, cut-off ends, copies, nothing at all. Found by their text.

The limits are such that of 26,360 pairs that people translated (Tatoeba, Chinese and English) hardly one has a fault:
docs/decoding.md has the figures.

    >>> find_faults("我喜欢猫。", "I like cats and cats and cats and cats and cats")
    ['loop']
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import regex

from .words import SPACELESS, WORD, split_words

FAULTS = ("loop", "empty", "unfinished", "long", "copy", "short")  # what `find_faults` names, worst first

# A loop is a phrase that is there several times running; few words are so on purpose ("no, no, no").
LEAST_REPEATS = {1: 5, 2: 4}  # by the number of words in the phrase; 3 for longer ones
LONGEST_PHRASE = 40  # words
LEAST_CYCLES, LONGEST_CYCLE = 8, 12  # as often, for up to 12 characters: "hahahahahahahaha"
# Or a phrase of three words that comes back, with others between, until it is a third of the text.
RETURNING, RETURNS, RETURN_SHARE = 3, 4, 1 / 3

LONGEST_RATIO, SHORTEST_RATIO = 3.0, 1 / 3  # of the sizes of target and source
LONG = 600  # letters of a source whose repetitions count: they are more than a long laugh
SLACK = 12  # letters added to both: short texts vary more
WIDE = regex.compile(rf"[{SPACELESS}\p{{Hangul}}]")
WIDE_SIZE = 3  # letters of an alphabet that one such character counts for

VISIBLE = regex.compile(r"[\p{L}\p{N}]")
# What is the same in every language: addresses, numbers, code, tags, placeholders.
UNTRANSLATED = regex.compile(r"\S*(?:://|@|www\.)\S*|`[^`]*`|<[^<>]*>|\S*[\d_]\S*")
COPIED = 0.8  # of the words that are to be translated
LEAST_COPIED = 2  # words; of hanzi and kana twice that


@dataclass(frozen=True)
class Loop:
    """A phrase that is repeated: text[start:end] is said once and then again until `stop`."""

    start: int
    end: int
    stop: int
    repeats: int


def find_faults(source: str, target: str, finished: bool = True, is_translation: bool = True) -> list[str]:
    """Return the names of what is wrong with an output, worst first; none for a good one.

    Args:
        source: The source text.
        target: What was generated for it.
        finished: It ends with `</s>`, rather than at the greatest length.
        is_translation: The target says the same as the source, so that copies are faults and lengths are comparable.

    Returns:
        Of `FAULTS`: "loop" for a phrase that is repeated more often than in the source, "empty" for no letter and no
        digit though the source has some, "unfinished", "long" and "short" for another length than the source has,
        "copy" for a source that was left as it is.
    """
    found = []
    if find_loop(target, repeats_of(source)):
        found.append("loop")
    if VISIBLE.search(source) and not VISIBLE.search(target):
        found.append("empty")
    if not finished:
        found.append("unfinished")
    if is_translation and "empty" not in found:
        size = text_size(source)
        size = size if size > LONG else text_size(without_loops(source))
        ratio = (text_size(target) + SLACK) / (size + SLACK)
        found += ["long"] if ratio > LONGEST_RATIO else ["short"] if ratio < SHORTEST_RATIO else []
        found += ["copy"] if is_copy(source, target) else []
    return sorted(found, key=FAULTS.index)


def text_size(text: str) -> int:
    """Return how much a text says, in letters of an alphabet."""
    visible = VISIBLE.findall(text)
    return len(visible) + (WIDE_SIZE - 1) * len(WIDE.findall(text))


def repeats_of(text: str) -> int:
    """Return how often a text repeats a phrase running, at most; 1 for a text that repeats none."""
    words = [word.casefold() for word in split_words(text)]
    characters = [character for character in text.casefold() if not character.isspace()]
    runs = [*_runs(words, LONGEST_PHRASE), *_runs(characters, LONGEST_CYCLE)]
    return max((run[2] for run in runs), default=1)


def find_loop(text: str, allowed: int = 1) -> Loop | None:
    """Return the longest loop of a text, None where there is none.

    Args:
        text: Where to look.
        allowed: How often the source repeats something: as often may the text, and once more.
    """
    words = [match.span() for match in WORD.finditer(text)]
    letters = [(i, i + 1) for i, character in enumerate(text) if not character.isspace()]
    found = []
    for spans, longest in ((words, LONGEST_PHRASE), (letters, LONGEST_CYCLE)):
        items = [text[start:end].casefold() for start, end in spans]
        for start, phrase, repeats in _runs(items, longest):
            least = LEAST_REPEATS.get(phrase, 3) if spans is words else LEAST_CYCLES
            if repeats >= least and repeats > allowed + 1:
                stop = spans[start + phrase * repeats - 1][1]
                found.append(Loop(spans[start][0], spans[start + phrase - 1][1], stop, repeats))
    return max(found, key=lambda loop: loop.stop - loop.end, default=None) or _returning_phrase(text, words, allowed)


def without_loops(text: str, allowed: int = 1) -> str:
    """Return a text that says each phrase once which it repeats; `allowed` as in `find_loop`."""
    while loop := find_loop(text, allowed):
        text = text[: loop.end] + text[loop.stop :]
    return text


def is_copy(source: str, target: str) -> bool:
    """Tell whether a target is the source left untranslated, as far as there is anything to translate.

    Addresses, numbers, code and names stay as they are: words that begin with a capital, but not the first one and
    not in a text of capitals.
    """
    text = UNTRANSLATED.sub(" ", source)
    words = [word for word in split_words(text) if regex.match(r"\p{L}", word)]
    if not text.isupper():
        words = words[:1] + [word for word in words[1:] if word[:1] == word[:1].lower()]
    wide = sum(bool(WIDE.match(word)) for word in words)
    if len(words) < LEAST_COPIED * (2 if 2 * wide > len(words) else 1):
        return False
    there = Counter(word.casefold() for word in split_words(target))
    copied = Counter(word.casefold() for word in words) & there
    return copied.total() >= COPIED * len(words)


def _runs(items: Sequence[str], longest: int) -> list[tuple[int, int, int]]:
    """Return the phrases that are repeated running: (start, items of the phrase, repeats), repeats at least 2."""
    found = []
    for phrase in range(1, min(longest, len(items) // 2) + 1):
        run = 0  # items that equal the one a phrase before
        for i in range(phrase, len(items) + 1):
            if i < len(items) and items[i] == items[i - phrase]:
                run += 1
                continue
            if run >= phrase:
                found.append((i - run - phrase, phrase, run // phrase + 1))
            run = 0
    return found


def _returning_phrase(text: str, spans: list[tuple[int, int]], allowed: int) -> Loop | None:
    """Return a loop with other words between: its first phrase, repeated to the end of the last."""
    spans = [(start, end) for start, end in spans if VISIBLE.search(text[start:end])]  # signs come back anyhow
    words = [text[start:end].casefold() for start, end in spans]
    places: dict[tuple[str, ...], list[int]] = {}
    for i in range(len(words) - RETURNING + 1):
        places.setdefault(tuple(words[i : i + RETURNING]), []).append(i)
    most = max(places.values(), key=len, default=[])
    if len(most) < max(RETURNS, allowed + 2) or len(most) * RETURNING < RETURN_SHARE * len(words):
        return None
    return Loop(spans[most[0]][0], spans[most[1] - 1][1], spans[most[-1] + RETURNING - 1][1], len(most))
