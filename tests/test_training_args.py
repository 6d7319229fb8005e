"""Recipes and dotted overrides: what is read, what wins, what is refused."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch
import yaml

from fun_transformer.training.recipe.arguments import (
    DataArguments,
    GenerationArguments,
    RunArguments,
    SplitArguments,
    TrainingArguments,
)
from fun_transformer.training.recipe.checks import check
from fun_transformer.training.recipe.defaults import resolve, resolve_rhythm
from fun_transformer.training.recipe.names import RENAMED, known_arguments
from fun_transformer.training.recipe.reading import changed_arguments, keep_choices, parse_arguments

FILES = ["--data.train.source", "a.zh", "--data.train.target", "a.en"]


def write_recipe(folder, text):
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_two_files_and_an_output_folder_are_enough():
    arguments = parse_arguments([*FILES, "--output_dir", "out", "--training.max_steps", "60"])
    assert (arguments.data.train.source, arguments.data.train.target) == ("a.zh", "a.en")
    assert (arguments.output_dir, arguments.training.max_steps, arguments.recipe) == ("out", 60, None)
    assert arguments.resume == "no" and arguments.overwrite is False and arguments.model == {}


def test_the_command_line_wins_over_the_recipe(tmp_path):
    recipe = write_recipe(
        tmp_path,
        "output_dir: a\nmodel: {d_model: 64}\ntraining:\n  max_steps: 5\n  seed: 7\ndata: {train: {dataset: x.tsv}}",
    )
    arguments = parse_arguments(["--training.max_steps=9", recipe, "--model.d_model", "128", "--overwrite"])
    assert (arguments.training.max_steps, arguments.training.seed, arguments.model) == (9, 7, {"d_model": 128})
    assert arguments.overwrite is True and arguments.recipe == recipe


def test_files_on_the_command_line_replace_the_recipes_data_set(tmp_path):
    recipe = write_recipe(tmp_path, "data: {train: {dataset: x.tsv, source_column: zh}, test: {dataset: y.tsv}}")
    data = parse_arguments([recipe, *FILES]).data
    assert data.train.dataset is None and data.train.source == "a.zh" and data.test.dataset == "y.tsv"


def test_the_written_recipe_gives_the_same_arguments_again(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 64}))
    recipe = write_recipe(
        tmp_path, "model: {config: config.json}\ndata: {train: {dataset: 'no', source_column: 1e-3x}}"
    )
    options = ["--training.learning_rate", "1e-9", "--generation.metrics", "per,wer", "--output_dir", "1e-3"]
    arguments = parse_arguments(
        [recipe, *options, "--resume", "auto", "--model.dropout", "1e-1", "--tokenizer.path=on"]
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = parse_arguments([write_recipe(elsewhere, arguments.to_yaml())])
    assert again == arguments
    assert again.model == {"config": str(tmp_path / "config.json"), "dropout": 0.1}
    assert yaml.safe_load(arguments.to_yaml())["output_dir"] == "1e-3"  # other readers of YAML agree


def test_a_resumed_run_generates_as_it_began_whatever_the_model_says(tmp_path):
    begun = "data: {train: {dataset: x.tsv}}\ngeneration: {num_beams: 1, max_new_tokens: 256, length_penalty: 1.0}"
    write_recipe(tmp_path, begun)
    now = parse_arguments(["--data.train.dataset", "x.tsv", "--generation.max_new_tokens", "9"])
    kept = keep_choices(now, tmp_path).generation
    assert (now.generation.num_beams, kept.num_beams, kept.max_new_tokens) == ("auto", 1, 9)


def test_settings_win_over_the_generation_config_and_it_over_the_defaults(tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps({"num_beams": 4, "max_new_tokens": 7, "top_k": 3}))
    recipe = write_recipe(
        tmp_path, "data: {train: {dataset: x.tsv}}\ngeneration: {config: generation_config.json, max_new_tokens: 9}"
    )
    assert parse_arguments([recipe]).generation.num_beams == 4
    assert parse_arguments([recipe]).generation.max_new_tokens == 9
    assert parse_arguments([recipe, "--generation.num_beams", "2"]).generation.num_beams == 2


@pytest.mark.parametrize("text, value", [("1e-3", 1e-3), ("2", 2.0), ("5.e-4", 5e-4)])
def test_numbers_with_an_exponent_are_numbers(tmp_path, text, value):
    recipe = write_recipe(tmp_path, f"data: {{train: {{dataset: x.tsv}}}}\ntraining: {{learning_rate: {text}}}")
    for rate in (
        parse_arguments([recipe]).training.learning_rate,
        parse_arguments([*FILES, "--training.learning_rate", text]).training.learning_rate,
    ):
        assert rate == value and isinstance(rate, float)


def test_norwegian_is_no_boolean(tmp_path):
    recipe = write_recipe(tmp_path, "data: {train: {dataset: x.tsv, source_column: no, target_column: en}}")
    assert parse_arguments([recipe]).data.train.source_column == "no"
    assert parse_arguments([*FILES, "--data.train.source_column", "no"]).data.train.source_column == "no"


@pytest.mark.parametrize(
    "words, resume",
    [
        ([], "no"),
        (["--resume"], True),
        (["--resume", "true"], True),
        (["--resume", "no"], "no"),
        (["--resume", "auto"], "auto"),
        (["--resume=out/checkpoint-5"], "out/checkpoint-5"),
        (["--resume", "--overwrite"], True),
    ],
)
def test_resume_takes_a_folder_a_word_or_nothing(words, resume):
    assert parse_arguments([*FILES, *words]).resume == resume


def test_a_bare_resume_before_the_recipe_leaves_the_recipe(tmp_path):
    recipe = write_recipe(tmp_path, "data: {train: {dataset: x.tsv}}")
    arguments = parse_arguments(["--overwrite", "--resume", recipe])
    assert arguments.resume is True and arguments.recipe == recipe


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--training.learnign_rate", "1"],
            "training.learnign_rate is not known. Did you mean training.learning_rate",
        ),
        (["--learning_rate", "1"], "Did you mean training.learning_rate"),
        (["--traning.seed", "1"], "Did you mean training.seed"),
        (["--model.d_modle", "1"], "Did you mean model.d_model"),
        (["--data.train", "x"], "data.train is a section"),
        (
            ["--training.schedule", "nom"],
            "of auto, noam, inverse_sqrt, linear, cosine, got 'nom'. Did you mean noam",
        ),
        (["--training.max_steps", "-3"], "training.max_steps must be at least 1, got -3"),
        (["--training.max_steps", "1.5"], "whole number"),
        (["--training.seed", "true"], "whole number"),
        (["--training.max_minutes", "nan"], "must be a number"),
        (["--training.max_minutes", ".inf"], "finite"),
        (["--training.adam_beta2", "1"], "less than 1"),
        (["--training.max_steps"], "needs a value"),
        (["--training.max_steps", "["], "not valid YAML"),
        (["--training.num_train_epochs", "null"], "never end"),
        (["--training.learning_rate", "null"], "training.learning_rate must be a number or auto, got None"),
        (["--training.seed", "auto"], "training.seed must be a whole number, got 'auto'"),
        (["--model.max_position_embeddings", "auto"], "max_position_embeddings cannot be auto"),
        (["--objective", "masked"], "Did you mean masked_lm"),
        (["--objective", "causal_lm", "--training.r_drop", "5"], "r_drop is for objective: seq2seq, got causal_lm"),
        (
            ["--objective", "masked_lm", "--training.packing", "64"],
            "packing is for objective: seq2seq or denoising, got masked",
        ),
        (["--generation.metrics", "bleu", "--training.metric_for_best_model", "per"], "Add it to generation.metrics"),
        (["--generation.metrics", "bleu,foo"], "got 'foo'"),
        (["--data.train.dataset", "x.tsv"], "names a dataset and text files"),
        (["--data.test.source", "x"], "data.test.target is missing"),
        (["--model.config", "nowhere.json"], "there is no file"),
        (["60"], "no shipped recipe '60'"),
        (["g2p-eng"], "Did you mean 'g2p-en'"),
        (["nowhere.yaml"], "cannot be read"),
        (["a.yaml", "b.yaml"], "Two recipes"),
    ],
)
def test_mistakes_on_the_command_line_are_explained(words, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments([*FILES, *words])


@pytest.mark.parametrize(
    "text, message",
    [
        ("trainig: {seed: 1}", "trainig is not known. Did you mean training"),
        ("training: {max_step: 1}", "Did you mean training.max_steps"),
        ("data: {train: {sourc: a}}", "Did you mean data.train.source"),
        ("training: 5", "training is a section"),
        ("- 1", "The recipe is a section"),
        ("training: {seed: '1'}", "must be a whole number, got '1'"),
        ("overwrite: 'true'", "must be true or false, got 'true'"),
        ("output_dir: 2024", "must be text, got 2024. Put it in quotes"),
        ("generation: {metrics: 3}", "must be a list"),
        ("training: {seed: 1}\ntraining: {max_steps: 2}", "training is given twice"),
        ("output_dir: out", "No training data"),
    ],
)
def test_mistakes_in_a_recipe_are_explained(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments([write_recipe(tmp_path, text)])


def test_help_shows_every_argument_with_its_meaning_and_default(capsys):
    with pytest.raises(SystemExit) as exit:
        parse_arguments(["--help"])
    shown = capsys.readouterr().out
    assert exit.value.code == 0
    assert all(f"--{name}" in shown for name, (_, item) in known_arguments().items() if item)
    assert shown.startswith("usage: fun-transformer train [RECIPE.yaml | NAME]")
    assert "[auto: by the number of training pairs]" in shown and "[42]" in shown and "d_model" in shown


def test_every_field_says_what_it_means():
    for name, (_, item) in known_arguments().items():
        assert item is None or item.metadata["help"], name
    assert {item.name for item in dataclasses.fields(RunArguments)} >= {"model", "data", "resume", "output_dir"}


MIX = """
data:
  train:
    - {dataset: a.jsonl, tgt_lang: en, weight: 2}
    - {source: b.en, target: b.zh, src_lang: en, tgt_lang: zh}
  temperature: 5
  clean: true
