"""Which languages a model translates, what they are called, and in which script a text is written."""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import regex

Pair = tuple[str, str]  # source language, target language
CODE = r"[A-Za-z]{2,8}(?:_[A-Za-z0-9]{2,8})*"
PAIR = re.compile(rf"({CODE})-({CODE})")
PAIR_IN_NAME = re.compile(r"(?<![a-z])(?=([a-z]{2,3})-([a-z]{2,3})(?![a-z]))")  # both of mt-zh-en
TABLE = """
ar ara Arabic, bg bul Bulgarian, bn ben Bengali, ca cat Catalan, cs ces Czech, da dan Danish, de deu German,
el ell Greek, en eng English, eo epo Esperanto, es spa Spanish, et est Estonian, fa fas Persian, fi fin Finnish,
fr fra French, ga gle Irish, he heb Hebrew, hi hin Hindi, hr hrv Croatian, hu hun Hungarian, id ind Indonesian,
is isl Icelandic, it ita Italian, ja jpn Japanese, ko kor Korean, lt lit Lithuanian, lv lav Latvian,
nl nld Dutch, no nor Norwegian, pl pol Polish, pt por Portuguese, ro ron Romanian, ru rus Russian, sk slk Slovak,
sl slv Slovenian, sr srp Serbian, sv swe Swedish, th tha Thai, tr tur Turkish, uk ukr Ukrainian, ur urd Urdu,
vi vie Vietnamese, zh zho Chinese
"""
ROWS = [row.split() for row in TABLE.split(",")]  # ISO 639-1, ISO 639-3 (as OPUS-MT and NLLB have it), English
NAMES = {short: name for short, _, name in ROWS}
SHORT = {long: short for short, long, _ in ROWS}
# Whose letters a language is written with, where they are not Latin. Japanese has hanzi too, but never those alone.
SCRIPTS = {
    **dict.fromkeys(("ru", "uk", "bg", "sr", "be", "mk"), r"\p{Cyrillic}"),
    **dict.fromkeys(("ar", "fa", "ur"), r"\p{Arabic}"),
    **{"zh": r"\p{Han}", "ja": r"[\p{Hiragana}\p{Katakana}\p{Han}]", "ko": r"\p{Hangul}", "el": r"\p{Greek}"},
    **{"he": r"\p{Hebrew}", "hi": r"\p{Devanagari}", "bn": r"\p{Bengali}", "th": r"\p{Thai}"},
}
KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}]")
LETTERS = regex.compile(r"\p{L}")
LOOKED_AT = 2_000  # characters of a text are enough to know its script


def short_code(language: str) -> str:
    """Return the two letters of a language: "zh" for "zho", "zho_Hans", "zh-CN" and "ZH"."""
    first = re.split("[-_]", language)[0].lower()
    return SHORT.get(first, first)


def language_name(language: str) -> str:
    """Return the English name of a language, its code where it has none here."""
    return NAMES.get(language, NAMES.get(short_code(language), language))


def find_language(asked: str, known: Iterable[str]) -> str | None:
    """Return the one of the known languages that a client means: "zh" for "zh-CN", where there is no "zh-CN"."""
    known = sorted(known)
    if asked in known:
        return asked
    return next((language for language in known if short_code(language) == short_code(asked)), None)


def detect(text: str, languages: Iterable[str]) -> list[tuple[str, float]]:
    """Return how well the letters of a text fit some languages, in percent, best first.

    Only scripts are told apart: languages with the same letters share what there is.
    """
    letters = "".join(LETTERS.findall(text[:LOOKED_AT]))
    languages = sorted(set(languages))
    if not letters:
        return [(language, 0.0) for language in languages]
    has_kana = KANA.search(letters) is not None
    scripts = {}
    for language in languages:
        code = short_code(language)
        scripts[language] = SCRIPTS.get(code, r"\p{Latin}")
        if code in ("zh", "ja") and (code == "ja") != has_kana:
            scripts[language] = ""
    shared = Counter(scripts.values())
    found = [
        (language, 100 * len(regex.findall(script, letters)) / len(letters) / shared[script] if script else 0.0)
        for language, script in scripts.items()
    ]
    return sorted(found, key=lambda one: -one[1])


