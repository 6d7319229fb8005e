"""What a small language gets without a recipe: letters to sounds, and inflection, with a few hundred to 10,000 words.

    python -m benchmarks.small_data cmudict-0.7b.train-dev-20-21.xz cmudict-0.7b.train-dev-1-21.xz \\
        --seeds 42 43 --output benchmarks/results/small-data.json

Letters to sounds is CMUdict, cut down to a few words. Inflection is of two invented languages: one adds suffixes whose
vowels follow those of the word (as Turkish does), the other prefixes that melt into each other and into the stem, and
doubles syllables (as Swahili and Tagalog do). Lemmas of the test rows are never in training rows; some are irregular.
Each set is written as a table without a header, which is all that the training gets: no recipe.
"""

import argparse
import hashlib
import itertools
import json
import random
import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.g2p_data import read_dictionary

TEST_ROWS = 1000
SETS = (
    "g2p-800",
    "g2p-3600",
    "g2p-8000",
    *(f"{kind}-{rows}" for kind in ("suffixes", "prefixes") for rows in (1000, 10000)),
)
VOWELS = "aeıioöuü"
BACK, ROUND = set("aıou"), set("oöuü")
SOFT = {"p": "b", "t": "d", "k": "ğ", "ç": "c"}
CASES = {"NOM": "", "ACC": "I", "DAT": "A", "LOC": "DA", "ABL": "DAn", "GEN": "In"}
POSSESSORS = {"": "", "PSS1S": "Im", "PSS2S": "In", "PSS3S": "I"}
SUBJECTS = {"1;SG": "ni", "2;SG": "u", "3;SG": "a", "1;PL": "tu", "2;PL": "mu", "3;PL": "wa"}
TENSES = {"PRS": "na", "PST": "li", "FUT": "ta", "PRF": "me"}
OBJECTS = {"": "", "OBJ1S": "ni", "OBJ3S": "mu", "OBJ3P": "wa"}
Row = tuple[str, str, str]  # lemma, form, tags


def add_suffix(stem: str, suffix: str, softens: bool) -> str:
    """Return a stem with a suffix whose capital letters agree with it: A is a or e, I one of four, D is d or t.

    Args:
        stem: Of any length, with a vowel.
        suffix: Empty for none.
        softens: Whether a last p, t, k, ç becomes b, d, ğ, c before a vowel.
    """
    if not suffix:
        return stem
    if stem[-1] in VOWELS and suffix[0] in "IA":
        suffix = "y" + suffix if suffix in ("I", "A") else "n" + suffix if suffix == "In" else suffix[1:]
    elif suffix[0] in "IA" and softens and stem[-1] in SOFT:
        stem = stem[:-1] + SOFT[stem[-1]]
    last = next(letter for letter in reversed(stem) if letter in VOWELS)
    high = {(True, False): "ı", (True, True): "u", (False, False): "i", (False, True): "ü"}[
        last in BACK, last in ROUND
    ]
    dental = "t" if stem[-1] in "pçtkfhsş" else "d"
    return stem + suffix.replace("A", "a" if last in BACK else "e").replace("I", high).replace("D", dental)


def suffixing_lemma(rng: random.Random) -> str:
    """Return a noun of two or three syllables whose vowels agree."""
    vowels = rng.choice(["aıou", "eiöü"])
    syllables = [rng.choice("bcdfgklmnprstvyzşç") + rng.choice(vowels) for _ in range(rng.choice([2, 2, 3]))]
    return "".join(syllables) + rng.choice(["", *"kptçlmnrsz"])


def suffixed(lemma: str, rng: random.Random) -> list[Row]:
    """Return the 48 forms of a noun; one in ten does not soften, one in ten loses its last vowel before another."""
    exception = rng.random()
    loses = exception > 0.9 and lemma[-1] in "lmnrsz"
    rows = []
    for number, (owner, ending), (case, last) in itertools.product(("SG", "PL"), POSSESSORS.items(), CASES.items()):
        stem = add_suffix(lemma, "lAr" if number == "PL" else "", True)
        if loses and stem == lemma and (ending or last[:1] in ("I", "A")):
            stem = lemma[:-2] + lemma[-1]
        stem = add_suffix(stem, "sI" if ending == "I" and stem[-1] in VOWELS else ending, exception > 0.1)
        if owner == "PSS3S" and last:
            stem += "n"
        tags = ";".join(filter(None, ["N", case, number, owner]))
        rows.append((lemma, add_suffix(stem, last, exception > 0.1), tags))
    return rows


