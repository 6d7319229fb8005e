"""A glossary: terms of the source, and what they have to be in the target.

    >>> glossary = Glossary({"故宫": "the Forbidden City|the Palace Museum", "GitHub": ""})
    >>> [term.targets for term in glossary.find("他在GitHub上看故宫。")]
    [('GitHub',), ('the Forbidden City', 'the Palace Museum')]

A term that is found puts a constraint on the output (`constrain`), so that beam search cannot leave it out.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regex
from transformers import PreTrainedTokenizerBase

from ..text_parts import SPACELESS
from .constrained import ConstrainedBeamSearch, Constraint
from .spelling import continuing_tokens, language_ids, spell

ALTERNATIVES = "|"
COMMENT = "#"
HEADER = ["source", "target"]  # of a file, in any case


@dataclass(frozen=True)
class Term:
    """A term as it was found in a text.

    Attributes:
        source: As the text has it.
        targets: What may be said for it; the source itself for what is left untranslated.
        start: Where it begins in the text, in characters.
    """

    source: str
    targets: tuple[str, ...]
    start: int


class Glossary:
    """Terms with their translations.

    In scripts with spaces a term is found as whole words, in Chinese and Japanese anywhere; of terms that overlap the
    longest is taken. A term in small letters is found in any case ("tea" in "Tea" and "TEA"); one with a capital only
    as it is written, so that "May" is no verb.

    Args:
        terms: From source terms to target terms, alternatives parted by "|". An empty target leaves the term as it is.

    Raises:
        TypeError: The terms are no dictionary from strings to strings.
        ValueError: A term is empty.
    """

    def __init__(self, terms: Mapping[str, str]):
        self.targets: dict[str, tuple[str, ...]] = {}
        if not isinstance(terms, Mapping):
            raise TypeError(
                f"A glossary is a dictionary from source terms to target terms, not a {type(terms).__name__}: "
                f'{terms!r:.60}. Give {{"source": "target"}}, with "" to leave a term as it is.'
            )
        for source, target in terms.items():
            if not isinstance(source, str) or not isinstance(target, str):
                raise TypeError(
                    f"The terms of a glossary are strings, but here is {source!r:.60}: {target!r:.60}. Give strings, "
                    f'with "{ALTERNATIVES}" between alternatives and "" to leave a term as it is.'
                )
            if not source.strip():
                raise ValueError(f"The glossary has an empty source term, with the target {target!r}. Leave it out.")
            ways = [way.strip() for way in target.split(ALTERNATIVES)]
            self.targets[" ".join(source.split())] = tuple(way for way in ways if way)
        self._pattern = self._compile()

    @classmethod
    def load(cls, path: str | Path) -> "Glossary":
        """Read a glossary: a line a term, source and target parted by a tab (.tsv, .txt) or as .csv.

        Lines that begin with "#", empty lines, and a first line "source", "target" say nothing. A line of one column
        leaves its term untranslated.

        Raises:
            ValueError: A line has more than two columns or no source term, or one term is given twice with different
                targets.
        """
        path = Path(path)
        with open(path, encoding="utf-8-sig", newline="") as file:
            is_csv = path.suffix.lower() == ".csv"
            rows = list(csv.reader(file)) if is_csv else [line.rstrip("\r\n").split("\t") for line in file]
        terms: dict[str, str] = {}
        is_first = True
        for number, row in enumerate(rows, start=1):
            row = [" ".join(cell.split()) for cell in row]
            if not any(row) or row[0].startswith(COMMENT):
                continue
            is_header, is_first = is_first and [cell.lower() for cell in row] == HEADER, False
            if is_header:
                continue
            if len(row) > 2 or not row[0]:
                raise ValueError(
                    f"{path}, line {number}: a term is two columns, source and target, parted by a "
                    f"{'comma' if is_csv else 'tab'}; here are {len(row)}: {row}."
                )
            source, target = row[0], row[1] if len(row) == 2 else ""
            if terms.setdefault(source, target) != target:
                raise ValueError(
                    f"{path}, line {number}: {source!r} is {target!r} here and {terms[source]!r} before. Leave one of "
                    f"them, or allow both: {terms[source]}{ALTERNATIVES}{target}"
                )
        if not terms:
            raise ValueError(f"{path} has no term. Write a line for each: the source, a tab, the target.")
        return cls(terms)

    def find(self, text: str) -> list[Term]:
        """Return the terms of a text, in their order; a term that occurs twice is there twice."""
        if self._pattern is None:
            return []
        found = []
        for match in self._pattern.finditer(text):
            said = match[0]
            as_written = " ".join(said.split())
            targets = self.targets.get(as_written)
            if targets is None:
                targets = self.targets[as_written.lower()]
            found.append(Term(said, targets or (said,), match.start()))
        return found

    def _compile(self) -> Any:
        """Return a pattern that finds the longest term at each place; None without terms."""
        if not self.targets:
            return None
        ways = []
        for term in sorted(self.targets, key=len, reverse=True):
            way = r"\s+".join(regex.escape(word) for word in term.split())
            if term == term.lower() != term.upper():
                way = f"(?i:{way})"
            before = "" if SPACELESS.match(term[0]) or not term[0].isalnum() else r"(?<![\p{L}\p{N}--\p{Han}])"
            after = "" if SPACELESS.match(term[-1]) or not term[-1].isalnum() else r"(?![\p{L}\p{N}--\p{Han}])"
            ways.append(before + way + after)
        return regex.compile("|".join(ways), flags=regex.V1)


def constrain(
    tokenizer: PreTrainedTokenizerBase, terms_of_texts: Sequence[Sequence[Term]], num_beams: int = 4
) -> dict[str, Any]:
    """Return arguments for `generate` that force the targets of terms into the outputs of a batch.

    Args:
        tokenizer: Of the model.
        terms_of_texts: What was found in each text of the batch, such as `[glossary.find(text) for text in texts]`.
        num_beams: 2 or more.

    Returns:
        `num_beams` and `custom_generate`; nothing where there are no terms.

    Raises:
        ValueError: The tokens of this model cannot spell a term.
    """
    if not any(terms_of_texts):
        return {}
    cache: dict[tuple[str, ...], Constraint] = {}
    for term in (term for terms in terms_of_texts for term in terms):
        if term.targets not in cache:
            constraint = spell(tokenizer, list(term.targets))
            if constraint is None:
                raise ValueError(
                    f"{' or '.join(map(repr, term.targets))}, for {term.source!r}, has characters that the model's "
                    "target vocabulary cannot spell. Give another target, or leave the term out."
                )
            cache[term.targets] = constraint
    constraints = [[cache[term.targets] for term in terms] for terms in terms_of_texts]
    special = [*tokenizer.all_special_ids, *language_ids(tokenizer)]
    search = ConstrainedBeamSearch(constraints, special, continuing_tokens(tokenizer))
    return {"num_beams": max(num_beams, 2), "custom_generate": search}
