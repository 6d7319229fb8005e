"""Trained models of any family go on with our data: the loss is theirs and exact, the folder is theirs, too."""

import json
import re
from pathlib import Path

import pytest
import torch
import transformers as hf
import yaml
from tiny_models import SEQ2SEQ, WORDS, build_model, build_tokenizer, save_tiny
from torch.nn.functional import cross_entropy

from fun_transformer.training.loop import TrainingLoop
from fun_transformer.training.model.exact_loss import find_bias, give_exact_loss
from fun_transformer.training.model.loading import load_base_model
from fun_transformer.training.objectives import Seq2Seq
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.train import train

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

DOCS = Path(__file__).parents[1] / "docs"
LANGUAGES = {"nllb": ("eng_Latn", "zho_Hans"), "mbart": ("en_XX", "ro_RO")}
QUICK = [
    *("--training.max_steps", "4", "--training.eval_steps", "2", "--training.save_steps", "2"),
    *("--training.batch_tokens", "128", "--training.precision", "fp32", "--training.logging_steps", "1"),
    *("--generation.max_new_tokens", "8", "--training.report_to", "[]"),
]


def write_pairs(folder: Path, rows: int = 24) -> list[str]:
    """Write words and the same words in reverse; return the options that name the files."""
    numbers = torch.randint(0, len(WORDS), (rows, 4)).tolist()
    texts = [[WORDS[number] for number in row] for row in numbers]
    for name, lines in (("source", texts), ("target", [row[::-1] for row in texts])):
        (folder / name).write_text("".join(" ".join(row) + "\n" for row in lines), encoding="utf-8")
    return [f"--data.train.{name}={folder / name}" for name in ("source", "target")]


def options_for(family: str, folder: Path) -> list[str]:
    """Save a tiny checkpoint and some pairs; return the options of a run that starts from it."""
    base = save_tiny(family, folder / "base")
    options = ["--model.path", str(base), *write_pairs(folder), "--output_dir", str(folder / "run"), *QUICK]
    if family in LANGUAGES:
        source, target = LANGUAGES[family]
        options += ["--data.train.src_lang", source, "--data.train.tgt_lang", target]
    return options


def lines_of(run: Path, split: str) -> list[dict]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["split"] == split]


def random_batch(model, rows: int = 4) -> dict[str, torch.Tensor]:
    """Rows of different lengths, padded, with as many labels."""
    size, padding = model.config.vocab_size, model.config.pad_token_id or 0
    ids = torch.randint(5, size, (rows, 7))
    mask = torch.arange(7) < torch.tensor([7, 5, 3, 6])[:rows].unsqueeze(-1)
    batch = {"input_ids": ids.masked_fill(~mask, padding), "attention_mask": mask.long()}
    return batch | {"labels": torch.randint(5, size, (rows, 7)).masked_fill(~mask.flip(0), -100)}


def tiny(family: str):
    """A tiny model in eval mode whose weights, biases and constants all matter."""
    torch.manual_seed(0)
    model = build_model(family, build_tokenizer(family)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
    return model


def t5gemma():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    part = {**sizes, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 30, "final_logit_softcapping": 0.5}
    config = hf.T5GemmaConfig(encoder=part, decoder=part, vocab_size=30, pad_token_id=0, bos_token_id=2)
    torch.manual_seed(0)
    return hf.T5GemmaForConditionalGeneration(config).eval()


# ── The loss ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", [*SEQ2SEQ, "bert", "gpt2"])
def test_the_loss_is_the_models_own(family):
    model = tiny(family)
    batch = random_batch(model)
    labels = batch["labels"]
    if family == "gpt2":  # its own loss leaves out the first token, which nothing predicts
        labels = batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    own = model(**batch)
    give_exact_loss(model, predicts_next=family == "gpt2")
    assert find_bias(model)[0], "its head is not recognised"
    torch.testing.assert_close(model(**batch, skip_logits=True).loss, own.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(**batch, skip_logits=False).loss, own.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(**batch, skip_logits=False).logits, own.logits)
    logits, wanted = (own.logits[:, :-1], labels[:, 1:]) if family == "gpt2" else (own.logits, labels)
    smoothed = cross_entropy(logits.flatten(0, 1), wanted.flatten(), label_smoothing=0.1)
    torch.testing.assert_close(model(**batch, label_smoothing=0.1, skip_logits=True).loss, smoothed)


@pytest.mark.parametrize("family", [*SEQ2SEQ, "bert"])
def test_gradients_of_a_step_are_the_same_however_it_is_cut_into_batches(family):
    model = tiny(family)
    batch = random_batch(model)
    own = model(**batch)
    cross_entropy(own.logits.flatten(0, 1), batch["labels"].flatten(), label_smoothing=0.1).backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    give_exact_loss(model, label_smoothing=0.1)
    items = int((batch["labels"] != -100).sum())
    for cuts in ([4], [1, 3]):
        model.zero_grad()
        parts = zip(*(tensor.split(cuts) for tensor in batch.values()), strict=True)
        for part in parts:
            named = dict(zip(batch, part, strict=True))
            model(**named, num_items_in_batch=items, skip_logits=True).loss.backward()
        for name, parameter in model.named_parameters():
            if name in wanted:
                torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-4, atol=1e-6, msg=name)


