"""Glossaries and placeholders: what is found in a source, and that it is in the output."""

import time

import pytest
import torch

from fun_transformer import FunTransformerConfig, FunTransformerForConditionalGeneration
from fun_transformer.decoding.glossary import Glossary, constrain
from fun_transformer.decoding.placeholders import Protected, find_literals, protect
from fun_transformer.text_parts import has_words
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer
from tests.tiny_seq2seq import FAMILIES, tiny_model, word_tokenizer


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("他喝咖啡。", [("喝咖啡", ("sip coffee",))]),  # the longest one
        ("咖啡和咖啡", [("咖啡", ("coffee beans",)), ("咖啡", ("coffee beans",))]),
        ("Tea, TEA and a teapot", [("Tea", ("Tee",)), ("TEA", ("Tee",))]),  # whole words, any case
        ("It may be May.", [("May", ("Mai",))]),  # as written
        ("new  york", [("new  york", ("New York", "NYC"))]),
        ("用GitHub吧", [("GitHub", ("GitHub",))]),  # beside Chinese, left as it is
        ("nothing", []),
        ("", []),
    ],
)
def test_a_glossary_finds_the_longest_terms(text, found):
    glossary = Glossary(
        {
            "咖啡": "coffee beans",
            "喝咖啡": "sip coffee",
            "tea": "Tee",
            "May": "Mai",
            "new york": "New York|NYC",
            "GitHub": "",
        }
    )
    assert [(term.source, term.targets) for term in glossary.find(text)] == found


def test_a_glossary_file_is_read_as_it_is_written(tmp_path):
    path = tmp_path / "terms.tsv"
    path.write_text("# a comment\n\n故宫\tthe Forbidden City\nGitHub\n 茶 \t tea \n", encoding="utf-8-sig")
    assert Glossary.load(path).targets == {"故宫": ("the Forbidden City",), "GitHub": (), "茶": ("tea",)}
    csv = tmp_path / "terms.csv"
    csv.write_text('"a, b","c, d"\n', encoding="utf-8")
    assert Glossary.load(csv).targets == {"a, b": ("c, d",)}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a\tb\tc\n", r"line 1: a term is two columns, .* parted by a tab; here are 3"),
        ("a\tb\n\tb\n", "line 2: a term is two columns"),
        ("a\tb\na\tc\n", r"line 2: 'a' is 'c' here and 'b' before.*b\|c"),
        ("# only a comment\n", "has no term"),
    ],
)
def test_a_bad_glossary_file_is_refused_by_line(tmp_path, lines, message):
    path = tmp_path / "terms.tsv"
    path.write_text(lines, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Glossary.load(path)


def test_the_header_of_a_glossary_file_is_no_term(tmp_path):
    path = tmp_path / "terms.tsv"
    path.write_text("# ours\nSource\ttarget\n茶\ttea\nsource\tsource\n", encoding="utf-8")
    assert Glossary.load(path).targets == {"茶": ("tea",), "source": ("source",)}


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"北京": 5}, "terms of a glossary are strings, but here is '北京': 5. Give strings"),
        ({5: "a"}, "but here is 5: 'a'"),
        ({"北京": ["a", "b"]}, r"here is '北京': \['a', 'b'\]. Give strings, with \"\|\" between alternatives"),
        (["北京"], r"is a dictionary from source terms to target terms, not a list: \['北京'\]. Give"),
    ],
)
def test_what_is_no_dictionary_of_strings_is_refused(terms, message):
    with pytest.raises(TypeError, match=message):
        Glossary(terms)


def test_an_empty_term_is_refused():
    with pytest.raises(ValueError, match="empty source term"):
        Glossary({" ": "x"})


