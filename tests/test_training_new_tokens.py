"""New tokens and languages: the rows that they begin with, what stays as it was, what a run makes of them."""

import json
import random
from types import SimpleNamespace

import pytest
import torch
import yaml
from tiny_models import WORDS, save_tiny
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from fun_transformer.training import RunArguments, TrainingArguments, parse_arguments, train
from fun_transformer.training.data.languages import set_languages
from fun_transformer.training.model.new_tokens import add_rows, add_tokens, check_new, new_ids, token_matrices
from fun_transformer.training.model.trainable import freeze, train_new_rows
from fun_transformer.training.optimization import build_optimizer
from fun_transformer.training.recipe.arguments import LoraArguments, TokenizerArguments
from fun_transformer.training.recipe.base import check_beside_path
from fun_transformer.training.recipe.checks import check_trained
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
FAMILIES = ["t5", "t5_v1_1", "mt5", "byt5", "marian", "bart", "mbart", "nllb", "pegasus", "ours"]
NEW = ["w1w2", "<tag>"]
SENTENCE = "w1 w1w2 w3"


@pytest.fixture
def base(tmp_path, tiny_model):
    """A function from the name of a family to the folder of a tiny checkpoint of it."""

    def save(name):
        folder = tmp_path / name
        if name not in ("ours", "untied"):
            return save_tiny(name, folder)
        tokenizer = train_tokenizer(WORDS * 3, settings=TokenizerSettings(type="bpe", vocab_size=300))
        tokenizer.add_languages(["de", "en"])
        tiny_model(vocab_size=len(tokenizer), tie_word_embeddings=name == "ours").save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


def load(folder):
    """The model and the tokenizer of a checkpoint."""
    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def logits(model, ids):
    """Logits after some ids on both sides."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([ids])).logits


def plain(tokenizer, text):
    """Ids of a text without its frame."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", FAMILIES)
