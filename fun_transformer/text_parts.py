"""Texts in parts: where they may be cut, what of them has words, and how translations of parts are put together."""

import re
from collections.abc import Callable

import regex

LANGUAGE_TAG = re.compile(r">>[\w-]+<<")  # as Marian and our own models have them: the target language

# Where a long text may be cut, best first: after a paragraph, a sentence, a clause, a word. A dot ends no sentence
# after an abbreviation, an initial or a list's number, nor before a small letter; within 3.14 no space follows it.
ABBREVIATIONS = ("Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Jr", "Sr", "No", "Fig", "Vol", "vs", "e.g", "i.e")
NO_ABBREVIATION = "".join(rf"(?<!\b{re.escape(word)})" for word in ABBREVIATIONS)
NO_INITIAL_OR_NUMBER = r"(?<!\b[A-Z])(?<!\b\d)(?<!\b\d\d)"
ENGLISH_END = rf"(?:{NO_ABBREVIATION}{NO_INITIAL_OR_NUMBER}\.|[!?…])[.!?…]*[\"'”’)\]]*(?=\s)(?!\s+[a-z])"
CUTS = [
    re.compile(r"(?<=\S)\s*?\n\s*"),
    re.compile(rf"(?:[。！？；]+[”’」』）》]*|{ENGLISH_END})\s*"),
    re.compile(r"(?:[，、：]|[,;:](?=\s))\s*"),
    re.compile(r"(?<=\S)\s+"),
]
# What is the same in every language: addresses, code, footnotes, tags. A text of them and of numbers is copied.
# Chinese, Japanese and Korean may follow an address without a space and are no part of it.
NO_ADDRESS = r"\u2010-\u2027\u2E80-\u9FFF\uAC00-\uD7AF\uF900-\uFAFF\uFE30-\uFE4F\uFF00-\uFFEF\U00020000-\U0003FFFF"
IN_ADDRESS = rf"[^\s{NO_ADDRESS}]"
ADDRESS = re.compile(
    rf"(?:(?:https?|ftp|file)://|www\.){IN_ADDRESS}+|(?<!{IN_ADDRESS}){IN_ADDRESS}+@{IN_ADDRESS}+\.[^\W{NO_ADDRESS}]+"
    r"|`[^`]*`|\[\d+\]|<[^<>]*>"
)
LETTER = regex.compile(r"\p{L}")
CHARACTER = regex.compile(r"\X")  # as readers count: a letter with its marks, an emoji with all its signs
SPACELESS = re.compile(r"[\u3000-\u30FF\u3400-\u9FFF\uF900-\uFAFF\uFF00-\uFFEF]")  # hanzi, kana, their punctuation


def language_tag(tokenizer, text: str) -> str:
    """Return the token that a text begins with to name its target language, such as ">>en<<"; "" for none.

    Raises:
        ValueError: There are two of them.
    """
    unknown = (None, tokenizer.unk_token_id)
    tags = [tag for tag in LANGUAGE_TAG.findall(text) if tokenizer.convert_tokens_to_ids(tag) not in unknown]
    if len(tags) > 1:
        raise ValueError(f"A text has one target language, but here are {' and '.join(tags)}. Leave one of them.")
    return tags[0] if tags and text.lstrip().startswith(tags[0]) else ""


FEATURE_TAG = re.compile(r"<([^<>:]+):[^<>\s]+>")  # as training writes features before a source: <tags:PST>


def trained_features(tokenizer) -> list[str]:
    """Return the features that every source of the training had before it, as tags; none where some had none."""
    return list(getattr(tokenizer, "init_kwargs", {}).get("feature_columns") or ())


def check_tagged(tokenizer, texts) -> None:
    """Refuse sources without tags where every source of the training had some.

    Raises:
        ValueError: No source has one.
    """
    features = trained_features(tokenizer)
    filled = [text for text in texts if text.strip()]
    if features and filled and not any(f"<{name}:" in text for text in filled for name in features):
        known = [token for token in sorted(tokenizer.get_added_vocab()) if token.startswith(f"<{features[0]}:")]
        example = known[0] if known else f"<{features[0]}:...>"
        raise ValueError(
            f"The model was trained with tags before each source ({', '.join(features)}), and no source here has one, "
            f'such as "{example} {filled[0][:30]}". Name the columns of a table that have them, --feature-columns '
            f"{' '.join(features)}, or write them before the texts."
        )


