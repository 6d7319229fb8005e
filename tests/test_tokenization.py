"""The tokenizer loses nothing, whatever the text, the vocabulary, the side, and the way it was saved."""

import bz2
import gzip
import json
import lzma
import pickle
import re
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, Wav2Vec2CTCTokenizer, dynamic_module_utils

from fun_transformer.tokenization_fun_transformer import (
    BYTE_TOKENS,
    FunTransformerTokenizer,
    normalise,
    tag_language,
    unknown_characters,
)
from fun_transformer.training.train_tokenizer import TokenizerSettings, main, train_tokenizer

TEXTS = [
    "The cat sat on the mat, and the dog saw the cat.",
    "今天吃什么好？今天吃面条。",
    "我们用 Python 写程序，版本 3.14。",
    "It's 10:30 - “see you” at the café!",
    "１２３ ＡＢＣ emoji 😀 and 👨‍👩‍👧",
]
HARD_TEXTS = [
    "",
    " \t\r\n　 ",
    "a\x00b\x1f\x7f\x85",
    "<0x41><0xE4>▁<0xFF>",
    "ｆｕｌｌ　ｗｉｄｔｈ，全角",
    "👨‍👩‍👧‍👦 👍🏽 🇨🇳",
    "e\u0301 \u0301 ﬁ ² Å",
    "\ufeff\u200b\u202ert\u2060",
    "你好 ，world 。 . hello , 你好",
    "\U00010348 \ue000 \uffff \U0010ffff",
    "一" * 100 + "a" * 100 + "1" * 100 + "-" * 100,
    "नमस्ते สวัสดี 안녕 こんにちは",
]
PHONEMES = {"transformer": "T R AE N S F AO R M ER", "cat": "K AE T", "dog's": "D AO G Z"}

any_text = st.text() | st.text(alphabet="ab 今天，。1２<>/_▁é\u0301\u200d😀\u3000\x00\n") | st.sampled_from(HARD_TEXTS)


SYMBOLS = {type: train_tokenizer(TEXTS, settings=TokenizerSettings(type=type)) for type in ("char", "word")}
SUBWORDS = {
    type: train_tokenizer(TEXTS, settings=TokenizerSettings(type=type, vocab_size=400)) for type in ("bpe", "unigram")
}
G2P = train_tokenizer(
    PHONEMES,
    PHONEMES.values(),
    TokenizerSettings(type="char", target_type="word", lowercase="source", vocab_size=100),
)


@pytest.fixture(params=SUBWORDS)
def subwords(request):
    return SUBWORDS[request.param]


@pytest.fixture(params=[*SUBWORDS, *SYMBOLS])
def any_tokenizer(request):
    return (SUBWORDS | SYMBOLS)[request.param]


def tokens(tokenizer, text, **kwargs):
    return tokenizer.convert_ids_to_tokens(tokenizer(text, **kwargs).input_ids)


def decode(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True)


# ── round trips ──


@settings(deadline=None)
@given(text=any_text)
def test_normalise_is_nfc_with_single_spaces_and_no_marker(text):
    white_space = "[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+"
    expected = re.sub(white_space, " ", unicodedata.normalize("NFC", text)).strip(" ").replace("▁", "_")
    if all(unicodedata.category(character) != "Cn" for character in text):  # Unicode versions differ in the new ones
        assert normalise(text) == expected
    assert normalise(normalise(text)) == normalise(text)


@settings(max_examples=200, deadline=None)
@given(text=any_text)
@pytest.mark.parametrize("type", ["bpe", "unigram"])
def test_decoding_gives_back_every_text(type, text):
    tokenizer = SUBWORDS[type]
    ids = tokenizer(text, split_special_tokens=True).input_ids
    assert decode(tokenizer, ids) == normalise(text)
    assert tokenizer.unk_token_id not in ids
    if not any(token in text for token in tokenizer.all_special_tokens):
        assert tokenizer(text).input_ids == ids


@pytest.mark.parametrize("text", HARD_TEXTS + TEXTS)
def test_decoding_gives_back_hard_texts(subwords, text):
    assert decode(subwords, subwords(text).input_ids) == normalise(text)


