"""Words as numbers, in the order of history: one-hot, counts, TF-IDF, Word2Vec, GloVe; and from there into a model.

Needs scikit-learn and gensim (the extra `embeddings`). Word vectors are gensim's `KeyedVectors` throughout, which
know `most_similar`, and how to save themselves.
"""

try:
    from .counts import bag_of_words, one_hot, tf_idf
    from .glove import GloveTraining, co_occurrences, glove_loss_and_gradients, train_glove
    from .initialize import Coverage, initialize_embeddings
    from .word2vec import load_vectors, train_word2vec
except ModuleNotFoundError as error:
    if error.name not in ("gensim", "sklearn", "scipy"):
        raise
    raise ImportError(
        "Word vectors need gensim and scikit-learn: pip install 'fun-transformer[embeddings]'"
    ) from error

__all__ = [
    "Coverage",
    "GloveTraining",
    "bag_of_words",
    "co_occurrences",
    "glove_loss_and_gradients",
    "initialize_embeddings",
    "load_vectors",
    "one_hot",
    "tf_idf",
    "train_glove",
    "train_word2vec",
]
