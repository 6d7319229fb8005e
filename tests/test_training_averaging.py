"""Means of weights: of saved models, and running."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import AutoTokenizer

from fun_transformer import FunTransformerForConditionalGeneration
from training.averaging import MovingAverage, average_models, main
from training.train_tokenizer import train_tokenizer


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
    average = MovingAverage(weight, decay=0.25)
    expected = 1.0
    for step in range(1, 6):
        nn.init.constant_(weight.weight, float(step))
        average.update()
        decay = min(0.25, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    with average.applied():
        assert_close(weight.weight.data, torch.full((1, 2), expected))
    assert_close(weight.weight.data, torch.full((1, 2), 5.0))


def test_the_weights_come_back_even_after_an_error():
    layer = nn.Linear(2, 2)
    before, average = layer.weight.detach().clone(), MovingAverage(layer, 0.9)
    nn.init.zeros_(layer.weight)
    with pytest.raises(RuntimeError), average.applied():
        assert torch.equal(layer.weight, before)
        raise RuntimeError
    assert not layer.weight.any()


def test_a_restored_running_mean_goes_on_alike():
    torch.manual_seed(0)
    layer = nn.Linear(3, 3)
    first = MovingAverage(layer, 0.5)
    nn.init.ones_(layer.weight)
    first.update()
    second = MovingAverage(layer, 0.5)
    second.load_state_dict(first.state_dict())
    for average in (first, second):
        average.update()
    assert_close(first.means, second.means, rtol=0, atol=0)


def test_the_command_writes_a_model_that_loads(three_models, tmp_path):
    folders, states = three_models
    train_tokenizer(["abcdefgh"], type="char").save_pretrained(folders[0])
    assert main([*map(str, folders), "--output_dir", str(tmp_path / "mean")]) == 0
    model = FunTransformerForConditionalGeneration.from_pretrained(tmp_path / "mean")
    assert_close(model.lm_head.weight.data, sum(state["lm_head.weight"] for state in states) / 3)
    assert AutoTokenizer.from_pretrained(tmp_path / "mean").tokenize("ab")


def test_the_command_refuses_to_overwrite(three_models, capsys):
    folder = str(three_models[0][0])
    assert main([folder, "--output_dir", folder]) == 2
    assert "Name another folder" in capsys.readouterr().err