@settings(max_examples=200, deadline=None)
@given(text=st.lists(st.sampled_from([*TEXTS, "cat", "今", " ", ",", "，", "3", "_", "é", "😀"])).map("".join))
@pytest.mark.parametrize("type", ["char", "word"])
def test_char_and_word_give_back_what_they_know(type, text):
    tokenizer = SYMBOLS[type]
    ids = tokenizer(text).input_ids
    if type == "char" and "_" not in text:
        assert tokenizer.unk_token_id not in ids
    if tokenizer.unk_token_id not in ids:
        assert decode(tokenizer, ids) == normalise(text)


@pytest.mark.parametrize("type", ["char", "word"])
def test_unknown_symbols_become_unk(type):
    assert tokens(SYMBOLS[type], "猫") == ["<unk>", "</s>"]


def test_unknown_characters_are_found(subwords):
    find = SYMBOLS["char"].unknown_characters
    assert find("The cat 猫 ß, ßX <unk>") == ["猫", "ß", "ß", "X"]
    assert find("The cat.") == find("") == []
    assert SYMBOLS["word"].unknown_characters("The zebra, cat") == ["zebra"]
    assert G2P.unknown_characters("Çat") == ["Ç"] and G2P.unknown_characters("K É AE", is_target=True) == ["É"]
    assert subwords.unknown_characters("猫 zebra \U0010ffff") == []


@pytest.mark.parametrize("is_target", [False, True])
def test_unknown_characters_of_two_vocabularies(is_target):
    apart = TokenizerSettings(type="char", vocab_size=40, target_type="char", target_vocab_size=40)
    tokenizer = train_tokenizer(["abc"], ["xyz"], apart)
    assert tokenizer.unknown_characters("ax", is_target) == (["a"] if is_target else ["x"])


def test_unknown_characters_of_a_tokenizer_in_python(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3, "c": 4}))
    plain = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"), pad_token="[PAD]", unk_token="[UNK]")
    assert unknown_characters(plain, "abéa猫é") == ["é", "猫", "é"] and unknown_characters(plain, "abc") == []


def test_special_tokens_in_the_text_are_text_when_asked(any_tokenizer):
    assert tokens(any_tokenizer, "</s>") == ["</s>", "</s>"]
    ids = any_tokenizer("<s> cat </s>", split_special_tokens=True).input_ids
    assert any_tokenizer.eos_token_id not in ids[:-1]
    if any_tokenizer.unk_token_id not in ids:
        assert decode(any_tokenizer, ids) == "<s> cat </s>"


def test_impossible_bytes_become_replacement_characters(subwords):
    ids = subwords.convert_tokens_to_ids(["▁", "<0xE4>", "<0xBD>", "▁", "<0xFF>"])
    assert re.fullmatch("\ufffd+ \ufffd+", decode(subwords, ids))


# ── vocabulary and splits ──


def test_special_tokens_are_the_first_five(any_tokenizer):
    expected = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
    assert any_tokenizer.convert_ids_to_tokens(range(5)) == expected
    named = ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id", "mask_token_id")
    assert [getattr(any_tokenizer, name) for name in named] == [0, 1, 2, 3, 4]
    assert set(any_tokenizer.all_special_tokens) == set(expected)


def test_bytes_are_ordinary_tokens(subwords):
    assert subwords.convert_tokens_to_ids(BYTE_TOKENS) == list(range(5, 261))
    assert not set(BYTE_TOKENS) & set(subwords.all_special_tokens)


def test_chinese_and_latin_digits_and_punctuation_are_never_in_one_token(subwords):
    for token in set(subwords.get_vocab()) - set(subwords.all_special_tokens) - set(BYTE_TOKENS):
        kinds = {
            "hanzi" if "一" <= c <= "鿿" else "digit" if c.isdecimal() else "letter" if c.isalpha() else "other"
            for c in token.removeprefix("▁")
        }
        assert len(kinds) <= 1, token


