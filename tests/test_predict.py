"""The command `predict`: models of every head answer every text, in order, in tables and as JSON."""

import json
import math
import os
import signal
import time

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    MarianConfig,
    MarianMTModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    pipeline,
)

from fun_transformer import (
    FunTransformerConfig,
    FunTransformerForCausalLM,
    FunTransformerForConditionalGeneration,
    FunTransformerForMaskedLM,
    FunTransformerForSequenceClassification,
    FunTransformerForTokenClassification,
    cli,
    files,
)
from fun_transformer.commands import heads, streams
from fun_transformer.commands.heads import best_choices

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "the", "cat", "sat", "dog", "a", "ran", "mat", "on", "."]
TEXTS = ["the cat sat on the mat .", "", "a dog", "the dog ran . the cat sat ."]
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
SIZES |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": len(WORDS)}
BERT = {
    "vocab_size": len(WORDS),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "pad_token_id": 0,
}
BERT |= {"intermediate_size": 16, "max_position_embeddings": 24}
LABELS = {"id2label": {0: "bad", 1: "good", 2: "odd"}, "label2id": {"bad": 0, "good": 1, "odd": 2}}
START = {"decoder_start_token_id": 1}


def ours(model_class, **fields):
    return lambda: model_class(FunTransformerConfig(**SIZES, **IDS, norm_position="pre", **fields))


MODELS = {
    "text, ours": ours(FunTransformerForConditionalGeneration, **START),
    "text, marian": lambda: MarianMTModel(MarianConfig(**SIZES, **IDS, **START, max_position_embeddings=64)),
    "text, t5": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, **IDS, **START)
    ),
    "labels, ours": ours(FunTransformerForSequenceClassification, **LABELS),
    "labels, bert": lambda: BertForSequenceClassification(BertConfig(**BERT, **LABELS)),
    "tags, ours": ours(FunTransformerForTokenClassification, **LABELS),
    "tags, bert": lambda: BertForTokenClassification(BertConfig(**BERT, **LABELS)),
    "masked, ours": ours(FunTransformerForMaskedLM),
    "masked, bert": lambda: BertForMaskedLM(BertConfig(**BERT)),
    "causal, ours": ours(FunTransformerForCausalLM),
    "causal, gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=64, **IDS)
    ),
}
FIELDS = {
    "text": {"translation_text", "log_probability", "mean_log_probability", "min_log_probability", "entropy", "score"}
    | {"token_log_probabilities", "target_tokens", "faults", "fallbacks", "faults_left"},
    "labels": {"label", "score"},
    "tags": {"words", "tags", "tag_scores"},
    "masked": {"filled_text", "tokens", "score"},
    "causal": {"generated_text", "log_probability", "mean_log_probability", "min_log_probability"},
}


def tiny_tokenizer():
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 2)])
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="<mask>", **special)


