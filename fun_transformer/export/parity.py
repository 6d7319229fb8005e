"""Whether an exported model answers as the model itself does: the same texts, counted."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from ..frontends import FrontEnd


@dataclass(frozen=True)
class Agreement:
    """How many answers of an exported model are those of the model itself, letter by letter.

    Attributes:
        num_beams: Beams of the search.
        texts: How many were answered.
        equal: How many of the answers are equal.
        example: The first source with different answers, the model's answer, and that of the exported model.
    """

    num_beams: int
    texts: int
    equal: int
    example: tuple[str, str, str] | None = None

    def __str__(self) -> str:
        search = "greedy" if self.num_beams == 1 else f"{self.num_beams} beams"
        return f"{search}: {self.equal} of {self.texts} answers are equal ({100 * self.equal / self.texts:.1f} %)"


def count_equal(num_beams: int, sources: Sequence, ours: Sequence[str], theirs: Sequence[str]) -> Agreement:
    """Compare answers; of sources that are no texts, the example says the shape."""
    names = [source if isinstance(source, str) else f"noise {tuple(source.shape)}" for source in sources]
    different = [row for row in zip(names, ours, theirs) if row[1] != row[2]]
    return Agreement(num_beams, len(sources), len(sources) - len(different), different[0] if different else None)


def random_features(front_end: FrontEnd, count: int = 32, seed: int = 0) -> list[torch.Tensor]:
    """Make noise in place of speech or pictures, which a model answers all the same.

    Args:
        front_end: Of the model.
        count: How many.
        seed: Of the choice.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [front_end.sample(int(torch.randint(20, 200, ()))) for _ in range(count)]


def random_texts(tokenizer: PreTrainedTokenizerBase, count: int = 32, seed: int = 0) -> list[str]:
    """Make texts of random tokens of a vocabulary: no sentences, but a model answers them all the same.

    Args:
        tokenizer: Of the model.
        count: How many.
        seed: Of the choice.
    """
    generator = random.Random(seed)
    special = set(tokenizer.all_special_ids)
    usable = [number for number in range(len(tokenizer)) if number not in special]
    texts: list[str] = []
    while len(texts) < count:
        text = str(tokenizer.decode(generator.choices(usable, k=generator.randint(2, 16)))).strip()
        if text.isprintable() and "\ufffd" not in text and text:
            texts.append(text)
    return texts
