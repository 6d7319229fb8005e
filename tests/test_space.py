"""The app of demo/: what it answers and refuses, its front matter; and, where gradio is installed, the app itself."""

import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "demo"
HEADER = yaml.safe_load((DEMO / "README.md").read_text(encoding="utf-8").split("---\n")[1])


@pytest.fixture
def answers(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(DEMO)
    return importlib.import_module("answers")


@pytest.mark.slow
def test_a_translation_comes_with_others_and_with_its_attention(answers):
    best, rows, page = answers.translate("中文 → English", " 中国的首都是北京。 ", 4, 3)
    assert "Beijing" in best and best == rows[0][1]
    assert [row[0] for row in rows] == [1, 2, 3] and len({row[1] for row in rows}) == 3
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), reverse=True)
    assert all(row[3] < 0 for row in rows)
    assert page.startswith("<iframe srcdoc=") and "&quot;weights&quot;" in page and page.count("<") == 2


@pytest.mark.slow
def test_both_generations_pronounce_a_word_and_show_where_they_look(answers):
    rnn, rnn_figure, transformer, figure = answers.pronounce("Kitten")
    assert rnn == transformer == "K IH T AH N"
    for drawn, words in ((rnn_figure, "layer 0, its only head"), (figure, "mean of 4 heads")):
        assert any(words in label for axes in drawn.axes for label in (axes.get_xlabel(), axes.get_ylabel()))


@pytest.mark.slow
def test_what_cannot_be_answered_is_said_in_both_languages(answers):
    for text, beams, count, words in (("  ", 4, 1, "请先输入"), ("长" * 500, 4, 1, "太长"), ("好", 2, 3, "3 beams")):
        with pytest.raises(ValueError, match=words):
            answers.translate("中文 → English", text, beams, count)
    with pytest.raises(ValueError, match="太长"):
        answers.pronounce("a" * 50)


def test_a_model_that_the_checkout_lacks_is_one_of_the_hub(answers, monkeypatch):
    assert answers.find_model("zh-en-small") == str(ROOT / "hub_configs" / "zh-en-small")
    monkeypatch.setattr(answers, "CHECKOUT", Path("/nowhere"))
    assert answers.find_model("zh-en-small") == f"{answers.OWNER}/zh-en-small"


def test_the_front_matter_names_the_app_its_versions_and_its_models():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = project["optional-dependencies"]["space"][0].removeprefix(
        "gradio>="
    )  # not with pillow of constraints.txt
    assert HEADER["sdk"] == "gradio" and HEADER["sdk_version"].startswith(oldest)
    assert (DEMO / HEADER["app_file"]).exists() and len(HEADER["short_description"]) <= 60
    names = set(re.findall(r'"([a-z0-9]+-[a-z0-9-]+)"', (DEMO / "answers.py").read_text(encoding="utf-8")))
    names &= {path.name for path in (ROOT / "hub_configs").iterdir()}
    assert {model.split("/")[1] for model in HEADER["models"]} == names and len(names) == 4
    (requirement,) = re.findall(
        r"^fun-transformer\[(.+)\] @ git\+(\S+)@v", (DEMO / "requirements.txt").read_text(), re.M
    )
    assert requirement[0] in project["optional-dependencies"] and requirement[1] == project["urls"]["Homepage"]


CLIENT = """
import json, sys
sys.path.insert(0, "demo")
import app
from gradio_client import Client
running = app.build()
_, address, _ = running.launch(prevent_thread_lock=True, quiet=True, share=False)
client = Client(address, verbose=False)
best, table, page = client.predict("English → 中文", "Tom lives in Boston.", 4, 2, api_name="/translate")
try:
    client.predict("English → 中文", " ", 4, 2, api_name="/translate")
except Exception as error:
    refused = str(error)
labels = [part["props"].get("label") for part in running.config["components"]]
print(json.dumps({"best": best, "rows": table["data"], "page": page, "refused": refused, "labels": labels}))
running.close()
"""


@pytest.mark.slow
def test_the_app_answers_a_client():
    pytest.importorskip("gradio")
    run = subprocess.run([sys.executable, "-c", CLIENT], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    found = json.loads(next(line for line in run.stdout.splitlines() if line.startswith("{")))
    assert found["best"] == found["rows"][0][1] == "汤姆住在波士顿。" and len(found["rows"]) == 2
    assert "<iframe" in found["page"] and "请先输入" in found["refused"]
    labels = [label for label in found["labels"] if label]
    assert all(re.search("[\u4e00-\u9fff]", label) or label == "Transformer" for label in labels), labels
