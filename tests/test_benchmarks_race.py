"""The rules of a race between trainers, with contenders whose speeds are known."""

from dataclasses import dataclass, field

import pytest

from benchmarks import race
from benchmarks.race import Rules, Turn


@dataclass
class Contender:
    """Trains as many tokens in each turn as a list says, the last number again and again."""

    tokens: list[int]
    turns: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> int:
        self.turns.append(seconds)
        return self.tokens[min(len(self.turns), len(self.tokens)) - 1]


@pytest.fixture
def turns_of_a_second(monkeypatch):
    """Clocks that say that each turn takes one second of wall time and two of CPU time."""
    ticks = {"monotonic": 0.0, "process_time": 0.0}

    def clock(name, step):
        def read():
            ticks[name] += step
            return ticks[name]

        return read

    monkeypatch.setattr("time.monotonic", clock("monotonic", 1.0))
    monkeypatch.setattr("time.process_time", clock("process_time", 2.0))


def test_turns_are_thrown_away_until_two_in_a_row_agree(turns_of_a_second):
    compiling = Contender([10, 20, 100, 103, 500])
    assert race.warm_up(compiling, Rules(1.0, "wall")) == (4, 233, True)
    assert race.warm_up(Contender([1, 2, 4, 8, 16, 32]), Rules(1.0, "wall", limit=5)) == (5, 31, False)


def test_equal_turns_are_not_enough_before_all_sizes_of_batches_have_come(turns_of_a_second):
    slow = Contender([10, 10, 10, 10, 80, 80])
    assert race.warm_up(slow, Rules(1.0, "wall", epoch=100)) == (6, 200, True)


def test_contenders_alternate(turns_of_a_second, capsys):
    turns = race.race({"ours": Contender([30, 40]), "Marian, sdpa": Contender([10])}, 2, Rules(1.0, "wall"))
    assert turns == {"ours": [(30, 1.0, 2.0), (40, 1.0, 2.0)], "Marian, sdpa": [(10, 1.0, 2.0)] * 2}
    names = [line[2:].split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["ours", "Marian, sdpa"] * 2


def test_the_headline_compares_the_best_turns_of_the_best_settings():
    turns = {
        "ours, packed": [Turn(300, 1.0, 2.0), Turn(100, 1.0, 1.0)],
        "ours": [Turn(200, 1.0, 1.0)],
        "Marian, eager": [Turn(90, 1.0, 1.0), Turn(100, 1.0, 2.0)],
        "Marian, sdpa": [Turn(120, 1.0, 2.0), Turn(30, 1.0, 1.0)],
        "JoeyNMT": [Turn(50, 1.0, 1.0)],
    }
    found = race.headline(turns, "wall")
    assert found["ratio"] == 300 / 120 and found["peer"] == "Marian"
    assert found["tried"]["Marian"] == {"Marian, eager": 100, "Marian, sdpa": 120}
    assert "ours, packed: 2.50 times as fast as Marian, sdpa" in race.describe_headline(found)
    by_cpu = race.headline(turns, "cpu")
    assert by_cpu["ratio"] == 200 / 90 and by_cpu["best"]["Marian"]["setting"] == "Marian, eager"
    assert race.headline({"ours": turns["ours"]}, "wall")["ratio"] is None


def test_several_threads_and_gpus_are_measured_by_the_clock_on_the_wall():
    assert [race.choose_clock("cpu", 1), race.choose_clock("cpu", 2), race.choose_clock("cuda", 1)] == [
        "cpu",
        "wall",
        "wall",
    ]
