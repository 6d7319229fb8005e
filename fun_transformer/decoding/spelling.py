"""How a tokenizer spells a phrase within a text, and which of its tokens go on with a word."""

import regex
import torch
from transformers import PreTrainedTokenizerBase

from ..text_parts import SPACELESS
from .constrained import Constraint

WORD_MARKS = ("▁", "Ġ", " ")  # a token begins a word: SentencePiece, byte-level BPE, plain
LETTER = regex.compile(r"[\p{L}\p{M}\p{N}]")


def spell(tokenizer: PreTrainedTokenizerBase, phrases: list[str]) -> Constraint | None:
    """Return a constraint that one of some phrases is in the output; None where no tokens spell any of them.

    A phrase is spelled as it is after other text (after a space, or a comma where there are no spaces), and as it is
    where the output begins.

    Args:
        tokenizer: Of the model; the phrases are in its target language.
        phrases: Alternatives.
    """
    spellings: list[tuple[int, ...]] = []
    opening: list[tuple[int, ...]] = []
    for phrase in phrases:
        first = target_ids(tokenizer, phrase)
        before = "，" if SPACELESS.match(phrase) else "a "
        anchor, both = target_ids(tokenizer, before.strip()), target_ids(tokenizer, before + phrase)
        later = both[len(anchor) :] if both[: len(anchor)] == anchor else first
        for way, ways in ((later, spellings), (first, opening)):
            if way and says(tokenizer, way, phrase) and way not in ways:
                ways.append(way)
    if not spellings:
        return Constraint(tuple(opening)) if opening else None
    return Constraint(tuple(spellings), tuple(way for way in opening if way not in spellings))


def target_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Return the ids of a target text, without special tokens."""
    return tuple(tokenizer(text_target=text, add_special_tokens=False)["input_ids"])


def says(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...], phrase: str) -> bool:
    """Tell whether ids are decoded to a phrase, without unknown tokens."""
    if tokenizer.unk_token_id in ids:
        return False
    text = str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
    return "".join(text.split()) == "".join(phrase.split())


def continuing_tokens(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor | None:
    """Return which tokens go on with the word before them, (vocab_size,); None where the tokens do not tell.

    These begin with a letter or a digit and not with the mark of a new word, nor with a character of a script without
    spaces.
    """
    to_tokens = getattr(tokenizer, "convert_target_ids_to_tokens", tokenizer.convert_ids_to_tokens)
    size = getattr(tokenizer, "target_vocab_size", None) or len(tokenizer)
    tokens = [token or "" for token in to_tokens(list(range(size)))]
    if not any(token.startswith(WORD_MARKS) and len(token) > 1 for token in tokens):
        return None
    special = set(tokenizer.all_special_tokens)
    goes_on = [
        token not in special and LETTER.match(token) is not None and not SPACELESS.match(token) for token in tokens
    ]
    return torch.tensor(goes_on)


def language_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of special tokens beyond the usual ones, such as the languages of a multilingual tokenizer."""
    return [i for i, token in tokenizer.added_tokens_decoder.items() if token.special]
