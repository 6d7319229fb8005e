"""What makes a model better than its training alone: means of weights, saved or running, and R-Drop."""

import math
import struct

import pytest
import torch
from accelerate.state import AcceleratorState
from forked_runs import read_metrics, write_digits_recipe
from torch import nn
from torch.nn.functional import kl_div
from torch.testing import assert_close
from transformers import AutoTokenizer

from fun_transformer import FunTransformerForConditionalGeneration
from fun_transformer.training.model.averaging import average_models, main, moving_average
from fun_transformer.training.objectives import r_drop_loss
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.train import train
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer


@pytest.fixture
def three_models(tiny_model, tmp_path):
    """Folders of three models of one configuration, and their weights."""
    folders, states = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        model = FunTransformerForConditionalGeneration(tiny_model().config)
        model.save_pretrained(tmp_path / str(seed))
        folders.append(tmp_path / str(seed))
        states.append(model.state_dict())
    return folders, states


def test_the_mean_of_models_is_the_mean_of_each_weight(three_models):
    folders, states = three_models
    mean = average_models(folders, FunTransformerForConditionalGeneration.from_pretrained)
    assert mean.lm_head.weight is mean.get_encoder().embed_tokens.weight  # still tied
    for name, weight in mean.state_dict().items():
        assert_close(weight, sum(state[name] for state in states) / 3)


def test_models_of_different_sizes_have_no_mean(three_models, tiny_model, tmp_path):
    tiny_model(encoder_ffn_dim=8).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="different parameters"):
        average_models(
            [three_models[0][0], tmp_path / "other"], FunTransformerForConditionalGeneration.from_pretrained
        )


def test_the_running_mean_follows_its_formula():
    weight = nn.Linear(2, 1, bias=False)
    nn.init.constant_(weight.weight, 1.0)
    average = moving_average(weight, decay=0.25)
    expected = 1.0
    for step in range(1, 6):
        nn.init.constant_(weight.weight, float(step))
        average.update_parameters(weight)
        decay = min(0.25, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert_close(average.module.weight.data, torch.full((1, 2), expected))
    assert_close(weight.weight.data, torch.full((1, 2), 5.0))


@pytest.mark.parametrize("version", ["this", "0.1.0"])
def test_a_restored_running_mean_goes_on_alike(version):
    torch.manual_seed(0)
    layer = nn.Linear(3, 3)
    first, second = moving_average(layer, 0.5), moving_average(layer, 0.5)
    nn.init.ones_(layer.weight)
    first.update_parameters(layer)
    state = first.state_dict()
    if version == "0.1.0":
        state = {"steps": 1, "means": [parameter.detach().clone() for parameter in first.parameters()]}
    second.load_state_dict(state)
    for average in (first, second):
        average.update_parameters(layer)
    for found, expected in zip(second.parameters(), first.parameters(), strict=True):
        assert_close(found, expected, rtol=0, atol=0)
    assert not torch.equal(first.module.weight, layer.weight)


def test_the_command_writes_a_model_that_loads(three_models, tmp_path):
    folders, states = three_models
    train_tokenizer(["abcdefgh"], settings=TokenizerSettings(type="char")).save_pretrained(folders[0])
    assert main([*map(str, folders), "--output_dir", str(tmp_path / "mean")]) == 0
    model = FunTransformerForConditionalGeneration.from_pretrained(tmp_path / "mean")
    assert_close(model.lm_head.weight.data, sum(state["lm_head.weight"] for state in states) / 3)
    assert AutoTokenizer.from_pretrained(tmp_path / "mean").tokenize("ab")


def test_the_command_refuses_to_overwrite(three_models, capsys):
    folder = str(three_models[0][0])
    assert main([folder, "--output_dir", folder]) == 2
    assert "Name another folder" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["truncated", "infinite", "gone"])
