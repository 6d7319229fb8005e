"""Let contenders take turns (A B A B), each warm, and say by how much the best of ours leads the best of the others.

Turns are thrown away until a contender is warm: until it has seen enough tokens that all its sizes of batches have
come once (on a GPU, where sizes are compiled and planned for, an epoch), and two turns in a row agree within 5 %. What
is not warm after `limit` turns takes part as it is, and the results say so.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

AGREE = 0.05  # of the faster of two turns
OURS = "ours"
Train = Callable[[float], int]  # seconds to train for -> real tokens seen


class Turn(NamedTuple):
    """What a contender did in a turn: real tokens, wall seconds, CPU seconds of all threads."""

    tokens: int
    wall: float
    cpu: float

    def rate(self, counted: str) -> float:
        """Tokens a second, by the clock that is counted: "wall" or "cpu"."""
        return self.tokens / (self.wall if counted == "wall" else self.cpu)


class WarmUp(NamedTuple):
    """Turns that were thrown away, and whether the contender was warm after them."""

    turns: int
    tokens: int
    is_warm: bool


class Rules(NamedTuple):
    """How a race is run.

    Attributes:
        seconds: Of each turn.
        counted: The clock that counts, "wall" or "cpu".
        epoch: Tokens that a contender must have seen to be warm.
        limit: Turns of warming up at most.
    """

    seconds: float
    counted: str
    epoch: int = 0
    limit: int = 20


def choose_clock(device: str, threads: int) -> str:
    """Choose the clock that counts: one thread on a loaded machine is measured in CPU time, all else in wall time.

    Two threads burn CPU time while they wait for each other, and a GPU works while the CPU sleeps.
    """
    return "cpu" if device == "cpu" and threads == 1 else "wall"


def take_turn(train: Train, seconds: float) -> Turn:
    """Let a contender train for some seconds."""
    wall, cpu = time.monotonic(), time.process_time()
    tokens = train(seconds)
    return Turn(tokens, time.monotonic() - wall, time.process_time() - cpu)


def warm_up(train: Train, rules: Rules) -> WarmUp:
    """Throw turns away until a contender is warm."""
    tokens, last, is_warm, turns = 0, 0.0, False, 0
    while turns < rules.limit and not is_warm:
        turn = take_turn(train, rules.seconds)
        turns, tokens, rate = turns + 1, tokens + turn.tokens, turn.rate(rules.counted)
        is_warm = tokens >= rules.epoch and abs(rate - last) <= AGREE * max(rate, last)
        last = rate
    return WarmUp(turns, tokens, is_warm)


def race(trains: Mapping[str, Train], rounds: int, rules: Rules, note: str = "") -> dict[str, list[Turn]]:
    """Let warm contenders train in turn.

    Args:
        trains: The contenders by name.
        rounds: Turns of each.
        rules: Of the race.
        note: Printed before each turn.

    Returns:
        The turns of each contender.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in trains}
    for number in range(1, rounds + 1):
        for name, train in trains.items():
            turn = take_turn(train, rules.seconds)
            turns[name].append(turn)
            wall, cpu = (turn.rate(clock) for clock in ("wall", "cpu"))
            print(f"{note}{number} {name:34} {wall:9,.0f} tok/s {cpu:9,.0f} tok/cpu-s", flush=True)
    return turns


def system_of(name: str) -> str:
    """Return the system that a contender is a setting of: "Marian" for "Marian, bf16, eager"."""
    return name.split(",")[0]


def headline(turns: Mapping[str, list[Turn]], counted: str) -> dict:
    """Return our best turn over the best turn of the best other system, each in the best of its settings.

    Returns:
        `tried`: by system the best turn of each setting; `best`: by system its best setting and turn; `ratio`: of ours
        to that of `peer`, None where one of them is missing.
    """
    tried: dict[str, dict[str, float]] = {}
    for name, taken in turns.items():
        tried.setdefault(system_of(name), {})[name] = max(turn.rate(counted) for turn in taken)
    best = {}
    for system, settings in tried.items():
        setting = max(settings, key=lambda name: settings[name])
        best[system] = {"setting": setting, "tokens_per_second": settings[setting]}
    others = [system for system in best if system != OURS]
    peer = max(others, key=lambda system: best[system]["tokens_per_second"], default=None)
    ratio = None
    if peer is not None and OURS in best:
        ratio = best[OURS]["tokens_per_second"] / best[peer]["tokens_per_second"]
    return {"ratio": ratio, "peer": peer, "counted": counted, "best": best, "tried": tried}


def describe_headline(found: dict) -> str:
    """Say the headline in a line, and the best turn of each system in lines of their own."""
    unit, best = ("tok/cpu-s" if found["counted"] == "cpu" else "tok/s"), found["best"]
    lines = [f"{'best turn of each system':34} {unit:>11}  in its best of these settings"]
    for system, winner in best.items():
        settings = [name.partition(", ")[2] or "as it is" for name in found["tried"][system]]
        chosen = winner["setting"].partition(", ")[2] or "as it is"
        others = [name for name in settings if name != chosen]
        beside = f" (slower: {'; '.join(others)})" if others else ""
        lines.append(f"{system:34} {winner['tokens_per_second']:11,.0f}  {chosen}{beside}")
    if found["ratio"] is None:
        return "\n".join(lines)
    ours, peer = best[OURS]["setting"], best[found["peer"]]["setting"]
    return "\n".join([*lines, f"{ours}: {found['ratio']:.2f} times as fast as {peer}, best turn against best turn"])
