"""The pipelines that transformers 5 removed, with the contract of transformers 4, for every encoder-decoder model."""

import logging
import shutil
from contextlib import contextmanager

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.utils.data import Dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    NllbTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    pipeline,
    pipelines,
)
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.pipelines.pt_utils import KeyDataset

from fun_transformer import FunTransformerConfig, FunTransformerForConditionalGeneration, pipeline_fun_transformer
from fun_transformer.pipeline_fun_transformer import (
    SummarizationPipeline,
    Text2TextGenerationPipeline,
    TranslationPipeline,
    register_pipelines,
)
from fun_transformer.training.data.languages import set_languages

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "the", "cat", "sat", "on", "a", "mat", "dog", "ran"]
TEXTS = ["the cat", "a dog ran on the mat", "sat", "the cat sat on a mat"]
SPECIAL = {"vocab_size": len(WORDS), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "max_position_embeddings": 64,
    "init_std": 1.0,
}
OUR_SIZES = {name: size for name, size in SIZES.items() if name != "init_std"}
TINY_MODELS = {
    "marian": lambda: MarianMTModel(MarianConfig(**SPECIAL, **SIZES, decoder_start_token_id=0)),
    "bart": lambda: BartForConditionalGeneration(BartConfig(**SPECIAL, **SIZES, decoder_start_token_id=2)),
    "t5": lambda: T5ForConditionalGeneration(
        T5Config(**SPECIAL, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    ),
    "fun_transformer": lambda: FunTransformerForConditionalGeneration(
        FunTransformerConfig(**{**SPECIAL, **OUR_SIZES}, decoder_start_token_id=1)
    ),
}
RESULT_KEYS = {
    "translation": "translation_text",
    "summarization": "summary_text",
    "text2text-generation": "generated_text",
}


def tiny_tokenizer(padding_side="right"):
    """Words to ids and `</s>` at the end."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side=padding_side,
        model_max_length=64,
    )


@pytest.fixture(scope="module", params=TINY_MODELS)
def model(request):
    torch.manual_seed(1)
    return TINY_MODELS[request.param]().eval()


@pytest.fixture(scope="module")
def marian():
    torch.manual_seed(1)
    return TINY_MODELS["marian"]().eval()


@pytest.fixture
def generate_calls(marian, monkeypatch):
    """The keyword arguments of every `generate` call of the Marian model."""
    calls, generate = [], marian.generate
    monkeypatch.setattr(marian, "generate", lambda **kwargs: calls.append(kwargs) or generate(**kwargs))
    return calls


@contextmanager
def log_of_pipelines(caplog):
    """The library's loggers do not hand their messages up to the one that pytest listens to."""
    logger = logging.getLogger(pipeline_fun_transformer.__name__)
    logger.addHandler(caplog.handler)
    yield
    logger.removeHandler(caplog.handler)


def copy_pipelines(folder):
    """Copy the file of the pipelines with what it imports, as people do who go without the package."""
    folder.mkdir()
    file = pipeline_fun_transformer.__file__
    for path in (file, *get_relative_import_files(file)):
        shutil.copy(path, folder)


def build(model, task="translation", **kwargs):
    return pipeline(task, model=model, tokenizer=tiny_tokenizer(), device="cpu", **{"max_new_tokens": 6, **kwargs})


@pytest.mark.parametrize(("task", "key"), RESULT_KEYS.items())
def test_a_string_and_a_list_give_a_flat_list_of_dicts(model, task, key):
    pipe = build(model, task)
    one, many = pipe(TEXTS[0]), pipe(TEXTS)
    assert [list(record) for record in one + many] == [[key]] * 5
    assert all(isinstance(record[key], str) for record in one + many)
    assert many[0] == one[0]


def test_the_text_is_what_generate_and_decode_give(model):
    tokenizer = tiny_tokenizer()
    for text in TEXTS:
        ids = model.generate(**tokenizer(text, return_tensors="pt"), num_beams=4, max_new_tokens=6)[0]
        expected = tokenizer.decode(ids, skip_special_tokens=True)
        assert build(model)(text) == [{"translation_text": expected}]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 10])
