"""The wheel, installed as a stranger would: what is in it, what it promises, and that importing it stays light."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import torch

import fun_transformer
from fun_transformer.analysis import AttentionMap

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGE = ROOT / "fun_transformer"
SUBFOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
# Of an extra or heavy, and not imported by transformers itself (as accelerate and scipy are, where installed).
STAY_OUT = {"datasets", "matplotlib", "evaluate", "sacrebleu", "tensorboard", "pandas", "gradio", "sklearn", "gensim"}

LOOK = """
import sys, json, importlib.metadata as metadata
from pathlib import Path
import fun_transformer
from transformers import AutoConfig, pipelines
folder = Path(fun_transformer.__file__).parent
print(json.dumps({
    "folder": str(folder),
    "beside": sorted(path.name for path in folder.parent.iterdir()),
    "data": [name for name in ("py.typed", "visualization/attention_page.html") if (folder / name).exists()],
    "modules": sorted(sys.modules),
    "extras": metadata.metadata("fun-transformer").get_all("Provides-Extra"),
    "version": metadata.version("fun-transformer"),
    "model_type": AutoConfig.for_model("fun_transformer").model_type,
    "task": pipelines.check_task("translation_zh_to_en")[0],
}))
"""


def run(*command, cwd) -> str:
    result = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_without_matplotlib_the_page_works_and_pictures_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delattr(fun_transformer, "visualization", raising=False)
    for name in [name for name in sys.modules if name.startswith("fun_transformer.visualization")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    visualization = import_module("fun_transformer.visualization")
    found = AttentionMap("a b", "c", ["a", "b"], ["c"], torch.full((1, 1, 1, 2), 0.5))
    visualization.write_attention_page(found, tmp_path / "page.html")
    assert '"weights":[[[[500,500]]]]' in (tmp_path / "page.html").read_text(encoding="utf-8")
    with pytest.raises(ImportError, match=r"pip install 'fun-transformer\[viz\]'"):
        _ = visualization.plot_attention
    assert not hasattr(visualization, "no_such_name")


REGISTERED = """
import fun_transformer
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipelines
config = AutoConfig.for_model("fun_transformer")
assert type(config) is fun_transformer.FunTransformerConfig
heads = AutoModelForMaskedLM._model_mapping
assert heads[type(config)] is fun_transformer.FunTransformerForMaskedLM
tiny = {"d_model": 8, "vocab_size": 9, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 1}
config = AutoConfig.for_model("fun_transformer", **tiny, decoder_attention_heads=1, max_position_embeddings=8)
assert type(AutoModel.from_config(config)) is fun_transformer.FunTransformerModel
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name
assert tokenizer_class_from_name("FunTransformerTokenizer") is fun_transformer.FunTransformerTokenizer
task = pipelines.PIPELINE_REGISTRY.check_task("translation_zh_to_en")[1]
assert task["impl"] is fun_transformer.TranslationPipeline
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "import fun_transformer; from transformers import AutoModel",
        "from transformers import AutoModel, AutoTokenizer; import fun_transformer",
        "import fun_transformer, transformers.pipelines",
        "import transformers.pipelines, fun_transformer",
        "from fun_transformer.pipeline_fun_transformer import TranslationPipeline",
        "from fun_transformer import *; import fun_transformer, importlib; importlib.reload(fun_transformer)",
    ],
)
def test_everything_is_registered_whatever_is_imported_first(first):
    run(sys.executable, "-c", f"{first}\n{REGISTERED}", cwd=ROOT)


def test_every_public_name_can_be_imported():
    for name in fun_transformer.__all__:
        assert getattr(fun_transformer, name).__name__ == name


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of a fresh environment with our wheel; all that we depend on is borrowed from the running one."""
    pytest.importorskip("setuptools", minversion="77", reason="the wheel is built without network")
    folder = tmp_path_factory.mktemp("packaging")
    for name in ("fun_transformer", "training", "tests", "examples"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "source", cwd=folder)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder


@pytest.mark.slow
def test_the_wheel_installs_and_works_outside_the_checkout(installed):
    found = json.loads(run(installed / "venv/bin/python", "-I", "-c", LOOK, cwd=installed).splitlines()[-1])
    assert Path(found["folder"]).is_relative_to(installed / "venv")
    assert found["data"] == ["py.typed", "visualization/attention_page.html"]
    assert not {"training", "tests", "examples"} & set(found["beside"])
    assert set(found["extras"]) == set(PROJECT["optional-dependencies"])
    assert found["version"] == PROJECT["version"]
    assert (found["model_type"], found["task"]) == ("fun_transformer", "translation")
    names = {module.split(".")[0] for module in found["modules"]}
    assert not names & STAY_OUT
    assert not {f"fun_transformer.{name}" for name in (*SUBFOLDERS, "cli")} & set(found["modules"])
    assert set(SUBFOLDERS) <= {path.name for path in Path(found["folder"]).iterdir()}


@pytest.mark.slow
def test_the_command_of_the_wheel_runs(installed):
    assert run(installed / "venv/bin/fun-transformer", "--version", cwd=installed).split()[-1] == PROJECT["version"]


def test_the_make_target_tests_the_oldest_versions_that_are_allowed():
    oldest = re.search(r"^oldest = (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    lower = [re.sub(">=([0-9.]+).*", r"==\1", requirement) for requirement in PROJECT["dependencies"]]
    for requirement in oldest.split():
        assert requirement.removesuffix(".0") in lower
    assert {requirement.split("==")[0] for requirement in oldest.split()} == {"torch", "transformers"}
