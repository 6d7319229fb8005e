"""Export: written whole or not at all, compared with the model itself, and kept only if it answers alike."""

import json
import re

import pytest
import torch
import transformers
from transformers import GenerationConfig

from fun_transformer import FunTransformerTokenizer, Seq2SeqRNNForConditionalGeneration, TranslationPipeline, cli
from fun_transformer.configuration_seq2seq_rnn import Seq2SeqRNNConfig
from fun_transformer.conversion import convert
from fun_transformer.evaluation.data import EvaluationData
from fun_transformer.export import Format, NotKept, export_model, find_format, formats, random_texts, write
from fun_transformer.export.write import answer_with, compare, longest_answer
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

LINES = ["The black cat sat.", "Another dog ran away.", "今天我们吃什么？", "The whole street was asleep."]


class Copy(Format):
    """transformers' own format."""

    quantizations = ("float16",)

    def check(self, model, tokenizer, quantization):
        if model.config.norm_position == "pre":
            raise ValueError("A copy is post-norm.")

    def write(self, model, tokenizer, output, quantization):
        (model.half() if quantization == "float16" else model).save_pretrained(output)
        tokenizer.save_pretrained(output)

    def open(self, output):
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        model = AutoModelForSeq2SeqLM.from_pretrained(output, dtype=torch.float32)
        return answer_with(model, AutoTokenizer.from_pretrained(output))


@pytest.fixture
def tokenizer():
    return train_tokenizer(LINES * 5, settings=TokenizerSettings(type="bpe", vocab_size=300))


@pytest.fixture
def model(tiny_model, tokenizer):
    model = tiny_model(vocab_size=len(tokenizer), decoder_start_token_id=1)
    model.generation_config.max_new_tokens = 6
    return model


@pytest.fixture
def copy_format(monkeypatch):
    monkeypatch.setitem(formats.FORMATS, "copy", ("formats", "Copy"))
    monkeypatch.setattr(formats, "Copy", Copy, raising=False)


def test_an_export_agrees_and_leaves_the_model_as_it_is(model, tokenizer, tmp_path):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    exported = export_model(model, tokenizer, Copy(), tmp_path / "out", data=LINES)
    assert [(found.num_beams, found.equal, found.texts) for found in exported.agreements] == [(1, 4, 4), (5, 4, 4)]
    assert exported.num_bytes == sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert TranslationPipeline(model, tokenizer, device=-1)("Another dog.")  # still usable
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_answers_differently_is_not_kept(model, tokenizer, tmp_path):
    class Ruined(Copy):
        def open(self, output):
            return lambda texts, num_beams, max_new_tokens: ["another answer"] * len(texts)

    with pytest.raises(NotKept, match="equal") as error:
        export_model(model, tokenizer, Ruined(), tmp_path / "out")
    assert error.value.exported.agreements[0].example
    assert not list(tmp_path.iterdir())
    assert export_model(model, tokenizer, Ruined(), tmp_path / "out", force=True).lost
    assert (tmp_path / "out" / "config.json").is_file()


