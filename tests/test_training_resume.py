"""No work is lost: runs that are killed, damaged, out of disk or changed go on exactly, or say why they do not."""

import json
import math
import os
import random
import re
import shutil
import signal
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from forked_runs import read_metrics, write_digits_recipe
from safetensors.torch import load_file

from fun_transformer.training.data.rows import TokenRows, checksum_with_texts
from fun_transformer.training.run.checkpoints import (
    checkpoint_folders,
    commit_with_manifest,
    find_checkpoint,
    find_model_problem,
    find_problem,
)
from fun_transformer.training.train import words_to_resume

KILLED = -9


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Path of the recipe: a word of digits, backwards."""
    return write_digits_recipe(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def whole(children, recipe):
    """A run that nothing happened to."""
    output_dir = recipe.parent / "whole"
    assert children.run(recipe, output_dir) == [0], children.log(output_dir)
    return output_dir


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of the run, to be damaged."""
    return shutil.copytree(whole, tmp_path / "run")


def trainer_state(output_dir: Path) -> dict:
    """The state of the last checkpoint, without what the clock decides."""
    state = json.loads((checkpoint_folders(output_dir)[-1] / "trainer_state.json").read_text(encoding="utf-8"))
    return {name: value for name, value in state.items() if name != "seconds"}


