"""Confidence: the scores that beam search gave, recomputed by teacher forcing, for models of several families."""

import math

import pytest
import torch
from tiny_seq2seq import FAMILIES, tiny_model, word_tokenizer
from transformers import GenerationConfig

from fun_transformer.decoding.confidence import score_generated, score_texts

SOURCES = ["a b c d e f", "g", "p o n b", "h h i"]
TARGETS = ["b d", "c a f e g", "a", "p p p o"]


@pytest.fixture(params=FAMILIES)
def model(request):
    return tiny_model(request.param)


@pytest.fixture
def tokenizer():
    return word_tokenizer()


def encode(tokenizer, texts):
    return tokenizer(texts, return_tensors="pt", padding=True)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 1.7])
def test_beam_scores_are_the_recomputed_ones(model, tokenizer, length_penalty):
    inputs = encode(tokenizer, SOURCES)
    options = {"num_beams": 4, "num_return_sequences": 2, "length_penalty": length_penalty, "max_new_tokens": 9}
    output = model.generate(
        input_ids=inputs.input_ids,
        attention_mask=inputs.attention_mask,
        **options,
        return_dict_in_generate=True,
        output_scores=True,
    )
    found = score_generated(model, tokenizer, inputs, output.sequences, options)
    scores = torch.tensor([one.beam_score(length_penalty) for one in found])
    torch.testing.assert_close(scores, output.sequences_scores, atol=1e-5, rtol=0)


def test_log_probabilities_and_entropies_are_those_of_the_models_distribution(model, tokenizer):
    inputs = encode(tokenizer, SOURCES[:1])
    [found] = score_texts(model, tokenizer, SOURCES[:1], ["b d"])
    assert found.tokens == ["b", "d", "</s>"]
    read = torch.tensor([[model.config.decoder_start_token_id, 5, 7]])
    with torch.no_grad():
        logits = model(
            input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, decoder_input_ids=read
        ).logits[0]
    probabilities = logits.double().softmax(-1)
    expected = [math.log(probabilities[t, token]) for t, token in enumerate([5, 7, 2])]
    assert found.log_probabilities == pytest.approx(expected, abs=1e-5)
    entropies = [-sum(p * math.log(p) for p in row if p > 0) for row in probabilities.tolist()]
    assert found.entropies == pytest.approx(entropies, abs=1e-5)
    record = found.record()
    assert record["mean_log_probability"] == pytest.approx(sum(expected) / 3, abs=1e-5)
    assert record["min_log_probability"] == pytest.approx(min(expected), abs=1e-5)
    assert record["entropy"] == pytest.approx(sum(entropies) / 3, abs=1e-5)


def test_a_batch_gives_what_each_pair_gives_alone(model, tokenizer):
    together = score_texts(model, tokenizer, SOURCES, TARGETS)
    for source, target, found in zip(SOURCES, TARGETS, together):
        [alone] = score_texts(model, tokenizer, [source], [target])
        assert found.tokens == alone.tokens
        assert found.log_probabilities == pytest.approx(alone.log_probabilities, abs=1e-5)
        assert found.entropies == pytest.approx(alone.entropies, abs=1e-5)


def test_a_model_in_training_is_read_without_dropout_and_goes_on_training(tokenizer):
    model = tiny_model("fun_transformer")
    expected = score_texts(model, tokenizer, SOURCES, TARGETS)
    model.train()
    assert score_texts(model, tokenizer, SOURCES, TARGETS) == expected
    assert model.training


def test_forced_tokens_count_neither_in_the_mean_nor_in_the_minimum(tokenizer):
    model = tiny_model("m2m100")
    inputs = encode(tokenizer, SOURCES)
    options = {"forced_bos_token_id": 17, "forced_eos_token_id": 2, "max_new_tokens": 4, "num_beams": 2}
    output = model.generate(**inputs, **options, return_dict_in_generate=True, output_scores=True)
    for config in (options, {"generation_config": GenerationConfig(**options)}):
        found = score_generated(model, tokenizer, inputs, output.sequences, config)
        scores = torch.tensor([one.beam_score() for one in found])
        torch.testing.assert_close(scores, output.sequences_scores, atol=1e-5, rtol=0)
        assert all(one.is_forced[0] and one.log_probabilities[0] == 0 for one in found)
        full = [one for one in found if len(one.tokens) == 4]
        assert full and all(one.is_forced == [True, False, False, True] for one in full)
        for one in full:
            assert one.mean_log_probability == pytest.approx(sum(one.log_probabilities[1:3]) / 2)
            assert one.entropy == pytest.approx(sum(one.entropies[1:3]) / 2)


def test_impossible_tokens_have_no_entropy(tokenizer):
    model = tiny_model("marian")
    model.final_logits_bias[0, 0] = float("-inf")  # as Marian's padding is in some checkpoints
    [found] = score_texts(model, tokenizer, ["a b"], ["c"])
    assert all(map(math.isfinite, found.entropies))


def test_wrong_input_is_refused(tokenizer):
    model = tiny_model("marian")
    with pytest.raises(ValueError, match="2 sources and 1 targets: each source needs one target"):
        score_texts(model, tokenizer, ["a", "b"], ["a"])
    with pytest.raises(ValueError, match="batch_size=0"):
        score_texts(model, tokenizer, ["a"], ["a"], batch_size=0)
    with pytest.raises(ValueError, match=r"output_ids of shape \(3, 4\)"):
        score_generated(model, tokenizer, encode(tokenizer, ["a", "b"]), torch.zeros(3, 4, dtype=torch.long))
    model.config.is_encoder_decoder = False
    with pytest.raises(ValueError, match="is no encoder-decoder"):
        score_texts(model, tokenizer, ["a"], ["a"])
