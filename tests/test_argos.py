"""Argos packages: their layout, and SentencePiece pieces that are our tokens."""

import json
import zipfile

import pytest

from fun_transformer import cli
from fun_transformer.export import export_model, find_format
from fun_transformer.export.argos import sentencepiece_model
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

pytest.importorskip("ctranslate2")
sentencepiece = pytest.importorskip("sentencepiece")
pytest.importorskip("google.protobuf")

LINES = [
    "The black cat sat 12 times.",
    "Another dog ran away.",
    "The whole street was asleep, he said.",
    "It's ★ new.",
]


@pytest.fixture
def tokenizer():
    return train_tokenizer(LINES * 5, settings=TokenizerSettings(type="bpe", vocab_size=330))


def test_pieces_are_our_tokens(tokenizer):
    pieces = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(tokenizer, True))
    for text in [*LINES, "Unknown letters: żółw ☃.", "  two  spaces ", "blackcat catblack 2024!?"]:
        tokens = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)
        assert pieces.encode(text, out_type=str) == tokens
    chinese = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(tokenizer, False))
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("今天 cat", add_special_tokens=False).input_ids)
    assert chinese.encode("今天 cat", out_type=str) == tokens


def test_a_package_answers_as_the_model(tiny_model, tokenizer, tmp_path):
    model = tiny_model(vocab_size=len(tokenizer), max_position_embeddings=1024)
    model.generation_config.max_new_tokens = 8
    exported = export_model(
        model, tokenizer, find_format("argos"), tmp_path / "en_zh.argosmodel", data=LINES, force=True
    )
    assert exported.agreements[0].equal == len(LINES)
    with zipfile.ZipFile(exported.output) as package:
        names = {name.split("/", 1)[1] for name in package.namelist()}
        metadata = json.loads(package.read("translate-en_zh-1_0/metadata.json"))
        config = json.loads(package.read("translate-en_zh-1_0/model/config.json"))
    assert names == {
        *("metadata.json", "sentencepiece.model"),
        *("model/model.bin", "model/config.json", "model/shared_vocabulary.json"),
    }
    assert (metadata["from_code"], metadata["to_code"]) == ("en", "zh")
    assert config["add_source_eos"] is True


def test_a_new_folder_is_made_for_a_package(tiny_model, tokenizer, tmp_path):
    model = tiny_model(vocab_size=len(tokenizer), max_position_embeddings=1024)
    model.generation_config.max_new_tokens = 8
    output = tmp_path / "new" / "en_zh.argosmodel"
    export_model(model, tokenizer, find_format("argos"), output, data=LINES, force=True)
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_a_name_without_languages_is_refused_before_a_model_is_loaded(tmp_path, capsys):
    arguments = ["export", str(tmp_path / "no-model"), "--to", "argos", "-o", str(tmp_path / "mine.argosmodel")]
    assert cli.main(arguments) == 2
    assert "both languages" in capsys.readouterr().err


def test_a_name_without_languages_is_refused(tiny_model, tokenizer, tmp_path):
    model = tiny_model(vocab_size=len(tokenizer))
    with pytest.raises(ValueError, match="both languages"):
        export_model(model, tokenizer, find_format("argos"), tmp_path / "mine.argosmodel")
    assert not list(tmp_path.iterdir())


def test_words_are_refused(tiny_model, tmp_path):
    words = train_tokenizer(LINES * 5, settings=TokenizerSettings(type="word", vocab_size=100))
    with pytest.raises(ValueError, match="bpe vocabulary"):
        export_model(tiny_model(vocab_size=len(words)), words, find_format("argos"), tmp_path / "en_zh.argosmodel")


@pytest.mark.slow
def test_argos_translate_installs_and_runs_a_package(tiny_model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("ARGOS_PACKAGES_DIR", str(tmp_path / "packages"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    argos = pytest.importorskip("argostranslate.package")
    from argostranslate import translate

    model = tiny_model(vocab_size=len(tokenizer), max_position_embeddings=1024)
    export_model(model, tokenizer, find_format("argos"), tmp_path / "en_zh.argosmodel", data=LINES, force=True)
    argos.install_from_path(tmp_path / "en_zh.argosmodel")
    (package,) = argos.get_installed_packages()

    class Whole:
        def split_sentences(self, text):
            return [text]

    translator = translate.PackageTranslation(translate.Language("en", "en"), translate.Language("zh", "zh"), package)
    translator.sentencizer = Whole()  # MiniSBD downloads a model
    assert len(translator.hypotheses(LINES[0], 2)) == 2
