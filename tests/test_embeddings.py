"""Counts, Word2Vec and GloVe are what their formulas say; files load; vectors arrive in a model as promised."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("gensim")

from gensim.models import KeyedVectors

from fun_transformer.embeddings import (
    GloveTraining,
    bag_of_words,
    co_occurrences,
    glove_loss_and_gradients,
    initialize_embeddings,
    load_vectors,
    one_hot,
    tf_idf,
    train_glove,
    train_word2vec,
)
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer
from fun_transformer.visualization import plot_word_vectors

SHARED = Path(__file__).parents[2] / "shared" / "data" / "vectors"
TEXTS = [["我", "喜欢", "书"], ["我", "喜欢", "喜欢", "猫"]]


def test_one_hot_times_a_matrix_is_looking_up_its_rows():
    matrix, vocabulary = one_hot(["b", "a", "c", "a"])
    vectors = np.random.default_rng(0).normal(size=(3, 5))
    assert vocabulary == ["a", "b", "c"]
    np.testing.assert_array_equal(matrix @ vectors, vectors[[1, 0, 2, 0]])


def test_a_bag_of_words_counts():
    counts, vocabulary = bag_of_words(TEXTS)
    assert dict(zip(vocabulary, counts.toarray()[1].tolist(), strict=True)) == {"我": 1, "喜欢": 2, "书": 0, "猫": 1}


def test_tf_idf_is_its_formula():
    weights, vocabulary = tf_idf(TEXTS)
    counts, _ = bag_of_words(TEXTS)
    expected = counts.toarray() * (np.log(3 / (1 + (counts.toarray() > 0).sum(0))) + 1)
    np.testing.assert_allclose(weights.toarray(), expected / np.linalg.norm(expected, axis=1, keepdims=True))
    assert vocabulary.index("书") >= 0


def two_topics() -> list[list[str]]:
    """Sentences about either letters or digits: words of a topic occur together, those of both never."""
    generator = np.random.default_rng(0)
    return [
        [str(word) for word in generator.choice(list(words), 6)] for _ in range(300) for words in ("abcde", "12345")
    ]


@pytest.mark.parametrize(
    "train",
    [
        lambda sentences: train_word2vec(sentences, "cbow", dimension=8, epochs=40),
        lambda sentences: train_word2vec(sentences, "skip-gram", dimension=8, epochs=10),
        lambda sentences: train_glove(sentences, 8, x_max=10, training=GloveTraining(epochs=40, batch_size=20)),
    ],
    ids=["cbow", "skip-gram", "glove"],
)
def test_words_of_a_topic_get_vectors_close_together(train):
    vectors = train(two_topics())
    assert sorted(vectors.index_to_key) == list("12345abcde")
    assert {word for word, _ in vectors.most_similar("a", topn=4)} == set("bcde")
    assert vectors.get_vecattr("a", "count") > 300
    again = train(two_topics())
    np.testing.assert_array_equal(vectors.vectors, again.vectors)  # the seed decides


@pytest.mark.parametrize("train", [train_word2vec, train_glove])
def test_text_without_frequent_words_is_refused(train):
    with pytest.raises(ValueError, match="No word occurs 5 times"):
        train([["a", "b"]])


def test_co_occurrences_count_neighbours_by_distance_and_stop_at_the_end_of_a_sentence():
    near, counts = co_occurrences([["a", "b", "x", "a"], ["b", "a"]], window=3, min_count=2)
    assert counts == {"a": 3, "b": 2}
    # a-b: 1 (distance 1), 1/2 (b x a), 1 (second sentence); a-a: 1/3, once from each end.
    np.testing.assert_allclose(near.toarray(), [[2 / 3, 2.5], [2.5, 0]])


def test_gloves_gradients_are_those_of_its_objective():
    generator = np.random.default_rng(0)
    shapes = {"words": (4, 3), "contexts": (4, 3), "word_bias": (4, 1), "context_bias": (4, 1)}
    parameters = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    rows, columns, values = np.array([0, 0, 2, 1]), np.array([1, 3, 2, 0]), np.array([0.5, 3.0, 200.0, 99.0])

    def loss():
        """J / 2, entry by entry, from the paper."""
        total = 0.0
        for i, j, x in zip(rows, columns, values, strict=True):
            error = parameters["words"][i] @ parameters["contexts"][j] - np.log(x)
            error += parameters["word_bias"][i, 0] + parameters["context_bias"][j, 0]
            total += min(1, (x / 100) ** 0.75) * error**2 / 2
        return total

    value, gradients = glove_loss_and_gradients(parameters, rows, columns, values)
    assert value == pytest.approx(loss())
    for name, array in parameters.items():
        for place in np.ndindex(array.shape):
            array[place] += 1e-5
            above = loss()
            array[place] -= 2e-5
            below = loss()
            array[place] += 1e-5
            assert gradients[name][place] == pytest.approx((above - below) / 2e-5, abs=1e-6), (name, place)


def make_vectors(words: list[str], dimension: int = 4) -> KeyedVectors:
    vectors = KeyedVectors(dimension)
    vectors.add_vectors(words, np.random.default_rng(1).normal(size=(len(words), dimension)).astype(np.float32))
    return vectors


@pytest.mark.parametrize("kind", ["text", "binary", "glove", "compressed"])
def test_files_of_every_kind_load_alike(kind, tmp_path):
    vectors = make_vectors(["the", "猫", "1", "don't"])
    path = str(tmp_path / ("vectors.gz" if kind == "compressed" else "vectors"))
    vectors.save_word2vec_format(path, binary=kind == "binary", write_header=kind != "glove")
    loaded = load_vectors(path)
    assert loaded.index_to_key == vectors.index_to_key
    np.testing.assert_allclose(loaded.vectors, vectors.vectors, rtol=1e-6)


@pytest.mark.parametrize(
    "text", ["", "2 3\n", "the 0.1 0.2 0.3\nof 0.1 0.2\n", "3 2\nthe 0.1 0.2\n", "a nan 1\nb 1 1\n", "# hi\n"]
)
def test_a_file_that_holds_no_vectors_is_refused(text, tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"vectors\.txt"):
        load_vectors(path)


@pytest.mark.parametrize(
    ("name", "words", "dimension"),
    [("test_glove.txt", 76, 50), ("lee_fasttext.vec", 1762, 10), ("euclidean_vectors.bin", 2747, 10)],
)
def test_published_files_load(name, words, dimension):
    if not (SHARED / name).is_file():
        pytest.skip("gensim's test files are not here")
    assert load_vectors(SHARED / name).vectors.shape == (words, dimension)


CORPUS = ["the cat reads", "the cats read", "reading cats", "我 喜欢 猫", "Cat The 2"] * 3


def tiny_tokenizer(**settings):
    return train_tokenizer(CORPUS, settings=TokenizerSettings(**{"vocab_size": 300, **settings}))


def rows_of(model, tokenizer, *tokens: str) -> torch.Tensor:
    return model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(list(tokens))].detach()


def test_tokens_get_the_vectors_of_words_and_means_of_the_words_that_they_are_in(tiny_model):
    tokenizer = tiny_tokenizer(vocab_size=296)
    words = ["the", "cat", "readings", "readers", "猫"]
    encoded = {word: tokenizer.tokenize(word) for word in words}
    assert encoded["the"] == ["▁the"] and encoded["猫"] == ["猫"]
    shared = (set(encoded["readings"]) & set(encoded["readers"])) - {*encoded["cat"]}
    part = min(shared)
    model = tiny_model(vocab_size=len(tokenizer))
    before = model.get_input_embeddings().weight.detach().clone()
    vectors = make_vectors(words)
    coverage = initialize_embeddings(model, vectors, tokenizer)
    given = torch.tensor(vectors.vectors - vectors.vectors.mean(0))

    the, middle = rows_of(model, tokenizer, "▁the", part)
    scale = the[:4].norm() / given[0].norm()
    assert_close(the, torch.nn.functional.pad(given[0] * scale, (0, 12)))  # d_model is 16
    others = [rank for rank, word in enumerate(words) if part in encoded[word]]
    weights = torch.tensor([1 / (rank + 1) for rank in others])
    mean = (given[others] * weights[:, None]).sum(0) / weights.sum()
    assert_close(middle[:4], mean * scale)

    after = model.get_input_embeddings().weight.detach()
    changed = (after != before).any(-1)
    assert changed.sum() == coverage.whole + coverage.lowercase + coverage.parts
    assert_close(after[changed].square().mean(), before[changed].square().mean())
    assert not changed[tokenizer.all_special_ids].any()
    assert coverage.used == coverage.words == 5 and coverage.whole >= 2
    assert f"of {len(tokenizer) - len(tokenizer.all_special_ids)} tokens" in str(coverage)


def test_vectors_of_tokens_go_to_these_tokens(tiny_model):
    """As a word, "s" would be read as "▁s"; as a token of tokenised text it is the one inside words."""
    tokenizer = tiny_tokenizer(vocab_size=296)
    tokens = ["▁the", "s", "e", "猫"]
    assert tokenizer.tokenize("s") != ["s"] and set(tokens) <= tokenizer.get_vocab().keys()
    model = tiny_model(vocab_size=len(tokenizer))
    before = model.get_input_embeddings().weight.detach().clone()
    coverage = initialize_embeddings(model, make_vectors(tokens), tokenizer)
    assert (coverage.whole, coverage.parts) == (4, 0)
    changed = (model.get_input_embeddings().weight != before).any(-1)
    assert changed.nonzero().flatten().tolist() == sorted(tokenizer.convert_tokens_to_ids(tokens))


def test_a_capital_letter_borrows_the_vector_of_the_small_one(tiny_model):
    tokenizer = tiny_tokenizer(type="word")
    model = tiny_model(vocab_size=len(tokenizer))
    coverage = initialize_embeddings(model, make_vectors(["the", "cat", "2"]), tokenizer)
    assert coverage.lowercase == 2
    assert_close(*rows_of(model, tokenizer, "▁the", "▁The"))


def test_words_with_unknown_parts_are_not_used(tiny_model):
    tokenizer = tiny_tokenizer(type="word")
    model = tiny_model(vocab_size=len(tokenizer))
    assert initialize_embeddings(model, make_vectors(["the", "dog"]), tokenizer).used == 1
    with pytest.raises(ValueError, match="None of the 2 words"):
        initialize_embeddings(model, make_vectors(["dog", "pig"]), tokenizer)


def test_more_dimensions_than_the_model_has_are_projected_without_loss_of_what_varies(tiny_model):
    """Vectors of 40 dimensions that vary in five keep all angles in a model of 16."""
    generator = np.random.default_rng(0)
    tokenizer = tiny_tokenizer(type="word")
    words = ["the", "cat", "reads", "cats", "read"]
    wide = generator.normal(size=(5, 5)) @ generator.normal(size=(5, 40))
    vectors = KeyedVectors(40)
    vectors.add_vectors(words, wide.astype(np.float32))
    model = tiny_model(vocab_size=len(tokenizer))
    initialize_embeddings(model, vectors, tokenizer)
    centred = torch.tensor(wide - wide.mean(0), dtype=torch.float32)
    rows = rows_of(model, tokenizer, *(f"▁{word}" for word in words))
    cosine = torch.nn.functional.cosine_similarity
    assert_close(cosine(rows[:, None], rows, dim=-1), cosine(centred[:, None], centred, dim=-1), atol=1e-4, rtol=0)


def test_the_targets_vectors_reach_the_decoders_own_embedding(tiny_model):
    tokenizer = train_tokenizer(
        CORPUS, ["le chat", "les chats"] * 5, TokenizerSettings(type="word", vocab_size=50, target_vocab_size=40)
    )
    size = tokenizer.target_vocab_size
    model = tiny_model(vocab_size=len(tokenizer), decoder_vocab_size=size, share_encoder_decoder_embeddings=False)
    source, target = (
        stack.get_input_embeddings().weight.detach().clone() for stack in (model.get_encoder(), model.get_decoder())
    )
    coverage = initialize_embeddings(model, make_vectors(["chat", "cat"]), tokenizer, side="target")
    assert coverage.whole == 1
    changed = (model.get_decoder().get_input_embeddings().weight != target).any(-1)
    assert changed.nonzero().flatten().tolist() == tokenizer(text_target="chat", add_special_tokens=False).input_ids
    assert_close(model.get_encoder().get_input_embeddings().weight, source)


def test_an_unknown_side_is_refused(tiny_model):
    with pytest.raises(ValueError, match='side must be "source" or "target"'):
        initialize_embeddings(tiny_model(), make_vectors(["a"]), None, side="decoder")


def test_the_map_shows_words_where_the_first_two_components_put_them(tmp_path):
    """Points of a plane in ten dimensions keep their distances; Chinese has glyphs."""
    words = ["国王", "女王", "cat", "dog"]
    plane = np.array([[3.0, 0], [0, 1], [-2, 0], [0, -2]])
    turned = plane @ np.linalg.qr(np.random.default_rng(0).normal(size=(10, 2)))[0].T
    figure = plot_word_vectors(words, turned, tmp_path / "map.png", ["人", "人", "animal", "animal"])
    (axes,) = figure.axes
    drawn = np.concatenate([points.get_offsets() for points in axes.collections])
    np.testing.assert_allclose(
        np.linalg.norm(drawn[:, None] - drawn, axis=-1), np.linalg.norm(plane[:, None] - plane, axis=-1)
    )
    assert [text.get_text() for text in axes.texts] == words
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["人", "animal"]
    assert (tmp_path / "map.png").stat().st_size > 5000


def test_words_of_a_map_do_not_cover_each_other(tmp_path):
    vectors = np.array([[0, 0], [0.001, 0], [0, 0.001], [5, 5], [5, 0]])  # three at nearly the same place
    figure = plot_word_vectors(["姐", "弟", "妹", "a", "b"], vectors, tmp_path / "map.png")
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


@pytest.mark.parametrize(("words", "groups"), [(["a", "b"], None), (["a", "b", "c"], ["x"])])
def test_a_map_without_three_words_or_a_group_for_each_is_refused(words, groups, tmp_path):
    with pytest.raises(ValueError, match=r"three words|one for each"):
        plot_word_vectors(words, np.eye(3)[: len(words)], tmp_path / "map.png", groups)
