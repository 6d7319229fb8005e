"""What is copied letter by letter: addresses, code, tags and numbers of a text.

Each is forced into the output as it is, by a constraint. What the model's tokens cannot spell, or only in many pieces,
is replaced in source and output by a short stand-in, such as "X1", which the constraint keeps from being lost; so this
works for models that were never trained with placeholders.

    >>> protect("Open https://example.org/a?b=1 now.", tokenizer).text
    'Open X1 now.'
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from ..text_parts import NO_ADDRESS
from .glossary import Term
from .spelling import says, spell, target_ids

IN_URL = rf"[^\s<>\"'()\]{NO_ADDRESS}]"
NO_MAIL = rf"\s{NO_ADDRESS}!-*,/:-@\[-^`{{-~\u2000-\u2BFF\U0001F000-\U0001FAFF"  # marks of ASCII but -_.+, symbols
IN_NAME, IN_DOMAIN = rf"[^{NO_MAIL}]", rf"[^{NO_MAIL}.+]"
KINDS = {
    "code": re.compile(r"`[^`\n]+`"),
    "tag": re.compile(r"</?[A-Za-z][^<>\n]*>|\{\{?\w+\}?\}|%\(?\w*\)?[sd]\b|&\w+;"),
    # Up to a bracket that was not opened in it, without the marks of the sentence, or of Markdown, after it.
    "url": re.compile(rf"(?:https?|ftp|file)://(?:{IN_URL}|\({IN_URL}*\)|\](?!\())+(?<![.,;:!?\]])"),
    "email": re.compile(rf"(?<!{IN_NAME}){IN_NAME}+@{IN_DOMAIN}+(?:\.{IN_DOMAIN}+)+"),
    # One digit is often a word in the target, and the number of a month a name.
    "number": re.compile(r"(?<![A-Za-z0-9_.])\d+(?:[.,:/-]?\d)+(?![A-Za-z0-9_月])"),
}
LONG = 6  # a literal of more tokens than this gets a stand-in
STAND_INS = ("X", "Z", "Q", "K", "A")  # with a number


@dataclass(frozen=True)
class Protected:
    """A text whose literals are safe.

    Attributes:
        text: What the model reads.
        terms: What has to be in its output.
        restored: From each stand-in to what it stands for.
    """

    text: str
    terms: list[Term] = field(default_factory=list)
    restored: dict[str, str] = field(default_factory=dict)

    def restore(self, output: str) -> str:
        """Return an output with each literal once, in the place of its stand-in; repetitions of it are left out."""
        for name, literal in self.restored.items():
            alone = rf"\s?(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])"
            found = re.search(alone, output) or re.search(re.escape(name), output)
            if found:
                gap = " " if found[0][0].isspace() else ""
                output = output[: found.start()] + gap + literal + re.sub(alone, "", output[found.end() :])
        return output


def find_literals(text: str, kinds: tuple[str, ...] = tuple(KINDS)) -> list[tuple[int, int, str]]:
    """Return where the literals of a text are: (start, end, kind), in their order, the first kind before the others.

    Raises:
        ValueError: There is no such kind.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of literal. Choose from {', '.join(KINDS)}.")
    found: list[tuple[int, int, str]] = []
    for kind in kinds:
        for match in KINDS[kind].finditer(text):
            if all(match.end() <= start or end <= match.start() for start, end, _ in found):
                found.append((match.start(), match.end(), kind))
    return sorted(found)


def protect(text: str, tokenizer: PreTrainedTokenizerBase, kinds: tuple[str, ...] = tuple(KINDS)) -> Protected:
    """Make the literals of a text safe.

    Args:
        text: A source text.
        tokenizer: Of the model.
        kinds: Of literals, by the names of `KINDS`.

    Raises:
        ValueError: There is no such kind, or the tokenizer can spell no stand-in.
    """
    names = _stand_ins(text, tokenizer)
    parts: list[str] = []
    terms: list[Term] = []
    restored: dict[str, str] = {}
    last = 0
    for start, end, kind in find_literals(text, kinds):
        literal = text[start:end]
        constraint = spell(tokenizer, [literal])
        said = literal
        if constraint is None or constraint.least > LONG or not reads(tokenizer, literal):
            said = next(names, "")
            if not said:
                raise ValueError(
                    f"The model's tokens can spell neither {literal!r} nor a stand-in for it. Leave the {kind} out."
                )
            restored[said] = literal
        parts += [text[last:start], said]
        terms.append(Term(said, (said,), sum(map(len, parts)) - len(said)))
        last = end
    return Protected("".join([*parts, text[last:]]), terms, restored)


def reads(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Tell whether a tokenizer knows the characters of a source text."""
    return tokenizer.unk_token_id not in tokenizer(text, add_special_tokens=False)["input_ids"]


def _stand_ins(text: str, tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Yield names that source and target can spell and that are not in the text."""
    for letter in STAND_INS:
        for number in range(1, 100):
            name = f"{letter}{number}"
            if name not in text and reads(tokenizer, name) and says(tokenizer, target_ids(tokenizer, name), name):
                yield name
