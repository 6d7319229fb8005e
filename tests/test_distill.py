"""The command `distill`, ensembles on the command line, and the way from a teacher to a student."""

import gzip
import json
import re
from pathlib import Path

import pytest
import torch
from tiny_models import WORDS as FOREIGN_WORDS
from tiny_models import save_tiny
from transformers import AutoTokenizer

from fun_transformer import cli
from fun_transformer.commands import streams
from fun_transformer.training.model.teacher import load_part
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

WORDS = ["abc", "ba", "cab", "a", "bb"]


@pytest.fixture
def save(tiny_model, tmp_path):
    """A function that saves a model, which is not the one of another seed, with a tokenizer of the given letters."""

    def write(seed, letters="abc"):
        model, generator = tiny_model(), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        folder = tmp_path / f"model{seed}"
        settings = TokenizerSettings(type="char", vocab_size=model.config.vocab_size)
        tokenizer = train_tokenizer([letters], settings=settings)
        known = {tokenizer.convert_tokens_to_ids(letter) for letter in letters} | {tokenizer.eos_token_id}
        silent = [number for number in range(model.config.decoder_vocab_size) if number not in known]
        model.generation_config.update(
            max_new_tokens=5, suppress_tokens=silent, begin_suppress_tokens=[tokenizer.eos_token_id]
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return write


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def distil(tmp_path, *words):
    """The exit status, and the rows that there are then; the sources are the words, with blank and repeated lines."""
    (tmp_path / "words.txt").write_text("\n".join([*WORDS, "", WORDS[0]]), encoding="utf-8")
    output = tmp_path / "rows.jsonl"
    status = cli.main(
        ["distill", *words, "--sources", str(tmp_path / "words.txt"), "--output", str(output), "--no-guard"]
    )
    return status, rows_of(output) if output.exists() else []


def test_there_is_a_row_for_each_different_source_as_predict_answers_it(save, tmp_path, capsys):
    folder = save(0)
    status, rows = distil(tmp_path, folder)
    assert cli.main(["predict", folder, "--no-guard", *WORDS]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = [(one["source"], one["translation_text"].strip()) for one in answers]
    assert status == 0 and [(row["source"], row["target"]) for row in rows] == [pair for pair in expected if pair[1]]
    assert len(rows) >= 3 and {row["origin"] for row in rows} == {"distilled"}


def test_several_models_answer_together_in_all_commands(save, tmp_path, capsys):
    folders = [save(0), save(1)]
    _, together = distil(tmp_path, *folders)
    alone = [distil(tmp_path, folder, "--overwrite")[1] for folder in folders]
    assert together not in alone
    texts = [row["source"] for row in together]
    capsys.readouterr()
    options = ["--no-guard", "--ensemble", folders[1]]
    assert cli.main(["translate", "--model", folders[0], *options, *texts]) == 0
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [row["target"] for row in together]
    assert cli.main(["predict", folders[0], *options, *texts, "--scores"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["score"] < 0
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in together), encoding="utf-8")
    figures = tmp_path / "figures.json"
    words = [folders[0], str(table), "--ensemble", folders[1], "--against", folders[0], "--metrics", "exact"]
    assert cli.main(["evaluate", *words, "--output", str(figures)]) == 0
    scores = json.loads(figures.read_text(encoding="utf-8"))["scores"]
    assert scores["model0 + model1"]["exact"] == 100 > scores["model0"]["exact"]


def test_several_answers_and_those_below_a_score(save, tmp_path, capsys):
    folder = save(0)
    _, rows = distil(tmp_path, folder, "--nbest", "3", "--num-beams", "3", "--min-score", "-1000")
    assert max(sum(row["source"] == word for row in rows) for word in WORDS) > 1
    assert len({(row["source"], row["target"]) for row in rows}) == len(rows)
    middle = sorted(row["score"] for row in rows)[len(rows) // 2]
    capsys.readouterr()
    words = [folder, "--nbest", "3", "--num-beams", "3", "--min-score", str(middle - 1e-4), "--overwrite"]
    _, kept = distil(tmp_path, *words)
    assert kept == [row for row in rows if row["score"] >= middle] and len(kept) < len(rows)
    assert f"{len(kept)} rows; left out: " in (said := capsys.readouterr().err) and "below --min-score" in said


def test_compressed_files_and_columns_of_tables_are_sources(save, tmp_path):
    with gzip.open(tmp_path / "more.txt.gz", "wt", encoding="utf-8") as file:
        file.write("cc\n")
    (tmp_path / "more.tsv").write_text("word\tnote\nbbb\tx\nabc\ty\n", encoding="utf-8")
    files = [str(tmp_path / name) for name in ("more.txt.gz", "more.tsv")]
    output = tmp_path / "rows.jsonl"
    words = ["distill", save(0), "--sources", *files, "--source-column", "word", "--output", str(output)]
    assert cli.main([*words, "--no-guard", "--nbest", "2"]) == 0
    assert list(dict.fromkeys(row["source"] for row in rows_of(output))) == ["cc", "bbb", "abc"]


def test_resume_goes_on_and_gives_the_same_rows(save, tmp_path, monkeypatch, capsys):
    folder, options = save(0), ["--nbest", "2", "--num-beams", "2", "--batch-size", "1"]
    _, whole = distil(tmp_path, folder, *options)
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_text("".join(lines[:3]) + lines[3][:9], encoding="utf-8")  # killed in a line
    asked = []
    chunks_after = streams.chunks_after

    def noted(texts, done, batch_size):
        asked.append(done)
        return chunks_after(texts, done, batch_size)

    monkeypatch.setattr(streams, "chunks_after", noted)
    assert distil(tmp_path, folder, *options, "--resume") == (0, whole) and asked[0] > 0
    assert f"rows.jsonl: {len(whole)} rows" in capsys.readouterr().err  # of the whole file
    (tmp_path / "rows.jsonl").write_text(lines[-1] + lines[0], encoding="utf-8")
    assert distil(tmp_path, folder, *options, "--resume")[0] == 2
    assert "line 2 is no answer to the sources" in capsys.readouterr().err


def test_an_interrupted_run_says_how_to_go_on(save, tmp_path, monkeypatch, capsys):
    chunks_after = streams.chunks_after

    def stopped(texts, done, batch_size):
        yield next(iter(chunks_after(texts, done, batch_size)))
        raise KeyboardInterrupt

    monkeypatch.setattr(streams, "chunks_after", stopped)
    status, rows = distil(tmp_path, save(0), "--batch-size", "1")
    assert status == 130 and rows
    error = capsys.readouterr().err
    assert f"lines finished in {tmp_path / 'rows.jsonl'}: {len(rows)}; the same command with --resume" in error


def test_rows_that_exist_are_replaced_or_gone_on_with_only_where_that_is_asked_for(save, tmp_path, capsys):
    folders, output = [save(0), save(1)], tmp_path / "rows.jsonl"
    _, rows = distil(tmp_path, folders[0], "--nbest", "2")
    assert distil(tmp_path, folders[0], "--nbest", "2") == (2, rows)
    assert "rows.jsonl exists. Go on with it, --resume, replace it, --overwrite" in capsys.readouterr().err
    for words in ([folders[0]], [folders[1], "--nbest", "2"], [*folders, "--nbest", "2"]):
        assert distil(tmp_path, *words, "--resume") == (2, rows)
        assert "was made with other options" in capsys.readouterr().err
    assert distil(tmp_path, folders[0], "--nbest", "2", "--batch-size", "2", "--resume") == (0, rows)
    (tmp_path / "rows.options.json").unlink()  # rows of an older version
    assert distil(tmp_path, folders[0], "--nbest", "2", "--resume") == (0, rows)
    status, other = distil(tmp_path, folders[1], "--overwrite")
    assert status == 0 and other != rows and output.is_file()


def test_texts_without_words_are_no_rows_and_no_row_is_an_error(save, tmp_path, capsys):
    (tmp_path / "odd.txt").write_text("123\n:-)\n", encoding="utf-8")
    words = ["--sources", str(tmp_path / "odd.txt"), "--output", str(tmp_path / "odd.jsonl"), "--min-score", "-90"]
    assert cli.main(["distill", save(0), *words]) == 2
    error = capsys.readouterr().err
    assert "odd.jsonl: 0 rows; left out: 2 copied, as there are no words in them" in error and "below" not in error
    assert "No row was kept of 2 texts" in error


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "nosuch", "{rows}"],
        ["evaluate", "{model}", "{rows}", "--ensemble", "nosuch"],
        ["predict", "{model}", "--ensemble", "nosuch", "a"],
        ["translate", "--model", "nosuch", "a"],
    ],
)
def test_a_model_that_is_not_there_is_named(save, tmp_path, monkeypatch, capsys, words):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    rows = tmp_path / "pairs.jsonl"
    rows.write_text('{"source": "a", "target": "b"}\n', encoding="utf-8")
    assert cli.main([word.format(model=save(0), rows=rows) for word in words]) == 2
    assert "There is no folder nosuch here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["evaluate", "{0}", "{1}", "--ensemble", ""], ["predict", "{0}", "--ensemble", "", "a"]]
)
def test_an_empty_name_of_a_model_is_said(save, tmp_path, capsys, words):
    rows = tmp_path / "pairs.jsonl"
    rows.write_text('{"source": "a", "target": "b"}\n', encoding="utf-8")
    assert cli.main([word.format(save(0), rows) for word in words]) == 2
    assert "The name of a model is empty" in capsys.readouterr().err


