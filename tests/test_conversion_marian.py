"""Models of ours as stock models of transformers and back: the same logits, and bit by bit the same weights."""

import json

import pytest
import torch
import transformers
from tiny_models import build_model, save_tiny, word_tokenizer
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from fun_transformer import (
    FunTransformerForConditionalGeneration,
    FunTransformerTokenizer,
    Seq2SeqRNNForConditionalGeneration,
    cli,
)
from fun_transformer.configuration_seq2seq_rnn import Seq2SeqRNNConfig
from fun_transformer.conversion import convert
from fun_transformer.conversion.marian import from_marian, read_marian, to_marian
from fun_transformer.export import export_model, find_format
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.train import train
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

LINES = ["The black cat sat.", "Another dog ran away.", "今天我们吃什么？", "The whole street was asleep."]
TIED = [
    {},
    {"tie_word_embeddings": False},
    {"share_encoder_decoder_embeddings": False},
    {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
]
TWO = [fields | {"decoder_vocab_size": 21} for fields in TIED[2:]]
OTHER = {"activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": False}
KINDS = {
    "MarianMTModel": {},
    "PegasusForConditionalGeneration": {"norm_position": "pre"},
    "BlenderbotForConditionalGeneration": {"norm_position": "pre", "position_embedding_type": "learned"},
}


def logits(model, batch):
    return model.eval()(**{name: value for name, value in batch.items() if name != "labels"}).logits.detach()


@pytest.fixture
def batch(tiny_batch):
    return tiny_batch | {"decoder_input_ids": tiny_batch["labels"].clamp(min=0).clamp(max=20)}


@pytest.mark.parametrize(
    ("model_class", "fields"),
    [
        *(("MarianMTModel", fields) for fields in [*TIED, *TWO, OTHER]),
        *((name, fields) for name in [*KINDS][1:] for fields in [TIED[0], TIED[3], TWO[0], OTHER]),
    ],
)
def test_there_and_back(tiny_model, batch, tmp_path, model_class, fields):
    model = tiny_model(**KINDS[model_class], **fields, label_smoothing=0.3)
    model.generation_config.max_new_tokens = 7
    if model_class != "MarianMTModel" and "decoder_vocab_size" in fields:
        with pytest.raises(ValueError, match=r"vocabularies of 23 and 21 tokens.*another format"):
            to_marian(model)
        return
    to_marian(model).save_pretrained(tmp_path)
    stock = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert type(stock).__name__ == model_class and stock.generation_config.max_new_tokens == 7
    torch.testing.assert_close(logits(stock, batch), logits(model, batch), atol=1e-5, rtol=0)
    back = from_marian(stock)
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in model.state_dict().items())
    kept = {"max_position_embeddings": None, "transformers_version": None}  # a table of sinusoids has at least 1024
    assert back.config.to_diff_dict() | kept == model.config.to_diff_dict() | kept


def test_the_way_there_leaves_the_model_as_it_is(tiny_model, batch):
    model = tiny_model()
    before = logits(model, batch)
    stock = to_marian(model)
    with torch.no_grad():
        for weight in stock.parameters():
            weight.zero_()
    assert torch.equal(logits(model, batch), before)


def test_positions_go_as_far_as_ours_do_in_practice(tiny_model):
    stock = to_marian(tiny_model())  # max_position_embeddings=32, at which our sinusoids do not end
    ids = torch.full((1, 200), 5)
    assert stock(input_ids=ids, decoder_input_ids=ids).logits.isfinite().all()


