"""transformers' own pipelines with a trained tokenizer and models that have learned a few sentences by heart."""

import json
import shutil

import pytest
import torch
from tokenizers import decoders, processors
from transformers import AutoModel, pipeline

from fun_transformer import (
    FunTransformerConfig,
    FunTransformerEncoderModel,
    FunTransformerForCausalLM,
    FunTransformerForConditionalGeneration,
    FunTransformerForMaskedLM,
    FunTransformerForSequenceClassification,
    FunTransformerForTokenClassification,
    FunTransformerModel,
)
from fun_transformer.hub.code import auto_map, travelling_files
from fun_transformer.modeling_fun_transformer import FunTransformerDecoderModel
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

TEXTS = ["I drink green tea.", "You drink black coffee.", "Anna lives in Paris.", "我喜欢喝茶。", "她住在巴黎。"]
SIZES = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "dropout": 0.0, "label_smoothing": 0.0}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, settings=TokenizerSettings(vocab_size=420))


@pytest.fixture(scope="module")
def build(tokenizer):
    """A function from a model class and config fields to a small model in eval mode."""

    def build_model(model_class, **fields):
        torch.manual_seed(0)
        fields = {"vocab_size": len(tokenizer), "norm_position": "pre", **SIZES, **HEADS, **fields}
        return model_class(FunTransformerConfig(**fields)).eval()

    return build_model


def encode(tokenizer, texts):
    """input_ids and attention_mask of texts, padded on the right."""
    return dict(tokenizer(texts, padding=True, padding_side="right", return_tensors="pt"))


def fit(model, steps=60, **batch):
    """Learn one batch by heart."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        model.train()(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def labelled(names):
    """Config fields for labels of these names."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


# fill-mask


@pytest.fixture(scope="module")
def fill_mask(build, tokenizer):
    """A pipeline that has seen every token of `TEXTS` hidden."""
    rows = [row for row in tokenizer(TEXTS).input_ids for _ in row]
    positions = [i for row in tokenizer(TEXTS).input_ids for i in range(len(row))]
    batch = tokenizer.pad({"input_ids": rows}, padding_side="right", return_tensors="pt")
    hidden = torch.nn.functional.one_hot(torch.tensor(positions), batch["input_ids"].shape[1]).bool()
    labels = batch["input_ids"].masked_fill(~hidden, -100)
    batch["input_ids"] = batch["input_ids"].masked_fill(hidden, tokenizer.mask_token_id)
    model = fit(build(FunTransformerForMaskedLM), **batch, labels=labels)
    return pipeline("fill-mask", model=model, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("text", "token", "filled"),
    [
        ("I drink <mask> tea.", "▁green", "I drink green tea."),
        ("I drink<mask> tea.", "▁green", "I drink green tea."),
        ("<mask> lives in Paris.", "▁Anna", "Anna lives in Paris."),
        ("Anna lives <mask> Paris.", "▁in", "Anna lives in Paris."),
        ("我喜欢喝茶<mask>", "。", "我喜欢喝茶。"),
    ],
)
def test_a_mask_stands_for_a_token_with_its_space(text, token, filled, tokenizer, fill_mask):
    """A mask in a text is encoded as training hides a token: what fills it brings its own space, if it has one."""
    hidden = tokenizer.convert_tokens_to_ids(token)
    ids = tokenizer(filled).input_ids
    assert tokenizer(text).input_ids == [tokenizer.mask_token_id if i == hidden else i for i in ids]
    best = fill_mask(text, top_k=2)[0]
    assert (best["token"], best["sequence"]) == (hidden, filled)


def test_masks_are_filled_in_batches_and_from_targets(fill_mask):
    texts = ["I drink <mask> tea.", "Anna <mask> in Paris."]
    found = fill_mask(texts, top_k=1, batch_size=2)
    assert [row[0]["sequence"] for row in found] == ["I drink green tea.", "Anna lives in Paris."]
    found = fill_mask(texts[0], targets=["▁black", "▁green"])
    assert [row["token_str"] for row in found] == ["green", "black"]
    assert found[0]["score"] > 0.5
    assert [len(mask) for mask in fill_mask("I <mask> <mask> tea.", top_k=3)] == [3, 3]


# text-generation


@pytest.fixture
def causal_tokenizer(tokenizer, tmp_path):
    """Frames a prompt as `<s> prompt`, which does not end; and does not take the first space from what follows it."""
    tokenizer.save_pretrained(tmp_path)
    copied = type(tokenizer).from_pretrained(tmp_path)
    copied.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    copied.backend_tokenizer.decoder = decoders.Sequence(steps)
    return copied