def test_batches_by_length_change_neither_order_nor_texts(model, batch_size):
    pipe = build(model)
    assert pipe(TEXTS, batch_size=batch_size) == [pipe(text)[0] for text in TEXTS]


def test_batches_hold_texts_of_like_length(marian, generate_calls):
    build(marian, num_beams=1)(TEXTS, batch_size=2)
    assert [call["input_ids"].shape[1] for call in generate_calls] == [7, 3]  # </s> is one more


def test_several_sequences_nest_a_list_but_not_a_string(model):
    pipe = build(model, num_return_sequences=2)
    assert [list(record) for record in pipe(TEXTS[0])] == [["translation_text"]] * 2
    results = pipe(TEXTS, batch_size=3)
    assert [len(records) for records in results] == [2, 2, 2, 2]
    assert results[1] == pipe(TEXTS[1])


def test_return_tensors_gives_token_ids(model):
    tokenizer = tiny_tokenizer()
    records = build(model)(TEXTS, return_tensors=True, batch_size=2)
    assert [list(record) for record in records] == [["translation_token_ids"]] * 4
    texts = [tokenizer.decode(record["translation_token_ids"], skip_special_tokens=True) for record in records]
    assert texts == [record["translation_text"] for record in build(model)(TEXTS)]


def test_generators_and_datasets_are_streamed(model):
    class Rows(Dataset):
        def __len__(self):
            return len(TEXTS)

        def __getitem__(self, i):
            return {"zh": TEXTS[i]}

    pipe = build(model)
    expected = [[record] for record in pipe(TEXTS)]
    assert list(pipe(KeyDataset(Rows(), "zh"), batch_size=2)) == expected
    assert list(pipe((text for text in TEXTS), batch_size=3)) == expected

    taken = []
    stream = pipe(taken.append(text) or text for text in TEXTS)
    assert next(iter(stream)) == expected[0]
    assert len(taken) < len(TEXTS)


def test_an_empty_list_gives_an_empty_list(marian):
    assert build(marian)([]) == []


@pytest.mark.parametrize("inputs", [3, None, ["the cat", 3], ("the cat", "a dog"), {"text": "the cat"}, [["the cat"]]])
def test_other_types_are_refused_in_words(marian, inputs):
    with pytest.raises(TypeError, match="takes a string, a list of strings"):
        build(marian)(inputs)


def test_a_decoder_alone_is_refused():
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=len(WORDS)))
    with pytest.raises(ValueError, match="text-generation"):
        build(gpt2)


def test_defaults_are_four_beams_and_256_new_tokens(marian, monkeypatch):
    calls = []
    monkeypatch.setattr(marian, "generate", lambda **kwargs: calls.append(kwargs) or torch.tensor([[0, 4, 2]]))
    pipe = TranslationPipeline(marian, tiny_tokenizer(), task="translation", device=-1)
    assert pipe("the cat") == [{"translation_text": "the"}]
    assert (calls[0]["num_beams"], calls[0]["max_new_tokens"]) == (4, 64)  # it has no more positions
    monkeypatch.setattr(marian.config, "max_position_embeddings", 512)
    pipe("the cat")
    assert calls[1]["max_new_tokens"] == 256


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_a_blank_text_has_an_empty_answer_as_predict_gives_it(text, marian, generate_calls):
    pipe = TranslationPipeline(marian, tiny_tokenizer(), task="translation", device=-1)
    assert pipe(text) == pipe([text]) == [{"translation_text": ""}] and not generate_calls
    assert [one["translation_text"] for one in pipe([text], num_return_sequences=2)[0]] == ["", ""]
    assert pipe("", return_tensors=True)[0].keys() == {"translation_token_ids"}