def test_a_failure_leaves_nothing(model, tokenizer, tmp_path):
    class Broken(Copy):
        def write(self, model, tokenizer, output, quantization):
            super().write(model, tokenizer, output, quantization)
            raise OSError("No space left")

    with pytest.raises(OSError, match="No space"):
        export_model(model, tokenizer, Broken(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_mistakes_are_found_before_anything_is_written(model, tokenizer, tmp_path, copy_format):
    with pytest.raises(ValueError, match=r"no quantization int3.*float16"):
        export_model(model, tokenizer, Copy(), tmp_path / "out", "int3")
    with pytest.raises(ValueError, match="no format gguf"):
        find_format("gguf")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ValueError, match="exists"):
        export_model(model, tokenizer, find_format("copy"), tmp_path / "full")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_missing_library_is_named(copy_format, monkeypatch):
    monkeypatch.setattr(Copy, "libraries", ("no_such_library",))
    monkeypatch.setattr(Copy, "extra", "ct2")
    with pytest.raises(ImportError, match=r"needs no_such_library: pip install .fun-transformer\[ct2\]"):
        find_format("copy")


def test_random_texts_are_of_the_vocabulary(tokenizer):
    texts = random_texts(tokenizer, 5)
    assert texts == random_texts(tokenizer, 5) != random_texts(tokenizer, 5, seed=1)
    assert all(text.strip() for text in texts)


def test_the_command_compares_scores(model, tokenizer, tmp_path, copy_format, capsys):
    model.save_pretrained(tmp_path / "run" / "model")
    tokenizer.save_pretrained(tmp_path / "run" / "model")
    (tmp_path / "check.tsv").write_text(
        "source\ttarget\n今天吃什么？\tThe other cat.\n我们走吧！\tStreets again.\n", encoding="utf-8"
    )
    arguments = [tmp_path / "run", "--to", "copy", "-o", tmp_path / "out", "--check", tmp_path / "check.tsv"]
    assert cli.main(["export", *map(str, arguments), "--quantization", "float16"]) == 0
    out = capsys.readouterr().out
    assert "greedy: " in out and "5 beams: " in out and "bleu: " in out and "MB" in out and "no references" not in out
    assert cli.main(["export", *map(str, arguments)]) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scores", "fault"),
    [
        ({"bleu": (30.0, 29.7)}, "bleu goes from 30.00 to 29.70"),
        ({"per": (5.0, 5.2)}, "per goes from 5.00 to 5.20"),
        ({"bleu": (30.0, 29.9), "chrf": (50.0, 40.0)}, None),
        ({"per": (5.0, 4.0)}, None),
    ],
)
def test_a_quantization_that_loses_quality_is_refused(model, tokenizer, tmp_path, monkeypatch, scores, fault):
    monkeypatch.setattr(write, "score", lambda *_: scores)
    data = EvaluationData("check", [["Any."]], ["The black cat sat."])
    if fault is None:
        assert not export_model(model, tokenizer, Copy(), tmp_path / "out", "float16", data).lost
        return
    with pytest.raises(NotKept, match=fault):
        export_model(model, tokenizer, Copy(), tmp_path / "out", "float16", data)
    assert export_model(model, tokenizer, Copy(), tmp_path / "out", "float16", data, force=True).lost


def answers_from(answers, sources):
    """A format's answers: those of a list, for every search."""
    return lambda texts, num_beams, max_new_tokens: [answers[sources.index(text)] for text in texts]


@pytest.mark.parametrize(("different", "is_kept"), [(1, True), (2, False)])
def test_one_of_few_answers_may_differ(model, tokenizer, tmp_path, different, is_kept):
    answers = answer_with(model, tokenizer)(LINES, 1, 6)
    model.generation_config.num_beams = 1
    theirs = answers_from(["else"] * different + answers[different:], LINES)
    found = compare(model, tokenizer, theirs, tmp_path / "out", LINES, False)
    greedy = [text for text in found.lost if "greedy" in text]
    assert not greedy if is_kept else greedy


@pytest.mark.parametrize(("different", "is_kept"), [(2, True), (3, False)])
def test_half_of_the_answers_of_a_quantization_without_references_are_equal(
    model, tokenizer, tmp_path, different, is_kept
):
    answers = answer_with(model, tokenizer)(LINES, 1, 6)
    theirs = answers_from(["else"] * different + answers[different:], LINES)
    assert (not compare(model, tokenizer, theirs, tmp_path / "out", LINES, True).lost) is is_kept


def test_sampling_of_the_generation_config_does_not_spoil_the_comparison(model, tokenizer, tmp_path):
    model.generation_config.update(do_sample=True, num_return_sequences=2, top_k=0)
    exported = export_model(model, tokenizer, find_format("marian"), tmp_path / "out", data=LINES)
    assert [found.equal for found in exported.agreements] == [4, 4]
    exported = export_model(model, tokenizer, Copy(), tmp_path / "copy")
    assert [found.equal for found in exported.agreements] == [32, 32]
    for folder in ("out", "copy"):
        kept = json.loads((tmp_path / folder / "generation_config.json").read_text(encoding="utf-8"))
        assert kept["do_sample"] is True and kept["num_return_sequences"] == 2


