"""Links between words in Pharaoh format, as people make them and as they are judged."""

import math
import re
from collections import Counter
from dataclasses import dataclass

Links = list[tuple[int, int]]
PHARAOH = re.compile(r"(\d+)([-?p])(\d+)")


@dataclass(frozen=True)
class Gold:
    """The links of a pair that a person made: sure ones, and possible ones, among which are the sure."""

    sure: frozenset[tuple[int, int]]
    possible: frozenset[tuple[int, int]]


def parse_links(line: str) -> Gold:
    """Read links in Pharaoh format, "0-0 1?2": sure with a hyphen, possible with a question mark or a "p".

    Raises:
        ValueError: The line has another form.
    """
    sure, possible = set(), set()
    for link in line.split():
        match = PHARAOH.fullmatch(link)
        if not match:
            raise ValueError(
                f"{link!r} is no link. Write 0-1 for a sure link of source word 0 to target word 1, 0?1 else."
            )
        pair = (int(match[1]), int(match[3]))
        possible.add(pair)
        if match[2] == "-":
            sure.add(pair)
    return Gold(frozenset(sure), frozenset(possible))


def alignment_error_rate(found: list[Links], gold: list[Gold]) -> float:
    """Return the error rate of alignments, 0 to 1 (Och and Ney 2003): 1 - (|A & S| + |A & P|) / (|A| + |S|).

    Args:
        found: A, the links of each pair.
        gold: S and P of each pair.

    Raises:
        ValueError: There are not as many of both, or there is no link at all.
    """
    if len(found) != len(gold):
        raise ValueError(f"{len(found)} alignments and {len(gold)} of gold: each needs one.")
    right = sum(len(set(links) & truth.sure) + len(set(links) & truth.possible) for links, truth in zip(found, gold))
    total = sum(len(set(links)) + len(truth.sure) for links, truth in zip(found, gold))
    if not total:
        raise ValueError("There is no link, neither found nor in the gold.")
    return 1 - right / total


def mutual_information(pairs: list[tuple[str, str]]) -> float:
    """Return how much the linked words tell of each other, in nats, from pairs of a source and a target word.

    Each link is judged by the others: a pair that occurs once tells nothing.
    """
    joint, total = Counter(pairs), len(pairs)
    sources, targets = Counter(source for source, _ in pairs), Counter(target for _, target in pairs)
    told = sum(
        count * math.log((count - 1) * total / (sources[source] * targets[target]))
        for (source, target), count in joint.items()
        if count > 1
    )
    return told / max(total, 1)
