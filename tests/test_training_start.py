"""The start of a run loses nothing: what can be refused is refused first, and done is done."""

import shutil
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from forked_runs import write_digits_recipe

from fun_transformer.training import TrainingLoop, parse_arguments, train
from fun_transformer.training.evaluate import main as evaluate
from fun_transformer.training.run.folder import died_young, empty_run, is_run
from fun_transformer.training.train import main

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def recipe(tmp_path):
    """Path of a recipe: 300 words of digits, backwards."""
    return write_digits_recipe(tmp_path)


@pytest.fixture
def old(recipe, tmp_path):
    """The folder of a finished run of the recipe, whose checkpoints are gone."""
    output_dir = tmp_path / "run"
    for name in ("model", "models/step-4"):
        (output_dir / name).mkdir(parents=True)
        (output_dir / name / "config.json").write_text("{}", encoding="utf-8")
    (output_dir / "run.json").write_text("{}", encoding="utf-8")
    shutil.copy(recipe, output_dir / "recipe.yaml")
    return output_dir


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder, as they are."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run_main(*words: object) -> int:
    """Train as in a process of its own; return the exit code."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return main([str(word) for word in words])


# ── What can be refused is refused first ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.d_model=33"], "d_model=33"),
        (["--model.vocab_size=7"], "vocab_size=7"),
        (["--training.attn_implementation=nowhere"], "nowhere"),
        (["--training.init_from={folder}"], "no model.safetensors"),
        (["--training.ema_decay=0.9", "--training.source_vectors={folder}/recipe.yaml"], "vectors"),
    ],
)
def test_what_is_refused_leaves_the_old_run_as_it_was(options, message, recipe, old, tmp_path, capsys):
    before = contents(old)
    assert run_main(recipe, "--overwrite", *(option.format(folder=tmp_path) for option in options)) == 2
    assert message in capsys.readouterr().err
    assert contents(old) == before


def test_a_loop_that_cannot_be_built_leaves_the_old_run_as_it_was(recipe, old):
    class Impossible(TrainingLoop):
        def __init__(self, *prepared):
            raise ValueError("impossible")

    before = contents(old)
    with pytest.raises(ValueError, match="impossible"):
        train(parse_arguments([str(recipe), "--overwrite"]), loop=Impossible)
    assert contents(old) == before


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        *(("data.train.dataset", kind) for kind in ("itself", "by a link", "a link in it")),
        *((f"training.{name}", "itself") for name in ("init_from", "source_vectors", "target_vectors")),
        *((name, "itself") for name in ("data.test.dataset", "tokenizer.path", "plugins")),
        *((name, "by a link") for name in ("model.config", "generation.config")),
    ],
)
def test_what_the_run_reads_must_not_be_in_the_folder_that_it_empties(option, kind, recipe, old, tmp_path, capsys):
    inside = old / "models/step-4"
    (inside / "config.json").write_text('{"source": "1", "target": "1", "d_model": 32}', encoding="utf-8")
    for name in ("rows.jsonl", "plugin.py"):
        (inside / name).write_text('{"source": "1", "target": "1"}', encoding="utf-8")
    files = {"data": "rows.jsonl", "plugins": "plugin.py", "training.init_from": "", "tokenizer": ""}
    name = files.get(option, files.get(option.split(".")[0], "config.json"))
    if kind == "by a link":
        (tmp_path / "link").symlink_to(inside)
        inside = tmp_path / "link"
    elif kind == "a link in it":
        shutil.move(inside, tmp_path / "elsewhere")
        inside.symlink_to(tmp_path / "elsewhere")
    before = contents(old)
    assert run_main(recipe, "--overwrite", f"--{option}", inside / name) == 2
    message = capsys.readouterr().err
    assert "is inside output_dir" in message and option.removesuffix(".dataset") in message
    assert contents(old) == before


@pytest.mark.parametrize("pattern", ["*.jsonl", "**/*.jsonl"])
def test_a_pattern_must_not_reach_into_the_folder_that_is_emptied(pattern, recipe, old, capsys):
    (old / "rows.jsonl").write_text('{"source": "1", "target": "1"}', encoding="utf-8")
    assert run_main(recipe, "--overwrite", f"--data.train.dataset={old}/{pattern}") == 2
    assert "is inside output_dir" in capsys.readouterr().err and (old / "rows.jsonl").exists()


def test_a_recipe_in_the_folder_is_refused_but_for_the_one_that_the_run_wrote(old, capsys):
    shutil.copy(old / "recipe.yaml", old / "mine.yaml")
    assert run_main(old / "mine.yaml", "--overwrite") == 2
    assert "recipe=" in capsys.readouterr().err and (old / "mine.yaml").exists()
    before = (old / "recipe.yaml").read_bytes()
    empty_run(old)
    assert {path.name for path in old.iterdir()} == {"run.json", "recipe.yaml"} and is_run(old)
    assert (old / "recipe.yaml").read_bytes() == before


@pytest.mark.slow
def test_a_run_is_started_again_from_the_recipe_that_it_wrote(recipe, tmp_path):
    short = ["--training.max_steps=2", "--training.eval_steps=2", "--training.save_steps=2"]
    assert run_main(recipe, *short) == 0
    written = tmp_path / "run/recipe.yaml"
    text = written.read_text(encoding="utf-8")
    (tmp_path / "run/left_over.txt").touch()
    assert run_main(written, "--overwrite") == 0
    assert written.read_text(encoding="utf-8") == text and (tmp_path / "run/model/config.json").exists()
    assert not (tmp_path / "run/left_over.txt").exists()


@pytest.mark.slow
def test_a_resumed_run_that_is_refused_keeps_its_recipe(recipe, tmp_path, capsys):
    assert run_main(recipe) == 0
    before = contents(tmp_path / "run")
    assert run_main(recipe, "--resume", "--allow_changes", "--model.d_model=16") == 2
    assert "does not fit this model" in capsys.readouterr().err
    assert contents(tmp_path / "run") == before


def test_an_evaluation_does_not_write_over_what_it_reads(old, tmp_path, capsys):
    before = contents(tmp_path)
    for option in ("--output", "--predictions"):
        assert evaluate([str(old), option, str(tmp_path / "test.jsonl")]) == 2
        assert "would be written over data.test" in capsys.readouterr().err
    assert contents(tmp_path) == before


# ── Done is done ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--training.eval_steps=5"]])
def test_a_finished_run_without_checkpoints_is_left_as_it_is(options, recipe, old, capsys):
    before = contents(old)
    assert run_main(recipe, "--resume", "auto", *options) == 0
    assert f"finished: its model is {old / 'model'}" in capsys.readouterr().out
    assert contents(old) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["auto", "--training.max_steps=24"], "training.max_steps: 12 -> 24"),
        (["auto", "--model.dropout=0"], "model.dropout: 0.1 -> 0"),
        (["true"], "there is nothing to go on from. Train again with --overwrite and without --resume"),
        (["no"], "is not empty"),
    ],
)
def test_a_finished_run_without_checkpoints_cannot_go_on(options, message, recipe, old, capsys):
    before = contents(old)
    assert run_main(recipe, "--resume", *options) == 2
    assert message in capsys.readouterr().err
    assert contents(old) == before


def test_a_run_that_has_lost_its_checkpoints_has_not_died_young(recipe, old, capsys):
    shutil.rmtree(old / "model")
    assert died_young(old)  # killed between the evaluation of step 4 and its checkpoint
    (old / "checkpoints" / ".step-4.partial").mkdir(parents=True)
    assert died_young(old)
    (old / "models/step-4").rename(old / "models/step-8")
    assert not died_young(old)
    assert run_main(recipe, "--resume", "auto") == 2
    assert "there is no checkpoint to go on from. Empty it with --overwrite" in capsys.readouterr().err
    shutil.rmtree(old / "models")
    (old / "checkpoints" / "aside-step-8").mkdir()
    assert not died_young(old)
