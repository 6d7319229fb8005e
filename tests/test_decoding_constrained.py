"""Constrained beam search on models of several families: what must be said is said, and nothing else changes."""

import itertools

import pytest
import torch
from tiny_seq2seq import FAMILIES, WORDS, tiny_model, word_tokenizer

from fun_transformer.decoding.constrained import ConstrainedBeamSearch, Constraint, by_turns

SOURCES = ["a b c d e f", "g", "p o n b"]
EOS = 2
OPTIONS = {"num_beams": 4, "max_new_tokens": 10}


@pytest.fixture(params=FAMILIES)
def model(request):
    model = tiny_model(request.param, seed=2)
    model.generation_config.forced_eos_token_id = None
    model.config.forced_eos_token_id = None
    return model


@pytest.fixture
def inputs():
    return encode(SOURCES)


def encode(texts):
    encoded = word_tokenizer()(texts, return_tensors="pt", padding=True)
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def phrase(*alternatives):
    return Constraint(tuple(tuple(WORDS.index(word) for word in text.split()) for text in alternatives))


def contains(row, spelling):
    ids = row.tolist()
    return any(tuple(ids[i : i + len(spelling)]) == spelling for i in range(len(ids)))


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 1.7])
def test_without_constraints_it_is_plain_beam_search(model, inputs, length_penalty):
    options = OPTIONS | {"num_return_sequences": 3, "length_penalty": length_penalty}
    options |= {"return_dict_in_generate": True, "output_scores": True}
    plain = model.generate(**inputs, **options, cache_implementation="dynamic")
    found = model.generate(**inputs, **options, custom_generate=ConstrainedBeamSearch([[], [], []]))
    assert torch.equal(found.sequences, plain.sequences)
    assert torch.equal(found.sequences_scores, plain.sequences_scores)


@pytest.mark.parametrize(
    "constraints",
    [
        [phrase("k")],
        [phrase("k l m")],
        [phrase("k"), phrase("k")],
        [phrase("a b a c")],
        [phrase("k l"), phrase("k m"), phrase("l")],
        [phrase("k l m n", "o")],
    ],
    ids=["a word", "a phrase", "a word twice", "one that overlaps itself", "one that begins alike", "alternatives"],
)
def test_each_output_contains_its_constraints(model, inputs, constraints):
    search = ConstrainedBeamSearch([constraints, [], constraints])
    found = model.generate(**inputs, **OPTIONS, num_return_sequences=2, custom_generate=search)
    for row in itertools.chain(found[:2], found[4:]):
        for constraint in constraints:
            assert any(contains(row, spelling) for spelling in constraint.spellings)
        for spelling in {constraint.spellings for constraint in constraints}:
            wanted = sum(constraint.spellings == spelling for constraint in constraints)
            if len(spelling) == len(spelling[0]) == 1:
                assert row.tolist().count(spelling[0][0]) >= wanted
    plain = model.generate(**inputs, **OPTIONS, num_return_sequences=2)
    assert found[2:4, : plain.shape[1]].tolist() == plain[2:4, : found.shape[1]].tolist()


def test_constraints_that_just_fit_are_said(model, inputs):
    constraint = phrase("k l m n o p")
    search = ConstrainedBeamSearch([[constraint]] * 3)
    found = model.generate(**inputs, num_beams=3, max_new_tokens=7, custom_generate=search)
    assert all(contains(row, constraint.spellings[0]) for row in found)


def test_a_batch_gives_what_its_texts_give_alone(model, inputs):
    constraints = [[phrase("k l")], [], [phrase("m"), phrase("n o")]]
    together = model.generate(**inputs, **OPTIONS, custom_generate=ConstrainedBeamSearch(constraints))
    for i, text in enumerate(SOURCES):
        alone = model.generate(**encode([text]), **OPTIONS, custom_generate=ConstrainedBeamSearch([constraints[i]]))
        length = min(alone.shape[1], together.shape[1])
        assert torch.equal(alone[0, :length], together[i, :length])


def test_the_score_is_the_models_own(model, inputs):
    options = OPTIONS | {"return_dict_in_generate": True, "output_scores": True, "use_cache": False}
    search = ConstrainedBeamSearch([[phrase("k l")]] * 3)
    found = model.generate(**inputs, **options, custom_generate=search)
    with torch.no_grad():
        logits = model(**inputs, decoder_input_ids=found.sequences[:, :-1]).logits
    targets = found.sequences[:, 1:]
    log_probs = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    is_target = (targets == EOS).cumsum(-1) - (targets == EOS).long() == 0
    scores = (log_probs * is_target).sum(-1) / is_target.sum(-1)
    torch.testing.assert_close(scores, found.sequences_scores, atol=1e-5, rtol=0)


def test_no_word_is_joined_to_a_constraint(model, inputs):
    continuing = torch.tensor([word in "abcdefgh" for word in WORDS])
    search = ConstrainedBeamSearch([[phrase("k")]] * 3, continuing=continuing)
    for row in model.generate(**inputs, **OPTIONS, custom_generate=search).tolist():
        after = row[row.index(WORDS.index("k")) + 1]
        assert not continuing[after]


def test_constraints_that_do_not_fit_are_refused(inputs):
    search = ConstrainedBeamSearch([[phrase("a b c d")], [], []])
    with pytest.raises(ValueError, match=r"take 5 tokens with </s>, and it may have 4.*max_new_tokens"):
        tiny_model("marian").generate(**inputs, num_beams=4, max_new_tokens=4, custom_generate=search)


@pytest.mark.parametrize(
    ("options", "message"), [({"num_beams": 1}, "num_beams=4"), ({"num_beams": 2, "do_sample": True}, "do_sample")]
)
def test_greedy_search_and_sampling_are_refused(inputs, options, message):
    search = ConstrainedBeamSearch([[phrase("a")], [], []])
    with pytest.raises(ValueError, match=message):
        tiny_model("marian").generate(**inputs, **options, custom_generate=search)


def test_constraints_for_another_number_of_texts_are_refused(inputs):
    with pytest.raises(ValueError, match="Constraints for 1 texts, but there are 3"):
        tiny_model("marian").generate(**inputs, num_beams=4, custom_generate=ConstrainedBeamSearch([[phrase("a")]]))


def test_banks_take_turns_and_what_is_ruled_out_comes_last():
    candidates = [(0, -3.0), (1, -1.0), (0, -2.0), (2, -0.5), (1, -4.0)]
    assert by_turns([*candidates, (0, -1e9)], count=6) == [2, 1, 3, 0, 4, 5]
