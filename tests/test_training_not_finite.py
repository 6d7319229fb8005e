"""Weights train in float32, whatever a folder says; a model whose scores are not finite is not written."""

import json
import math
from functools import partial

import pytest
import torch
from accelerate.state import AcceleratorState
from forked_runs import read_metrics, write_digits_recipe
from transformers import AutoModelForSeq2SeqLM

from fun_transformer.training import TrainingLoop, parse_arguments, prepare, train
from fun_transformer.training.engine import build_accelerator
from fun_transformer.training.evaluate import main as evaluate
from fun_transformer.training.loop import decides_alone
from fun_transformer.training.model.building import build_model
from fun_transformer.training.train import main

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def recipe(tmp_path):
    """Path of a recipe: 300 words of digits, backwards."""
    return write_digits_recipe(tmp_path)


def run_main(*words: object, loop: type[TrainingLoop] = TrainingLoop) -> int:
    """Train as in a process of its own; return the exit code."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return main([str(word) for word in words], partial(train, loop=loop))


@pytest.mark.parametrize("named", [{"dtype": "float16"}, {"torch_dtype": "bfloat16"}])
def test_a_config_saved_in_half_precision_gives_a_float32_model_to_train(named, recipe, tmp_path):
    config = {"d_model": 16, "quantization_config": {"quant_method": "torchao"}, **named}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    arguments = parse_arguments([str(recipe), f"--model.config={tmp_path / 'config.json'}"])
    run, _ = prepare(arguments, build_accelerator(arguments))
    model = build_model(run)
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}
    assert model.config.dtype == torch.float32 and not hasattr(model.config, "quantization_config")


def test_half_precision_asked_for_by_name_is_refused(recipe, tmp_path, capsys):
    assert run_main(recipe, "--model.dtype", "float16") == 2
    assert "model.dtype=float16: weights train in float32" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_that_begins_with_a_float16_folder_learns_and_is_scored_alike_later(precision, recipe, tmp_path):
    assert run_main(recipe, "--output_dir", tmp_path / "first") == 0
    half = tmp_path / "half"
    AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "first/model", dtype=torch.float16).save_pretrained(half)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (half / file).write_bytes((tmp_path / "first/model" / file).read_bytes())
    options = [f"--model.config={half / 'config.json'}", f"--training.init_from={half}", f"--tokenizer.path={half}"]
    options += ["--training.precision", precision, "--training.average_models", "2"]
    assert run_main(recipe, *options) == 0
    losses = [line["loss"] for line in read_metrics(tmp_path / "run", "train")]
    assert max(losses) < read_metrics(tmp_path / "first", "train")[0]["loss"]
    kept = list((tmp_path / "run/models").glob("step-*"))
    for folder in (tmp_path / "run/model", *kept):
        assert AutoModelForSeq2SeqLM.from_pretrained(folder).dtype == torch.float32
    assert len(kept) == 2
    AcceleratorState._reset_state(reset_partial_state=True)
    scores = tmp_path / "scores.json"
    assert evaluate([str(tmp_path / "run"), "--model", str(half), "--output", str(scores)]) == 0
    first = read_metrics(tmp_path / "first", "test")[0]["loss"]
    assert json.loads(scores.read_text(encoding="utf-8"))["loss"] == pytest.approx(first, rel=0.02)


class Broken(TrainingLoop):
    """A training whose weights break in a step after which it would be over."""

    def train_step(self, done):
        step = super().train_step(done)
        if self.progress.step == 12:
            torch.nn.utils.vector_to_parameters(
                torch.full_like(torch.nn.utils.parameters_to_vector(self.model.parameters()), math.nan),
                self.model.parameters(),
            )
        return step


@pytest.mark.slow
@pytest.mark.parametrize("average", [[], ["--training.average=last", "--training.average_models=2"]])
def test_a_run_whose_last_scores_are_not_finite_writes_no_model(average, recipe, tmp_path, capsys):
    output_dir = tmp_path / "run"
    assert run_main(recipe, *average, loop=Broken) == 1
    good, said = output_dir / "checkpoints/step-8", capsys.readouterr().err
    assert "Not finite on the validation split after step 12: loss" in said and "No model was written" in said
    assert f"--resume {good} --allow_changes" in said and f"are in {output_dir / 'models/step-'}" in said
    assert not (output_dir / "model").exists() and not (output_dir / "models/step-12").exists()
    assert run_main(recipe, *average, "--resume") == 1  # which has the same weights
    assert not (output_dir / "model").exists()
    assert run_main(recipe, *average, "--resume", good) == 0
    assert (output_dir / "model/config.json").is_file()


METRIC = """
import math
from fun_transformer.training import ReferenceMetric, register_metric

@register_metric
class Breaks(ReferenceMetric):
    name, title = "breaks", "a score that has no value on twenty rows"

    def score(self, predictions, references):
        return math.inf if len(predictions) == 20 else 1.0
"""


@pytest.mark.slow
def test_a_final_model_whose_test_scores_are_not_finite_is_not_written(recipe, tmp_path, capsys):
    (tmp_path / "breaks.py").write_text(METRIC, encoding="utf-8")
    options = ["--plugin", tmp_path / "breaks.py", "--generation.metrics=exact,breaks", "--generation.eval_rows=10"]
    assert run_main(recipe, *options) == 1
    assert "Not finite on the test split after step 12: breaks." in capsys.readouterr().err
    assert not (tmp_path / "run/model").exists()


class Poisoned(TrainingLoop):
    """A training in which two steps are bad, and all others good."""

    poisoned = (3, 6)

    def count(self, taken):
        items, tokens = super().count(taken)
        return (items if self.progress.step + 1 not in self.poisoned else math.nan), tokens


class ReadLate(Poisoned):
    """The same as it runs on a GPU: the optimizer decides, the host reads it a step later."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.reads_late = True


class ReadTooLate(ReadLate):
    poisoned = (5, 6, 7)


def test_reading_late_what_was_bad_changes_nothing(recipe, tmp_path):
    saved = {}
    for loop in (Poisoned, ReadLate):
        output_dir = tmp_path / loop.__name__
        assert run_main(recipe, "--output_dir", output_dir, loop=loop) == 0
        lines = [{**line, "seconds": 0, "tokens_per_second": 0} for line in read_metrics(output_dir, "train")]
        state = json.loads((output_dir / "checkpoints/step-12/trainer_state.json").read_text(encoding="utf-8"))
        weights = [
            (output_dir / name).read_bytes()
            for name in ("model/model.safetensors", "checkpoints/step-12/optimizer.bin")
        ]
        saved[loop] = [line["loss"] for line in lines], state["skipped_steps"], state["unlogged"], weights
        AcceleratorState._reset_state(reset_partial_state=True)
    assert saved[Poisoned] == saved[ReadLate]
    assert saved[ReadLate][1] == 2


def test_reading_late_stops_a_run_with_the_rows_of_its_bad_steps(recipe, tmp_path, capsys):
    assert run_main(recipe, "--training.max_bad_steps", "3", loop=ReadTooLate) == 1
    assert "at step 7, for 3 step(s) in a row" in capsys.readouterr().err
    assert json.loads((tmp_path / "run/bad_batch.json").read_text(encoding="utf-8"))["step"] == 7


def test_only_optimizers_that_decide_alone_are_read_late():
    weight = torch.nn.Parameter(torch.zeros(2))
    assert decides_alone(torch.optim.AdamW([weight], fused=True))
    assert not decides_alone(torch.optim.AdamW([weight]))
    assert not decides_alone(torch.optim.SGD([weight]))
