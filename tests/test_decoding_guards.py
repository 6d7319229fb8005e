"""Guards: faults that are there are named, those that are not are not, and no loop is ever left."""

import json
import lzma
from pathlib import Path

import pytest
import torch
from tiny_seq2seq import FAMILIES, tiny_model, word_tokenizer

from benchmarks.noise import KINDS, noisy_inputs
from fun_transformer.decoding.faults import find_faults, find_loop, is_copy, repeats_of, text_size, without_loops
from fun_transformer.decoding.guards import FALLBACKS, Output, generator, guarded, split_sentences

TATOEBA = Path(__file__).parents[2] / "shared" / "data" / "zh_en_tatoeba" / "validation.jsonl.xz"
SOURCE = "他昨天在图书馆里看了三个小时的书。"
GOOD = "He read books in the library for three hours yesterday."

FAULTY = [
    (SOURCE, "He read, he read, he read, he read, he read", ["loop"]),
    (SOURCE, "He read books books books books books books.", ["loop"]),
    (SOURCE, "He looooooooooooooooooooked at the books.", ["loop"]),
    (SOURCE, "He said hahahahahahahahahahahahaha and left.", ["loop"]),
    (SOURCE, "In the library of this, in the library of that, in the library of it, in the library of us", ["loop"]),
    ("Er las.", "他看书看书看书看书看书。", ["loop"]),
    (SOURCE, "", ["empty"]),
    (SOURCE, " ... ?", ["empty"]),
    (SOURCE, GOOD * 4, ["loop", "long"]),
    ("他走了。", "He said that it was cold and that she should go home with both of her brothers.", ["long"]),
    (SOURCE * 3, "He read.", ["short"]),
    ("我喜欢你" * 750, "I like you better than you like me. I like you better than you like me.", ["short"]),
    (SOURCE, SOURCE, ["copy"]),
    (SOURCE, f"He: {SOURCE}", ["copy"]),
    ("Wo ist der nächste Bahnhof?", "wo ist der nächste bahnhof", ["copy"]),
    ("WO IST DER BAHNHOF?", "Wo ist der Bahnhof?", ["copy"]),
]
GOOD_PAIRS = [
    (SOURCE, GOOD),
    ("不，不，不！", "No, no, no!"),
    ("这真的非常非常非常好。", "This is very, very, very good."),
    ("哈哈哈哈哈哈哈哈哈哈", "Hahahahahahahahahaha"),  # as often as the source
    ("哈" * 100, "Hahahaha."),
    ("我喜欢你" * 750, "I like you. " * 750),
    ("好好好好好好好好", "good good good good good good good good"),
    ("----------------", "----------------"),
    ("我等了很久……", "I waited for a long time..."),
    ("Tom Miller", "Tom Miller"),
    ("https://example.org/a?b=1", "https://example.org/a?b=1"),
    ("anna@example.org 12.5 %", "anna@example.org 12.5 %"),
    ("3 + 4 = 7", "3 + 4 = 7"),
    ("`print(x)` <br/> {name_1}", "`print(x)` <br/> {name_1}"),
    ("Berlin", "Berlin"),
    ("!", "!"),
    ("", ""),
    ("电话：13800138000", "Phone: 13800138000"),
]


@pytest.mark.parametrize("source, target, faults", FAULTY)
def test_faults_are_named(source, target, faults):
    assert find_faults(source, target) == faults


@pytest.mark.parametrize("source, target", GOOD_PAIRS)
def test_good_translations_have_no_fault(source, target):
    assert find_faults(source, target) == []


def test_an_output_without_an_end_is_unfinished_and_lengths_count_for_translations_only():
    assert find_faults(SOURCE, GOOD, finished=False) == ["unfinished"]
    assert find_faults(SOURCE * 3, "He read.", is_translation=False) == []
    assert find_faults(SOURCE, SOURCE, is_translation=False) == []
    assert find_faults(SOURCE, "read " * 9, is_translation=False) == ["loop"]