def test_spaces_stay_with_the_words_they_precede():
    assert tokens(SYMBOLS["word"], "the cat, 今天 Python") == ["▁the", "▁cat", ",", "▁", "今", "天", "▁Python", "</s>"]
    assert tokens(SYMBOLS["char"], "on 今") == ["o", "n", "▁", "今", "</s>"]
    assert tokens(SYMBOLS["word"], "今天") == ["今", "天", "</s>"]


def test_underscores_do_not_break_words():
    tokenizer = train_tokenizer(["I_TURN_LEFT I_JUMP"], settings=TokenizerSettings(type="word"))
    assert tokens(tokenizer, "I_JUMP I_TURN_LEFT") == ["▁I_JUMP", "▁I_TURN_LEFT", "</s>"]


@pytest.mark.parametrize("type", ["bpe", "unigram", "char", "word"])
def test_training_is_deterministic_and_ignores_the_order_of_texts(type):
    settings = TokenizerSettings(type=type, vocab_size=330)
    first, second = (train_tokenizer(texts, settings=settings) for texts in (TEXTS, TEXTS[::-1]))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()


@pytest.mark.parametrize("type", ["bpe", "unigram", "char", "word"])
@pytest.mark.parametrize("vocab_size", [264, 280, 10_000])
def test_vocab_size_counts_everything_and_little_text_gives_less(type, vocab_size):
    tokenizer = train_tokenizer(TEXTS, settings=TokenizerSettings(type=type, vocab_size=vocab_size))
    assert len(tokenizer) <= vocab_size
    assert len(tokenizer) == vocab_size or vocab_size > 280 or type in ("char", "word")
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_min_frequency_leaves_out_what_is_rarer():
    texts = ["aa bb", "aa cc"]
    words, characters, subwords = (
        train_tokenizer(texts, settings=TokenizerSettings(type=type, min_frequency=count)).get_vocab()
        for type, count in (("word", 2), ("char", 3), ("bpe", 2))
    )
    assert "▁aa" in words and "▁bb" not in words
    assert "c" not in characters
    assert "▁bb" not in subwords


# ── encoding ──


def test_sources_targets_and_pairs_end_in_eos(any_tokenizer):
    batch = any_tokenizer(["the cat", "今天"], text_target=["今天", "the cat"])
    assert set(batch) == {"input_ids", "attention_mask", "labels"}
    assert batch["input_ids"] == batch["labels"][::-1]
    assert all(ids[-1] == 2 and 1 not in ids for ids in batch["input_ids"])
    first, second = batch["input_ids"]
    assert any_tokenizer("the cat", "今天").input_ids == first + second


def test_truncation_and_padding_keep_eos(any_tokenizer):
    batch = any_tokenizer(["the cat sat", "the"], truncation=True, max_length=2, padding=True)
    assert [ids[-1] for ids in batch["input_ids"]] == [2, 2]
    assert all(len(ids) == 2 for ids in batch["input_ids"])


def test_letters_and_phonemes_share_one_vocabulary():
    batch = G2P("CAT", text_target="K AE T")
    assert G2P.convert_ids_to_tokens(batch["input_ids"]) == ["c", "a", "t", "</s>"]
    assert G2P.convert_ids_to_tokens(batch["labels"]) == ["▁K", "▁AE", "▁T", "</s>"]
    assert decode(G2P, batch["labels"]) == "K AE T"
    assert decode(G2P, batch["input_ids"]) == normalise("CAT", lowercase=True) == "cat"
    assert G2P(["Cat", "dog's"], text_target=["K AE T", "D AO G Z"])["labels"][0] == batch["labels"]


def test_a_target_leaves_the_tokenizer_as_it_was():
    before = G2P.backend_tokenizer.to_str()
    G2P("cat", text_target="K AE T")
    assert G2P.backend_tokenizer.to_str() == before
    with pytest.raises(ValueError):
        G2P("cat", text_target=17)
    assert G2P.backend_tokenizer.to_str() == before
    assert G2P.tokenize("Cat") == ["c", "a", "t"]