@pytest.mark.parametrize("family", FAMILIES)
def test_the_target_of_each_term_is_in_the_output(family):
    tokenizer, model = word_tokenizer(), tiny_model(family)
    sources = ["d a e f d g", "h b c", "k l"]
    glossary = Glossary({"a": "m", "c": "n o", "b": "p|b"})
    terms = [glossary.find(text) for text in sources]
    assert [len(found) for found in terms] == [1, 2, 0]
    inputs = tokenizer(sources, return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    options = {"max_new_tokens": 16, "do_sample": False}
    outputs = model.generate(**inputs, **options, **constrain(tokenizer, terms, num_beams=3))
    texts = tokenizer.batch_decode(outputs, skip_special_tokens=True)
    for text, found in zip(texts, terms):
        for term in found:
            assert any(f" {target} " in f" {text} " for target in term.targets), (text, term)
    plain = model.generate(**inputs, **options, num_beams=3)
    assert texts[2] == tokenizer.decode(plain[2], skip_special_tokens=True)


def test_a_term_that_no_token_can_spell_is_refused():
    glossary = Glossary({"cat": "ꙮ"})
    with pytest.raises(ValueError, match="'ꙮ', for 'cat', has characters that the model's target vocabulary cannot"):
        constrain(word_tokenizer(), [glossary.find("the cat")])


def test_literals_are_found_once_each():
    text = "见 https://a.example/b?c=1，写信给 me@a.example，用 `pip install x`，<b>2015年</b>3月，3.5 公里，A4。"
    assert [text[start:end] for start, end, _ in find_literals(text)] == [
        "https://a.example/b?c=1",
        "me@a.example",
        "`pip install x`",
        "<b>",
        "2015",
        "</b>",
        "3.5",
    ]
    assert [kind for *_, kind in find_literals(text, ("url", "email"))] == ["url", "email"]
    with pytest.raises(ValueError, match="'date' is no kind of literal"):
        find_literals(text, ("date",))


@pytest.mark.parametrize(
    ("text", "literals"),
    [
        ("请看https://a.b/c很好。", ["https://a.b/c"]),
        ("请看https://a.b——“很好”", ["https://a.b"]),
        ("发到a-b@c.com就好", ["a-b@c.com"]),
        ("😀a_b.c+d@e-f.co.uk. (é@zürich.ch)/x,y@z", ["a_b.c+d@e-f.co.uk", "é@zürich.ch"]),
        ("[链接](https://a.b/x)很好", ["https://a.b/x"]),
        ("[https://a.b/](https://c.d/e)好", ["https://a.b/", "https://c.d/e"]),
        ("(https://a.b/Tea_(drink), https://zürich.ch/ü).", ["https://a.b/Tea_(drink)", "https://zürich.ch/ü"]),
    ],
)
def test_an_address_ends_where_chinese_or_a_bracket_that_it_did_not_open_follows(text, literals):
    assert [text[start:end] for start, end, _ in find_literals(text)] == literals


def test_long_words_are_searched_for_addresses_at_once():
    start = time.perf_counter()
    for text in ("a" * 20_000, "a." * 10_000 + "@", "a@" + "b-" * 10_000, "https://" + "()" * 10_000 + "]" * 10_000):
        assert len(find_literals(text, ("url", "email"))) == text.startswith("https")
        assert has_words(text) is not text.startswith("https")
    assert time.perf_counter() - start < 2  # 50 s when each letter began a search


def test_literals_are_put_back_in_the_output():
    texts = ["我们吃了12个X1和Z2。", "We eat 12 X1 and Z2."] * 4
    tokenizer = train_tokenizer(texts, texts, settings=TokenizerSettings(type="char", vocab_size=200, min_frequency=1))
    torch.manual_seed(0)
    config = FunTransformerConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=tokenizer.bos_token_id,
    )  # fmt: skip
    model = FunTransformerForConditionalGeneration(config).eval()
    sources = ["我们吃了https://a.example/b?c=1。", "X1，12", "我们"]
    safe = [protect(text, tokenizer) for text in sources]
    assert [text.text for text in safe] == ["我们吃了X1。", "X1，12", "我们"]
    assert [[term.source for term in text.terms] for text in safe] == [["X1"], ["12"], []]
    inputs = tokenizer([text.text for text in safe], return_tensors="pt", padding=True)
    kwargs = constrain(tokenizer, [text.terms for text in safe], num_beams=3)
    outputs = tokenizer.batch_decode(model.generate(**inputs, **kwargs, max_new_tokens=16), skip_special_tokens=True)
    restored = [text.restore(output) for text, output in zip(safe, outputs)]
    assert "https://a.example/b?c=1" in restored[0] and "X1" not in restored[0]
    assert "12" in restored[1]


def test_a_literal_is_restored_once():
    safe = Protected("see X1", restored={"X1": "http://a.example", "X10": "me@a.example"})
    assert safe.restore("X1 and X1, X10") == "http://a.example and, me@a.example"
    assert safe.restore("seeX1now X10") == "seehttp://a.examplenow me@a.example"
    assert Protected("a").restore("X1") == "X1"
