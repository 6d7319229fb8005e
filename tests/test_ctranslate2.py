"""CTranslate2: the same ids as the model's own search, in pipelines and commands; what it cannot do is refused."""

import json
import threading

import pytest
import torch
import transformers

import fun_transformer
from fun_transformer import TranslationPipeline, cli
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

pytest.importorskip("ctranslate2")

from fun_transformer.engines import CTranslate2Model, with_engine
from fun_transformer.engines.ctranslate2_search import Search
from fun_transformer.export import export_model, find_format

LINES = ["The black cat sat.", "Another dog ran away.", "今天我们吃什么？", "The whole street was asleep."]
VARIANTS = {
    "paper": {},
    "pre-norm": {"norm_position": "pre", "activation_function": "gelu"},
    "learned": {"position_embedding_type": "learned", "activation_function": "silu", "scale_embedding": False},
    "all apart": {"decoder_vocab_size": 311, "share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
    "untied pre-norm": {"norm_position": "pre", "tie_word_embeddings": False, "position_embedding_type": "learned"},
    "two norms at the end": {"final_layer_norm": True, "layer_norm_eps": 0.01},
    "no norm at the end": {"norm_position": "pre", "final_layer_norm": False},
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(LINES * 5, settings=TokenizerSettings(type="bpe", vocab_size=300))


@pytest.fixture
def build(tiny_model, tokenizer):
    """A function from config fields to a model of the tokenizer."""

    def build(**fields):
        model = tiny_model(**{"vocab_size": len(tokenizer), "max_position_embeddings": 1024} | fields)
        model.generation_config.max_new_tokens = 10
        return model

    return build


@pytest.fixture
def inputs(tokenizer):
    return tokenizer(LINES, padding=True, return_tensors="pt")


def unpadded(output_ids):
    """The ids of each row up to its end."""
    return [row[: row.index(2) + 1] if 2 in row else row for row in output_ids.tolist()]


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_searches_find_the_same_ids(fields, build, tokenizer, inputs):
    model = build(**fields)
    engine = with_engine(model, tokenizer, "ctranslate2")
    for options in (
        {"num_beams": 1},
        {"num_beams": 5, "early_stopping": True},
        {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.6, "early_stopping": True},
        {"num_beams": 1, "min_new_tokens": 6, "no_repeat_ngram_size": 2},
        {"num_beams": 1, "encoder_no_repeat_ngram_size": 2},
    ):
        assert unpadded(engine.generate(**inputs, **options)) == unpadded(model.generate(**inputs, **options)), options


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
def test_given_targets_are_read_alike(fields, build, tokenizer, inputs):
    model = build(**fields)
    engine = with_engine(model, tokenizer, "ctranslate2")
    ids = torch.tensor([[1, 7, 9, 30, 40], [1, 8, 2, 0, 0], [1, 200, 3, 4, 5], [1, 6, 6, 2, 0]])
    with torch.no_grad():
        expected = model(**inputs, decoder_input_ids=ids, output_attentions=True)
    found = engine(**inputs, decoder_input_ids=ids, output_attentions=True)
    for row, length in enumerate([5, 2, 5, 3]):  # after </s> there is nothing
        torch.testing.assert_close(found.logits[row, :length], expected.logits[row, :length], atol=2e-4, rtol=1e-3)
        last = expected.cross_attentions[2][row].mean(0)  # the layer of alignments, of three
        torch.testing.assert_close(found.cross_attentions[0][row, 0, :length], last[:length], atol=1e-4, rtol=1e-3)


def test_the_model_stays_as_it_is(build, tokenizer):
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with_engine(model, tokenizer, "ctranslate2")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_pipelines_answer_alike(build, tokenizer):
    model = build()
    pipe, fast = (TranslationPipeline(model, tokenizer, device=-1, engine=name) for name in (None, "ctranslate2"))
    options = {"num_beams": 3, "early_stopping": True, "batch_size": 2}
    for asked in ({}, {"return_scores": True}, {"return_alignments": True}, {"num_return_sequences": 2}):
        for text, record in zip(LINES, zip(pipe(LINES, **options, **asked), fast(LINES, **options, **asked))):
            first, second = ([one] if isinstance(one, dict) else one for one in record)
            for ours, theirs in zip(first, second, strict=True):
                assert ours.keys() == theirs.keys()
                assert all(value == pytest.approx(theirs[name], abs=2e-4) for name, value in ours.items()), text


def test_prefixes_begin_the_outputs(build, tokenizer):
    model = build()
    pipe, fast = (TranslationPipeline(model, tokenizer, device=-1, engine=name) for name in (None, "ctranslate2"))
    finished = ["The ", "", "Another cat ", "The "]
    assert fast(LINES, prefix=finished, num_beams=1) == pipe(LINES, prefix=finished, num_beams=1)
    for prefix in ("The bla", "Anoth", "stre"):
        for beams in (1, 3):
            texts = [one["translation_text"] for one in fast(LINES, prefix=[prefix] * 4, num_beams=beams)]
            assert all(text.startswith(prefix) for text in texts), texts


@pytest.mark.parametrize("texts", [["The black cat sat.", ""], [""], ["", " "]])
def test_an_empty_text_has_an_empty_answer_whatever_is_asked(texts, build, tokenizer):
    pipe = TranslationPipeline(build(), tokenizer, device=-1, engine="ctranslate2", num_beams=3)
    plain = [record["translation_text"] for record in pipe(texts)]
    assert plain[-1] == ""
    for asked in ("return_scores", "return_alignments", "return_attention"):
        records = pipe(texts, **{asked: True})
        assert [record["translation_text"] for record in records] == plain, asked
        assert records[-1].get("log_probability", 0.0) == 0.0
    assert pipe(texts, guard=True)[-1] == {"translation_text": "", "faults": [], "fallbacks": [], "faults_left": []}
    several = pipe(texts, return_scores=True, num_return_sequences=2)
    assert [record["translation_text"] for record in several[-1]] == ["", ""]
    assert pipe([""], prefix=["Anoth"])[0]["translation_text"].startswith("Anoth")


def test_what_ctranslate2_cannot_do_is_refused(build, tokenizer, inputs):
    model = build()
    pipe = TranslationPipeline(model, tokenizer, device=-1, engine="ctranslate2")
    for options in ({"glossary": {"cat": "Katze"}}, {"protect": True}, {"mbr": 4}, {"num_beam_groups": 2}):
        with pytest.raises(ValueError, match=f"no search for {next(iter(options))}"):
            pipe(LINES, **options)
    with pytest.raises(ValueError, match="has no typical_p"):
        pipe(LINES, typical_p=0.3)
    with pytest.raises(ValueError, match="longer than the 1024 that"):
        pipe.model.generate(inputs["input_ids"].repeat(1, 200))
    with pytest.raises(ValueError, match="early_stopping='never'"):
        Search.of({"early_stopping": "never"}, 100)
    with pytest.raises(ValueError, match="without beams"):
        Search.of({"do_sample": True, "num_beams": 2}, 100)
    with pytest.raises(ValueError, match="engine='onnx' is unknown"):
        with_engine(model, tokenizer, "onnx")


@pytest.mark.parametrize(
    "options",
    [
        {"no_repeat_ngram_size": 2},
        {"encoder_no_repeat_ngram_size": 2},
        {"repetition_penalty": 1.5},
        {"min_new_tokens": 6},
        {"min_length": 6},
    ],
)
def test_what_ranks_beams_otherwise_is_for_greedy_search(options, build, tokenizer, inputs):
    model = build()
    engine = with_engine(model, tokenizer, "ctranslate2")
    (name,) = options
    with pytest.raises(ValueError, match=f"num_beams=5 and {name}.*num_beams=1"):
        engine.generate(**inputs, **options, num_beams=5)
    greedy = {"num_beams": 1, **options}
    assert unpadded(engine.generate(**inputs, **greedy)) == unpadded(model.generate(**inputs, **greedy))
    nothing = {"no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "repetition_penalty": 1.0}
    engine.generate(**inputs, **nothing, min_new_tokens=0, min_length=1, num_beams=5)


def test_settings_of_the_model_are_refused_before_it_is_converted(build, tokenizer, tmp_path):
    model = build()
    model.generation_config.suppress_tokens = [1]
    for convert in (
        lambda: with_engine(model, tokenizer, "ctranslate2"),
        lambda: export_model(model, tokenizer, find_format("ct2"), tmp_path / "out"),
    ):
        with pytest.raises(ValueError, match=r"generation_config.json .* suppress_tokens=\[1\].*Remove it"):
            convert()
    model = build()
    model.generation_config.no_repeat_ngram_size = 3
    with pytest.raises(ValueError, match=r"no_repeat_ngram_size=3, which CTranslate2 does otherwise with beams"):
        export_model(model, tokenizer, find_format("ct2"), tmp_path / "out")
    assert with_engine(model, tokenizer, "ctranslate2").generate(torch.tensor([[7, 8, 2]]), num_beams=1).numel()
    assert not list(tmp_path.iterdir())


def test_a_guard_tries_again_with_beams(build, tokenizer):
    pipe = TranslationPipeline(build(), tokenizer, device=-1, engine="ctranslate2", guard=True)
    records = pipe(LINES, num_beams=3)
    assert any(record["faults"] for record in records)
    options = pipe.model.fallback_options({"encoder_no_repeat_ngram_size": 2, "num_beams": 3})
    assert pipe.model.generate(**tokenizer(LINES[:1], return_tensors="pt"), **options).shape[0] == 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"encoder_layer_types": ["full_attention", "linear_attention"]}, "encoder_layer_types has linear_attention"),
        ({"decoder_layer_types": ["conv"] * 3}, "decoder_layer_types has conv"),
        (
            {"position_embedding_type": "rotary"},
            "position_embedding_type=rotary cannot.* Train with one of sinusoidal",
        ),
    ],
)
def test_models_that_it_cannot_say_are_refused(fields, reason, build, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=reason):
        export_model(build(**fields), tokenizer, find_format("ct2"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_other_families_are_refused(tokenizer):
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = transformers.BartConfig(d_model=8, encoder_layers=1, decoder_layers=1, vocab_size=20, **heads)
    model = transformers.BartForConditionalGeneration(config)
    with pytest.raises(ValueError, match="ct2-transformers-converter"):
        with_engine(model, tokenizer, "ctranslate2")


def test_a_folder_is_loaded_by_itself_everywhere(build, tokenizer, tmp_path, capsys):
    model = build()
    export_model(model, tokenizer, find_format("ct2"), tmp_path / "out", data=LINES)
    folder = str(tmp_path / "out")
    text = TranslationPipeline(model, tokenizer, device=-1)(LINES[0])[0]["translation_text"]
    pipe = transformers.pipeline("translation", model=folder, device="cpu")
    assert isinstance(pipe.model, CTranslate2Model)
    assert pipe(LINES[0])[0]["translation_text"] == text
    pipe.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["model_type"] == "fun_transformer_ctranslate2"
    assert transformers.pipeline("translation", model=str(tmp_path / "again"), device="cpu")(LINES[0]) == pipe(
        LINES[0]
    )
    options = ["--device", "cpu", "--no-guard", "--long-text", "whole"]
    assert cli.main(["translate", "--model", folder, *options, LINES[0]]) in (None, 0)
    assert capsys.readouterr().out.strip() == " ".join(text.splitlines()).strip()


def test_the_command_answers_with_the_engine(build, tokenizer, tmp_path, capsys):
    model = build()
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    text = TranslationPipeline(model, tokenizer, device=-1)(LINES[0])[0]["translation_text"]
    options = ["--device", "cpu", "--no-guard", "--long-text", "whole", "--engine", "ctranslate2"]
    cli.main(["predict", str(tmp_path / "model"), LINES[0], *options, "--scores"])
    record = json.loads(capsys.readouterr().out)
    assert record["translation_text"] == text
    assert record["log_probability"] < 0
    assert cli.main(["translate", "--model", str(tmp_path / "model"), *options, "--mbr", "3", LINES[0]]) == 2
    assert "no search for mbr" in capsys.readouterr().err


@pytest.mark.parametrize("quantization", ["int8", "int8_float32", "bfloat16", "float16"])
def test_quantizations_make_folders_smaller(quantization, build, tokenizer, tmp_path):
    model = build()
    format = find_format("ct2")
    sizes = []
    for name in (None, quantization):
        exported = export_model(model, tokenizer, format, tmp_path / f"out-{name}", name, data=LINES, force=True)
        sizes.append((exported.output / "model.bin").stat().st_size)
        answers = format.open(exported.output)(LINES, 2, 5)
        assert len(answers) == len(LINES)
    assert sizes[1] < 0.9 * sizes[0]
    assert json.loads((tmp_path / f"out-{quantization}" / "config.json").read_text())["quantization"] == quantization


def test_threads_share_a_model(build, tokenizer, inputs):
    engine = with_engine(build(), tokenizer, "ctranslate2")
    expected = engine.generate(**inputs, num_beams=3)
    found = []
    threads = [threading.Thread(target=lambda: found.append(engine.generate(**inputs, num_beams=3))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(torch.equal(output, expected) for output in found)


@pytest.mark.parametrize(("threads", "batches"), [(1, 1), (2, 2), (9, 4)])
def test_batches_of_a_pipeline_are_computed_at_a_time(threads, batches, build, tokenizer):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        pipe = TranslationPipeline(build(), tokenizer, device=-1, engine="ctranslate2")
        assert pipe.model.translator.num_translators == pipe.count_workers() == batches
    finally:
        torch.set_num_threads(before)


def test_samples_differ(build, tokenizer, inputs):
    engine = with_engine(build(), tokenizer, "ctranslate2")
    options = {"do_sample": True, "num_return_sequences": 2, "top_k": 0}
    first, second = (engine.generate(**inputs, **options) for _ in range(2))
    assert first.shape[0] == second.shape[0] == 2 * len(LINES)
    assert first.tolist() != second.tolist()
    greedy = engine.generate(**inputs, do_sample=True, top_k=1)
    assert torch.equal(greedy, engine.generate(**inputs, num_beams=1))


def test_registering_twice_changes_nothing():
    fun_transformer.register()
    assert transformers.AutoConfig.for_model("fun_transformer_ctranslate2").is_encoder_decoder
