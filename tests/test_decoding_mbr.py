"""Minimum Bayes risk: utilities held to sacrebleu, and the choice to the definition."""

import pytest
import torch
from tiny_seq2seq import tiny_model, word_tokenizer

from fun_transformer.decoding.mbr import SAMPLING, UTILITIES, bleu, choose, chrf

sacrebleu = pytest.importorskip("sacrebleu")

TEXTS = [
    "We ate together.",
    "We  are eating together!",
    "",
    "a",
    "我们一起吃了饭。",
    "We ate together",
    "..",
    "aaaaaaaaaa",
]


def test_chrf_is_that_of_sacrebleu():
    metric = sacrebleu.CHRF()
    expected = [[metric.sentence_score(text, [reference]).score for reference in TEXTS] for text in TEXTS]
    torch.testing.assert_close(chrf(TEXTS), torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)


def test_bleu_is_that_of_sacrebleu():
    expected = sacrebleu.sentence_bleu(TEXTS[1], [TEXTS[0]], use_effective_order=True).score
    assert bleu(TEXTS[:2])[1, 0] == pytest.approx(expected)
    assert expected > 0


@pytest.mark.parametrize("utility", UTILITIES)
def test_the_choice_has_the_greatest_mean_utility(utility):
    candidates = ["We eat fish.", "We ate the fish.", "They sleep now.", "We ate the fish.", "We ate a big fish."]
    texts = list(dict.fromkeys(candidates))
    scores = UTILITIES[utility](texts)
    means = {
        text: sum(float(scores[i, texts.index(other)]) for other in candidates) / len(candidates)
        for i, text in enumerate(texts)
    }
    found = choose(candidates, utility)
    assert found.text == max(means, key=means.get) == "We ate the fish."
    assert found.index == 1
    assert found.utility == pytest.approx(means[found.text])


def test_what_was_sampled_more_often_weighs_more():
    assert choose(["a b c", "x y z", "x y z"]).text == "x y z"
    assert choose(["a b c", "a b c", "x y z"]).text == "a b c"


def test_samples_of_a_model_can_be_chosen_from():
    tokenizer = word_tokenizer()
    encoded = tokenizer(["a b c", "g"], return_tensors="pt", padding=True)
    output_ids = tiny_model("marian").generate(
        input_ids=encoded.input_ids,
        attention_mask=encoded.attention_mask,
        **SAMPLING,
        num_return_sequences=5,
        max_new_tokens=5,
    )
    texts = tokenizer.batch_decode(output_ids, skip_special_tokens=True)
    assert len(texts) == 10
    for start in (0, 5):
        found = choose(texts[start : start + 5])
        assert texts[start + found.index] == found.text


def test_no_candidates_and_unknown_utilities_are_refused():
    with pytest.raises(ValueError, match="at least one output"):
        choose([])
    with pytest.raises(ValueError, match=r"'comet' is no utility. Choose from chrf, bleu"):
        choose(["a"], "comet")
