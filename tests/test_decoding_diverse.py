"""Diverse beam search, held to the algorithm of the paper written out over lists, and to plain beam search."""

import pytest
import torch
from tiny_seq2seq import FAMILIES, tiny_model, word_tokenizer

from fun_transformer.decoding.diverse import DiverseBeamSearch

SOURCES = ["a b c d e f", "g", "p o n b"]
LONGEST = 7
EOS = 2


@pytest.fixture(params=FAMILIES)
def model(request):
    model = tiny_model(request.param, seed=2)
    model.generation_config.forced_eos_token_id = None  # BART's and Marian's end the longest outputs by force
    model.config.forced_eos_token_id = None
    return model


@pytest.fixture
def inputs():
    encoded = word_tokenizer()(SOURCES, return_tensors="pt", padding=True)
    return {name: encoded[name] for name in ("input_ids", "attention_mask")}


def by_the_paper(model, source_ids, num_groups, group_size, penalty):
    """Outputs of one source, (score, ids) best first: each group on its own, one after the other at each step."""
    start = model.generation_config.decoder_start_token_id or model.config.decoder_start_token_id or 0
    running = [[(0.0, [])] for _ in range(num_groups)]
    finished = [[] for _ in range(num_groups)]
    is_done = [False] * num_groups
    for length in range(1, LONGEST + 1):
        said = []  # what the beams of earlier groups have just said
        for group in range(num_groups):
            if is_done[group]:
                continue
            candidates = []
            for score, ids in running[group]:
                with torch.no_grad():
                    logits = model(input_ids=source_ids, decoder_input_ids=torch.tensor([[start, *ids]])).logits
                log_probs = logits[0, -1].log_softmax(-1).tolist()
                for token, log_prob in enumerate(log_probs):
                    candidates.append((score + log_prob - penalty * said.count(token), [*ids, token]))
            candidates.sort(key=lambda one: -one[0])
            is_last = length == LONGEST
            for score, ids in candidates[:group_size]:
                if ids[-1] == EOS or is_last:
                    finished[group].append((score / length, ids))
            finished[group] = sorted(finished[group], key=lambda one: -one[0])[:group_size]
            running[group] = [one for one in candidates if one[1][-1] != EOS][:group_size]
            said += [ids[-1] for _, ids in running[group]]
            full = len(finished[group]) == group_size
            is_done[group] = full and running[group][0][0] / length <= finished[group][-1][0]
    return sorted((one for group in finished for one in group), key=lambda one: -one[0])


@pytest.mark.parametrize("penalty", [0.0, 0.7, 3.0])
def test_outputs_are_those_of_the_paper(model, penalty):
    source_ids = word_tokenizer()(SOURCES[:1], return_tensors="pt").input_ids
    found = model.generate(
        input_ids=source_ids,
        num_beams=6,
        num_return_sequences=6,
        max_new_tokens=LONGEST,
        custom_generate=DiverseBeamSearch(3, penalty),
    )
    expected = [ids for _, ids in by_the_paper(model, source_ids, 3, 2, penalty)]
    texts = [row[1:].tolist() for row in found]
    assert [ids[: len(one)] for ids, one in zip(texts, expected)] == expected


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 1.7])
def test_one_group_is_plain_beam_search(model, inputs, length_penalty):
    options = {"num_beams": 4, "num_return_sequences": 3, "length_penalty": length_penalty, "max_new_tokens": 9}
    options |= {"return_dict_in_generate": True, "output_scores": True}
    plain = model.generate(**inputs, **options, cache_implementation="dynamic")
    found = model.generate(**inputs, **options, custom_generate=DiverseBeamSearch(1, 0.5))
    assert torch.equal(found.sequences, plain.sequences)
    assert torch.equal(found.sequences_scores, plain.sequences_scores)
    assert torch.equal(found.beam_indices, plain.beam_indices)


def test_the_first_words_of_the_groups_differ_under_a_great_penalty(model, inputs):
    search = DiverseBeamSearch(3, 100.0)
    found = model.generate(
        **inputs, num_beams=3, num_return_sequences=3, min_new_tokens=2, max_new_tokens=2, custom_generate=search
    )
    first = found[:, 1].view(len(SOURCES), 3).tolist()
    assert all(len(set(row)) == 3 for row in first)


def test_a_batch_gives_what_its_texts_give_alone(model, inputs):
    options = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 6}
    together = model.generate(**inputs, **options, custom_generate=DiverseBeamSearch(2, 0.5))
    for i, text in enumerate(SOURCES):
        encoded = word_tokenizer()([text], return_tensors="pt")
        alone = model.generate(
            input_ids=encoded.input_ids,
            attention_mask=encoded.attention_mask,
            **options,
            custom_generate=DiverseBeamSearch(2, 0.5),
        )
        assert torch.equal(together[4 * i : 4 * i + 4, : alone.shape[1]], alone)


def test_beams_that_cannot_be_divided_are_refused(inputs):
    with pytest.raises(ValueError, match=r"num_beams=4 cannot be divided into num_groups=3.*num_beams=6"):
        tiny_model("marian").generate(**inputs, num_beams=4, custom_generate=DiverseBeamSearch(3))


@pytest.mark.parametrize("options", [{"num_groups": 0}, {"num_groups": 2, "penalty": -0.1}])
def test_groups_and_penalties_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="Give"):
        DiverseBeamSearch(**options)


def test_sampling_is_refused(inputs):
    with pytest.raises(ValueError, match="do_sample"):
        tiny_model("marian").generate(**inputs, num_beams=4, do_sample=True, custom_generate=DiverseBeamSearch(2))