"""


def test_several_corpora_are_a_list_and_come_back_from_the_written_recipe(tmp_path):
    data = parse_arguments([write_recipe(tmp_path, MIX)]).data
    assert [(corpus.weight, corpus.tgt_lang) for corpus in data.train.corpora] == [(2.0, "en"), (1.0, "zh")]
    assert data.tags_languages and data.temperature == 5 and "ratio" in data.clean
    arguments = parse_arguments([write_recipe(tmp_path, MIX)])
    assert parse_arguments([write_recipe(tmp_path, arguments.to_yaml())]) == arguments
    mix = "--data.train.mix", "[{dataset: a.tsv}, {dataset: b.tsv}]"
    corpora = parse_arguments([write_recipe(tmp_path, "data: {train: {dataset: x.tsv}}"), *mix]).data.train.corpora
    assert [corpus.dataset for corpus in corpora] == ["a.tsv", "b.tsv"]
    assert parse_arguments([write_recipe(tmp_path, MIX), *FILES]).data.train.mix == []


@pytest.mark.parametrize(
    "train, message",
    [
        ("[{datset: a.tsv}]", "datset is not known. Did you mean dataset"),
        ("[{dataset: a.tsv, weight: 0}]", r"data.train.mix\[0\]: weight must be greater than 0"),
        ("[{dataset: a.tsv}, {source: b}]", r"data.train.mix\[1\].target is missing"),
        ("[{dataset: a.tsv}, {}]", r"data.train.mix\[1\] must name a dataset"),
        ("{dataset: a.tsv, mix: [{dataset: b.tsv}]}", "names a mix and another origin"),
        ("[{dataset: a.tsv, tgt_lang: en}, {dataset: b.tsv}]", r"data.train.mix\[1\].tgt_lang is missing"),
        ("[{dataset: a.tsv, tgt_lang: 'e n'}]", "is no language"),
    ],
)
def test_mistakes_in_a_list_of_corpora_are_explained(tmp_path, train, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments([write_recipe(tmp_path, f"data: {{train: {train}}}")])


@pytest.fixture
def notices(caplog):
    """A function that returns what was warned of, each once; transformers' loggers may hand nothing on."""
    logger = logging.getLogger("fun_transformer.training.recipe.names")
    logger.addHandler(caplog.handler)
    yield lambda: sorted({record.getMessage() for record in caplog.records})
    logger.removeHandler(caplog.handler)


