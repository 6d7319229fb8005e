"""The command: lines in are lines out, mistakes are one line on stderr, and what is finished stays."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import fun_transformer
from fun_transformer import __version__, cli, files
from fun_transformer.commands import models, streams, translate
from fun_transformer.pipeline_fun_transformer import TranslationPipeline
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

LINES = ["the cat sat", "", "今天 吃 什么", "  ", "dog", "the cat sat on the mat"]
CLI_DEFAULTS = {"task": "translation", "long_text": "sentences", "guard": True}


@pytest.fixture
def model_folder(tiny_model, tmp_path):
    """A tiny model with its tokenizer, which generates at most 6 tokens."""
    tokenizer = train_tokenizer(LINES * 5, settings=TokenizerSettings(type="bpe", vocab_size=300))
    model = tiny_model(vocab_size=len(tokenizer), decoder_start_token_id=1)
    model.generation_config.max_new_tokens = 6
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def expected(model_folder):
    """The translation of each of LINES, one by one; blank for a blank one."""
    model, tokenizer, _ = models.load_model(str(model_folder))
    pipe = TranslationPipeline(model, tokenizer, device=-1, **CLI_DEFAULTS)
    texts = [pipe(line)[0]["translation_text"] if line.strip() else "" for line in LINES]
    return [" ".join(text.splitlines()) for text in texts]


def run(*argv, stdin=None, monkeypatch=None):
    if stdin is not None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
    return cli.main([str(argument) for argument in argv])


def test_texts_on_the_command_line_are_translated(model_folder, expected, capsys):
    assert run("translate", "--model", model_folder, "--device", "cpu", LINES[0], LINES[2]) == 0
    assert capsys.readouterr().out == f"{expected[0]}\n{expected[2]}\n"


def test_the_folder_of_a_run_means_its_model(model_folder, expected, capsys):
    assert run("translate", "--model", model_folder.parent, "--device", "cpu", LINES[0]) == 0
    assert capsys.readouterr().out == f"{expected[0]}\n"


def test_texts_may_come_after_options(model_folder, capsys):
    assert run("predict", model_folder, LINES[0], "--scores", "--device", "cpu") == 0
    expected = capsys.readouterr().out
    assert run("predict", model_folder, "--scores", LINES[0], "--device", "cpu") == 0
    assert capsys.readouterr().out == expected
    with pytest.raises(SystemExit):
        run("predict", model_folder, "--no-such-option", LINES[0])
    assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_standard_input_is_translated_line_by_line(model_folder, expected, capsys, monkeypatch, end):
    stdin = "\n".join(LINES).encode() + end
    assert run("translate", "--model", model_folder, "--device", "cpu", stdin=stdin, monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == "\n".join(expected) + "\n"


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_file_gives_a_file_with_the_same_lines(model_folder, expected, tmp_path, monkeypatch, batch_size):
    monkeypatch.setattr(streams, "CHUNK_BATCHES", 2)
    (tmp_path / "in.zh").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(LINES).encode() + b"\r\n")
    (tmp_path / "out.en").write_text("old")
    names = ["--file", tmp_path / "in.zh", "--output", tmp_path / "out.en"]
    assert run("translate", "--model", model_folder, "--device", "cpu", "--batch-size", batch_size, *names) == 0
    assert (tmp_path / "out.en").read_text(encoding="utf-8") == "\n".join(expected) + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zh", "model", "out.en"]


def test_an_empty_file_gives_an_empty_file(model_folder, tmp_path):
    (tmp_path / "in").write_bytes(b"")
    assert run("translate", "--model", model_folder, "--file", tmp_path / "in", "--output", tmp_path / "out") == 0
    assert (tmp_path / "out").read_bytes() == b""


def test_only_newlines_end_lines():
    text = "a\u2028b\x0bc\x85d"
    assert streams.decode_lines([text.encode()], "in") == [text]


def test_a_stream_is_read_as_it_comes():
    class Slow(io.RawIOBase):
        blocks = [b"eins\nzw", b"ei\ndr", "ü".encode()[:1], "ü".encode()[1:] + b"\n", b"vier"]

        def readable(self):
            return True

        def readinto(self, buffer):
            block = self.blocks.pop(0) if self.blocks else b""
            buffer[: len(block)] = block
            return len(block)

    assert list(streams.read_stream(io.BufferedReader(Slow()))) == [["eins"], ["zwei"], ["drü"], ["vier"]]


def test_generation_options_reach_generate(model_folder):
    parser_args = ["translate", "--model", str(model_folder), "--num-beams", "3", "--max-new-tokens", "2"]
    seen = {}

    def command(args):
        seen.update(translate.load_translator(args)._forward_params)

    cli_commands = {"translate": cli.Command("", translate.add_arguments, command)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "COMMANDS", cli_commands)
        assert cli.main(parser_args) == 0
    assert seen == {"num_beams": 3, "max_new_tokens": 2}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["translate", "--model", "./no/model", "a"], "There is no model folder ./no/model."),
        (["translate", "--model", "no/model", "a"], "There is no folder no/model here, and the Hub"),
        (["translate", "--model", "{tmp}/empty", "a"], "holds no config.json"),
        (["translate", "--model", "{model}", "--file", "{tmp}/no.txt"], "no.txt"),
        (
            ["translate", "--model", "{model}", "--file", "{tmp}/latin.txt"],
            "line 2 is not UTF-8 (byte 0xe9 at position 4)",
        ),
        (["translate", "--model", "{model}", "--output", "{tmp}/no/out", "a"], "There is no folder"),
        (["translate", "--model", "{model}", "--file", "x", "a"], "either texts or --file"),
        (["translate", "--model", "{model}", "--output", "{tmp}", "a"], "is a folder"),
        (["translate", "--model", "{model}", "--resume", "a"], "give --file and --output too"),
        (["translate", "--model", "{model}", "--resume", "--file", "-", "--output", "x"], "give --file and --output"),
        (
            ["translate", "--model", "{model}", "--resume", "--file", "{tmp}/one.txt", "--output", "{tmp}/latin.txt"],
            "latin.txt has 2 lines and",
        ),
        (["translate", "--model", "{model}", "--glossary", "{tmp}/no.tsv", "a"], "There is no file"),
        (["translate", "--model", "{model}", "--device", "abacus", "a"], "--device abacus cannot be used"),
        (["attention", "--model", "{model}", "a", "-o", "{tmp}/map.txt"], "must end in a picture format"),
        (["attention", "--model", "{model}", "a", "-o", "{tmp}/no/map.png"], "There is no folder"),
        (["attention", "--model", "{model}", "a", "-o", "{tmp}/map.png", "--layer", "9"], "layers 0 to 2"),
        (["attention", "--model", "{model}", "a", "-o", "{tmp}/map.html", "--head", "4"], "heads 0 to 1"),
        (["attention", "--model", "{model}", "a", "-o", "{tmp}/map.html", "--all"], "--all draws every layer"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(model_folder, tmp_path, capsys, argv, message):
    (tmp_path / "latin.txt").write_bytes(b"one\ncaf\xe9\n")
    (tmp_path / "one.txt").write_text("one")
    (tmp_path / "empty").mkdir(exist_ok=True)
    assert run(*[argument.format(tmp=tmp_path, model=model_folder) for argument in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"fun-transformer {argv[0]}: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "latin.txt", "model", "one.txt"]


def change_config(**fields):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def change_file(name, change):
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def change_weights(change):
    def save(folder):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return save


NORM = "model.encoder.layers.0.self_attn_layer_norm.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_file("model.safetensors", lambda data: data[:-9]), "is damaged: model.safetensors is damaged: it has"),
        (
            change_file("model.safetensors", lambda data: b""),
            "is damaged: model.safetensors is damaged: it has 0 bytes",
        ),
        (change_weights(lambda tensors: tensors.pop(NORM)), f"is damaged: The weights lack {NORM}"),
        (change_weights(lambda tensors: tensors.update({NORM: torch.ones(15)})), "has the shape (15,)"),
        (change_weights(lambda tensors: tensors[NORM].fill_(float("nan"))), f"NaN or infinite: {NORM}"),
        (
            change_config(vocab_size="abc"),
            "is damaged: config.json describes no FunTransformerForConditionalGeneration",
        ),
        (change_config(encoder_attention_heads=5), "is not divisible by encoder_attention_heads=5"),
        (change_config(encoder_layers=10**9), "encoder_layers=1000000000, but"),
        (change_config(pad_token_id="x"), "pad_token_id"),
        (change_config(model_type=5), "model type `5`"),
        (change_config(architectures=["FunTransformerForMaskedLM"]), "is damaged: "),
        (change_file("config.json", lambda data: b"["), "config.json is no JSON"),
        (change_file("config.json", lambda data: b"[" * 100_000), "config.json is no JSON"),
        (change_file("generation_config.json", lambda data: b"[]"), "generation_config.json holds no JSON object"),
        (change_file("generation_config.json", lambda data: b"{"), "generation_config.json"),
        (change_file("tokenizer.json", lambda data: b"{}"), "cannot be loaded"),
        (change_file("tokenizer.json", lambda data: data[:99]), "cannot be loaded"),
        (change_file("tokenizer_config.json", lambda data: b"[]"), "cannot be loaded"),
    ],
)
def test_a_damaged_model_folder_is_one_line_and_status_2(model_folder, capsys, damage, message):
    damage(model_folder)
    capsys.readouterr()
    assert run("translate", "--model", model_folder, "--device", "cpu", "a") == 2
    error = capsys.readouterr().err
    assert error.startswith("fun-transformer translate: error: ") and error.count("\n") == 1 and message in error


def test_odd_custom_pipelines_do_not_hinder_translating(model_folder, expected, capsys):
    change_config(custom_pipelines=["x"], architectures=None)(model_folder)
    assert run("translate", "--model", model_folder, "--device", "cpu", LINES[0]) == 0
    assert capsys.readouterr().out == f"{expected[0]}\n"


@pytest.mark.slow
def test_without_a_network_a_name_is_refused_at_once_or_read_from_the_cache(
    model_folder, expected, strangers, tmp_path
):
    """And not after the five retries of huggingface_hub, which take half a minute for each file."""
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    command = ["-m", "fun_transformer.cli", "translate", "--device", "cpu", "--model", "me/cat", LINES[0]]
    program = strangers.start(*command, **environment)
    assert program.wait() == 2 and "Retry" not in program.error and program.error.count("\n") == 1
    assert "There is no folder me/cat here, and the Hub could not be reached for a model me/cat" in program.error
    cached = tmp_path / "hub" / "models--me--cat"
    shutil.copytree(model_folder, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    program = strangers.start(*command, **environment)
    assert program.wait() == 0 and program.output == f"{expected[0]}\n" and "Retry" not in program.error


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["translat"],
        ["translate"],
        ["translate", "--model", "m", "--batch-size", "0"],
        ["translate", "--model", "m", "\udcff"],
    ],
)
def test_wrong_arguments_give_the_usage_and_status_2(argv, capsys):
    with pytest.raises(SystemExit) as exit:
        run(*argv)
    assert exit.value.code == 2
    assert "usage: fun-transformer" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "module"), [("train", "training.train"), ("evaluate", "evaluation.command")])
def test_commands_of_the_trainer_get_their_own_words(command, module, capsys, monkeypatch):
    words = []
    trainer = SimpleNamespace(main=lambda argv: words.append(argv) or 3)
    monkeypatch.setitem(sys.modules, f"fun_transformer.{module}", trainer)
    assert run(command, "--help", "recipe.yaml", "--training.seed", "1") == 3
    assert words == [["--help", "recipe.yaml", "--training.seed", "1"]] and capsys.readouterr().out == ""


def test_help_of_train_is_the_trainers(capsys):
    with pytest.raises(SystemExit) as exit:
        run("train", "--help")
    assert exit.value.code == 0
    assert "--training.learning_rate" in capsys.readouterr().out


def test_without_the_extra_train_says_what_to_install(capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("fun_transformer.training")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(fun_transformer, "training", raising=False)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert run("train", "recipe.yaml") == 2
    error = capsys.readouterr().err
    assert error == "fun-transformer train: error: accelerate is not installed: pip install 'fun-transformer[train]'\n"


@pytest.mark.parametrize("library", ["accelerate", "datasets", "sacrebleu"])
def test_without_the_extra_the_trainers_import_says_what_to_install(monkeypatch, library):
    for name in [name for name in sys.modules if name.startswith("fun_transformer.training")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(fun_transformer, "training", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        ModuleNotFoundError, match=rf"^{library} is not installed: pip install 'fun-transformer\[train\]"
    ):
        import_module("fun_transformer.training")


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as exit:
        run("--version")
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"fun-transformer {__version__}\n"


# ── what is finished stays ──


def in_upper_case(pipe, lines, batch_size):
    """A translator that fails at the line "stop"."""
    if "stop" in lines:
        raise ValueError("no memory")
    return [line.upper() for line in lines]


@pytest.fixture
def lines_of_one(monkeypatch):
    """`translate` works line by line, without a model's translations."""
    monkeypatch.setattr(streams, "CHUNK_BATCHES", 1)
    monkeypatch.setattr(translate, "translate_lines", in_upper_case)


