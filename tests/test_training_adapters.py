"""LoRA: what it puts into models of several families, what is saved, what a run with it leaves."""

import dataclasses
import json
import random
import shutil
from types import SimpleNamespace

import pytest
import torch
import yaml
from forked_runs import read_metrics
from tiny_models import WORDS, save_tiny
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from fun_transformer.training import RunArguments, parse_arguments, train
from fun_transformer.training.evaluate import evaluate
from fun_transformer.training.model.adapters import (
    add_lora,
    choose_layers,
    load_trained,
    merge_lora,
    save_trained,
)
from fun_transformer.training.model.averaging import average_models, moving_average
from fun_transformer.training.recipe.arguments import LoraArguments
from fun_transformer.training.recipe.checks import check_trained

peft = pytest.importorskip("peft")

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
LORA = LoraArguments(r=4, alpha=8.0)
SEQ2SEQ = SimpleNamespace(name="seq2seq", predicts=False)
AUTO_LAYERS = {
    "t5": {"q", "k", "v", "o", "wi", "wo"},
    "t5_v1_1": {"q", "k", "v", "o", "wi_0", "wi_1", "wo"},
    "byt5": {"q", "k", "v", "o", "wi", "wo"},
    "marian": {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
    "bart": {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
    "nllb": {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
    "ours": {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"},
}


@pytest.fixture
def family(tmp_path, tiny_model):
    """A function from the name of a family to a tiny model of it, read from its folder, in eval mode."""

    def load(name):
        folder = tmp_path / name
        if name == "ours":
            tiny_model().save_pretrained(folder)
        elif not folder.exists():
            save_tiny(name, folder)
        kind = AutoModelForCausalLM if name == "gpt2" else AutoModelForSeq2SeqLM
        return kind.from_pretrained(folder).eval()

    return load


def logits(model):
    """Logits of a short pair."""
    ids = torch.tensor([[5, 6, 7, 8]])
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, **more).logits


@torch.no_grad()
def shake(model):
    """Give LoRA's second matrices, which begin at zero, other values."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.2)
    return model


@pytest.mark.parametrize("name", AUTO_LAYERS)
def test_auto_is_every_layer_of_attention_and_feed_forward(name, family):
    layers = choose_layers(family(name), "auto")
    assert {layer.rpartition(".")[2] for layer in layers} == AUTO_LAYERS[name]
    assert any("encoder" in layer for layer in layers) and any("decoder" in layer for layer in layers)


@pytest.mark.parametrize("name", [*AUTO_LAYERS, "gpt2"])
def test_an_adapter_begins_as_the_model_and_can_be_read_beside_its_base_or_merged(name, family, tmp_path):
    model = family(name)
    before = logits(model)
    add_lora(model, LORA, SEQ2SEQ)
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-5)
    adapted = logits(shake(model))
    assert not torch.allclose(adapted, before, atol=1e-2)

    model.save_pretrained(tmp_path / "adapter")
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert saved["base_model_name_or_path"] == str(tmp_path / name)
    torch.testing.assert_close(logits(type(model).from_pretrained(tmp_path / "adapter").eval()), adapted)
    beside = peft.PeftModel.from_pretrained(family(name), tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(beside), adapted)

    merge_lora(model).save_pretrained(tmp_path / "merged")
    again = type(model).from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(again), adapted, rtol=1e-4, atol=1e-4)
    assert {type(module).__module__.split(".")[0] for module in again.modules()} & {"peft"} == set()


def test_what_is_saved_are_the_trained_weights_and_their_mean_is_that_of_the_adapters(family, tmp_path):
    model = add_and_return(family("marian"))
    size = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    for step in (1, 2):
        save_trained(shake(model).state_dict(), tmp_path / f"step-{step}")
    held = {name: weight for name, weight in model.state_dict().items() if name != "final_logits_bias"}
    assert sum(weight.numel() for weight in held.values()) == size and all("lora" in name for name in held)
    first, second = (load_trained(add_and_return(family("marian")), tmp_path / f"step-{step}") for step in (1, 2))
    folders = [tmp_path / "step-1", tmp_path / "step-2"]
    mean = average_models(folders, lambda folder: load_trained(add_and_return(family("marian")), folder))
    for (name, weight), one, other in zip(mean.named_parameters(), first.parameters(), second.parameters()):
        assert torch.equal(weight, ((one.double() + other.double()) / 2).float()), name


def add_and_return(model):
    """Put an adapter into a model and return it."""
    add_lora(model, LORA, SEQ2SEQ)
    return model


def test_a_running_mean_follows_the_adapter_alone(family):
    model = add_and_return(family("t5"))
    average = moving_average(model, 0.5)
    shake(model)
    average.update_parameters(model)
    named = dict(average.module.named_parameters())
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(named[name], parameter), name
    moved = [name for name, p in model.named_parameters() if not torch.equal(named[name], p)]
    assert moved and all("lora_B" in name for name in moved)
    assert all("lora" in name or "n_averaged" in name for name in average.state_dict())


def test_gradient_checkpointing_gives_the_same_gradients(family):
    found = []
    for checkpointing in (False, True):
        model = family("bart")
        if checkpointing:
            model.gradient_checkpointing_enable()
        torch.manual_seed(0)
        add_lora(model, LORA, SEQ2SEQ)
        shake(model)
        ids = torch.tensor([[5, 6, 7, 8]])
        model.train()
        for module in model.modules():
            if hasattr(module, "dropout") and isinstance(module.dropout, float):
                module.dropout = 0.0
        model(input_ids=ids, labels=ids).loss.backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert all(gradient is not None for gradient in found[1].values())
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_the_head_of_a_classifier_is_trained_and_saved_with_the_adapter(tmp_path):
    folder = save_tiny("bert", tmp_path / "bert")
    objective = SimpleNamespace(name="sequence_classification", predicts=True)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
    add_lora(model, LORA, objective)
    assert any("classifier" in name for name, p in model.named_parameters() if p.requires_grad)
    adapted = logits(shake(model))
    model.save_pretrained(tmp_path / "adapter")
    again = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    again = peft.PeftModel.from_pretrained(again, tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(again), adapted)
    torch.testing.assert_close(logits(merge_lora(model)), adapted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("wanted", "left_out", "message"),
    [
        (["q_prj"], [], "no linear layer q_prj. Did you mean q_proj"),
        (["fc1"], ["model.encoder", "model.decoder"], "no layer is left to adapt"),
    ],
)
def test_layers_that_are_not_there_are_refused(wanted, left_out, message, family):
    with pytest.raises(ValueError, match=message):
        choose_layers(family("marian"), wanted, left_out)


def test_layers_of_frozen_modules_get_no_matrices(family):
    layers = choose_layers(family("marian"), ["q_proj", "fc1"], ["model.encoder"])
    assert layers and all(layer.startswith("model.decoder") for layer in layers)


# ── Whole runs ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def recipe(tmp_path):
    """A function from the sections of a recipe to its path: a tiny Marian learns to reverse words."""
    save_tiny("marian", tmp_path / "base")
    rng = random.Random(0)
    rows = [rng.choices(WORDS, k=rng.randint(2, 6)) for _ in range(200)]
    for name, part in (("train", rows[:160]), ("validation", rows[160:180]), ("test", rows[180:])):
        lines = (json.dumps({"source": " ".join(row), "target": " ".join(row[::-1])}) for row in part)
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def write(training=None, **sections):
        settings = {"max_steps": 12, "batch_tokens": 256, "learning_rate": 3e-3, "precision": "fp32", "report_to": []}
        settings |= {"warmup_steps": 1, "eval_steps": 4, "save_steps": 4, "logging_steps": 1, "lora": {"r": 4}}
        settings |= training or {}
        data = {name: {"dataset": str(tmp_path / f"{name}.jsonl")} for name in ("train", "validation", "test")}
        text = {"model": {"path": str(tmp_path / "base")}, "data": data, "training": settings, **sections}
        text["generation"] = {"metrics": ["chrf"], "max_new_tokens": 8, "eval_rows": 10}
        text["output_dir"] = str(tmp_path / "run")
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
        return tmp_path / "recipe.yaml"

    return write


@pytest.mark.slow
@pytest.mark.parametrize(
    "training", [{}, {"average_models": 2, "average": "last"}, {"ema_decay": 0.9}], ids=["best", "mean of 2", "EMA"]
)
def test_a_run_leaves_an_adapter_that_names_its_base(training, recipe, tmp_path, capsys):
    result = train(parse_arguments([str(recipe(training))]))
    said = capsys.readouterr().out
    assert "LoRA of rank 4, alpha 8, on 16 layers: fc1, fc2, k_proj, out_proj, q_proj, v_proj." in said
    assert "parameters are trained" in said
    folder = result.folder / "model"
    assert (folder / "adapter_model.safetensors").is_file() and not (folder / "model.safetensors").exists()
    saved = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert saved["base_model_name_or_path"] == str(tmp_path / "base")
    adapted = AutoModelForSeq2SeqLM.from_pretrained(folder)
    base = dict(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base").named_parameters())
    for name, weight in adapted.named_parameters():
        if "lora" not in name:
            assert torch.equal(weight, base[name.replace(".base_layer", "")]), name
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| trained weights | LoRA of rank 4, alpha 8: an adapter, which needs pip install peft |" in card
    losses = [line["loss"] for line in read_metrics(result.folder, "validation")]
    assert losses[-1] < losses[0]
    shutil.rmtree(result.folder / "checkpoints")
    train(parse_arguments([str(recipe(training)), "--resume", "auto"]))
    assert "is finished" in capsys.readouterr().out


@pytest.mark.slow
def test_merge_leaves_a_whole_model_that_needs_neither_peft_nor_us(recipe, tmp_path):
    result = train(parse_arguments([str(recipe()), "--training.lora.merge", "true"]))
    folder = result.folder / "model"
    assert (folder / "model.safetensors").is_file() and not (folder / "adapter_config.json").exists()
    merged = AutoModelForSeq2SeqLM.from_pretrained(folder)
    base = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base")
    assert {n: p.shape for n, p in merged.named_parameters()} == {n: p.shape for n, p in base.named_parameters()}
    assert not torch.equal(merged.state_dict()["model.encoder.layers.0.fc1.weight"],
                           base.state_dict()["model.encoder.layers.0.fc1.weight"])  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--training.ema_decay", "0.9"]], ids=["weights", "EMA"])
def test_a_killed_run_goes_on_bit_equal_from_small_checkpoints(options, recipe, children, tmp_path):
    path = recipe()
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert children.run(path, whole, *options) == [0], children.log(whole)
    assert children.run(path, killed, *options, at_event=["step-12.partial", 2]) == [-9], children.log(killed)
    assert children.run(path, killed, *options, "--resume") == [0], children.log(killed)
    one, other = ((f / "model" / "adapter_model.safetensors").read_bytes() for f in (whole, killed))
    assert one == other
    assert read_metrics(whole, "train") == read_metrics(killed, "train")
    size = sum(p.numel() for p in AutoModelForSeq2SeqLM.from_pretrained(whole / "model").parameters())
    states = [torch.load(path) for path in (whole / "checkpoints" / "step-12").glob("pytorch_model*.bin")]
    assert len(states) == 1
    assert all("lora" in name or name == "final_logits_bias" for name in states[0])
    assert sum(weight.numel() for weight in states[0].values()) < size


@pytest.mark.slow
def test_another_base_is_refused_when_a_run_goes_on(recipe, tmp_path):
    path = recipe({"max_steps": 4})
    train(parse_arguments([str(path)]))
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        model.model.encoder.layers[0].fc1.weight[0, 0] += 1
    model.save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="holds other weights than when this run began"):
        train(parse_arguments([str(path), "--resume", "true", "--training.max_steps", "8"]))


@pytest.mark.slow
def test_an_adapter_is_scored_again_as_the_run_did_and_is_no_model_to_start_from(recipe):
    path = recipe({"max_steps": 4})
    result = train(parse_arguments([str(path)]))
    again = evaluate(parse_arguments([str(path)]), result.folder / "model")
    assert {name: again.values[name] for name in ("loss", "chrf")} == pytest.approx(
        {name: result.scores["test"][name] for name in ("loss", "chrf")}, rel=1e-6
    )
    for folder in (result.folder, result.folder / "model"):
        with pytest.raises(ValueError, match="holds an adapter and not a whole model"):
            train(parse_arguments([str(path), "--model.path", str(folder), "--output_dir", str(result.folder) + "2"]))


@pytest.mark.slow
def test_two_processes_train_one_adapter(recipe, children, tmp_path):
    path, folder = recipe(), tmp_path / "two"
    assert children.run(path, folder, processes=2) == [0, 0], children.log(folder)
    losses = [line["loss"] for line in read_metrics(folder, "validation")]
    assert losses[-1] < losses[0]
    assert (folder / "model" / "adapter_model.safetensors").is_file()


# ── Bad input ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("lora", "others", "path", "message"),
    [
        ({"alpha": 16.0}, {}, "base", "training.lora.alpha is named, but not the rank"),
        ({"r": 4}, {}, None, "training.lora adapts a trained model. Name one, model.path"),
        ({"r": 4}, {"tokenizer.new_tokens": ["a"]}, "base", "new_tokens give .* training.lora.merge: true"),
        (
            {"r": 4},
            {"objective": "sequence_classification"},
            "base",
            "labels, .*: write a whole model: training.lora.merge: true",
        ),
        (
            {},
            {"tokenizer.new_tokens": ["a"]},
            None,
            "tokenizer.new_tokens are added to the tokenizer of a trained model",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(lora, others, path, message):

    arguments = RunArguments(model={"path": path} if path else {})
    arguments.training.lora = dataclasses.replace(arguments.training.lora, **lora)
    arguments.tokenizer.new_tokens = others.get("tokenizer.new_tokens", [])
    arguments.objective = others.get("objective", "seq2seq")
    with pytest.raises(ValueError, match=message):
        check_trained(arguments)


def test_without_peft_the_error_says_what_to_install(monkeypatch):
    import fun_transformer.training.recipe.checks as checks

    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    arguments = RunArguments(model={"path": "base"})
    arguments.training.lora.r = 4
    with pytest.raises(ValueError, match=r"pip install 'fun-transformer\[lora\]'"):
        check_trained(arguments)
