"""One run at a time works in a folder, and a dead process keeps no other from it."""

import json
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest
from forked_runs import write_digits_recipe

from fun_transformer.training.run.folder import empty_run, is_run
from fun_transformer.training.run.lock import LOCK, RunLock
from fun_transformer.training.train import main

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def recipe(tmp_path):
    """Path of a recipe: 300 words of digits, backwards."""
    return write_digits_recipe(tmp_path)


@pytest.fixture
def old(recipe, tmp_path):
    """The folder of a run that has just begun."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("{}", encoding="utf-8")
    return Path(shutil.copy(recipe, tmp_path / "run/recipe.yaml")).parent


@pytest.fixture
def lock():
    """A function that makes a lock, and releases it at the end."""
    made = []

    def make(*arguments):
        made.append(RunLock(*arguments))
        return made[-1]

    yield make
    for one in made:
        one.release()


def no_locks(descriptor: int) -> None:
    """A disk without locks."""


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--resume", "auto"], ["--resume"]])
def test_a_second_start_is_told_who_is_at_work(options, recipe, old, lock, capsys):
    lock(old).take()
    assert main([str(recipe), *options]) == 2
    error = capsys.readouterr().err
    assert f"process {os.getpid()} on {socket.gethostname()} has been at work there since 20" in error
    assert {path.name for path in old.iterdir()} == {"run.json", "recipe.yaml", LOCK}


@pytest.mark.slow
def test_two_processes_of_a_run_take_one_lock_and_are_both_refused_another(children, recipe, old, lock):
    first = lock(old)
    first.take()
    assert children.run(recipe, old, "--resume", "auto", processes=2) == [2, 2], children.log(old)
    assert "is in use" in children.log(old) and "is in use" not in children.log(old, rank=1)
    first.release()
    assert children.run(recipe, old, "--resume", "auto", processes=2) == [0, 0], children.log(old)
    assert not (old / LOCK).exists()


@pytest.mark.slow
def test_a_run_is_locked_before_its_data_are_read_and_until_its_model_is_written(children, recipe, old, lock):
    assert children.run(recipe, old, "--resume", "auto", at_event=["", 4]) == [-signal.SIGKILL], children.log(old)
    assert json.loads((old / LOCK).read_text(encoding="utf-8"))["pid"] != os.getpid()
    assert children.run(recipe, old, "--resume", "auto", at_event=["predictions.jsonl", 1]) == [-signal.SIGKILL]
    assert (old / "model").exists() and (old / LOCK).exists()
    assert children.run(recipe, old, "--resume", "auto") == [0], children.log(old)
    assert not (old / LOCK).exists()


def test_a_dry_run_takes_no_lock(recipe, old, lock):
    lock(old).take()
    assert main([str(recipe), "--dry-run"]) == 0


def test_a_folder_with_nothing_but_a_lock_is_empty(tmp_path, lock):
    (tmp_path / LOCK).touch()
    (tmp_path / ".run.json.partial").touch()
    assert is_run(tmp_path)
    lock(tmp_path).take()
    empty_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


@pytest.mark.parametrize("kind", [[], [no_locks]])
def test_a_lock_is_had_once_and_leaves_nothing(kind, tmp_path, lock):
    folder = tmp_path / "runs" / "mine"
    first, second = lock(folder, *kind), lock(folder, *kind)
    first.take()
    with pytest.raises(ValueError, match=f"is in use: process {os.getpid()} on"):
        second.take()
    second.release()  # of what it does not have
    with pytest.raises(ValueError, match="is in use"):
        second.take()
    first.release()
    assert not (tmp_path / "runs").exists()
    second.take()
    (folder / "run.json").touch()
    second.release()
    assert [path.name for path in folder.iterdir()] == ["run.json"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kind", [[], [no_locks]])
def test_a_killed_process_leaves_no_lock_even_where_a_child_lives_on(kind, tmp_path, lock):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        RunLock(tmp_path, *kind).take()
        sleeper = os.fork()
        if not sleeper:
            signal.pause()
        os.write(write, str(sleeper).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    sleeper = int(os.read(read, 20))
    try:
        assert json.loads((tmp_path / LOCK).read_text(encoding="utf-8"))["pid"] == child
        lock(tmp_path, *kind).take()
    finally:
        os.kill(sleeper, signal.SIGKILL)


def test_without_locks_a_process_of_another_machine_is_taken_to_run(tmp_path, lock):
    owner = {"pid": 1, "host": "elsewhere", "since": "yesterday"}
    for text in (json.dumps(owner), ""):
        (tmp_path / LOCK).write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=f"If it no longer runs, remove .*{LOCK}"):
            lock(tmp_path, no_locks).take()
    (tmp_path / LOCK).unlink()
    lock(tmp_path, no_locks).take()