def test_a_source_that_repeats_itself_may_be_translated_shortly():
    assert find_faults("我想去学" + "去学" * 30 + "。", "I want to go and learn.") == []
    assert repeats_of("去学" * 30) == 30 and repeats_of(SOURCE) == 1


def test_cutting_says_each_phrase_once_and_keeps_the_rest():
    assert without_loops("He read, he read, he read, he read, and left.") == "He read, and left."
    assert without_loops("abc " * 40 + "and xyz " * 40).split() == ["abc", "and", "xyz"]
    for text in ("a b c d a b c e a b c f a b c g", "ab" * 50, "x y " * 50 + "ha" * 50):
        assert find_loop(text) and not find_loop(without_loops(text))


def test_sizes_are_those_of_an_alphabet():
    assert text_size("你好, Tom 3!") == 3 + 3 + 4
    assert is_copy("你好吗朋友", "你好吗朋友") and not is_copy("东京", "东京")


@pytest.mark.skipif(not TATOEBA.exists(), reason="needs the shared data")
@pytest.mark.parametrize("source, target", [("zh", "en"), ("en", "zh")])
def test_translations_by_people_have_no_faults(source, target):
    with lzma.open(TATOEBA, "rt", encoding="utf-8") as file:
        rows = [json.loads(line)["translation"] for line in file]
    assert [row for row in rows if find_faults(row[source], row[target])] == []


# -- retries


ORDER = ["no_repeat", *FALLBACKS]  # which has the options of "parts"


class Generator:
    """Answers what a table says for the options that were given."""

    def __init__(self, answers):
        self.answers, self.calls = answers, []

    def __call__(self, texts, **options):
        self.calls.append((texts, options))
        name = next((name for name in ORDER if FALLBACKS[name].options == options), None)
        return [Output(self.answers(text, name if options else None), extra=(text, name)) for text in texts]


LOOP = "He read " * 40


def test_good_outputs_are_generated_once():
    generate = Generator(lambda text, fallback: GOOD)
    [found] = guarded(generate, [SOURCE])
    assert (found.text, found.faults, found.fallback, found.left, found.extra) == (GOOD, [], None, [], (SOURCE, None))
    assert generate.calls == [([SOURCE], {})]


def test_only_what_has_faults_is_generated_again_and_the_record_says_how():
    other = "汤姆喜欢他的新老师。"
    answers = {(SOURCE, "no_repeat"): GOOD, (other, None): "Tom likes his new teacher."}
    generate = Generator(lambda text, fallback: answers.get((text, fallback), LOOP))
    mended, good = guarded(generate, [SOURCE, other])
    assert (mended.text, mended.faults, mended.fallback, mended.left) == (GOOD, ["loop", "long"], "no_repeat", [])
    assert good.text == "Tom likes his new teacher." and good.fallback is None
    assert [texts for texts, _ in generate.calls] == [[SOURCE, other], [SOURCE], [SOURCE]]  # then greedy, no_repeat


def test_sentences_are_parts_and_their_translations_are_joined():
    source = "他读书。她写信。\n我睡觉。"
    answers = {"他读书。": "He reads.", "她写信。": "She writes.", "我睡觉。": "I sleep."}
    generate = Generator(lambda text, fallback: answers.get(text.strip(), LOOP))
    [found] = guarded(generate, [source])
    assert (found.text, found.fallback, found.extra) == ("He reads. She writes.\nI sleep.", "parts", None)


HANZI = "".join(chr(0x4E00 + i) for i in range(260))
WORDS = " ".join(first + second + "ing" for first in "bcdfghklmn" for second in "aeiourstvwxyz")


@pytest.mark.parametrize("source", [HANZI, WORDS])
def test_a_long_text_without_sentences_is_answered_in_pieces(source):
    def generate(texts, **options):
        return [Output(text[: 20 if source == HANZI else 70]) for text in texts]  # whatever their length

    (one,) = guarded(generate, [source])
    pieces = split_sentences(source)
    assert "".join(pieces) == source and max(map(text_size, pieces)) <= 120 and len(pieces) > 3
    assert (one.faults, one.fallback, one.left) == (["short"], "parts", [])
    assert split_sentences(SOURCE) == [SOURCE]