def test_a_greedy_search_is_not_told_of_the_penalty_for_beams(marian, generate_calls, monkeypatch):
    own = GenerationConfig(**{**SPECIAL, "num_beams": 2, "length_penalty": 0.6, "max_length": 5})
    monkeypatch.setattr(marian, "generation_config", own)
    pipe = TranslationPipeline(marian, tiny_tokenizer(), task="translation", device=-1)
    pipe("the cat", num_beams=1)
    pipe("the cat", num_beams=1, length_penalty=2.0)
    pipe("the cat")
    assert [call.get("length_penalty") for call in generate_calls] == [1.0, 2.0, None]


def test_the_models_generation_config_beats_the_defaults_and_the_call_beats_both(marian, generate_calls, monkeypatch):
    monkeypatch.setattr(marian, "generation_config", GenerationConfig(**{**SPECIAL, "num_beams": 2, "max_length": 5}))
    pipe = TranslationPipeline(marian, tiny_tokenizer(), task="translation", device=-1)
    pipe("the cat")
    pipe("the cat", num_beams=3, max_length=4)
    assert not {"num_beams", "max_new_tokens"} & generate_calls[0].keys()
    assert generate_calls[1]["num_beams"] == 3
    assert "max_new_tokens" not in generate_calls[1]


def test_a_generation_config_may_be_passed_and_stays_as_it_is(marian, generate_calls):
    config = GenerationConfig(num_beams=2, max_new_tokens=3, decoder_start_token_id=0, eos_token_id=2)
    before = config.to_dict()
    pipe = TranslationPipeline(marian, tiny_tokenizer(), task="translation", device=-1)
    ids = pipe("the cat", generation_config=config, return_tensors=True)[0]["translation_token_ids"]
    assert len(ids) <= 4
    assert generate_calls[0]["generation_config"].num_beams == 2
    assert config.to_dict() == before


LONGEST = GenerationConfig(**SPECIAL, decoder_start_token_id=0, max_new_tokens=9, min_new_tokens=8, num_beams=1)


@pytest.mark.parametrize(
    ("call", "length"),
    [
        ({}, 10),
        ({"max_length": 4, "min_length": 4}, 4),
        ({"max_length": 12, "min_length": 12}, 12),
        ({"max_new_tokens": 3, "min_new_tokens": 3}, 4),
        ({"generation_config": GenerationConfig(max_length=4, min_length=4)}, 4),
        ({"generation_config": GenerationConfig(max_new_tokens=3, min_new_tokens=3)}, 4),
    ],
)
@pytest.mark.parametrize("task", [{}, {"max_length": 7, "min_length": 7}, {"max_new_tokens": 6, "min_new_tokens": 6}])
def test_a_length_of_the_call_wins_over_what_the_model_was_saved_with(marian, monkeypatch, call, length, task):
    monkeypatch.setattr(marian, "generation_config", LONGEST)
    monkeypatch.setattr(marian.config, "task_specific_params", {"translation": task}, raising=False)
    pipe = TranslationPipeline(marian, tiny_tokenizer(), task="translation", device=-1)
    (record,) = pipe("the cat", return_tensors=True, **call)
    assert len(record["translation_token_ids"]) == (7 if task and not call else length)


def test_a_length_of_the_call_wins_over_that_of_the_pipeline(marian, monkeypatch):
    monkeypatch.setattr(marian, "generation_config", LONGEST)
    for made, asked in (
        ({"max_new_tokens": 8}, {"max_length": 4, "min_length": 4}),
        ({"max_length": 8, "min_length": 8}, {"max_new_tokens": 3, "min_new_tokens": 3}),
    ):
        pipe = TranslationPipeline(marian, tiny_tokenizer(), task="translation", device=-1, **made)
        assert len(pipe("the cat", return_tensors=True, **asked)[0]["translation_token_ids"]) == 4