def test_a_softcap_is_seen_and_the_loss_is_exact_all_the_same(caplog):
    model = t5gemma()
    batch = random_batch(model)
    own = model(**batch)
    give_exact_loss(model)
    assert "the loss is computed from whole logits" in caplog.text
    torch.testing.assert_close(model(**batch, skip_logits=True).loss, own.loss)
    halves = [{name: tensor[rows] for name, tensor in batch.items()} for rows in (slice(0, 1), slice(1, 4))]
    items = int((batch["labels"] != -100).sum())
    losses = [model(**half, num_items_in_batch=items, skip_logits=True).loss for half in halves]
    torch.testing.assert_close(sum(losses), own.loss)


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_every_weight_that_is_trained_gets_a_gradient_at_every_step(family, tmp_path):
    arguments = parse_arguments(options_for(family, tmp_path))
    model = load_base_model(arguments, Seq2Seq(None, arguments.training), "eager").train()
    for _ in range(5):
        model.zero_grad()
        model(**random_batch(model), num_items_in_batch=9).loss.backward()
        assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_without_labels_a_model_answers_as_before():
    model = tiny("marian")
    ids = torch.tensor([[5, 6, 0]])
    before = model.generate(input_ids=ids, max_new_tokens=5, num_beams=2)
    give_exact_loss(model)
    assert torch.equal(model.generate(input_ids=ids, max_new_tokens=5, num_beams=2), before)


# ── A run ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_a_run_starts_at_the_models_own_loss_and_gives_a_folder_of_its_family(family, tmp_path):
    options = options_for(family, tmp_path)
    held_out = ["--data.validation.source", str(tmp_path / "source"), "--data.validation.target"]
    train(parse_arguments([*options, *held_out, str(tmp_path / "target"), "--training.learning_rate", "1e-3"]))
    tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path / "base")
    model = hf.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base").eval()
    if family in LANGUAGES:
        tokenizer.src_lang, tokenizer.tgt_lang = LANGUAGES[family]
    total = labels = 0
    for source, target in zip(*((tmp_path / name).read_text().splitlines() for name in ("source", "target"))):
        batch = tokenizer(source, text_target=target, return_tensors="pt")
        with torch.no_grad():
            total += float(model(**batch).loss) * batch["labels"].numel()
        labels += batch["labels"].numel()
    scored = lines_of(tmp_path / "run", "validation")
    assert [line["step"] for line in scored] == [0, 2, 4]
    assert scored[0]["loss"] == pytest.approx(total / labels, rel=1e-4)
    assert scored[-1]["loss"] < scored[0]["loss"]
    final = tmp_path / "run" / "model"
    assert type(hf.AutoModelForSeq2SeqLM.from_pretrained(final)) is type(model)
    again = hf.AutoTokenizer.from_pretrained(final)
    assert again("w1 w2", text_target="w2").data == tokenizer("w1 w2", text_target="w2").data
    config = json.loads((final / "config.json").read_text())
    assert config["dtype"] == "float32" and "auto_map" not in config
    card = (final / "README.md").read_text(encoding="utf-8")
    assert "validation, before | validation" in card and "The model base, trained further" in card
    assert "import fun_transformer" not in card


