"""Quality over time: the clock stands still while models are scored, and each system learns the same data."""

import json
import time

import pytest

from benchmarks import equal_time

CURVE = [{"seconds": 10.0, "score": 40.0}, {"seconds": 20.0, "score": 20.0}, {"seconds": 30.0, "score": 15.0}]


def burn(seconds: float) -> None:
    """Compute for a while."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_stopwatch_counts_what_is_computed_while_it_runs(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    clock = equal_time.Stopwatch()
    burn(0.02)
    before = clock()
    with clock.paused():
        burn(0.2)
    assert 0.02 <= before <= clock() < before + 0.1
    clock.restart()
    assert clock() < before


@pytest.mark.parametrize(
    "score, seconds", [(50.0, 10.0), (40.0, 10.0), (30.0, 15.0), (20.0, 20.0), (16.0, 28.0), (14.0, None)]
)
def test_the_time_to_a_score_lies_on_the_curve(score, seconds):
    assert equal_time.time_to(CURVE, score, lower_is_better=True) == seconds
    upwards = [{**point, "score": -point["score"]} for point in CURVE]
    assert equal_time.time_to(upwards, -score, lower_is_better=False) == seconds


def test_the_table_says_how_long_the_first_takes_to_what_others_reach(tmp_path):
    points = [point | {"tokens": 1000} for point in CURVE]
    found = {"metric": "per", "learning_rate": 2e-3, "environment": {"device": "a CPU", "threads": 1}}
    worse = [point | {"score": 2 * point["score"]} for point in points]
    systems = {"ours": found | {"curve": points}, "theirs": found | {"curve": worse}}
    assert equal_time.table(systems).splitlines()[-1] == "| theirs | 0.002 | 1,000 | 30 | 30.00 | 15 s |"
    pytest.importorskip("matplotlib")
    equal_time.draw(systems, tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_text().startswith("<?xml")


@pytest.fixture
def argv(tmp_path):
    """Of a run on letters to be copied."""
    rows = [{"source": "abc"[number % 3] * (1 + number % 4), "target": "abc"[number % 3]} for number in range(120)]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stack = {"layers": 1, "attention_heads": 2, "ffn_dim": 32}
    model = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in stack.items()}
    recipe = {
        "model": model | {"d_model": 16, "dropout": 0.0},
        "tokenizer": {"type": "char", "target_type": "word", "min_frequency": 1},
        "data": {split: {"dataset": str(tmp_path / f"{split}.jsonl")} for split in ("train", "validation")},
        "training": {"batch_tokens": 256, "learning_rate": 2e-2, "warmup_steps": 5, "schedule": "linear"}
        | {"metric_for_best_model": "per", "report_to": [], "threads": 1},
        "generation": {"metrics": ["per"], "max_new_tokens": 3},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    return [str(tmp_path / "recipe.yaml"), "--minutes=0.02", "--points=2", "--model.label_smoothing=0.0"]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(equal_time.SYSTEMS))
def test_a_system_learns_in_its_time_and_is_scored_on_the_way(name, argv):
    if name in equal_time.peers.missing():
        pytest.skip(f"{name} is not installed")
    found = equal_time.train_one(name, None, 0.02, equal_time.read_options(argv))
    first, last = found["curve"]
    assert 0.5 < first["seconds"] < last["seconds"] < 3 and 0 < first["tokens"] < last["tokens"]
    assert last["score"] < 60  # the empty answer, and one and the same answer to all, have 67 and more


@pytest.mark.parametrize(
    "word, kept",
    [("/a/b/c.json", "c.json"), ("--x=/a/b", "--x=b"), ("hub_configs/a", "hub_configs/a"), ("1e-3", "1e-3")],
)
def test_a_command_is_told_without_the_folders_of_a_machine(word, kept):
    assert equal_time.without_folder(word) == kept


def test_results_that_are_there_are_not_made_again(argv, tmp_path, capsys):
    found = {"metric": "per", "learning_rate": 2e-3, "curve": [point | {"tokens": 9} for point in CURVE]}
    output = tmp_path / "results.json"
    output.write_text(json.dumps({"systems": {"ours": found}}))
    equal_time.main([*argv, "--only", "ours", f"--output={output}"])
    assert "| ours | 0.002 | 9 | 30 | 15.00 | 30 s |" in capsys.readouterr().out