def translate_file(model_folder, *options):
    folder = model_folder.parent
    names = ["--file", folder / "in", "--output", folder / "out"]
    return run("translate", "--model", model_folder, "--batch-size", 1, *names, *options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_run_leaves_the_lines_that_are_finished(model_folder, tmp_path, monkeypatch, lines_of_one, capsys):
    (tmp_path / "out").write_text("old")
    stdin = b"fine\n" + b"x" * 70_000 + b"\n\xff\n"
    argv = ["translate", "--model", model_folder, "--output", tmp_path / "out"]
    assert run(*argv, stdin=stdin, monkeypatch=monkeypatch) == 2
    assert (tmp_path / "out").read_text() == "FINE\n"
    assert names(tmp_path) == ["model", "out"]
    assert capsys.readouterr().err.endswith(f"with: iconv -f GB18030 -t UTF-8: lines finished in {tmp_path}/out: 1.\n")


def test_a_run_that_finishes_nothing_leaves_the_old_output(model_folder, tmp_path, lines_of_one):
    (tmp_path / "in").write_text("stop\n")
    (tmp_path / "out").write_text("old")
    assert translate_file(model_folder) == 2
    assert (tmp_path / "out").read_text() == "old"


def test_resume_goes_on_after_the_last_whole_line(model_folder, tmp_path, lines_of_one, capsys):
    (tmp_path / "in").write_text("a\nb\nstop\nc\n")
    assert translate_file(model_folder) == 2
    assert (tmp_path / "out").read_text() == "A\nB\n"
    message = f"no memory: lines finished in {tmp_path}/out: 2; the same command with --resume goes on after them."
    assert capsys.readouterr().err == f"fun-transformer translate: error: {message}\n"
    (tmp_path / "in").write_text("a\nb\ns\nc\n")
    (tmp_path / "out").write_text("one\nB\nhal")
    assert translate_file(model_folder, "--resume") == 0
    assert translate_file(model_folder, "--resume") == 0  # nothing is left to do
    assert (tmp_path / "out").read_text() == "one\nB\nS\nC\n"
    assert translate_file(model_folder) == 0
    assert (tmp_path / "out").read_text() == "A\nB\nS\nC\n"


def test_resume_begins_where_there_is_no_output(model_folder, tmp_path, lines_of_one):
    (tmp_path / "in").write_text("a\n")
    assert translate_file(model_folder, "--resume") == 0
    assert (tmp_path / "out").read_text() == "A\n"


def test_ctrl_c_says_how_to_go_on(model_folder, tmp_path, lines_of_one, monkeypatch, capsys):
    def interrupted(pipe, lines, batch_size):
        if lines == ["b"]:
            raise KeyboardInterrupt
        return lines

    monkeypatch.setattr(translate, "translate_lines", interrupted)
    (tmp_path / "in").write_text("a\nb\n")
    assert translate_file(model_folder) == 130
    assert (tmp_path / "out").read_text() == "a\n"
    assert f"lines finished in {tmp_path}/out: 1; the" in (error := capsys.readouterr().err) and "--resume" in error


@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_the_input_is_never_the_output(model_folder, tmp_path, monkeypatch, capsys, link):
    (tmp_path / "in").write_text("a\nb\n")
    output = tmp_path / ("out" if link else "in")
    if link:
        getattr(output, link)(tmp_path / "in")
    assert run("translate", "--model", model_folder, "--file", tmp_path / "in", "--output", output) == 2
    assert "is the file that is read" in capsys.readouterr().err
    with open(tmp_path / "in") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert run("translate", "--model", model_folder, "--output", output) == 2
    assert "is the file that is read" in capsys.readouterr().err
    assert (tmp_path / "in").read_text() == "a\nb\n"


def test_a_dash_is_a_standard_stream(model_folder, expected, capsys, monkeypatch):
    argv = ["translate", "--model", model_folder, "--device", "cpu", "--file", "-", "--output", "-"]
    assert run(*argv, stdin="\n".join(LINES).encode(), monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == "\n".join(expected) + "\n"


# ── what the vocabulary and the model do not know ──


@pytest.fixture
def letters(tiny_model, tmp_path):
    """The folder of a model from letters to phonemes."""
    settings = TokenizerSettings(type="char", target_type="word", lowercase="source")
    tokenizer = train_tokenizer(["cafe", "dog"], ["K AE F EY", "D AO G"], settings)
    model = tiny_model(vocab_size=len(tokenizer), decoder_start_token_id=1)
    for saved in (model, tokenizer):
        saved.save_pretrained(tmp_path / "letters")
    return tmp_path / "letters"


def test_unknown_characters_are_counted_and_said(letters, capsys, monkeypatch):
    argv = ["translate", "--model", letters, "--max-new-tokens", "2"]
    assert run(*argv, "café", "cafe", "Éé dog猫é") == 0
    said = "5 characters in 2 lines are not in the vocabulary: é, É, 猫"
    assert capsys.readouterr().err == f"fun-transformer translate: {said}\n"
    assert run(*argv, "cafe") == 0
    assert capsys.readouterr().err == ""
    assert run(*argv, stdin="café\n".encode(), monkeypatch=monkeypatch) == 0
    assert "1 characters in 1 lines" in capsys.readouterr().err
    assert run(*argv, "".join(map(chr, range(0x4E00, 0x4E10)))) == 0
    assert capsys.readouterr().err.endswith("一, 丁, 丂, 七, 丄, 丅, 丆, 万, 丈, 三 and 6 others\n")


def test_attention_says_what_is_unknown_on_either_side(letters, tmp_path, capsys):
    argv = ["attention", "--model", letters, "café", "--target", "K XX", "-o", tmp_path / "page.html"]
    assert run(*argv) == 0
    said = "2 characters or words in 2 lines are not in the vocabulary: é, XX"
    assert capsys.readouterr().err == f"fun-transformer attention: {said}\n"


@pytest.mark.parametrize("options", [["--tgt-lang", "en"], ["--src-lang", "zh", "--tgt-lang", "en"]])
def test_a_language_is_refused_by_a_model_that_knows_none(model_folder, options, capsys):
    assert run("translate", "--model", model_folder, "cat", *options) == 2
    error = capsys.readouterr().err
    assert f"leave out {' and '.join(options[::2])}." in error and error.count("\n") == 1


def test_a_model_of_several_languages_takes_one(tiny_model, tmp_path, capsys):
    tokenizer = train_tokenizer(LINES, settings=TokenizerSettings(vocab_size=300))
    tokenizer.add_languages(["en", "zh"])
    for saved in (tiny_model(vocab_size=len(tokenizer), decoder_start_token_id=1), tokenizer):
        saved.save_pretrained(tmp_path)
    argv = ["translate", "--model", tmp_path, "cat", "--max-new-tokens", "2"]
    assert run(*argv, "--src-lang", "zh", "--tgt-lang", "en") == 0
    assert run(*argv, "--tgt-lang", "de") == 2
    assert "none of en, zh" in capsys.readouterr().err


def test_devices_are_written_to_not_replaced():
    with streams.open_output(os.devnull) as write:
        write(["gone"])
    assert not os.path.isfile(os.devnull)


def test_attention_draws_a_picture_and_prints_the_target(model_folder, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    argv = ["attention", "--model", model_folder, "the cat", "-o", tmp_path / "map.png", "--layer", "0", "--head", "1"]
    assert run(*argv, "--target", "dog") == 0
    assert capsys.readouterr().out == "dog\n"
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_attention_writes_a_page_without_matplotlib(model_folder, tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("fun_transformer.visualization")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(fun_transformer, "visualization", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    argv = ["attention", "--model", model_folder, "the cat", "--target", "dog", "-o"]
    assert run(*argv, tmp_path / "page.html") == 0
    assert capsys.readouterr().out == "dog\n" and (tmp_path / "page.html").exists()
    assert run(*argv, tmp_path / "map.png") == 2
    assert "pip install 'fun-transformer[viz]'" in capsys.readouterr().err


def test_attention_writes_a_page_or_small_multiples(model_folder, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    argv = ["attention", "--model", model_folder, "the cat", "--target", "dog", "--kind", "encoder"]
    assert run(*argv, "-o", tmp_path / "page.html") == 0
    assert '"kind":"encoder"' in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert run(*argv, "-o", tmp_path / "heads.png", "--all") == 0
    assert (tmp_path / "heads.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_command_runs_as_a_process_and_is_quiet_about_a_broken_pipe(model_folder, expected):
    # The first line is answered before the second is sent; then the output is closed.
    argv = ["translate", "--model", str(model_folder), "--device", "cpu"]
    command = [sys.executable, "-m", "fun_transformer.cli", *argv]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(f"{LINES[0]}\n".encode())
    process.stdin.flush()
    assert process.stdout.readline().decode() == f"{expected[0]}\n"
    process.stdout.close()
    process.stdin.write(b"dog\n")
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


@pytest.mark.slow
def test_a_killed_run_leaves_its_lines_and_no_other_file(children, model_folder, tmp_path):
    (tmp_path / "in").write_text("the cat sat\n" * 40)
    paths = ["--file", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    code = "import sys; from fun_transformer import cli; from fun_transformer.commands import streams; "
    code += "streams.CHUNK_BATCHES = 1; sys.exit(cli.main(sys.argv[1:]))"
    argv = ["translate", "--model", str(model_folder), "--device", "cpu", "--batch-size", "1", *paths]
    program = children.start("-c", code, *argv)
    while not files.count_lines(tmp_path / "out") and program.wait(poll=True) is None:
        time.sleep(0.01)
    os.kill(program.pid, signal.SIGTERM)
    assert program.wait() == -signal.SIGTERM
    finished = (tmp_path / "out").read_bytes()
    assert finished.endswith(b"\n") and 0 < finished.count(b"\n") < 40
    assert names(tmp_path) == ["in", "model", "out"]
    children.python("-c", code, *argv, "--resume")
    assert (tmp_path / "out").read_bytes() == finished.splitlines(keepends=True)[0] * 40