def test_a_multilingual_model_begins_with_the_wanted_language(tmp_path):
    for family, name in (("nllb", "forced_bos_token_id"), ("mbart", "decoder_start_token_id")):
        (tmp_path / family).mkdir()
        train(parse_arguments(options_for(family, tmp_path / family)))
        final = tmp_path / family / "run" / "model"
        tokenizer = hf.AutoTokenizer.from_pretrained(final)
        model = hf.AutoModelForSeq2SeqLM.from_pretrained(final)
        language = tokenizer.convert_tokens_to_ids(LANGUAGES[family][1])
        assert getattr(model.generation_config, name) == language
        assert tokenizer.src_lang == LANGUAGES[family][0]
        generated = model.generate(**tokenizer("w1 w2", return_tensors="pt"), max_new_tokens=3)
        assert language in generated[0, :2].tolist()


def test_several_language_pairs_are_tokenized_and_generated_in_their_languages(tmp_path):
    options = [*QUICK, "--model.path", str(save_tiny("nllb", tmp_path / "base"))]
    write_pairs(tmp_path)
    files = {name: str(tmp_path / name) for name in ("source", "target")}
    mix = [{**files, "src_lang": "eng_Latn", "tgt_lang": tgt} for tgt in ("zho_Hans", "fra_Latn")]
    options += ["--output_dir", str(tmp_path / "run"), "--data.validation_rows", "4"]
    labels, starts = [], []

    class Watched(TrainingLoop):
        def __init__(self, run, *rest):
            super().__init__(run, *rest)
            labels.extend(row[0] for row in run.splits["train"]["labels"])
            starts.append(run.tokenizer.convert_tokens_to_ids([pair["tgt_lang"] for pair in mix]))

    train(parse_arguments([*options, f"--data.train.mix={json.dumps(mix)}"]), loop=Watched)
    assert set(labels) == set(starts[0])
    assert len((tmp_path / "run" / "predictions.jsonl").read_text().splitlines()) == 4


def test_a_prefix_goes_before_every_source_and_onto_the_card(tmp_path):
    train(parse_arguments([*options_for("t5", tmp_path), "--data.source_prefix", "w7 w8: "]))
    samples = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    assert all(json.loads(sample)["source"].startswith("w7 w8: ") for sample in samples)
    assert "Each source begins with `w7 w8: `" in (tmp_path / "run" / "model" / "README.md").read_text()


def test_a_resumed_run_is_equal_to_the_last_bit(tmp_path):
    options = [*options_for("bart", tmp_path), "--model.dropout", "0.2", "--training.ema_decay", "0.9"]
    options += ["--training.schedule", "inverse_sqrt", "--training.average_models", "2", "--training.average", "last"]
    train(parse_arguments(options))
    halved = [*options, "--output_dir", str(tmp_path / "halved")]
    train(parse_arguments([*halved, "--training.max_steps", "2"]))
    train(parse_arguments([*halved, "--resume"]))
    whole, resumed = (
        hf.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / run / "model").state_dict() for run in ("run", "halved")
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_gradient_checkpointing_changes_no_weight(tmp_path):
    options = [*options_for("t5", tmp_path), "--model.dropout", "0"]
    train(parse_arguments(options))
    checkpointed = ["--training.gradient_checkpointing", "true", "--output_dir", str(tmp_path / "checkpointed")]
    train(parse_arguments([*options, *checkpointed]))
    first, second = (
        hf.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / run / "model").state_dict()
        for run in ("run", "checkpointed")
    )
    for name in first:
        torch.testing.assert_close(first[name], second[name])