def test_lowercase_applies_to_the_sides_named():
    both, source = (
        train_tokenizer(["The"], ["Cat"], TokenizerSettings(vocab_size=300, lowercase=side))
        for side in ("both", "source")
    )
    assert decode(both, both(text_target="Cat").input_ids) == "cat"
    assert decode(source, source(text_target="Cat").input_ids) == "Cat"
    assert decode(source, source("Cat").input_ids) == "cat"


# ── saving ──


def all_ids(tokenizer):
    return tokenizer(TEXTS + HARD_TEXTS, text_target=["K AE T", *TEXTS, *HARD_TEXTS[1:]]).data


@pytest.mark.parametrize("tokenizer", [*SUBWORDS.values(), *SYMBOLS.values(), G2P], ids=[*SUBWORDS, *SYMBOLS, "g2p"])
def test_saved_loaded_and_pickled_tokenizers_give_the_same_ids(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    loaded = FunTransformerTokenizer.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path / "again")
    again = FunTransformerTokenizer.from_pretrained(tmp_path / "again")
    for other in (loaded, again, pickle.loads(pickle.dumps(tokenizer))):
        assert all_ids(other) == all_ids(tokenizer)
        assert other.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
        assert not other.clean_up_tokenization_spaces


def test_the_tokenizers_library_alone_gives_the_same_ids(tmp_path, any_tokenizer):
    any_tokenizer(TEXTS, truncation=True, max_length=2, padding=True)  # must not be saved along
    any_tokenizer.save_pretrained(tmp_path)
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        assert plain.encode(text).ids == any_tokenizer(text).input_ids
        assert plain.decode(plain.encode(text).ids) == normalise(text)


def test_saving_switches_nothing_on_the_tokenizer(tmp_path):
    tokenizer = train_tokenizer(TEXTS, settings=TokenizerSettings(vocab_size=400))
    tokenizer(TEXTS, truncation=True, max_length=2, padding=True)
    before = tokenizer.backend_tokenizer.to_str()
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer.backend_tokenizer.to_str() == before and tokenizer.backend_tokenizer.truncation


def test_auto_tokenizer_finds_the_class(tmp_path):
    G2P.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is FunTransformerTokenizer
    assert all_ids(loaded) == all_ids(G2P)


def test_the_file_works_where_the_package_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(FunTransformerTokenizer, "_auto_class", "AutoTokenizer")
    G2P.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    reference = next(name for name in config["auto_map"]["AutoTokenizer"] if name)
    remote_class = dynamic_module_utils.get_class_from_dynamic_module(reference, tmp_path / "model")
    assert remote_class.__module__.startswith("transformers_modules")
    assert all_ids(remote_class.from_pretrained(tmp_path / "model")) == all_ids(G2P)


# ── mistakes ──


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"type": "bqe"}, "Did you mean 'bpe'"),
        ({"type": "char", "target_type": "words"}, "Did you mean 'word'"),
        ({"lowercase": "sources"}, "Did you mean 'source'"),
        ({"type": "bpe", "target_type": "word"}, "cannot share one vocabulary"),
        ({"type": "char", "target_type": "word"}, "Give the target texts"),
        ({"type": "bpe", "lowercase": "source"}, "Give the target texts"),
        ({"type": "bpe", "vocab_size": 263}, "Choose at least"),
        ({"type": "word", "vocab_size": 6}, "Choose at least"),
    ],
)
def test_mistaken_settings_are_explained(arguments, message):
    with pytest.raises(ValueError, match=message):
        train_tokenizer(TEXTS, settings=TokenizerSettings(**arguments))


@pytest.mark.parametrize("sides", [(["", " \n"],), ([],), (TEXTS, [" "])])
def test_texts_without_any_character_are_refused(sides):
    with pytest.raises(ValueError, match="no text"):
        train_tokenizer(*sides)


# ── command line ──