@pytest.mark.parametrize(
    "options", [{name: 0} for name in ("num_beams", "num_return_sequences", "max_new_tokens", "max_length")]
)
def test_a_search_for_nothing_is_refused(marian, monkeypatch, options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"{name}=0 leaves nothing to find. Give 1 or more"):
        build(marian)("the cat", **options)
    config = GenerationConfig(**SPECIAL, decoder_start_token_id=0)
    vars(config).update(options)  # as in a file that was written by hand
    monkeypatch.setattr(marian, "generation_config", config)
    with pytest.raises(ValueError, match=f"{name}=0 leaves nothing to find"):
        TranslationPipeline(marian, tiny_tokenizer(), task="translation", device=-1)("the cat")


def test_task_specific_params_of_the_config_give_prefix_and_parameters(marian, generate_calls, monkeypatch):
    params = {"translation_en_to_de": {"prefix": "cat sat ", "num_beams": 2, "max_length": 9}}
    monkeypatch.setattr(marian.config, "task_specific_params", params, raising=False)
    pipe = pipeline("translation_en_to_de", model=marian, tokenizer=tiny_tokenizer(), device="cpu")
    pipe("on a mat")
    assert generate_calls[0]["input_ids"].tolist() == [[5, 6, 7, 8, 9, 2]]
    assert (generate_calls[0]["num_beams"], generate_calls[0]["max_length"]) == (2, 9)
    assert params["translation_en_to_de"]["prefix"] == "cat sat "


def test_truncation_cuts_the_source(marian, generate_calls):
    pipe = build(marian)
    pipe.tokenizer.model_max_length = 4
    pipe("a dog ran on the mat", truncation=True)
    assert generate_calls[0]["input_ids"].shape == (1, 4)


def test_a_translation_as_long_as_its_limit_is_warned_about(marian, caplog):
    pipe = build(marian)
    with log_of_pipelines(caplog):
        pipe("the cat", max_new_tokens=20)
        assert "input_length" not in caplog.text
        pipe("the cat sat on a mat", max_new_tokens=7)
    assert "input_length: 7 is bigger than 0.9 * max_new_tokens: 7" in caplog.text


def test_a_summary_longer_than_its_text_is_warned_about(marian, caplog):
    with log_of_pipelines(caplog):
        build(marian, "summarization")("the cat", max_new_tokens=20)
    assert "max_new_tokens is set to 20, but your input_length is only 3" in caplog.text


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("name", ["t5", "fun_transformer"])  # BART and Marian count padding on the left as positions
def test_tokenizers_that_pad_on_either_side_work(name, padding_side):
    torch.manual_seed(1)
    model = TINY_MODELS[name]().eval()
    pipe = TranslationPipeline(model, tiny_tokenizer(padding_side), task="translation", device=-1, max_new_tokens=6)
    assert pipe(TEXTS, batch_size=4) == [pipe(text)[0] for text in TEXTS]


def nllb(languages=("eng_Latn", "zho_Hans", "deu_Latn"), **saved):
    """A tiny model of many languages: NLLB's tokenizer and architecture."""
    languages = list(languages)
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"thecasonmdgr", *languages, "<mask>"]
    tokenizer = NllbTokenizer(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], extra_special_tokens=languages, **saved
    )
    config = M2M100Config(**{**SIZES, "vocab_size": len(tokenizer)}, decoder_start_token_id=2)
    return M2M100ForConditionalGeneration(config).eval(), tokenizer


def test_src_lang_and_tgt_lang_choose_the_languages():
    model, tokenizer = nllb()
    pipe = TranslationPipeline(
        model, tokenizer, task="translation", src_lang="eng_Latn", tgt_lang="deu_Latn", device=-1, max_new_tokens=4
    )
    german, english = tokenizer.convert_tokens_to_ids(["deu_Latn", "eng_Latn"])
    for record in pipe(TEXTS, batch_size=2, return_tensors=True):
        assert record["translation_token_ids"][1] == german
    record = pipe(TEXTS[0], src_lang="zho_Hans", tgt_lang="eng_Latn", return_tensors=True)[0]
    assert record["translation_token_ids"][1] == english
    assert tokenizer.src_lang == "zho_Hans"