def test_a_run_of_ours_goes_on_with_its_folder_and_its_recipe(tmp_path):
    pairs = write_pairs(tmp_path)
    sizes = ["d_model=16", "encoder_layers=1", "decoder_layers=1", "encoder_attention_heads=2"]
    sizes += ["decoder_attention_heads=2", "encoder_ffn_dim=32", "decoder_ffn_dim=32"]
    fresh = [f"--model.{size}" for size in sizes]
    first = tmp_path / "first"
    train(parse_arguments([*pairs, *fresh, *QUICK, "--tokenizer.type", "word", "--output_dir", str(first)]))
    second = ["--model.path", str(first), "--output_dir", str(tmp_path / "second"), "--training.eval_steps", "1"]
    train(parse_arguments([str(first / "recipe.yaml"), *second]))
    before, after = lines_of(first, "validation")[-1], lines_of(tmp_path / "second", "validation")[0]
    assert after["step"] == 0
    assert after["loss"] == pytest.approx(before["loss"], rel=1e-5)
    tokenizers = [(tmp_path / run / "model" / "tokenizer.json").read_bytes() for run in ("first", "second")]
    assert tokenizers[0] == tokenizers[1]
    assert "The model first, trained further" in (tmp_path / "second" / "model" / "README.md").read_text()


def settings_after(base: Path, folder: Path, *words: str) -> tuple[hf.GenerationConfig, dict]:
    """How a model generates after a run from a base, and how the run scored it."""
    quick = [*QUICK[: QUICK.index("--generation.max_new_tokens")], "--training.report_to", "[]"]
    train(
        parse_arguments(
            ["--model.path", str(base), *write_pairs(folder), *quick, "--output_dir", f"{folder}/o", *words]
        )
    )
    recipe = yaml.safe_load((folder / "o" / "recipe.yaml").read_text(encoding="utf-8"))
    return hf.GenerationConfig.from_pretrained(folder / "o" / "model"), recipe["generation"]


def test_a_limit_of_the_models_own_and_a_language_that_is_not_used_are_told_once(tmp_path, caplog):
    base = save_tiny("marian", tmp_path / "base")
    own = hf.GenerationConfig.from_pretrained(base)
    own.update(max_length=9, max_new_tokens=None)
    own.save_pretrained(base)
    found, scored = settings_after(base, tmp_path, "--data.train.tgt_lang", "zh")
    assert (found.max_length, found.max_new_tokens, scored["max_new_tokens"]) == (9, None, 9)
    assert "seem to have been set" not in caplog.text
    assert caplog.text.count("data.train.tgt_lang=zh is not used by this model") == 1


@pytest.mark.parametrize("family", ["fun_transformer", "marian"])
@pytest.mark.parametrize(
    ("words", "beams", "length"),
    [
        ([], 3, 6),
        (["--generation.num_beams", "1"], 1, 6),
        (["--generation.num_beams", "2", "--generation.max_new_tokens", "256"], 2, 256),
    ],
)
def test_generation_stays_the_models_own_but_for_what_is_named(family, words, beams, length, tmp_path):
    if family == "marian":
        base = save_tiny("marian", tmp_path / "base")
    else:
        sizes = [f"--model.{side}_{name}" for side in ("encoder", "decoder") for name in ("layers=1", "ffn_dim=32")]
        sizes += ["--model.d_model=16", "--model.encoder_attention_heads=2", "--model.decoder_attention_heads=2"]
        first = ["--tokenizer.type", "word", *sizes, *QUICK, "--output_dir", str(tmp_path / "first")]
        train(parse_arguments([*write_pairs(tmp_path), *first]))
        base = tmp_path / "first" / "model"
    own = hf.GenerationConfig.from_pretrained(base)
    own.update(num_beams=3, max_new_tokens=6, max_length=None, length_penalty=0.7, early_stopping=True)
    own.save_pretrained(base)
    found, scored = settings_after(base, tmp_path, *words)
    longest = hf.AutoConfig.from_pretrained(base).max_position_embeddings or length
    assert (found.num_beams, found.max_new_tokens) == (beams, min(length, longest))
    assert found.length_penalty == (0.7 if beams > 1 else None)
    assert (scored["num_beams"], scored["max_new_tokens"]) == (beams, length)
    assert found.decoder_start_token_id == own.decoder_start_token_id


