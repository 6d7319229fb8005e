"""A model begins with the weights of another, and with word vectors, as far as they fit; the report says how far."""

import pytest
import torch
from accelerate.state import AcceleratorState
from forked_runs import write_digits_recipe
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from fun_transformer import (
    FunTransformerForCausalLM,
    FunTransformerForConditionalGeneration,
    FunTransformerForMaskedLM,
    FunTransformerForSequenceClassification,
)
from fun_transformer.training.model.initialization import initialize, prefixes, take_weights
from fun_transformer.training.recipe.arguments import TrainingArguments
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.train import train
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer


def save(model, folder, words: str = "a b c d e"):
    """A model's folder, with the tokenizer whose words are these."""
    tokenizer = train_tokenizer([words], settings=TokenizerSettings(type="word", vocab_size=40))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.mark.parametrize(
    ("kind", "stack", "fresh"),
    [
        (FunTransformerForMaskedLM, "encoder", "model.decoder.layers; not needed: none"),
        (
            FunTransformerForCausalLM,
            "decoder",
            "model.decoder.layers.*.encoder_attn, model.decoder.layers.*.encoder_attn_layer_norm, "
            "model.encoder.layers; not needed: none",
        ),
    ],
)
def test_a_translator_takes_a_pretrained_stack_and_says_what_is_fresh(kind, stack, fresh, tiny_config, tmp_path):
    pretrained = kind(tiny_config())
    tokenizer = save(pretrained, tmp_path)
    model = FunTransformerForConditionalGeneration(tiny_config())
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    report = take_weights(model, tokenizer, tmp_path)
    assert report.endswith(f"not in it: {fresh}.")
    theirs, taken = pretrained.state_dict(), 0
    for name, weights in model.state_dict().items():
        if name in theirs or name.endswith("embed_tokens.weight") or name == "lm_head.weight":
            assert torch.equal(weights, theirs.get(name, theirs[f"model.{stack}.embed_tokens.weight"]))
            taken += 1
        else:
            assert torch.equal(weights, before[name])
    assert report.startswith(f"{taken} of {len(before)} weights were taken from {tmp_path}")


def test_a_translator_takes_the_encoder_of_one_model_and_the_decoder_of_another(tiny_config, tmp_path):
    config = tiny_config(share_encoder_decoder_embeddings=False)
    bert, gpt = FunTransformerForMaskedLM(config), FunTransformerForCausalLM(config)
    tokenizer = save(bert, tmp_path / "bert")
    save(gpt, tmp_path / "gpt")
    model = FunTransformerForConditionalGeneration(config)
    settings = TrainingArguments(init_from=[str(tmp_path / "bert"), str(tmp_path / "gpt")])
    initialize(model, tokenizer, settings)
    for theirs in (bert.model.encoder, gpt.model.decoder):
        ours = model.get_encoder() if theirs is bert.model.encoder else model.get_decoder()
        weights = ours.state_dict()
        assert all(torch.equal(weights[name], tensor) for name, tensor in theirs.state_dict().items())


def test_a_classifier_takes_a_pretrained_encoder(tiny_config, tmp_path):
    pretrained = FunTransformerForMaskedLM(tiny_config()).eval()
    tokenizer = save(pretrained, tmp_path)
    model = FunTransformerForSequenceClassification(tiny_config(num_labels=3)).eval()
    assert "not in it: classifier; not needed: none" in take_weights(model, tokenizer, tmp_path)
    ids = torch.tensor([[5, 9, 2]])
    assert_close(model.model(ids).last_hidden_state, pretrained.model(ids).last_hidden_state)


def test_embeddings_are_matched_by_token(tiny_config, tmp_path):
    """The same words in another order, one more and one less: their rows move, the new one stays fresh."""
    pretrained = FunTransformerForMaskedLM(tiny_config())
    theirs = save(pretrained, tmp_path, "a b b c c c d d d d")
    tokenizer = train_tokenizer(
        ["e e e e e b b b b c c c a a"], settings=TokenizerSettings(type="word", vocab_size=40)
    )
    model = FunTransformerForConditionalGeneration(tiny_config(vocab_size=len(tokenizer)))
    before = model.get_input_embeddings().weight.detach().clone()
    report = take_weights(model, tokenizer, tmp_path)
    after, old = model.get_input_embeddings().weight, pretrained.get_input_embeddings().weight
    for word in ("▁a", "▁b", "▁c", "</s>"):
        number = tokenizer.convert_tokens_to_ids(word)
        assert torch.equal(after[number], old[theirs.convert_tokens_to_ids(word)])
    new = tokenizer.convert_tokens_to_ids("▁e")
    assert torch.equal(after[new], before[new])
    assert f"{len(tokenizer) - 1} of {len(tokenizer)} rows of model.encoder.embed_tokens.weight" in report


