"""From nothing but two text files: what is chosen by the size of the corpus, said, and written down."""

import random
import re
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from forked_runs import write_digits_recipe

from fun_transformer.training.recipe.arguments import RunArguments, TrainingArguments
from fun_transformer.training.recipe.defaults import describe_choices, resolve, resolve_rhythm
from fun_transformer.training.recipe.reading import parse_arguments

FILES = ["--data.train.source", "a.zh", "--data.train.target", "a.en"]
CPU = torch.device("cpu")


def resolved(pairs, *options):
    return resolve(parse_arguments([*FILES, *options]), pairs, CPU)


def left_open(arguments):
    """The dotted names of all values that are "auto"."""
    sections = {"tokenizer": vars(arguments.tokenizer), "training": vars(arguments.training), "model": arguments.model}
    return {f"{section}.{name}" for section, values in sections.items() for name in values if values[name] == "auto"}


def test_a_larger_corpus_gets_a_larger_model_vocabulary_and_batch():
    runs = [resolved(pairs) for pairs in (5_000, 50_000, 500_000, 5_000_000)]
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


def test_muon_has_a_higher_learning_rate():
    muon = ("--training.optim", "muon")
    assert resolved(5_000, *muon).training.learning_rate == 8e-3
    assert resolved(500_000, *muon).training.learning_rate == pytest.approx(8 * 5e-4)
    assert resolved(5_000, *muon, "--training.learning_rate", "1e-4").training.learning_rate == 1e-4
    assert resolved(5_000, *muon, "--training.schedule", "noam").training.learning_rate == 1.0


def test_what_is_named_stays():
    options = {"training.batch_tokens": 77, "training.warmup_steps": 3, "tokenizer.vocab_size": 999}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    run = resolved(5_000, *words, "--training.max_steps", "9", "--model.d_model", "24")
    assert (run.training.batch_tokens, run.training.warmup_steps, run.tokenizer.vocab_size) == (77, 3, 999)
    assert (run.training.max_steps, run.training.num_train_epochs, run.training.patience) == (9, None, None)
    assert run.model == {"d_model": 24, "dropout": 0.3}  # a size named in part is not mixed with another
    assert resolved(5_000, "--model.d_model", "24", "--model.encoder_layers", "auto").model["encoder_layers"] == 3


def test_what_is_named_in_python_stays():
    named = TrainingArguments(learning_rate=3e-4, batch_tokens=999, max_steps=7)
    before = RunArguments(training=named)
    run = resolve(before, 5_000, CPU)
    assert (run.training.learning_rate, run.training.batch_tokens, run.training.max_steps) == (3e-4, 999, 7)
    assert (run.training.num_train_epochs, run.training.max_minutes, run.training.patience) == (None, None, None)
    assert before == RunArguments(training=named) and before.model == {}


@pytest.mark.parametrize("name, value", [("max_steps", 9), ("num_train_epochs", 20), ("max_minutes", 600.0)])
def test_with_one_limit_named_only_it_holds(name, value):
    training = resolved(5_000, f"--training.{name}", str(value)).training
    limits = {limit: getattr(training, limit) for limit in ("max_steps", "num_train_epochs", "max_minutes")}
    assert limits.pop(name) == value
    assert set(limits.values()) == {None} and training.patience is None


def test_a_patience_and_a_limit_that_are_named_hold_together():
    training = resolved(5_000, "--training.patience", "3", "--training.max_steps", "9").training
    assert (training.patience, training.max_steps, training.num_train_epochs) == (3, 9, None)
    training = resolved(5_000, "--training.patience", "null", "--training.max_steps", "null").training
    assert (training.patience, training.max_steps, training.num_train_epochs) == (None, None, 100)


def test_nothing_but_the_rhythm_and_the_threads_is_left_open():
    run = resolve(RunArguments(), 5_000, CPU)
    assert left_open(run) == {"training.eval_steps", "training.save_steps", "training.threads"}
    assert left_open(resolve_rhythm(run, 5_000, 1)) == {"training.threads"}


def test_what_was_chosen_is_said_and_nothing_else():
    before = RunArguments(training=TrainingArguments(batch_tokens=777))
    after = resolve_rhythm(resolve(before, 12_345, CPU), 10_000, 1)
    text = describe_choices(before, after, 12_345)
    assert text.startswith("Chosen for 12,345 training pairs")
    assert "tokenizer.vocab_size 4,000" in text and "model.d_model 128" in text and "training.save_steps 500" in text
    assert "batch_tokens" not in text and "threads" not in text and "None" not in text
    assert describe_choices(after, after, 12_345) == ""


def test_a_finished_tokenizer_and_noam_keep_their_own_numbers():
    run = resolved(5_000, "--training.schedule", "noam", "--tokenizer.type", "char")
    assert run.training.learning_rate == 1.0 and run.tokenizer.vocab_size == 8000