def save(build, folder):
    torch.manual_seed(1)
    model = build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    if model.can_generate():
        model.generation_config.max_new_tokens = 5
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    """The head of a tiny model and its folder."""
    return request.param.split(",")[0], save(MODELS[request.param], tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def translator(tmp_path):
    return save(MODELS["text, marian"], tmp_path / "model")


def texts_of(head):
    """Texts that a model with this head can answer."""
    return [text.replace("cat", "<mask>").replace("dog", "<mask>") if head == "masked" else text for text in TEXTS]


def predict(folder, *options, texts=()):
    argv = ["predict", folder, *texts, "--device", "cpu", *options]
    return cli.main([str(argument) for argument in argv])


def records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_head_answers_every_text_in_order(model, tmp_path, batch_size):
    head, folder = model
    source, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("\n".join(texts_of(head)) + "\n", encoding="utf-8")
    assert predict(folder, "--file", source, "--output", output, "--scores", "--batch-size", batch_size) == 0
    found = records(output)
    assert [record["source"] for record in found] == texts_of(head)
    assert {name for name in found[0] if name != "source"} == FIELDS[head]
    assert not any(value for name, value in found[1].items() if name != "source")
    assert all(record[name] is not None for record in found if record["source"] for name in FIELDS[head] - {"entropy"})


def test_a_batch_is_answered_as_single_texts_are(model, tmp_path):
    head, folder = model
    source = tmp_path / "in.txt"
    source.write_text("\n".join(texts_of(head)) + "\n", encoding="utf-8")
    answers = []
    for size in (1, 4):
        output = tmp_path / f"{size}.jsonl"
        assert predict(folder, "--file", source, "--output", output, "--scores", "--batch-size", size) == 0
        answers.append(records(output))
    for single, batched in zip(*answers, strict=True):
        for name, value in single.items():
            numbers = isinstance(value, float) or (isinstance(value, list) and value and isinstance(value[0], float))
            assert batched[name] == (pytest.approx(value, abs=1e-5) if numbers else value), name


@pytest.mark.parametrize("head", ["labels", "masked", "causal", "text"])
def test_the_best_of_several_answers_come_first(head, tmp_path):
    folder = save(MODELS[f"{head}, ours"], tmp_path / "model")
    texts, whole = [text for text in texts_of(head) if text], ["--no-guard", "--long-text", "whole"]
    assert predict(folder, "--nbest", 3, "--scores", *whole, "--output", tmp_path / "out.jsonl", texts=texts) == 0
    for record in records(tmp_path / "out.jsonl"):
        best, *rest = record["nbest"]
        assert len(rest) == 2 and all(record[name] == value for name, value in best.items())
        name = "log_probability" if head == "causal" else "score"
        if head in ("labels", "masked"):
            scores = [answer[name] for answer in record["nbest"]]
            assert scores == sorted(scores, reverse=True)
        answers = [json.dumps(answer) for answer in record["nbest"]]
        assert len(set(answers)) == 3
    assert predict(folder, "--nbest", 3, *whole, "--output", tmp_path / "out.tsv", texts=texts) == 0
    header, *lines = (tmp_path / "out.tsv").read_text(encoding="utf-8").splitlines()
    first = {"labels": "label", "masked": "filled_text", "causal": "generated_text", "text": "translation_text"}[head]
    assert {first, f"{first}_2", f"{first}_3"} < set(header.split("\t"))
    assert [line.count("\t") for line in lines] == [header.count("\t")] * len(texts)


# ── the answers are those of transformers ──


@pytest.mark.parametrize("name", ["labels, ours", "labels, bert"])
def test_labels_are_those_of_the_pipeline(name, tmp_path):
    folder = save(MODELS[name], tmp_path / "model")
    texts = [text for text in TEXTS if text]
    assert predict(folder, "--scores", "--nbest", 3, "--output", tmp_path / "out.jsonl", texts=texts) == 0
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    expected = pipeline("text-classification", model=model, tokenizer=tiny_tokenizer(), device="cpu")(texts, top_k=3)
    for record, answers in zip(records(tmp_path / "out.jsonl"), expected, strict=True):
        assert [answer["label"] for answer in record["nbest"]] == [answer["label"] for answer in answers]
        assert [a["score"] for a in record["nbest"]] == pytest.approx([a["score"] for a in answers], abs=1e-6)


def test_tags_are_one_a_word_even_where_a_text_is_too_long(tmp_path):
    folder = save(MODELS["tags, bert"], tmp_path / "model")
    text = " ".join(WORDS[5:9] * 10)  # 40 words for a model of 24 positions
    assert predict(folder, "--output", tmp_path / "out.jsonl", texts=[text, "the cat"]) == 0
    long, short = records(tmp_path / "out.jsonl")
    assert long["words"] == text.split() and len(long["tags"]) == 40
    encoded = tiny_tokenizer()("the cat", return_tensors="pt")
    logits = AutoModelForTokenClassification.from_pretrained(folder)(**encoded).logits[0, :2]
    assert short["tags"] == [LABELS["id2label"][label] for label in logits.argmax(-1).tolist()]


def test_masks_are_filled_as_the_pipeline_fills_one(tmp_path):
    folder = save(MODELS["masked, bert"], tmp_path / "model")
    assert (
        predict(folder, "--nbest", 2, "--scores", "--output", tmp_path / "out.jsonl", texts=["the <mask> sat ."]) == 0
    )
    expected = pipeline("fill-mask", model=str(folder), device="cpu")("the <mask> sat .", top_k=2)
    (found,) = records(tmp_path / "out.jsonl")
    assert [answer["tokens"] for answer in found["nbest"]] == [[answer["token_str"]] for answer in expected]
    assert [answer["score"] for answer in found["nbest"]] == pytest.approx([answer["score"] for answer in expected])


def test_several_masks_are_chosen_by_the_sum_of_their_scores():
    found = best_choices([[-1.0, -2.0], [-0.5, -0.6]], [[7, 8], [3, 4]], 3)
    assert [chosen for _, chosen in found] == [[7, 3], [7, 4], [8, 3]]
    assert [total for total, _ in found] == pytest.approx([-1.5, -1.6, -2.5])


def test_a_continuation_is_what_generate_adds(tmp_path):
    folder = save(MODELS["causal, gpt2"], tmp_path / "model")
    assert predict(folder, "--scores", "--output", tmp_path / "out.jsonl", texts=["the cat", "a"]) == 0
    model, tokenizer = GPT2LMHeadModel.from_pretrained(folder), tiny_tokenizer()
    for record in records(tmp_path / "out.jsonl"):
        ids = tokenizer(record["source"], return_tensors="pt").input_ids
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, pad_token_id=0)
        assert record["source"] + record["generated_text"] == tokenizer.decode(whole[0], skip_special_tokens=True)
        log_probs = model(whole).logits.log_softmax(-1)[0, ids.shape[1] - 1 : -1]
        chosen = log_probs.gather(-1, whole[0, ids.shape[1] :, None])[:, 0]
        assert record["log_probability"] == pytest.approx(chosen.sum().item(), abs=1e-4)
        assert record["min_log_probability"] == pytest.approx(chosen.min().item(), abs=1e-4)


