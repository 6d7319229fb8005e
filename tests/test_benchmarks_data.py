"""The scripts that write training data: what must be copied is on both sides, and nothing held out gets in."""

import gzip
import json
import random
import re
import sys

import pytest

from benchmarks import g2p_data, small_data, zh_en_data, zh_en_probes


def test_what_is_put_into_a_pair_is_on_both_sides():
    rng = random.Random(1)
    for pair in (("汤姆来了。", "Tom came."), ("我认识Mary。", "I know Mary."), ("给我25个。", "Give me 25.")):
        new = zh_en_data.put_in(pair, [("首尔", "Seoul")], rng)
        assert new is not None and new != pair
    assert zh_en_data.put_in(("我在波士顿。", "I'm in Boston."), [("首尔", "Seoul")], rng) == (
        "我在首尔。",
        "I'm in Seoul.",
    )
    assert zh_en_data.put_in(("你好。", "Hello."), [], rng) is None
    assert zh_en_data.put_in(("汤姆来了。", "He came."), [], rng) is None  # the name is on one side only


def test_a_number_is_the_same_on_both_sides():
    new = zh_en_data.put_in(("给我25个。", "Give me 25."), [], random.Random(3))
    assert re.findall(r"\d+", new[0]) == re.findall(r"\d+", new[1])


def test_the_first_short_meaning_of_an_entry_is_taken(tmp_path):
    entries = (
        "# a comment\n"
        "北京 北京 [Bei3 jing1] /Beijing, capital of China/\n"
        "國 国 [guo2] /variant of 囯/country/nation/\n"
        "個 个 [ge4] /classifier for people or objects/\n"
    )
    with gzip.open(tmp_path / "dictionary.gz", "wt", encoding="utf-8") as file:
        file.write(entries)
    found = [*zh_en_data.read_dictionary(tmp_path / "dictionary.gz")]
    assert [(entry[1], entry[3]) for entry in found] == [("北京", "Beijing, capital of China"), ("国", "country")]
    assert zh_en_data.find_places(found) == [("北京", "Beijing")]


@pytest.mark.parametrize("text", ["他来了。", "He came."])
def test_variants_say_the_same(text):
    found = {zh_en_data.vary(text, lambda text: text.replace("来", "來"), random.Random(seed)) for seed in range(20)}
    expected = {"他来了。": {"他來了。", "他来了", "他來了"}, "He came.": {"he came.", "He came", "he came"}}
    assert found == expected[text]


def test_probes_change_the_source_alone_and_name_what_is_copied():
    probes = zh_en_probes.make_probes([("汤姆来了。", "Tom came.")], lambda text: text.replace("来", "來"))
    assert probes["traditional characters"][0][:2] == ("汤姆來了。", "Tom came.")
    assert probes["no final mark"][0][:2] == ("汤姆来了", "Tom came.")
    for kind in ("Latin names", "numbers", "addresses"):
        assert all(
            probe.copied and probe.copied in probe.source and probe.copied in probe.reference for probe in probes[kind]
        )
    trained = {template for pair in zh_en_data.TEMPLATES for template in pair}
    assert not trained & {template for pair in zh_en_probes.NUMBERS + zh_en_probes.ADDRESSES for template in pair}