@pytest.mark.parametrize("quantization", ["float16", "bfloat16"])
def test_marian_answers_with_the_numbers_that_are_stored(model, tokenizer, tmp_path, monkeypatch, quantization):
    found = []
    monkeypatch.setattr(torch.nn.Embedding, "forward", watched(torch.nn.Embedding.forward, found))
    export_model(model, tokenizer, find_format("marian"), tmp_path / "out", quantization, LINES, force=True)
    assert found[-1] == getattr(torch, quantization)  # the model itself answers first


def watched(forward, found):
    """A layer's forward that notes the type of its weights."""

    def watch(layer, *args):
        found.append(layer.weight.dtype)
        return forward(layer, *args)

    return watch


@pytest.mark.parametrize(
    ("settings", "longest"), [({}, 256), ({"max_length": 12}, 11), ({"max_length": 12, "max_new_tokens": 7}, 7)]
)
def test_the_longest_answer_is_that_of_the_generation_config(settings, longest):
    assert longest_answer(GenerationConfig(**settings)) == longest


def test_no_sources_are_an_error(model, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="data has no sources"):
        export_model(model, tokenizer, Copy(), tmp_path / "out", data=[])


def test_two_exports_do_not_remove_what_the_other_has_begun(model, tokenizer, tmp_path):
    other = write.hidden(tmp_path / "out").with_name(".out.1.partial")
    other.mkdir()
    export_model(model, tokenizer, Copy(), tmp_path / "out", data=LINES)
    assert other.is_dir()


def test_a_table_without_a_header_is_read_as_training_reads_it(tmp_path, capsys):
    (tmp_path / "check.tsv").write_text("今天吃什么？\tThe other cat.\n我们走吧！\tAgain.\n", encoding="utf-8")
    arguments = ["export", "no-model", "--to", "marian", "-o", str(tmp_path / "out"), "--check"]
    assert cli.main([*arguments, str(tmp_path / "check.tsv")]) == 2
    said = capsys.readouterr().err
    assert "the first row is data" in said and "source_column is 0, target_column 1" in said
    assert "for a model no-model" in said  # which is looked for after the table


@pytest.mark.parametrize(("name", "quantization"), [("torch", "int8"), ("ct2", None), ("onnx", None)])
def test_refusals_send_no_model_of_ours_to_tools_that_do_not_know_it(name, quantization, tokenizer, tmp_path):
    sizes = {"vocab_size": len(tokenizer), "encoder_layers": 1, "decoder_layers": 1, "d_model": 8}
    ours = Seq2SeqRNNForConditionalGeneration(Seq2SeqRNNConfig(**sizes))
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    foreign = transformers.BartForConditionalGeneration(transformers.BartConfig(**sizes, **heads))
    try:
        format = find_format(name)
    except ImportError as error:
        pytest.skip(str(error))
    with pytest.raises(ValueError, match="FunTransformerForConditionalGeneration") as error:
        format.check(ours, tokenizer, quantization)
    assert not re.search("other families|others", str(error.value))
    with pytest.raises(ValueError, match=r"FunTransformerForConditionalGeneration.*other families"):
        format.check(foreign, tokenizer, quantization)


def test_a_marian_folder_says_how_long_texts_may_be(model, tokenizer, tmp_path):
    export_model(model, tokenizer, find_format("marian"), tmp_path / "out", data=LINES)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").model_max_length == 1024
    converted, _ = convert(tmp_path / "out", tmp_path / "back")
    for found in (converted.tokenizer, FunTransformerTokenizer.from_pretrained(tmp_path / "back")):
        assert found.model_max_length == tokenizer.model_max_length


def test_a_quantization_without_references_says_so(model, tokenizer, tmp_path, copy_format, capsys):
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    arguments = ["export", str(tmp_path / "model"), "--to", "copy", "-o"]
    assert cli.main([*arguments, str(tmp_path / "half"), "--quantization", "float16"]) == 0
    assert "no references: scores were not compared (--check TABLE)" in capsys.readouterr().out
    assert cli.main([*arguments, str(tmp_path / "whole")]) == 0
    assert "no references" not in capsys.readouterr().out
