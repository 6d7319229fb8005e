"""Before neural networks: a word is a place in the vocabulary, a text the counts of its words.

All three know nothing of meaning: every two words are equally far apart. That is what word vectors change.
Texts are lists of words, so that any language and any tokenizer will do: `tokenizer.tokenize(text)`, `text.split()`.
"""

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.preprocessing import OneHotEncoder


def one_hot(words: Sequence[str]) -> tuple[sparse.csr_matrix, list[str]]:
    """Return a row for each word, with a single 1 at the place of the word in the vocabulary.

    An embedding layer is this matrix times the matrix of all vectors, computed by looking up a row.

    Args:
        words: A text, word by word.

    Returns:
        The matrix (words, vocabulary) and the vocabulary, sorted.
    """
    encoder = OneHotEncoder()
    matrix = encoder.fit_transform(np.array(words, dtype=object).reshape(-1, 1))
    return matrix, encoder.categories_[0].tolist()


def bag_of_words(texts: Sequence[Sequence[str]]) -> tuple[sparse.csr_matrix, list[str]]:
    """Count how often each word occurs in each text; the order of words is lost.

    Returns:
        The counts (texts, vocabulary) and the vocabulary, sorted.
    """
    return _fit(CountVectorizer(analyzer=list), texts)


def tf_idf(texts: Sequence[Sequence[str]]) -> tuple[sparse.csr_matrix, list[str]]:
    """Weight the counts of words by how few texts contain them: tf(w, d) (ln((1 + D) / (1 + df(w))) + 1).

    Spärck Jones (1972), in scikit-learn's smoothed form; each row is divided by its Euclidean length.

    Returns:
        The weights (texts, vocabulary) and the vocabulary, sorted.
    """
    return _fit(TfidfVectorizer(analyzer=list), texts)


def _fit(vectorizer, texts):
    matrix = vectorizer.fit_transform(texts)
    return matrix, vectorizer.get_feature_names_out().tolist()
