"""Outputs begin with what was typed, up to the middle of a word, on models of several families."""

import pytest
from tiny_seq2seq import FAMILIES, tiny_model, word_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fun_transformer.decoding.prefix import ForcedPrefix, _beginning, prefixed

SOURCES = ["a b c d", "g", "p o n"]


def piece_tokenizer():
    """Pieces like those of SentencePiece, of which several make a word."""
    pieces = [
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        "▁",
        "▁we",
        "▁t",
        "▁trans",
        "l",
        "ate",
        "▁translate",
        "a",
        "t",
        "e",
        "s",
        "r",
        "n",
    ]
    vocab = [(piece, -float(1 + len(pieces) - i)) for i, piece in enumerate(pieces)]
    backend = Tokenizer(models.Unigram(vocab, unk_id=3))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "options",
    [{"num_beams": 4, "num_return_sequences": 2}, {"do_sample": True, "num_return_sequences": 2}],
    ids=["beams", "samples"],
)
def test_each_output_begins_with_its_prefix(family, options):
    tokenizer = word_tokenizer()
    encoded = tokenizer(SOURCES, return_tensors="pt", padding=True)
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    found = tiny_model(family).generate(
        **inputs, **options, **prefixed(tokenizer, ["k l m", "", "b"]), max_new_tokens=8
    )
    texts = tokenizer.batch_decode(found, skip_special_tokens=True)
    assert all(text.startswith("k l m") for text in texts[:2])
    assert all(text.startswith("b") for text in texts[4:])


def test_an_unfinished_word_may_be_spelled_in_another_way():
    tokenizer = piece_tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    beginning = _beginning(tokenizer, "we transl")
    assert beginning.token_ids == (ids("▁we"),)
    head = [ids("▁we")]
    assert {ids("▁translate"), ids("▁trans"), ids("▁t")} <= set(beginning.next_tokens(head))
    assert beginning.next_tokens([*head, ids("▁trans")]) == [ids("l")]
    assert beginning.next_tokens([*head, ids("▁translate")]) is None


def test_a_space_at_the_end_finishes_the_word():
    tokenizer = piece_tokenizer()
    allowed = tokenizer.convert_ids_to_tokens(
        _beginning(tokenizer, "we ").next_tokens(tokenizer.convert_tokens_to_ids(["▁we"]))
    )
    assert allowed and all(token.startswith("▁") for token in allowed)


def test_what_no_tokens_spell_is_refused():
    with pytest.raises(ValueError, match=r"spell the prefix 'we 猫'"):
        prefixed(piece_tokenizer(), ["", "we 猫"])
    with pytest.raises(TypeError, match="empty one where nothing is typed"):
        prefixed(piece_tokenizer(), [None])


def test_prefixes_for_another_number_of_texts_are_refused():
    tokenizer = word_tokenizer()
    encoded = tokenizer(SOURCES, return_tensors="pt", padding=True)
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    with pytest.raises(ValueError, match="2 prefixes"):
        tiny_model("marian").generate(**inputs, **prefixed(tokenizer, ["a", "b"]))
    assert isinstance(prefixed(tokenizer, ["a"])["logits_processor"][0], ForcedPrefix)
