"""The benchmark of translation: its rows are what was measured, what cannot take part is named, the chart is drawn."""

import json

import pytest
import torch
from tiny_seq2seq import word_tokenizer

from benchmarks import chart, translation
from benchmarks.translation import Case, build_all, figures, measure, table, translate_all
from benchmarks.translators import CONTENDERS, Unavailable, Workshop
from fun_transformer import FunTransformerConfig, FunTransformerForConditionalGeneration
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

TEXTS = ["a b", "c d", "e"]


def test_texts_are_translated_in_batches():
    seen = []

    def translate(texts, num_beams):
        seen.append((texts, num_beams))
        return [text.upper() for text in texts]

    outputs, turn = translate_all(translate, TEXTS, Case(num_beams=5, batch_size=2))
    assert seen == [(["a b", "c d"], 5), (["e"], 5)] and outputs == ["A B", "C D", "E"]
    assert turn.keys() == {"wall", "cpu"} and turn["wall"] > 0


def test_equal_outputs_and_medians_are_those_of_the_turns():
    turns = [{"wall": seconds, "cpu": seconds} for seconds in (3.0, 1.0, 2.0)]
    found = {
        "ours fp32": {"turns": turns, "outputs": ["x y z w", "y"]},
        "MarianMT fp32": {"turns": turns[:1], "outputs": ["x y z w", "z"]},
    }
    rows = figures(found, ["x y z w", "y"], "cpu")
    assert rows["ours fp32"]["sentences_per_second"] == 1.0 and rows["ours fp32"]["equal"] == 2
    assert rows["MarianMT fp32"]["equal"] == 1 and rows["MarianMT fp32"]["chrf"] < rows["ours fp32"]["chrf"] == 100
    lines = table({"greedy-batch1": rows}, 2).splitlines()
    assert lines[2].startswith("| ours fp32 | 1 (1.50), 2 of 2 equal |") and lines[3].startswith(
        "| MarianMT fp32 | 1 (1.00)"
    )


def test_all_take_turns():
    order = []

    def build(name):
        return lambda texts, num_beams: order.append(name) or texts

    found = measure({"a": build("a"), "b": build("b")}, TEXTS, Case(1, 3), rounds=2)
    assert order[2:] == ["a", "b", "a", "b"] and len(found["a"]["turns"]) == 2 and found["b"]["outputs"] == TEXTS


def test_what_cannot_take_part_is_named(monkeypatch, tmp_path, capsys):
    def build(workshop):
        raise Unavailable("it is not installed")

    monkeypatch.setitem(CONTENDERS, "another", build)
    word_tokenizer().save_pretrained(tmp_path)
    contenders, missing = build_all(["another"], Workshop(str(tmp_path), tmp_path, 1))
    assert not contenders and missing == {"another": "it is not installed"}
    assert "left out: another: it is not installed" in capsys.readouterr().out


@pytest.mark.slow
def test_it_writes_results_and_the_chart_shows_them(tmp_path, monkeypatch, capsys):
    tokenizer = train_tokenizer(TEXTS * 5, settings=TokenizerSettings(type="bpe", vocab_size=280))
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    FunTransformerForConditionalGeneration(FunTransformerConfig(**sizes)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [json.dumps({"source": text, "target": text}) + "\n" for text in TEXTS]
    (tmp_path / "rows.jsonl").write_text("".join(rows), encoding="utf-8")
    output = tmp_path / "results.json"
    argv = ["translation", str(tmp_path / "model"), str(tmp_path / "rows.jsonl"), f"--output={output}", "--rounds=1"]
    monkeypatch.setattr(
        "sys.argv", [*argv, "--cases", "greedy-batch1", "beam5-batch32", "--only", "ours fp32", "ours int8"]
    )
    translation.main()
    results = json.loads(output.read_text(encoding="utf-8"))
    assert (
        list(results["cases"]) == ["greedy-batch1", "beam5-batch32"]
        and results["sentences"] == 3
        and results["environment"]["device"]
    )
    assert results["cases"]["beam5-batch32"]["ours fp32"]["equal"] == 3
    assert str(tmp_path / "model") not in output.read_text(encoding="utf-8")
    assert "| ours int8 |" in capsys.readouterr().out
    pytest.importorskip("matplotlib")
    chart.draw_translation(results, tmp_path / "chart.svg")
    assert (
        "greedy" in (tmp_path / "chart.svg").read_text(encoding="utf-8") or (tmp_path / "chart.svg").stat().st_size > 0
    )
