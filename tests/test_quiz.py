"""The quiz: code is run, the right answer holds and no other one does, and the page has what the file says."""

from pathlib import Path

import pytest
import torch
from torch import nn

from course.quiz.build import build, read_questions

QUESTIONS = read_questions()


@pytest.mark.parametrize("number", range(len(QUESTIONS)))
def test_the_right_choice_alone_holds(number, tiny_model):
    question = QUESTIONS[number]
    names = {"torch": torch, "nn": nn, "model": tiny_model()}
    exec(compile(question["code"], f"question {number + 1}", "exec"), names)
    holds = [bool(eval(choice["holds"], names)) for choice in question["choices"]]
    assert [index for index, one in enumerate(holds) if one] == [question["right"]]


def test_every_question_is_asked_in_both_languages():
    assert len(QUESTIONS) >= 30
    for question in QUESTIONS:
        assert set(question) == {"chapter", "question", "code", "choices", "right", "why"}
        assert set(question["question"]) == set(question["why"]) == {"zh", "en"}
        for choice in question["choices"]:
            assert set(choice) in ({"text", "holds"}, {"zh", "en", "holds"})


def test_chapters_are_those_of_the_course():
    course = (Path(__file__).parents[1] / "docs" / "course.md").read_text(encoding="utf-8")
    assert all(f"\n## {question['chapter']}. " in course for question in QUESTIONS)


def test_right_answers_are_not_always_at_one_place():
    counts = [sum(question["right"] == place for question in QUESTIONS) for place in range(3)]
    assert max(counts) <= 0.65 * len(QUESTIONS), counts


def test_the_page_holds_the_questions_and_no_checks(tmp_path):
    build(tmp_path / "quiz.html")
    page = (tmp_path / "quiz.html").read_text(encoding="utf-8")
    assert all(question["why"]["en"].replace("</", "<\\/").replace('"', '\\"') in page for question in QUESTIONS)
    assert '"holds"' not in page and "http" not in page
