"""Words of a text, and which tokens of a model belong to which of them.

Alignments are between words, attention is between tokens. Where a fast tokenizer makes the same ids of the text, it
says itself where each token lies. Else a token is placed in its text by decoding all tokens up to it.
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

    Special tokens and what is not in the text, such as a prefix, have empty spans.

    Args:
        tokenizer: Whose tokens they are.
        ids: Of the tokens.
        text: The text.
        is_source: The ids are of a source, where the tokenizer treats source and target differently.
    """
    if getattr(tokenizer, "is_fast", False):
        encoded = tokenizer(**{"text" if is_source else "text_target": text}, return_offsets_mapping=True)
        if encoded["input_ids"] == ids:
            return [tuple(span) for span in encoded["offset_mapping"]]
    return decoded_spans(tokenizer, ids, text, is_source)


def decoded_spans(tokenizer, ids: list[int], text: str, is_source: bool = False) -> list[Span]:
    """Return what `token_spans` does, by decoding the tokens up to each one: of generated ids, and of any tokenizer.

    A token that adds no character, such as the first byte of one, belongs to the next character.
    """
    options = {"use_source_tokenizer": True} if is_source and getattr(tokenizer, "target_vocab_size", None) else {}

    def decode(count: int) -> str:
        return tokenizer.decode(ids[:count], skip_special_tokens=True, clean_up_tokenization_spaces=False, **options)

    whole, special = decode(len(ids)), set(tokenizer.all_special_ids)
    ends = [0]
    for count in range(1, len(ids)):
        ends.append(max(ends[-1], _agreement(decode(count), whole)))
    places = _places(whole, text)  # of each decoded character in the text, -1 for none
    spans = []
    for token_id, start, end in zip(ids, ends, [*ends[1:], len(whole)]):
        if start == end and token_id not in special:
            end += 1
        found = [place for place in places[start:end] if place >= 0]
        spans.append((min(found), max(found) + 1) if found else (0, 0))
    return spans


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
    """Return a text without case, accents, width and spaces, and where each of its characters was."""
    pairs = [
        (character, i)
        for i, original in enumerate(text)
        for character in unicodedata.normalize("NFKD", original).casefold()
        if not character.isspace() and not unicodedata.combining(character)
    ]
    return "".join(character for character, _ in pairs), [i for _, i in pairs]
