"""Recipes that are absurd, endless or no recipes: refused at once, in a sentence that says what to do."""

import json
import time

import pytest

from fun_transformer.training.recipe.arguments import RunArguments, SplitArguments, TrainingArguments
from fun_transformer.training.recipe.checks import check
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.recipe.yaml12 import read_yaml

FILES = ["--data.train.source", "a.zh", "--data.train.target", "a.en"]
MANY_NINES = "9" * 400


def recipe_of(folder, text):
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: &all\n  dropout: *all", "the alias in line 1 holds itself"),
        ("&all [*all]", "holds itself"),
        ("training: &t {<<: *t}", "holds itself"),
        ("model: " + "[" * 1500 + "]" * 1500, "nested deeper than"),
        ("model: " + "[" * 100 + "]" * 100, "nested deeper than 50 levels"),
        ("a: &a [0, 0, 0, 0]\n" + "".join(f"{n}: &{n} [{f'*{p}, ' * 9}]\n" for p, n in zip("abcdefg", "bcdefgh")),
         "more than 1,000,000 values"),
        ("training: {seed: \0}", "not valid YAML"),
        ("training: {seed: !!timestamp x}", "not valid YAML"),
        ("training: {seed: !!int x}", "not valid YAML"),
        ("training: {overwrite: !!bool x}", "not valid YAML"),
        ("training: {? [a] : 1}", "not valid YAML"),
        ("training: {seed: " + "9" * 5000 + "}", "not valid YAML"),
        (f"training: {{seed: {MANY_NINES}}}", r"training.seed must be at most 4,000,000,000, got 9{200}\.\.\."),
        (f"training: {{learning_rate: {MANY_NINES}}}", "training.learning_rate must be at most"),
        (f"training: {{max_minutes: -{MANY_NINES}}}", "training.max_minutes must be at least"),
        (f"training: {{learning_rate: {MANY_NINES}.0}}", "training.learning_rate must be a finite number, got inf"),
        (f"model: {{d_model: {MANY_NINES}}}", "model.d_model must be at most 65,536"),
        (f"model: {{dropout: {MANY_NINES}}}", "model.dropout must be at most"),
        (f"output_dir: [{'x, ' * 9_000}]", r"output_dir must be text, got \['x', .{1,200}\.\.\. Put it in quotes"),
        (f"{'x' * 1000}: 1", "x{200} is not known"),
        ("# " + "x" * 1_000_000, "longer than any recipe"),
    ],
)  # fmt: skip
def test_what_is_no_recipe_is_refused_at_once_in_a_sentence(text, message, tmp_path):
    started = time.monotonic()
    with pytest.raises(ValueError, match=message) as refused:
        parse_arguments([recipe_of(tmp_path, f"{text}\n"), *FILES])
    assert len(str(refused.value)) < 1500 and time.monotonic() - started < 5


@pytest.mark.slow
def test_thirty_thousand_unknown_names_take_no_longer_than_reading_them(tmp_path):
    text = "".join(f"name{number}: {number}\n" for number in range(30_000))
    started = time.monotonic()
    read_yaml(text.replace("name", "other"), "text")
    reading = time.monotonic() - started
    with pytest.raises(ValueError, match="name0 is not known"):
        parse_arguments([recipe_of(tmp_path, text), *FILES])
    assert time.monotonic() - started < 3 * reading + 1


def test_aliases_and_merged_sections_are_read_as_before():
    text = "base: &base {a: 1, b: [x]}\nother: {<<: *base, b: *base}\n"
    assert read_yaml(text, "text")["other"] == {"a": 1, "b": {"a": 1, "b": ["x"]}}
    assert read_yaml("", "text") is None