def test_half_precision_stays(tiny_model, batch):
    model = tiny_model().half()
    stock = to_marian(model)
    assert stock.dtype == from_marian(stock).dtype == torch.float16
    back = from_marian(stock)
    assert back.config.position_embedding_type == "sinusoidal"
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"position_embedding_type": "learned"}, "norm_position=post with learned positions"),
        ({"position_embedding_type": "rotary"}, "position_embedding_type=rotary, and theirs is sinusoidal or learned"),
        ({"position_embedding_type": "relative"}, "position_embedding_type=relative.*or choose another format"),
        ({"final_layer_norm": True}, "final_layer_norm=True with norm_position=post"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps=1e-06"),
        ({"encoder_layer_types": ["conv", "full_attention"]}, "layers of conv"),
        ({"decoder_layer_types": ["sliding_attention"] * 3, "sliding_window": 4}, "layers of sliding_attention"),
    ],
)
def test_what_no_class_of_transformers_computes_is_refused(tiny_model, fields, reason):
    with pytest.raises(ValueError, match=reason):
        to_marian(tiny_model(**fields))


def test_other_models_of_ours_are_refused():
    model = Seq2SeqRNNForConditionalGeneration(Seq2SeqRNNConfig(vocab_size=23, d_model=8))
    with pytest.raises(ValueError, match="Seq2SeqRNNForConditionalGeneration is no FunTransformerFor"):
        find_format("marian").check(model, None, None)