def prefixing_lemma(rng: random.Random) -> str:
    """Return the stem of a verb, which ends in a vowel; some begin with one."""
    onsets = ["b", "d", "f", "g", "k", "l", "m", "n", "p", "s", "t", "w", "z", "ch", "sh", "nd", "mb"]
    syllables = [rng.choice(onsets) + rng.choice("aeiou") for _ in range(rng.choice([1, 2, 2, 3]))]
    return rng.choice(["", "", "", *"aiou"]) + "".join(syllables)[:-1] + rng.choice("aaaei")


def melt(left: str, right: str) -> str:
    """Join two parts: of vowels that meet, a + i is e, a + u is o, i and u become y and w, and equal ones are one."""
    if not left or left[-1] not in "aiu" or right[0] not in "aeiou":
        return left + right
    if left[-1] == right[0]:
        return left + right[1:]
    if left[-1] == "a":
        return left[:-1] + {"i": "e", "u": "o"}.get(right[0], right[0]) + right[1:]
    return left[:-1] + {"i": "y", "u": "w"}[left[-1]] + right


def prefixed(lemma: str, rng: random.Random) -> list[Row]:
    """Return the 384 forms of a verb: subject, tense, object, negation, and its first syllable twice for a habit."""
    is_odd = rng.random() < 0.1  # its last vowel does not change when it is denied
    onset = next(at for at, letter in enumerate(lemma) if letter in "aeiou") + 1
    rows = []
    for (person, subject), (tense, time_mark), (goal, mark), negative, habit in itertools.product(
        SUBJECTS.items(), TENSES.items(), OBJECTS.items(), (False, True), (False, True)
    ):
        stem = lemma[:-1] + "i" if negative and not is_odd and lemma[-1] == "a" else lemma
        stem = lemma[:onset] + stem if habit else stem
        form = melt(mark, stem)
        form = melt({"PST": "ku", "PRF": "ja"}.get(tense, time_mark) if negative else time_mark, form)
        form = melt("si" if negative and person == "1;SG" else "ha" + subject if negative else subject, form)
        tags = [*(["NEG"] if negative else []), *(["HAB"] if habit else []), *([goal] if goal else [])]
        rows.append((lemma, form, ";".join(["V", tense, person, *tags])))
    return rows


LANGUAGES: dict[str, tuple[Callable[[random.Random], str], Callable[[str, random.Random], list[Row]]]] = {
    "suffixes": (suffixing_lemma, suffixed),
    "prefixes": (prefixing_lemma, prefixed),
}


