"""What `make release-check` looks at before it builds anything, and what it would refuse."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("release_check", ROOT / ".ci" / "release_check.py")
release_check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(release_check)


def test_every_place_names_the_same_version():
    found = release_check.versions()
    assert len(found) == 6 and release_check.version_problems(found, f"v{found['pyproject.toml']}") == []


@pytest.mark.parametrize(
    ("changed", "tag", "words"),
    [
        ({"CITATION.cff": "0.1.9"}, None, "CITATION.cff says 0.1.9, pyproject.toml"),
        ({"CHANGELOG.md (the newest with a date)": None}, None, "says None"),
        ({}, "v9.9.9", "The tag is v9.9.9"),
    ],
)
def test_versions_that_differ_are_told(changed, tag, words):
    problems = release_check.version_problems(release_check.versions() | changed, tag)
    assert len(problems) == 1 and words in problems[0]


def test_a_version_that_is_not_semantic_is_told():
    assert "1.0 is no semantic version" in release_check.version_problems({"pyproject.toml": "1.0"})[0]


def test_archives_with_weights_or_without_recipes_are_told():
    whole = [f"fun_transformer/{name}" for name in release_check.NEEDED]
    assert release_check.archive_problems(whole, 10**6, "fun_transformer/") == []
    beside = [
        f"x-1/{name}" if name.startswith("hub_") else f"x-1/fun_transformer/{name}" for name in release_check.NEEDED
    ]
    assert release_check.archive_problems(beside, 10**6, "x-1/fun_transformer/") == []
    problems = release_check.archive_problems(
        [*whole[1:], "hub_configs/a/model.safetensors"], 10**8, "fun_transformer/"
    )
    assert problems == [
        "fun_transformer/py.typed is missing.",
        "hub_configs/a/model.safetensors are weights.",
        "It has 100.0 MB; 3 are allowed.",
    ]


def test_what_is_built_is_the_checkout_without_what_tools_left():
    names = ["data", ".git", "site", "tests", "x.egg-info", "__pycache__", ".ruff_cache"]
    found = release_check.left_out(str(ROOT), names)
    assert found == ["data", ".git", "site", "x.egg-info", "__pycache__", ".ruff_cache"]
    assert release_check.left_out(str(ROOT / "fun_transformer" / "training"), ["data", "loop.py"]) == []


def test_a_tag_is_checked_before_it_is_published_without_a_stored_token():
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))["jobs"]
    assert "--tag" in jobs["check"]["steps"][2]["run"] and jobs["publish"]["needs"] == "check"
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in str(jobs) and "password" not in str(jobs)


def test_the_readme_has_what_the_check_runs():
    readme = release_check.read("README.md")
    commands = re.findall("^fun-transformer .*", readme, flags=re.MULTILINE)
    assert len(commands) == 2 and all("runs/demo/model" in command for command in commands)