def test_a_teacher_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"training.teacher=nosuch cannot be loaded: There is no folder nosuch here"):
        load_part(AutoTokenizer, "nosuch")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "rows.tsv"], "ending .jsonl"),
        (["--min-score", "0.5"], "--min-score 0.5 keeps nothing"),
        (["--min-score", "nan"], "at most 0"),
        (["--output", "nowhere/rows.jsonl"], "There is no folder"),
        (["--sources", "nothing.txt"], "There is no file nothing.txt"),
        (["--sources", "rows.jsonl"], "would overwrite"),
        (["--sources", "blank.txt"], "There is no text"),
        (["--nbest", "5", "--num-beams", "2"], "cannot find --nbest 5"),
        (["--engine", "ctranslate2"], "computes one model"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    (tmp_path / "blank.txt").write_text("\n \n", encoding="utf-8")
    (tmp_path / "in.txt").write_text("a\n", encoding="utf-8")
    given = ["distill", "no-model", "no-other", "--sources", "in.txt", "--output", "rows.jsonl", *words]
    assert cli.main(given) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "rows.jsonl").read_text(encoding="utf-8") == "{}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["translate", "--model", "{0}", "--ensemble", "{1}", "a"], "different vocabularies"),
        (["predict", "{0}", "--ensemble", "{0}", "--alignments", "a"], "looks into one model"),
        (["predict", "{0}", "--ensemble", "{0}", "--engine", "ctranslate2", "a"], "computes one model"),
        (["evaluate", "{0}", "{rows}", "--ensemble", "{1}"], "different vocabularies"),
    ],
)
def test_an_ensemble_that_cannot_be_is_refused(save, tmp_path, capsys, words, message):
    rows = tmp_path / "pairs.jsonl"
    rows.write_text('{"source": "a", "target": "b"}\n', encoding="utf-8")
    folders = [save(0), save(1, "abd")]
    assert cli.main([word.format(*folders, rows=rows) for word in words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("family", ["t5", "marian"])
def test_a_teacher_of_another_family_answers_with_its_own_tokenizer(family, tmp_path, capsys):
    folder = str(save_tiny(family, tmp_path / family))
    texts = [" ".join(FOREIGN_WORDS[start : start + 3]) for start in range(0, 12, 3)]
    (tmp_path / "in.txt").write_text("\n".join(texts), encoding="utf-8")
    output, words = tmp_path / "rows.jsonl", ["--no-guard", "--max-new-tokens", "6", "--long-text", "whole"]
    assert cli.main(["distill", folder, "--sources", str(tmp_path / "in.txt"), "--output", str(output), *words]) == 0
    assert cli.main(["predict", folder, *words, *texts]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = {one["source"]: one["translation_text"].strip() for one in answers}
    assert {row["source"]: row["target"] for row in rows_of(output)} == {k: v for k, v in expected.items() if v} != {}


@pytest.mark.slow
def test_the_recipe_of_the_docs_trains_on_back_translated_rows(tmp_path, monkeypatch):
    root = Path(__file__).parents[1]
    page = (root / "docs" / "more-data.md").read_text(encoding="utf-8")
    command = re.search(r"fun-transformer (distill hub_configs/en-zh-small .*)\n", page)[1].split()
    recipe = re.search(r"```yaml\n(# more.yaml.*?)```", page, re.DOTALL)[1]
    command[1] = str(root / command[1])
    monkeypatch.chdir(tmp_path)
    lines = ["I like playing tennis.", "He is my teacher.", "It may rain.", "Where is the station?"]
    Path("mono.en").write_text("\n".join(lines), encoding="utf-8")
    Path("more.yaml").write_text(recipe, encoding="utf-8")
    pairs = [{"source": "我喜欢茶。", "target": "I like tea."}, {"source": "他在看书。", "target": "He is reading."}]
    for name in ("pairs", "validation"):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    assert cli.main(command) == 0
    rows = rows_of(Path("back.jsonl"))
    assert [row["source"] for row in rows] == [line for line in lines if line in {row["source"] for row in rows}] != []
    assert rows[0]["target"] == "我喜欢打网球。"
    tiny = ["--model.d_model", "16", "--model.encoder_attention_heads", "2", "--model.decoder_attention_heads", "2"]
    tiny += ["--model.encoder_layers", "1", "--model.decoder_layers", "1", "--training.max_steps", "2"]
    assert cli.main(["train", "more.yaml", *tiny, "--tokenizer.type", "char", "--output_dir", "run"]) == 0
    tokenizer = AutoTokenizer.from_pretrained("run/model")
    ids = tokenizer("<origin:distilled> 我喜欢打网球。").input_ids
    assert tokenizer.convert_ids_to_tokens(ids[0]) == "<origin:distilled>"
