"""Word2Vec (Mikolov et al. 2013, arXiv:1301.3781 and 1310.4546), trained by gensim; and files of word vectors."""

import os
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from gensim.models import KeyedVectors, Word2Vec
from smart_open import open as open_any  # comes with gensim


def train_word2vec(
    sentences: Iterable[list[str]],
    algorithm: Literal["cbow", "skip-gram"] = "skip-gram",
    dimension: int = 100,
    window: int = 5,
    min_count: int = 5,
    epochs: int = 5,
    **options: Any,
) -> KeyedVectors:
    """Train vectors that tell a word from its neighbours.

    CBOW guesses a word w from the mean of its context; skip-gram guesses each word c of the context from w. Both learn
    to tell the true pair from K false ones: log s(u_c v_w) + sum_k log s(-u_k v_w), s the logistic function.

    Args:
        sentences: Lists of words; read several times, so no generator.
        algorithm: Skip-gram is better for rare words and small corpora, CBOW is several times as fast.
        dimension: Of the vectors.
        window: Words on each side that may be context.
        min_count: Words seen less often get no vector.
        epochs: Passes over the sentences.
        options: For `gensim.models.Word2Vec`, such as `negative` (K, 5), `seed` (42) or `workers` (1 thread; with more
            than one, runs differ).

    Raises:
        ValueError: The algorithm is not known, or no word is frequent enough.
    """
    if algorithm not in ("cbow", "skip-gram"):
        raise ValueError(f'algorithm must be "cbow" or "skip-gram", got {algorithm!r}.')
    sentences = list(sentences)
    try:
        model = Word2Vec(
            sentences,
            sg=int(algorithm == "skip-gram"),
            vector_size=dimension,
            window=window,
            min_count=min_count,
            epochs=epochs,
            **{"negative": 5, "seed": 42, "workers": 1, **options},
        )
    except RuntimeError as error:  # gensim: "you must first build vocabulary before training the model"
        raise ValueError(f"No word occurs {min_count} times. Give more text, or a lower min_count.") from error
    return model.wv


def load_vectors(path: str | os.PathLike) -> KeyedVectors:
    """Read a file of word vectors, of whichever kind it is.

    - word2vec text: a line `words dimension`, then `word number number ...` (fastText's .vec files too);
    - word2vec binary: the same first line, then words and float32 numbers;
    - GloVe text: as word2vec text, without the first line.

    Plain or compressed (.gz, .bz2, .xz).

    Raises:
        ValueError: The file is none of these.
        FileNotFoundError: There is no such file.
    """
    path = os.fspath(path)
    with open_any(path, "rb") as file:
        first, rest = file.readline(), file.read(1 << 16)
    fields = first.split()
    has_header = len(fields) == 2 and all(field.isdigit() for field in fields)
    try:
        if has_header:
            vectors = KeyedVectors.load_word2vec_format(path, binary=_is_binary(rest, int(fields[1])))
        else:
            vectors = KeyedVectors.load_word2vec_format(path, no_header=True)
    except (ValueError, TypeError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} holds no word vectors: {error}. It must be word2vec text or binary, or GloVe text."
        ) from error
    if not len(vectors) or not np.isfinite(vectors.vectors).all():
        raise ValueError(f"{path} has no words, or numbers that are not finite.")
    return vectors


def _is_binary(rest: bytes, dimension: int) -> bool:
    """Whether what follows the header is binary: its first line is no word and `dimension` numbers."""
    numbers = rest.split(b"\n", 1)[0].split()[-dimension:]
    try:
        return len([float(number) for number in numbers]) != dimension
    except ValueError:
        return True
