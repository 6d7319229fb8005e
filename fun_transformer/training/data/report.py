"""How many rows a run has read, kept and dropped, and why: the table that it prints and `rows.json`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import datasets
import numpy as np

SHOWN_ROWS = 5  # of each problem, in an error


@dataclass
class RowReport:
    """The numbers of rows that were read, kept and dropped by reason, for each split and each shared file.

    Notes say what was recognised in the data and what is odd about them.
    """

    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a sentence to the notes, once; nothing where it is empty."""
        if text and text not in self.notes:
            self.notes.append(text)

    def add(self, name: str, origin: str, read: int, dropped: dict[str, int]) -> None:
        """Enter one split: where it came from, the rows read, the rows dropped by reason."""
        dropped = {reason: rows for reason, rows in dropped.items() if rows}
        self.splits[name] = {"origin": origin, "read": read, "kept": read - sum(dropped.values()), "dropped": dropped}

    def followed_by(self, later: "RowReport") -> "RowReport":
        """Return this report joined with that of a later step, which began with the rows kept here."""
        both = RowReport(dict(self.splits), [*self.notes, *later.notes])
        for name, entry in later.splits.items():
            first = self.splits.get(name, {"origin": entry["origin"], "read": entry["read"], "dropped": {}})
            both.splits[name] = first | {"kept": entry["kept"], "dropped": first["dropped"] | entry["dropped"]}
        return both

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the report as values that JSON can hold."""
        return self.splits

    def __str__(self) -> str:
        lines = [("split", "read", "kept", "dropped", "from")]
        for name, entry in self.splits.items():
            dropped = "; ".join(f"{reason}: {rows:,}" for reason, rows in entry["dropped"].items()) or "-"
            lines.append((name, f"{entry['read']:,}", f"{entry['kept']:,}", dropped, entry["origin"]))
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
        notes = [
            f"{entry['also_in_train']:,} of {entry['kept']:,} {name} rows have a source that is also in train."
            for name, entry in self.splits.items()
            if entry.get("also_in_train")
        ]
        return "\n".join(table + notes + self.notes)


def check_rows(
    rows: datasets.Dataset, problems: Sequence[str] | np.ndarray, name: str, corpora: Sequence[str], bad_rows: str
) -> dict[str, int]:
    """Return the number of rows with a problem, by problem.

    Args:
        rows: With their `place` (and `corpus`, where there are several).
        problems: What is wrong with each row, (rows,); "" if nothing.
        name: The split, for the error.
        corpora: Where the rows come from, for the error.
        bad_rows: "refuse" or "drop".

    Raises:
        ValueError: There are bad rows and they are refused, or no row is good.
    """
    found_problems = np.asarray(problems, dtype=object)
    bad, origin = Counter(found_problems[found_problems != ""].tolist()), " and ".join(corpora)
    if bad and bad_rows == "refuse":
        found = []
        for problem, count in bad.most_common():
            first = islice((row for row, other in enumerate(problems) if other == problem), SHOWN_ROWS)
            places = [place_of(rows[row], corpora) for row in first] + ["..."] * (count > SHOWN_ROWS)
            found.append(f"{problem}: {count:,} ({', '.join(places)})")
        raise ValueError(
            f"data.{name} ({origin}): {bad.total():,} of {len(problems):,} rows cannot be used. {'; '.join(found)}. "
            "Correct them, or leave them out with --data.bad_rows drop."
        )
    if bad.total() == len(problems):
        reasons = f" ({'; '.join(f'{problem}: {count:,}' for problem, count in bad.items())})" if bad else ""
        raise ValueError(f"data.{name} ({origin}) has no row that can be used{reasons}.")
    return dict(bad)


def place_of(row: dict[str, Any], corpora: Sequence[str]) -> str:
    """Return where the user finds a row, with the corpus where there are several."""
    corpus = f"{corpora[row['corpus']]} " if "corpus" in row and len(corpora) > 1 else ""
    return f"{corpus}{row['place']}"


def good_rows(rows: datasets.Dataset, problems: Sequence[str] | np.ndarray) -> datasets.Dataset:
    """Return the rows without a problem."""
    is_good = np.asarray(problems, dtype=object) == ""
    return rows if is_good.all() else rows.select(np.flatnonzero(is_good))