def detect_source(text: str, sources: list[str], target: str, others: list[str]) -> tuple[str, float] | None:
    """Return the language of a text that is to be translated, and how sure that is in percent.

    Args:
        text: Without tags.
        sources: What can be translated into the target; these win over others with the same letters.
        target: The language of a text that stays as it is.
        others: Further languages that may be recognised.

    Returns:
        The target with 0 percent for a text without letters; None where no language fits.
    """
    first = LETTERS.search(text)
    if not first:
        return target, 0.0
    ranked = [*sources, target, *others]
    found = [one for one in detect(text[first.start() :], ranked) if one[1]]
    return min(found, key=lambda one: (-one[1], ranked.index(one[0]))) if found else None


def read_pairs(text: str) -> list[Pair]:
    """Return the pairs of languages of "zh-en,en-zh"; none where the text is something else."""
    matches = [PAIR.fullmatch(part) for part in text.split(",")]
    return [(match[1], match[2]) for match in matches if match] if all(matches) else []


def split_argument(argument: str) -> tuple[str, list[Pair]]:
    """Return the model and the pairs of MODEL or MODEL=zh-en.

    Raises:
        ValueError: What is behind the equals sign names no languages.
    """
    if Path(argument).exists() or "=" not in argument:
        return argument, []
    name, _, pairs = argument.rpartition("=")
    if not (found := read_pairs(pairs)) or not name:
        raise ValueError(
            f"{argument} should be a model, or a model and its languages: MODEL=zh-en, or MODEL=zh-en,en-zh for a "
            "model of several."
        )
    return name, found


def pairs_of(name: str, tokenizer: Any) -> list[Pair]:
    """Return the languages that a model translates, from what lies beside it.

    These are asked in turn: its tokenizer (OPUS-MT), the columns or files of its recipe, its name, such as
    opus-mt-zh-en.

    Raises:
        ValueError: None of them says it.
    """
    sides = [getattr(tokenizer, f"{side}_lang", None) for side in ("source", "target")]
    if all(isinstance(side, str) and side for side in sides):
        return [(short_code(str(sides[0])), short_code(str(sides[1])))]
    folder = Path(name)
    for recipe in (folder / "recipe.yaml", folder.parent / "recipe.yaml"):
        if folder.is_dir() and recipe.is_file() and (pair := pair_of_recipe(recipe)):
            return [pair]
    for part in (folder.resolve() if folder.is_dir() else folder).parts[::-1][:2]:
        for match in PAIR_IN_NAME.finditer(part.lower()):
            if {match[1], match[2]} <= NAMES.keys() | SHORT.keys():
                return [(short_code(match[1]), short_code(match[2]))]
    raise ValueError(
        f"{name} does not say which languages it translates: neither its tokenizer, nor its recipe, nor its name. "
        f"Say it: {name}=zh-en"
    )


def pair_of_recipe(path: Path) -> Pair | None:
    """Return the languages that the columns or files of a recipe are named after; None where they are not."""
    import yaml  # comes with huggingface_hub

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")).get("data") or {}
    except (yaml.YAMLError, AttributeError, OSError, UnicodeDecodeError):
        return None
    found = chain.from_iterable(one if isinstance(one, list) else [one] for one in data.values())
    for split in (one for one in found if isinstance(one, dict)):
        for source, target in (("source_column", "target_column"), ("source", "target")):
            names = [str(split.get(side) or "").split("/")[-1] for side in (source, target)]
            codes = [next((part for part in name.split(".")[::-1] if part in NAMES), None) for name in names]
            if codes[0] and codes[1]:
                return codes[0], codes[1]
    return None
