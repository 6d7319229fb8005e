"""The wheel, installed as a user would: what is in it, what it promises, and that importing it stays light."""

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
from fun_transformer.hub import recipe_names, shipped_recipe

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGE = ROOT / "fun_transformer"
SUBFOLDERS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
# Of an extra or heavy, and not imported by transformers itself (as accelerate and scipy are, where installed).
STAY_OUT = {"datasets", "matplotlib", "evaluate", "sacrebleu", "tensorboard", "pandas", "gradio", "sklearn", "gensim"}

LOOK = """
import importlib, sys, json, importlib.metadata as metadata
from pathlib import Path
import fun_transformer
from transformers import AutoConfig, pipelines
folder = Path(fun_transformer.__file__).parent
print(json.dumps({
    "folder": str(folder),
    "beside": sorted(path.name for path in folder.parent.iterdir()),
    "files": sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()),
    "modules": sorted(sys.modules),
    "extras": metadata.metadata("fun-transformer").get_all("Provides-Extra"),
    "version": metadata.version("fun-transformer"),
    "model_type": AutoConfig.for_model("fun_transformer").model_type,
    "task": pipelines.check_task("translation_zh_to_en")[0],
    "recipe": str(importlib.import_module("fun_transformer.hub").shipped_recipe("g2p-en")),
}))
"""


def run(*command, cwd) -> str:
    result = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_without_matplotlib_the_page_works_and_pictures_say_what_to_install(monkeypatch, tmp_path):
    import_module("fun_transformer.visualization")  # so that it comes back afterwards
    monkeypatch.delattr(fun_transformer, "visualization")
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


FIRST = [
    "import fun_transformer; from transformers import AutoModel",
    "from transformers import AutoModel, AutoTokenizer; import fun_transformer",
    "import fun_transformer, transformers.pipelines",
    "import transformers.pipelines, fun_transformer",
    "from fun_transformer.pipeline_fun_transformer import TranslationPipeline",
    "from fun_transformer import *; import fun_transformer, importlib; importlib.reload(fun_transformer)",
]
# Each in a process of its own; what takes them longest to import, and imports no transformers, they have in common.
FORK = """
import os, sys
import accelerate, scipy.optimize, torch._dynamo, torch.distributed.tensor
assert not {"transformers", "fun_transformer"} & sys.modules.keys()
for code in sys.argv[1:]:
    pid = os.fork()
    if not pid:
        exec(code, {"__name__": "__main__"})
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, code
"""


@pytest.mark.slow
def test_everything_is_registered_whatever_is_imported_first():
    run(sys.executable, "-c", FORK, *(f"{first}\n{REGISTERED}" for first in FIRST), cwd=ROOT)


def test_every_public_name_can_be_imported():
    for name in fun_transformer.__all__:
        assert getattr(fun_transformer, name).__name__ == name


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of a fresh environment with our wheel; all that we depend on is borrowed from the running one."""
    pytest.importorskip("setuptools", minversion="77", reason="the wheel is built without network")
    folder = tmp_path_factory.mktemp("packaging")
    for name in ("fun_transformer", "hub_configs", "training", "tests", "examples"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
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
    for pattern in (
        "fun_transformer/**/*.py",
        "fun_transformer/**/*.html",
        "fun_transformer/**/*.md",
        "hub_configs/*/*",
    ):
        shipped = {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern) if path.suffix != ".safetensors"}
        assert {name.removeprefix("fun_transformer/") for name in shipped} <= set(found["files"])
    assert "py.typed" in found["files"]
    assert not [name for name in found["files"] if name.endswith(".safetensors")]  # recipes, not weights
    assert not {"training", "tests", "examples"} & set(found["beside"])
    assert set(found["extras"]) == set(PROJECT["optional-dependencies"])
    assert found["version"] == PROJECT["version"]
    assert (found["model_type"], found["task"]) == ("fun_transformer", "translation")
    names = {module.split(".")[0] for module in found["modules"]}
    assert not names & STAY_OUT
    at_home = {*SUBFOLDERS, "cli"} - {"engines"}  # engines are registered with the Auto classes
    assert not {f"fun_transformer.{name}" for name in at_home} & set(found["modules"])
    assert set(SUBFOLDERS) <= {path.name for path in Path(found["folder"]).iterdir()}
    recipe = Path(found["recipe"])  # its own, not that of the checkout
    assert recipe.is_relative_to(installed / "venv")
    assert recipe.read_bytes() == (ROOT / "hub_configs" / "g2p-en" / "recipe.yaml").read_bytes()


def test_every_recipe_of_the_checkout_is_found_by_its_name():
    assert recipe_names() == sorted(path.name for path in (ROOT / "hub_configs").iterdir() if path.is_dir())
    assert all(shipped_recipe(name).is_file() for name in recipe_names())
    with pytest.raises(ValueError, match=r"There is no shipped recipe 'g2p_en'. Did you mean 'g2p-en'\?"):
        shipped_recipe("g2p_en")
    with pytest.raises(ValueError, match="Choose one of captions-de-en, "):
        shipped_recipe("???")


def test_links_of_the_readme_and_the_project_work_on_a_package_index():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", text, flags=re.MULTILINE)
    links = [inline or reference for inline, reference in found]
    assert len(links) > 5 and all(link.startswith("https://") for link in links)
    own = PROJECT["urls"]["Homepage"]
    for link in [*links, PROJECT["urls"]["Documentation"]]:
        if match := re.fullmatch(rf"{own}/(?:blob|tree)/main/([^#]+)(?:#.*)?", link):
            assert (ROOT / match[1]).exists(), link


@pytest.mark.slow
def test_the_command_of_the_wheel_runs(installed):
    assert run(installed / "venv/bin/fun-transformer", "--version", cwd=installed).split()[-1] == PROJECT["version"]


def test_the_make_target_tests_the_oldest_versions_that_are_allowed():
    oldest = re.search(r"^oldest = (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    lower = [re.sub(">=([0-9.]+).*", r"==\1", requirement) for requirement in PROJECT["dependencies"]]
    for requirement in oldest.split():
        assert requirement.removesuffix(".0") in lower
    assert {requirement.split("==")[0] for requirement in oldest.split()} == {"torch", "transformers"}
