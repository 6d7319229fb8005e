"""Outputs that begin with what a translator has typed, up to the middle of a word.

All words of a prefix but the last are forced as the tokenizer spells them. The last one may be unfinished, and
"transl" is not spelled as the beginning of "translate": so each token is allowed that goes on with its characters, or
goes beyond them. A space at the end of the prefix says that its last word is finished.

    >>> model.generate(**inputs, num_beams=4, **prefixed(tokenizer, ["We ate tog", "", "How "]))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

ANCHORS = ("a", "1", "的", "а", "ا")  # a character that most vocabularies have


def prefixed(tokenizer: PreTrainedTokenizerBase, prefixes: Sequence[str]) -> dict[str, LogitsProcessorList]:
    """Return keyword arguments for `generate` that make each output begin with its prefix.

    They are for one call of `generate`: of beam search, sampling or greedy search.

    Args:
        tokenizer: Of the model, with its target language set where it has several.
        prefixes: One for each text of the batch; an empty one forces nothing.

    Raises:
        TypeError: A prefix is no string.
        ValueError: The tokenizer cannot spell a prefix.
    """
    for prefix in prefixes:
        if not isinstance(prefix, str):
            raise TypeError(f"{prefix!r} is no prefix. Give a string, an empty one where nothing is typed.")
    beginnings = [_beginning(tokenizer, prefix) for prefix in prefixes]
    return {"logits_processor": LogitsProcessorList([ForcedPrefix(beginnings)])}


@dataclass(frozen=True)
class Beginning:
    """How an output begins: with these tokens, then with these characters.

    Attributes:
        token_ids: The forced tokens.
        allowed: For each place in the characters, the tokens that may come there, and where each one leads to.
    """

    token_ids: tuple[int, ...]
    allowed: tuple[dict[int, int], ...]

    def next_tokens(self, said: list[int]) -> list[int] | None:
        """Return the tokens that may come after those said (target_len); None for any."""
        if len(said) < len(self.token_ids):
            return [self.token_ids[len(said)]]
        place = 0
        for token_id in said[len(self.token_ids) :]:
            if place == len(self.allowed):
                return None
            place = self.allowed[place].get(token_id, len(self.allowed))  # not allowed: an output that has ended
        return list(self.allowed[place]) if place < len(self.allowed) else None


class ForcedPrefix(LogitsProcessor):
    """Rule out all tokens that would leave the prefix of their text; for one call of `generate`.

    Args:
        beginnings: One for each text; the beams or samples of a text lie side by side.
    """

    def __init__(self, beginnings: Sequence[Beginning]):
        self.beginnings = beginnings
        self.start: int | None = None  # how many tokens are there before the prefix
        self.is_over = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores (rows, vocab_size) after input_ids (rows, length), -inf for what is ruled out.

        Raises:
            ValueError: There are not as many texts as prefixes.
        """
        if self.start is None:
            if len(scores) % len(self.beginnings):
                raise ValueError(f"{len(self.beginnings)} prefixes do not belong to {len(scores)} rows of outputs.")
            if bool((scores.isfinite().sum(-1) == 1).all()):  # the target language, say, is forced before them
                return scores
            self.start = input_ids.shape[1]
        if self.is_over:
            return scores
        rows_per_text = len(scores) // len(self.beginnings)
        masked = torch.full_like(scores, -torch.inf)
        self.is_over = True
        for row, said in enumerate(input_ids[:, self.start :].tolist()):
            allowed = self.beginnings[row // rows_per_text].next_tokens(said)
            if allowed is None:
                masked[row] = scores[row]
            else:
                masked[row, allowed] = scores[row, allowed]
                self.is_over = False
        return masked


def _beginning(tokenizer: PreTrainedTokenizerBase, prefix: str) -> Beginning:
    """Return how the tokenizer may spell a prefix."""
    if not prefix.strip():
        return Beginning((), ())
    words = prefix.rstrip()
    cut = len(words) if words != prefix else max(prefix.rfind(" "), 0)  # where the last word or space begins
    head, rest = prefix[:cut], prefix[cut:]
    token_ids = tuple(tokenizer(text_target=head, add_special_tokens=False)["input_ids"]) if head else ()
    allowed = _ways(rest, _by_first_character(tokenizer), is_first=not head)
    if (rest and not allowed[0]) or tokenizer.unk_token_id in token_ids:
        if rest.isspace():  # the tokens do not tell where a word ends
            return Beginning(token_ids, ())
        raise ValueError(
            f"No tokens of this model spell the prefix {prefix!r}. Leave out the characters that are not in its "
            "vocabulary."
        )
    return Beginning(token_ids, allowed)


def _ways(rest: str, tokens: dict[str, list[tuple[str, int]]], is_first: bool) -> tuple[dict[int, int], ...]:
    """Return for each place in the characters which tokens lead from it to the end, perhaps in several steps."""
    allowed: list[dict[int, int]] = [{} for _ in rest]
    for place in reversed(range(len(rest))):
        left = rest[place:]
        found = tokens.get(left[0], [])
        if place == 0 and is_first:  # a space before the first word is not seen
            found = found + [(text[1:], token_id) for text, token_id in tokens.get(" ", []) if text[1:2] == left[0]]
        for text, token_id in found:
            after = place + len(text)
            if text.startswith(left):
                allowed[place][token_id] = len(rest)
            elif left.startswith(text) and allowed[after]:
                allowed[place][token_id] = after
    return tuple(allowed)


@lru_cache(maxsize=4)
def _by_first_character(tokenizer: PreTrainedTokenizerBase) -> dict[str, list[tuple[str, int]]]:
    """Return what each token of the target adds to a text: lists of (text, id) by the first character."""
    encoded = (tokenizer(text_target=text, add_special_tokens=False)["input_ids"] for text in ANCHORS)
    anchor: list[int] = next((ids for ids in encoded if ids and tokenizer.unk_token_id not in ids), [])
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    size = getattr(tokenizer, "target_vocab_size", None) or len(tokenizer)
    special = set(tokenizer.all_special_ids)
    ids = [token_id for token_id in range(size) if token_id not in special]
    before = str(tokenizer.decode(anchor, **options))
    found: dict[str, list[tuple[str, int]]] = {}
    for token_id, text in zip(ids, tokenizer.batch_decode([[*anchor, token_id] for token_id in ids], **options)):
        added = text[len(before) :]
        if text.startswith(before) and added and "\ufffd" not in added:
            found.setdefault(added[0], []).append((added, token_id))
    return found