OLD_RECIPE = """
data: {train: {dataset: x.tsv}}
training: {eval_every: 7, save_every: 14, log_every: 3, keep_checkpoints: 4, accumulation_steps: 2, max_epochs: 5,
  best_metric: chrf, trackers: [wandb], attn_implementation: null}
"""


def test_names_of_the_version_before_are_read_with_one_notice(tmp_path, notices):
    recipe = write_recipe(tmp_path, OLD_RECIPE)
    training = parse_arguments([recipe, "--training.max_epochs", "9"]).training
    assert (training.eval_steps, training.save_steps, training.logging_steps) == (7, 14, 3)
    assert (training.save_total_limit, training.gradient_accumulation_steps, training.num_train_epochs) == (4, 2, 9)
    assert (training.metric_for_best_model, training.report_to) == ("chrf", ["wandb"])
    assert training.attn_implementation == "auto"
    of_recipe, of_command_line = notices()
    assert of_recipe.startswith(recipe) and of_command_line.startswith("The command line")
    assert all(f"{old} is now {new}" in of_recipe for old, new in RENAMED.items())
    assert "training.max_epochs is now training.num_train_epochs" in of_command_line


def test_an_old_and_its_new_name_together_are_refused(tmp_path):
    recipe = write_recipe(tmp_path, "data: {train: {dataset: x}}\ntraining: {eval_every: 7, eval_steps: 8}")
    with pytest.raises(ValueError, match=r"training\.eval_every is the old name of training\.eval_steps"):
        parse_arguments([recipe])
    with pytest.raises(ValueError, match=r"The command line: training\.max_epochs is the old name"):
        parse_arguments([*FILES, "--training.max_epochs=1", "--training.num_train_epochs=2"])


