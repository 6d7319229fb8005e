"""From nothing but two text files: what is chosen by the size of the corpus, said, and written down."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from forked_runs import write_digits_recipe

from fun_transformer.training.recipe import defaults
from fun_transformer.training.recipe.arguments import BY_CORPUS_SIZE, RunArguments
from fun_transformer.training.recipe.model_config import choose_packing
from fun_transformer.training.recipe.reading import parse_arguments

FILES = ["--data.train.source", "a.zh", "--data.train.target", "a.en"]


def filled(pairs, *options):
    arguments = parse_arguments([*FILES, *options])
    return defaults.fill(arguments, defaults.choose(arguments, pairs))


def test_a_larger_corpus_gets_a_larger_model_vocabulary_and_batch():
    runs = [filled(pairs) for pairs in (5_000, 50_000, 500_000, 5_000_000)]
    for value in (
        lambda run: run.model["d_model"] * run.model["encoder_layers"] * run.model["decoder_ffn_dim"],
        lambda run: run.tokenizer.vocab_size,
        lambda run: run.training.batch_tokens * run.training.gradient_accumulation_steps,
        lambda run: -run.training.num_train_epochs,
    ):
        values = [value(run) for run in runs]
        assert values == sorted(set(values))
    assert runs[0].model["dropout"] > runs[-1].model["dropout"]
    assert all(run.training.max_steps is None and run.training.patience for run in runs)


def test_what_is_named_stays():
    options = {"training.batch_tokens": 77, "training.warmup_steps": 3, "tokenizer.vocab_size": 999}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    run = filled(5_000, *words, "--training.max_steps", "9", "--model.d_model", "24")
    assert (run.training.batch_tokens, run.training.warmup_steps, run.tokenizer.vocab_size) == (77, 3, 999)
    assert (run.training.max_steps, run.training.num_train_epochs, run.training.patience) == (9, None, None)
    assert run.model == {"d_model": 24, "dropout": 0.3}  # a size named in part is not mixed with another


def test_a_finished_tokenizer_and_noam_keep_their_own_numbers():
    run = filled(5_000, "--training.schedule", "noam", "--tokenizer.type", "char")
    assert run.training.learning_rate == 1.0 and run.tokenizer.vocab_size == 8000


def test_evaluations_come_once_an_epoch_whatever_the_number_of_processes():
    run = filled(50_000)
    steps = 50_000 * 50 / run.training.batch_tokens
    assert defaults.choose_rhythm(run, 50_000 * 50, 1)["training.eval_steps"] == round(steps)
    assert defaults.choose_rhythm(run, 50_000 * 50, 2)["training.save_steps"] == round(steps / 2)
    assert defaults.choose_rhythm(run, 100, 1)["training.eval_steps"] == 50
    run = replace(run, given=frozenset({"training.eval_steps"}))
    assert defaults.choose_rhythm(run, 100, 1) == {"training.save_steps": 50}


def test_help_names_exactly_what_is_chosen():
    arguments = RunArguments()
    chosen = defaults.choose(arguments, 1) | defaults.choose_rhythm(arguments, 1, 1)
    assert {name for name in chosen if not name.startswith("model.")} == BY_CORPUS_SIZE


def test_the_written_recipe_leaves_nothing_to_choose(tmp_path):
    run = filled(50_000)
    run = defaults.fill(run, defaults.choose_rhythm(run, 50_000 * 50, 1))
    (tmp_path / "recipe.yaml").write_text(run.to_yaml(), encoding="utf-8")
    again = parse_arguments([str(tmp_path / "recipe.yaml")])
    assert again == run and defaults.choose(again, 5_000_000) == {} and defaults.choose_rhythm(again, 1, 9) == {}


@pytest.mark.slow
def test_two_text_files_become_a_model_whose_recipe_repeats_it(tmp_path, children):
    rng = random.Random(0)
    words = [" ".join(rng.choices(["ka", "lo", "mi", "tu"], k=rng.randint(1, 5))) for _ in range(400)]
    words = list(dict.fromkeys(words))
    (tmp_path / "a.zh").write_text("\n".join(words), encoding="utf-8")
    (tmp_path / "a.en").write_text("\n".join(word[::-1] for word in words), encoding="utf-8")
    files = ["--data.train.source", str(tmp_path / "a.zh"), "--data.train.target", str(tmp_path / "a.en")]
    short = ["--training.num_train_epochs", "1", "--generation.metrics", "chrf", "--generation.max_new_tokens", "9"]
    run = tmp_path / "run"
    assert children.run(None, run, *files, *short) == [0], children.log(run)
    assert "Chosen for" in children.log(run) and "tokenizer.vocab_size 4,000" in children.log(run)
    assert children.run(run / "recipe.yaml", tmp_path / "again") == [0], children.log(tmp_path / "again")
    assert "Chosen for" not in children.log(tmp_path / "again")
    recipes = [(folder / "recipe.yaml").read_text(encoding="utf-8") for folder in (run, tmp_path / "again")]
    assert recipes[0].replace(str(run), "") == recipes[1].replace(str(tmp_path / "again"), "")
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (run, tmp_path / "again")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("device", "precision", "options", "expected"),
    [
        ("cuda", "bf16", [], 128),
        ("cpu", "bf16", [], 64),
        ("cpu", "no", [], None),  # float32
        ("mps", "bf16", [], None),
        ("cpu", "bf16", ["--training.packing", "null"], None),
        ("cpu", "bf16", ["--training.r_drop", "5"], None),
        ("cpu", "bf16", ["--objective", "masked_lm"], None),
        ("cpu", "bf16", ["--model.model_type", "seq2seq_rnn"], None),
        ("cpu", "bf16", ["--model.encoder_layer_types", "[conv]"], None),
        ("cuda", "bf16", ["--training.attn_implementation", "flash_attention_2"], None),
    ],
)
def test_rows_are_packed_where_that_is_faster_and_possible(device, precision, options, expected):
    arguments = parse_arguments([*FILES, "--training.metric_for_best_model", "loss", *options])
    accelerator = SimpleNamespace(device=torch.device(device), mixed_precision=precision)
    assert choose_packing(arguments, accelerator).get("training.packing") == expected


@pytest.mark.slow
def test_a_run_says_that_it_packs_and_goes_on_with_it(children, tmp_path):
    recipe, output_dir = write_digits_recipe(tmp_path), tmp_path / "run"
    options = ["--training.precision", "bf16", "--training.max_steps", "8"]
    assert children.run(recipe, output_dir, *options, at_event=[".step-8.partial", 1]) == [-9]
    assert "training.packing 64" in children.log(output_dir)
    assert parse_arguments([str(output_dir / "recipe.yaml")]).training.packing == 64
    assert children.run(recipe, output_dir, *options, "--resume") == [0], children.log(output_dir)
