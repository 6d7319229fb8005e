"""What the pipelines do beyond transformers 4: long texts in parts, scores, attention maps."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
import regex
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pipelines import OUR_SIZES, SPECIAL, TEXTS, TINY_MODELS, build, copy_pipelines, nllb, tiny_tokenizer
from torch.utils.data import Dataset
from transformers import GenerationConfig, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from fun_transformer import FunTransformerConfig, FunTransformerForConditionalGeneration
from fun_transformer.analysis import cross_attention
from fun_transformer.pipeline_fun_transformer import TranslationPipeline
from fun_transformer.pipeline_records import join_records, reading_copy
from fun_transformer.text_parts import split_text
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

ROOT = Path(__file__).parents[1]
SENTENCES = ["The cat sat on a mat.", "A dog ran!", "The dog sat on the cat?"]
LONG_TEXT = " ".join(SENTENCES)


@pytest.fixture(scope="module", params=TINY_MODELS)
def model(request):
    torch.manual_seed(1)
    return TINY_MODELS[request.param]().eval()


@pytest.fixture(scope="module")
def marian():
    torch.manual_seed(1)
    return TINY_MODELS["marian"]().eval()


@pytest.fixture
def sources(marian, monkeypatch):
    """The `input_ids` of every `generate` call of the Marian model."""
    seen, generate = [], marian.generate
    monkeypatch.setattr(
        marian, "generate", lambda **kwargs: seen.append(kwargs["input_ids"].tolist()) or generate(**kwargs)
    )
    return seen


# ── where a text is cut ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "sentences",
    [
        ["今天吃什么好？", "我不知道！", "他说：“走吧。”", "我们走了；", "再见。"],
        [
            "It is 3.14 metres. ",
            'He said "Go!" ',
            "Mr. Smith, e.g. J. R. Smith, left... and came back. ",
            "Why? ",
            "So.",
        ],
        ["See Fig. 3 and U.S. law. ", "Dr. No came at 5 p.m. and left. ", "1. A list (of one). ", "The end."],
        ["First paragraph \n\n", "second paragraph, without an end\n", "third"],
        ["We like 北京。", "You too. ", "对吗？！", "Yes."],
    ],
)
def test_texts_are_cut_at_the_ends_of_sentences(sentences):
    assert split_text("".join(sentences), lambda part: part in sentences) == sentences


def test_sentences_share_a_part_as_far_as_they_fit_and_paragraphs_do_not():
    text = "One two. Three four. Five six. Seven.\nEight. Nine."
    assert split_text(text, lambda part: len(part) <= 21) == [
        "One two. Three four. ",
        "Five six. Seven.\n",
        "Eight. Nine.",
    ]


def test_a_sentence_that_is_too_long_is_cut_at_clauses_then_words_then_anywhere():
    assert split_text("one two, three four; five", lambda part: len(part) <= 12) == [
        "one two, ",
        "three four; ",
        "five",
    ]
    assert split_text("他来了，我走了，她睡了", lambda part: len(part) <= 4) == ["他来了，", "我走了，", "她睡了"]
    assert split_text("one two three", lambda part: len(part) <= 8) == ["one two ", "three"]
    assert split_text("abcdefgh", lambda part: len(part) <= 3) == ["ab", "cd", "ef", "gh"]


@settings(deadline=None, max_examples=60)
@given(st.text('ab .!?,\n。，中A1"”', max_size=60), st.integers(1, 20))
def test_parts_fit_and_put_together_are_the_text(text, limit):
    parts = split_text(text, lambda part: len(part) <= limit)
    assert "".join(parts) == text
    assert all(len(part) <= limit for part in parts)


CHARACTERS = [
    "e\u0301",
    "क्षि",
    "👨\u200d👩\u200d👧",
    "❤\ufe0f",
    "👍🏽",
    "🇨🇳",
    "1\ufe0f\u20e3",
    "각",
    "葛\U000e0100",
    "か\u3099",
    "a",
]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([*CHARACTERS, " ", "。", ", ", "\r\n"]), max_size=40), st.integers(9, 20))
def test_no_cut_parts_a_character_from_its_signs(characters, limit):
    parts = split_text("".join(characters), lambda part: len(part) <= limit)
    assert "".join(parts) == "".join(characters)
    whole = regex.findall(r"\X", "".join(characters))
    assert [character for part in parts for character in regex.findall(r"\X", part)] == whole


@pytest.mark.parametrize("character", CHARACTERS[:-1])
def test_a_character_that_does_not_fit_is_refused_whole(character):
    with pytest.raises(ValueError, match="larger max_source_length"):
        split_text(f"a {character} b", lambda part: len(part) < len(character))


def test_a_limit_below_one_character_is_refused():
    with pytest.raises(ValueError, match="larger max_source_length"):
        split_text("ab", lambda part: False)


@pytest.mark.parametrize(
    ("parts", "texts", "joined"),
    [
        (["你好。", "再见。"], ["Hello.", "Bye."], "Hello. Bye."),
        (["Hello. ", "Bye."], ["你好。", "再见。"], "你好。再见。"),
        (["你好。\n\n", "再见。"], ["Hello.", "Bye."], "Hello.\n\nBye."),
        (["a ", "b ", "c"], ["x", "", "z"], "x z"),
    ],
)
def test_translations_are_joined_as_their_script_does(parts, texts, joined):
    assert join_records(parts, [{"translation_text": text} for text in texts]) == {"translation_text": joined}


# ── long texts through the pipelines ──────────────────────────────────────────────────────────────────────────────


def test_a_long_text_is_translated_in_parts_and_joined(model):
    pipe = build(model)
    parts = pipe(SENTENCES)
    expected = join_records([s + " " for s in SENTENCES], parts)
    assert pipe(LONG_TEXT, long_text="split", max_source_length=7) == [expected]
    assert pipe([LONG_TEXT], long_text="split", max_source_length=7, batch_size=2) == [expected]


def test_the_limit_is_what_the_model_or_its_tokenizer_says(model):
    pipe = build(model, long_text="split")
    assert pipe.max_source_tokens == 64
    text = " ".join(["The cat sat on the mat."] * 30)
    assert isinstance(pipe(text)[0]["translation_text"], str)
    pipe.tokenizer.model_max_length = 10
    assert pipe.max_source_tokens == 10
    pipe.tokenizer.model_max_length = 10**30
    assert pipe.max_source_tokens == (None if model.config.model_type == "t5" else 64)


def test_without_a_limit_a_text_stays_whole():
    pipe = build(TINY_MODELS["t5"]().eval(), long_text="split")
    pipe.tokenizer.model_max_length = 10**30
    assert pipe("the cat " * 200) == build(pipe.model)("the cat " * 200)


def test_short_texts_are_what_they_were(model):
    assert build(model)(TEXTS, long_text="split", batch_size=2) == build(model)(TEXTS, batch_size=2)


def test_long_and_short_texts_come_back_in_order_in_every_kind_of_input(model):
    class Rows(Dataset):
        def __len__(self):
            return len(texts)

        def __getitem__(self, i):
            return {"zh": texts[i]}

    texts = [TEXTS[0], LONG_TEXT, TEXTS[2], f"{LONG_TEXT}\n{LONG_TEXT}", ""]
    pipe = build(model, long_text="split", max_source_length=7, num_beams=2, num_return_sequences=2)
    expected = [pipe(text) for text in texts]
    assert [len(records) for records in expected] == [2] * 5
    assert pipe(texts) == pipe(texts, batch_size=3) == expected
    assert list(pipe((text for text in texts), batch_size=3)) == expected
    assert list(pipe(KeyDataset(Rows(), "zh"), batch_size=2, num_workers=1)) == expected


def test_a_stream_of_long_texts_is_not_read_ahead(marian):
    taken = []
    stream = build(marian, long_text="split", max_source_length=7)(taken.append(text) or text for text in TEXTS)
    assert next(iter(stream)) == build(marian)(TEXTS[0])
    assert len(taken) < len(TEXTS)


def test_the_model_is_never_given_more_than_the_limit(marian, sources):
    build(marian, "summarization")(" ".join([LONG_TEXT] * 5), long_text="split", max_source_length=12, batch_size=4)
    assert max(len(row) for batch in sources for row in batch) <= 12
    assert len(sources) > 2


def test_truncate_cuts_the_source(marian, sources):
    build(marian)("a dog ran on the mat", long_text="truncate", max_source_length=4)
    build(marian)("the " * 100, long_text="truncate")
    assert [len(batch[0]) for batch in sources] == [4, 64]


def test_error_refuses_a_long_text_and_takes_others(marian):
    pipe = build(marian, long_text="error", max_source_length=6)
    assert pipe("the cat") == build(marian)("the cat")
    with pytest.raises(ValueError, match="7 tokens is longer than the 6"):
        pipe(["the cat", "a dog ran on the mat"])


def test_options_that_mean_nothing_are_refused(marian):
    with pytest.raises(ValueError, match="'split', 'truncate', 'error'"):
        build(marian)("the cat", long_text="cut")
    with pytest.raises(ValueError, match="needs long_text"):
        build(marian)("the cat", max_source_length=7)


def test_parts_of_a_text_know_their_languages():
    model, tokenizer = nllb()
    pipe = TranslationPipeline(
        model, tokenizer, task="translation", src_lang="eng_Latn", tgt_lang="deu_Latn", device=-1, max_new_tokens=4
    )
    ids = pipe("the cat. " * 3, long_text="split", max_source_length=14, return_tensors=True)[0]
    assert ids["translation_token_ids"].tolist().count(tokenizer.convert_tokens_to_ids("deu_Latn")) >= 3


TAGGED = [">>en<< 今天天气很好。你好，世界！", "  >>en<<今天天气很好。你好，世界！"]


@pytest.fixture(scope="module")
def to_two_languages():
    """A tiny model and its tokenizer, which knows >>en<< and >>zh<<."""
    tokenizer = train_tokenizer(TAGGED[0], settings=TokenizerSettings(type="char"))
    tokenizer.add_languages(["en", "zh"])
    config = FunTransformerConfig(**{**SPECIAL, **OUR_SIZES, "vocab_size": len(tokenizer)}, decoder_start_token_id=1)
    return FunTransformerForConditionalGeneration(config).eval(), tokenizer


@pytest.mark.parametrize("task", ["translation", "text2text-generation"])
@pytest.mark.parametrize("text", TAGGED)
@pytest.mark.parametrize("wrap", [str, lambda text: [text], lambda text: (one for one in [text])])
def test_every_part_carries_the_tag_of_the_text(to_two_languages, monkeypatch, task, text, wrap):
    model, tokenizer = to_two_languages
    seen, generate = [], model.generate
    monkeypatch.setattr(model, "generate", lambda **kwargs: seen.extend(kwargs["input_ids"]) or generate(**kwargs))
    pipe = pipeline(task, model=model, tokenizer=tokenizer, device="cpu", max_new_tokens=2)
    list(pipe(wrap(text), long_text="split", max_source_length=9))
    tag = tokenizer.convert_tokens_to_ids(">>en<<")
    parts = sorted(tokenizer.decode(ids[1:], skip_special_tokens=True) for ids in seen)
    assert parts == ["今天天气很好。", "你好，世界！"]
    assert all(ids[0] == tag and len(ids) <= 9 for ids in seen)


@pytest.mark.parametrize("long_text", [None, "split"])
@pytest.mark.parametrize(
    ("task", "text", "options"),
    [
        ("translation", ">>en<< >>en<< 今天", {}),
        ("translation", ">>en<< 今天", {"tgt_lang": "zh"}),
        ("translation", ">>en<< 今天", {"tgt_lang": "en"}),
        ("translation_zh_to_en", ">>zh<< 今天", {}),
        ("translation", "今天 >>en<< 好", {"tgt_lang": "en"}),
        ("text2text-generation", ">>en<< 今天。>>zh<< 好", {}),
    ],
)
def test_a_language_given_twice_is_refused(to_two_languages, task, text, options, long_text):
    model, tokenizer = to_two_languages
    pipe = pipeline(task, model=model, tokenizer=tokenizer, device="cpu", max_new_tokens=2)
    with pytest.raises(ValueError, match=r"one target language, but here are .* and .* Leave one of them"):
        pipe(text, long_text=long_text, **options)


def test_what_only_looks_like_a_tag_is_text(marian):
    assert build(marian)(">>en<< >>de<< the cat", long_text="split") == build(marian)("x x the cat")


# ── scores ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("num_beams", [1, 3])
def test_scores_are_the_log_probabilities_that_generate_found(model, num_beams):
    tokenizer = tiny_tokenizer()
    pipe = build(model, num_beams=num_beams, num_return_sequences=num_beams, length_penalty=0.0)
    found = model.generate(
        **tokenizer(TEXTS[1], return_tensors="pt"),
        max_new_tokens=6,
        num_beams=num_beams,
        num_return_sequences=num_beams,
        length_penalty=0.0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    expected = model.compute_transition_scores(
        found.sequences, found.scores, getattr(found, "beam_indices", None), normalize_logits=num_beams == 1
    )
    records = pipe([TEXTS[1], TEXTS[0]], return_scores=True, batch_size=2)
    records = records[0] if num_beams > 1 else records[:1]
    for record, token_scores in zip(records, expected):
        assert record["log_probability"] == pytest.approx(token_scores.sum().item(), abs=1e-3)
        scores = torch.tensor(record["token_log_probabilities"])
        torch.testing.assert_close(scores, token_scores[: len(scores)], rtol=1e-4, atol=1e-4)
        assert len(record["target_tokens"]) == len(scores)
        assert record["target_tokens"].count("</s>") == (record["target_tokens"][-1] == "</s>")


def test_scores_and_maps_are_the_same_alone_and_in_a_batch(model):
    pipe = build(model, return_scores=True, return_attention=True)
    for record, text in zip(pipe(TEXTS, batch_size=3), TEXTS):
        (alone,) = pipe(text)
        assert record.keys() == alone.keys()
        assert record["target_tokens"] == alone["target_tokens"]
        assert record["source_tokens"] == alone["source_tokens"] == [*text.split(), "</s>"]
        assert record["token_log_probabilities"] == pytest.approx(alone["token_log_probabilities"], abs=1e-4)
        torch.testing.assert_close(record["attention"], alone["attention"], rtol=1e-4, atol=1e-4)


def test_forced_tokens_have_no_part_in_the_score():
    model, tokenizer = nllb()
    pipe = TranslationPipeline(
        model, tokenizer, task="translation", src_lang="eng_Latn", tgt_lang="deu_Latn", device=-1, max_new_tokens=4
    )
    (record,) = pipe("the cat", return_scores=True)
    assert record["target_tokens"][0] == "deu_Latn"
    assert record["token_log_probabilities"][0] == 0
    assert record["log_probability"] < 0


def test_scores_of_parts_add_up(model):
    pipe = build(model, return_scores=True)
    (record,) = pipe(LONG_TEXT, long_text="split", max_source_length=7)
    parts = pipe(SENTENCES)
    assert record["log_probability"] == pytest.approx(sum(part["log_probability"] for part in parts), abs=1e-4)
    assert record["target_tokens"] == [token for part in parts for token in part["target_tokens"]]


# ── attention ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_attention_is_the_map_that_our_pictures_show(marian):
    pipe = build(marian, num_beams=2)
    expected = cross_attention(marian, tiny_tokenizer(), TEXTS[1], num_beams=2, max_new_tokens=6)
    (record,) = pipe(TEXTS[1], return_attention=True)
    torch.testing.assert_close(record["attention"], expected.weights)
    assert record["source_tokens"] == expected.source_tokens
    assert record["target_tokens"] == expected.target_tokens
    assert record["translation_text"] == expected.target


def test_attention_of_a_long_text_has_a_block_for_each_part(model):
    pipe = build(model, return_attention=True)
    (record,) = pipe(LONG_TEXT, long_text="split", max_source_length=7)
    parts = pipe(SENTENCES)
    attention = record["attention"]
    assert attention.shape[2:] == (len(record["target_tokens"]), len(record["source_tokens"]))
    torch.testing.assert_close(attention.sum(-1), torch.ones(attention.shape[:3]))
    first = parts[0]["attention"]
    torch.testing.assert_close(attention[:, :, : first.shape[2], : first.shape[3]], first)


@pytest.mark.parametrize("fails", [False, True])
def test_attention_switches_nothing_on_the_model(model, monkeypatch, fails):
    seen = []
    parts = [part for part in model.modules() if hasattr(part, "config")]

    def look(module, arguments):
        seen.append([part.config._attn_implementation for part in parts])
        if fails:
            raise ZeroDivisionError

    pipe = build(model, return_attention=True)
    monkeypatch.setattr(model, "generate", lambda **kwargs: torch.tensor([[0, 4, 2]]))
    hook = model.register_forward_pre_hook(look)  # the copy has it too
    try:
        with pytest.raises(ZeroDivisionError) if fails else nullcontext():
            pipe(TEXTS[0])
    finally:
        hook.remove()
    assert len(seen) == 1 and {name for names in seen for name in names} == {"sdpa"}
    assert {part.config._attn_implementation for part in parts} == {"sdpa"}


def test_threads_may_ask_one_model_for_attention_and_for_none(model):
    pipe, text = build(model), TEXTS[3]
    expected = pipe(text, return_attention=True)[0]["attention"]
    loss = model(**tiny_tokenizer()(text, return_tensors="pt"), labels=torch.tensor([[4, 5, 2]])).loss

    def ask(i):
        if i % 2:
            return torch.equal(pipe(text, return_attention=True)[0]["attention"], expected)
        with torch.no_grad():
            batch = tiny_tokenizer()(text, return_tensors="pt")
            return torch.equal(model(**batch, labels=torch.tensor([[4, 5, 2]])).loss, loss)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(24)))


def test_a_reading_copy_shares_all_weights(model):
    for kernel in (None, "eager"):
        copied = reading_copy(model, kernel)
        pairs = list(zip(copied.state_dict(keep_vars=True).values(), model.state_dict(keep_vars=True).values()))
        assert pairs and all(one is other for one, other in pairs)
        assert not {id(part) for part in copied.modules()} & {id(part) for part in model.modules()}


def test_parts_in_other_modes_come_out_as_they_were(model):
    model.train()
    frozen = model.get_encoder().eval()
    cross_attention(model, tiny_tokenizer(), TEXTS[0], TEXTS[1])
    assert model.training and not frozen.training
    model.eval()


def test_compiled_and_hooked_models_give_attention(model, monkeypatch):
    expected = build(model, return_attention=True)(TEXTS[0])[0]["attention"]
    add_hook_to_module(model, ModelHook())
    torch.testing.assert_close(build(model, return_attention=True)(TEXTS[0])[0]["attention"], expected)
    remove_hook_from_module(model)
    monkeypatch.setattr(model, "forward", torch.compile(model.forward, backend="eager"))
    output_ids = model.generate(**tiny_tokenizer()(TEXTS[0], return_tensors="pt"), max_new_tokens=6, num_beams=4)
    monkeypatch.setattr(model, "generate", lambda **kwargs: output_ids)
    torch.testing.assert_close(build(model, return_attention=True)(TEXTS[0])[0]["attention"], expected)


def test_nothing_is_read_twice_where_nothing_is_asked(marian, monkeypatch):
    monkeypatch.setattr(marian, "forward", lambda **kwargs: 1 / 0)
    monkeypatch.setattr(marian, "generate", lambda **kwargs: torch.tensor([[0, 4, 2]]))
    assert build(marian)("the cat") == [{"translation_text": "the"}]


# ── docs/pipelines.md ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_python_of_the_docs_runs(marian, tmp_path, monkeypatch):
    monkeypatch.setattr(marian, "generation_config", GenerationConfig(decoder_start_token_id=0, max_new_tokens=6))
    build(marian).save_pretrained(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "pipelines.md").read_text("utf-8"), flags=re.DOTALL)
    blocks = [block for block in blocks if "image-to-text" not in block]  # which test_training_media.py runs
    assert len(blocks) == 6
    words = {"Helsinki-NLP/opus-mt-zh-en": str(tmp_path), "In Peking": "the", "Peking": "cat", "tea|green tea": "dog"}
    words["https://example.org/a?b=1"] = "a"  # nothing that a dozen words cannot spell
    copy_pipelines(tmp_path / "my_pipelines")
    monkeypatch.syspath_prepend(tmp_path)
    names = {}
    for block in blocks:
        exec(re.sub("|".join(map(re.escape, words)), lambda found: words[found[0]], block), names)
    assert names["record"].keys() == {"translation_text", "attention", "source_tokens", "target_tokens"}