def test_text_generation_goes_on_with_prompts_of_different_lengths(build, causal_tokenizer, tmp_path):
    batch = encode(causal_tokenizer, [f"{text}</s>" for text in TEXTS])
    model = fit(build(FunTransformerForCausalLM), **batch, labels=batch["input_ids"])
    model.save_pretrained(tmp_path)
    causal_tokenizer.save_pretrained(tmp_path)
    generate = pipeline("text-generation", model=str(tmp_path), do_sample=False)
    prompts = ["I", "Anna lives in", "她住在巴黎", "You drink black"]
    expected = [TEXTS[0], TEXTS[2], TEXTS[4], TEXTS[1]]
    assert [generate(prompt)[0]["generated_text"] for prompt in prompts] == expected
    assert [row[0]["generated_text"] for row in generate(prompts, batch_size=4)] == expected
    beams = generate(prompts, batch_size=4, num_beams=3, num_return_sequences=2, return_full_text=False)
    ends = [text[len(prompt) :] for text, prompt in zip(expected, prompts, strict=True)]
    assert [row[0]["generated_text"] for row in beams] == ends
    assert [len(row) for row in beams] == [2, 2, 2, 2]


# Classification


def test_text_classification_names_the_labels(build, tokenizer, tmp_path):
    model = build(FunTransformerForSequenceClassification, **labelled(["drink", "city"]))
    fit(model, 40, **encode(tokenizer, TEXTS), labels=torch.tensor([0, 0, 1, 0, 1]))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path))
    single = [classify(text)[0] for text in TEXTS]
    assert [found["label"] for found in single] == ["drink", "drink", "city", "drink", "city"]
    batched = classify(TEXTS, batch_size=5)
    assert [found["score"] for found in batched] == pytest.approx([found["score"] for found in single], abs=1e-5)
    assert {row["label"] for row in classify(TEXTS[0], top_k=None)} == {"drink", "city"}


def test_zero_shot_classification_pairs_a_text_with_each_label(build, tokenizer):
    """The model learns that a text about drinks entails "This example is drink." and contradicts the other."""
    model = build(FunTransformerForSequenceClassification, **labelled(["contradiction", "neutral", "entailment"]))
    hypotheses = {"drink": "This example is drink.", "city": "This example is city."}
    pairs = [(text, hypothesis) for text in TEXTS for hypothesis in hypotheses.values()]
    batch = dict(tokenizer(*map(list, zip(*pairs, strict=True)), padding=True, return_tensors="pt"))
    fits = [2, 0, 2, 0, 0, 2, 2, 0, 0, 2]
    fit(model, **batch, labels=torch.tensor(fits))
    classify = pipeline("zero-shot-classification", model=model, tokenizer=tokenizer)
    found = classify(TEXTS, candidate_labels=["drink", "city"])
    assert [row["labels"][0] for row in found] == ["drink", "drink", "city", "drink", "city"]
    assert sum(found[0]["scores"]) == pytest.approx(1)
    found = classify(TEXTS[2], candidate_labels=["drink", "city"], multi_label=True)
    assert found["labels"][0] == "city"
    assert found["scores"][0] > 0.5 > found["scores"][1]


@pytest.fixture(scope="module")
def tag(build):
    """A function from an aggregation strategy to a pipeline that knows the names of `TEXTS` by their letters."""
    tokenizer = train_tokenizer(TEXTS, settings=TokenizerSettings(type="char"))
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    model = build(FunTransformerForTokenClassification, vocab_size=len(tokenizer), **labelled(names))
    batch = encode(tokenizer, TEXTS)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100).clamp(max=0)
    for row, text in enumerate(TEXTS):
        for word, kind in (("Anna", "PER"), ("她", "PER"), ("Paris", "LOC"), ("巴黎", "LOC")):
            if word in text:
                start = text.index(word)
                labels[row, start : start + len(word)] = names.index(f"I-{kind}")
                labels[row, start] = names.index(f"B-{kind}")
    fit(model, **batch, labels=labels)
    return lambda strategy: pipeline(
        "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=strategy
    )


def test_token_classification_finds_names_and_where_they_stand(tag):
    found = tag("simple")(TEXTS[2:], batch_size=3)
    spans = [
        [(name["entity_group"], text[name["start"] : name["end"]]) for name in names]
        for text, names in zip(TEXTS[2:], found, strict=True)
    ]
    assert spans == [[("PER", "Anna"), ("LOC", "Paris")], [], [("PER", "她"), ("LOC", "巴黎")]]
    assert [name["word"] for name in found[2]] == ["她", "巴黎"]


def test_token_classification_gives_each_token_its_offsets(tag):
    found = tag("none")(TEXTS[4])
    assert [(row["entity"], row["index"], row["word"], row["start"], row["end"]) for row in found] == [
        ("B-PER", 0, "她", 0, 1),
        ("B-LOC", 3, "巴", 3, 4),
        ("I-LOC", 4, "黎", 4, 5),
    ]


