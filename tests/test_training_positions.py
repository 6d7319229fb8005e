"""Learned positions end: longer texts are bad rows, and no longer text is generated. Others have no end."""

import json

import pytest
from forked_runs import write_digits_recipe
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from fun_transformer.cli import main as cli
from fun_transformer.hub import check_repo
from fun_transformer.positions import POSITIONS, Positions
from fun_transformer.training.evaluate import evaluate
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.train import train

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
LEARNED = ["--model.position_embedding_type", "learned", "--model.max_position_embeddings", "5"]  # of 3 to 7
SHORT = ["--training.max_steps", "2", "--training.eval_steps", "2", "--training.save_steps", "2"]
DROPPED = ["--data.bad_rows", "drop", "--generation.max_new_tokens", "50"]


def run(folder, *options):
    """Train two steps on words of 2 to 6 digits and their </s>; returns the run's folder."""
    return train(parse_arguments([str(write_digits_recipe(folder)), *SHORT, *LEARNED, *options])).folder


@pytest.mark.parametrize("packing", ["null", "16"])
def test_texts_without_a_position_are_refused_before_anything_is_written(packing, tmp_path):
    with pytest.raises(ValueError, match=r"source has more than 5 tokens.*bad_rows drop"):
        run(tmp_path, "--training.packing", packing)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("packing", [pytest.param("null", marks=pytest.mark.slow), "16"])
def test_texts_without_a_position_are_dropped_and_counted_and_the_model_says_its_limit(packing, tmp_path):
    folder = run(tmp_path, *DROPPED, "--training.packing", packing)
    train_rows = json.loads((folder / "rows.json").read_text())["train"]
    assert train_rows["dropped"]["source has more than 5 tokens"] > 0 < train_rows["kept"]
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert tokenizer.model_max_length == 5
    assert len(tokenizer("1234567890", truncation=True).input_ids) == 5
    assert json.loads((folder / "model" / "generation_config.json").read_text())["max_new_tokens"] == 5
    arguments = parse_arguments([str(folder / "recipe.yaml"), *DROPPED])
    assert arguments.data.max_source_tokens == 256  # the limit is the model's, not the recipe's
    scores = evaluate(arguments, folder / "model")
    assert scores.values["exact"] >= 0 and 0 < len(scores.samples) < 20


@pytest.mark.parametrize("objective", ["masked_lm", "causal_lm"])
def test_language_models_have_the_same_limit(objective, tmp_path):
    options = ["--objective", objective, "--training.metric_for_best_model", "loss"]
    with pytest.raises(ValueError, match="more than 5 tokens"):
        run(tmp_path, *options)
    folder = run(tmp_path, *options, *DROPPED)
    if objective == "causal_lm":
        model = AutoModelForCausalLM.from_pretrained(folder / "model")
        assert (model.generation_config.max_length, model.generation_config.max_new_tokens) == (5, None)
        assert pipeline("text-generation", model=str(folder / "model"))("12")[0]["generated_text"].startswith("12")


@pytest.mark.slow
def test_positions_that_attention_reads_train_packed_and_answer_on_the_command_line(tmp_path, capsys):
    kind = "relative"
    options = ["--model.position_embedding_type", kind, "--training.packing", "16"]
    folder = train(parse_arguments([str(write_digits_recipe(tmp_path)), *SHORT, *options])).folder
    assert json.loads((folder / "model" / "config.json").read_text())["position_embedding_type"] == kind
    assert not [problem for problem in check_repo(folder / "model") if kind in problem]
    assert cli(["translate", "--model", str(folder / "model"), "12"]) == 0
    assert cli(["translate", "--model", str(folder / "model"), "--engine", "ctranslate2", "12"]) == 2
    assert f"position_embedding_type={kind} cannot be written for CTranslate2" in capsys.readouterr().err


def test_sinusoids_and_positions_of_ones_own_have_no_limit_unless_they_say_so(tiny_config):
    config = tiny_config()
    assert [POSITIONS[name].longest_text(config) for name in ("sinusoidal", "learned")] == [None, 32]
    assert Positions.longest_text(config) is None
