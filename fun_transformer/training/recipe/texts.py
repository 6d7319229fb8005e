"""What `tokenizer.type: auto` and `generation.metrics: auto` mean: the kind of text on each side decides.

Letters to sounds, inflection and transliteration are translations, too, of words instead of sentences. Cut into
sub-words they are learned badly: with a few thousand words there is too little of each piece. A side is of the kind

- `symbols`, where a row has several short parts with spaces between, of a small inventory: "AE N D ER S AH N";
- `word`, where it is one short word, perhaps with grammatical tags: "Haus", "gehen V;PST;3;SG";
- `sentence` otherwise. Chinese and other scripts without spaces count as words only if short and without punctuation.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from ..tables import OBJECTIVES
from .arguments import AUTO, RunArguments, TokenizerArguments
from .base import starts_from_model

Kind = Literal["sentence", "word", "symbols"]
MOST = 0.95  # of the rows that must be of a kind: a few may be odd
LONGEST_WORD = 40  # characters
LONGEST_WORD_WITHOUT_SPACES = 10  # in scripts where a sentence has none
LONGEST_SYMBOL = 3.0  # characters in the mean; English words have five
MOST_SYMBOLS = 500  # different ones; Chinese written with spaces has thousands
NO_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
SENTENCE_MARKS = re.compile(r"[.!?…。！？，、；：,;:]")
TAG = re.compile(r"<\S+>|\S*[;|=+]\S*|[A-Z0-9.]+")
SYMBOLS = 8_000  # at most, in vocabularies of characters or words
SHARED = 0.5  # of the characters of the side with fewer: from here on both sides have one vocabulary
FIELDS = ("type", "target_type", "vocab_size", "target_vocab_size")
WORDS = {"word": "single words", "symbols": "rows of short symbols", "sentence": "sentences"}


class Choice(NamedTuple):
    """How a side of a kind is cut, and what is measured where it is the target."""

    type: str
    metrics: tuple[str, ...]


CHOICES: dict[Kind, Choice] = {
    "word": Choice("char", ("exact", "chrf")),
    "symbols": Choice("word", ("per", "g2p_wer")),
    "sentence": Choice("bpe", ("bleu", "chrf")),
}


def is_word(text: str) -> bool:
    """Return whether a text is one short word; beside it, parts of it may be grammatical tags."""
    parts = text.split()
    if len(parts) > 1:
        parts = [part for part in parts if not TAG.fullmatch(part)]
    if len(parts) != 1 or len(parts[0]) > LONGEST_WORD:
        return False
    word = parts[0]
    if not NO_SPACES.search(word):
        return not (len(word) > 1 and word[-1] in ".!?,")
    return len(word) <= LONGEST_WORD_WITHOUT_SPACES and not SENTENCE_MARKS.search(word)


def kind_of(texts: Sequence[str]) -> Kind:
    """Return what kind of text a side of a corpus has.

    Args:
        texts: Examples.
    """
    if not texts:
        return "sentence"
    if sum(map(is_word, texts)) >= MOST * len(texts):
        return "word"
    symbols = Counter(part for text in texts for part in text.split())
    length = sum(len(symbol) * count for symbol, count in symbols.items()) / max(1, symbols.total())
    is_apart = symbols.total() >= 2 * len(texts)
    return "symbols" if is_apart and length <= LONGEST_SYMBOL and len(symbols) <= MOST_SYMBOLS else "sentence"


def share_characters(sources: Sequence[str], targets: Sequence[str]) -> bool:
    """Return whether most characters of a side are those of the other."""
    left, right = (set("".join(texts).replace(" ", "")) for texts in (sources, targets))
    return len(left & right) >= SHARED * min(len(left), len(right))


def choose_tokenizer(sources: Sequence[str], targets: Sequence[str]) -> dict[str, Any]:
    """Return the fields of the section `tokenizer` that follow from the texts: sub-words but for words and symbols.

    A side of single words is read letter by letter, one of symbols symbol by symbol. Where both are cut alike and have
    the same characters, as in inflection, they share a vocabulary, so that the model can copy.
    """
    kinds = kind_of(sources), kind_of(targets)
    if "sentence" in kinds:
        return {"type": "bpe"}
    type, target_type = (CHOICES[kind].type for kind in kinds)
    fields: dict[str, Any] = {"type": type, "vocab_size": SYMBOLS}
    if type != target_type or not share_characters(sources, targets):
        fields |= {"target_type": target_type, "target_vocab_size": SYMBOLS}
    return fields


def resolve_texts(arguments: RunArguments, sources: Sequence[str], targets: Sequence[str]) -> RunArguments:
    """Return the recipe with a tokenizer's type and metrics in place of "auto", decided by examples.

    Where the recipe names a size or a type of either side, or what only sub-words have, the type is `bpe` as ever.

    Args:
        arguments: A checked recipe of an objective that generates texts; it is left as it is.
        sources: Examples of the training sources, without tags.
        targets: Those of the same rows.
    """
    tokenizer, generation = arguments.tokenizer, arguments.generation
    if tokenizer.type == AUTO and not starts_from_model(arguments):
        fields = choose_tokenizer(sources, targets) if is_open(arguments) else {"type": "bpe"}
        tokenizer = dataclasses.replace(tokenizer, **fields)
    if generation.metrics == AUTO:
        kinds: list[Kind] = [kind_of(sources), kind_of(targets)]
        measured = [*CHOICES["sentence" if "sentence" in kinds else kinds[1]].metrics]
        best = arguments.training.metric_for_best_model
        measured += [best] if best != "loss" and best not in measured else []
        generation = dataclasses.replace(generation, metrics=measured)
    return dataclasses.replace(arguments, tokenizer=tokenizer, generation=generation)


def resolve_files(arguments: RunArguments) -> RunArguments:
    """Return the recipe with a tokenizer's type and metrics in place of "auto", where sources are files.

    Targets are cut into letters: a letter is what is heard and seen, and there are few of them.

    Args:
        arguments: A checked recipe; it is left as it is.
    """
    tokenizer, generation = arguments.tokenizer, arguments.generation
    if tokenizer.type == AUTO and not starts_from_model(arguments):
        tokenizer = dataclasses.replace(tokenizer, type="char" if is_open(arguments) else "bpe")
    if generation.metrics == AUTO:
        best, measured = arguments.training.metric_for_best_model, [*OBJECTIVES[arguments.objective].usual_metrics]
        measured += [best] if best != "loss" and best not in measured else []
        generation = dataclasses.replace(generation, metrics=measured)
    return dataclasses.replace(arguments, tokenizer=tokenizer, generation=generation)


def is_open(arguments: RunArguments) -> bool:
    """Return whether a recipe leaves everything about the vocabulary to be chosen."""
    fresh, tokenizer = TokenizerArguments(), arguments.tokenizer
    is_named = any(getattr(tokenizer, name) != getattr(fresh, name) for name in (*FIELDS, "path"))
    needs_pieces = arguments.training.bpe_dropout or arguments.training.source_vectors
    return not (is_named or needs_pieces or arguments.training.target_vectors or arguments.training.init_from)


def describe_kinds(sources: Sequence[str], targets: Sequence[str]) -> str:
    """Say what the sides of a corpus are, where they are not sentences."""
    kinds = kind_of(sources), kind_of(targets)
    return f"sources are {WORDS[kinds[0]]}, targets {WORDS[kinds[1]]}" if "sentence" not in kinds else ""
