"""The exercises of the course: their solutions pass, and each mistake that a check knows is told by its name."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from course.exercises import checking
from fun_transformer.losses import shift_tokens_right

NAMES = {
    "attention": "attention",
    "masks": "decoder_mask",
    "positions": "sinusoidal_positions",
    "labels": "shift_right",
    "beam_search": "beam_search",
    "bpe": "learn_merges",
}  # file -> function to fill in


def answer(exercise):
    return importlib.import_module(f"course.exercises.solutions.{exercise}")


def test_every_exercise_is_tested():
    files = {path.stem for path in Path(checking.__file__).parent.glob("*.py")} - {"__init__", "checking"}
    assert (
        files == set(NAMES) == {path.stem for path in (Path(checking.__file__).parent / "solutions").glob("[a-z]*.py")}
    )


@pytest.mark.parametrize("exercise", NAMES)
def test_the_solution_passes(exercise):
    assert checking.find_mistake(exercise, answer(exercise).solution) is None


@pytest.mark.parametrize(
    ("exercise", "text"), [(exercise, text) for exercise in NAMES for text in answer(exercise).MISTAKES]
)
def test_each_mistake_is_told_by_its_name(exercise, text):
    assert checking.find_mistake(exercise, answer(exercise).MISTAKES[text]) == text


@pytest.mark.parametrize("exercise", NAMES)
def test_nothing_written_is_told(exercise):
    function = getattr(importlib.import_module(f"course.exercises.{exercise}"), NAMES[exercise])
    assert checking.find_mistake(exercise, function) == checking.NOTHING_WRITTEN


def test_another_mistake_shows_what_was_got():
    told = checking.find_mistake("masks", lambda attention_mask: attention_mask)
    assert "right: (2, 4, 4)" in told and "got:   (2, 4)" in told


def test_right_values_of_another_type_are_told():
    told = checking.find_mistake("masks", lambda attention_mask: answer("masks").solution(attention_mask).long())
    assert told.endswith("int, not bool.")
    told = checking.find_mistake("bpe", lambda words, count: tuple(answer("bpe").solution(words, count)))
    assert told.endswith("tuple, not list.")
    told = checking.find_mistake("labels", lambda *given: answer("labels").solution(*given).float())
    assert told.endswith("float, not int.")


def test_values_that_are_right_in_one_case_alone_are_not_called_right():
    def right_at_first(attention_mask):
        mask = answer("masks").solution(attention_mask).long()
        return mask if attention_mask.shape[0] == 2 else 1 - mask

    assert "type" not in checking.find_mistake("masks", right_at_first)
    told = checking.find_mistake("labels", lambda *given: answer("labels").solution(*given) + 0.5)
    assert "type" not in told


def test_an_error_of_the_learner_is_shown():
    assert "ZeroDivisionError: division by zero" in checking.find_mistake("bpe", lambda words, count: 1 / 0)


def test_arguments_that_a_function_changes_do_not_change_the_next_case():
    def careless(words, count):
        merges = answer("bpe").solution(words, count)
        words.clear()
        return merges

    assert checking.find_mistake("bpe", careless) is None
    assert checking.find_mistake("bpe", careless) is None


def test_solutions_agree_with_the_package(tiny_model):
    for labels, start, pad in answer("labels").CASES:
        assert answer("labels").solution(labels, start, pad).equal(shift_tokens_right(labels, pad, start))
    model = tiny_model()
    ours = model.model.encoder.embed_positions(torch.arange(6).unsqueeze(0), 6)[0]  # (seq_len, d_model)
    torch.testing.assert_close(answer("positions").solution(6, model.config.d_model), ours)


@pytest.mark.slow
def test_a_file_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "course.exercises.labels"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == checking.NOTHING_WRITTEN
