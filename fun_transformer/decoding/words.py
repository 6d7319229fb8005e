"""Words of a text, and which tokens of a model belong to which of them.

Alignments are between words, attention is between tokens. A token is placed in its text by decoding the tokens up to
it: that works for every tokenizer, slow and fast, for what was encoded and for what was generated.
"""

import difflib
import unicodedata
from collections.abc import Callable

import regex
import torch

# A hanzi or kana by itself, a run of letters or digits, any other sign by itself.
SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}"
WORD = regex.compile(rf"[{SPACELESS}]\p{{M}}*|[^\W{SPACELESS}_](?:[^\W{SPACELESS}]|\p{{M}}|['’.,-](?=\p{{L}}|\d))*|\S")
Splitter = Callable[[str], list[str]]
Span = tuple[int, int]


def split_words(text: str) -> list[str]:
    """Return the words of a text: runs of letters or digits, signs by themselves, and each hanzi or kana by itself.

    >>> split_words("Tom's 3.5 apples, 很好!")
    ["Tom's", '3.5', 'apples', ',', '很', '好', '!']
    """
    return WORD.findall(text)


def word_spans(text: str, words: list[str]) -> list[Span]:
    """Return where each word begins and ends in its text.

    Raises:
        ValueError: A word is not in the text, after the one before it.
    """
    spans, position = [], 0
    for word in words:
        start = text.find(word, position)
        if start < 0:
            raise ValueError(f"The word {word!r} is not in {text[position:]!r}: give the words of the text in order.")
        position = start + len(word)
        spans.append((start, position))
    return spans


def token_spans(tokenizer, ids: list[int], text: str, is_source: bool = False) -> list[Span]:
    """Return where each token begins and ends in the text that it was made of, or that was made of it.

    Special tokens and what is not in the text, such as a prefix, have empty spans. An unknown token has the span that
    the tokens around it leave.

    Args:
        tokenizer: Whose tokens they are.
        ids: Of the tokens.
        text: The text, of which the tokenizer may have changed case or form.
        is_source: The ids are of a source, where the tokenizer has a vocabulary for each side.
    """
    options = {"use_source_tokenizer": True} if is_source and getattr(tokenizer, "target_vocab_size", None) else {}

    def decode(count: int) -> str:
        return tokenizer.decode(ids[:count], skip_special_tokens=True, clean_up_tokenization_spaces=False, **options)

    whole = decode(len(ids))
    ends, is_split = [0], []
    for count in range(1, len(ids) + 1):
        prefix = decode(count)
        is_split.append(prefix.endswith("\ufffd") and not whole.startswith(prefix))  # a part of a character
        ends.append(max(ends[-1], _agreement(prefix, whole)))
    places = _places(whole, text)  # of each decoded character in the text, -1 for none
    spans = []
    for start, end, split in zip(ends, ends[1:], is_split):
        found = [place for place in places[start : max(end, start + split)] if place >= 0]
        spans.append((min(found), max(found) + 1) if found else (0, 0))
    unknown = [i for i, token_id in enumerate(ids) if token_id == tokenizer.unk_token_id]
    return _fill_gaps(spans, unknown, len(text))


def _agreement(prefix: str, whole: str) -> int:
    """Return how many characters at the beginning of two texts are the same."""
    return next((i for i, (a, b) in enumerate(zip(prefix, whole)) if a != b), min(len(prefix), len(whole)))


def word_shares(tokens: list[Span], words: list[Span], text: str) -> torch.Tensor:
    """Return how much of each token lies in each word, (tokens, words): shares of its visible characters."""
    shares = torch.zeros(len(tokens), len(words))
    for i, (start, end) in enumerate(tokens):
        visible = sum(not character.isspace() for character in text[start:end])
        for j, (word_start, word_end) in enumerate(words):
            shares[i, j] = max(0, min(end, word_end) - max(start, word_start)) / max(visible, 1)
    return shares


def _places(decoded: str, text: str) -> list[int]:
    """Return the place in a text of each character of what was decoded, -1 where it has none."""
    if decoded == text:
        return list(range(len(text)))
    a, a_places = _normalise(decoded)
    b, b_places = _normalise(text)
    places = [-1] * len(decoded)
    for block in difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks():
        for offset in range(block.size):
            places[a_places[block.a + offset]] = b_places[block.b + offset]
    return places


def _normalise(text: str) -> tuple[str, list[int]]:
    """Return a text without case, width and spaces, and where each of its characters was."""
    pairs = [
        (character, i)
        for i, original in enumerate(text)
        for character in unicodedata.normalize("NFKC", original).casefold()
        if not character.isspace()
    ]
    return "".join(character for character, _ in pairs), [i for _, i in pairs]


def _fill_gaps(spans: list[Span], unknown: list[int], length: int) -> list[Span]:
    """Give unknown tokens the part of the text between the tokens around them."""
    filled = list(spans)
    for i in unknown:
        before = max((end for _, end in filled[:i]), default=0)
        after = min((start for start, end in filled[i + 1 :] if end > start), default=length)
        if spans[i] == (0, 0) and after > before:
            filled[i] = (before, after)
    return filled
