"""The notebooks of the course: they are what docs/course.md says, hold no outputs, and each runs by itself."""

import contextlib
import io
import json
from pathlib import Path

import pytest

from course.exercises.checking import NOTHING_WRITTEN
from course.notebooks import build

NOTEBOOKS = build.build()


def code_of(name):
    cells = json.loads(NOTEBOOKS[name])["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_what_is_committed_is_what_the_course_says():
    committed = {path.name: path.read_text(encoding="utf-8") for path in Path(build.HERE).glob("*.ipynb")}
    assert committed == NOTEBOOKS, "run `python -m course.notebooks.build`"
    assert len(committed) >= 13


def test_notebooks_hold_no_outputs():
    for text in NOTEBOOKS.values():
        cells = json.loads(text)["cells"]
        assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")
        assert len({cell["id"] for cell in cells}) == len(cells)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_by_itself(name):
    set_up, *cells = code_of(name)
    assert "git clone" in set_up
    names = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(cell, f"{name}, cell {number}", "exec"), names)
        if cell.startswith("check("):
            assert said.getvalue().strip() == NOTHING_WRITTEN


def test_an_exercise_that_a_chapter_links_to_becomes_cells():
    text, function, check = build.exercise_cells("see [masks](../course/exercises/masks.py)")
    assert "".join(text["source"]) == "### 练习：解码器的掩码 · The mask of a decoder"
    assert "def decoder_mask(" in "".join(function["source"])
    assert "".join(check["source"]) == 'check("masks", decoder_mask)'


def test_code_of_earlier_chapters_comes_first_where_it_is_needed():
    blocks = ["a = 1\nb = 2", "c = a + 1", "d = 5", "def f():\n    return unknown"]
    (_, cell) = build.earlier_cells("```python\nprint(c)\n```\n", blocks)
    assert "".join(cell["source"]) == "a = 1\nb = 2\n\nc = a + 1"
    assert build.earlier_cells("```python\nprint([x for x in range(3)])\n```\n", blocks) == []
    assert build.names_of(blocks[3]) == ({"f"}, {"unknown"})