def test_words_of_pronunciations_are_split_and_unknown_words_chosen(tmp_path, monkeypatch, capsys):
    texts = {"train": "READ  R EH D\nREAD  R IY D\n", "dev": "READ  R IY D\nSEA  S IY\n", "test": "TEA  T IY\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="latin-1")
    (tmp_path / "words.txt").write_text("tea\nseas\nx9\nseas\nhmm\n", encoding="utf-8")
    files = [str(tmp_path / name) for name in texts]
    monkeypatch.setattr(
        sys, "argv", ["g2p", *files, "--words", str(tmp_path / "words.txt"), "--output_dir", str(tmp_path / "out")]
    )
    g2p_data.main()
    rows = {name: [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").open()] for name in texts}
    assert [row["target"] for row in rows["train"]] == ["R EH D", "R IY D"]
    assert [row["source"] for row in rows["dev"]] == ["sea"]
    assert (tmp_path / "out" / "unlabelled.txt").read_text(encoding="utf-8") == "seas\n"


def forms(language, lemma, seed=5):
    """The forms of a lemma by their tags; seed 5 makes a regular one."""
    return {tags: form for _, form, tags in small_data.LANGUAGES[language][1](lemma, random.Random(seed))}


def test_suffixes_agree_with_the_vowels_of_the_word_and_soften_its_end():
    book, rose = forms("suffixes", "kitap"), forms("suffixes", "gül")
    assert [book[f"N;{tags}"] for tags in ("NOM;SG", "ACC;SG", "LOC;PL", "DAT;SG;PSS3S")] == [
        *("kitap", "kitabı", "kitaplarda", "kitabına"),
    ]
    assert [rose[f"N;{tags}"] for tags in ("ACC;SG", "ABL;PL", "NOM;SG;PSS1S")] == ["gülü", "güllerden", "gülüm"]
    assert forms("suffixes", "araba")["N;ACC;SG"] == "arabayı"


def test_prefixes_melt_into_the_stem_and_its_first_syllable_is_doubled():
    sing = forms("prefixes", "imba")
    assert [sing[f"V;{tags}"] for tags in ("PRS;1;SG", "PST;3;PL;HAB", "FUT;1;SG;NEG")] == [
        *("ninemba", "waliimba", "sitembi"),
    ]
    assert forms("prefixes", "pika")["V;PRS;1;SG;HAB"] == "ninapipika"


@pytest.mark.parametrize("language", small_data.LANGUAGES)
def test_lemmas_of_the_test_are_not_in_training_and_some_forms_are_irregular(language):
    train, test = small_data.inflect(language, 300, test_rows=20)
    assert (len(train), len(test)) == (300, 20) and len(set(train)) == 300
    assert not {lemma for lemma, _, _ in train} & {lemma for lemma, _, _ in test}
    assert small_data.inflect(language, 300, test_rows=20) == (train, test)
    lemmas = dict.fromkeys(lemma for lemma, _, _ in train)
    regular = {lemma: set(forms(language, lemma).values()) for lemma in lemmas}
    odd = {lemma for lemma, form, _ in train if form not in regular[lemma]}
    assert 0 < len(odd) < len(lemmas) / 4


@pytest.mark.slow
def test_small_data_are_trained_without_a_recipe(tmp_path, monkeypatch, capsys):
    (tmp_path / "known").write_text("".join(f"W{a}{b}  {a} {b}\n" for a in "BCD" for b in "AEIO"))
    (tmp_path / "other").write_text("WDU  D UW\nWCA  K A\n")
    output = tmp_path / "results.json"
    argv = ["small_data", str(tmp_path / "known"), str(tmp_path / "other"), "--sets", "g2p-10", "--seeds", "1", "2"]
    argv += ["--options=--training.max_steps 2", f"--folder={tmp_path / 'runs'}", f"--output={output}"]
    monkeypatch.setattr(sys, "argv", argv)
    small_data.main()
    row = json.loads(output.read_text())["rows"][0]
    assert [run["seed"] for run in row["runs"]] == [1, 2] and row["runs"][0]["scores"]["g2p_wer"] > 0
    assert "| g2p-10 | --training.max_steps 2 | 2 |" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["g2p", "words-10", "g2p-x", "suffixes-0"])
def test_sets_that_do_not_exist_are_refused(name, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["small_data", "a", "b", "--sets", name, "--output", str(tmp_path / "x.json")])
    with pytest.raises(SystemExit, match="2"):
        small_data.main()
    assert f"--sets {name} is no kind and number of rows" in capsys.readouterr().err


def test_runs_with_other_options_have_other_folders(tmp_path):
    options = ([], ["--model.d_model", "64"], ["--model.d_model", "96"])
    folders = [small_data.run_folder(tmp_path, "g2p-10", 1, words) for words in options]
    assert len(set(folders)) == 3 and folders[0] == tmp_path / "g2p-10-1"
