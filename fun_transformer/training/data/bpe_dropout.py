"""BPE-dropout (Provilkov et al. 2020, arXiv:1910.13267): cut a word differently each time that it is read.

Each merge of the tokenizer is left out with a small probability, so that the model also learns from the parts of
words. Evaluation and use are not affected. The random numbers are those of the library `tokenizers`, which no seed
decides: with this option a run cannot be repeated to the last bit.
"""

import copy
from collections.abc import Callable

import numpy as np
from datasets import Dataset
from tokenizers.models import BPE

from .rows import TokenRows


def check_merges(tokenizer) -> None:
    """Refuse a tokenizer that has no merges to leave out.

    Raises:
        ValueError: It is not of the kind BPE.
    """
    model = tokenizer.backend_tokenizer.model if tokenizer.is_fast else tokenizer
    if not isinstance(model, BPE):
        raise ValueError(
            f"training.bpe_dropout needs a tokenizer of type bpe, got {type(model).__name__}. Leave it out, or "
            "set tokenizer.type: bpe."
        )


class DroppingRows(TokenRows):
    """Rows that are tokenized again whenever they are read; their lengths are those without dropout.

    Args:
        dataset: With `source`, `target` and their token ids without dropout.
        tokenizer: Of the kind BPE. It is copied, not changed.
        encode: Turns a batch of rows and the tokenizer into `input_ids` and `labels`.
        probability: Of leaving a merge out; 0.1 in the paper, 0.6 for Chinese and Japanese.
        longest: A row that gets more tokens than this on a side is taken as it is without dropout.

    Raises:
        ValueError: The tokenizer is of another kind.
    """

    def __init__(self, dataset: Dataset, tokenizer, encode: Callable, probability: float, longest: float):
        super().__init__(dataset)
        self.dataset, self.encode, self.longest = dataset, encode, longest
        check_merges(tokenizer)
        self.tokenizer = copy.deepcopy(tokenizer)
        self.tokenizer.backend_tokenizer.model.dropout = probability

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        texts = {name: [self.dataset[int(row)][name]] for name in ("source", "target")}
        encoded = {name: np.array(ids[0]) for name, ids in self.encode(texts, self.tokenizer).items()}
        if max(len(encoded["input_ids"]), len(encoded["labels"])) > self.longest:
            return super().__getitem__(row)
        return encoded
