"""What the texts of a corpus decide: sub-words and BLEU for sentences, letters and error rates for words."""

import json
import lzma
import random
import re
from pathlib import Path

import pytest
import torch

from fun_transformer.training.data.unseen import describe_unseen
from fun_transformer.training.recipe.arguments import RunArguments
from fun_transformer.training.recipe.checks import check
from fun_transformer.training.recipe.defaults import describe_choices, resolve
from fun_transformer.training.recipe.reading import changed_arguments, keep_choices, parse_arguments
from fun_transformer.training.recipe.texts import choose_tokenizer, kind_of, resolve_texts
from fun_transformer.training.recipe.words import resolve_words

SHARED = Path(__file__).parents[2] / "shared" / "data"
DATA = ["--data.train.source", "a.zh", "--data.train.target", "a.en"]
PHONEMES = [*"BDFGKLMNPRSTVWYZ", *re.findall("..", "AAAEAHCHEHERHHIHIYJHNGOWSHUW")]
FORMS = ["spielen", "laufen", "gehen", "kaufen", "machen", "sagen", "lernen", "wohnen"]


def words(rng, least=2, most=9, letters="abcdefghijklmnopqrstuvwxyz"):
    return "".join(rng.choices(letters, k=rng.randint(least, most)))


def corpus(name):
    """A few hundred pairs like those of a kind of corpus."""
    rng = random.Random(0)

    def each(make):
        return [make() for _ in range(300)]

    sentences = each(lambda: " ".join(words(rng) for _ in range(rng.randint(3, 12))) + ".")
    chinese = "今天下雨我们去学校看书他不知道什么时候会来"
    hanzi = each(lambda: "".join(rng.choices(chinese, k=rng.randint(4, 20))) + "。")
    single = each(lambda: words(rng))
    phonemes = each(lambda: " ".join(rng.choices(PHONEMES, k=rng.randint(2, 9))))
    latin_names = each(lambda: words(rng).capitalize())
    tagged = each(lambda: f"{rng.choice(FORMS)} V;{rng.choice('123')};{rng.choice(['SG', 'PL'])};PST")
    moves = each(lambda: " ".join(rng.choices(["jump", "walk", "look", "twice", "left", "and"], k=4)))
    acts = each(lambda: " ".join(rng.choices(["I_JUMP", "I_WALK", "I_TURN_LEFT"], k=5)))
    return {
        "g2p": (single, phonemes),
        "upper-case g2p": ([word.upper() for word in single], phonemes),
        "p2g": (phonemes, single),
        "spelled": ([" ".join(word) for word in single], phonemes),
        "inflection": (each(lambda: rng.choice(FORMS)), single),
        "inflection with tags": (tagged, single),
        "transliteration": (latin_names, ["".join(rng.choices(chinese, k=3)) for _ in single]),
        "de-en": (sentences, sentences),
        "zh-en": (hanzi, sentences),
        "en-zh": (sentences, hanzi),
        "zh-ja": (hanzi, hanzi),
        "scan": (moves, acts),
        "captions": (each(lambda: f"a {words(rng)} is on a {words(rng)} ."), hanzi),
        "glosses": (single, sentences),
    }[name]


BY_LETTERS = {
    "g2p": ("char", "word", ["per", "g2p_wer"]),
    "upper-case g2p": ("char", "word", ["per", "g2p_wer"]),
    "p2g": ("word", "char", ["exact", "chrf"]),
    "spelled": ("word", "word", ["per", "g2p_wer"]),
    "inflection": ("char", None, ["exact", "chrf"]),
    "inflection with tags": ("char", None, ["exact", "chrf"]),
    "transliteration": ("char", "char", ["exact", "chrf"]),
}


@pytest.mark.parametrize("name", BY_LETTERS)
def test_words_and_symbols_are_read_by_letters_and_symbols(name):
    type, target_type, metrics = BY_LETTERS[name]
    run = resolve_texts(parse_arguments(DATA), *corpus(name))
    assert (run.tokenizer.type, run.tokenizer.target_type or run.tokenizer.type) == (type, target_type or type)
    assert run.generation.metrics == metrics
    is_shared = name in ("inflection", "inflection with tags")  # whose forms copy the lemma
    assert (run.tokenizer.target_vocab_size is None) == is_shared


@pytest.mark.parametrize("name", ["de-en", "zh-en", "en-zh", "zh-ja", "scan", "captions", "glosses"])
def test_sentences_keep_their_sub_words_and_bleu(name):
    run = resolve_texts(parse_arguments(DATA), *corpus(name))
    assert (run.tokenizer.type, run.tokenizer.target_type, run.tokenizer.vocab_size) == ("bpe", None, "auto")
    assert run.generation.metrics == ["bleu", "chrf"]


