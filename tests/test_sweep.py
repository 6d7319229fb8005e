"""The sweep with Optuna: validation only, and a study that goes on where it was stopped."""

import sys

import pytest
from forked_runs import write_digits_recipe

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def test_without_optuna_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "examples.sweep", raising=False)
    with pytest.raises(SystemExit, match="pip install optuna"):
        import examples.sweep  # noqa: F401


def test_a_study_goes_on_where_it_was_stopped_and_never_reads_the_test_split(tmp_path, monkeypatch, capsys):
    optuna = pytest.importorskip("optuna")
    from examples import sweep

    recipe, folder = write_digits_recipe(tmp_path), tmp_path / "sweep"
    (tmp_path / "test.jsonl").unlink()
    quick = ["--training.eval_steps=1", "--generation.metrics=exact", "--generation.max_new_tokens=4"]

    def run(count, *options):
        argv = ["sweep", str(recipe), str(folder), str(count), "--training.max_steps=2", *quick, *options]
        monkeypatch.setattr(sys, "argv", argv)
        sweep.main()
        return capsys.readouterr().out

    folder.mkdir()
    about = {"storage": f"sqlite:///{folder}/study.db", "study_name": "sweep"}
    stopped = optuna.create_study(**about, direction="maximize").ask(sweep.SPACE)  # and its training never ended
    out = run(2)
    study = optuna.load_study(**about)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    assert study.trials[0].params == stopped.params != study.trials[1].params
    assert study.direction.name == "MAXIMIZE" and f"Best of 2: exact {study.best_value:.4g} on validation" in out
    assert f"--model.dropout={study.best_params['model.dropout']}" in out
    assert all((folder / str(number) / "model" / "model.safetensors").exists() for number in (0, 1))
