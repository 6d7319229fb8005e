"""BPE-dropout (Provilkov et al. 2020, arXiv:1910.13267): cut a word differently each time that it is read.

Each merge of the tokenizer is left out with a small probability, so that the model also learns from the parts of
words. Evaluation and use are not affected. The random numbers are those of the library `tokenizers`, which no seed
decides: with this option a run cannot be repeated to the last bit.
"""

import copy
from typing import Any

from tokenizers.models import BPE


def check_merges(tokenizer: Any) -> None:
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


def drop_merges(tokenizer: Any, probability: float) -> Any:
    """Return a copy of a tokenizer that leaves merges out; `FreshRows` tokenizes with it.

    Args:
        tokenizer: Of the kind BPE.
        probability: Of leaving a merge out; 0.1 in the paper, 0.6 for Chinese and Japanese.

    Raises:
        ValueError: The tokenizer is of another kind.
    """
    check_merges(tokenizer)
    copied = copy.deepcopy(tokenizer)
    copied.backend_tokenizer.model.dropout = probability
    return copied