def test_the_command_refuses_a_damaged_model(three_models, damage, tmp_path, capsys):
    folders, _ = three_models
    weights = folders[1] / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:1000] if damage == "truncated" else content[:-4] + struct.pack("<f", math.inf))
    if damage == "gone":
        weights.unlink()
    assert main([*map(str, folders), "--output_dir", str(tmp_path / "mean")]) == 2
    assert f"The model {folders[1]} is not readable" in capsys.readouterr().err
    assert not (tmp_path / "mean").exists()


def train_digits(folder, *options):
    """Train on words of digits in this process; returns the run's folder."""
    AcceleratorState._reset_state(reset_partial_state=True)
    recipe = write_digits_recipe(folder)
    train(parse_arguments([str(recipe), *options]))
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("average", ["best", "last"])
def test_the_final_model_is_the_mean_of_those_saved(average, tmp_path):
    options = [
        "--training.average",
        average,
        "--training.average_models",
        "2",
        "--training.metric_for_best_model",
        "loss",
    ]
    run = train_digits(tmp_path, *options, "--training.learning_rate", "1e-1", "--training.max_steps", "16")
    scores = {line["step"]: line["loss"] for line in read_metrics(run, "validation")}
    steps = sorted(scores, key=scores.get)[:2] if average == "best" else [12, 16]
    assert {path.name for path in (run / "models").iterdir()} >= {f"step-{step}" for step in steps}
    load = FunTransformerForConditionalGeneration.from_pretrained
    expected = average_models([run / "models" / f"step-{step}" for step in steps], load).state_dict()
    for name, weight in load(run / "model").state_dict().items():
        assert torch.equal(weight, expected[name])


@pytest.mark.slow
def test_a_run_with_a_running_mean_resumes_exactly(tmp_path):
    """The mean is what is saved and scored; it goes through the checkpoint."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    ema = ["--training.ema_decay", "0.9", "--training.metric_for_best_model", "loss"]
    ema += ["--training.schedule", "inverse_sqrt"]  # that does not depend on the length of the run
    whole = train_digits(tmp_path / "whole", *ema)
    train_digits(tmp_path / "parts", *ema, "--training.max_steps", "8")
    parts = train_digits(tmp_path / "parts", *ema, "--resume")
    load = FunTransformerForConditionalGeneration.from_pretrained
    weights = torch.load(whole / "checkpoints" / "step-12" / "pytorch_model.bin")
    mean = torch.load(whole / "checkpoints" / "step-12" / "custom_checkpoint_0.pkl")
    model = load(whole / "models" / "step-12")
    assert not torch.equal(model.lm_head.weight, weights["lm_head.weight"])
    resumed = load(parts / "models" / "step-12")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, mean[f"module.{name}"])
    for parameter, again in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(parameter, again)


def test_r_drop_adds_the_difference_of_two_passes(tiny_model, tiny_batch):
    model = tiny_model(dropout=0.3).train()
    items = 9.0
    torch.manual_seed(3)
    loss = r_drop_loss(model, tiny_batch, items, alpha=5.0)
    torch.manual_seed(3)
    twice = {name: torch.cat([tensor, tensor]) for name, tensor in tiny_batch.items()}
    outputs = model(**twice, skip_logits=False)
    kept = tiny_batch["labels"] != -100
    p, q = (half[kept].log_softmax(-1) for half in outputs.logits.chunk(2))
    divergence = sum(kl_div(a, b, reduction="sum", log_target=True) for a, b in ((p, q), (q, p)))
    expected = outputs.loss * kept.sum() / items + 5.0 * divergence / (4 * items)
    assert_close(loss, expected)
    assert divergence > 0.01


def test_r_drop_without_dropout_changes_nothing(tiny_model, tiny_batch):
    model = tiny_model(dropout=0.0).train()
    assert_close(r_drop_loss(model, tiny_batch, 9.0, 5.0), model(**tiny_batch, num_items_in_batch=9.0).loss)
