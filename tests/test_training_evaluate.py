"""A trained model is scored again by its run's recipe, on its own rows or on others."""

import json
import re
import shutil

import pytest
from accelerate.state import AcceleratorState
from forked_runs import read_metrics, write_digits_recipe

from fun_transformer.training.evaluate import find_data, main
from fun_transformer.training.recipe.arguments import RunArguments
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.train import train

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def run_main(*words: object) -> int:
    """Evaluate as in a process of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def digits(children, tmp_path_factory):
    """A folder with data and a finished run."""
    folder = tmp_path_factory.mktemp("digits")
    run = folder / "run"
    assert children.run(write_digits_recipe(folder), run, "--training.max_steps", "4") == [0], children.log(run)
    return folder


@pytest.fixture
def finished(digits, tmp_path):
    """The folder of a copy of the run, beside a copy of the data."""
    shutil.copytree(digits, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


@pytest.mark.slow
def test_the_scores_are_those_of_the_training(finished, tmp_path):
    assert run_main(finished, "--output", tmp_path / "scores.json", "--predictions", tmp_path / "rows.jsonl") == 0
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    (measured,) = read_metrics(finished, "test")
    assert scores["split"] == "test"
    assert {name: scores[name] for name in ("exact", "chrf")} == {name: measured[name] for name in ("exact", "chrf")}
    assert scores["loss"] == pytest.approx(measured["loss"], rel=1e-6)
    assert (tmp_path / "rows.jsonl").read_text() == (finished / "predictions.jsonl").read_text()


@pytest.mark.slow
def test_settings_and_data_can_be_replaced_and_rows_that_were_held_out_are_found(finished, tmp_path):
    rows = (tmp_path / "test.jsonl").read_text(encoding="utf-8").splitlines()[:5]
    (tmp_path / "few.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    options = ["--data.test.dataset", tmp_path / "few.jsonl", "--generation.metrics", "per"]
    assert run_main(finished, *options, "--output", tmp_path / "few.json") == 0
    assert "per" in json.loads((tmp_path / "few.json").read_text(encoding="utf-8"))
    assert run_main(finished, "--split", "validation", "--predictions", tmp_path / "rows.jsonl") == 0
    assert len((tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()) == 20


@pytest.mark.slow
def test_a_classifier_keeps_its_labels(tmp_path):
    lines = [json.dumps({"source": f"{word} {n}", "target": word}) for n in range(30) for word in ("good", "bad")]
    (tmp_path / "labels.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "one.jsonl").write_text(lines[0] + "\n", encoding="utf-8")  # which knows one label only
    recipe = write_digits_recipe(tmp_path)
    data = [f"--data.{split}.dataset={tmp_path / 'labels.jsonl'}" for split in ("train", "validation", "test")]
    options = ["--objective=sequence_classification", "--training.metric_for_best_model=accuracy", *data]
    trained = train(parse_arguments([str(recipe), *options, "--training.max_steps=4"]))
    assert run_main(trained.folder, "--output", tmp_path / "all.json") == 0
    scores = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert scores["accuracy"] == trained.scores["test"]["accuracy"]
    assert run_main(trained.folder, f"--data.test.dataset={tmp_path / 'one.jsonl'}") == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--generation.nm_beams", "2"], "Did you mean generation.num_beams?"),
        (["--output", "no/folder/scores.json"], "There is no folder no/folder"),
        (["--model", "elsewhere"], "there is no elsewhere/config.json"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(finished, words, message, capsys):
    assert run_main(finished, *words) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    assert run_main(tmp_path) == 2
    assert "is no finished run" in capsys.readouterr().err


@pytest.mark.slow
def test_without_test_rows_the_held_out_ones_are_scored(tmp_path):
    recipe = write_digits_recipe(tmp_path)
    options = ["--training.max_steps=4", f"--data.train.dataset={tmp_path / 'train.jsonl'}"]
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(re.sub(r"(?m)^  (test|validation):\n(    .*\n)+", "", text), encoding="utf-8")
    trained = train(parse_arguments([str(recipe), *options]))
    assert set(trained.scores) == {"validation"}
    assert run_main(trained.folder, "--output", tmp_path / "scores.json") == 0
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["split"] == "validation"


@pytest.mark.slow
def test_what_the_vocabulary_lacks_is_told(finished, tmp_path, capsys):
    (tmp_path / "odd.jsonl").write_text('{"source": "12é3é", "target": "321"}\n{"source": "45", "target": "54"}\n')
    capsys.readouterr()
    assert run_main(finished, "--data.test.dataset", tmp_path / "odd.jsonl") == 0
    assert "1 of 2 sources have parts that the vocabulary lacks: 'é' (2)." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("noted", [True, False])
def test_a_run_with_relative_data_paths_is_scored_from_any_folder(tmp_path, monkeypatch, noted):
    """A run notes where it was started; those of older versions are looked for above their folder."""
    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    recipe = write_digits_recipe(tmp_path / "project")
    recipe.write_text(recipe.read_text(encoding="utf-8").replace(f"{tmp_path / 'project'}/", ""), encoding="utf-8")
    output_dir = tmp_path / "far/run" if noted else tmp_path / "project/run"
    trained = train(parse_arguments(["recipe.yaml", "--training.max_steps", "4", "--output_dir", str(output_dir)]))
    facts = json.loads((output_dir / "run.json").read_text(encoding="utf-8"))
    if noted:
        assert facts["working_directory"] == str(tmp_path / "project")
    else:
        del facts["working_directory"]
        (output_dir / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run_main(output_dir, "--output", tmp_path / "scores.json") == 0
    scores = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert scores["chrf"] == trained.scores["test"]["chrf"]


def test_data_that_the_command_line_names_are_not_looked_for_elsewhere(tmp_path, monkeypatch):
    for folder in ("project", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "project/rows.jsonl").write_text("{}")
    monkeypatch.chdir(tmp_path / "elsewhere")
    arguments = RunArguments()
    arguments.data.test.dataset = arguments.data.validation.dataset = "rows.jsonl"
    arguments.data.train.dataset = "user/on_the_hub"
    find_data(arguments, tmp_path / "project/runs/one", ["--data.test.dataset", "rows.jsonl"])
    assert arguments.data.test.dataset == "rows.jsonl" and arguments.data.train.dataset == "user/on_the_hub"
    assert arguments.data.validation.dataset == str(tmp_path / "project/rows.jsonl")
