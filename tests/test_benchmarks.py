"""The benchmarks run, on a corpus of a few lines; what they measure is another matter."""

import json
import sys

import pytest

from benchmarks import training


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
