"""Columns of files: tables without a header, several references, features before the source."""

import json

import datasets
import pytest
import yaml
from forked_runs import write_digits_recipe
from transformers import AutoTokenizer

from fun_transformer.text_parts import trained_features
from fun_transformer.training.data.features import add_tags, describe_tags
from fun_transformer.training.data.splits import load_splits
from fun_transformer.training.data.tokenizing import tokenize_splits
from fun_transformer.training.recipe.arguments import DataArguments, SplitArguments
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

PHONES = ["ab\tA B", "ba\tB A", "abba\tA B B A", "bab\tB A B", "aab\tA A B"]
WORDS = ["Hund\tdog", "Katze\tcat", "Maus\tmouse", "Haus\thouse"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(folder, lines, name="rows.tsv"):
    path = folder / name
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


def load(path, test=None, **options):
    """Load a file as all splits, or another one as test."""
    split = SplitArguments(dataset=path, **options)
    other = split if test is None else SplitArguments(dataset=test, **options)
    return load_splits(DataArguments(train=split, validation=other, test=other), seed=0)


def pairs(rows):
    return list(zip(rows["source"], rows["target"]))


# ── tables without a header ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "lines",
    [
        PHONES,
        ["Ein Mann schläft.\tA man sleeps.", "Das Haus ist alt.\tThe house is old."] * 2,
        ["今天下雨。\tIt rains", "他来了。\tHe came"],
        ["gehen\tgeht", "gehen\tging", "machen\tmacht"],
    ],
)
def test_a_first_row_that_is_data_is_kept(tmp_path, lines):
    splits, report = load(write(tmp_path, lines))
    assert pairs(splits["train"]) == [tuple(line.split("\t")) for line in lines]
    assert splits["train"]["place"][0] == "line 1"
    assert str(report).count("there is no header; source_column is 0, target_column 1.") == 1


def test_quoted_tables_are_recognised_too(tmp_path):
    lines = ['"Ein Mann, alt, schläft."\tx', '"Ein Mann, jung, schläft."\ty']
    splits, _ = load(write(tmp_path, [line.replace("\t", ",") for line in lines], "rows.csv"))
    assert splits["train"]["source"][0] == "Ein Mann, alt, schläft."


@pytest.mark.parametrize("header", ["source\ttarget", "target\tsource"])
def test_a_header_with_our_names_is_read_without_a_word(tmp_path, header):
    splits, report = load(write(tmp_path, [header, *PHONES]))
    assert len(splits["train"]) == len(PHONES) and not report.notes


TAGGED = ["gehen\tging\tV;PST;1;SG", "laufen\tliefe\tV;SBJV;PST;1;SG", "Haus\tHäuser\tN;NOM(PL)", "Weib\tWeib\tN"]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1)])
def test_of_three_columns_without_a_header_the_tags_become_features(tmp_path, order):
    rows = [line.split("\t") for line in TAGGED]
    path = write(tmp_path, ["\t".join(row[column] for column in order) for row in rows])
    splits, report = load(path)
    assert pairs(splits["test"]) == [(lemma, form) for lemma, form, _ in rows]
    assert splits["test"]["tags"][0] == ["<tags:V>", "<tags:PST>", "<tags:1>", "<tags:SG>"]
    assert splits["test"]["tags"][2] == ["<tags:N>", "<tags:NOM(PL)>"]
    place = order.index(2)
    assert str(report).count(f"column {place} has grammatical tags, which become features (feature_columns).") == 1


@pytest.mark.parametrize(
    "other", [["source\ttarget", "gehen\tging"], ["sehen\tsah\tpast", "sehen\tsieht\tnow", "gehen\tgeht\tnow"]]
)
def test_a_split_without_the_tags_that_train_has_is_refused(tmp_path, other):
    with pytest.raises(ValueError, match=r"tags there, none here|has no header"):
        load(write(tmp_path, TAGGED), test=write(tmp_path, other, "other.tsv"))