def read_lines(*parts):
    with lzma.open(SHARED.joinpath(*parts), "rt", encoding="utf-8") as file:
        return file.read().splitlines()[:2000]


def read_shared(name):
    """Pairs of a real corpus, as texts."""
    if name == "scan":
        lines = read_lines("scan", "tasks_train_simple.txt.xz")
        return zip(*(line.removeprefix("IN: ").split(" OUT: ") for line in lines))
    if name == "cmudict":
        return zip(*(line.split("  ", 1) for line in read_lines("cmudict_g2p", "cmudict-0.7b.test.xz")))
    rows = [row.get("translation", row) for row in map(json.loads, read_lines(name, "validation.jsonl.xz"))]
    sides = ("zh", "en") if name.startswith("zh") else ("de", "en")
    return zip(*([row[side] for side in sides] for row in rows))


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
@pytest.mark.parametrize(
    "name, kinds",
    [
        ("zh_en_tatoeba", ("sentence", "sentence")),
        ("zh_en_mix", ("sentence", "sentence")),
        ("de_en_mix", ("sentence", "sentence")),
        ("scan", ("sentence", "sentence")),
        ("cmudict", ("word", "symbols")),
    ],
)
def test_real_corpora_are_recognised(name, kinds):
    sources, targets = map(list, read_shared(name))
    assert (kind_of(sources), kind_of(targets)) == kinds


@pytest.mark.parametrize(
    "options",
    [
        ["--tokenizer.type", "unigram"],
        ["--tokenizer.vocab_size", "300"],
        ["--tokenizer.target_vocab_size", "300"],
        ["--tokenizer.target_type", "bpe"],
        ["--training.bpe_dropout", "0.1"],
    ],
)
def test_what_a_recipe_says_of_the_vocabulary_is_not_overruled(options):
    run = resolve_texts(parse_arguments([*DATA, *options]), *corpus("g2p"))
    assert run.tokenizer.type in ("bpe", "unigram") and run.tokenizer.target_type in (None, "bpe")


def test_what_chooses_the_best_model_is_measured():
    run = parse_arguments([*DATA, "--training.metric_for_best_model", "exact"])
    assert resolve_texts(run, *corpus("g2p")).generation.metrics == ["per", "g2p_wer", "exact"]
    named = parse_arguments([*DATA, "--generation.metrics", "chrf"])
    assert resolve_texts(named, *corpus("g2p")).generation.metrics == ["chrf"]


def test_a_few_odd_rows_change_nothing():
    sources, targets = corpus("g2p")
    odd = [*sources, "two words"], [*targets, "K"]
    assert choose_tokenizer(*odd) == choose_tokenizer(sources, targets)
    assert choose_tokenizer([], [])["type"] == "bpe"


def test_a_resumed_run_keeps_what_its_texts_had_decided(tmp_path):
    (tmp_path / "recipe.yaml").write_text("tokenizer: {type: bpe}\ngeneration: {metrics: [bleu]}\n", encoding="utf-8")
    run = keep_choices(parse_arguments(DATA), tmp_path)
    assert (run.tokenizer.type, run.generation.metrics) == ("bpe", ["bleu"])
    named = parse_arguments([*DATA, "--tokenizer.type", "char"])
    assert keep_choices(named, tmp_path).tokenizer.type == "char"
    assert keep_choices(RunArguments(), tmp_path / "none") == RunArguments()


# ── sizes and course ─────────────────────────────────────────────────────────────────────────────────────────────────


def chosen(name, rows, *options):
    """The recipe of a run over rows of a kind of corpus, with all that it leaves open chosen."""
    given, (sources, targets) = parse_arguments([*DATA, *options]), corpus(name)
    begun = resolve_words(given, resolve_texts(given, sources, targets), targets, rows)
    return given, resolve(begun, rows, torch.device("cpu"))


@pytest.mark.parametrize("name", ["g2p", "p2g", "inflection with tags"])
def test_words_get_a_course_of_their_own_and_the_last_model(name):
    runs = [chosen(name, rows)[1] for rows in (800, 3_600, 10_000)]
    for run in runs:
        training = run.training
        assert (training.schedule, training.average, training.patience) == ("linear", "last", None)
        assert run.tokenizer.min_frequency == 1 and run.generation.max_new_tokens < 64
    assert [run.training.num_train_epochs for run in runs] == [100, 35, 30]
    given, run = chosen(name, 800)
    said = describe_choices(given, run, 800)
    for part in ("training.average last", "tokenizer.min_frequency 1", "generation.max_new_tokens", "model.d_model"):
        assert part in said