def test_records_are_those_of_the_pipeline_in_python(translator, tmp_path):
    texts = [text for text in TEXTS if text]
    pipe = pipeline("translation", model=str(translator), device="cpu")
    asked = {"return_scores": True, "return_alignments": True, "batch_size": 32}
    options = ["--scores", "--alignments", "--output", tmp_path / "out.jsonl"]
    assert predict(translator, *options, texts=texts) == 0
    expected = pipe(texts, guard=True, long_text="sentences", **asked)
    found = [
        {name: value for name, value in one.items() if name != "source"} for one in records(tmp_path / "out.jsonl")
    ]
    assert found == json.loads(json.dumps(expected))
    assert predict(translator, *options, "--nbest", 2, "--no-guard", "--long-text", "whole", texts=texts) == 0
    expected = pipe(texts, num_return_sequences=2, **asked)
    assert [one["nbest"] for one in records(tmp_path / "out.jsonl")] == json.loads(json.dumps(expected))


# ── input and output ──


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.tsv", "id\tsource\n1\tthe cat\n2\ta dog\n"),
        ("in.csv", 'id,source\n1,"the cat"\n2,a dog\n'),
        ("in.jsonl", '{"source": "the cat", "id": 1}\n{"source": "a dog"}\n'),
    ],
)
def test_texts_come_from_a_column_of_a_table(translator, tmp_path, name, content, capsys):
    (tmp_path / name).write_text(content)
    assert predict(translator, "--file", tmp_path / name, "--output", tmp_path / "out.jsonl") == 0
    assert [record["source"] for record in records(tmp_path / "out.jsonl")] == ["the cat", "a dog"]
    (tmp_path / name).write_text(content.replace("source", "zh"))
    assert predict(translator, "--file", tmp_path / name, "--source-column", "zh") == 0
    assert predict(translator, "--file", tmp_path / name) == 2
    assert "has no column 'source'. Give --source-column one of: " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
def test_an_interrupted_run_goes_on_to_the_same_file(children, translator, tmp_path, suffix):
    """Ctrl-C after some answers, then --resume: the file of a run that nothing disturbed."""
    (tmp_path / "in").write_text("".join(f"{text or 'a mat'}\n" for text in TEXTS) * 12)
    code = "import sys; from fun_transformer import cli; from fun_transformer.commands import streams; "
    code += "streams.CHUNK_BATCHES = 1; sys.exit(cli.main(sys.argv[1:]))"

    def command(output):
        options = ["--scores", "--batch-size", "1", "--device", "cpu", "--file", str(tmp_path / "in")]
        return ["-c", code, "predict", str(translator), *options, "--output", str(output)]

    output, whole = tmp_path / f"out.{suffix}", tmp_path / f"whole.{suffix}"
    program = children.start(*command(output))
    while files.count_lines(output) < 3 and program.wait(poll=True) is None:
        time.sleep(0.01)
    os.kill(program.pid, signal.SIGINT)
    assert program.wait() == 130 and "the same command with --resume goes on after them" in program.error
    finished = output.read_bytes()
    assert 0 < finished.count(b"\n") < 48
    children.python(*command(output), "--resume")
    children.python(*command(whole))
    assert output.read_bytes() == whole.read_bytes() and output.read_bytes().startswith(finished)


@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
def test_resume_refuses_an_output_of_other_columns(translator, tmp_path, capsys, suffix):
    (tmp_path / "in").write_text("the cat\n")
    options = ["--file", tmp_path / "in", "--output", tmp_path / f"out.{suffix}"]
    assert predict(translator, *options) == 0
    assert predict(translator, *options, "--resume") == 0
    assert predict(translator, *options, "--resume", "--scores") == 2
    assert "has other columns" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