def test_evaluations_come_once_an_epoch_whatever_the_number_of_processes():
    run = resolved(50_000)
    steps = 50_000 * 50 / run.training.batch_tokens
    assert resolve_rhythm(run, 50_000 * 50, 1).training.eval_steps == round(steps)
    assert resolve_rhythm(run, 50_000 * 50, 2).training.eval_steps == round(steps / 2)
    assert resolve_rhythm(run, 100, 1).training.eval_steps == 50


@pytest.mark.parametrize("eval_steps, save_steps", [("50", 500), ("150", 600), ("500", 500), ("4000", 4000)])
def test_a_run_saves_at_evaluations_but_not_at_each(eval_steps, save_steps):
    run = resolved(50_000, "--training.eval_steps", eval_steps)
    assert resolve_rhythm(run, 50_000 * 50, 1).training.save_steps == save_steps
    run = resolved(50_000, "--training.save_steps", "7")
    assert resolve_rhythm(run, 50_000 * 50, 1).training.save_steps == 7


def test_the_written_recipe_leaves_nothing_to_choose(tmp_path):
    run = resolve_rhythm(resolved(50_000), 50_000 * 50, 1)
    (tmp_path / "recipe.yaml").write_text(run.to_yaml(), encoding="utf-8")
    again = parse_arguments([str(tmp_path / "recipe.yaml")])
    assert again == run
    assert resolve_rhythm(resolve(again, 5_000_000, torch.device("cuda")), 1, 9) == run


def write_words(folder):
    """Two line-aligned files of some words, forwards and backwards."""
    rng = random.Random(0)
    words = [" ".join(rng.choices(["ka", "lo", "mi", "tu"], k=rng.randint(1, 5))) for _ in range(400)]
    words = list(dict.fromkeys(words))
    (folder / "a.zh").write_text("\n".join(words), encoding="utf-8")
    (folder / "a.en").write_text("\n".join(word[::-1] for word in words), encoding="utf-8")


@pytest.mark.slow
def test_the_python_of_the_docs_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # leaves the threads of this process alone
    write_words(tmp_path)
    docs = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    names = {}
    exec(re.search("```python\n(from fun_transformer.training import .*?)```", docs, flags=re.DOTALL)[1], names)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert names["result"].folder == Path("out") and names["result"].scores["validation"]["loss"] > 0
    training = parse_arguments(["out/recipe.yaml"]).training
    assert (training.max_steps, training.num_train_epochs, training.patience) == (7, None, None)
    assert (training.learning_rate, training.batch_tokens) == (3e-4, 1024)  # of few words


@pytest.mark.slow
def test_two_text_files_become_a_model_whose_recipe_repeats_it(tmp_path, children):
    write_words(tmp_path)
    files = ["--data.train.source", str(tmp_path / "a.zh"), "--data.train.target", str(tmp_path / "a.en")]
    short = ["--training.num_train_epochs", "1", "--generation.metrics", "chrf", "--generation.max_new_tokens", "9"]
    run = tmp_path / "run"
    assert children.run(None, run, *files, *short) == [0], children.log(run)
    assert "Chosen for" in children.log(run) and "tokenizer.type word" in children.log(run)
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
        ("cpu", "fp32", [], None),
        ("mps", "bf16", [], None),
        ("cpu", "bf16", ["--training.packing", "32"], 32),
        ("cpu", "bf16", ["--training.packing", "null"], None),
        ("cpu", "bf16", ["--training.r_drop", "5"], None),
        ("cpu", "bf16", ["--objective", "masked_lm"], None),
        ("cpu", "bf16", ["--model.model_type", "seq2seq_rnn"], None),
        ("cpu", "bf16", ["--model.encoder_layer_types", "[conv]"], None),
        ("cuda", "bf16", ["--training.attn_implementation", "flash_attention_2"], None),
    ],
)
def test_rows_are_packed_where_that_is_faster_and_possible(device, precision, options, expected):
    arguments = parse_arguments([*FILES, "--training.precision", precision, *options])
    assert resolve(arguments, 5_000, torch.device(device)).training.packing == expected


def test_the_kernel_is_the_devices_and_an_rnn_has_but_one():
    kernels = [
        resolve(RunArguments(), 1, torch.device(device)).training.attn_implementation for device in ("cpu", "mps")
    ]
    assert kernels == ["eager", "sdpa"]
    rnn = RunArguments(model={"model_type": "seq2seq_rnn"})
    assert resolve(rnn, 1, torch.device("mps")).training.attn_implementation == "eager"


@pytest.mark.slow
def test_a_run_says_that_it_packs_and_goes_on_with_it(children, tmp_path):
    recipe, output_dir = write_digits_recipe(tmp_path), tmp_path / "run"
    options = ["--training.precision", "bf16", "--training.max_steps", "8"]
    assert children.run(recipe, output_dir, *options, at_event=[".step-8.partial", 1]) == [-9]
    assert "training.packing 64" in children.log(output_dir)
    assert parse_arguments([str(output_dir / "recipe.yaml")]).training.packing == 64
    assert children.run(recipe, output_dir, *options, "--resume") == [0], children.log(output_dir)