def test_command_line_reads_the_forms_that_data_files_may_have(tmp_path):
    text = "".join(f"{text}\n" for text in TEXTS).encode()
    packed = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(b"\xef\xbb\xbf" + text)
    files = {"a.txt": b"\xef\xbb\xbf" + text, "a.bz2": bz2.compress(text), "a.zst": packed.getvalue().to_pybytes()}
    expected = train_tokenizer(TEXTS, settings=TokenizerSettings(type="char"))
    for number, (name, content) in enumerate(files.items()):
        (tmp_path / name).write_bytes(content)
        output_dir = tmp_path / str(number)
        main(["--type", "char", "--output_dir", str(output_dir), str(tmp_path / name)])
        loaded = FunTransformerTokenizer.from_pretrained(output_dir)
        assert loaded.backend_tokenizer.to_str() == expected.backend_tokenizer.to_str()


def test_command_line_reads_plain_and_compressed_files(tmp_path, capsys):
    (tmp_path / "a.txt").write_text(TEXTS[0], encoding="utf-8")
    with gzip.open(tmp_path / "b.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(TEXTS[1:3]))
    with lzma.open(tmp_path / "c.xz", "wt", encoding="utf-8") as file:
        file.write("\n".join(TEXTS[3:]) + "\n")
    output_dir = tmp_path / "new" / "tokenizer"
    arguments = ["--type", "bpe", "--vocab_size", "330", "--output_dir", str(output_dir)]
    main([*arguments, *(str(tmp_path / name) for name in ("a.txt", "b.gz", "c.xz"))])
    expected = train_tokenizer(TEXTS, settings=TokenizerSettings(type="bpe", vocab_size=330))
    loaded = FunTransformerTokenizer.from_pretrained(output_dir)
    assert loaded.backend_tokenizer.to_str() == expected.backend_tokenizer.to_str()
    assert "330 tokens" in capsys.readouterr().out
    assert [path.name for path in output_dir.parent.iterdir()] == ["tokenizer"]


def test_command_line_refuses_a_full_folder_and_bad_bytes_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    text, bad, full, new = (tmp_path / name for name in ("a.txt", "bad.txt", "full", "new"))
    text.write_text(TEXTS[0], encoding="utf-8")
    bad.write_bytes(b"good\n" + "é".encode("latin-1"))
    full.mkdir()
    (full / "kept").touch()
    for file, output_dir, message in ((text, full, "not an empty folder"), (bad, new, "line 2 is not UTF-8")):
        with pytest.raises(SystemExit):
            main(["--vocab_size", "300", "--output_dir", str(output_dir), str(file)])
        assert message in capsys.readouterr().err

    def interrupted(self, folder):
        (Path(folder) / "tokenizer.json").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(FunTransformerTokenizer, "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(["--vocab_size", "300", "--output_dir", str(new), str(text)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "bad.txt", "full"]


# ── real data ──


@pytest.mark.slow
@pytest.mark.parametrize("type", ["bpe", "unigram"])
def test_every_real_sentence_comes_back(type):
    path = Path(__file__).resolve().parents[2] / "shared" / "data" / "zh_en_tatoeba" / "train.jsonl.xz"
    if not path.exists():
        pytest.skip(f"needs {path.parent.name}/{path.name}")
    with lzma.open(path, "rt", encoding="utf-8") as file:
        texts = [text for line in file for text in json.loads(line)["translation"].values()]
    tokenizer = train_tokenizer(texts, settings=TokenizerSettings(type=type, vocab_size=8000))
    decoded = tokenizer.decode(tokenizer(texts).input_ids, skip_special_tokens=True)
    assert decoded == [normalise(text) for text in texts]


# ── tokens added later ──

ADDED = ["<num>", "cat", "New York", "数", "<num>er"]


def with_added(type, lowercase="none"):
    settings = TokenizerSettings(type=type, vocab_size=400, lowercase=lowercase)
    tokenizer = train_tokenizer(TEXTS, TEXTS, settings)
    tokenizer.add_tokens(ADDED[:2])
    tokenizer.add_tokens(ADDED[2:])
    return tokenizer


WITH_ADDED = {type: with_added(type) for type in ("bpe", "unigram", "char")}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*ADDED, "the", "今天", " ", "，", "o", "O"]), max_size=8).map("".join))
@pytest.mark.parametrize("type", WITH_ADDED)
def test_text_beside_added_tokens_comes_back(type, text):
    tokenizer = WITH_ADDED[type]
    ids = tokenizer(text).input_ids
    if tokenizer.unk_token_id not in ids:
        assert decode(tokenizer, ids) == normalise(text)
    for token in ADDED[:2]:
        assert (token in text) == (tokenizer.convert_tokens_to_ids(token) in ids) or token == "<num>"


