"""What `train` recognises in a table, `evaluate`, `predict` and `distill` recognise in it, too."""

import json
import random

import pytest
import torch

from fun_transformer import cli
from fun_transformer.commands import streams
from fun_transformer.evaluation import Columns, load_data
from fun_transformer.evaluation.systems import metrics_of
from fun_transformer.text_parts import check_tagged, unknown_tags
from fun_transformer.training import train
from fun_transformer.training.data.tables import features_of
from fun_transformer.training.recipe.reading import parse_arguments

ENDINGS = {"V;PST": "ed", "V;PRS": "s", "N;PL": "en"}
SMALL = ["d_model=16", "encoder_layers=1", "decoder_layers=1", "encoder_ffn_dim=16", "decoder_ffn_dim=16"]
SMALL += ["encoder_attention_heads=2", "decoder_attention_heads=2"]


def forms(count, seed):
    """Rows of lemma, form and tags."""
    rng = random.Random(seed)
    lemmas = ["".join(rng.choices("abcdeg", k=4)) for _ in range(count)]
    return [(lemma, lemma + ENDINGS[tags], tags) for lemma in lemmas for tags in [rng.choice([*ENDINGS])]]


def write(path, rows, header=()):
    path.write_text("".join("\t".join(row) + "\n" for row in [*([header] if header else []), *rows]), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a few steps on three columns without a header: its folder, and its own scores of the test rows."""
    folder = tmp_path_factory.mktemp("run")
    words = [f"--model.{pair.replace('=', ' ')}".split() for pair in SMALL]
    words += [["--data.train.dataset", write(folder / "train.tsv", forms(200, 1))]]
    words += [["--data.test.dataset", write(folder / "test.tsv", forms(30, 2))]]
    words += [["--output_dir", str(folder / "run")], ["--training.max_steps", "30", "--training.threads", "1"]]
    words += [["--training.learning_rate", "0.01", "--training.warmup_steps", "5", "--training.precision", "fp32"]]
    threads = torch.get_num_threads()
    result = train(parse_arguments([word for pair in words for word in pair]))
    torch.set_num_threads(threads)
    return folder / "run", result.scores["test"]


def test_evaluate_gives_the_scores_that_the_run_gave_itself(run, tmp_path, capsys):
    folder, own = run
    output = tmp_path / "figures.json"
    assert cli.main(["evaluate", str(folder / "model"), str(folder.parent / "test.tsv"), "--output", str(output)]) == 0
    found = json.loads(output.read_text(encoding="utf-8"))["scores"]["model"]
    assert found == {name: pytest.approx(own[name]) for name in ("exact", "chrf")} and found["chrf"] > 0
    assert "column 2 has grammatical tags" in capsys.readouterr().err


def test_predict_puts_the_tags_of_a_table_before_its_texts(run, tmp_path, capsys):
    folder, _ = run
    rows = forms(3, 5)
    named = write(tmp_path / "named.tsv", rows, ("lemma", "form", "tags"))
    other = write(tmp_path / "other.tsv", rows, ("lemma", "form", "features"))
    unnamed = write(tmp_path / "unnamed.tsv", rows)
    tables = [[unnamed], [named, "--source-column", "lemma"]]
    answers = []
    for words in tables:
        assert cli.main(["predict", str(folder), "--file", *words]) == 0
        answers.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert answers[0] == answers[1]
    tags = "> <tags:".join(rows[0][2].split(";"))
    assert answers[0][0]["source"] == f"<tags:{tags}> {rows[0][0]}"
    assert cli.main(["predict", str(folder), "--file", other, "--source-column", "lemma"]) == 2
    assert "trained with tags before each source (tags), and no source here has one" in capsys.readouterr().err
    assert (
        cli.main(["predict", str(folder), "--file", other, "--source-column", "lemma", "--feature-columns", "no"]) == 2
    )
    assert "feature no is empty" in capsys.readouterr().err
    assert cli.main(["predict", str(folder), "abc"]) == 2
    assert cli.main(["predict", str(folder), "<tags:V> <tags:FUT> abc"]) == 0
    assert "1 tags that training never saw: <tags:FUT>" in capsys.readouterr().err


def test_evaluate_refuses_sources_without_the_tags_of_training(run, tmp_path, capsys):
    folder, _ = run
    pairs = write(tmp_path / "pairs.tsv", [row[:2] for row in forms(3, 6)], ("source", "target"))
    assert cli.main(["evaluate", str(folder), pairs]) == 2
    assert "--feature-columns tags" in capsys.readouterr().err


def test_distill_reads_the_same_tables(run, tmp_path):
    folder, _ = run
    table, output = write(tmp_path / "rows.tsv", forms(3, 7)), tmp_path / "rows.jsonl"
    assert cli.main(["distill", str(folder), "--sources", table, "--output", str(output), "--no-guard"]) == 0
    assert json.loads(output.read_text(encoding="utf-8").splitlines()[0])["source"].startswith("<tags:")


def test_the_folder_says_what_its_run_was_scored_with(run, tmp_path):
    folder, _ = run
    data = load_data(str(folder.parent / "test.tsv"), Columns())
    assert metrics_of(str(folder), data) == metrics_of(str(folder / "model"), data) == ["exact", "chrf"]
    assert metrics_of(str(tmp_path), data) == ["bleu", "chrf"]
    (tmp_path / "recipe.yaml").write_text("generation: {metrics: auto}\n", encoding="utf-8")
    assert metrics_of(str(tmp_path), data) == ["exact", "chrf"]
    assert features_of(str(folder)) == features_of(str(folder / "model")) == ["tags"]
    assert features_of(str(tmp_path)) == features_of("no/such/model") == features_of("nosuch") == []


@pytest.mark.parametrize("columns", [Columns(), Columns("0", "1"), Columns("1", "0")])
def test_pairs_without_a_header_and_columns_by_number_are_read(tmp_path, columns):
    rows = [("dog", "D AO G"), ("fog", "F AO G"), ("log", "L AO G"), ("frog", "F R AO G")]
    data = load_data(write(tmp_path / "words.tsv", rows), columns)
    sides = (data.sources, [texts[0] for texts in data.references])
    assert sides == tuple(map(list, zip(*rows)))[:: -1 if columns.source == "1" else 1]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([("a", "A B", "x"), ("a", "B A", "y"), ("c", "A A", "z")], Columns(), "--source-column 0 and --target"),
        ([("a", "A B"), ("b", "B A")], Columns("0", "5"), "--target-column=5: .* has 2 columns, numbered 0 to 1"),
        ([("word", "pron"), ("b", "B A")], Columns(), "columns are word, pron.* by their numbers: --source-column 0"),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_options_of_the_command(tmp_path, rows, columns, message):
    with pytest.raises(ValueError, match=message):
        load_data(write(tmp_path / "rows.tsv", rows), columns)


class Tagged:
    """A tokenizer that was trained with one feature."""

    init_kwargs = {"feature_columns": ["pos"]}

    def get_added_vocab(self):
        return {"<pos:N>": 5, "<pos:V>": 6, "</s>": 2}


def test_tags_are_known_by_name():
    assert unknown_tags(Tagged(), "<pos:N> <pos:X> <b> <url:x> dog") == ["<pos:X>"]
    check_tagged(Tagged(), ["dog", "", "<pos:N> cat"])
    with pytest.raises(ValueError, match='such as "<pos:N> dog"'):
        check_tagged(Tagged(), ["dog", "cat"])


@pytest.mark.parametrize(
    ("name", "has_columns"),
    [("a.tsv", True), ("a.tsv.gz", True), ("b.tsv.txt", False), ("a", False), ("c.gz", False), ("x.JSONL", True)],
)
def test_a_table_is_known_by_its_ending(name, has_columns):
    assert streams.is_table(name) is has_columns