def test_the_task_name_gives_the_languages_where_the_tokenizer_asks_for_them():
    model, tokenizer = nllb(["en", "de"])
    pipe = pipeline("translation_en_to_de", model=model, tokenizer=tokenizer, device="cpu", max_new_tokens=4)
    pipe("the cat")
    assert tokenizer.src_lang == "en"
    with pytest.raises(ValueError, match="src_lang"):
        pipeline("translation", model=model, tokenizer=tokenizer, device="cpu")("the cat")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            {"src_lang": "xx", "tgt_lang": "deu_Latn"},
            "src_lang=xx is no language of .*, which knows 3",
        ),
        ({"src_lang": "eng_Latn", "tgt_lang": "zho_Hant"}, "tgt_lang=zho_Hant is no .* Did you mean zho_Hans[?]"),
        ({"src_lang": "eng_Latn"}, "tgt_lang is missing: .*--tgt-lang CODE"),
        ({}, "src_lang is missing: .*--src-lang CODE"),
    ],
)
def test_a_language_that_the_tokenizer_does_not_know_is_refused(named, message):
    model, tokenizer = nllb()
    with pytest.raises(ValueError, match=message):
        TranslationPipeline(model, tokenizer, device=-1, max_new_tokens=4)("the cat", **named)
    with pytest.raises(ValueError, match="src_lang=xx"):
        TranslationPipeline(model, tokenizer, task="translation_xx_to_de", device=-1)("the cat")


def test_a_tokenizer_that_was_saved_with_its_languages_needs_none_in_a_call(tmp_path):
    model, tokenizer = nllb()
    set_languages(tokenizer, ("zho_Hans", "deu_Latn"))
    tokenizer.save_pretrained(tmp_path)
    pipe = TranslationPipeline(model, NllbTokenizer.from_pretrained(tmp_path), device=-1, max_new_tokens=4)
    german, english = tokenizer.convert_tokens_to_ids(["deu_Latn", "eng_Latn"])
    assert pipe("the cat", return_tensors=True)[0]["translation_token_ids"][1] == german
    named = {"src_lang": "deu_Latn", "tgt_lang": "eng_Latn"}
    assert pipe("the cat", return_tensors=True, **named)[0]["translation_token_ids"][1] == english
    pipe("the cat")
    assert pipe.tokenizer.src_lang == "zho_Hans"  # what a call named does not stay


def test_a_saved_folder_works_without_trust_in_remote_code(marian, tmp_path):
    expected = build(marian)(TEXTS)
    build(marian).save_pretrained(tmp_path)
    for task in ("translation", "translation_zh_to_en"):
        assert pipeline(task, model=str(tmp_path), device="cpu", max_new_tokens=6)(TEXTS) == expected
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_registering_twice_changes_nothing(marian):
    registry = pipelines.PIPELINE_REGISTRY
    before = dict(registry.supported_tasks), registry.task_aliases
    register_pipelines()
    assert (dict(registry.supported_tasks), registry.task_aliases) == before
    assert registry.task_aliases is before[1]
    expected = {
        "translation": TranslationPipeline,
        "translation_zh_to_en": TranslationPipeline,
        "summarization": SummarizationPipeline,
        "text2text-generation": Text2TextGenerationPipeline,
    }
    for task, pipeline_class in expected.items():
        assert pipelines.check_task(task)[1]["impl"] is pipeline_class
        assert pipelines.check_task(task)[1]["pt"] == (AutoModelForSeq2SeqLM,)


def test_other_tasks_stay_as_they_were():
    assert pipelines.check_task("ner")[0] == "token-classification"
    for task in ("translation_zh", "translation_zh_en", "no-such-task"):
        with pytest.raises(KeyError, match="Unknown task"):
            pipelines.check_task(task)
