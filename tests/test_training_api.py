"""The trainer as a library: called from Python, its parts used one by one."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset, DatasetDict
from forked_runs import read_metrics, write_digits_recipe

import fun_transformer.training as training
from fun_transformer.training import (
    DataArguments,
    GenerationArguments,
    RunArguments,
    SplitArguments,
    TokenBudgetSampler,
    TokenizerArguments,
    TrainingArguments,
    TrainingLoop,
    build_loop,
    parse_arguments,
    prepare,
    score,
    train,
)
from fun_transformer.training.engine import build_accelerator, choose_threads
from fun_transformer.training.recipe.checks import check
from fun_transformer.training.run.card import describe_data
from fun_transformer.training.tables import OBJECTIVES

BEST = ["--training.metric_for_best_model", "loss"]
SMALL = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}


pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def arguments(tmp_path):
    """A recipe made in Python: words of digits, backwards."""
    write_digits_recipe(tmp_path)
    return RunArguments(
        model={**SMALL, "encoder_attention_heads": 2, "decoder_attention_heads": 2},
        tokenizer=TokenizerArguments(type="char", min_frequency=1),
        data=DataArguments(
            **{name: SplitArguments(dataset=tmp_path / f"{name}.jsonl") for name in ("train", "validation", "test")}
        ),
        training=TrainingArguments(learning_rate=3e-4, batch_tokens=999, max_steps=7, logging_steps=1, threads=1),
        generation=GenerationArguments(metrics=["exact"], max_new_tokens=12),
        output_dir=tmp_path / "run",
    )


@pytest.mark.slow
def test_a_recipe_made_in_python_trains_with_what_it_says(arguments, tmp_path):
    result = train(arguments)
    assert result.folder == tmp_path / "run"
    assert {"loss", "exact"} <= result.scores["test"].keys()
    lines = read_metrics(result.folder, "train")
    assert [line["step"] for line in lines] == list(range(1, 8))
    written = yaml.safe_load((result.folder / "recipe.yaml").read_text(encoding="utf-8"))["training"]
    assert written["learning_rate"] == 3e-4 and written["batch_tokens"] == 999 and written["max_steps"] == 7
    assert written["num_train_epochs"] is None and written["patience"] is None  # one limit is named: only it holds
    assert [name for name, value in written.items() if value == "auto"] == []
    assert arguments.training.warmup_steps == "auto"  # what was given is left as it was


@pytest.mark.slow
def test_no_folder_of_this_machine_is_on_the_card_and_none_in_the_model(arguments, tmp_path):
    command = f"train --data.train.dataset {tmp_path}/train.jsonl --output_dir={tmp_path}/run"
    folder = train(arguments, command).folder / "model"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| data | train.jsonl |" in card and "--output_dir=run" in card
    for path in folder.glob("*.*"):
        if path.suffix in (".md", ".json"):
            assert str(tmp_path) not in path.read_text(encoding="utf-8"), path.name


def test_a_recipe_may_name_its_data_for_the_card(arguments):
    assert describe_data(arguments) == "train.jsonl"
    arguments.data.name = "digits"
    assert describe_data(arguments) == "digits"


@pytest.mark.slow
def test_the_parts_of_a_run_can_be_used_one_by_one(arguments):
    accelerator = build_accelerator(arguments)
    run, report = prepare(arguments, accelerator)
    assert report.splits["train"]["kept"] == len(run.splits["train"])
    with pytest.raises(AttributeError):
        run.objective = None  # frozen
    loop = build_loop(run)
    steps = list(loop.steps(3))
    assert [step.tokens > 0 for step in steps] == [True] * 3 and loop.progress.step == 3
    found = score(run, loop.model, "validation", rows=5)
    assert found.values["loss"] > 0 and len(found.samples) == 5
    assert not (run.output_dir / "checkpoints").exists()


@pytest.mark.slow
def test_a_loop_of_ones_own_with_a_clock_of_ones_own_trains(arguments):
    class Counting(TrainingLoop):
        evaluations = 0

        def __init__(self, *prepared):
            super().__init__(*prepared, clock=lambda: 60.0 * self.progress.step if hasattr(self, "progress") else 0.0)

        def evaluate(self):
            Counting.evaluations += 1
            super().evaluate()

    arguments.training.max_steps, arguments.training.max_minutes = "auto", 5  # a step is a minute
    result = train(arguments, loop=Counting)
    assert read_metrics(result.folder, "train")[-1]["step"] == 5
    assert Counting.evaluations == 1


@pytest.mark.parametrize("name", ["masked_lm", "causal_lm", "token_classification"])
def test_a_budget_counts_each_token_once_where_labels_are_no_tokens_of_their_own(name):
    lengths = np.random.default_rng(0).integers(5, 40, 2000)
    rows = Dataset.from_dict({"source": ["a b"] * 2, "target": ["B-NP O", "O O"]})
    objective = OBJECTIVES[name](DatasetDict(train=rows), TrainingArguments())
    batches = TokenBudgetSampler(lengths, objective.budget(lengths), 4096, seed=0).batches(0)
    tokens = [lengths[batch].sum() for batch in batches]
    assert np.median(tokens) > 0.9 * 4096
    assert max(len(batch) * lengths[batch].max() for batch in batches) <= 4096


def test_a_budget_counts_both_sides_of_a_pair():
    objective = OBJECTIVES["seq2seq"](DatasetDict(), TrainingArguments())
    lengths = np.array([3, 4])
    assert objective.budget(lengths) is lengths


@pytest.mark.parametrize(
    ("threads", "environment", "expected"),
    [
        (3, {"OMP_NUM_THREADS": "2"}, 3),
        ("auto", {"OMP_NUM_THREADS": "2"}, None),  # torch has read it
        ("auto", {"OMP_NUM_THREADS": "1"}, None),
        ("auto", {"OMP_NUM_THREADS": "1", "LOCAL_RANK": "0"}, 4),  # a launcher's 1, which says nothing
        ("auto", {"OMP_NUM_THREADS": "2", "LOCAL_RANK": "0"}, None),
        ("auto", {}, 4),
    ],
)
def test_threads_are_the_recipes_else_the_users_else_all(threads, environment, expected, monkeypatch):
    for name in ("OMP_NUM_THREADS", "LOCAL_RANK", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert choose_threads(threads, processes_here=2, cores=8) == expected


@pytest.mark.slow
def test_the_threads_of_the_recipe_hold(arguments):
    arguments.training.threads = 2
    build_accelerator(arguments)
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_a_dry_run_from_python_writes_nothing(arguments, capsys):
    arguments.dry_run = True
    result = train(arguments)
    assert result.scores == {} and not result.folder.exists()
    assert "tokens a second" in capsys.readouterr().out


@pytest.mark.slow
def test_saving_is_rarer_than_evaluating_where_the_corpus_is_small(tmp_path):
    recipe = write_digits_recipe(tmp_path)
    options = ["--training.eval_steps", "auto", "--training.save_steps", "auto", "--training.max_steps", "120"]
    folder = train(parse_arguments([str(recipe), *options, "--generation.metrics", "[]", *BEST])).folder
    assert len(read_metrics(folder, "validation")) == 3
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-120"]
    state = json.loads((folder / "checkpoints" / "step-120" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["step"] == 120


def test_public_names_are_there():
    assert all(hasattr(training, name) for name in training.__all__)
    assert {"RunArguments", "train", "TrainingLoop", "TokenBudgetSampler", "pad_batch"} <= set(training.__all__)


@pytest.mark.slow
def test_a_run_in_a_thread_trains(arguments):
    with ThreadPoolExecutor(1) as pool:  # signals reach the main thread alone
        assert pool.submit(train, arguments).result().scores["test"]["loss"] > 0


def test_null_is_off_for_lists_too(arguments):
    arguments.training.report_to = None
    arguments.generation.metrics = ""
    checked = check(arguments)
    assert checked.training.report_to == [] and checked.generation.metrics == []


@pytest.mark.parametrize("wrong", [{"a": 1}, "recipe.yaml", None])
def test_what_is_no_recipe_is_refused(wrong):
    with pytest.raises(TypeError, match="RunArguments"):
        train(wrong)