def unknown_tags(tokenizer, text: str) -> list[str]:
    """Return the tags of a source that training never saw, though it saw others of the same features."""
    found = list(FEATURE_TAG.finditer(text)) if "<" in text else []
    known = tokenizer.get_added_vocab() if found else {}
    names = {match[1] for token in known if (match := FEATURE_TAG.fullmatch(token))}
    return [match[0] for match in found if match[1] in names and match[0] not in known]


class Prefixed(str):
    """A source text with the beginning that its target must have; otherwise a plain string."""

    prefix: str

    def __new__(cls, text: str, prefix: str):
        """Return the text; `prefix` is the beginning of its target."""
        prefixed = super().__new__(cls, text)
        prefixed.prefix = prefix
        return prefixed


def has_beginning(text: str) -> bool:
    """Tell whether the target of a text must have a beginning."""
    return isinstance(text, Prefixed) and bool(text.prefix)


def check_text(text):
    """Refuse what is no string.

    Raises:
        TypeError: It is something else.
    """
    if not isinstance(text, str):
        raise TypeError(
            f"This pipeline takes a string, a list of strings, a generator or a torch dataset of strings; got "
            f"{type(text).__name__}. Turn other sequences into a list with list(...)."
        )


def with_prefix(inputs, prefix: str | list[str]):
    """Return texts with the beginnings of their targets.

    Raises:
        TypeError: They are no string and string, or list and list.
        ValueError: There are not as many of both.
    """
    if isinstance(inputs, str) and isinstance(prefix, str):
        return Prefixed(inputs, prefix)
    if not (isinstance(inputs, list) and isinstance(prefix, list)):
        raise TypeError(
            f"prefix={type(prefix).__name__} does not fit texts that are a {type(inputs).__name__}. Give a string for "
            "a string, and for a list of texts a list of strings."
        )
    if len(inputs) != len(prefix):
        raise ValueError(f"{len(prefix)} prefixes for {len(inputs)} texts: give one for each, '' for none.")
    return [Prefixed(text, beginning) for text, beginning in zip(inputs, prefix)]


def split_text(text: str, fits: Callable[[str], bool], level: int = 0) -> list[str]:
    """Cut a text into parts that fit, at the best places there are, and as few as follow from that.

    No cut parts what a reader takes for one character, such as a letter and its accent, or an emoji of several signs.

    Args:
        text: With all that is in it: the parts put together are the text again.
        fits: Whether the model takes a part.
        level: The first of `CUTS` to try; after the last one, a text is cut in the middle.

    Returns:
        The parts. Paragraphs are never put together, sentences and what is smaller are, as far as they fit.

    Raises:
        ValueError: Not even one character fits.
    """
    if fits(text):
        return [text]
    characters = [match.end() for match in CHARACTER.finditer(text)]  # where they end
    if len(characters) < 2:
        raise ValueError(f"Not even the text {text!r} fits into the model. Choose a larger max_source_length.")
    if level < len(CUTS):
        whole = set(characters)
        ends = [match.end() for match in CUTS[level].finditer(text) if match.end() in whole]
    else:
        ends = [characters[len(characters) // 2 - 1]]
    parts: list[str] = []
    for start, end in zip([0, *ends], [*ends, len(text)]):
        piece = text[start:end]
        if parts and 0 < level < len(CUTS) and fits(parts[-1] + piece):
            parts[-1] += piece
        elif piece:
            parts += split_text(piece, fits, min(level + 1, len(CUTS)))
    return parts


def split_sentences(text: str) -> list[str]:
    """Cut a text after each line break and each sentence; the parts put together are the text again."""
    ends = sorted({match.end() for cut in CUTS[:2] for match in cut.finditer(text)} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends)]


def has_words(text: str) -> bool:
    """Tell whether a text has words to translate, beside its target language, addresses, code and tags."""
    return LETTER.search(ADDRESS.sub(" ", LANGUAGE_TAG.sub(" ", text))) is not None


def join_texts(left: str, right: str, source: str) -> str:
    """Join two translations; `source` is what the left one was made of."""
    gap = source[len(source.rstrip()) :]
    if "\n" not in gap:
        gap = gap or " "
        if not left or not right or SPACELESS.match(left[-1]) or SPACELESS.match(right[0]):
            gap = ""
    return left + gap + right
