"""The benchmarks of decoding: the alignments made by hand hold together, and tables are made of what was measured."""

import json

import pytest
from tiny_seq2seq import tiny_model, word_tokenizer

from benchmarks import alignment as alignment_benchmark
from benchmarks import guards as guards_benchmark
from benchmarks.alignment import HandMade, grow_diagonally, measure_model, of_words
from benchmarks.guards import measure, read_pairs, table
from fun_transformer.decoding.guards import Output
from fun_transformer.decoding.words import word_spans


@pytest.fixture(scope="module")
def gold():
    return HandMade()


def test_the_hand_made_alignments_link_words_that_are_there(gold):
    assert len(gold.sources) == len(set(gold.sources)) == 50
    for source, target, links in zip(gold.sources, gold.targets, gold.links):
        words = gold.split(source), gold.split(target)
        assert "".join(words[0]) == source and "".join(words[1]) == target.replace(" ", "")
        assert all(word_spans(text, split) for text, split in zip((source, target), words))
        assert links.sure and links.sure <= links.possible
        for side, split in enumerate(words):  # every word has a link
            assert {link[side] for link in links.possible} == set(range(len(split)))


def test_links_of_hanzi_count_for_their_words(gold):
    source = gold.sources[0]
    assert gold.split(source)[:3] == ["我", "昨天", "买"]
    assert of_words("0-0 1-4 2-4 3-1", source, gold) == {(0, 0), (1, 4), (2, 1)} | {(1, 4)}


def test_links_grow_from_the_intersection_to_neighbours_without_a_link():
    forward, reverse = {(0, 0), (1, 1), (5, 5)}, {(0, 0), (1, 0)}
    assert grow_diagonally(forward, reverse) == {(0, 0), (1, 0), (1, 1)}


@pytest.mark.parametrize("family", ["bart", "rnn_fixed"])
def test_a_model_is_measured(gold, family):
    model = tiny_model(family)
    results = measure_model(model, word_tokenizer(), [("a b", "c d")] * 3, gold)
    assert 0 <= results["gradient"] <= 1 and 0 <= results["default"] <= 1
    if family == "rnn_fixed":
        assert results["default"] == results["gradient"]
    layers = [name for name in results if name.startswith("layer")]
    assert len(layers) == (4 if family == "bart" else 0)


def test_the_table_counts_what_was_found_and_what_was_left(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"translation": {"a": "x y", "b": "He reads."}}) + "\n", encoding="utf-8")
    [(source, target)] = read_pairs(str(path), ["a", "b"])

    def generate(texts, **options):
        return [Output("He reads." if options else "He reads " * 40) for _ in texts]

    row = measure(generate, [("clean", source, target)] * 2, ["greedy"])
    assert row["faulty_without"] == 2 and row["faulty_with"] == 0 and row["fallbacks"] == {"greedy": 2}
    assert row["found"]["loop"] == 2 and row["left"] == {}
    assert row["chrf_of_faulty_with"] == 100 > row["chrf_of_faulty_without"]
    lines = table({"clean": row}).splitlines()
    assert lines[2].startswith("| clean | 2 | 2 | 2 | 0 | 0 |") and len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize("benchmark", [alignment_benchmark, guards_benchmark])
def test_help_says_what_is_measured(benchmark, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmark", "--help"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "--output" in capsys.readouterr().out
