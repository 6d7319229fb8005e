"""Freezing: which weights stay as they are, in models of several families."""

import json
import random

import pytest
import torch
import yaml
from tiny_models import WORDS, save_tiny
from transformers import AutoModelForSeq2SeqLM

from fun_transformer.training import TrainingArguments, parse_arguments, train
from fun_transformer.training.model.trainable import freeze
from fun_transformer.training.optimization import build_optimizer

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
FAMILIES = ["t5", "t5_v1_1", "marian", "bart", "nllb", "ours"]


@pytest.fixture
def family(tmp_path, tiny_model):
    """A function from the name of a family to a tiny model of it."""

    def load(name):
        return tiny_model() if name == "ours" else AutoModelForSeq2SeqLM.from_pretrained(save_tiny(name, tmp_path))

    return load


def body(model):
    """The module that holds encoder and decoder."""
    return model.base_model


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("frozen", ["encoder", "decoder", "embeddings"])
def test_frozen_weights_stay_bit_equal_while_the_others_move(name, frozen, family):
    model = family(name).train()
    freeze(model, [frozen])
    inside = {
        "encoder": lambda: body(model).encoder.parameters(),
        "decoder": lambda: body(model).decoder.parameters(),
        "embeddings": lambda: [model.get_input_embeddings().weight, body(model).decoder.get_input_embeddings().weight],
    }[frozen]
    still = {id(parameter) for parameter in inside()}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(model, TrainingArguments(learning_rate=1e-2))
    given = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert not given & still
    ids = torch.tensor([[5, 6, 7, 8]])
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {id(p) for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert not moved & still and len(moved) > 3


@pytest.mark.parametrize("name", ["marian", "t5", "ours"])
def test_a_path_inside_a_module_freezes_that_alone(name, family):
    model = family(name)
    path = "encoder.block.0" if name == "t5" else "encoder.layers.0"
    freeze(model, [path])
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    positions = {name for name in frozen if "embed_positions" in name}  # sinusoids never train
    assert frozen - positions
    assert all(f"{path}." in name for name in frozen - positions)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["encodr"], "no module encodr. Did you mean encoder"),
        (["embedings"], "Did you mean embeddings"),
        (["encoder.layers.7"], "no module encoder.layers.7. Did you mean encoder.layers.0"),
        (["model"], "leaves no weight of the model to train"),
        (["encoder", "decoder"], "leaves no weight of the model to train"),
    ],
)
def test_what_cannot_be_frozen_is_refused(wanted, message, family):
    with pytest.raises(ValueError, match=message):
        freeze(family("marian"), wanted)


@pytest.mark.slow
def test_a_run_leaves_frozen_weights_alone_and_says_how_many_train(tmp_path, capsys):
    base = save_tiny("bart", tmp_path / "base")
    rng = random.Random(0)
    lines = [json.dumps({"source": " ".join(rng.choices(WORDS, k=3)), "target": "w1 w2"}) for _ in range(60)]
    (tmp_path / "train.jsonl").write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")
    recipe = {
        "model": {"path": str(base)},
        "data": {"train": {"dataset": str(tmp_path / "train.jsonl")}},
        "training": {"freeze": ["encoder", "embeddings"], "max_steps": 3, "warmup_steps": 1, "report_to": []},
        "generation": {"metrics": [], "max_new_tokens": 4},
        "output_dir": str(tmp_path / "run"),
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    folder = train(parse_arguments([str(tmp_path / "recipe.yaml")])).folder / "model"
    before, after = (dict(AutoModelForSeq2SeqLM.from_pretrained(path).named_parameters()) for path in (base, folder))
    frozen = [name for name in before if "model.encoder." in name or "shared" in name]
    assert all(torch.equal(before[name], after[name]) for name in frozen) and len(frozen) > 10
    assert not all(torch.equal(before[name], after[name]) for name in before if name not in frozen)
    total = sum(parameter.numel() for parameter in before.values())
    trained = total - sum(before[name].numel() for name in frozen)
    said = capsys.readouterr().out
    assert f"{trained:,} of {total:,} parameters are trained" in said and "Frozen: encoder, embeddings." in said