def assert_same_runs(one: Path, other: Path) -> None:
    """Losses, scores, data order, early stopping, optimizer and weights are equal to the last bit."""
    for split in ("train", "validation", "test"):
        assert read_metrics(one, split) == read_metrics(other, split)
    assert trainer_state(one) == trainer_state(other)
    last = [checkpoint_folders(output_dir)[-1] for output_dir in (one, other)]
    for name in ("pytorch_model.bin", "optimizer.bin", "random_states_0.pkl"):
        first, second = (torch.load(folder / name, weights_only=False) for folder in last)
        torch.testing.assert_close(_tensors(first), _tensors(second), rtol=0, atol=0)
    for name in ("predictions.jsonl", "model/model.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def _tensors(values):
    """All tensors inside nested dicts and lists."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list | tuple):
        return [tensor for value in values for tensor in _tensors(value)]
    return [values] if isinstance(values, torch.Tensor) else []


def kill_until_finished(children, recipe, output_dir, rng, kills: int) -> dict[str, int]:
    """Start a run again and again, and kill it, until it is finished.

    Returns:
        How many were killed, how many of them after a resume, and how many while a checkpoint was being written.
    """
    counts = {"killed": 0, "resumed": 0, "in_checkpoint": 0}
    while counts["killed"] < 100:
        before = [int(folder.name.removeprefix("step-")) for folder in checkpoint_folders(output_dir)]
        name = f"step-{min(12, max(before, default=0) + rng.choice((4, 8)))}.partial"
        job = rng.choice(
            (
                {"at_event": ["", rng.randint(1, 120)]},  # before one of the changes on the disk
                {"after": ["metrics.jsonl", rng.uniform(0, 2 if before else 0.4)]},  # or by the clock
                {"at_event": [name, rng.randint(1, 8)]},  # and the same while a checkpoint is written
                {"after": [f"checkpoints/.{name}", rng.uniform(0, 0.03)]},
            )
        )
        codes = children.run(recipe, output_dir, "--resume", "auto", **(job if counts["killed"] < kills else {}))
        if codes == [0]:
            return counts
        assert codes == [KILLED], children.log(output_dir)[-3000:]
        counts["killed"] += 1
        counts["resumed"] += bool(before)
        counts["in_checkpoint"] += bool(list(output_dir.glob("checkpoints/.step-*.partial")))
    raise AssertionError("The run never ends.")


@pytest.mark.slow
def test_a_run_killed_again_and_again_equals_one_that_never_was(children, recipe, whole, tmp_path):
    rng = random.Random(1)
    counts: Counter[str] = Counter()
    while counts["killed"] < 10 or counts["resumed"] < 3 or counts["in_checkpoint"] < 2:
        output_dir = tmp_path / f"parts{counts['runs']}"
        counts.update(kill_until_finished(children, recipe, output_dir, rng, kills=6), runs=1)
        assert_same_runs(output_dir, whole)
        assert not list(output_dir.rglob("*.partial"))
    print(dict(counts))


@pytest.mark.slow
def test_a_packed_run_that_was_killed_goes_on_exactly(children, recipe, tmp_path):
    options = ["--training.packing", "32"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert children.run(recipe, whole, *options) == [0], children.log(whole)
    assert children.run(recipe, parts, *options, at_event=[".step-8.partial", 1]) == [KILLED]
    assert children.run(recipe, parts, *options, "--resume") == [0], children.log(parts)
    assert_same_runs(parts, whole)
    more = ["--training.max_steps", "14", "--resume"]
    assert children.run(recipe, parts, *options, *more, processes=2) == [0, 0], children.log(parts)


def make_batches_ahead() -> Callable:
    """A training that makes the next batches while a step computes, as on a GPU."""
    from fun_transformer.training.loop import TrainingLoop
    from fun_transformer.training.train import train

    class Ahead(TrainingLoop):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.stream.prefetch = True

    return partial(train, loop=Ahead)


@pytest.mark.slow
def test_batches_that_are_made_ahead_change_nothing_nor_are_they_lost(children, recipe, tmp_path):
    options = [
        "--training.batch_tokens",
        "400",
        "--training.gradient_accumulation_steps",
        "2",
        "--training.max_steps",
        "14",
    ]
    job = {"patch": ["test_training_resume", "make_batches_ahead"]}
    plain, parts = tmp_path / "plain", tmp_path / "parts"
    assert children.run(recipe, plain, *options) == [0], children.log(plain)
    assert children.run(recipe, parts, *options, **job, at_event=[".step-12.partial", 1]) == [KILLED]
    assert children.run(recipe, parts, *options, "--resume", **job) == [0], children.log(parts)
    assert_same_runs(parts, plain)
    assert read_metrics(parts, "train")[-1]["epoch"] > 1


def compile_models() -> None:
    """Train as `accelerate launch --dynamo_backend eager --dynamo_use_dynamic` does: traced, but not translated."""
    os.environ |= {"ACCELERATE_DYNAMO_BACKEND": "eager", "ACCELERATE_DYNAMO_USE_DYNAMIC": "true"}
    real = torch.nn.Module.compile

    def compile(module, **options):
        print("compiled with", options)
        real(module, **options)

    torch.nn.Module.compile = compile


@pytest.mark.slow
def test_a_compiled_run_equals_one_that_is_not_and_either_goes_on_as_the_other(children, recipe, tmp_path):
    # Compiled dropout draws other numbers.
    options = ["--model.dropout", "0", "--training.packing", "32"]
    job = {"patch": ["test_training_resume", "compile_models"], "timeout": 600}
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    assert children.run(recipe, plain, *options) == [0], children.log(plain)
    killed = children.run(recipe, compiled, *options, **job, at_event=[".step-8.partial", 1])
    assert killed == [KILLED] and checkpoint_folders(compiled), children.log(compiled)
    assert children.run(recipe, compiled, *options, "--resume", **job) == [0], children.log(compiled)
    assert children.log(compiled).count("compiled with {'backend': 'eager', 'dynamic': True}") == 2
    names = [load_file(path / "model" / "model.safetensors").keys() for path in (plain, compiled)]
    assert names[0] == names[1]
    for found, expected in zip(read_metrics(compiled, "train"), read_metrics(plain, "train"), strict=True):
        assert abs(found["loss"] - expected["loss"]) < 1e-4
    shutil.rmtree(checkpoint_folders(compiled)[-1])  # go on from step 8, without the compiler
    assert children.run(recipe, compiled, *options, "--resume") == [0], children.log(compiled)
    assert abs(read_metrics(compiled, "test")[0]["loss"] - read_metrics(plain, "test")[0]["loss"]) < 1e-4


# ── Damage ───────────────────────────────────────────────────────────────────────────────────────────────────────


def truncate(folder):
    with (folder / "optimizer.bin").open("r+b") as file:
        file.truncate(1000)


def remove_generators(folder):
    (folder / "random_states_0.pkl").unlink()


def break_state(folder):
    (folder / "trainer_state.json").write_text("{", encoding="utf-8")


def break_manifest(folder):
    (folder / "manifest.json").write_text("{", encoding="utf-8")


def flip_a_bit(folder):
    path = folder / "pytorch_model.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow  # for the run that is damaged
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (truncate, "optimizer.bin has 1,000 bytes instead of"),
        (remove_generators, "random_states_0.pkl is missing"),
        (break_state, "trainer_state.json has 1 bytes"),
        (break_manifest, "manifest.json is damaged"),
        (flip_a_bit, "pytorch_model.bin has changed"),
    ],
)
def test_damage_to_a_checkpoint_is_noticed(finished, damage, problem):
    assert [folder.name for folder in checkpoint_folders(finished)] == ["step-8", "step-12"]
    last = checkpoint_folders(finished)[-1]
    assert find_problem(last) is None
    damage(last)
    assert problem in find_problem(last)
    assert find_checkpoint(finished, True).name == "step-8"
    with pytest.raises(ValueError, match="is not readable"):
        find_checkpoint(finished, str(last))
    damage(finished / "checkpoints" / "step-8")
    with pytest.raises(ValueError, match=r"No checkpoint in .* is readable"):
        find_checkpoint(finished, "auto")


@pytest.mark.slow
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(children, recipe, whole, finished):
    truncate(finished / "checkpoints" / "step-12")
    assert children.run(recipe, finished, "--resume") == [0], children.log(finished)
    log = children.log(finished)
    assert "step-12 is not readable: optimizer.bin has 1,000 bytes" in log and "Going on from" in log
    assert (finished / "checkpoints" / "aside-step-12").is_dir()
    assert_same_runs(finished, whole)


@pytest.mark.slow
def test_an_older_checkpoint_can_be_gone_on_from(children, recipe, whole, finished):
    code = children.run(recipe, finished, "--resume", str(finished / "checkpoints" / "step-8"))
    assert code == [0], children.log(finished)
    assert_same_runs(finished, whole)


# ── What may change ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_changed_recipe_is_refused_with_its_differences_unless_told(children, recipe, finished):
    changed = ["--training.learning_rate", "0.001", "--model.dropout", "0", "--training.max_steps", "14"]
    assert children.run(recipe, finished, "--resume", *changed) == [2]
    log = children.log(finished)
    assert "model.dropout: 0.1 -> 0" in log and "training.learning_rate: 0.003 -> 0.001" in log
    assert "max_steps" not in log  # a longer run is nothing to refuse
    assert children.run(recipe, finished, "--resume", "--allow_changes", *changed) == [0], children.log(finished)
    assert "training.max_steps: 12 -> 14" in children.log(finished)
    assert trainer_state(finished)["step"] == 14
    # The change has been accepted: from now on it is the recipe.
    assert children.run(recipe, finished, "--resume", *changed) == [0], children.log(finished)


@pytest.mark.slow
def test_other_training_rows_and_a_vanished_file_are_refused(children, tmp_path):
    recipe = write_digits_recipe(tmp_path)
    output_dir, train = tmp_path / "run", tmp_path / "train.jsonl"
    assert children.run(recipe, output_dir, at_event=[".step-8.partial", 1]) == [KILLED]
    text = train.read_text(encoding="utf-8")
    train.write_text('{"source": "12", "target": "21"}\n' + text, encoding="utf-8")
    assert children.run(recipe, output_dir, "--resume") == [2]
    assert "training rows are not those" in children.log(output_dir)
    train.unlink()
    assert children.run(recipe, output_dir, "--resume") == [2]
    assert f"there is no file {train}" in children.log(output_dir)
    train.write_text(text, encoding="utf-8")
    assert [folder.name for folder in checkpoint_folders(output_dir)] == ["step-4"]
    assert children.run(recipe, output_dir, "--resume") == [0], children.log(output_dir)


def change_one_digit(path: Path) -> None:
    """Change a digit of a pair, on both sides: the lengths stay."""
    first, *others = path.read_text(encoding="utf-8").splitlines(keepends=True)
    digits = json.loads(first)["source"]
    changed = str((int(digits[0]) + 1) % 10) + digits[1:]
    row = json.dumps({"source": changed, "target": changed[::-1]})
    path.write_text("".join([row + "\n", *others]), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows_of_other_content_are_refused_and_what_is_allowed_mixes_no_scores(children, tmp_path, split):
    recipe, output_dir = write_digits_recipe(tmp_path), tmp_path / "run"
    options = ["--training.metric_for_best_model", "loss", "--training.average_models", "2"]
    assert children.run(recipe, output_dir, *options) == [0], children.log(output_dir)
    before = trainer_state(output_dir)["saved"]
    change_one_digit(tmp_path / f"{split}.jsonl")
    options += ["--resume", "--training.max_steps", "13"]  # one step more, after which all is saved again
    assert children.run(recipe, output_dir, *options) == [2], children.log(output_dir)
    name = {"train": "training", "validation": "validation"}[split]
    assert f"The {name} rows are not those that this run was" in children.log(output_dir)
    assert children.run(recipe, output_dir, *options, "--allow_changes") == [0], children.log(output_dir)
    after = {step: loss for step, loss in trainer_state(output_dir)["saved"] if step != 13}
    assert ("of the saved models, again" in children.log(output_dir)) == (split == "validation")
    for step, loss in before:
        if step in after:
            assert (after[step] != loss) == (split == "validation")
            assert abs(after[step] - loss) < 0.5
    assert after


@pytest.mark.slow
def test_scores_of_another_metric_or_of_more_rows_are_not_compared(children, finished, recipe):
    resume = ["--resume", "--allow_changes", "--training.max_steps", "13"]
    options = ["--generation.eval_rows", "10", "--training.metric_for_best_model", "chrf"]
    assert children.run(recipe, finished, *resume, *options) == [0], children.log(finished)
    state = trainer_state(finished)
    assert state["measured"]["metric"] == "chrf" and state["measured"]["eval_rows"] == 10
    assert state["best_score"] == max(score for _, score in state["saved"])
    assert "again: step" in children.log(finished)


@pytest.mark.slow
def test_a_checkpoint_of_the_version_before_goes_on_exactly(children, recipe, whole, finished):
    shutil.rmtree(finished / "checkpoints" / "step-12")
    checkpoint = checkpoint_folders(finished)[-1]
    path = checkpoint / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    train = [json.loads(line) for line in (recipe.parent / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    lengths = np.array([[len(row[side]) + 1 for row in train] for side in ("source", "target")])
    old = {name: value for name, value in state.items() if name not in ("rows", "measured")}
    path.write_text(json.dumps(old | {"data": zlib.crc32(lengths.tobytes())}), encoding="utf-8")
    (checkpoint / "manifest.json").unlink()
    commit_with_manifest(checkpoint.rename(checkpoint.with_name("old")), checkpoint)
    for manifest in finished.glob("models/*/manifest.json"):
        manifest.unlink()
    (finished / "tokenizer" / "manifest.json").unlink()
    assert children.run(recipe, finished, "--resume") == [0], children.log(finished)
    assert_same_runs(finished, whole)


def token_rows(sources: list[list[int]], **more: list) -> TokenRows:
    """Rows with these sources, and the same targets."""
    return TokenRows(Dataset.from_dict({"input_ids": sources, "labels": sources, **more}))


def test_a_checksum_of_rows_depends_on_their_content_and_order_alone():
    rows = [[5, 6, 7], [8], [], [9, 10]]
    found = token_rows(rows).checksum()
    for other in ([[5, 6, 7], [8], [], [10, 9]], [[5, 6], [7, 8], [], [9, 10]], rows[::-1], rows[:-1], [*rows, []]):
        assert token_rows(other).checksum() != found
    assert token_rows(rows, corpus=[0, 0, 0, 1]).checksum() != token_rows(rows, corpus=[0, 0, 1, 1]).checksum()
    # Neither chunks on the disk nor rows that were selected matter.
    parts = Dataset.from_dict({"input_ids": [[1], *rows], "labels": [[1], *rows]})
    assert TokenRows(parts.select([1, 2, 3, 4])).checksum() == found
    assert TokenRows(parts.select([1, 4, 3, 2]).select([0, 3, 2, 1])).checksum() == found
    chunks = concatenate_datasets([parts.select([1, 2]).flatten_indices(), parts.select([3, 4]).flatten_indices()])
    assert TokenRows(chunks).checksum() == found


def test_a_checksum_of_validation_rows_depends_on_their_references():
    rows = {"input_ids": [[1], [2]], "labels": [[3], [4]], "target": ["a", "b"]}
    found = [
        checksum_with_texts(Dataset.from_dict({**rows, "references": references}))
        for references in ([["a"], ["b"]], [["a"], ["b", "c"]])
    ]
    assert found[0] != found[1]


# ── What goes wrong on the way ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize("file", ["checkpoint", "model"])
def test_a_full_disk_ends_the_run_with_a_clear_error_and_the_last_checkpoint(children, recipe, tmp_path, whole, file):
    output_dir = tmp_path / "run"
    options = {"checkpoint": [], "model": ["--training.average_models", "2"]}[file]  # the model of each evaluation
    job = {"file_size": ["checkpoints/step-4", 20_000]}
    assert children.run(recipe, output_dir, *options, **job) == [1], children.log(output_dir)
    log = children.log(output_dir)
    assert f"The {file} of step 8 could not be written" in log and "step-4: go on with --resume" in log
    assert "Traceback" not in log
    assert [folder.name for folder in (output_dir / "checkpoints").iterdir()] == ["step-4"]
    assert not list(output_dir.rglob("*.partial"))
    assert children.run(recipe, output_dir, *options, "--resume") == [0], children.log(output_dir)
    if file == "checkpoint":
        assert_same_runs(output_dir, whole)


def poison(steps: list[int]) -> Callable:
    """A training in which the loss of some optimizer steps is no number."""
    from fun_transformer.training.loop import TrainingLoop
    from fun_transformer.training.train import train

    class Poisoned(TrainingLoop):
        def count(self, taken):
            items, tokens = super().count(taken)
            return (items, tokens) if self.progress.step + 1 not in steps else (math.nan, tokens)

    return partial(train, loop=Poisoned)


@pytest.mark.slow
def test_a_step_whose_loss_is_not_finite_is_skipped_and_counted(children, recipe, tmp_path):
    output_dir = tmp_path / "run"
    patch = ["test_training_resume", "poison", [2, 5]]
    assert children.run(recipe, output_dir, patch=patch) == [0], children.log(output_dir)
    lines = read_metrics(output_dir, "train")
    assert [line["step"] for line in lines] == [1, 3, 4, *range(6, 13)]  # nothing to log of a skipped step
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert lines[-1]["skipped_steps"] == trainer_state(output_dir)["skipped_steps"] == 2
    assert "Step 5: the loss is" in children.log(output_dir)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_too_many_steps_that_are_not_finite_stop_the_run_with_their_rows(children, recipe, tmp_path, processes):
    output_dir = tmp_path / "run"
    options = ["--training.max_bad_steps", "3"]
    patch = ["test_training_resume", "poison", [5, 6, 7, 8]]
    codes = children.run(recipe, output_dir, *options, patch=patch, processes=processes)
    assert codes == [1] * processes, children.log(output_dir)
    assert "for 3 step(s) in a row" in children.log(output_dir)
    bad = json.loads((output_dir / "bad_batch.json").read_text(encoding="utf-8"))
    train = [json.loads(line) for line in (recipe.parent / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert bad["step"] == 7 and {row["process"] for row in bad["rows"]} == set(range(processes))
    assert all(train[row["row"]]["source"] == row["source"] for row in bad["rows"])
    assert find_problem(checkpoint_folders(output_dir)[-1]) is None
    # Without the cause the run goes on.
    assert children.run(recipe, output_dir, *options, "--resume", processes=processes) == [0] * processes


def interrupt_twice() -> Callable:
    """A training that gets Ctrl-C twice in a row in its sixth step, as a terminal and torchrun send it together."""
    from fun_transformer.training.loop import TrainingLoop
    from fun_transformer.training.train import train

    class Interrupted(TrainingLoop):
        def count(self, taken):
            if self.progress.step == 5:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return super().count(taken)

    return partial(train, loop=Interrupted)


@pytest.mark.slow
def test_a_ctrl_c_that_comes_twice_at_once_saves(children, recipe, whole, tmp_path):
    output_dir = tmp_path / "run"
    codes = children.run(recipe, output_dir, patch=["test_training_resume", "interrupt_twice"])
    assert codes == [128 + signal.SIGINT], children.log(output_dir)
    log = children.log(output_dir)
    assert "Everything is saved in" in log and "--resume" in log and "Traceback" not in log
    assert checkpoint_folders(output_dir)[-1].name == "step-6"
    assert children.run(recipe, output_dir, "--resume") == [0], children.log(output_dir)
    assert_same_runs(output_dir, whole)


# ── The models that may become the final one ─────────────────────────────────────────────────────────────────────


def remove_weights(folder):
    (folder / "model.safetensors").unlink()


def truncate_weights(folder):
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


def make_weights_infinite(folder):
    """Make the last number infinite, as flipped bits of its exponent may."""
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + struct.pack("<f", math.inf))


def damage_nothing_but_the_manifest(folder):
    (folder / "manifest.json").write_text("{", encoding="utf-8")


def best_models(output_dir: Path) -> list[int]:
    """Steps of the models that the last checkpoint names, the best first."""
    return [step for step, _ in trainer_state(output_dir)["saved"]]


@pytest.mark.slow
@pytest.mark.parametrize("manifest", ["with", "without"])
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (shutil.rmtree, "there is no such folder"),
        (remove_weights, r"model.safetensors is missing|no \*.safetensors"),
        (truncate_weights, "model.safetensors"),
        (make_weights_infinite, "not finite|changed since"),
        (damage_nothing_but_the_manifest, "manifest.json is damaged"),
    ],
)
def test_damage_to_a_saved_model_is_noticed(finished, damage, problem, manifest):
    folder = finished / "models" / f"step-{best_models(finished)[0]}"
    assert find_model_problem(folder) is None
    if manifest == "without":  # as version 0.1.0 left them
        (folder / "manifest.json").unlink()
        assert find_model_problem(folder) is None
    damage(folder)
    assert re.search(problem, find_model_problem(folder))


@pytest.mark.slow
def test_a_lost_model_is_replaced_by_the_next_best_or_by_the_weights_of_the_checkpoint(children, recipe, tmp_path):
    options, output_dir = ["--training.metric_for_best_model", "loss"], tmp_path / "run"
    assert children.run(recipe, output_dir, *options) == [0], children.log(output_dir)
    best, second = 12, 8  # of this step the checkpoint before knows
    assert best_models(output_dir) == [best]
    make_weights_infinite(output_dir / "models" / f"step-{best}")
    assert children.run(recipe, output_dir, *options, "--resume") == [0], children.log(output_dir)
    log = children.log(output_dir)
    assert f"step-{best} is not readable: model.safetensors has changed" in log and f"step {second}" in log
    final, left = (load_file(output_dir / name / "model.safetensors") for name in ("model", f"models/step-{second}"))
    assert all(torch.equal(final[name], left[name]) for name in left)
    # Without any, the weights of the checkpoint are left.
    shutil.rmtree(output_dir / "models")
    assert children.run(recipe, output_dir, *options, "--resume") == [0], children.log(output_dir)
    assert "None is left" in children.log(output_dir)
    final = load_file(output_dir / "model" / "model.safetensors")
    trained = torch.load(checkpoint_folders(output_dir)[-1] / "pytorch_model.bin")
    assert all(torch.equal(final[name], trained[name]) for name in final)


def damage_models_at_the_end() -> Callable:
    """A training whose best saved model loses a bit before the final one is made from it."""
    from fun_transformer.training.loop import TrainingLoop
    from fun_transformer.training.train import train

    class Damaged(TrainingLoop):
        def run(self):
            super().run()
            make_weights_infinite(self.kept.folder(self.kept.saved[0][0]))

    return partial(train, loop=Damaged)


@pytest.mark.slow
def test_a_model_damaged_during_the_run_never_becomes_the_final_one(children, recipe, tmp_path):
    output_dir = tmp_path / "run"
    job = {"patch": ["test_training_resume", "damage_models_at_the_end"]}
    assert children.run(recipe, output_dir, "--training.average_models", "2", **job) == [0], children.log(output_dir)
    assert "has changed since it was written" in children.log(output_dir)
    assert all(weight.isfinite().all() for weight in load_file(output_dir / "model" / "model.safetensors").values())
    assert math.isfinite(read_metrics(output_dir, "test")[-1]["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("damage", [shutil.rmtree, break_manifest])
def test_a_damaged_tokenizer_is_refused_by_name(children, recipe, finished, damage):
    damage(finished / "tokenizer")
    assert children.run(recipe, finished, "--resume") == [2], children.log(finished)
    assert f"The run's tokenizer {finished / 'tokenizer'} is not readable: manifest.json" in children.log(finished)


@pytest.mark.slow
def test_a_checkpoint_that_was_set_aside_keeps_its_models_and_can_be_gone_on_from(children, recipe, tmp_path):
    options, whole, output_dir = ["--training.metric_for_best_model", "loss"], tmp_path / "whole", tmp_path / "run"
    assert children.run(recipe, whole, *options) == [0], children.log(whole)
    assert best_models(whole) == [12]
    shutil.copytree(whole, output_dir)
    checkpoints = output_dir / "checkpoints"
    other = [*options, "--allow_changes", "--training.learning_rate", "0.001", "--training.max_steps", "16"]
    assert children.run(recipe, output_dir, *other, "--resume", str(checkpoints / "step-8")) == [0]
    assert f"--resume {checkpoints / 'aside-step-12'} goes on from there" in children.log(output_dir)
    assert {path.name for path in checkpoints.iterdir()} == {"aside-step-12", "step-12", "step-16"}
    # Step 12 was trained twice, with different models of the same name.
    options += ["--allow_changes", "--resume"]
    assert children.run(recipe, output_dir, *options, str(checkpoints / "aside-step-12")) == [0]
    assert_same_runs(output_dir, whole)
    assert "not readable" not in children.log(output_dir)
    assert {path.name for path in checkpoints.iterdir()} == {"step-12", "aside-2-step-12", "aside-step-16"}
    for name in ("aside-2-step-12", "aside-step-16"):
        step = json.loads((checkpoints / name / "trainer_state.json").read_text(encoding="utf-8"))["saved"][0][0]
        assert find_model_problem(checkpoints / name / "models" / f"step-{step}") is None
    longer = ["--training.max_steps", "16"]
    assert children.run(recipe, output_dir, *longer, *options) == [0], children.log(output_dir)
    assert all(find_model_problem(path) is None for path in (output_dir / "models").iterdir())


@pytest.mark.slow
def test_setting_aside_that_was_killed_is_done_again(children, recipe, whole, finished):
    resume = ["--resume", str(finished / "checkpoints" / "step-8")]
    for event in range(1, 100):
        codes = children.run(recipe, finished, *resume, at_event=["checkpoints/", event])
        if (finished / "checkpoints" / "aside-step-12").exists():
            break
        assert codes == [KILLED], children.log(finished)
    assert event > 5  # in the midst of it
    assert children.run(recipe, finished, *resume) == [0], children.log(finished)
    assert_same_runs(finished, whole)
    assert not list(finished.rglob("*.partial"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["r.yaml", "--output_dir", "out"], ["r.yaml", "--output_dir", "out", "--resume"]),
        (["r.yaml", "--overwrite", "--seed", "3"], ["r.yaml", "--seed", "3", "--resume"]),
        (["--resume", "auto", "r.yaml", "--overwrite", "true"], ["r.yaml", "--resume"]),
        (["--resume", "r.yaml", "--dry-run"], ["r.yaml", "--dry-run", "--resume"]),
        (["--resume=out/checkpoints/step-4", "r.yaml"], ["r.yaml", "--resume"]),
    ],
)
def test_the_command_to_go_on_with_is_one_that_goes_on(words, expected):
    assert words_to_resume(words) == expected


@pytest.mark.slow
def test_an_epoch_of_a_language_model_begins_again_that_version_0_1_0_cut_in_another_way(children, recipe, tmp_path):
    output_dir = tmp_path / "run"
    options = ["--objective=masked_lm", "--training.metric_for_best_model=loss", "--training.batch_tokens=100"]
    assert children.run(recipe, output_dir, *options, "--training.max_steps", "4") == [0], children.log(output_dir)
    path = output_dir / "checkpoints" / "step-4" / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    lengths = [len(json.loads(line)["source"]) + 1 for line in (recipe.parent / "train.jsonl").open(encoding="utf-8")]
    state["data"] = zlib.crc32(np.array(lengths, dtype=np.int64).tobytes() * 2)  # what that version noted
    del state["rows"], state["measured"]
    path.write_text(json.dumps(state, indent=1), encoding="utf-8")
    partial = path.parent.with_name("partial")
    path.parent.rename(partial)
    (partial / "manifest.json").unlink()
    commit_with_manifest(partial, path.parent)
    more = ["--training.max_steps", "6", "--resume"]
    shutil.rmtree(output_dir / "model")
    assert children.run(recipe, output_dir, *options, *more) == [0], children.log(output_dir)
    assert "this epoch begins again" in children.log(output_dir)
    assert trainer_state(output_dir)["batch"] == 2
