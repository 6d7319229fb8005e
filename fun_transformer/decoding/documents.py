r"""Documents: what of a text is translated, and what is copied as it is.

A document is cut into pieces that give it again when they are put together. Paragraphs are translated sentence by
sentence: a model that was trained on sentences loses most of a paragraph that it is given whole. Copied are the marks
of Markdown (headings, lists, quotes, tables), tags around a line, code, scripts, comments, formulas in `$$`, the front
matter of a page, blank lines, and lines that say nothing in words: addresses, numbers, rules and emoji.

    >>> [piece.sentence for piece in read_document("# Tea\n\nIt is hot. Wait!\n") if piece.is_text]
    ['Tea', 'It is hot.', 'Wait!']
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import regex

from ..text_parts import ADDRESS, CUTS, SPACELESS, has_words

WRAPPED_FROM = 40  # columns; a line of at least this many may go on in the next one

FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
INDENTED_CODE = re.compile(r"^(?: {4,}|\t)\S")
TABLE_ROW = re.compile(r"^\s*\|.*\|\s*$")
# Between rules at the very start of a page, where the first line is a field of YAML.
FRONT_MATTER = re.compile(r"\ufeff?---[ \t]*\r?\n(?=[\w.\"'-]+[ \t]*:\s)(?:.*\n)*?(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)")
COPIED = re.compile(
    r"[ \t]*(?:<(script|style)\b[^<>]*>.*?</\1\s*>(?:[ \t]*\r?\n)?|<!--.*?-->(?:[ \t]*\r?\n)?"
    r"|\$\$(?:(?!\$\$|\n[ \t]*\n).)+\$\$[ \t]*(?:\r?\n|\Z))",
    re.DOTALL | re.IGNORECASE,
)
# The marks that may begin a line: of quotes, then of a heading or of a list's item.
MARKS = re.compile(r"^\s*(?:>\s?)*(?:#{1,6}\s+|(?:[-*+•]|\d{1,3}[.)、])\s+(?:\[[ xX]\]\s+)?)?")
TAGS_BEFORE = re.compile(r"(?:\s*<[^<>]+>)+\s*")
TAGS_AFTER = re.compile(r"\s*(?:<[^<>]+>\s*)+$")
LINK = re.compile(r"(!?\[)([^\[\]]+)(\]\([^()\s]+(?:\s+\"[^\"]*\")?\))")
EMPHASIS = re.compile(r"(\*{1,3}|_{1,3})(?=\S)(.+?)(?<=\S)\1", re.DOTALL)
HAN = r"\p{Han}\p{Hiragana}\p{Katakana}"
SCRIPTS = {"han": regex.compile(rf"[{HAN}]"), "alphabet": regex.compile(rf"(?![{HAN}])\p{{L}}")}
HAN_LETTERS = 2  # letters of an alphabet that a hanzi counts for, at least


@dataclass(frozen=True)
class Piece:
    """A part of a document: a sentence to translate (`is_text`), or what is copied as it is.

    What is between two sentences of a line or paragraph `is_gap`.
    """

    text: str
    is_text: bool = False
    is_gap: bool = False

    @property
    def sentence(self) -> str:
        """Return the text in one line: a line break is a space, or nothing next to a Chinese character."""
        lines = [line.strip() for line in self.text.split("\n")]
        joined = lines[0]
        for line in lines[1:]:
            is_spaceless = not joined or not line or SPACELESS.match(joined[-1]) or SPACELESS.match(line[0])
            joined += ("" if is_spaceless else " ") + line
        return joined


def read_document(document: str, script: str | None = None) -> list[Piece]:
    """Cut a document into pieces, whose texts put together are the document.

    A sentence that goes on in the next line is one piece.

    Args:
        document: Plain text or Markdown.
        script: What to translate: sentences with "han" (Chinese and Japanese) or "alphabet" letters; None for any.
    """
    pieces: list[Piece] = []
    for block, is_prose in _blocks(document):
        pieces += _pieces_of_prose(block, script) if is_prose else [Piece(block)]
    return pieces


def assemble(pieces: Iterable[Piece], translations: Iterable[str]) -> str:
    """Return a document with a translation in the place of each piece of text.

    Sentences of one line, of which one is translated, have the space between them that they had, or one, or none next
    to Chinese and Japanese.

    Args:
        pieces: Of `read_document`.
        translations: One for each piece with `is_text`, in their order.

    Raises:
        ValueError: There are more or fewer.
    """
    pieces, translations = list(pieces), list(translations)
    if len(translations) != (count := sum(piece.is_text for piece in pieces)):
        raise ValueError(f"{len(translations)} translations for {count} pieces of text: give one for each.")
    rest = iter(translations)
    written = [next(rest) if piece.is_text else piece.text for piece in pieces]
    for i in range(1, len(pieces) - 1):
        if pieces[i].is_gap and (pieces[i - 1].is_text or pieces[i + 1].is_text):
            written[i] = _gap(written[i - 1], pieces[i].text, written[i + 1])
    return "".join(written)


def main_script(document: str) -> str:
    """Return which letters a document is mostly written in: "han" or "alphabet"."""
    prose = " ".join(ADDRESS.sub(" ", piece.text) for piece in read_document(document) if piece.is_text)
    counts = {name: len(letters.findall(prose)) for name, letters in SCRIPTS.items()}
    return "han" if HAN_LETTERS * counts["han"] > counts["alphabet"] else "alphabet"


def _gap(left: str, gap: str, right: str) -> str:
    """Return what comes between two translated sentences that had `gap` between them."""
    if "\n" in gap:
        return gap
    if not left or not right or SPACELESS.match(left[-1]) or SPACELESS.match(right[0]):
        return ""
    return gap or " "


def _blocks(document: str) -> Iterator[tuple[str, bool]]:
    """Yield lines and whether they are prose rather than code; those that are wrapped within a sentence together."""
    fence, waiting, after_blank, position = "", "", True, 0
    lines = deque(document.splitlines(keepends=True))
    while lines:
        copied = None if fence else (COPIED.match(document, position) or _front_matter(document, position))
        if copied:
            if waiting:
                yield waiting, True
            yield copied[0], False
            waiting, after_blank, end = "", True, copied.end()
            while position < end:
                position += len(lines.popleft())
            if position > end:  # the rest of a line
                lines.appendleft(document[end:position])
                position = end
            continue
        line = lines.popleft()
        position += len(line)
        mark = FENCE.match(line)
        if fence:
            yield line, False
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            continue
        is_code = mark is not None or (after_blank and INDENTED_CODE.match(line) is not None and not _is_marked(line))
        if waiting and (is_code or not line.strip() or _is_marked(line)):
            yield waiting, True
            waiting = ""
        if is_code:
            fence = mark[1] if mark else ""
            yield line, False
        elif _goes_on(line):
            waiting += line
        else:
            yield waiting + line, True
            waiting = ""
        after_blank = not line.strip() or (is_code and not mark)
    if waiting:
        yield waiting, True


def _front_matter(document: str, position: int) -> re.Match | None:
    """Return the front matter of a page, at its very start only."""
    return None if position else FRONT_MATTER.match(document)


def _is_marked(line: str) -> bool:
    """Tell whether a line begins something: a heading, an item, a quote, a row of a table, a tag."""
    marks = MARKS.match(line)
    return bool((marks and marks[0].strip()) or TABLE_ROW.match(line) or TAGS_BEFORE.match(line))


def _goes_on(line: str) -> bool:
    """Tell whether the sentence of a line may go on in the next one."""
    text = line.strip()
    columns = sum(2 if SPACELESS.match(character) else 1 for character in text)
    ends = text.endswith((".", "!", "?", ":", "：")) or any(end.end() == len(text) for end in CUTS[1].finditer(text))
    is_alone = text.startswith("#") or TABLE_ROW.match(line) or not has_words(text) or line.endswith("  \n")
    return columns >= WRAPPED_FROM and not ends and not is_alone


def _pieces_of_prose(block: str, script: str | None) -> list[Piece]:
    """Cut a line, or several of one paragraph, into marks, sentences and what is between them."""
    if TABLE_ROW.match(block):
        return [_piece(part, script) for part in re.split(r"(\s*\|\s*)", block) if part]
    before, text, after = "", block, ""
    for marks in (MARKS, TAGS_BEFORE, re.compile(r"\s+")):
        if found := marks.match(text):
            before, text = before + found[0], text[found.end() :]
    for marks in (re.compile(r"\s+$"), TAGS_AFTER):
        if found := marks.search(text):
            text, after = text[: found.start()], text[found.start() :] + after
    if found := EMPHASIS.fullmatch(text):
        before, text, after = before + found[1], found[2], found[1] + after
    if found := LINK.fullmatch(text):
        before, text, after = before + found[1], found[2], found[3] + after
    pieces = [Piece(before)] if before else []
    ends = [match.end() for match in CUTS[1].finditer(text)]
    for start, end in zip([0, *ends], [*ends, len(text)]):
        sentence = text[start:end].rstrip()
        if sentence:
            gap = text[start + len(sentence) : end]  # "" may become a space
            pieces += [_piece(sentence, script), Piece(gap, is_gap=end < len(text))]
    return [*pieces, Piece(after)] if after else pieces


def _piece(text: str, script: str | None) -> Piece:
    """Return a piece that is text where it has words of this script."""
    letters = SCRIPTS[script] if script else None
    return Piece(text, has_words(text) and (letters is None or letters.search(ADDRESS.sub(" ", text)) is not None))