@pytest.mark.parametrize("name, rows, options", [
    ("de-en", 800, []),
    ("g2p", 100_000, []),
    ("g2p", 800, ["--tokenizer.type", "char"]),
    ("g2p", 800, ["--tokenizer.vocab_size", "300"]),
])  # fmt: skip
def test_the_table_of_words_is_for_recognised_words_alone(name, rows, options):
    given, run = chosen(name, rows, *options)
    usual = resolve(resolve_texts(given, *corpus(name)), rows, torch.device("cpu"))
    assert run == usual
    assert (run.training.average, run.tokenizer.min_frequency) == ("best", 2)
    assert "average" not in describe_choices(given, run, rows)


def test_what_a_recipe_says_of_the_course_is_not_overruled():
    words = {"training.learning_rate": 3e-4, "training.batch_tokens": 777, "training.max_minutes": 2.0}
    options = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    run = chosen("g2p", 800, *options, "--model.d_model", "24", "--tokenizer.min_frequency", "3")[1]
    training = run.training
    assert (training.learning_rate, training.batch_tokens, training.max_minutes) == (3e-4, 777, 2.0)
    assert (training.num_train_epochs, training.schedule, run.tokenizer.min_frequency) == (None, "linear", 3)
    assert run.model["d_model"] == 24 and "encoder_layers" not in run.model
    assert "position_embedding_type" not in run.model


@pytest.mark.parametrize(
    "rows, options, expected",
    [
        (800, [], "rotary"),
        (10_000, [], "sinusoidal"),
        (800, ["--model.position_embedding_type", "sinusoidal"], "sinusoidal"),
        (800, ["--model.dropout", "0.1"], "rotary"),
        (800, ["--model.d_model", "64"], None),
        (800, ["--model.model_type", "seq2seq_rnn"], None),
        (800, ["--model.decoder_layer_types", "[linear_attention]"], None),
    ],
)
def test_positions_follow_the_rows_where_sizes_are_left_open(rows, options, expected):
    run = chosen("g2p", rows, *options)[1]
    assert run.model.get("position_embedding_type") == expected
    check(run)  # the fields are those of the kind of model


@pytest.mark.parametrize(
    "options",
    [
        ["--training.metric_for_best_model", "per"],
        ["--training.patience", "3"],
        ["--training.schedule", "inverse_sqrt"],
    ],
)
def test_the_best_model_is_final_where_the_recipe_looks_for_it(options):
    assert chosen("g2p", 800, *options)[1].training.average == "best"
    assert chosen("g2p", 800, *options, "--training.average", "last")[1].training.average == "last"


def test_what_is_generated_may_be_twice_the_longest_target():
    given = parse_arguments(DATA)
    sources, targets = ["ab", "ba"] * 50, ["A " * 40, "B A"] * 50
    run = resolve_words(given, resolve_texts(given, sources, targets), targets, 100)
    assert run.generation.max_new_tokens == 80


@pytest.mark.parametrize("options", [[], ["--training.max_steps", "77"]])
def test_a_run_that_an_older_version_began_goes_on_with_its_table(options, tmp_path):
    given, (sources, targets) = parse_arguments(DATA), corpus("g2p")
    old = resolve(resolve_texts(given, sources, targets), 800, torch.device("cpu"))  # as before there was a table
    (tmp_path / "recipe.yaml").write_text(old.to_yaml(), encoding="utf-8")
    given = parse_arguments([*DATA, *options])
    begun = resolve_words(given, resolve_texts(keep_choices(given, tmp_path), sources, targets), targets, 800)
    run = resolve(begun, 800, torch.device("cpu"))
    changed = changed_arguments(tmp_path / "recipe.yaml", run)
    limits = {f"training.{name}" for name in ("max_steps", "num_train_epochs", "patience")}
    assert set(changed) == (limits if options else set())


def test_characters_that_training_never_saw_are_counted_and_said():
    from datasets import Dataset, DatasetDict

    def rows(*pairs):
        return Dataset.from_dict({"source": [pair[0] for pair in pairs], "target": [pair[1] for pair in pairs]})

    splits = DatasetDict(train=rows(("abc", "xyé")), test=rows(("abß", "xe\u0301"), ("ßß", "y"), ("a", "x")))
    assert describe_unseen(splits, "nfc") == (
        "2 of 3 test sources have characters that no source of train has: 'ß' (3)."
    )
    assert "'e' (1), '\u0301' (1)" in describe_unseen(splits, "none")  # there, é is one character and not two
    assert describe_unseen(splits, "nfd").count("\n") == 0
    assert describe_unseen(DatasetDict(train=splits["train"], test=splits["train"]), "nfc") == ""
