"""Word vectors into a model's embedding: before training, words are known by their neighbours (Qi et al. 2018)."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from gensim.models import KeyedVectors
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Coverage:
    """How much of a vocabulary got vectors.

    Attributes:
        tokens: Size of the vocabulary, without special tokens.
        whole: Tokens that are a word, and got its vector.
        lowercase: Tokens that are a word but for capital letters, and got the vector of the small ones.
        parts: Tokens that are parts of words, and got a mean.
        words: Words of the vectors; those without an unknown token were used.
        used: How many that were.
    """

    tokens: int
    whole: int
    lowercase: int
    parts: int
    words: int
    used: int

    def __str__(self) -> str:
        covered = self.whole + self.lowercase + self.parts
        return (
            f"{covered:,} of {self.tokens:,} tokens ({covered / max(self.tokens, 1):.0%}) got vectors: {self.whole:,} "
            f"are words, {self.lowercase:,} are but for capital letters, {self.parts:,} are parts of words; "
            f"{self.used:,} of {self.words:,} words were used"
        )


@torch.no_grad()
def initialize_embeddings(
    model: PreTrainedModel,
    vectors: KeyedVectors,
    tokenizer: PreTrainedTokenizerBase,
    side: Literal["source", "target"] = "source",
) -> Coverage:
    """Put word vectors into the embedding of a model, in place.

    A token that is a word gets the word's vector. A token that is a part of words gets the mean of the vectors of all
    words that contain it, each weighted by 1 / rank: files of vectors begin with the most frequent words but rarely
    say how frequent they are, and by Zipf's law a frequency is about 1 / rank. Special tokens, and tokens that no word
    has, keep the random vectors that they have. Vectors of tokens, trained on tokenised text, go to the same tokens.

    Vectors of more dimensions than d_model are projected by PCA, those of fewer are filled up with zeros. They are
    centred, and scaled by one number so that their root mean square is that of the vectors that the model had: fresh
    ones have d_model^-0.5 in ours, and training began from there.

    Args:
        model: With fresh weights, of any kind that has an embedding of its source, or of its target.
        vectors: Of words, the most frequent first.
        tokenizer: The model's.
        side: Whose tokens: "target" encodes words as `text_target` and goes into the decoder's embedding. Where both
            sides share one embedding, either reaches it; tokens that both sides have keep what was put in last.

    Returns:
        How many tokens got vectors.

    Raises:
        ValueError: The side is neither, or no token got a vector.
    """
    if side not in ("source", "target"):
        raise ValueError(f'side must be "source" or "target", got {side!r}.')
    embedding = _embedding(model, side)
    tokens = _vocabulary(tokenizer, side)
    found = _token_vectors(
        _fit_dimension(vectors.vectors, embedding.embedding_dim), vectors.index_to_key, tokenizer, side
    )
    rows = found.whole | found.parts
    numbers = {text: token for token, text in tokens.items()}
    small = {token: numbers.get(text.lower()) for token, text in tokens.items() if token not in found.whole}
    lowercase = {token: other for token, other in small.items() if other in found.whole and other != token}
    rows |= {token: rows[other] for token, other in lowercase.items()}
    if not rows:
        raise ValueError(
            f"None of the {len(vectors):,} words ({', '.join(vectors.index_to_key[:3])} ...) has a token of the "
            f"{side} side's vocabulary. Take vectors of its language."
        )
    _put(embedding, rows)
    return Coverage(
        tokens=len(set(tokens) - set(tokenizer.all_special_ids)),
        whole=len(found.whole),
        lowercase=len(lowercase),
        parts=len(set(found.parts) - set(lowercase)),
        words=len(vectors),
        used=found.used,
    )


@dataclass(frozen=True)
class _TokenVectors:
    """Vectors of tokens by id: of whole words, and of parts of words; and the number of words that were used."""

    whole: dict[int, np.ndarray]
    parts: dict[int, np.ndarray]
    used: int


def _token_vectors(vectors: np.ndarray, words: list[str], tokenizer, side: str) -> _TokenVectors:
    """Turn vectors of words, (words, d_model), the most frequent first, into vectors of tokens."""
    special = set(tokenizer.all_special_ids)
    unknown = {tokenizer.unk_token_id} - {None}
    sums: defaultdict[int, np.ndarray] = defaultdict(lambda: np.zeros(vectors.shape[1]))
    weights: defaultdict[int, float] = defaultdict(float)
    whole: dict[int, np.ndarray] = {}
    used = 0
    for rank, ids in enumerate(_encode(words, tokenizer, side)):
        if unknown & set(ids) or not set(ids) - special:
            continue
        used += 1
        if len(ids) == 1:
            whole.setdefault(ids[0], vectors[rank])
        for token in set(ids) - special:
            sums[token] += vectors[rank] / (rank + 1)
            weights[token] += 1 / (rank + 1)
    parts = {token: sums[token] / weights[token] for token in sums if token not in whole}
    return _TokenVectors(whole, parts, used)


def _put(embedding: nn.Embedding, rows: dict[int, np.ndarray]) -> None:
    """Write vectors into the rows of an embedding, scaled to the root mean square that these rows had."""
    weight = embedding.weight
    ids = torch.tensor(sorted(rows), device=weight.device)
    vectors = torch.tensor(np.stack([rows[token] for token in sorted(rows)]), dtype=torch.float32)  # (tokens, d_model)
    before = weight[ids].float().square().mean().sqrt().cpu()
    vectors *= before / vectors.square().mean().sqrt().clamp_min(1e-12)
    weight[ids] = vectors.to(weight)


def _embedding(model: PreTrainedModel, side: str) -> nn.Embedding:
    """Return the embedding of a side: (vocabulary, d_model)."""
    if side == "source" or not model.config.is_encoder_decoder:
        return cast(nn.Embedding, model.get_input_embeddings())
    return cast(nn.Embedding, model.get_decoder().get_input_embeddings())


def _encode(words: list[str], tokenizer, side: str) -> list[list[int]]:
    """Return the words as token ids, without special tokens around them.

    Where all are in the vocabulary, and some have its ▁, they are tokens: vectors were trained on tokenised text.
    """
    numbers = {token: number for number, token in _vocabulary(tokenizer, side).items()}
    if any("▁" in word for word in words) and all(word in numbers for word in words):
        return [[numbers[word]] for word in words]
    if side == "source":
        return tokenizer(words, add_special_tokens=False)["input_ids"]
    return tokenizer(text_target=words, add_special_tokens=False)["input_ids"]


def _vocabulary(tokenizer, side: str) -> dict[int, str]:
    """Return the tokens of a side by id."""
    has_own = side == "target" and hasattr(tokenizer, "get_target_vocab")
    vocabulary = tokenizer.get_target_vocab() if has_own else tokenizer.get_vocab()
    return {number: token for token, number in vocabulary.items()}


def _fit_dimension(vectors: np.ndarray, width: int) -> np.ndarray:
    """Return centred vectors of another dimension: by PCA if it is lower, with zeros if it is higher.

    Args:
        vectors: (words, dimension).
        width: d_model.

    Returns:
        (words, width).
    """
    centred = vectors - vectors.mean(0)
    if vectors.shape[1] > width:
        # The directions of most variance are the last eigenvectors of the (dimension, dimension) covariance.
        directions = np.linalg.eigh(centred.T.astype(np.float64) @ centred)[1][:, ::-1][:, :width]
        return centred @ directions
    return np.pad(centred, ((0, 0), (0, width - vectors.shape[1])))