def test_new_rows_are_the_mean_of_their_pieces_and_old_ones_stay(name, base, tmp_path):
    (model, old), settings = load(base(name)), TokenizerArguments(new_tokens=NEW)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
    add_tokens(tokenizer, settings)
    size = len(model.get_input_embeddings().weight)
    before = [matrix.weight.detach().clone() for matrix in token_matrices(model)]
    bias = getattr(model, "final_logits_bias", None)
    ids = old("w1 w3")["input_ids"]
    logits_before = logits(model, ids)

    add_rows(model, old, tokenizer, settings)

    numbers = new_ids(settings, tokenizer)
    assert len(set(numbers)) == 2 and min(numbers) >= size
    pieces = [[id for id in plain(old, token) if id != old.unk_token_id] for token in NEW]
    for matrix, rows in zip(token_matrices(model), before, strict=True):
        assert torch.equal(matrix.weight[:size], rows[:size])
        for number, of_token in zip(numbers, pieces, strict=True):
            expected = rows[of_token].mean(0) if of_token else rows.mean(0)
            torch.testing.assert_close(matrix.weight[number], expected)
    if bias is not None:
        chosen = bias[0, pieces[0]] if pieces[0] else bias[0]
        torch.testing.assert_close(model.final_logits_bias[0, numbers[0]], chosen.mean())
        assert torch.equal(model.final_logits_bias[:, :size], bias[:, :size])
    torch.testing.assert_close(logits(model, ids)[..., :size], logits_before, rtol=1e-5, atol=1e-5)
    assert logits(model, [*ids[:-1], numbers[0], ids[-1]]).isfinite().all()
    assert model.config.vocab_size == len(model.get_input_embeddings().weight) == max(numbers) + 1
    models = (model, load(tmp_path / name)[0])
    now, then = ({matrix.weight.data_ptr() for matrix in token_matrices(each)} for each in models)
    assert len(now) == len(then)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_new_word_is_one_token_and_survives_saving(name, base, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(base(name))
    add_tokens(tokenizer, TokenizerArguments(new_tokens=NEW))
    tokenizer.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    number = tokenizer.convert_tokens_to_ids("w1w2")
    assert number in again(SENTENCE)["input_ids"] and again(SENTENCE)["input_ids"] == tokenizer(SENTENCE)["input_ids"]
    decoded = again.decode(again(SENTENCE)["input_ids"], skip_special_tokens=True)
    assert decoded.replace(" ", "") == "w1w1w2w3" and "w1w2" in decoded


def test_room_that_a_model_has_is_used_first(base):
    folder = base("t5")
    model, old = load(folder)
    model.resize_token_embeddings(len(old) + 8)  # as T5's 32,128 rows for 32,100 tokens
    tokenizer, settings = AutoTokenizer.from_pretrained(folder), TokenizerArguments(new_tokens=NEW)
    add_tokens(tokenizer, settings)
    add_rows(model, old, tokenizer, settings)
    assert len(model.get_input_embeddings().weight) == len(old) + 8
    rows, weight = new_ids(settings, tokenizer), model.get_input_embeddings().weight
    torch.testing.assert_close(weight[rows[0]], weight[plain(old, NEW[0])].mean(0))


@pytest.mark.parametrize("name", ["nllb", "mbart", "ours", "marian"])
def test_a_new_language_begins_as_a_similar_one_or_as_the_mean_of_all(name, base):
    folder = base(name)
    model, old = load(folder)
    if name == "marian":
        old.add_tokens([">>de<<", ">>en<<"], special_tokens=True)
        model.resize_token_embeddings(len(old))
    known, new = {
        "nllb": (["zho_Hans", "zho_Hant"], ["yue_Hani", "xxx_Latn"]),
        "mbart": (["en_XX", "ro_RO"], ["yue_XX", "xx_XX"]),
    }.get(name, (["de", "en"], ["nds", "xx"]))
    settings = TokenizerArguments(new_languages=[f"{new[0]}={known[0]}", new[1]])
    if name == "mbart":
        with pytest.raises(ValueError, match="has a fixed list of languages"):
            add_tokens(old, settings)
        return
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if name == "marian":
        tokenizer.add_tokens([">>de<<", ">>en<<"], special_tokens=True)
    add_tokens(tokenizer, settings)
    add_rows(model, old, tokenizer, settings)
    like, other = new_ids(settings, tokenizer)
    weight = model.get_input_embeddings().weight
    tag = "{}" if name == "nllb" else ">>{}<<"
    assert torch.equal(weight[like], weight[old.convert_tokens_to_ids(tag.format(known[0]))])
    codes = [token for token in old.get_added_vocab() if "_" in token] if name == "nllb" else [">>de<<", ">>en<<"]
    torch.testing.assert_close(weight[other], weight[[old.convert_tokens_to_ids(code) for code in codes]].mean(0))


def test_a_new_language_frames_texts_on_both_sides_also_after_saving(base, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(base("nllb"))
    add_tokens(tokenizer, TokenizerArguments(new_languages=["yue_Hani"]))
    number = len(tokenizer) - 1
    for source, target in (("yue_Hani", "eng_Latn"), ("eng_Latn", "yue_Hani")):
        set_languages(tokenizer, (source, target))
        tokenizer.save_pretrained(tmp_path / source)
        again = AutoTokenizer.from_pretrained(tmp_path / source)
        framed = again("w1") if source == "yue_Hani" else again(text_target="w1")
        assert framed["input_ids"][0] == number


@pytest.mark.parametrize("name", ["marian", "t5", "ours", "untied"])
def test_where_embeddings_are_frozen_only_the_new_rows_learn(name, base, tmp_path):
    (model, old), settings = load(base(name)), TokenizerArguments(new_tokens=NEW)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
    add_tokens(tokenizer, settings)
    add_rows(model, old, tokenizer, settings)
    rows = new_ids(settings, tokenizer)
    freeze(model, ["embeddings"])
    head = model.get_output_embeddings()
    head.weight.requires_grad_(False)
    by_rows = train_new_rows(model, rows)
    before = [weight.detach().clone() for weight in by_rows]
    optimizer = build_optimizer(model, TrainingArguments(learning_rate=1e-2, weight_decay=0.1), by_rows)
    ids = torch.tensor([[5, *rows, 6]])
    for _ in range(3):
        model.train()(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert len(by_rows) == (2 if name == "untied" else 1)
    for weight, was in zip(by_rows, before, strict=True):
        moved = (weight != was).any(1).nonzero().flatten().tolist()
        assert moved == sorted(rows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"new_tokens": ["▁w1"]}, "'▁w1' is in the vocabulary already"),
        ({"new_tokens": ["a b", "a b"]}, "'a b' is named twice"),
        ({"new_tokens": [" x"]}, "begins or ends with a space"),
        ({"new_tokens": [""]}, "is empty"),
        ({"new_languages": ["zho_Hans"]}, "'zho_Hans' is in the vocabulary already"),
        ({"new_languages": ["yue_Hani=zho_Hnat"]}, "does not know. Did you mean zho_Han"),
    ],
)
def test_what_is_no_new_token_is_refused(settings, message, base):
    tokenizer = AutoTokenizer.from_pretrained(base("nllb"))
    with pytest.raises(ValueError, match=message):
        check_new(tokenizer, TokenizerArguments(**settings))