def inflect(language: str, rows: int, seed: int = 0, test_rows: int = TEST_ROWS) -> tuple[list[Row], list[Row]]:
    """Return training and test rows of an invented language; no lemma is in both.

    Args:
        language: One of `LANGUAGES`.
        rows: Of training: some forms of 200 lemmas at least, five of each in the mean where there are more.
        seed: Decides everything.
        test_rows: One form of each of this many lemmas.
    """
    rng = random.Random(seed)
    new_lemma, forms = LANGUAGES[language]
    wanted = test_rows + max(200, rows // 5)
    lemmas = list(dict.fromkeys(new_lemma(rng) for _ in range(2 * wanted)))[:wanted]
    test = [rng.choice(forms(lemma, rng)) for lemma in lemmas[:test_rows]]
    return rng.sample([row for lemma in lemmas[test_rows:] for row in forms(lemma, rng)], rows), test


def letters_to_sounds(dictionary: dict[str, list[str]], rows: int) -> list[dict[str, Any]]:
    """Return words of a dictionary with all their pronunciations, the first `rows` of a fixed random order."""
    words = random.Random(0).sample(sorted(dictionary), len(dictionary))[:rows]
    return [{"source": word, "target": dictionary[word][0], "references": dictionary[word]} for word in words]


def check_sets(names: list[str]) -> None:
    """Refuse what is no kind and number of rows.

    Raises:
        ValueError: Naming it.
    """
    for name in names:
        kind, _, rows = name.partition("-")
        if kind not in ("g2p", *LANGUAGES) or not rows.isdecimal() or int(rows) < 1:
            raise ValueError(
                f"--sets {name} is no kind and number of rows. Kinds are g2p, {', '.join(LANGUAGES)}: g2p-800, "
                "suffixes-1000."
            )


def run_folder(folder: Path, name: str, seed: int, options: list[str]) -> Path:
    """Return the folder of a run, which is another one for each set, seed and further words of the command line."""
    other = f"-{hashlib.sha256(shlex.join(options).encode()).hexdigest()[:8]}" if options else ""
    return folder / f"{name}-{seed}{other}"


def write_set(name: str, folder: Path, files: list[str]) -> list[str]:
    """Write a set as tables that have no header; return the words of the command line that name it.

    Args:
        name: Its kind and number of rows: g2p-800, suffixes-1000.
        folder: Where to write it.
        files: Of CMUdict: training words, other words.
    """
    kind, rows = name.split("-")
    train, test = folder / f"{name}.tsv", folder / f"{name}.test.{'jsonl' if kind == 'g2p' else 'tsv'}"
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "g2p":
        known, other = map(read_dictionary, files)
        other = {word: sounds for word, sounds in other.items() if word not in known}
        chosen = letters_to_sounds(known, int(rows))
        train.write_text("".join(f"{row['source']}\t{row['target']}\n" for row in chosen), encoding="utf-8")
        tested = letters_to_sounds(other, TEST_ROWS)
        test.write_text("".join(json.dumps(row) + "\n" for row in tested), encoding="utf-8")
    else:
        for path, found in zip((train, test), inflect(kind, int(rows))):
            path.write_text("".join("\t".join(row) + "\n" for row in found), encoding="utf-8")
    references = ["--data.test.references_column", "references"] if kind == "g2p" else []
    return ["--data.train.dataset", str(train), "--data.test.dataset", str(test), *references]


def measure(words: list[str], seed: int, folder: Path) -> dict[str, Any]:
    """Train by a command line; return the scores on the test rows and what it took.

    Args:
        words: Of the command line.
        seed: Of the training.
        folder: Of the run.
    """
    from accelerate.state import AcceleratorState

    from fun_transformer.training import train
    from fun_transformer.training.loop import TrainingLoop
    from fun_transformer.training.recipe.reading import parse_arguments

    begun = time.process_time()
    AcceleratorState._reset_state(reset_partial_state=True)
    own = ["--training.threads", "1", "--training.seed", str(seed), "--output_dir", str(folder), "--overwrite"]
    result = train(parse_arguments([*words, *own]), loop=partial(TrainingLoop, clock=time.process_time))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = max(map(json.loads, lines), key=lambda line: line["step"])
    scores = {name: round(value, 2) for name, value in result.scores["test"].items() if isinstance(value, float)}
    return {
        "seed": seed,
        "scores": scores,
        "steps": last["step"],
        "cpu_minutes": round((time.process_time() - begun) / 60, 2),
    }


def show_mean(values: list[float]) -> str:
    """Return the mean of a score over seeds, and its range where there are several; "" for none."""
    if not values:
        return ""
    mean = f"{sum(values) / len(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


def show(results: dict[str, Any]) -> str:
    """Return the table of all runs."""
    lines = [
        "| set | | seeds | wrong words (%) | PER | steps | CPU minutes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in results["rows"]:
        runs = row["runs"]
        scores = [run["scores"] for run in runs]
        wrong = show_mean([found.get("g2p_wer", 100 - found.get("exact", 0.0)) for found in scores])
        per = show_mean([found["per"] for found in scores if "per" in found])
        steps, minutes = (sum(run[name] for run in runs) / len(runs) for name in ("steps", "cpu_minutes"))
        lines.append(
            f"| {row['set']} | {row['name']} | {len(runs)} | {wrong} | {per} | {steps:,.0f} | {minutes:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small_data", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs=2, metavar="FILE", help="CMUdict: training words, and words to test with")
    parser.add_argument("--sets", nargs="+", default=list(SETS), help="kind and rows: g2p-800, suffixes-1000, ...")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42])
    parser.add_argument("--name", help="of these runs in the table (default: their --options, else no recipe)")
    parser.add_argument("--options", default="", help="words of the command line for all of them, in one text")
    parser.add_argument("--folder", type=Path, default=Path("runs/small-data"), help="of data and trained models")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json", help="rows are added to it")
    options = parser.parse_args()
    try:
        check_sets(options.sets)
        words_of_all = shlex.split(options.options)
    except ValueError as error:
        parser.error(str(error))

    from fun_transformer.training.run.environment import describe_environment

    results = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {"rows": []}
    for name in options.sets:
        words = [*write_set(name, options.folder / "data", options.files), *words_of_all]
        row = {
            "set": name,
            "name": options.name or options.options or "no recipe",
            "command": f"python -m benchmarks.small_data {shlex.join(sys.argv[1:])}",
            "environment": describe_environment(),
            "runs": [],
        }
        results["rows"].append(row)
        for seed in options.seeds:
            row["runs"].append(measure(words, seed, run_folder(options.folder, name, seed, words_of_all)))
            options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(show(results))


if __name__ == "__main__":
    main()