@pytest.mark.parametrize("strategy", ["first", "average", "max"])
def test_words_of_several_tokens_get_one_label(strategy, build, tokenizer):
    """The library takes a token after a space for a word's first; the others get its label, the mean or the surest."""
    model = build(FunTransformerForTokenClassification, **labelled(["O", "B-LOC"]))
    text = "Anna drinking green coffee"
    tag = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=strategy)
    with pytest.warns(UserWarning, match="real words"):
        found = tag(text, ignore_labels=[])
    words = [word for row in found for word in text[row["start"] : row["end"]].split()]
    assert words == text.split()
    assert tokenizer.tokenize(text)[:3] == ["▁Anna", "▁drink", "in"]


# feature-extraction


def test_feature_extraction_returns_the_encoders_vectors(build, tokenizer):
    model = build(FunTransformerEncoderModel)
    extract = pipeline("feature-extraction", model=model, tokenizer=tokenizer, device="cpu")
    found = extract(TEXTS, batch_size=5, return_tensors=True)
    for text, vectors in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            expected = model(**encode(tokenizer, [text])).last_hidden_state
        torch.testing.assert_close(vectors[:, : expected.shape[1]], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [
        (FunTransformerEncoderModel, FunTransformerEncoderModel),
        (FunTransformerForMaskedLM, FunTransformerEncoderModel),
        (FunTransformerForSequenceClassification, FunTransformerEncoderModel),
        (FunTransformerForTokenClassification, FunTransformerEncoderModel),
        (FunTransformerDecoderModel, FunTransformerDecoderModel),
        (FunTransformerForCausalLM, FunTransformerDecoderModel),
        (FunTransformerModel, FunTransformerModel),
        (FunTransformerForConditionalGeneration, FunTransformerModel),
    ],
)
def test_auto_model_loads_the_stacks_that_a_folder_has(saved, loaded, build, tmp_path):
    model = build(saved, encoder_ffn_dim=48, encoder_layers=2)
    model.save_pretrained(tmp_path)
    found, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(found) is loaded
    assert not info["missing_keys"] and not info["mismatched_keys"]
    assert {key.split(".")[0] for key in info["unexpected_keys"]} <= {"mask_head", "classifier", "lm_head", "score"}
    for name, weight in found.state_dict().items():
        torch.testing.assert_close(weight, getattr(model, "model", model).state_dict()[name], rtol=0, atol=0)


@pytest.mark.parametrize("saved", [FunTransformerForMaskedLM, FunTransformerForCausalLM])
def test_feature_extraction_works_from_the_folder_of_one_stack(saved, build, tokenizer, tmp_path):
    model = build(saved)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    vectors = pipeline("feature-extraction", model=str(tmp_path))(TEXTS[0], return_tensors=True)
    with torch.no_grad():
        expected = model.model(**encode(tokenizer, TEXTS[:1])).last_hidden_state
    torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-5)


def test_a_class_that_is_asked_for_by_name_is_loaded_whole(build, tmp_path):
    """A translator may begin with the encoder of a masked language model: its decoder is reported as missing."""
    build(FunTransformerForMaskedLM).save_pretrained(tmp_path)
    model, info = FunTransformerModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(model) is FunTransformerModel
    assert {key.split(".")[0] for key in info["missing_keys"]} == {"decoder"}


STRANGER = """
import sys
sys.modules["fun_transformer"] = None
import torch
from transformers import AutoModel, pipeline
first, again = sys.argv[1:]
trust = {"trust_remote_code": True}
vectors = [pipeline("feature-extraction", model=first, **trust)("green tea", return_tensors=True)]
model = AutoModel.from_pretrained(first, **trust)
model.save_pretrained(again)
vectors.append(AutoModel.from_pretrained(again, **trust)(torch.tensor([[5, 6, 7]])).last_hidden_state)
torch.testing.assert_close(vectors[1], model(torch.tensor([[5, 6, 7]])).last_hidden_state)
print(type(model).__module__.split(".")[0], type(model).__name__)
torch.save(vectors[0], f"{again}/vectors.pt")
"""


@pytest.mark.slow
def test_feature_extraction_works_from_the_folder_of_one_stack_with_remote_code(build, tokenizer, strangers, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    build(FunTransformerForMaskedLM).save_pretrained(first)
    tokenizer.save_pretrained(first)
    expected = pipeline("feature-extraction", model=str(first))("green tea", return_tensors=True)
    configs = {name: json.loads((first / name).read_text()) for name in ("config.json", "tokenizer_config.json")}
    for file in travelling_files(*configs.values()).values():
        shutil.copy(file, first)
    named = auto_map(*configs.values())
    for name, config in configs.items():
        (first / name).write_text(json.dumps(config | {"auto_map": named}))
    modules = str(tmp_path / "modules")
    output = strangers.python("-c", STRANGER, first, again, cwd=tmp_path, HF_MODULES_CACHE=modules)
    assert output.split() == ["transformers_modules", "FunTransformerEncoderModel"]
    torch.testing.assert_close(torch.load(again / "vectors.pt"), expected, atol=1e-5, rtol=1e-5)