def test_a_loop_that_no_fallback_leaves_is_cut_off():
    [found] = guarded(Generator(lambda text, fallback: LOOP), [SOURCE])
    assert (found.text.strip(), found.fallback, found.faults) == ("He read", "cut", ["loop", "long"])
    assert "loop" not in found.left
    [alone] = guarded(Generator(lambda text, fallback: LOOP), [SOURCE], fallbacks=[])
    assert alone.text == found.text


def test_the_least_bad_output_is_taken_where_none_is_good():
    answers = {None: SOURCE, "no_copy": ""}
    [found] = guarded(Generator(lambda text, fallback: answers.get(fallback, LOOP)), [SOURCE])
    assert (found.text, found.left, found.fallback) == (SOURCE, ["copy"], None)


def test_sentences_end_where_those_of_long_texts_do():
    assert split_sentences("Mr. Li left. He was 3.5 m tall!") == ["Mr. Li left. ", "He was 3.5 m tall!"]
    assert split_sentences("他读书，她写信") == ["他读书，", "她写信"]
    assert split_sentences("none") == ["none"]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_loop_is_left_in_what_any_model_generates(family):
    model, tokenizer = tiny_model(family), word_tokenizer()
    sources = [" ".join("abcdefghijklmnop"[i : i + 3 + i % 4]) for i in range(12)]
    generate = generator(model, tokenizer, num_beams=2, max_new_tokens=24)
    found = guarded(generate, sources)
    assert [one.left for one in found if "loop" in one.left] == []
    plain = generate(sources)
    for source, one, first in zip(sources, found, plain):
        assert one.faults == find_faults(source, first.text, first.finished)
        assert (one.fallback is None) <= (one.text == first.text)


def test_the_generator_answers_as_the_model_does_alone():
    model, tokenizer = tiny_model("bart"), word_tokenizer()
    sources = ["a b c d", "e", "f g"]
    outputs = generator(model, tokenizer, batch_size=2, max_new_tokens=8)(sources)
    for source, output in zip(sources, outputs):
        encoded = tokenizer(source, return_tensors="pt")
        [ids] = model.generate(encoded.input_ids, attention_mask=encoded.attention_mask, max_new_tokens=8)
        assert output.text == tokenizer.decode(ids, skip_special_tokens=True)
        assert output.finished == (model.config.eos_token_id in ids[1:].tolist())


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"'lottery' is no fallback\. Choose from parts, greedy"):
        guarded(Generator(lambda text, fallback: GOOD), [SOURCE], fallbacks=["lottery"])
    with pytest.raises(ValueError, match="num_return_sequences"):
        generator(tiny_model("bart"), word_tokenizer(), num_return_sequences=2)


# -- the noise of the benchmark


def test_noise_is_the_same_for_the_same_seed_and_of_all_kinds():
    pairs = [("Tom ate two apples.", "汤姆吃了两个苹果。"), ("She is here.", "她在这里。")]
    found = noisy_inputs(pairs, 70, seed=3)
    assert found == noisy_inputs(pairs, 70, seed=3) != noisy_inputs(pairs, 70, seed=4)
    assert {kind for kind, _, _ in found} == set(KINDS)
    by_kind = {kind: [source for name, source, _ in found if name == kind] for kind in KINDS}
    assert all(source.isupper() for source in by_kind["upper case"])
    assert not any("." in source for source in by_kind["missing punctuation"])
    assert all(repeats_of(source) >= 3 for source in by_kind["repeated words"])
    assert all(any(c.isdigit() for c in source) for source in by_kind["numbers"])
    assert torch.tensor([len(sources) for sources in by_kind.values()]).eq(10).all()


def test_every_part_of_a_text_begins_with_its_target_language():
    assert split_sentences(">>en<< 你好。再见。") == [">>en<< 你好。", ">>en<< 再见。"]
    assert split_sentences("你好。再见。") == ["你好。", "再见。"]
