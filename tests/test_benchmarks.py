"""The benchmarks run, on a corpus of a few lines; what they measure is another matter."""

import json
import sys

import pytest

from benchmarks import complexity, lineage, training


@pytest.mark.slow
def test_all_contenders_train_on_the_same_corpus(tmp_path, monkeypatch, capsys):
    for side, letters in (("source", "abc"), ("target", "xyz")):
        lines = [f"{letters[row % 3] * (1 + row % 5)} {letters[(row + 1) % 3]}\n" for row in range(200)]
        (tmp_path / side).write_text("".join(lines))
    output = tmp_path / "results.json"
    names = [name for name in training.CONTENDERS if "compiled" not in name]
    argv = ["training", str(tmp_path / "source"), str(tmp_path / "target"), "--vocab_size=300", "--batch_tokens=512"]
    argv += ["--seconds=0.05", "--rounds=2", f"--output={output}", "--only", *names]
    monkeypatch.setattr(sys, "argv", argv)
    training.main()
    results = json.loads(output.read_text())
    assert list(results["turns"]) == names
    assert all(turn["tokens"] > 0 for turns in results["turns"].values() for turn in turns)
    assert results["environment"]["device"] and results["flops_per_token"] > 1e6
    assert "Marian, Seq2SeqTrainer" in capsys.readouterr().out


def test_layers_are_measured_and_drawn(tmp_path, monkeypatch, capsys):
    output, picture = tmp_path / "results.json", tmp_path / "picture.svg"
    argv = ["complexity", "--lengths", "16", "32", "--d_model=8", "--heads=2", "--window=4", "--repeats=1"]
    monkeypatch.setattr(sys, "argv", [*argv, f"--output={output}", f"--picture={picture}"])
    complexity.main()
    results = json.loads(output.read_text())
    assert list(results["layers"]) == list(complexity.CONTENDERS)
    assert all(len(found["measured"]) == 2 for found in results["layers"].values())
    assert results["layers"]["self-attention, eager"]["exponents"]["operations"] == pytest.approx(2)
    assert "n^2.00 by formula" in capsys.readouterr().out
    assert picture.read_text().startswith("<?xml")


def test_the_crossing_lies_where_two_power_laws_meet():
    square, line = (
        [{"length": n, "seconds": value} for n in (64, 128, 256) for value in [of(n)]]
        for of in (lambda n: n**2 / 100, lambda n: float(n))
    )
    assert complexity.crossing(square, line) == 100
    assert complexity.crossing(line, square) is None


def test_systems_of_the_lineage_have_equally_many_parameters():
    wanted = 234_880  # of the Transformer
    for name in ("RNN, additive", "convolution"):
        config = lineage.of_equal_size(name, vocab_size=17, d_model=64)
        assert lineage.count_parameters(config) == pytest.approx(wanted, rel=0.05)


def test_scores_at_equal_time_lie_on_the_curve():
    lines = [
        {"split": "train", "step": 10, "tokens": 1000, "tokens_per_second": 100.0},
        {"split": "validation", "step": 10, "exact": 20.0},
        {"split": "train", "step": 20, "tokens": 3000, "tokens_per_second": 200.0},
        {"split": "validation", "step": 20, "exact": 60.0},
    ]
    points = lineage.curve(lines, "exact")
    assert [point["seconds"] for point in points] == [10.0, 20.0]
    assert [lineage.at_time(points, seconds) for seconds in (5.0, 10.0, 15.0, 99.0)] == [10.0, 20.0, 40.0, 60.0]


def test_quality_is_told_apart_by_the_length_of_the_source():
    rows = [
        {"source": "abc", "prediction": "cba", "references": ["cba"]},
        {"source": "abcdefg", "prediction": "gfedcba", "references": ["gfedcba"]},
        {"source": "abcdefgh", "prediction": "hgfedcb", "references": ["hgfedcba"]},
    ]
    assert lineage.by_length(rows, "exact") == {"5": 100.0, "10": 50.0}


@pytest.mark.slow
def test_a_lineage_is_trained_drawn_and_not_trained_again(tmp_path, monkeypatch, capsys):
    output, picture = tmp_path / "lineage.json", tmp_path / "lineage.png"
    argv = ["lineage", "reverse", "--d_model=16", "--steps=10", "--evaluations=1", "--seeds", "1"]
    argv += ["--rows", "20", "40", "--only", "RNN, dot", f"--output={output}", f"--picture={picture}"]
    monkeypatch.setattr(sys, "argv", argv)
    lineage.main()
    assert picture.stat().st_size > 1000
    table = capsys.readouterr().out
    assert "| RNN, dot, 40 rows |" in table
    before = output.read_text()
    lineage.main()  # all runs are there
    assert capsys.readouterr().out in table
    assert output.read_text() == before
