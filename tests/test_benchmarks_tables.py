"""The tables of docs/results.md: public files become runs of shipped recipes, and finished seeds are kept."""

import gzip
import json
import lzma
import zipfile

import pytest

from benchmarks import tables, tables_data
from benchmarks.tables import ROOT
from fun_transformer.training.data.splits import load_splits
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.tables import OBJECTIVES

TEXTS = {
    "cmudict-0.7b.train-dev-20-21.xz": "GO  G OW\nGO  G AA\nNO  N OW\n",
    "cmudict-0.7b.train-dev-1-21.xz": "GO  G OW\nYES  Y EH S\n",  # "go" is in train
    "cmudict-0.7b.test.xz": "SO  S OW\nSO  S AO\n",
    "sst2": "good film\t1\nbad film\t0\n" * 8,
    "chnsenticorp": "label\ttext_a\n" + "".join(f"{row % 2}\t很好{row}\n" for row in range(12)),
    "tatoeba-zh-en": '{"translation": {"zh": "好", "en": "Good"}}\n',
    **{
        name: "".join(
            f"IN: {word} OUT: {' '.join(['I_RUN'] * 3 * at)}\n" for at, word in enumerate("abcdefghijklm", 1)
        )
        for name in ("scan-simple", "scan-length", "scan-length-26")
    },
}


def write_files(folder, name):
    """The files of a table, in the form in which they are distributed, with a few rows."""
    folder.mkdir(exist_ok=True)
    for file in tables_data.TABLES[name].files:
        if file.endswith(".zip"):
            with zipfile.ZipFile(folder / file, "w") as archive:
                sentence = "He PRP B-NP\nreckons VBZ B-VP\n. . O"
                archive.writestr("conll2000/train.txt", "\n\n".join([sentence] * 8003) + "\n\n")
                archive.writestr("conll2000/test.txt", "Stop VB B-VP\n\n")
        elif file.endswith(".xz"):
            text = TEXTS.get(file, TEXTS.get(name)).replace("IN:", "IN: please" if "test" in file else "IN:")
            (folder / file).write_bytes(lzma.compress(text.encode()))
        else:
            (folder / file).write_bytes(gzip.compress(b"Ein Hund .\nEine Katze .\n"))


@pytest.mark.parametrize("name", tables_data.TABLES)
def test_every_table_has_a_recipe_that_reads_its_files_and_measures_its_metrics(name, tmp_path):
    table = tables_data.TABLES[name]
    write_files(tmp_path / "data", name)
    words = table.prepare(tmp_path / "data", tmp_path)
    arguments = parse_arguments([str(ROOT / "hub_configs" / table.recipe), *words])
    assert set(table.metrics) <= set(OBJECTIVES[arguments.objective].measured(arguments.generation))
    splits, _ = load_splits(arguments.data, seed=1)
    assert set(splits) == {"train", "validation", "test"}
    first = splits["test"][0]
    assert first["source"] and first["target"] and "\n" not in first["source"]


def test_cmudict_is_split_as_the_published_tables_have_it(tmp_path):
    write_files(tmp_path, "cmudict")
    tables_data.cmudict(tmp_path, tmp_path)
    rows = {
        name: [json.loads(line) for line in (tmp_path / f"{name}.jsonl").open()] for name in ("train", "dev", "test")
    }
    assert [row["target"] for row in rows["train"]] == ["G OW", "G AA", "N OW"]
    assert [row["source"] for row in rows["dev"]] == ["yes"]
    assert rows["test"] == [{"source": "so", "target": "S OW", "references": ["S OW", "S AO"]}]