def test_of_several_corpora_each_may_have_the_features_of_any(tmp_path):
    tagged, plain = write(tmp_path, TAGGED), write(tmp_path, ["source\ttarget", *WORDS], "plain.tsv")
    train = SplitArguments(mix=[SplitArguments(dataset=tagged), SplitArguments(dataset=plain)])
    for test in (tagged, plain):
        other = SplitArguments(dataset=test)
        splits, _ = load_splits(DataArguments(train=train, validation=other, test=other), seed=0)
        tokenizer = train_tokenizer(list(splits["train"]["source"]), settings=TokenizerSettings(vocab_size=300))
        add_tags(tokenizer, splits["train"])
        assert "<tags:V>" in tokenizer.get_vocab() and trained_features(tokenizer) == []


@pytest.mark.parametrize(
    "lines, message",
    [
        (["a\tA B\tV;PST", "b\tB A\tv;pst", "a\tB\tlater"], "has no header"),  # not tags alone
        (["a\tA;B\tV;PST", "b\tB;A\tV;PRS", "a\tB;B\tV;PST"], "has no header"),  # two such columns
        (["lemma\tform\ttags", "a\tb\tV;PST", "b\tc\tV;PRS"], "no column source"),  # a header
    ],
)
def test_what_may_not_be_tags_is_not_taken_for_them(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path, lines))


def test_columns_by_number(tmp_path):
    lines = [f"{number}\t{line}" for number, line in enumerate(PHONES)]
    splits, report = load(write(tmp_path, lines), source_column=1, target_column=2)
    assert pairs(splits["train"]) == [tuple(line.split("\t")) for line in PHONES]
    assert "source_column is 1, target_column 2" in str(report)
    words = load(write(tmp_path, WORDS, "words.tsv"), source_column="1", target_column="0")[0]
    assert pairs(words["train"])[0] == ("dog", "Hund")


def test_columns_by_number_leave_a_usual_header_out_and_say_so(tmp_path):
    splits, report = load(write(tmp_path, ["word\tpronunciation", *PHONES]), source_column=0, target_column=1)
    assert len(splits["train"]) == len(PHONES)
    assert "the first row has the names of the columns (word | pronunciation)" in str(report)