def test_a_vocabulary_for_each_side_is_refused(tiny_model):
    model = tiny_model(share_encoder_decoder_embeddings=False, decoder_vocab_size=19)
    tokenizer = SimpleNamespace(convert_tokens_to_ids=lambda token: 23)
    with pytest.raises(ValueError, match="separate embeddings"):
        add_rows(model, tokenizer, tokenizer, TokenizerArguments(new_tokens=["x"]))


def test_new_tokens_go_beside_a_path_and_other_tokenizer_settings_do_not():
    arguments = RunArguments(model={"path": "base"}, tokenizer=TokenizerArguments(new_tokens=["x"]))
    check_beside_path(arguments)
    arguments.tokenizer.lowercase = "both"
    with pytest.raises(ValueError, match=r"tokenizer\.lowercase"):
        check_beside_path(arguments)


# ── Whole runs ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def recipe(base, tmp_path):
    """A function from the name of a family and sections of a recipe to its path."""

    def write(name, training, tokenizer, **sides):
        rng = random.Random(0)
        rows = [rng.choices([*WORDS, "w1w2"], k=rng.randint(2, 5)) for _ in range(100)]
        lines = [json.dumps({"source": " ".join(row), "target": " ".join(row[::-1])}) for row in rows]
        (tmp_path / "train.jsonl").write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")
        settings = {"max_steps": 6, "warmup_steps": 1, "batch_tokens": 256, "learning_rate": 3e-3, "report_to": []}
        settings |= {"save_steps": 2, "eval_steps": 2, "logging_steps": 1, "precision": "fp32"}
        text = {
            "model": {"path": str(base(name))},
            "tokenizer": tokenizer,
            "data": {"train": {"dataset": str(tmp_path / "train.jsonl"), **sides}},
            "training": settings | training,
            "generation": {"metrics": ["chrf"], "max_new_tokens": 5, "eval_rows": 5},
        }
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
        return tmp_path / "recipe.yaml"

    return write


@pytest.mark.slow
@pytest.mark.parametrize(
    "training",
    [{}, {"lora": {"r": 4, "merge": True}}, {"freeze": ["embeddings"], "ema_decay": 0.9}],
    ids=["all", "LoRA", "embeddings frozen"],
)
def test_a_killed_run_with_new_tokens_goes_on_bit_equal(training, recipe, children, tmp_path):
    path = recipe("marian", training, {"new_tokens": NEW})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert children.run(path, whole) == [0], children.log(whole)
    assert "2 new tokens and 0 new languages" in children.log(whole)
    assert children.run(path, killed, at_event=["step-6.partial", 2]) == [-9], children.log(killed)
    assert children.run(path, killed, "--resume") == [0], children.log(killed)
    one, other = ((f / "model" / "model.safetensors").read_bytes() for f in (whole, killed))
    assert one == other
    (model, tokenizer), (first, old) = load(whole / "model"), load(tmp_path / "marian")
    rows, embedding = new_ids(TokenizerArguments(new_tokens=NEW), tokenizer), model.get_input_embeddings().weight
    size = len(old)
    started = first.get_input_embeddings().weight[plain(old, NEW[0])] if plain(old, NEW[0]) else None
    assert started is None or not torch.equal(embedding[rows[0]], started.mean(0))
    same = torch.equal(embedding[:size], first.get_input_embeddings().weight[:size])
    assert same == bool(training)  # with LoRA, or frozen, old rows stay


@pytest.mark.slow
def test_a_run_learns_to_write_a_new_language(recipe, tmp_path):
    settings = {"new_languages": ["yue_Hani=zho_Hant"]}
    path = recipe("nllb", {}, settings, src_lang="eng_Latn", tgt_lang="yue_Hani")
    folder = train(parse_arguments([str(path), "--output_dir", str(tmp_path / "run")])).folder / "model"
    model, tokenizer = load(folder)
    number = tokenizer.convert_tokens_to_ids("yue_Hani")
    assert model.generation_config.forced_bos_token_id == number == len(tokenizer) - 1
    assert tokenizer(text_target="w1")["input_ids"][0] == number


def test_lora_leaves_no_room_for_new_tokens_unless_it_is_merged():
    arguments = RunArguments(model={"path": "x"}, tokenizer=TokenizerArguments(new_tokens=["a"]))
    arguments.training.lora = LoraArguments(r=2, merge=True)
    check_trained(arguments)
    arguments.training.lora.merge = False
    with pytest.raises(ValueError, match="merge: true"):
        check_trained(arguments)
