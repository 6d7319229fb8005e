"""GloVe (Pennington, Socher and Manning 2014): vectors whose products are the logarithms of co-occurrence counts.

    J = sum_ij f(X_ij) (w_i w~_j + b_i + b~_j - log X_ij)^2,   f(x) = min(1, (x / x_max)^(3/4))

X_ij: how often word j occurs near word i, a neighbour d words away counting 1 / d. `rows` and `columns` below are i
and j, the parameters are w, w~ (vectors of a word and of a context), b and b~.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from gensim.models import KeyedVectors
from scipy import sparse

# "words" and "contexts": (vocabulary, dimension); "word_bias" and "context_bias": (vocabulary, 1).
Parameters = dict[str, np.ndarray]


@dataclass(frozen=True)
class GloveTraining:
    """How GloVe is optimised.

    Attributes:
        epochs: Passes over the entries of X.
        learning_rate: Of AdaGrad.
        batch_size: Entries of a step.
        seed: Decides the first values and the order of the entries.
    """

    epochs: int = 25
    learning_rate: float = 0.05
    batch_size: int = 4096
    seed: int = 42


def co_occurrences(
    sentences: Iterable[list[str]], window: int = 10, min_count: int = 5
) -> tuple[sparse.coo_matrix, dict[str, int]]:
    """Count which words occur near which, in both directions.

    Args:
        sentences: Lists of words.
        window: Words on each side that count.
        min_count: Words seen less often are left out, and keep their place in the sentence.

    Returns:
        X (vocabulary, vocabulary), and the counts of the words in the order of its rows, the most frequent first.

    Raises:
        ValueError: No word is frequent enough.
    """
    sentences = list(sentences)
    ranked = Counter(word for sentence in sentences for word in sentence).most_common()
    counts = {word: count for word, count in ranked if count >= min_count}
    if not counts:
        raise ValueError(f"No word occurs {min_count} times. Give more text, or a lower min_count.")
    places = {word: place for place, word in enumerate(counts)}
    length = sum(len(sentence) + window for sentence in sentences)
    text = np.full(length, -1)  # -1: a rare word, a gap between sentences
    start = 0
    for sentence in sentences:
        text[start : start + len(sentence)] = [places.get(word, -1) for word in sentence]
        start += len(sentence) + window
    size = len(counts)
    near = sparse.csr_matrix((size, size))
    for distance in range(1, window + 1):
        left, right = text[:-distance], text[distance:]
        kept = (left >= 0) & (right >= 0)
        weights = np.full(kept.sum(), 1 / distance)
        near += sparse.csr_matrix((weights, (left[kept], right[kept])), shape=(size, size))  # sums up equal places
    return (near + near.T).tocoo(), counts


def glove_loss_and_gradients(
    parameters: Parameters,
    rows: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    x_max: float = 100.0,
) -> tuple[float, Parameters]:
    """Compute J / 2 over some entries of X, and its gradients.

    Args:
        parameters: W, w~, b, b~.
        rows: i of each entry (entries,).
        columns: j of each entry (entries,).
        values: X_ij of each entry (entries,).
        x_max: A count from which on more does not weigh more.

    Returns:
        The loss, and gradients of the parameters' shapes.
    """
    words, contexts = parameters["words"][rows], parameters["contexts"][columns]  # (entries, dimension)
    biases = parameters["word_bias"][rows] + parameters["context_bias"][columns]  # (entries, 1)
    error = (words * contexts).sum(-1, keepdims=True) + biases - np.log(values)[:, None]  # (entries, 1)
    weighted = np.minimum(1.0, (values / x_max) ** 0.75)[:, None] * error  # (entries, 1)
    # A word in several entries gets the sum of their gradients: (vocabulary, entries) times (entries, ...).
    size, places = len(parameters["words"]), np.arange(len(rows) + 1)
    ones = np.ones(len(rows), dtype=values.dtype)
    by_row, by_column = (sparse.csr_matrix((ones, of, places), shape=(len(rows), size)).T for of in (rows, columns))
    gradients = {
        "words": by_row @ (weighted * contexts),
        "contexts": by_column @ (weighted * words),
        "word_bias": by_row @ weighted,
        "context_bias": by_column @ weighted,
    }
    return float((weighted * error).sum() / 2), gradients


def train_glove(
    sentences: Iterable[list[str]],
    dimension: int = 100,
    window: int = 10,
    min_count: int = 5,
    x_max: float = 100.0,
    training: GloveTraining = GloveTraining(),
) -> KeyedVectors:
    """Factorise the logarithm of the co-occurrence counts with AdaGrad; a word's vector is w_i + w~_i.

    As in the paper's program: first values are uniform in +-0.5 / dimension, AdaGrad's sums begin at 1. Unlike it, a
    step takes `batch_size` entries of X at once, not one, so that NumPy is fast.

    Args:
        sentences: Lists of words.
        dimension: Of the vectors.
        window: Words on each side that count.
        min_count: Words seen less often get no vector.
        x_max: A count from which on more does not weigh more; the paper's 100 is for billions of words.
        training: Epochs, learning rate, batch size and seed.

    Returns:
        Vectors with their `count`, the most frequent word first.

    Raises:
        ValueError: No word is frequent enough.
    """
    near, counts = co_occurrences(sentences, window, min_count)
    generator, size = np.random.default_rng(training.seed), len(counts)
    widths = {"words": dimension, "contexts": dimension, "word_bias": 1, "context_bias": 1}
    parameters = {
        name: ((generator.random((size, width)) - 0.5) / dimension).astype(np.float32)
        for name, width in widths.items()
    }
    squares = {name: np.ones_like(values) for name, values in parameters.items()}
    values = near.data.astype(np.float32)
    for _ in range(training.epochs):
        order = generator.permutation(near.nnz)
        for chosen in np.array_split(order, max(1, near.nnz // training.batch_size)):
            _, gradients = glove_loss_and_gradients(
                parameters, near.row[chosen], near.col[chosen], values[chosen], x_max
            )
            for name, gradient in gradients.items():
                squares[name] += gradient**2
                parameters[name] -= training.learning_rate * gradient / np.sqrt(squares[name])
    vectors = KeyedVectors(dimension)
    vectors.add_vectors(list(counts), parameters["words"] + parameters["contexts"])
    for word, count in counts.items():
        vectors.set_vecattr(word, "count", count)
    return vectors
