"""Characters of the validation and test rows that training never saw: no model can learn them."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np

from .caching import remembered

SIDES = ("source", "target")
SHOWN = 10  # characters
FORMS: dict[str, Any] = {"nfc": "NFC", "nfd": "NFD"}


def normal_form(text: str, normalization: str) -> str:
    """Return a text in the Unicode form that a tokenizer brings it into."""
    return text if normalization not in FORMS else unicodedata.normalize(FORMS[normalization], text)


def characters_of(rows: datasets.Dataset, side: str, normalization: str) -> np.ndarray:
    """Return the code points of all characters of a side, in the Unicode form of a tokenizer: (characters,)."""
    seen: set[str] = set()
    for batch in rows.select_columns([side]).iter(10_000):
        seen.update(normal_form("\n".join(batch[side]), normalization))
    return np.array(sorted(map(ord, seen)), dtype=np.uint32)


def describe_unseen(splits: datasets.DatasetDict, normalization: str, sides: Sequence[str] = SIDES) -> str:
    """Say which characters of other splits no training row has on that side; "" where there are none.

    Args:
        splits: With `source` and `target`.
        normalization: The Unicode form of the tokenizer: "nfc", "nfd" or "none".
        sides: Those that are texts of their own.
    """
    lines = []
    for side in sides:
        seen = set(map(chr, remembered(splits["train"], characters_of, side, normalization)))
        for name in splits.keys() - {"train"}:
            counts: Counter[str] = Counter()
            rows = 0
            for text in splits[name][side][:]:
                unseen = [character for character in normal_form(text, normalization) if character not in seen]
                counts.update(unseen)
                rows += bool(unseen)
            if counts:
                shown = ", ".join(f"{character!r} ({count:,})" for character, count in counts.most_common(SHOWN))
                more = f" and {len(counts) - SHOWN:,} more" if len(counts) > SHOWN else ""
                lines.append(
                    f"{rows:,} of {len(splits[name]):,} {name} {side}s have characters that no {side} of train has: "
                    f"{shown}{more}."
                )
    return "\n".join(sorted(lines))
