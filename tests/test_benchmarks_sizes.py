"""What training costs with the size of the model, of the batch and of the corpus is measured and drawn."""

import json
from pathlib import Path

import pytest

from benchmarks import chart, loading


def write_sides(folder):
    """Write a small corpus; returns the paths of its sides."""
    for side, letters in (("source", "abc"), ("target", "xyz")):
        lines = [f"{letters[row % 3] * (1 + row % 5)} {letters[(row + 1) % 3]}\n" for row in range(200)]
        (folder / side).write_text("".join(lines))
    return str(folder / "source"), str(folder / "target")


@pytest.mark.slow
def test_speed_and_memory_are_measured_over_sizes_and_drawn(children, tmp_path):
    output, picture = tmp_path / "sizes.json", tmp_path / "sizes.svg"
    words = ["-m", "benchmarks.sizes", *write_sides(tmp_path), "--vocab_size=300", "--widths", "64", "512"]
    words += [
        "--batches",
        "128",
        "2000000",
        "--contenders",
        "ours",
        "Marian, fp32, sdpa",
        "--minutes=0.1",
        "--seconds=0.1",
    ]
    process = children.start(*words, f"--output={output}")
    assert process.wait() == 0, process.error
    results = json.loads(output.read_text())
    places = [(point["contender"], point["d_model"], point["batch_tokens"]) for point in results["points"]]
    assert places[:2] == [("ours", 64, 128), ("Marian, fp32, sdpa", 64, 128)]
    assert results["left_out"][-1] == "d_model 512, 2,000,000 tokens"  # no time for it
    assert all(point["tokens_per_cpu_second"] > 0 and point["bytes"] > 0 for point in results["points"])
    chart.draw_sizes(results, picture)
    assert picture.read_text().startswith("<?xml")


PICTURES = ["training-cpu-amx", "training-h200", "translation-cpu", "sizes-cpu", "complexity-cpu", "equal-time-g2p"]
PICTURES += ["lineage-tatoeba", "lineage-reverse", "head-starts-tatoeba"]


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_the_pictures_of_the_docs_are_drawn_from_the_committed_results(name, tmp_path):
    pytest.importorskip("matplotlib")
    results = json.loads((Path(__file__).parents[1] / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))
    chart.draw_by_kind(results, tmp_path / "picture.svg")
    assert 5_000 < (tmp_path / "picture.svg").stat().st_size < 200_000


def test_made_up_pairs_are_different_sentences_of_ten_words_in_the_mean(tmp_path):
    loading.write_pairs(tmp_path / "pairs.tsv", 500)
    header, *lines = (tmp_path / "pairs.tsv").read_text().splitlines()
    pairs = [line.split("\t") for line in lines]
    assert header == "source\ttarget" and len(pairs) == 500
    assert 9 < sum(len(source.split()) for source, _ in pairs) / 500 < 11
    assert all(len(source.split()) == len(target.split()) > 0 for source, target in pairs)
    assert len({source for source, _ in pairs if len(source.split()) > 3}) > 400


@pytest.mark.slow
def test_loading_is_measured_from_nothing_and_with_the_cache(children, tmp_path, capsys):
    loading.write_pairs(tmp_path / "pairs.tsv", 1200)
    words = ["-m", "benchmarks.loading", tmp_path / "pairs.tsv", "--one", "--seconds=0.05", "--recipe"]
    process = children.start(*words, "--tokenizer.vocab_size=400", HF_DATASETS_CACHE=str(tmp_path / "cache"))
    assert process.wait() == 0, process.error
    found = json.loads(process.output.splitlines()[-1])
    assert found["loader_tokens_per_cpu_second"] > 1000 and found["peak_bytes"] > 2**20
    loading.show(1200, {"cached": found})
    assert "1,200 rows, cached" in capsys.readouterr().out