@torch.no_grad()
def shake(model):
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("family", ["marian", "pegasus", "nllb", "blenderbot"])
@pytest.mark.parametrize("has_bias", [False, True])
def test_models_of_transformers_become_ours(batch, family, has_bias):
    for name in ("input_ids", "decoder_input_ids"):  # M2M100 sees by its number, 2 here, what is padding
        batch[name] = batch[name].masked_fill(batch[name] == 2, 4)
    batch["input_ids"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, 2)
    tokens = word_tokenizer(eos_token="</s>", unk_token="<unk>", pad_token="<pad>")
    if family == "blenderbot":
        sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "decoder_attention_heads": 2}
        sizes |= {"encoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20, "vocab_size": 43}
        stock = transformers.BlenderbotForConditionalGeneration(transformers.BlenderbotConfig(**sizes))
    else:
        stock = build_model(family, tokens)
    stock = shake(stock)
    if has_bias and family != "nllb":  # which has none
        stock.final_logits_bias.normal_()
    ours = from_marian(stock)
    torch.testing.assert_close(logits(ours, batch), logits(stock, batch), atol=1e-5, rtol=1e-5)
    assert ours.config.tie_word_embeddings == (not has_bias or family == "nllb")
    generate = {"max_new_tokens": 8, "num_beams": 3, **{name: batch[name] for name in ("input_ids", "attention_mask")}}
    assert torch.equal(ours.generate(**generate), stock.generate(**generate))


def test_separate_vocabularies_and_swish_of_marian(batch):
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "decoder_attention_heads": 2}
    sizes |= {"encoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20}
    own = {"vocab_size": 23, "decoder_vocab_size": 27, "share_encoder_decoder_embeddings": False}
    ids = {"pad_token_id": 22, "eos_token_id": 0, "decoder_start_token_id": 26, "forced_eos_token_id": None}
    stock = shake(
        transformers.MarianMTModel(transformers.MarianConfig(**sizes, **own, **ids, activation_function="swish"))
    )
    stock.final_logits_bias.normal_()
    ours = from_marian(stock)
    torch.testing.assert_close(logits(ours, batch), logits(stock, batch), atol=1e-5, rtol=1e-5)
    assert ours.config.activation_function == "silu" and not ours.config.share_encoder_decoder_embeddings


def test_trained_positions_of_marian_become_learned_ones(batch):
    stock = shake(build_model("marian", word_tokenizer(eos_token="</s>", unk_token="<unk>", pad_token="<pad>")))
    stock.model.encoder.embed_positions.weight.data.normal_()
    ours = from_marian(stock)
    assert ours.config.position_embedding_type == "learned"
    torch.testing.assert_close(logits(ours, batch), logits(stock, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "reason"), [("bart", "normalises embeddings"), ("mbart", "normalises"), ("t5", "relative positions")]
)
def test_models_that_none_of_ours_computes_are_refused(family, reason):
    with pytest.raises(ValueError, match=reason):
        from_marian(build_model(family, word_tokenizer(eos_token="</s>", unk_token="<unk>", pad_token="<pad>")))


def test_an_activation_that_ours_lack_is_refused():
    stock = build_model("marian", word_tokenizer(eos_token="</s>", unk_token="<unk>", pad_token="<pad>"))
    stock.config.activation_function = "gelu_new"
    with pytest.raises(ValueError, match="activation_function=gelu_new"):
        from_marian(stock)


def save_translator(tiny_model, tokenizer, folder, **fields):
    """Write a tiny model of ours with its tokenizer."""
    target_size = tokenizer.target_vocab_size
    if target_size:
        fields |= {"decoder_vocab_size": target_size, "share_encoder_decoder_embeddings": False}
    model = tiny_model(vocab_size=len(tokenizer), **fields)
    model.generation_config.max_new_tokens = 6
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def test_the_command_writes_what_transformers_loads_alone(tiny_model, tmp_path, capsys):
    tokenizer = train_tokenizer(LINES * 5, settings=TokenizerSettings(type="bpe", vocab_size=300))
    tokenizer.add_languages(["en", "zh"])
    model = save_translator(tiny_model, tokenizer, tmp_path / "model")
    (tmp_path / "lines.txt").write_text("\n".join(f">>en<< {line}" for line in LINES), encoding="utf-8")
    arguments = ["--to", "marian", "-o", str(tmp_path / "out"), "--check", str(tmp_path / "lines.txt")]
    assert cli.main(["export", str(tmp_path / "model"), *arguments, "--quantization", "float16"]) == 0
    assert "of 4 answers are equal" in capsys.readouterr().out
    assert not list((tmp_path / "out").glob("*.py"))
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert not isinstance(loaded, FunTransformerTokenizer)
    for line in [*LINES, ">>en<< 今天", "  a▁b  "]:
        assert loaded(line).data == tokenizer(line).data
        assert loaded.decode(loaded(line).input_ids) == tokenizer.decode(tokenizer(line).input_ids)
    back, its_tokenizer = read_marian(str(tmp_path / "out"))
    assert isinstance(its_tokenizer, FunTransformerTokenizer) and its_tokenizer.languages == ["en", "zh"]
    assert all(torch.equal(value.half(), back.state_dict()[name].half()) for name, value in model.state_dict().items())


@pytest.mark.parametrize("is_separate", [False, True])
def test_targets_that_are_cut_otherwise_have_a_tokenizer_of_their_own(tiny_model, tmp_path, is_separate):
    words = ["K AE T", "D AO G"] * 3
    settings = TokenizerSettings(type="char", target_type="word", target_vocab_size=60 if is_separate else None)
    tokenizer = train_tokenizer(["cat", "dog"] * 3, words, settings)
    model = save_translator(tiny_model, tokenizer, tmp_path / "model")
    exported = export_model(model, tokenizer, find_format("marian"), tmp_path / "out", data=["cat", "dog", "tac"])
    assert [found.equal for found in exported.agreements] == [3, 3]
    target = AutoTokenizer.from_pretrained(tmp_path / "out" / "target_tokenizer")
    assert target("K AE T").input_ids == tokenizer(text_target="K AE T").input_ids
    _, back = read_marian(str(tmp_path / "out"))
    assert back("cat", text_target="K AE T").data == tokenizer("cat", text_target="K AE T").data


ALONE = """
import sys
sys.modules["fun_transformer"] = None
import torch
from transformers import AutoTokenizer, MarianMTModel
model, tokenizer = MarianMTModel.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
batch = tokenizer(sys.argv[2:], return_tensors="pt", padding=True)
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
"""


@pytest.mark.slow
def test_a_process_without_our_package_answers_alike(tiny_model, strangers, tmp_path):
    tokenizer = train_tokenizer(LINES * 5, settings=TokenizerSettings(type="unigram", vocab_size=300))
    model = save_translator(tiny_model, tokenizer, tmp_path / "model")
    export_model(model, tokenizer, find_format("marian"), tmp_path / "out", data=LINES)
    output = strangers.python("-c", ALONE, tmp_path / "out", *LINES, cwd=tmp_path)
    batch = tokenizer(LINES, return_tensors="pt", padding=True)
    answers = tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True)
    assert output.strip().splitlines()[-1] == str(answers)