def test_resume_refuses_the_answers_to_other_texts(translator, tmp_path, capsys, suffix):
    source, output = tmp_path / "in", tmp_path / f"out.{suffix}"
    options = ["--file", source, "--output", output]
    source.write_text("the\tcat\na dog\n")
    assert predict(translator, *options) == 0
    finished = output.read_bytes()
    assert predict(translator, *options, "--resume") == 0
    source.write_text("the\tcat\na mat\na dog\n")
    assert predict(translator, *options, "--resume") == 2
    line = 3 if suffix == "tsv" else 2
    assert f"{output}, line {line} answers 'a dog', but text 2 of {source} is 'a mat'" in capsys.readouterr().err
    assert output.read_bytes() == finished


@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
def test_a_line_cut_inside_a_character_is_made_again(translator, tmp_path, suffix):
    source, output = tmp_path / "in", tmp_path / f"out.{suffix}"
    source.write_text("the cat\n猫\n", encoding="utf-8")
    options = ["--file", source, "--output", output]
    assert predict(translator, *options) == 0
    whole = output.read_bytes()
    output.write_bytes(whole[: whole.index("猫".encode()) + 1])
    assert predict(translator, *options, "--resume") == 0
    assert output.read_bytes() == whole


def test_a_column_of_beginnings_may_have_empty_fields(translator, tmp_path):
    (tmp_path / "in.tsv").write_text("source\tbegin\nthe cat . A dog\t\na dog\tthe cat\n")
    options = ["--file", tmp_path / "in.tsv", "--output", tmp_path / "out.jsonl"]
    assert predict(translator, *options, "--prefix-column", "begin") == 0
    with_beginnings = records(tmp_path / "out.jsonl")
    assert predict(translator, *options) == 0
    assert with_beginnings[0] == records(tmp_path / "out.jsonl")[0]
    assert with_beginnings[1]["translation_text"].startswith("the cat")


def test_more_answers_than_the_models_own_beams(translator, tmp_path):
    config = json.loads((translator / "generation_config.json").read_text())
    (translator / "generation_config.json").write_text(json.dumps(config | {"num_beams": 4}))
    assert predict(translator, "--nbest", 5, "--scores", "--output", tmp_path / "out.jsonl", texts=["the cat"]) == 0
    assert len(records(tmp_path / "out.jsonl")) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.tsv", "the cat\n", "has no rows below its first line, which names no column 'source'. Give --source-c"),
        (
            "in.csv",
            "id,zh\n",
            "has no rows below its first line, which names no column 'source'. Give --source-column",
        ),
        ("in.tsv", "", "in.tsv is empty. Its first line must name the columns, one of them 'source'."),
        ("in.tsv", "source\tsource\na\tb\n", "line 2 has several columns 'source'. Give each a name of its own."),
        ("in.jsonl", '{"source": "a", "source": "b"}\n', "line 1 has several columns 'source'."),
        ("in.tsv", "id\tid\na\tb\n", "has no column 'source'. Give --source-column one of: id.\n"),
    ],
)
def test_a_table_without_the_column_is_refused(translator, tmp_path, capsys, name, content, message):
    (tmp_path / name).write_text(content)
    assert predict(translator, "--file", tmp_path / name) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(("name", "content"), [("in.tsv", "id\tsource\n"), ("in.jsonl", "")])
def test_a_table_without_rows_is_named(translator, tmp_path, capsys, name, content):
    (tmp_path / name).write_text(content)
    assert predict(translator, "--file", tmp_path / name, "--output", tmp_path / "out.jsonl") == 0
    assert f"{tmp_path / name} has 0 rows\n" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "json", "parquet"])
def test_translate_refuses_tables(translator, tmp_path, capsys, suffix):
    (tmp_path / f"in.{suffix}").write_text("{}\n")
    assert cli.main(["translate", "--model", str(translator), "--file", f"{tmp_path}/in.{suffix}"]) == 2
    assert f"Use: fun-transformer predict {translator} --file {tmp_path}/in.{suffix}\n" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_output_of_another_format_is_refused(translator, tmp_path, capsys, suffix):
    output = tmp_path / f"out.{suffix}"
    assert predict(translator, "--output", output, texts=["the cat"]) == 2
    assert "answers are written as jsonl or tsv" in capsys.readouterr().err and not output.exists()
    assert predict(translator, "--output", output, "--format", "tsv", texts=["the cat"]) == 0


def test_a_missing_file_is_named(translator, tmp_path, capsys):
    assert predict(translator, "--file", tmp_path / "none.txt") == 2
    assert capsys.readouterr().err == f"fun-transformer predict: error: There is no file {tmp_path}/none.txt.\n"