@pytest.mark.parametrize(
    ("option", "value", "limit"),
    [
        ("model.d_model", "1e9", "at most 65,536"),
        ("model.encoder_layers", "100000", "at most 1,000"),
        ("model.decoder_ffn_dim", "1e12", "at most 1,048,576"),
        ("model.encoder_attention_heads", "1e9", "at most 4,096"),
        ("model.vocab_size", "1e12", "at most 10,000,000"),
        ("model.max_position_embeddings", "1e15", "at most 10,000,000"),
        ("training.gradient_accumulation_steps", "1e30", "at most 100,000"),
        ("training.weight_decay", "1e308", "at most 100"),
        ("training.batch_tokens", "1e18", "at most 1,000,000,000"),
        ("training.packing", "1e9", "at most 65,536"),
        ("training.threads", "1e9", "at most 4,096"),
        ("training.seed", "4294967296", "at most 4,000,000,000"),
        ("training.timeout_minutes", "1e300", "at most 525,600"),
        ("training.max_steps", "1e30", "at most 1,000,000,000,000"),
        ("training.max_grad_norm", "1e300", "at most 1,000,000,000,000"),
        ("generation.num_beams", "5000", "at most 1,000"),
        ("generation.num_beams", "0", "at least 1"),
        ("generation.max_new_tokens", "1e12", "at most 1,000,000"),
        ("generation.length_penalty", "-1e300", "at least -100"),
        ("data.max_source_tokens", "1e30", "at most 1,000,000,000,000"),
        ("tokenizer.vocab_size", "1e12", "at most 10,000,000"),
    ],
)
def test_absurd_sizes_are_refused(option, value, limit):
    with pytest.raises(ValueError, match=f"{option} must be {limit}"):
        parse_arguments([*FILES, f"--{option}", value])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("model.d_model", "'64'", "model.d_model must be a whole number, got '64'"),
        ("model.d_model", "[64]", "model.d_model must be a whole number"),
        ("model.encoder_layer_types", "5", "model.encoder_layer_types must be a list"),
        ("model.encoder_layer_types", "[foo]", "encoder_layer_types=foo is not known"),
        ("model.position_embedding_type", "lerned", "Did you mean learned"),
        ("model.activation_function", "rulu", "model.activation_function must be one of relu, gelu, silu"),
        ("model.model_type", "rnn", "model.model_type=rnn is not known"),
    ],
)
def test_fields_of_the_model_have_their_types_before_any_data_is_read(option, value, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments([*FILES, f"--{option}", value])


@pytest.mark.parametrize(("text", "message"), [
    ("[1, 2]", "must hold a JSON object, {...}, not a list"),
    ("{'num_beams': 4}", "cannot be read as JSON"),
    ("", "cannot be read as JSON"),
    ("[" * 100_000, "cannot be read as JSON"),
    (f'{{"num_beams": {"9" * 5000}}}', "cannot be read as JSON"),
    (b"\xff\xfe\x00", "cannot be read as JSON"),
])  # fmt: skip
@pytest.mark.parametrize("option", ["model.config", "generation.config"])
def test_a_json_file_that_is_none_is_named(option, text, message, tmp_path):
    path = tmp_path / "settings.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as refused:
        parse_arguments([*FILES, f"--{option}", str(path)])
    assert f"{option}={path} {message}" in str(refused.value)


def test_values_of_json_files_have_the_limits_of_recipes(tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps({"num_beams": 5000}))
    with pytest.raises(ValueError, match=r"generation\.num_beams must be at most 1,000"):
        parse_arguments([*FILES, "--generation.config", str(tmp_path / "generation_config.json")])
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 10**9, "eos_token_id": [1, 2], "dtype": "float32"}))
    with pytest.raises(ValueError, match=r"model\.d_model must be at most 65,536"):
        parse_arguments([*FILES, "--model.config", str(tmp_path / "config.json")])


@pytest.mark.parametrize(("option", "value"), [("config", 5), ("model_type", ["rnn"]), ("model_type", {})])
def test_the_files_and_kinds_of_models_made_in_python_are_text(option, value):
    arguments = RunArguments(model={option: value}, training=TrainingArguments(max_steps=1))
    arguments.data.train = SplitArguments(source="a", target="b")
    with pytest.raises(ValueError, match=f"model.{option} must be text"):
        check(arguments)


def test_sizes_that_are_whole_numbers_become_some():
    assert parse_arguments([*FILES, "--model.d_model", "1e2", "--model.dropout", "0"]).model == {
        "d_model": 100,
        "dropout": 0,
    }
