"""Inputs such as people type, and such as no one should: made of clean pairs, by seed."""

import random
from collections.abc import Callable, Iterator

import regex

Pair = tuple[str, str]
Noise = Callable[[random.Random, Iterator[Pair]], Pair]

# Said in languages that a model may not know. CC0.
FOREIGN = [
    "Wo ist der nächste Bahnhof?",
    "Ich habe keine Ahnung, was du meinst.",
    "Das Wetter ist heute wirklich schön.",
    "Je ne sais pas où elle habite.",
    "Pourriez-vous parler plus lentement, s'il vous plaît ?",
    "Nous avons mangé trop de gâteau hier soir.",
    "¿Dónde está la biblioteca?",
    "Mañana voy a comprar pan y leche.",
    "Non ho mai visto un film così noioso.",
    "Я не понимаю, о чём ты говоришь.",
    "Сколько стоит этот билет?",
    "Завтра мы поедем к бабушке.",
    "今日はとても寒いですね。",
    "すみません、駅はどこですか。",
    "私は毎朝コーヒーを飲みます。",
    "오늘 점심에 뭐 먹을까요?",
    "저는 한국어를 조금 할 수 있어요.",
    "أين يمكنني أن أجد سيارة أجرة؟",
    "אני אוהב לקרוא ספרים בערב.",
    "मुझे हिंदी नहीं आती।",
    "Ποιος άφησε την πόρτα ανοιχτή;",
    "Bu akşam sinemaya gidelim mi?",
    "Hôm nay trời rất đẹp.",
    "Jag glömde mina nycklar hemma.",
]
SPACED = regex.compile(r"\s")
PUNCTUATION = regex.compile(r"\p{P}+")


def upper_case(rng: random.Random, pairs: Iterator[Pair]) -> Pair:
    """Capitals; where the source has no case, the capitals of its translation, which were not asked for."""
    source, target = next(pairs)
    shouted = source.upper()
    return (shouted, target) if shouted != source else (target.upper(), target)


def typos(rng: random.Random, pairs: Iterator[Pair]) -> Pair:
    """One character in eight dropped, doubled, swapped with the next or replaced by another of the text."""
    source, target = next(pairs)
    characters = list(source)
    for i in rng.sample(range(len(source)), max(1, len(source) // 8)):
        kind, other = rng.randrange(4), rng.choice(source)
        characters[i] = ["", 2 * source[i], other + source[i], other][kind]
    return "".join(characters), target


def missing_punctuation(rng: random.Random, pairs: Iterator[Pair]) -> Pair:
    """One to five sentences one after another, without signs."""
    several = [next(pairs) for _ in range(rng.randint(1, 5))]
    gap = " " if SPACED.search(several[0][0]) else ""
    text = gap.join(PUNCTUATION.sub("", source).strip() for source, _ in several)
    return text, " ".join(target for _, target in several)


def repeated_words(rng: random.Random, pairs: Iterator[Pair]) -> Pair:
    """A word, or two hanzi, said 3 to 30 times."""
    source, target = next(pairs)
    words = source.split() if SPACED.search(source) else [source[i : i + 2] for i in range(0, len(source), 2)]
    i = rng.randrange(len(words))
    words[i : i + 1] = [words[i]] * rng.randint(3, 30)
    return (" " if SPACED.search(source) else "").join(words), target


def other_languages(rng: random.Random, pairs: Iterator[Pair]) -> Pair:
    """One to three sentences of other languages."""
    return " ".join(rng.sample(FOREIGN, rng.randint(1, 3))), ""


def numbers(rng: random.Random, pairs: Iterator[Pair]) -> Pair:
    """Dates, prices, telephone numbers and long digits, alone or after a sentence."""
    made = [
        f"{rng.randint(1, 28)}.{rng.randint(1, 12)}.{rng.randint(1900, 2030)}",
        f"{rng.uniform(1, 1e6):,.2f}",
        "-".join(str(rng.randint(100, 9999)) for _ in range(3)),
        str(rng.randint(10**8, 10**20)),
        f"{rng.randint(0, 23)}:{rng.randint(0, 59):02}",
    ]
    chosen = " ".join(rng.choices(made, k=rng.randint(1, 8)))
    if rng.random() < 0.5:
        return chosen, ""
    source, target = next(pairs)
    return f"{source} {chosen}", f"{target} {chosen}"


def clean(rng: random.Random, pairs: Iterator[Pair]) -> Pair:
    """The pair as it is, to compare with."""
    return next(pairs)


KINDS: dict[str, Noise] = {
    "clean": clean,
    "upper case": upper_case,
    "typos": typos,
    "missing punctuation": missing_punctuation,
    "repeated words": repeated_words,
    "other languages": other_languages,
    "numbers": numbers,
}


def noisy_inputs(pairs: list[Pair], count: int, seed: int = 1) -> list[tuple[str, str, str]]:
    """Return noisy sources in equal shares of all kinds.

    Args:
        pairs: Clean sources and targets, used over again where they are too few.
        count: How many to return.
        seed: Of all that is drawn.

    Returns:
        (kind, source, target); the target is empty where there is none to compare with.
    """
    rng = random.Random(seed)

    def endless() -> Iterator[Pair]:
        while True:
            yield from rng.sample(pairs, len(pairs))

    stream, names = endless(), list(KINDS)
    found = []
    for i in range(count):
        kind = names[i % len(names)]
        found.append((kind, *KINDS[kind](rng, stream)))
    return found
