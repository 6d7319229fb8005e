r"""HTML as pieces: text to translate, and everything else, which stays letter by letter.

    >>> pieces = read_markup("<p>今天吃什么好&nbsp;<b>吃饭</b></p>")
    >>> [piece.text for piece in pieces if piece.text]
    ['今天吃什么好\xa0', '吃饭']

Time grows with the length of the text alone, whatever is in it.
"""

import re
from dataclasses import dataclass
from html import escape, unescape

# What is in these is no text to read; the end of it is the end tag, as browsers see it.
VERBATIM = ("script", "style", "pre", "code", "textarea", "template", "svg", "math", "noscript")
TAG_NAME = re.compile(r"</?([A-Za-z][A-Za-z0-9-]*)")
QUOTE_OR_END = re.compile("[\"'>]")


@dataclass(frozen=True)
class Piece:
    """A piece of HTML.

    Attributes:
        written: As it was written.
        text: What it says, without the space around it; empty for what is copied.
    """

    written: str
    text: str = ""

    def with_text(self, text: str) -> str:
        """Return the HTML of another text in the place of this one."""
        space = len(self.written) - len(self.written.lstrip())
        end = len(self.written.rstrip())
        return self.written[:space] + escape(text, quote=False) + self.written[end:]


def read_markup(html: str) -> list[Piece]:
    """Cut HTML into pieces; what they were written as, put together, is the HTML again."""
    pieces: list[Piece] = []
    at = text_start = 0
    while (at := html.find("<", at)) >= 0:
        end = end_of_tag(html, at)
        if end == at:  # a sign like any other: 1 < 2
            at += 1
            continue
        pieces += [text_piece(html[text_start:at])] if at > text_start else []
        pieces.append(Piece(html[at:end]))
        at = text_start = end
    if text_start < len(html):
        pieces.append(text_piece(html[text_start:]))
    return pieces


def text_piece(written: str) -> Piece:
    """Return the piece of a text between tags."""
    return Piece(written, unescape(written.strip()))


def end_of_tag(html: str, start: int) -> int:
    """Return where what begins with < ends: a tag, a comment, a script with all that is in it.

    What is never closed goes to the end of the HTML. What is no tag ends where it starts.
    """
    if html.startswith("<!--", start):
        return after("-->", html, start)
    if html.startswith(("<!", "<?"), start):
        return after(">", html, start)
    name = TAG_NAME.match(html, start)
    if not name:
        return start
    end = end_of_attributes(html, name.end())
    if name[1].lower() not in VERBATIM or html[start + 1] == "/" or html[end - 2 : end] == "/>":
        return end
    close = re.compile(rf"</{name[1]}(?=[\s/>])", re.IGNORECASE).search(html, end)
    return after(">", html, close.start()) if close else len(html)


def end_of_attributes(html: str, at: int) -> int:
    """Return where a tag ends, whose attributes may have a > between quotes."""
    while found := QUOTE_OR_END.search(html, at):
        if found[0] == ">":
            return found.end()
        at = after(found[0], html, found.end())
    return len(html)


def after(sign: str, html: str, start: int) -> int:
    """Return where the next such sign ends; the end of the HTML where there is none."""
    found = html.find(sign, start)
    return found + len(sign) if found >= 0 else len(html)
