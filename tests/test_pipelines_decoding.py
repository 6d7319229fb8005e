"""What the pipelines do with the package's own decoding: sentences, guards, alignments, terms, beginnings."""

import pytest
import torch
from test_pipelines import OUR_SIZES, TINY_MODELS, build, copy_pipelines, tiny_tokenizer
from transformers import pipeline

from fun_transformer import FunTransformerConfig, FunTransformerForConditionalGeneration
from fun_transformer.decoding.alignment import Aligner
from fun_transformer.decoding.confidence import score_generated
from fun_transformer.decoding.diverse import DiverseBeamSearch
from fun_transformer.decoding.faults import find_faults
from fun_transformer.decoding.mbr import SAMPLING, choose
from fun_transformer.pipeline_records import FIGURES, join_records
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer


@pytest.fixture(scope="module", params=["marian", "t5", "fun_transformer"])
def model(request):
    torch.manual_seed(1)
    return TINY_MODELS[request.param]().eval()


@pytest.fixture(scope="module")
def marian():
    torch.manual_seed(1)
    return TINY_MODELS["marian"]().eval()


def text_of(record):
    return record["translation_text"]


# ── sentences ──


def test_each_sentence_is_translated_by_itself_and_what_has_no_words_is_copied(model):
    pipe = build(model)
    first, second, third = (text_of(pipe(text)[0]) for text in ("The cat sat.", "A dog ran!", "the dog"))
    found = pipe("The cat sat. A dog ran!\n\n  42\nhttps://a.b/cat\nthe dog", long_text="sentences")
    assert text_of(found[0]) == f"{first} {second}".strip() + f"\n\n  42\nhttps://a.b/cat\n{third}"


def test_sentences_of_many_texts_share_batches_and_stream(model):
    pipe = build(model, long_text="sentences")
    texts = ["the cat. A dog ran!", "42", "the dog"]
    single = [pipe(text)[0] for text in texts]
    assert pipe(texts, batch_size=3) == single
    assert [records[0] for records in pipe((text for text in texts), batch_size=2)] == single


def test_a_copy_has_the_fields_of_the_other_records(marian):
    asked = {"long_text": "sentences", "return_scores": True, "return_alignments": True, "guard": True}
    text, copy = build(marian)(["the cat", "42 7"], **asked)
    assert set(text) == set(copy) and copy["translation_text"] == "42 7"
    assert (copy["alignment"], copy["score"], copy["target_tokens"], copy["faults"]) == ("0-0 1-1", None, [], [])
    assert all(copy[name] is None for name in FIGURES)
    (beside,) = build(marian)(["the cat. 42 7"], **asked)
    assert all(beside[name] is not None for name in FIGURES)


def test_each_of_several_results_is_looked_at(model):
    text, found = "the cat sat on a mat .", []
    for length in (3, 30):  # too short for some models, and a loop in others
        pipe = build(model, max_new_tokens=length)
        found += pipe([text], guard=True, num_return_sequences=4, return_finished=True)
    for record in (record for records in found for record in records):
        assert record["faults_left"] == find_faults(text, text_of(record), record["finished"])
        assert record["faults"] == record["faults_left"] or record["fallbacks"]
    assert any(record["faults"] for records in found for record in records[1:])


def test_joined_means_are_those_over_all_tokens():
    first = {"x_text": "a b", "target_tokens": ["a", "b"], "entropy": 1.0, "min_log_probability": -1.0}
    second = {"x_text": "c", "target_tokens": ["c"], "entropy": 4.0, "min_log_probability": -3.0}
    first |= {"alignment": "0-0 1-1", "source_words": ["A", "B"], "target_words": ["a", "b"], "faults": ["loop"]}
    second |= {"alignment": "0-0", "source_words": ["C"], "target_words": ["c"], "faults": ["loop", "copy"]}
    joined = join_records(["A B ", "C"], [first, second])
    assert joined["entropy"] == pytest.approx(2.0) and joined["min_log_probability"] == -3.0
    assert joined["alignment"] == "0-0 1-1 2-2" and joined["target_words"] == ["a", "b", "c"]
    assert joined["faults"] == ["loop", "copy"] and joined["x_text"] == "a b c"
    assert join_records(["A B ", "C"], [first, second | {"entropy": None}])["entropy"] is None


# ── figures, alignments, guards ──