def test_an_old_name_is_never_suggested():
    with pytest.raises(ValueError, match="Did you mean training"):
        parse_arguments([*FILES, "--training.eval_ever", "3"])
    assert not RENAMED.keys() & known_arguments().keys()


def resolved(**training):
    """A recipe without "auto"."""
    arguments = RunArguments(training=TrainingArguments(**training), output_dir="out")
    arguments.data.train = SplitArguments(source="a", target="b")
    return resolve_rhythm(resolve(check(arguments), 5_000, torch.device("cpu")), 100, 1)


def test_a_run_of_the_version_before_has_the_same_recipe(tmp_path):
    now = resolved(max_steps=7, packing=None)
    before = yaml.safe_load(now.to_yaml())
    del before["plugins"], before["training"]["threads"]  # fields that it did not have
    before["training"] |= {"precision": "auto", "attn_implementation": None}  # what it left to the device
    new_names = {new.partition(".")[2]: old.partition(".")[2] for old, new in RENAMED.items()}
    before["training"] = {new_names.get(name, name): value for name, value in before["training"].items()}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(before), encoding="utf-8")
    assert changed_arguments(file, now) == {}
    assert changed_arguments(file, resolved(max_steps=8, packing=None, r_drop=5.0)) == {
        "training.max_steps": (7, 8),
        "training.r_drop": (None, 5.0),
    }