def test_scan_is_cut_at_a_number_of_actions(tmp_path):
    for part, counts in {"train": (1, 22, 27), "test": (26, 48)}.items():
        lines = "".join(f"IN: run {count} OUT: {' '.join(['I_RUN'] * count)}\n" for count in counts)
        (tmp_path / f"tasks_{part}_length.txt.xz").write_bytes(lzma.compress(lines.encode()))
    lengths = {}
    for name in ("scan-length", "scan-length-26"):
        tables_data.TABLES[name].prepare(tmp_path, tmp_path)
        for part in ("train", "test"):
            rows = [json.loads(line) for line in (tmp_path / f"{part}.jsonl").open()]
            lengths[name, part] = sorted(len(row["target"].split()) for row in rows)
    assert [*lengths.values()] == [[1, 22, 27], [26, 48], [1, 22, 26], [27, 48]]


def test_texts_for_pretraining_are_those_of_the_training_set(tmp_path):
    for name, texts in {
        "sst2": ["good film", "bad film"],
        "chnsenticorp": [f"很好{row}" for row in range(12)],
    }.items():
        write_files(tmp_path, name)
        assert list(dict.fromkeys(tables_data.TABLES[name].texts(tmp_path))) == texts
    write_files(tmp_path, "conll2000")
    assert set(tables_data.TABLES["conll2000"].texts(tmp_path)) == {"He reckons ."}


def test_finished_seeds_are_kept_and_summed_up(tmp_path, capsys):
    write_files(tmp_path, "sst2")
    runs = [{"seed": seed, "start": "from scratch", "test": {"accuracy": 70.0 + seed}} for seed in (1, 2, 3)]
    runs = [run | {"cpu_seconds": 60.0, "wall_seconds": 90.0} for run in runs]
    output = tmp_path / "results.json"
    output.write_text(json.dumps({"name": "sst2", "recipe": "", "commands": [], "runs": runs}))
    words = [f"--data={tmp_path}", f"--folder={tmp_path / 'runs'}", f"--output={output}"]
    tables.main(["sst2", *words])
    assert capsys.readouterr().out.splitlines()[-1] == "| accuracy | 72.00 | 71.00 - 73.00 | 3 | 1.0 | 1.5 |"
    with pytest.raises(
        ValueError, match=r"has seed 1 with the settings none, got --training.max_steps 8. Name another"
    ):
        tables.main(["sst2", *words, "--", "--training.max_steps", "8"])
    with pytest.raises(ValueError, match="is of the table sst2"):
        write_files(tmp_path, "conll2000")
        tables.main(["conll2000", *words])


@pytest.mark.parametrize(
    "words, message",
    [
        (["conll2000", "--data=nowhere"], "has no conll2000.zip"),
        (["scan-simple", "--pretrain"], "has no pretraining. Those with one: sst2, chnsenticorp, conll2000"),
        (["sst2", "--text", "more.txt"], "--text is for --pretrain"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, message, tmp_path, capsys):
    for name in ("sst2", "scan-simple"):
        write_files(tmp_path, name)
    data = [] if "--data=nowhere" in words else [f"--data={tmp_path}"]
    with pytest.raises(SystemExit):
        tables.main([*words[:1], *data, f"--output={tmp_path / 'out.json'}", *words[1:]])
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_table_pretrains_trains_and_is_scored_on_the_test_set(tmp_path, capsys):
    write_files(tmp_path, "sst2")
    output, few = tmp_path / "results.json", ["--training.max_steps=2", "--training.eval_steps=1"]
    (tmp_path / "more.txt").write_text("a good film\n\na bad book\n")
    words = [
        "--seeds",
        "7",
        f"--data={tmp_path}",
        f"--folder={tmp_path / 'runs'}",
        f"--output={output}",
        "--threads=1",
    ]
    tables.main(["sst2", *words, "--pretrain", "--pretrain_steps=2", "--text", str(tmp_path / "more.txt"), "--", *few])
    results = json.loads(output.read_text())
    (run,) = results["runs"]
    assert run["seed"] == 7 and run["start"] == "pretrained" and run["step"] == 2
    assert 0 <= run["test"]["accuracy"] <= 100 and len(run["validation"]["accuracy"]) == 2
    assert run["cpu_seconds"] > 0 and results["pretraining"]["validation"]["loss"]
    assert "| accuracy |" in capsys.readouterr().out