def test_lines_are_written_as_they_are_finished():
    sizes = [len(chunk) for chunk in streams.chunks_after(list(range(100)), 1, 2)]
    assert sizes[:4] == [2, 4, 8, 16] and max(sizes) <= 2 * streams.CHUNK_BATCHES and sum(sizes) == 99


@pytest.mark.parametrize("options", [[], ["--output", "{tmp}/out.jsonl"]])
@pytest.mark.parametrize(("answered", "message"), [(0, "0 lines finished"), (1, "1 lines finished")])
def test_ctrl_c_says_how_many_lines_are_finished(
    translator, tmp_path, capsys, monkeypatch, options, answered, message
):
    def interrupted(answerer, texts, batch_size):
        nonlocal answered
        answered -= 1
        if answered < 0:
            raise KeyboardInterrupt
        return [[] for _ in texts]

    message = message if not (options and answered) else f"lines finished in {tmp_path}/out.jsonl: 1"
    monkeypatch.setattr(heads.Texts, "answer", interrupted)
    (tmp_path / "in").write_text("the cat\na dog\n")
    options = [option.format(tmp=tmp_path) for option in options]
    assert predict(translator, "--file", tmp_path / "in", "--batch-size", 1, *options) == 130
    assert f"interrupted: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "labels, ours",
            ["--alignments"],
            "gives a label for a text. For models that give a text for a text: --align",
        ),
        ("masked, ours", [], "write <mask> for a missing word"),
        ("text, ours", ["--nbest", "3", "--num-beams", "2"], "--num-beams 2 cannot find --nbest 3"),
        ("labels, ours", ["--device", "abacus"], "--device abacus cannot be used"),
        ("text, ours", ["--mbr", "4", "--protect"], "--mbr samples, which forces no terms: leave out --mbr, or"),
        ("text, ours", ["--mbr", "4", "--glossary", "x.tsv"], "--mbr samples, which forces no terms"),
        ("text, ours", ["--file", "in.txt"], "Give either texts or --file"),
    ],
)
def test_a_mistake_is_a_sentence(name, options, message, tmp_path, capsys):
    folder = save(MODELS[name], tmp_path / "model")
    argv = ["predict", str(folder), "the cat", *options]
    assert cli.main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_a_body_without_a_head_is_refused(tmp_path, capsys):
    save(lambda: BertModel(BertConfig(**BERT)), tmp_path / "model")
    assert predict(tmp_path / "model", texts=["a"]) == 2
    assert "is a BertModel, which answers nothing by itself" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["labels, bert", "tags, ours", "masked, ours", "causal, gpt2"])
def test_translate_refuses_other_heads_in_a_sentence(name, tmp_path, capsys):
    folder = save(MODELS[name], tmp_path / "model")
    assert cli.main(["translate", "--model", str(folder), "the cat"]) == 2
    assert f"not a text for a text. Use: fun-transformer predict {folder}\n" in capsys.readouterr().err


def test_a_document_keeps_all_but_its_sentences(translator, tmp_path, capsys):
    document = "# the cat\n\nthe cat sat . a dog\n\n```\nthe cat\n```\n\n| 1 | 2 |\nhttps://a.b/c\n"
    (tmp_path / "in.md").write_text(document)
    argv = ["translate", "--model", translator, "--document", "--file", tmp_path / "in.md", "--device", "cpu"]
    assert cli.main([str(word) for word in [*argv, "--output", tmp_path / "out.md"]]) == 0
    lines = (tmp_path / "out.md").read_text().split("\n")
    assert lines[0].startswith("# ") and lines[4:] == document.split("\n")[4:]
    pipe = pipeline("translation", model=str(translator), device="cpu", guard=True, long_text="sentences")
    assert lines[0] == f"# {pipe('the cat')[0]['translation_text']}"
    assert cli.main([str(word) for word in argv]) == 0
    assert capsys.readouterr().out == (tmp_path / "out.md").read_text()
    assert cli.main([str(word) for word in [*argv, "--resume", "--output", tmp_path / "out.md"]]) == 2
    assert "translates a file as a whole" in capsys.readouterr().err


def test_probabilities_are_those_of_all_labels(tmp_path):
    folder = save(MODELS["labels, bert"], tmp_path / "model")
    assert predict(folder, "--scores", "--nbest", 9, "--output", tmp_path / "out.jsonl", texts=["the cat"]) == 0
    (record,) = records(tmp_path / "out.jsonl")
    assert math.fsum(answer["score"] for answer in record["nbest"]) == pytest.approx(1.0)