def test_fields_of_the_model_that_come_or_go_are_changes(tmp_path):
    now = resolved()
    (tmp_path / "recipe.yaml").write_text(now.to_yaml(), encoding="utf-8")
    other = dataclasses.replace(now, model=now.model | {"norm_position": "pre"})
    assert changed_arguments(tmp_path / "recipe.yaml", other) == {"model.norm_position": (None, "pre")}
    other = dataclasses.replace(now, model={"d_model": 128})
    assert changed_arguments(tmp_path / "recipe.yaml", other)["model.dropout"] == (0.3, None)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"training": TrainingArguments(max_steps="7")}, "training.max_steps must be a whole number or auto, got '7'"),
        ({"training": TrainingArguments(max_steps=0)}, "training.max_steps must be at least 1, got 0"),
        ({"training": TrainingArguments(schedule="nom")}, "Did you mean noam"),
        ({"training": {"max_steps": 7}}, "training must be a TrainingArguments, got"),
        (
            {"generation": GenerationArguments(metrics=["blue"])},
            "generation.metrics must be .* Did you mean bleu",
        ),
        ({"model": {"d_modle": 7}}, "model.d_modle is not known. Did you mean model.d_model"),
        ({"data": DataArguments()}, "No training data"),
    ],
)
def test_mistakes_in_python_get_the_sentences_of_recipes(arguments, message):
    data = DataArguments(train=SplitArguments(source="a", target="b"))
    with pytest.raises(ValueError, match=message):
        check(RunArguments(**{"data": data, **arguments}))


def test_values_made_in_python_become_those_of_their_fields(tmp_path):
    given = RunArguments(
        objective="masked_lm",
        data=DataArguments(train=SplitArguments(source="a", target="b")),
        training=TrainingArguments(max_steps=1e3, learning_rate=1, report_to="wandb,mlflow"),
        output_dir=tmp_path,
    )
    checked = check(given)
    assert (checked.training.max_steps, checked.training.report_to) == (1000, ["wandb", "mlflow"])
    assert isinstance(checked.training.max_steps, int) and isinstance(checked.training.learning_rate, float)
    assert checked.output_dir == str(tmp_path) and check(checked) == checked
    assert (checked.data.train.target, given.data.train.target) == ("a", "b")  # a language model has no target


def test_the_name_of_a_shipped_recipe_is_enough():
    arguments = parse_arguments(["g2p-en", "--training.max_steps", "3"])
    assert arguments.data.train.dataset == "builtin:cmudict" and arguments.training.max_steps == 3
    assert arguments.recipe.endswith("recipe.yaml")


def test_numbers_that_were_computed_are_numbers():
    training = TrainingArguments(max_steps=np.int64(7), learning_rate=np.float32(0.5), patience=np.int32(2))
    run = RunArguments(data=parse_arguments(FILES).data, training=training, model={"d_model": np.int64(32)})
    found = check(run).training
    assert (found.max_steps, found.learning_rate, found.patience) == (7, 0.5, 2)
    assert {type(found.max_steps), type(found.patience)} == {int} and type(found.learning_rate) is float


def test_one_column_cannot_be_both_sides_of_a_pair():
    words = ["--data.train.dataset", "rows.tsv", "--data.train.source_column", "0", "--data.train.target_column", "0"]
    with pytest.raises(ValueError, match=r"data.train: source_column and target_column are both 0"):
        parse_arguments(words)
    assert parse_arguments([*words, "--objective", "denoising"]).data.train.target_column == "0"


def test_a_target_that_is_not_read_is_said_once_and_its_file_named_once(monkeypatch):
    said = []
    monkeypatch.setattr("fun_transformer.training.recipe.checks.logger.warning", said.append)
    words = ["--objective", "denoising", "--data.train.source", "a.en", "--data.train.target", "a.zh"]
    found = parse_arguments([*words, "--data.train.target_column", "zh"])
    assert len(said) == 2 and "data.train.target=a.zh is not read: objective: denoising" in said[0]
    assert str(found.data.train) == "a.en"
    check(found)  # as a run's own recipe has it
    assert len(said) == 2