@pytest.fixture
def opus_folder(tmp_path):
    """A folder in the form of OPUS-MT: pieces of two SentencePiece models under the numbers of one vocabulary."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path / "opus"
    folder.mkdir()
    tokens = ["</s>", "<unk>"]
    for side, lines in (("source", ["今天我们吃什么？", "我们走吧！"]), ("target", ["The cat sat.", "The dog ran."])):
        (tmp_path / side).write_text("\n".join(lines * 10), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(tmp_path / side), model_prefix=str(tmp_path / side), vocab_size=24, hard_vocab_limit=False
        )
        (tmp_path / f"{side}.model").rename(folder / f"{side}.spm")
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.spm"))
        tokens += [pieces.id_to_piece(number) for number in range(3, len(pieces))]
    tokens = [*dict.fromkeys(tokens), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "MarianTokenizer", "source_lang": "zh", "target_lang": "en"}), encoding="utf-8"
    )
    sizes = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2}
    sizes |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20, "vocab_size": len(tokens)}
    pad = len(tokens) - 1
    ids = {"pad_token_id": pad, "decoder_start_token_id": pad, "eos_token_id": 0, "forced_eos_token_id": 0}
    config = transformers.MarianConfig(
        **sizes, **ids, activation_function="swish", scale_embedding=True, static_position_embeddings=True
    )
    model = shake(transformers.MarianMTModel(config))
    model.final_logits_bias.normal_()
    model.generation_config.update(bad_words_ids=[[pad]], num_beams=3, max_length=12)
    model.save_pretrained(folder)
    return folder


def test_an_opus_model_becomes_ours_with_its_tokenizer(opus_folder, tmp_path):
    ours, tokenizer = read_marian(str(opus_folder))
    ours.save_pretrained(tmp_path / "ours")
    tokenizer.save_pretrained(tmp_path / "ours")
    ours, tokenizer = (loader.from_pretrained(tmp_path / "ours") for loader in (AutoModelForSeq2SeqLM, AutoTokenizer))
    stock, its_own = (loader.from_pretrained(opus_folder) for loader in (AutoModelForSeq2SeqLM, AutoTokenizer))
    texts = ["今天我们走吧！", "吃", "cat 什么"]
    batch = tokenizer(texts, text_target=["The cat.", "ran", "sat"], return_tensors="pt", padding=True)
    assert batch.input_ids.tolist() == its_own(texts, padding=True).input_ids
    assert batch.labels.tolist() == its_own(text_target=["The cat.", "ran", "sat"], padding=True).input_ids
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    assert torch.equal(ours.generate(**inputs), stock.generate(**inputs))
    decoder_ids = {"decoder_input_ids": batch.labels}
    torch.testing.assert_close(
        logits(ours, inputs | decoder_ids), logits(stock, inputs | decoder_ids), atol=1e-5, rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_accelerate")
def test_the_command_converts_and_training_goes_on(opus_folder, tmp_path, capsys):
    assert cli.main(["convert", str(opus_folder), "-o", str(tmp_path / "ours")]) == 0
    out = capsys.readouterr().out
    assert "logits differ by at most" in out and "the bias of its logits is in the output layer now" in out
    for side, text in (("source", "我们吃"), ("target", "The cat sat.")):
        (tmp_path / f"{side}.txt").write_text("".join(f"{text}{text * i}\n" for i in range(12)), encoding="utf-8")
    data = [f"--data.train.{side}={tmp_path / side}.txt" for side in ("source", "target")]
    steps = ["--training.max_steps=2", "--training.eval_steps=2", "--training.save_steps=2", "--training.report_to=[]"]
    train(parse_arguments([f"--model.path={tmp_path / 'ours'}", f"--output_dir={tmp_path / 'run'}", *data, *steps]))
    trained = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run" / "model")
    assert not trained.config.tie_word_embeddings and isinstance(trained, FunTransformerForConditionalGeneration)
    assert type(AutoTokenizer.from_pretrained(tmp_path / "run" / "model")).__name__ == "MarianTokenizer"


def test_a_name_on_the_hub_is_downloaded(opus_folder, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: asked.append(name) or str(opus_folder))
    assert cli.main(["convert", "someone/opus-mt-zh-en", "-o", str(tmp_path / "ours")]) == 0
    assert asked == ["someone/opus-mt-zh-en"]
    assert cli.main(["convert", "./opus-mt-zh-en", "-o", str(tmp_path / "other")]) == 2
    assert "There is no file or folder ./opus-mt-zh-en" in capsys.readouterr().err


def test_no_hub_no_model(tmp_path, capsys):
    assert cli.main(["convert", "someone/opus-mt-zh-en", "-o", str(tmp_path / "ours")]) == 2
    assert "the Hub did not give a model someone/opus-mt-zh-en" in capsys.readouterr().err


def test_sinusoids_of_m2m100_become_learned_positions(tmp_path):
    save_tiny("nllb", tmp_path / "nllb")
    converted, agreement = convert(tmp_path / "nllb", tmp_path / "ours")
    assert agreement.difference < 1e-5
    assert converted.notes == ["its positions are not the paper's sinusoids, and are learned ones now, 64 of them."]
    assert AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours").config.model_type == "fun_transformer"


def test_bart_is_refused_by_the_command(tmp_path, capsys):
    save_tiny("bart", tmp_path / "bart")
    assert cli.main(["convert", str(tmp_path / "bart"), "-o", str(tmp_path / "ours")]) == 2
    assert "a bart normalises embeddings before the first layer" in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


def test_a_damaged_source_is_refused(tiny_model, tmp_path):
    stock = to_marian(tiny_model())
    stock.save_pretrained(tmp_path)
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.decoder.layers.0.fc1.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights of a MarianMTModel: model.decoder.layers.0.fc1.weight"):
        read_marian(str(tmp_path))


@pytest.mark.parametrize("name", ["tokenizer_config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_with_a_file_missing_or_cut_is_refused_in_one_sentence(tiny_model, tmp_path, capsys, name):
    tokenizer = train_tokenizer(LINES * 5, settings=TokenizerSettings(type="bpe", vocab_size=300))
    model, folder = tiny_model(vocab_size=len(tokenizer)), tmp_path / "marian"
    model.generation_config.max_new_tokens = 6
    export_model(model, tokenizer, find_format("marian"), folder, data=LINES)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    assert cli.main(["convert", str(folder), "-o", str(tmp_path / "ours")]) == 2
    assert f"of {folder} cannot be read" in capsys.readouterr().err
    if name != "model.safetensors":
        (folder / name).unlink()
        assert cli.main(["convert", str(folder), "-o", str(tmp_path / "ours")]) == 2
        assert f"The tokenizer of {folder} cannot be read" in capsys.readouterr().err


def test_what_came_from_this_package_says_what_it_is(tiny_model, tmp_path):
    tiny_model().save_pretrained(tmp_path / "ours")
    for name in ("ct2", "onnx"):
        (tmp_path / name).mkdir()
    (tmp_path / "ct2" / "model.bin").touch()
    (tmp_path / "ct2" / "shared_vocabulary.json").touch()
    config = {"model_type": "marian", "transformers.js_config": {"dtype": "q8"}}
    (tmp_path / "onnx" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name, words in {
        "ours": r"of this package already \(fun_transformer\)",
        "ours/model.safetensors": "of this package already",
        "ct2": "a folder of CTranslate2",
        "onnx": "an export to ONNX",
    }.items():
        with pytest.raises(ValueError, match=words):
            convert(tmp_path / name, tmp_path / "out")
