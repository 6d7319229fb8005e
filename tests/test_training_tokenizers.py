"""Finished tokenizers of the usual families: each trains, is loaded alike, and begins as its family does."""

import json

import pytest
from accelerate.state import AcceleratorState
from forked_runs import write_digits_recipe
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertTokenizer,
    GPT2Tokenizer,
    RobertaTokenizer,
    T5Tokenizer,
    TokenizersBackend,
    pipeline,
)

import fun_transformer  # noqa: F401  registers its classes
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.train import train

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
DIGITS = list("0123456789")
SHORT = ["--training.max_steps", "2", "--training.eval_steps", "2", "--training.save_steps", "2"]


def numbered(*tokens):
    return {token: number for number, token in enumerate(tokens)}


def byte_symbols():
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def t5():
    scores = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((digit, -3.0) for digit in DIGITS)]
    return T5Tokenizer(vocab=scores, extra_ids=0)


def marian():
    """<unk>, </s> and, with the last number, <pad>: no token for the beginning of a text."""
    backend = Tokenizer(models.WordLevel(numbered("</s>", "<unk>", *DIGITS, "<pad>"), unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    return TokenizersBackend(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


def bert():
    parts = [f"##{digit}" for digit in DIGITS]
    return BertTokenizer(vocab=numbered("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *DIGITS, *parts))


def bart():
    return RobertaTokenizer(vocab=numbered("<s>", "<pad>", "</s>", "<unk>", "<mask>", *byte_symbols()), merges=[])


def gpt2():
    return GPT2Tokenizer(vocab=numbered(*byte_symbols(), "<|endoftext|>"), merges=[])


def padding_is_the_end():
    tokenizer = gpt2()
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def bare(vocab=("<unk>", *DIGITS), unknown="<unk>"):
    """Digits and an unknown token: no other special token."""
    backend = Tokenizer(models.WordLevel(numbered(*vocab), unk_token=unknown))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    return TokenizersBackend(tokenizer_object=backend)


def run(tokenizer, folder, *options):
    """Train two steps with a tokenizer; returns the run's folder."""
    tokenizer.save_pretrained(folder / "tokenizer")
    words = [*SHORT, "--tokenizer.path", str(folder / "tokenizer"), *options]
    return train(parse_arguments([str(write_digits_recipe(folder)), *words])).folder


@pytest.mark.parametrize(
    ("family", "start"),
    [
        (t5, "<pad>"),
        (marian, "<pad>"),
        (bert, "[CLS]"),
        (bart, "</s>"),
        (gpt2, "<|endoftext|>"),
        (padding_is_the_end, "<|endoftext|>"),
        (bare, "<pad>"),
    ],
)
def test_a_finished_tokenizer_trains_with_the_start_token_of_its_family(family, start, tmp_path):
    folder = run(family(), tmp_path)
    model, tokenizer = (kind.from_pretrained(folder / "model") for kind in (AutoModelForSeq2SeqLM, AutoTokenizer))
    config = model.config
    assert config.decoder_start_token_id == tokenizer.convert_tokens_to_ids(start)
    assert model.generation_config.decoder_start_token_id == config.decoder_start_token_id
    assert config.eos_token_id == tokenizer.eos_token_id is not None
    assert config.pad_token_id == tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert tokenizer("12").input_ids[-1] == tokenizer(text_target="12").input_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(tokenizer("12").input_ids, skip_special_tokens=True).strip() == "12"
    assert max(tokenizer.get_vocab().values()) < config.vocab_size
    generate = pipeline("text2text-generation", model=str(folder / "model"))
    assert isinstance(generate("12", max_new_tokens=3)[0]["generated_text"], str)


@pytest.mark.slow
@pytest.mark.parametrize("family", [gpt2, bert])
def test_a_run_goes_on_with_the_tokenizer_that_it_began_with(family, tmp_path):
    folder = run(family(), tmp_path)
    before = AutoTokenizer.from_pretrained(folder / "tokenizer")
    AcceleratorState._reset_state(reset_partial_state=True)
    train(parse_arguments([str(folder / "recipe.yaml"), "--training.max_steps", "3", "--resume"]))
    after = AutoTokenizer.from_pretrained(folder / "model")
    assert after("12").input_ids == before("12").input_ids and after.get_vocab() == before.get_vocab()


@pytest.mark.parametrize(
    ("family", "objective", "added"),
    [
        (t5, "masked_lm", "<mask>"),
        (gpt2, "masked_lm", "<mask>"),
        (t5, "causal_lm", "<s>"),
        (gpt2, "causal_lm", "<pad>"),
        (t5, "denoising", "<mask>"),
    ],
)
def test_what_a_language_model_needs_is_added(family, objective, added, tmp_path):
    folder = run(family(), tmp_path, "--objective", objective, "--training.metric_for_best_model", "loss")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert added in tokenizer.all_special_tokens
    assert json.loads((folder / "model" / "config.json").read_text())["vocab_size"] == len(tokenizer)
    if objective == "causal_lm":
        ids = tokenizer("12").input_ids
        assert ids[0] == tokenizer.bos_token_id and ids[-1] != tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "12"


@pytest.mark.slow
def test_the_tokenizer_of_a_causal_model_ends_the_texts_of_a_translator(tmp_path):
    (tmp_path / "causal").mkdir()
    options = ["--objective", "causal_lm", "--training.metric_for_best_model", "loss"]
    recipe = str(write_digits_recipe(tmp_path / "causal"))
    first = train(parse_arguments([recipe, *SHORT, *options])).folder
    AcceleratorState._reset_state(reset_partial_state=True)
    folder = run(AutoTokenizer.from_pretrained(first / "model"), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    ids = tokenizer("12").input_ids
    assert ids[0] != tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == "12"


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        (lambda: bare(DIGITS, "?"), [], "cannot encode the training texts for objective: seq2seq"),
        (lambda: bare(("</s>", "<unk>", *DIGITS)), ["--training.bpe_dropout", "0.1"], "needs a tokenizer of type bpe"),
        (gpt2, ["--tokenizer.path", "/nowhere/at/all"], "tokenizer.path=/nowhere/at/all cannot be loaded"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(family, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(family(), tmp_path, *options)
    assert not (tmp_path / "run").exists()
