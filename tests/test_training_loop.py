"""The whole training, on a task that a tiny model learns in seconds: write a word of digits backwards."""

import json
import platform
import signal
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from forked_runs import read_metrics, write_digits_recipe
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline
from transformers.utils import is_flash_attn_2_available

from fun_transformer.training.platform import keep_freed_memory
from fun_transformer.training.recipe.arguments import RunArguments, TrainingArguments
from fun_transformer.training.recipe.model_config import check_kernel, check_packing, problem_with_kernel
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.run.stopping import StopRequest
from fun_transformer.training.train import main, train

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def recipe(tmp_path):
    """Path of a recipe: 300 words of digits, backwards."""
    return write_digits_recipe(tmp_path)


def run(recipe: Path, *options: str) -> dict:
    """The scores of a training in this process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return train(parse_arguments([str(recipe), *options])).scores


@pytest.mark.slow
def test_a_run_leaves_a_model_its_card_its_curve_and_its_metrics(recipe, tmp_path, capsys):
    scores = run(recipe)
    output_dir = tmp_path / "run"
    assert [line["step"] for line in read_metrics(output_dir, "train")] == list(range(1, 13))
    assert [line["step"] for line in read_metrics(output_dir, "validation")] == [4, 8, 12]
    losses = [line["loss"] for line in read_metrics(output_dir, "train")]
    assert losses[-1] < losses[0]
    assert read_metrics(output_dir, "test")[0]["loss"] == scores["test"]["loss"]
    assert {"loss", "perplexity", "exact", "chrf"} <= scores["test"].keys()

    model = AutoModelForSeq2SeqLM.from_pretrained(output_dir / "model")
    tokenizer = AutoTokenizer.from_pretrained(output_dir / "model")
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.max_new_tokens == 12
    output = pipeline("text2text-generation", model=str(output_dir / "model"))("123")
    assert list(output[0]) == ["generated_text"]
    names = {path.name for path in (output_dir / "model").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names

    card = (output_dir / "model" / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(card.split("---")[1])
    values = {m["name"]: m["value"] for m in header["model-index"][0]["results"][0]["metrics"]}
    assert values["exact match (%), test"] == round(scores["test"]["exact"], 4)
    assert "- chrF: `nrefs:1" in card  # the signature of sacreBLEU
    for name in ("training_curve.png", "recipe.yaml", "run.json", "rows.json", "predictions.jsonl"):
        assert (output_dir / name).stat().st_size > 0, name
    assert list((output_dir / "tensorboard").rglob("events.*"))
    assert len((output_dir / "predictions.jsonl").read_text(encoding="utf-8").splitlines()) == 20
    assert not list(output_dir.rglob("*.partial"))
    assert "train" in capsys.readouterr().out  # the table of rows


@pytest.mark.slow
def test_patience_ends_a_run_that_no_longer_improves(recipe, tmp_path):
    # With a learning rate of next to nothing, the first evaluation stays the best.
    options = ["--training.learning_rate", "1e-12", "--training.patience", "2", "--training.max_steps", "1000"]
    run(recipe, *options, "--training.metric_for_best_model", "exact")
    assert [line["step"] for line in read_metrics(tmp_path / "run", "validation")] == [4, 8, 12]


@pytest.mark.slow
def test_bf16_and_gradient_checkpointing_train(recipe, tmp_path):
    run(recipe, "--training.precision", "bf16", "--training.gradient_checkpointing", "true")
    losses = [line["loss"] for line in read_metrics(tmp_path / "run", "train")]
    assert losses[-1] < losses[0]
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run" / "model")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}  # autocast: weights stay exact


def test_a_folder_with_something_in_it_is_refused(recipe, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work", encoding="utf-8")
    assert main([str(recipe)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main([str(recipe), "--overwrite"]) == 2  # not a run of ours: not emptied, told or not
    assert "not a training run" in capsys.readouterr().err
    assert (tmp_path / "run" / "thesis.txt").exists()


def test_resuming_without_a_checkpoint_is_refused(recipe, capsys):
    assert main([str(recipe), "--resume"]) == 2
    assert "no checkpoint" in capsys.readouterr().err


def test_bad_data_is_refused_before_anything_is_written(recipe, tmp_path, capsys):
    (tmp_path / "train.jsonl").write_text('{"source": "1", "target": ""}\n', encoding="utf-8")
    assert main([str(recipe)]) == 2
    assert "bad_rows" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_that_is_too_small_is_refused(recipe, capsys):
    assert main([str(recipe), "--model.vocab_size", "7"]) == 2
    assert "vocab_size=7" in capsys.readouterr().err


@pytest.mark.slow
def test_packed_batches_train_and_count_every_token_once(recipe, tmp_path):
    options = ["--training.max_steps", "40", "--training.num_train_epochs", "1", "--training.logging_steps", "1"]
    run(recipe, "--training.packing", "32", *options)
    packed = read_metrics(tmp_path / "run", "train")
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert packed[-1]["tokens"] == sum(2 * (len(row["source"]) + 1) for row in rows)  # a token a digit, and </s>
    assert packed[-1]["loss"] < packed[0]["loss"]
    run(recipe, "--output_dir", str(tmp_path / "padded"), *options)
    validation = [read_metrics(tmp_path / name, "validation")[-1]["loss"] for name in ("run", "padded")]
    assert abs(validation[0] - validation[1]) < 0.3  # the same data and as many steps, give or take


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("model.encoder_layer_types", "[conv]", "type conv mix"),
        ("model.decoder_layer_types", "[linear_attention]", "type linear_attention mix"),
        ("training.attn_implementation", "flash_attention_2", "does not keep the segments"),
        ("training.r_drop", "5", "reads padded rows"),
        ("objective", "masked_lm", "is for objective: seq2seq"),
    ],
)
def test_what_cannot_be_packed_is_refused_before_anything_is_lost(option, value, message, recipe, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}", encoding="utf-8")
    metric = ["--training.metric_for_best_model", "loss"]
    assert main([str(recipe), "--overwrite", "--training.packing", "32", *metric, f"--{option}", value]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "run" / "run.json").exists()


@pytest.mark.skipif(is_flash_attn_2_available(), reason="it can run here")
@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("flash_attention_2", 'training: Specified `attn_implementation="flash_attention_2"` is not supported here.'),
        ("spda", "Choose one of eager, sdpa, flex_attention. Did you mean sdpa?"),
        ("flex_attention", "training.attn_implementation=flex_attention computes no gradients on a CPU."),
    ],
)
def test_a_kernel_that_cannot_train_is_refused_before_anything_is_read(kernel, message, recipe, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}", encoding="utf-8")
    (tmp_path / "train.jsonl").unlink()
    assert main([str(recipe), "--overwrite", "--training.attn_implementation", kernel]) == 2
    assert message in capsys.readouterr().err
    assert (tmp_path / "run" / "run.json").exists()


def test_an_rnn_cannot_read_packed_rows():
    arguments = RunArguments(model={"model_type": "seq2seq_rnn"}, training=TrainingArguments(packing=32))
    with pytest.raises(ValueError, match=r"^training.packing: .* not seq2seq_rnn"):
        check_packing(arguments, torch.device("cpu"))


def test_a_recipe_of_an_rnn_has_no_fused_kernel():
    arguments = RunArguments(
        model={"model_type": "seq2seq_rnn"}, training=TrainingArguments(attn_implementation="sdpa")
    )
    with pytest.raises(ValueError, match=r"Choose one of eager. A seq2seq_rnn has no such kernel."):
        check_kernel(arguments, torch.device("cpu"))


@pytest.mark.parametrize(
    ("device", "kernel", "settings", "problem"),
    [
        ("cuda", "flex_attention", {}, None),
        ("cuda", "flex_attention", {"attention_dropout": 0.1}, "cannot train with model.attention_dropout"),
        ("cuda", "flex_attention", {"position_embedding_type": "rotary"}, None),
        (
            *("cuda", "flex_attention", {"position_embedding_type": "relative"}),
            "adds no bias to the scores, as the recipe's model.position_embedding_type does",
        ),
        ("cuda", "flash_attention_2", {"precision": "bf16"}, None),
        ("cuda", "flash_attention_2", {"precision": "fp32"}, "needs training.precision bf16 or fp16"),
        ("cpu", "flash_attention_2", {"precision": "bf16"}, "does not run on a CPU"),
        ("cpu", "flex_attention", {}, "computes no gradients on a CPU"),
    ],
)
def test_what_a_kernel_needs_of_device_and_recipe(device, kernel, settings, problem):
    model = {name: settings[name] for name in ("attention_dropout", "position_embedding_type") if name in settings}
    settings = {name: value for name, value in settings.items() if name not in model}
    arguments = RunArguments(model=model, training=TrainingArguments(attn_implementation=kernel, **settings))
    assert problem_with_kernel(arguments, torch.device(device), trains=True) == problem
    if kernel == "flex_attention":
        expected = problem if "position_embedding_type" in model else None
        assert problem_with_kernel(arguments, torch.device(device), trains=False) == expected


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="told to glibc alone")
def test_freed_memory_is_used_again_without_page_faults():
    import resource  # not on every system

    keep_freed_memory()
    faults = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tensors = [torch.zeros(2**22) for _ in range(10)]  # 160 MiB are 40,960 pages
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        del tensors
    assert min(faults[1:]) <= 4096  # of one tensor; a busy system may take pages back in between


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_signal_stops_the_run_where_nobody_reads_what_is_printed(monkeypatch):
    class Closed:
        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

    stop = StopRequest(Accelerator(cpu=True))
    with monkeypatch.context() as context:
        context.setattr(sys, "stdout", Closed())
        stop.on_signal(signal.SIGTERM, None)
    assert stop.received == signal.SIGTERM