@settings(max_examples=200, deadline=None)
@given(text=any_text)
@pytest.mark.parametrize("type", ["bpe", "unigram"])
def test_added_tokens_change_no_other_text(type, text):
    tokenizer = WITH_ADDED[type]
    if not any(token in text for token in ADDED):
        assert tokenizer(text).input_ids == SUBWORDS[type](text).input_ids


@pytest.mark.parametrize("type", WITH_ADDED)
def test_added_tokens_work_on_both_sides_and_are_saved(type, tmp_path):
    tokenizer = with_added(type, lowercase="source")
    tokenizer.save_pretrained(tmp_path)
    text = "the<num>cat 今<num> 天 <num>"
    for loaded in (tokenizer, AutoTokenizer.from_pretrained(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        batch = loaded(text, text_target=text)
        assert decode(loaded, batch.input_ids) == decode(loaded, batch.labels) == text
        assert batch.labels.count(loaded.convert_tokens_to_ids("<num>")) == 3
        assert loaded.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_a_word_that_is_added_parts_no_longer_word():
    tokenizer = train_tokenizer(TEXTS, settings=TokenizerSettings(vocab_size=400))
    tokenizer.add_tokens([AddedToken("ca", single_word=True)])
    assert tokenizer("cat").input_ids == SUBWORDS["bpe"]("cat").input_ids
    assert tokens(tokenizer, "ca t")[0] == "ca"


def test_special_tokens_stay_as_they_were(subwords):
    tokenizer = train_tokenizer(TEXTS, settings=TokenizerSettings(vocab_size=400))
    before = tokenizer.backend_tokenizer.pre_tokenizer
    tokenizer.add_tokens(["<sep>"], special_tokens=True)
    assert tokens(tokenizer, "the <sep> cat") == ["▁the", "<sep>", "▁cat", "</s>"]
    assert str(tokenizer.backend_tokenizer.pre_tokenizer) == str(before)


def test_learning_by_the_librarys_method_is_refused(any_tokenizer):
    with pytest.raises(NotImplementedError, match="train_tokenizer"):
        any_tokenizer.train_new_from_iterator(TEXTS, 400)


# ── several languages ──


def with_languages(type):
    """A fresh tokenizer that can tell English from Chinese."""
    tokenizer = train_tokenizer(TEXTS, settings=TokenizerSettings(type=type, vocab_size=400))
    tokenizer.add_languages(["zh", "en"])
    return tokenizer


@pytest.mark.parametrize("type", ["bpe", "unigram", "char", "word"])
@pytest.mark.parametrize("text", ["The cat sat.", "今天吃什么好？", "cat 今天", ""])
def test_a_language_is_one_token_before_an_unchanged_source_and_decoded_away(type, text, tmp_path):
    with_languages(type).save_pretrained(tmp_path)
    for tokenizer in (with_languages(type), AutoTokenizer.from_pretrained(tmp_path)):
        assert tokenizer.languages == ["en", "zh"]
        tag = tokenizer.convert_tokens_to_ids(">>zh<<")
        ids = tokenizer(tag_language(text, "zh")).input_ids
        assert ids == [tag, *tokenizer(text).input_ids]
        assert decode(tokenizer, ids) == decode(tokenizer, ids[1:])


def test_languages_are_added_once_and_in_the_same_order_whatever_order_they_are_named_in():
    tokenizer = with_languages("char")
    size = len(tokenizer)
    tokenizer.add_languages(["en"])
    tokenizer.add_languages(["de", "zh"])
    assert len(tokenizer) == size + 1 and tokenizer.languages == ["de", "en", "zh"]
    assert tokenizer.convert_tokens_to_ids([">>en<<", ">>zh<<", ">>de<<"]) == [size - 2, size - 1, size]


def test_only_a_tokenizer_of_several_languages_asks_for_one():
    one = SYMBOLS["char"]
    assert one._build_translation_inputs("cat", return_tensors=None, tgt_lang="xx") == one("cat")
    encode = with_languages("char")._build_translation_inputs
    with pytest.raises(ValueError, match=r"Give tgt_lang=..., one of en, zh, or begin the text with >>en<<"):
        encode("cat", return_tensors=None, src_lang="zh")
    with pytest.raises(ValueError, match=r"tgt_lang='zho' is none of en, zh. Did you mean 'zh'"):
        encode("cat", return_tensors=None, tgt_lang="zho")
    with pytest.raises(ValueError, match="Into which language"):
        encode("cat >>en<<", return_tensors=None)
    for text, tgt_lang in ((">>zh<< cat", "en"), (">>zh<< cat", "zh"), (">>zh<< cat >>en<< dog", None)):
        with pytest.raises(ValueError, match=r"one target language, but here are >>zh<< and .* Leave one"):
            encode(text, return_tensors=None, tgt_lang=tgt_lang)
    assert encode(" >>zh<< cat", return_tensors=None) == encode(">>zh<< cat", return_tensors=None)
    ids = encode(">>zh<< cat", return_tensors=None).input_ids
    assert ids == encode("cat", return_tensors=None, tgt_lang="zh").input_ids


# ── two vocabularies ──


def test_two_vocabularies_in_one_folder_encode_and_decode_each_its_side(tmp_path):
    sources, targets = ["今天吃什么好", "今天吃面条"], ["What is good to eat today", "Noodles today"]
    both_sides = TokenizerSettings(type="char", vocab_size=40, target_type="bpe", target_vocab_size=300)
    train_tokenizer(sources, targets, both_sides).save_pretrained(tmp_path)
    tokenizer = pickle.loads(pickle.dumps(AutoTokenizer.from_pretrained(tmp_path)))
    assert len(tokenizer) < 40 < tokenizer.target_vocab_size <= 300
    only = (
        train_tokenizer(sources, settings=TokenizerSettings(type="char", vocab_size=40)),
        train_tokenizer(targets, settings=TokenizerSettings(type="bpe", vocab_size=300)),
    )
    both = tokenizer(sources, text_target=targets)
    assert both.input_ids == only[0](sources).input_ids and both.labels == only[1](targets).input_ids
    assert tokenizer.batch_decode(both.labels, skip_special_tokens=True) == targets
    assert tokenizer.decode(both.input_ids[0], skip_special_tokens=True, use_source_tokenizer=True) == sources[0]
    assert tokenizer.convert_target_ids_to_tokens(both.labels[0])[0] == tokens(only[1], targets[0])[0]
    assert tokenizer(sources).input_ids == both.input_ids  # the mode holds for one call
    tokenizer.save_pretrained(tmp_path / "again")
    assert AutoTokenizer.from_pretrained(tmp_path / "again")(sources, text_target=targets).labels == both.labels


def test_target_options_are_those_of_transformers():
    apart = TokenizerSettings(type="char", vocab_size=40, target_type="word", target_vocab_size=40)
    tokenizer = train_tokenizer(["今天吃什么好"], ["What is good"], apart)
    cut = {"truncation": True, "max_length": 4, "max_target_length": 3}
    both = tokenizer("今天吃什么好", text_target="What is good", **cut)
    assert (len(both.input_ids), len(both.labels)) == (4, 3)
    assert tokenizer(text_target="What is good", **cut).input_ids == both.labels
    tensors = tokenizer(["今天", "好"], None, ["What", "What is"], padding=True, return_tensors="pt")
    assert tensors["labels"].shape == (2, 3) and tensors["input_ids"].shape == (2, 3)
    with pytest.raises(ValueError, match="either `text` or `text_target`"):
        tokenizer()


def test_the_target_vocabulary_is_public_and_has_tokens_that_were_added_later():
    assert G2P.get_target_vocab() == G2P.get_vocab() and G2P.target_vocab_size is None
    mixed = TokenizerSettings(type="char", vocab_size=100, target_type="word", lowercase="source")
    tokenizer = train_tokenizer(PHONEMES, PHONEMES.values(), mixed)
    tokenizer.add_languages(["zh", "en"])
    assert tokenizer.get_target_vocab() == tokenizer.get_vocab()
    tagged = tokenizer(">>en<< CAT", text_target=">>en<< K")
    assert tokenizer.convert_ids_to_tokens(tagged.labels) == [">>en<<", "▁K", "</s>"]
    apart = train_tokenizer(["今天"], ["today"], replace(mixed, target_vocab_size=40))
    assert "▁today" in apart.get_target_vocab() and "▁today" not in apart.get_vocab()


@pytest.mark.parametrize("target_vocab_size", [None, 60])
def test_threads_may_encode_and_decode_both_sides_at_once(target_vocab_size):
    sides = {"target_type": "word", "target_vocab_size": target_vocab_size, "lowercase": "source"}
    tokenizer = train_tokenizer(PHONEMES, PHONEMES.values(), TokenizerSettings(type="char", vocab_size=100, **sides))
    words, phonemes = list(PHONEMES), list(PHONEMES.values())

    def look():
        batch = tokenizer(words, text_target=phonemes)
        side = {"use_source_tokenizer": True} if target_vocab_size else {}
        return [
            batch.input_ids,
            batch.labels,
            tokenizer.decode(batch.input_ids, skip_special_tokens=True, **side),
            tokenizer.decode(batch.labels, skip_special_tokens=True),
            tokenizer.convert_target_ids_to_tokens(batch.labels[0]),
            tokenizer.convert_ids_to_tokens(batch.input_ids[0]),
            tokenizer.get_target_vocab(),
            tokenizer.get_vocab(),
        ]

    expected = look()
    assert expected[2:4] == [words, phonemes]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: look(), range(200)))
    finally:
        sys.setswitchinterval(interval)
    assert all(seen == expected for seen in found)