@pytest.mark.parametrize("num_beams", [1, 3])
def test_figures_are_those_of_a_second_reading_and_of_beam_search(model, num_beams):
    pipe = build(model, num_beams=num_beams)
    (record,) = pipe("the cat sat", return_scores=True)
    inputs = tiny_tokenizer()("the cat sat", return_tensors="pt")
    inputs.pop("token_type_ids", None)
    options = {"num_beams": num_beams, "max_new_tokens": 6, "return_dict_in_generate": True, "output_scores": True}
    outputs = model.generate(**inputs, **options)
    (confidence,) = score_generated(model, tiny_tokenizer(), inputs, outputs.sequences, {"max_new_tokens": 6})
    for name, value in confidence.record().items():
        assert record[name] == (value if name == "target_tokens" else pytest.approx(value, abs=1e-5)), name
    if num_beams > 1:
        assert record["score"] == pytest.approx(outputs.sequences_scores.item(), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_alignments_are_the_aligners(model, batch_size):
    texts = ["the cat sat on a mat", "a dog"]
    found = build(model)(texts, return_alignments=True, batch_size=batch_size, num_return_sequences=2)
    aligner = Aligner(model, tiny_tokenizer())
    for text, records in zip(texts, found, strict=True):
        inputs = tiny_tokenizer()(text, return_tensors="pt")
        output_ids = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=6,
            num_beams=4,
            num_return_sequences=2,
        )
        expected = aligner.align_generated([text], inputs, output_ids)
        assert [record["alignment"] for record in records] == [str(alignment) for alignment in expected]
        assert all(record["source_words"] == text.split() for record in records)


def test_a_guard_says_what_was_wrong_and_leaves_no_loop(model):
    pipe = build(model, max_new_tokens=30)
    texts = ["the cat sat on a mat", "a dog ran", "the dog"]
    plain, guarded = pipe(texts, batch_size=3), pipe(texts, batch_size=3, guard=True, return_finished=True)
    for text, before, after in zip(texts, plain, guarded, strict=True):
        assert find_faults(text, text_of(before)) == [fault for fault in after["faults"] if fault != "unfinished"]
        assert "loop" not in after["faults_left"] and "loop" not in find_faults(text, text_of(after))
        if not after["faults"]:
            assert text_of(before) == text_of(after) and after["fallbacks"] == []
    assert any(record["faults"] for record in guarded) or all("finished" in record for record in guarded)
    single = [pipe(text, guard=True, return_finished=True)[0] for text in texts]
    assert single == guarded
    streamed = list(pipe((text for text in texts), guard=True, batch_size=2))
    assert [text_of(records[0]) for records in streamed] == [text_of(record) for record in guarded]


def test_a_guarded_list_of_sequences_is_always_nested(model):
    found = build(model, max_new_tokens=30)(["the cat", "a dog"], guard=True, num_return_sequences=2)
    assert all(isinstance(records, list) for records in found)


def test_more_sequences_than_beams_get_as_many_beams(marian):
    assert len(build(marian)("the cat", num_return_sequences=6)) == 6


def test_a_guard_wants_texts(marian):
    with pytest.raises(ValueError, match="guard=True looks at texts"):
        build(marian)("the cat", guard=True, return_tensors=True)


# ── terms and beginnings ──


@pytest.mark.parametrize("batch_size", [1, 3])
def test_terms_are_in_the_results_and_other_texts_stay_as_they_were(model, batch_size):
    texts = ["the cat sat", "a dog ran", "a mat"]
    pipe = build(model, max_new_tokens=12)
    found = pipe(texts, glossary={"dog": "mat", "cat": ""}, batch_size=batch_size)
    assert "cat" in text_of(found[0]).split() and "mat" in text_of(found[1]).split()
    assert found[2] == pipe("a mat")[0]


def test_a_glossary_may_be_a_file(marian, tmp_path):
    (tmp_path / "terms.tsv").write_text("dog\tmat\n")
    pipe = build(marian, max_new_tokens=12, glossary=tmp_path / "terms.tsv")
    assert pipe("a dog") == build(marian, max_new_tokens=12)("a dog", glossary={"dog": "mat"})
    assert "mat" in text_of(pipe("a dog")[0]).split()


@pytest.mark.parametrize("guard", [False, True])
def test_a_result_begins_as_it_is_told(model, guard):
    pipe = build(model, max_new_tokens=12)
    found = pipe(["a dog", "a mat"], prefix=["the cat ", ""], batch_size=2, guard=guard)
    assert text_of(found[0]).startswith("the cat")
    assert pipe("a dog", prefix="the cat ", guard=guard) == [found[0]]


@pytest.mark.parametrize("guard", [False, True])
def test_a_text_without_a_beginning_is_split_beside_one_with_a_beginning(model, guard):
    pipe = build(model, long_text="sentences", guard=guard)
    texts = ["the cat. A dog ran! 42", "the dog. A mat!"]
    found = pipe(texts, prefix=["", "the cat "], batch_size=8)
    assert found[0] == pipe(texts[0])[0]
    assert found[1] == pipe(texts[1], prefix="the cat ")[0] and text_of(found[1]).startswith("the cat")


def test_prefixes_that_do_not_fit_are_refused(marian):
    with pytest.raises(ValueError, match="1 prefixes for 2 texts"):
        build(marian)(["a", "b"], prefix=["the"])
    with pytest.raises(TypeError, match="Give a string for a string"):
        build(marian)(["a", "b"], prefix="the")


