"""The bug museum: a check passes for the right model and fails for the broken one; the page says what was measured."""

import json
import math
from pathlib import Path

import pytest

from course.museum import page, run
from course.museum.exhibits import EXHIBITS
from course.museum.model import SmallTransformer

RESULTS = json.loads(run.RESULTS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.broken.__name__)
def test_the_check_finds_the_mistake_and_nothing_else(exhibit):
    assert exhibit.check(SmallTransformer)
    assert not exhibit.check(exhibit.broken)


def test_exhibits_break_one_thing_each():
    for exhibit in EXHIBITS:
        assert 1 <= len(exhibit.methods) <= 2 and set(exhibit.methods) <= set(vars(SmallTransformer))


def test_what_was_measured_is_what_the_symptoms_say():
    found = RESULTS["models"]
    assert set(found) == {"SmallTransformer", *(exhibit.broken.__name__ for exhibit in EXHIBITS)}
    assert all(found["SmallTransformer"][name] > 99 for name in ("tokens", "texts", "alone", "loaded"))
    for name in ("SeesTheAnswer", "LabelsNotShifted"):  # perfect in training, useless in use
        assert found[name]["tokens"] > 99 and found[name]["texts"] < 1
    assert math.isnan(found["RowsOfMinusInfinity"]["losses"][0])
    assert found["LabelsShiftedTwice"]["losses"][-1] < 0.01 and found["LabelsShiftedTwice"]["texts"] < 1
    assert found["PositionsByBatch"]["losses"][-1] > 0.5
    assert found["PaddingAttendedTo"]["texts"] > 99 and found["PaddingAttendedTo"]["alone"] < 50
    assert found["CacheWithoutPositions"]["tokens"] > 99 and found["CacheWithoutPositions"]["texts"] < 50
    assert found["TiedWeightsComeApart"]["texts"] > 99 and found["TiedWeightsComeApart"]["loaded"] < 1


def test_the_page_is_made_of_the_exhibits_and_the_results():
    text = (Path(page.DOCS) / "museum.md").read_text(encoding="utf-8")
    assert text == page.page(RESULTS), "run `python -m course.museum.page`"


@pytest.mark.slow
def test_a_model_is_measured(monkeypatch):
    monkeypatch.setattr(run, "STEPS", 50)
    found = run.measure(SmallTransformer)
    assert len(found["losses"]) == 2 and found["losses"][1] < found["losses"][0]
    assert set(found) == {"losses", "tokens", "texts", "alone", "loaded"}