def test_numbers_come_from_recipes_and_the_command_line(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {train: {dataset: x.tsv, source_column: 2, feature_columns: [1, 3]}}\n", encoding="utf-8")
    train = parse_arguments([str(recipe), "--data.train.target_column", "0"]).data.train
    assert (train.source_column, train.target_column, train.feature_columns) == ("2", "0", ["1", "3"])


@pytest.mark.parametrize(
    "lines, options, message",
    [
        (
            WORDS,
            {},
            "no column source. Its columns are Hund, dog. If that row is data, name the columns",
        ),
        (["Wort\tLaut", *PHONES], {}, "Its columns are Wort, Laut"),
        (["word\tpron", *PHONES], {}, "else by name: source_column: word, target_column: pron"),
        (["word", "a", "b"], {}, "Its columns are word. Pairs need two columns"),
        (
            ["Wer kommt mit?", "Keiner kommt mit.", "Wer kommt mit?"],
            {},
            "has no header.*It has one column, and pairs need two",
        ),
        (
            [line + "\tX" for line in PHONES],
            {},
            "no header: its first row is data .* Name its 3 columns by number",
        ),
        (PHONES, {"source_column": "word"}, "has no header: its first row is data"),
        (PHONES, {"source_column": 0, "target_column": 2}, "target_column=2: .* has 2 columns, numbered 0 to 1"),
        (["source\ttarget", *PHONES], {"target_column": "word"}, "no column word. Its columns are source, target"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path, lines, options, message):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path, lines), **options)


# ── references ───────────────────────────────────────────────────────────────────────────────────────────────────────


ROWS = [
    {"source": "read", "refs": ["R IY D", "R EH D"], "b": "R IY D", "c": None},
    {"source": "live", "refs": ["L AY V"], "b": "L AY V", "c": "L IH V"},
    {"source": "bow", "refs": ["B OW", "B AW", "B OW"], "b": "B OW", "c": " "},
]


def json_rows(folder, rows=ROWS, name="rows.jsonl"):
    return write(folder, [json.dumps(row) for row in rows], name)


@pytest.mark.parametrize(
    "columns, expected",
    [
        (["refs"], [["R IY D", "R EH D"], ["L AY V"], ["B OW", "B AW"]]),
        (["b", "c"], [["R IY D"], ["L AY V", "L IH V"], ["B OW"]]),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "saved"])
def test_training_has_a_row_for_each_reference_and_evaluation_takes_any(tmp_path, columns, expected, form):
    path = json_rows(tmp_path)
    if form == "saved":
        datasets.Dataset.from_list(ROWS).save_to_disk(path := str(tmp_path / "saved"))
    splits, _ = load(path, references_column=columns)
    words = [row["source"] for row in ROWS]
    assert pairs(splits["train"]) == [(word, target) for word, targets in zip(words, expected) for target in targets]
    assert "references" not in splits["train"].column_names
    assert list(splits["test"]["references"]) == expected
    assert splits["test"]["target"][:] == [accepted[0] for accepted in expected]


def test_a_target_column_counts_among_the_references(tmp_path):
    path = json_rows(tmp_path, [row | {"target": "X"} for row in ROWS])
    splits, _ = load(path, references_column=["refs"])
    assert [row[0] for row in splits["test"]["references"]] == ["X"] * 3 and len(splits["train"]) == 3 + 5


def test_corpora_with_and_without_references_are_mixed(tmp_path):
    more = json_rows(tmp_path, [{"source": "a", "target": "AH"}], "more.jsonl")
    mix = [
        SplitArguments(dataset=json_rows(tmp_path), references_column=["refs"]),
        SplitArguments(dataset=more),
    ]
    split = SplitArguments(mix=mix)
    splits, _ = load_splits(DataArguments(train=split, validation=split), seed=0)
    assert splits["validation"]["references"][:][-1] == ["AH"] and len(splits["train"]) == 6


@pytest.mark.parametrize(
    "row, message",
    [({"source": "x", "refs": []}, "target is empty"), ({"source": "x", "refs": [7]}, "a reference is not text")],
)
def test_odd_references_are_bad_rows(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        load(json_rows(tmp_path, [*ROWS, row]), references_column=["refs"])


def test_a_missing_column_of_references_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"references_column: .* has no column others"):
        load(json_rows(tmp_path), references_column=["others"])


# ── features ─────────────────────────────────────────────────────────────────────────────────────────────────────────


FORMS = ["lemma\tform\ttags\tdomain", "gehen\tging\tV;PST\told news", "sehen\tsah\tV;PST\ttalk", "tun\ttut\tV\ttalk"]
COLUMNS = {"source_column": "lemma", "target_column": "form", "feature_columns": ["domain", "tags"]}


def tokenized(folder, test=None, bad_rows="refuse"):
    from fun_transformer.training.data.features import add_tags

    split = SplitArguments(dataset=write(folder, FORMS), **COLUMNS)
    other = SplitArguments(dataset=write(folder, test or FORMS, "test.tsv"), **COLUMNS)
    data = DataArguments(train=split, validation=split, test=other, bad_rows=bad_rows)
    splits, _ = load_splits(data, seed=0)
    tokenizer = train_tokenizer(splits["train"]["source"][:] * 3, splits["train"]["target"][:] * 3)
    add_tags(tokenizer, splits["train"])
    return splits, tokenizer, *tokenize_splits(splits, tokenizer, data)


def test_features_become_tokens_before_the_source(tmp_path):
    splits, tokenizer, found, _ = tokenized(tmp_path)
    assert splits["train"]["source"][0] == "gehen"  # what is held out, cleaned and recognised is the text alone
    assert found["train"]["source"][0] == "<domain:old_news> <tags:V> <tags:PST> gehen"
    tokens = tokenizer.convert_ids_to_tokens(found["train"]["input_ids"][0])
    assert tokens[:3] == ["<domain:old_news>", "<tags:V>", "<tags:PST>"]
    assert tokens[3:] == [*tokenizer.tokenize("gehen"), "</s>"]
    assert found["train"]["labels"][0] == tokenizer(text_target="ging")["input_ids"]
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    again = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert again(found["train"]["source"][0])["input_ids"] == found["train"]["input_ids"][0]
    assert "`<domain:old_news> <tags:V> <tags:PST> TEXT`; the tags are domain (old_news, talk)" in describe_tags(
        splits["train"]
    )


def test_a_value_that_training_never_saw_is_a_bad_row(tmp_path):
    test = [FORMS[0], "gehen\tgeht\tV\ttalk", "gehen\tgehe\tV;PRS\ttalk"]
    with pytest.raises(ValueError, match=r"feature tags is PRS, which training never saw: 1 .line 3"):
        tokenized(tmp_path, test)
    assert len(tokenized(tmp_path, test, bad_rows="drop")[2]["test"]) == 1


@pytest.mark.parametrize("line, message", [("a\tb\t\ttalk", "tags is empty"), ("a\tb\tV\t<x>", "domain has < or >")])
def test_odd_features_are_bad_rows(tmp_path, line, message):
    with pytest.raises(ValueError, match=f"feature {message}"):
        load(write(tmp_path, [*FORMS, line]), **COLUMNS)


def test_too_many_values_are_refused(tmp_path):
    from fun_transformer.training.data.features import known_tags

    lines = [FORMS[0], *(f"a{n}\tb\tV\t{n}" for n in range(2100))]
    splits, _ = load(write(tmp_path, lines), **COLUMNS)
    with pytest.raises(ValueError, match="2,101 different values"):
        known_tags(splits["train"])


@pytest.mark.parametrize(
    "words, message",
    [
        (["--data.test.dataset", "b.tsv"], "data.test.feature_columns must name the same columns as data.train: pos"),
        (["--data.train.dataset", "builtin:cmudict"], "builtin:cmudict has no further columns"),
        (
            ["--training.freeze", "embeddings", "--model.path", "."],
            "training.freeze leaves the embeddings as they are",
        ),
    ],
)
def test_features_that_cannot_be_had_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments(["--data.train.dataset", "a.tsv", "--data.train.feature_columns", "pos", *words])


@pytest.mark.slow
def test_a_run_learns_what_a_feature_says(tmp_path, children):
    recipe = write_digits_recipe(tmp_path)
    content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    lines = ["word\tout\tcase"]
    for number in range(400):
        word = "".join("abcd"[number // 4**place % 4] for place in range(3))
        lines += [f"{word}\t{word}\tlow", f"{word}\t{word.upper()}\thigh"]
    columns = {"source_column": "word", "target_column": "out", "feature_columns": ["case"]}
    content["data"] = {"train": {"dataset": write(tmp_path, lines, "case.tsv"), **columns}, "clean": ["duplicates"]}
    content["training"] |= {"max_steps": 200, "eval_steps": 100, "save_steps": 100}
    recipe.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert children.run(recipe, tmp_path / "run") == [0], children.log(tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text("utf-8").splitlines()]
    assert {row["prediction"].isupper() for row in rows if "high" in row["source"]} == {True}
    assert {row["prediction"].islower() for row in rows if "low" in row["source"]} == {True}
    assert "`<case:low> TEXT`; the tags are case (high, low)" in (tmp_path / "run/model/README.md").read_text("utf-8")


def test_a_trained_model_of_another_family_gets_rows_for_tags(tmp_path):
    from tiny_models import save_tiny
    from transformers import AutoModelForSeq2SeqLM

    from fun_transformer.training.data.features import add_tags
    from fun_transformer.training.model.building import make_room

    base = save_tiny("marian", tmp_path / "base")
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    before = tokenizer("w1 w2")["input_ids"]
    make_room(model, tokenizer)
    size = model.config.vocab_size
    add_tags(tokenizer, datasets.Dataset.from_dict({"source": ["w1"], "tags": [["<case:ACC>", "<case:NOM>"]]}))
    make_room(model, tokenizer)
    ids = tokenizer("<case:ACC> w1 w2")["input_ids"]
    assert ids[1:] == before and ids[0] >= len(before) and model.config.vocab_size == max(size, len(tokenizer))
    assert model(**tokenizer("<case:ACC> w1", text_target="w2", return_tensors="pt")).loss.isfinite()