@pytest.mark.parametrize(
    ("family", "objective", "auto_class"),
    [
        ("bert", "masked_lm", hf.AutoModelForMaskedLM),
        ("gpt2", "causal_lm", hf.AutoModelForCausalLM),
        ("bart", "denoising", hf.AutoModelForSeq2SeqLM),
        ("bert", "sequence_classification", hf.AutoModelForSequenceClassification),
        ("bert", "token_classification", hf.AutoModelForTokenClassification),
    ],
)
def test_other_objectives_start_from_models_of_their_kind(family, objective, auto_class, tmp_path):
    options = options_for(family, tmp_path)
    if objective == "sequence_classification":
        (tmp_path / "target").write_text("good\nbad\n" * 12)
    if objective == "token_classification":
        (tmp_path / "target").write_text("B-A I-A O O\nO O B-A I-A\n" * 12)
    train(parse_arguments([*options, "--objective", objective]))
    model = auto_class.from_pretrained(tmp_path / "run" / "model")
    if "classification" in objective:
        assert set(model.config.label2id) >= {"sequence_classification": {"good", "bad"}}.get(objective, {"O", "B-A"})
    assert [line["step"] for line in lines_of(tmp_path / "run", "validation")] == [0, 2, 4]


REMOTE = """
from transformers import T5Config, T5ForConditionalGeneration


class MineConfig(T5Config):
    model_type = "mine"


class MineForConditionalGeneration(T5ForConditionalGeneration):
    config_class = MineConfig
"""


def save_remote(folder: Path) -> Path:
    """Write a checkpoint of a family that only its own code knows."""
    save_tiny("t5", folder)
    (folder / "modeling_mine.py").write_text(REMOTE)
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "MineConfig", "AutoModelForSeq2SeqLM": "MineForConditionalGeneration"}
    auto_map = {name: f"modeling_mine.{value}" for name, value in names.items()}
    config |= {"model_type": "mine", "auto_map": auto_map, "architectures": ["MineForConditionalGeneration"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_code_of_a_model_runs_only_where_it_is_trusted(tmp_path):
    save_remote(tmp_path / "base")
    options = ["--model.path", str(tmp_path / "base"), *write_pairs(tmp_path), *QUICK]
    options += ["--output_dir", str(tmp_path / "run")]
    with pytest.raises(ValueError, match=r"allow it to run: --model.trust_remote_code true"):
        train(parse_arguments(options))
    assert not (tmp_path / "run").exists()
    train(parse_arguments([*options, "--model.trust_remote_code", "true"]))
    final = tmp_path / "run" / "model"
    assert (final / "modeling_mine.py").is_file()
    assert type(hf.AutoModelForSeq2SeqLM.from_pretrained(final, trust_remote_code=True)).__name__.startswith("Mine")


@pytest.mark.slow
def test_the_model_works_where_this_package_is_not_installed(strangers, tmp_path):
    train(parse_arguments(options_for("marian", tmp_path)))
    code = (
        "import sys; sys.modules['fun_transformer'] = None\n"
        "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n"
        f"folder = {str(tmp_path / 'run' / 'model')!r}\n"
        "model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)\n"
        "print(tokenizer.batch_decode(model.generate(**tokenizer('w1 w2', return_tensors='pt'), max_new_tokens=4)))\n"
    )
    strangers.python("-c", code)


# ── What is refused ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("family", "words", "message"),
    [
        ("gpt2", [], "is a gpt2, a decoder alone, and cannot learn objective: seq2seq; objective: causal_lm fits it"),
        ("bert", [], "is a bert, an encoder alone, and cannot learn objective: seq2seq; objective: masked_lm fits it"),
        ("t5", ["--objective", "causal_lm"], "an encoder and a decoder, and cannot learn objective: causal_lm"),
        ("t5", ["--objective", "denoising"], "has no mask_token, which objective: denoising needs"),
        ("nllb", ["--data.train.tgt_lang", "zho_Hant_"], r"Did you mean zho_Hant\?"),
        ("nllb", ["--data.train.src_lang", "en"], "data.train.src_lang=en is no language"),
        ("t5", ["--training.packing", "64"], "Packed rows are for models of type fun_transformer, not t5"),
        ("t5", ["--training.attn_implementation", "nonsense"], "nonsense"),
        ("t5", ["--model.revision", "x", "--training.bpe_dropout", "0.1"], "training.bpe_dropout needs"),
    ],
)
def test_a_model_that_cannot_do_what_is_asked_is_refused_before_anything_is_written(family, words, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(parse_arguments([*options_for(family, tmp_path), *words]))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.d_model", "64"], "brings its own config, and model.d_model is another one's"),
        (["--model.config", __file__], "brings its own config, and model.config"),
        (["--tokenizer.path", "x"], "brings its own tokenizer, and tokenizer.path=x is another one"),
        (["--tokenizer.type", "char"], "which is not trained again. Leave tokenizer.type out"),
        (["--training.init_from", "x"], "Leave training.init_from out"),
        (["--model.dropout", "1.5"], r"model.dropout must be in \[0, 1\)"),
        (["--model.trust_remote_code=maybe"], "must be true or false"),
        (["--model.pth", "x"], "model.pth is not known. Did you mean model.path"),
    ],
)
def test_what_the_model_says_itself_is_refused_in_a_recipe(words, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        parse_arguments(["--model.path", str(tmp_path), "--data.train.dataset", "builtin:hsk", *words])


def break_base(folder: Path, what: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    if what == "no weights":
        (folder / "model.safetensors").unlink()
    if what == "no config":
        (folder / "config.json").unlink()
    if what == "family":
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "marien"}))
    if what == "json":
        (folder / "config.json").write_text("[1")
    if what == "tokenizer":
        for path in folder.glob("tokenizer*"):
            path.unlink()
    if what == "padding":
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({name: value for name, value in settings.items() if name != "pad_token"}))
    if what == "encoder":
        weights = hf.AutoModelForSeq2SeqLM.from_pretrained(folder)
        body = {name: w for name, w in weights.state_dict().items() if "decoder" not in name and "lm_head" not in name}
        weights.save_pretrained(folder, state_dict=body)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no weights", "has a config but no weights"),
        ("no config", "there is no config.json"),
        ("family", "transformers does not know the family 'marien'"),
        ("json", "config.json is no JSON object"),
        ("tokenizer", "its tokenizer cannot be loaded"),
        ("padding", "has no pad_token, which objective: seq2seq needs"),
        ("encoder", "lacks weights that objective: seq2seq needs"),
    ],
)
def test_a_damaged_model_is_refused_in_a_sentence(what, message, tmp_path):
    options = options_for("marian", tmp_path)
    break_base(tmp_path / "base", what)
    with pytest.raises(ValueError, match=message):
        train(parse_arguments(options))
    assert not (tmp_path / "run").exists()