@pytest.fixture(scope="module")
def translator():
    """A model of pieces of words, whose tokenizer can spell numbers."""
    lines = ["the cat sat on 42 mats .", "see X1 and X2 at 12 : 30", "a dog ran"]
    tokenizer = train_tokenizer(lines * 3, settings=TokenizerSettings(vocab_size=320))
    torch.manual_seed(1)
    config = FunTransformerConfig(**OUR_SIZES | {"vocab_size": len(tokenizer)}, decoder_start_token_id=1)
    model = FunTransformerForConditionalGeneration(config).eval()
    return pipeline("translation", model=model, tokenizer=tokenizer, device="cpu", max_new_tokens=40)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_numbers_and_addresses_are_copied(translator, batch_size):
    texts = ["the cat sat on 1742 mats", "see https://a.b/c?d=1 at 12:30", "a dog ran"]
    found = translator(texts, protect=True, batch_size=batch_size, return_alignments=True)
    assert "1742" in text_of(found[0]) and "1742" in found[0]["source_words"]
    assert all(text_of(found[1]).count(literal) == 1 for literal in ("https://a.b/c?d=1", "12:30"))
    assert text_of(found[2]) == text_of(translator("a dog ran")[0])


@pytest.mark.parametrize("glossary", [["cat"], {"cat": 5}, ("cat", "cat"), 5])
def test_what_is_no_glossary_is_refused(translator, glossary):
    with pytest.raises(TypeError, match=r"of a glossary are strings|A glossary is a dictionary"):
        translator("the cat", glossary=glossary)


def test_the_result_that_agrees_most_with_others_is_taken(marian):
    pipe = build(marian)
    torch.manual_seed(0)
    (samples,) = pipe(["the cat sat on a mat"], num_return_sequences=6, **SAMPLING)
    torch.manual_seed(0)
    (found,) = pipe("the cat sat on a mat", mbr=6)
    choice = choose([text_of(record) for record in samples])
    assert (text_of(found), found["utility"]) == (choice.text, choice.utility)


@pytest.mark.parametrize("own", [{"mbr": 4}, {}])
@pytest.mark.parametrize("other", [{"glossary": {"cat": "dog"}}, {"protect": True}, {"num_return_sequences": 2}])
def test_samples_to_choose_from_go_with_no_terms_and_no_second_result(marian, own, other):
    with pytest.raises(ValueError, match=r"mbr=4 .* leave"):
        build(marian, **own)("the cat", **{"mbr": 4} | other)
    with pytest.raises(ValueError, match=r"mbr=4 .* leave"):
        build(marian, **other)("the cat", mbr=4)


@pytest.mark.parametrize("count", [3, 5])
def test_more_results_than_the_models_own_beams_get_as_many_beams(marian, monkeypatch, count):
    monkeypatch.setattr(marian.generation_config, "num_beams", 2)
    pipe = build(marian)
    found = pipe("the cat", num_return_sequences=count)
    assert found == pipe("the cat", num_return_sequences=count, num_beams=count) and len(found) == count


def test_groups_of_beams_differ(marian):
    pipe = build(marian, num_beams=4, num_return_sequences=4)
    found = pipe("the cat sat", num_beam_groups=4, diversity_penalty=0.8)
    assert found == pipe("the cat sat", custom_generate=DiverseBeamSearch(4, 0.8))
    assert len({text_of(record) for record in found}) > 1
    with pytest.raises(ValueError, match="give num_beam_groups too"):
        pipe("the cat", diversity_penalty=0.5)


# ── without the package ──

ALONE = """
import sys
sys.modules["fun_transformer"] = None
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from my_pipelines.pipeline_fun_transformer import TranslationPipeline
folder = sys.argv[1]
model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
pipe = TranslationPipeline(model, tokenizer, max_new_tokens=6)
print(pipe("the cat. 42", long_text="sentences", return_scores=True)[0]["translation_text"])
for options in ({"guard": True}, {"return_alignments": True}, {"glossary": {"cat": "dog"}}, {"prefix": "the"}):
    try:
        pipe("the cat", **options)
    except ImportError as error:
        print(error)
"""


def test_the_files_alone_know_sentences_and_say_what_needs_the_package(marian, strangers, tmp_path):
    pipe = build(marian)
    pipe.save_pretrained(tmp_path)
    copy_pipelines(tmp_path / "my_pipelines")
    code = ALONE.replace("import sys\n", f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n", 1)
    first, *errors = strangers.python("-c", code, tmp_path).splitlines()
    assert first == text_of(pipe("the cat. 42", long_text="sentences")[0])
    names = ["guard=True", "return_alignments=True", "glossary=...", "prefix=..."]
    assert errors == [f"{name} needs the package: pip install fun-transformer" for name in names]


def test_the_options_are_those_of_the_task(marian):
    pipe = pipeline("summarization", model=marian, tokenizer=tiny_tokenizer(), device="cpu", max_new_tokens=6)
    (record,) = pipe("the cat. A dog.", guard=True, long_text="sentences")
    assert set(record) == {"summary_text", "faults", "fallbacks", "faults_left"}
    assert not {"copy", "long", "short"} & set(record["faults"])