def test_weights_that_would_compute_something_else_are_told(tiny_config, tmp_path):
    tokenizer = save(FunTransformerForMaskedLM(tiny_config()), tmp_path)
    same, turned = (
        take_weights(FunTransformerForMaskedLM(tiny_config(**fields)), tokenizer, tmp_path)
        for fields in ({}, {"position_embedding_type": "rotary"})
    )
    assert "made for" not in same
    assert "made for position_embedding_type=sinusoidal, here rotary" in turned


def test_a_decoder_alone_takes_the_embedding_that_a_translator_shares(tiny_config, tmp_path):
    pretrained = FunTransformerForConditionalGeneration(tiny_config())
    tokenizer = save(pretrained, tmp_path)
    model = FunTransformerForCausalLM(tiny_config())
    assert "not in it: none" in take_weights(model, tokenizer, tmp_path)
    assert torch.equal(model.lm_head.weight, pretrained.lm_head.weight)


def test_a_folder_that_does_not_fit_is_refused(tiny_config, tmp_path):
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        take_weights(FunTransformerForMaskedLM(tiny_config()), None, tmp_path)
    tokenizer = save(FunTransformerForMaskedLM(tiny_config()), tmp_path)
    wider = FunTransformerForMaskedLM(tiny_config(d_model=32, encoder_ffn_dim=40))
    with pytest.raises(ValueError, match="no weight has the name and the shape"):
        take_weights(wider, tokenizer, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_saved_in_half_precision_are_taken_in_the_precision_of_training(dtype, tiny_config, tmp_path):
    pretrained = FunTransformerForMaskedLM(tiny_config())
    tokenizer = save(pretrained.to(dtype), tmp_path)
    model = FunTransformerForConditionalGeneration(tiny_config())
    take_weights(model, tokenizer, tmp_path)
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}
    name = "model.encoder.layers.0.feed_forward.fc1.weight"
    assert torch.equal(model.get_parameter(name), pretrained.get_parameter(name).float())


def cut_off(file):
    file.write_bytes(file.read_bytes()[:-100])


def put_nan(file):
    weights = load_file(file)
    weights["model.encoder.layers.0.feed_forward.fc1.weight"][3, 3] = torch.nan
    save_file(weights, file)


def quantize(file):
    save_file({name: weights.to(torch.int8) for name, weights in load_file(file).items()}, file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, "cannot be read"),
        (put_nan, "fc1.weight holds NaN or infinity"),
        (quantize, r"weight is quantized \(int8\)"),
    ],
)
def test_damaged_weights_to_begin_with_are_refused(damage, message, tiny_config, tmp_path):
    tokenizer = save(FunTransformerForMaskedLM(tiny_config()), tmp_path)
    damage(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        take_weights(FunTransformerForMaskedLM(tiny_config()), tokenizer, tmp_path)


def test_prefixes_are_as_short_as_they_can_be():
    taken = {"a.layers.0.x.weight", "a.layers.1.x.weight"}
    assert prefixes({"a.layers.0.y.weight", "a.layers.1.y.weight", "b.c.d"}, taken) == ["a.layers.*.y", "b"]


@pytest.mark.parametrize(
    ("option", "kind"), [("init_from", "a folder"), ("source_vectors", "a file"), ("target_vectors", "a file")]
)
def test_what_is_not_there_is_refused_before_any_data_is_read(option, kind, tmp_path):
    recipe = write_digits_recipe(tmp_path)
    with pytest.raises(ValueError, match=f"{option}=nowhere is not {kind}"):
        parse_arguments([str(recipe), f"--training.{option}", "nowhere"])


@pytest.mark.slow
def test_pretraining_and_word_vectors_enter_a_translator_by_recipe(tmp_path, capsys):
    threads, recipe = torch.get_num_threads(), str(write_digits_recipe(tmp_path))

    def run(*options: str):
        AcceleratorState._reset_state(reset_partial_state=True)
        short = ["--training.max_steps", "1", "--training.eval_steps", "1", "--training.save_steps", "1"]
        train(parse_arguments([recipe, *short, "--overwrite", *options]))
        return capsys.readouterr().out

    first = tmp_path / "first"
    run("--objective", "masked_lm", "--training.metric_for_best_model", "loss", "--output_dir", str(first))
    vectors = tmp_path / "digits.txt"
    vectors.write_text("".join(f"{digit} {digit}.5 1 {-digit}\n" for digit in range(10)), encoding="utf-8")
    options = ["--training.init_from", str(first / "model"), "--tokenizer.path", str(first / "model")]
    options += ["--training.target_vectors", str(vectors), "--output_dir", str(tmp_path / "second")]
    out = run(*options)
    assert f"weights were taken from {first / 'model'}; not in it: model.decoder.layers; not needed: none." in out
    assert f"{vectors}: 10 of 11 tokens (91%) got vectors: 10 are words" in out  # and the space
    vectors.unlink()  # a resumed run has its weights in the checkpoint
    assert "Going on from" in run(*options, "--resume", "--training.max_steps", "2", "--allow_changes")
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)
