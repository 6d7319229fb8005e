"""`--dry-run` and `--profile N` tell what a run costs, and leave no run behind."""

import json

import pytest
from forked_runs import write_digits_recipe

from fun_transformer.training.train import main

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def table(text: str) -> dict[str, str]:
    """The lines `name  value` of a table."""
    return {line.split("  ")[0]: line for line in text.splitlines()}


@pytest.mark.slow
def test_a_dry_run_tells_the_cost_and_writes_nothing(tmp_path, capsys):
    recipe = write_digits_recipe(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main([str(recipe), "--dry-run", "--training.max_steps", "200"]) == 0
    lines = table(capsys.readouterr().out)
    assert lines["parameters"].endswith("21,888")
    assert "260" in lines["training rows"]
    assert "200 (max_steps)" in lines["steps"]
    assert {"arithmetic", "batches", "memory", "speed", "time"} <= lines.keys()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_the_limit_that_comes_first_is_told(tmp_path, capsys):
    recipe = write_digits_recipe(tmp_path)
    limits = [
        "--training.max_steps",
        "100000",
        "--training.num_train_epochs",
        "3",
        "--training.gradient_accumulation_steps",
        "2",
    ]
    assert main([str(recipe), "--dry-run", *limits]) == 0
    assert "(num_train_epochs), 3.0 epochs" in table(capsys.readouterr().out)["steps"]


@pytest.mark.slow
def test_a_profile_is_a_trace_and_a_table(tmp_path, capsys):
    recipe = write_digits_recipe(tmp_path)
    assert main([str(recipe), "--profile", "2"]) == 0
    folder = tmp_path / "run" / "profile"
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert sum(event["name"] == "Optimizer.step#AdamW.step" for event in events) == 2
    assert "aten::mm" in (folder / "table.txt").read_text()
    assert "aten::mm" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["profile"]


def test_a_tracker_that_is_missing_is_named(tmp_path, capsys):
    recipe = write_digits_recipe(tmp_path)
    assert main([str(recipe), "--training.report_to", "tensorboard,clearml"]) == 2
    assert "pip install clearml" in capsys.readouterr().err
