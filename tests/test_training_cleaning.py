"""Each filter finds the rows it is for, and leaves good ones alone."""

import gzip
from pathlib import Path

import datasets
import pytest

from fun_transformer.training.data.cleaning import FILTERS, Profile, clean, find_duplicates, find_problem, measure

SHARED = Path(__file__).parents[2] / "shared" / "data"
ZH_EN = Profile("Chinese or Japanese", "Latin", 3.5)
GOOD = [
    ("你好。", "Hello."),
    ("好", "That sounds good to me."),
    ("打开 LibreOffice Writer。", "Open LibreOffice Writer."),
    ("GB", "GB of memory"),
    ("3.14", "3,14"),
    ("他说“好”。", "He said “好”, which means good."),
    ("一行\t两列", "two\u200bcolumns\x85"),
]


@pytest.mark.parametrize("source, target", GOOD)
def test_good_pairs_pass_every_filter(source, target):
    filters = [name for name in FILTERS if (name, source) not in {("script", "GB")}]
    assert find_problem(source, target, ZH_EN, filters) == ""


@pytest.mark.parametrize(
    "source, target, name, problem",
    [
        ("你好\x07", "Hello", "control", "control characters"),
        ("你好", "Hell\ufffd", "control", "control characters"),
        ("Makefile", "makefile ", "identical", "sides are identical"),
        ("Open the door, please.", "Open it.", "script", "source is not Chinese or Japanese"),
        ("你好", "Привет", "script", "target is not Latin"),
        ("请打开门。", "请把门打开。", "script", "target is not Latin"),
        ("我们今天去学校学习怎么写汉字。", "We.", "ratio", "lengths do not fit"),
        ("好", "Good. " * 20, "ratio", "lengths do not fit"),
    ],
)
def test_a_filter_finds_what_it_is_for_and_no_other_does(source, target, name, problem):
    assert find_problem(source, target, ZH_EN, [name]) == problem
    if name in ("control", "ratio"):
        assert find_problem(source, target, ZH_EN, [other for other in FILTERS if other != name]) == ""


def test_a_corpus_is_measured_by_itself():
    profile = measure(["Пример один", "Пример два"], ["一个例子", "两个例子"])
    assert (profile.source_script, profile.target_script) == ("Cyrillic", "Chinese or Japanese")
    assert profile.ratio < 0.5
    assert measure(["1"], ["2"]).source_script == ""  # a corpus of numbers has none, and nothing is refused for it
    assert find_problem("1", "2", measure(["1"], ["2"]), ["script"]) == ""


def test_only_later_copies_of_both_sides_are_duplicates():
    rows = datasets.Dataset.from_dict({"source": ["a", "a", "b", "a", "ab"], "target": ["x", "y", "x", "x", ""]})
    assert find_duplicates(rows).tolist() == [False, False, False, True, False]


def test_a_problem_found_before_stays():
    rows = datasets.Dataset.from_dict({"source": ["a", ""], "target": ["A", ""], "problem": ["", "source is empty"]})
    assert clean(rows, ["identical"])["problem"][:] == ["sides are identical", "source is empty"]


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
def test_next_to_nothing_of_a_good_corpus_is_left_out():
    sources, targets = (
        gzip.decompress((SHARED / f"multi30k/val.{side}.gz").read_bytes()).decode().splitlines()
        for side in ("de", "en")
    )
    profile = measure(sources, targets)
    found = [find_problem(*pair, profile, FILTERS) for pair in zip(sources, targets)]
    assert sum(map(bool, found)) <= 3