def test_two_vocabularies_need_targets_and_room():
    with pytest.raises(ValueError, match="there are no targets"):
        train_tokenizer(TEXTS, settings=TokenizerSettings(type="char", target_vocab_size=99))
    with pytest.raises(ValueError, match="target_vocab_size=99 leaves nothing to learn"):
        TokenizerSettings(type="char", vocab_size=99, target_type="bpe", target_vocab_size=99)


# ── Unicode forms ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("type", ["bpe", "unigram", "char", "word"])
@pytest.mark.parametrize("normalization", ["nfc", "nfd", "none"])
def test_text_keeps_or_gets_the_unicode_form_that_is_asked_for(type, normalization, tmp_path):
    texts = [unicodedata.normalize(form, "한국 né ab") for form in ("NFC", "NFD")]
    settings = TokenizerSettings(type=type, vocab_size=400, normalization=normalization)
    tokenizer = train_tokenizer(texts * 20, settings=settings)
    tokenizer.save_pretrained(tmp_path)
    for ours in (tokenizer, FunTransformerTokenizer.from_pretrained(tmp_path)):
        found = [ours.decode(ours(text)["input_ids"], skip_special_tokens=True) for text in texts]
        forms = {"nfc": texts[:1] * 2, "nfd": texts[1:] * 2, "none": texts}
        assert found == forms[normalization] == [normalise(text, normalization=normalization) for text in texts]


def test_the_target_side_has_the_same_unicode_form():
    text = unicodedata.normalize("NFC", "né")
    settings = TokenizerSettings(type="char", target_type="word", normalization="nfd")
    tokenizer = train_tokenizer([text] * 3, [text] * 3, settings=settings)
    target = tokenizer(text_target=text)["input_ids"]
    assert tokenizer.decode(target, skip_special_tokens=True) == unicodedata.normalize("NFD", text)
    tokenizer.add_tokens(["<num>"])
    assert tokenizer.tokenize(text) == ["n", "e", "\u0301"]


def test_an_unknown_unicode_form_is_refused():
    with pytest.raises(ValueError, match="normalization='nfkc' is not one of nfc, nfd, none"):
        TokenizerSettings(normalization="nfkc")