RECIPES = re.findall("```yaml\n(.*?)```", (DOCS / "fine-tuning.md").read_text(encoding="utf-8"), flags=re.DOTALL)
WHOLE = [recipe for recipe in RECIPES if "output_dir" in recipe]
PARTS = [recipe for recipe in RECIPES if "output_dir" not in recipe]


@pytest.mark.parametrize("recipe", [*WHOLE, *(WHOLE[0] + part for part in PARTS)])
def test_the_recipes_of_the_docs_are_read(recipe, tmp_path):
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    arguments = parse_arguments([str(tmp_path / "recipe.yaml")])
    assert arguments.model["path"] in recipe and arguments.output_dir in recipe


def test_the_docs_show_four_recipes():
    assert len(WHOLE) == 4


def test_a_model_that_is_nowhere_is_refused_in_a_sentence(tmp_path):
    for name, message in ((str(tmp_path / "nowhere"), "there is no such folder"), ("no/such", "it is no folder here")):
        options = ["--model.path", name, *write_pairs(tmp_path), "--output_dir", str(tmp_path / "run")]
        with pytest.raises(ValueError, match=message):
            train(parse_arguments(options))


def test_weights_with_a_new_tokenizer_are_named_with_what_goes_on_with_both(tmp_path, caplog):
    from fun_transformer.training.recipe.base import check_base

    options = [*write_pairs(tmp_path), "--training.init_from", str(save_tiny("t5", tmp_path / "base"))]
    check_base(parse_arguments([*options, "--output_dir", str(tmp_path / "run")]))
    assert f"use --model.path {tmp_path / 'base'} instead" in caplog.text
