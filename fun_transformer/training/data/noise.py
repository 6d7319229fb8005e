"""Mistakes in training sources: letter case, missing punctuation, typing errors, torn and joined words.

A model that has seen clean sentences alone breaks on those that people type (Belinkov and Bisk 2018, arXiv:1711.02173,
measure it and train with such mistakes). The targets stay as they are, and so do evaluation and use.

What becomes of a source is a function of the seed, the epoch and the number of its row. So a resumed run sees the
same, whatever the number of processes.
"""

import random
import re
from collections.abc import Collection

from ..recipe.arguments import NoiseArguments

PUNCTUATION = re.compile(r"[^\w\s]|_")
FINAL = re.compile(r"(?:[^\w\s]|_|\s)+$")
LETTER = re.compile(r"[^\W\d_]")
MISTAKES = ("missing", "doubled", "exchanged", "replaced")


class Noise:
    """Change a source as the recipe's section `data.noise` says.

    Args:
        settings: The probabilities.
        seed: Of the run.
        tags: Tokens before a source that stay as they are: languages and features.
        prefix: Text that all sources begin with, which stays too.
    """

    def __init__(self, settings: NoiseArguments, seed: int, tags: Collection[str] = (), prefix: str = ""):
        self.settings, self.seed = settings, seed
        any_tag = "|".join(re.escape(tag) for tag in sorted(tags, key=len, reverse=True)) or "(?!)"
        self.kept = re.compile(rf"(?:(?:{any_tag})\s*)*(?:{re.escape(prefix)})?(?:(?:{any_tag})\s*)*")

    def __call__(self, text: str, epoch: int, row: int) -> str:
        """Return a source with its mistakes.

        Args:
            text: The source as it is in the corpus, with its tags.
            epoch: Number of the pass over the data.
            row: Its number in the training split.
        """
        rng = random.Random(f"{self.seed} {epoch} {row}")  # a tenth of the time that NumPy's generator needs
        match = self.kept.match(text)
        before = match[0] if match else ""
        changed = self.change(text[len(before) :], rng).strip()
        return before + changed if changed else text  # punctuation alone stays

    def change(self, text: str, rng: random.Random) -> str:
        """Return a text without tags with mistakes."""
        settings = self.settings
        letter_case = rng.random()
        if rng.random() < settings.punctuation:
            pattern = FINAL if rng.random() < 0.5 else PUNCTUATION
            text = " ".join(pattern.sub("", text).split())
        if settings.join or settings.split:
            text = break_words(text, settings, rng)
        if settings.typos:
            text = mistype(text, settings.typos, rng)
        if letter_case < settings.upper:
            return text.upper()
        if letter_case < settings.upper + settings.lower:
            return text.lower()
        if letter_case < settings.upper + settings.lower + settings.title:
            return " ".join(word[:1].upper() + word[1:].lower() for word in text.split(" "))
        return text


def break_words(text: str, settings: NoiseArguments, rng: random.Random) -> str:
    """Tear words in two, and join words that are neighbours; a text without spaces is no word, as in Chinese."""
    words = text.split(" ")
    if len(words) < 2:
        return text
    parts: list[str] = []
    for number, word in enumerate(words):
        if rng.random() < settings.split and len(word) > 1:
            at = rng.randrange(1, len(word))
            word = f"{word[:at]} {word[at:]}"
        is_last = number == len(words) - 1
        parts.append(word if is_last or rng.random() < settings.join else f"{word} ")
    return "".join(parts)


def mistype(text: str, probability: float, rng: random.Random) -> str:
    """Leave letters out, double them, exchange them with the next, or replace them by others of the same text."""
    hit = [place for place in range(len(text)) if rng.random() < probability and LETTER.match(text[place])]
    if not hit:
        return text
    characters, letters = list(text), LETTER.findall(text)
    for place in hit:
        mistake = rng.choice(MISTAKES)
        if mistake == "missing":
            characters[place] = ""
        elif mistake == "doubled":
            characters[place] *= 2
        elif mistake == "exchanged" and place + 1 < len(text) and LETTER.match(text[place + 1]):
            characters[place], characters[place + 1] = characters[place + 1], characters[place]
        else:
            characters[place] = rng.choice(letters)
    return "".join(characters)
