"""One model for two directions: several corpora, a token for the language, and the translation pipeline."""

import json
import random

import pytest
import yaml
from forked_runs import RECIPE, read_metrics, write_digits_recipe
from transformers import pipeline

import fun_transformer  # noqa: F401  registers the pipelines


@pytest.fixture(scope="module")
def model(tmp_path_factory, children):
    """The folder of a run that learns to write letters for digits ("en") and digits for letters ("zh")."""
    folder, rng = tmp_path_factory.mktemp("languages"), random.Random(0)
    digits = ["".join(rng.choices("0123", k=rng.randint(2, 4))) for _ in range(500)]
    rows = [{"zh": word, "en": word.translate(str.maketrans("0123", "abcd"))} for word in dict.fromkeys(digits)]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sides = [("zh", "en"), ("en", "zh")]
    recipe = {
        **RECIPE,
        "data": {
            "train": [
                {"dataset": str(path), "source_column": a, "target_column": b, "src_lang": a, "tgt_lang": b}
                for a, b in sides
            ]
        },
        "training": {**RECIPE["training"], "max_steps": 100, "eval_steps": 50, "save_steps": 50, "batch_tokens": 512},
    }
    recipe["data"]["train"][1]["weight"] = 2
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert children.run(folder / "recipe.yaml", folder / "run") == [0], children.log(folder / "run")
    return folder / "run"


@pytest.mark.slow
def test_one_model_translates_in_both_directions(model):
    translate = pipeline("translation", model=str(model / "model"), num_beams=1)
    there = translate("1302", src_lang="zh", tgt_lang="en")[0]["translation_text"]
    back = translate("bdac", src_lang="en", tgt_lang="zh")[0]["translation_text"]
    assert set(there) <= set("abcd ") and set(back) <= set("0123 ")  # no tag, and the right language
    assert there and back
    assert translate("1302", tgt_lang="en")[0]["translation_text"] == there
    named = pipeline("translation_en_to_zh", model=str(model / "model"), num_beams=1)
    assert named(["bdac", "aabb"])[0]["translation_text"] == back
    with pytest.raises(ValueError, match="tgt_lang='de' is none of en, zh"):
        translate("1302", tgt_lang="de")


@pytest.mark.slow
def test_evaluation_asks_for_the_language_of_each_row(model):
    rows = [json.loads(line) for line in (model / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(row["source"].startswith((">>en<< ", ">>zh<< ")) for row in rows)
    scripts = {(row["source"][2:4], row["prediction"].isdigit()) for row in rows}
    assert scripts == {("en", False), ("zh", True)}


@pytest.mark.slow
def test_a_mixture_goes_on_exactly_where_it_stopped(model, tmp_path, children):
    options = ["--training.schedule", "inverse_sqrt", "--training.max_steps", "40", "--training.eval_steps", "10"]
    recipe = model.parent / "recipe.yaml"
    assert children.run(recipe, tmp_path / "run", *options, "--training.max_steps", "30") == [0]
    assert children.run(recipe, tmp_path / "run", *options, "--resume") == [0], children.log(tmp_path / "run")
    assert children.run(recipe, tmp_path / "whole", *options) == [0]
    assert read_metrics(tmp_path / "run", "train")[-1]["epoch"] > 1
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("run", "whole")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_model_with_two_vocabularies_is_trained_and_used(tmp_path, children):
    recipe = write_digits_recipe(tmp_path)
    options = ["--tokenizer.target_vocab_size", "300", "--tokenizer.target_type", "bpe"]
    assert children.run(recipe, tmp_path / "two", *options) == [0], children.log(tmp_path / "two")
    translate = pipeline("translation", model=str(tmp_path / "two" / "model"), num_beams=1)
    config = translate.model.config
    assert config.decoder_vocab_size == translate.tokenizer.target_vocab_size > config.vocab_size
    record = translate("123", return_scores=True, max_new_tokens=5)[0]
    assert record["target_tokens"] and None not in record["target_tokens"]
