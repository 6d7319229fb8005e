"""The site of docs/: every page is in its navigation, its commands and settings exist, links lead somewhere."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from page_checks import KNOWN, ROOT, UnknownCommand, blocks, check_command, check_ours, check_recipe, commands, tables

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PAGES = [path for path in PAGES if not {"live", "serving"} & set(path.relative_to(DOCS).parts)]
OTHER_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "skills/fun-transformer/SKILL.md")]
EVERY_PAGE = [*PAGES, *(path for path in OTHER_PAGES if path.exists())]
sys.path.insert(0, str(DOCS))
hooks = importlib.import_module("hooks")


class MkdocsLoader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tags name Python functions, without running them."""


MkdocsLoader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)
SITE = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), MkdocsLoader)


def named(nav) -> list[str]:
    """The pages that a navigation names."""
    if isinstance(nav, str):
        return [nav]
    return [page for part in nav for page in named(part if isinstance(part, str) else next(iter(part.values())))]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# ── navigation and languages ──


def test_the_navigation_names_each_page_once():
    pages = [*(path.relative_to(DOCS).as_posix() for path in PAGES), hooks.CHANGELOG]
    assert sorted(named(SITE["nav"])) == sorted(pages)


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.zh.md")), ids=lambda path: path.name)
def test_a_chinese_page_says_what_its_english_one_says(path):
    """The same blocks of code, but for comments, and as many sections; each page names the other one."""
    english = path.with_name(path.name.replace(".zh", ""))
    if path.name == "guide.zh.md":  # a way through the English pages
        assert not english.exists()
        return
    texts = [page.read_text(encoding="utf-8") for page in (path, english)]
    code = [re.sub(r"  # .*", "", "".join(blocks(text, "bash") + blocks(text, "python"))) for text in texts]
    assert code[0] == code[1]
    if not path.name.startswith("index"):
        assert len({len(re.findall("^#+ ", text, flags=re.MULTILINE)) for text in texts}) == 1
    assert f"]({english.name})" in texts[0] and f"]({path.name})" in texts[1]


# ── links ──


def test_links_out_of_the_docs_lead_to_github_and_those_to_pages_stay():
    pages = {"training.md", "api/models.md", "images/masks.png", hooks.CHANGELOG}
    text = "[a](training.md#speed) [b](../hub_configs) [c](../README.md#use-a-model)\n```\n[d](../README.md)\n```\n"
    text += "`[e](../README.md)` [f](../CHANGELOG.md) [g](https://example.org/x) [h](live/build.py) [i](gone.md)\n"
    found = hooks.text_for_site(text, DOCS / "page.md", pages)
    github = hooks.GITHUB
    assert found == (
        f"[a](training.md#speed) [b]({github}/tree/main/hub_configs) [c]({github}/blob/main/README.md#use-a-model)\n"
        "```\n[d](../README.md)\n```\n`[e](../README.md)` [f](changelog.md) [g](https://example.org/x) "
        f"[h]({github}/blob/main/docs/live/build.py) [i](gone.md)\n"
    )
    assert hooks.text_for_site("[a](../training.md)", DOCS / "api" / "models.md", pages) == "[a](../training.md)"
    changes = hooks.text_for_site("[a](docs/training.md)\n\n[b]: docs/gone.md", ROOT / "CHANGELOG.md", pages)
    assert changes == "[a](training.md)\n\n[b]: docs/gone.md"


def test_broken_links_anchors_and_files_of_other_servers_are_found(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "index.html").write_text('<h1 id="here">', encoding="utf-8")
    good = '<a href="sub/#here">x</a><a href="https://example.org">x</a><link rel="canonical" href="https://a.b/">'
    (tmp_path / "good.html").write_text(good, encoding="utf-8")
    assert hooks.find_problems(tmp_path) == []
    bad = (
        '<a href="gone.html">x</a><a href="sub/#there">x</a><a href="#none">x</a><script src="//cdn.x/y.js"></script>'
    )
    (tmp_path / "bad.html").write_text(bad, encoding="utf-8")
    assert hooks.find_problems(tmp_path) == [
        "bad.html links to #none: bad.html has no such anchor.",
        "bad.html links to gone.html, which is not there.",
        "bad.html links to sub/#there: index.html has no such anchor.",
        "bad.html loads //cdn.x/y.js from another server.",
    ]


# ── commands, settings, code ──


@pytest.mark.parametrize("path", EVERY_PAGE, ids=relative)
def test_each_command_of_a_page_can_be_typed(path):
    for line in commands(path.read_text(encoding="utf-8")):
        check_command(line)


@pytest.mark.parametrize(
    "line",
    [
        "fun-transformer trian",
        "fun-transformer train --training.max_step 3",
        "fun-transformer train no-such-recipe",
        "fun-transformer translate --modle x",
        "fun-transformer evaluate x y --num-beam 3",
        "make no-such-target",
        "pip install 'fun-transformer[no-such-extra]'",
        "python -m benchmarks.no_such_benchmark",
        "accelerate launch --config_file training/configs/gone.yaml -m training.train",
        "unheard-of",
    ],
)
def test_a_command_that_no_user_could_run_is_noticed(line):
    with pytest.raises(UnknownCommand):
        check_command(line)


@pytest.mark.parametrize("path", EVERY_PAGE, ids=relative)
def test_each_block_of_code_of_a_page_can_be_read(path):
    text = path.read_text(encoding="utf-8")
    for block in blocks(text, "python"):
        ast.parse(block)
    for block in blocks(text, "yaml"):
        check_recipe(block)


RUN = [path for path in PAGES if path.name.startswith(("index", "quickstart", "migration", "hub-library"))]


@pytest.mark.slow
@pytest.mark.parametrize("path", RUN, ids=relative)
def test_the_python_of_a_page_runs(path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    code = "\n".join(blocks(path.read_text(encoding="utf-8"), "python"))
    exec(compile(code, str(path), "exec"), {})
    if "quickstart" in path.name:
        assert "AH T EH N SH AH N" in capsys.readouterr().out


def test_the_new_pages_with_python_are_all_run():
    new = ("index", "quickstart", "installation", "guide", "faq", "migration", "benchmarks", "hub-library")
    pages = [path for path in PAGES if path.name.startswith(new)]
    assert {path for path in pages if blocks(path.read_text(encoding="utf-8"), "python")} == set(RUN)


# ── migration.md ──

MIGRATION = tables((DOCS / "migration.md").read_text(encoding="utf-8"))


def test_the_tables_of_other_tools_are_whole():
    assert [table[0][0] for table in MIGRATION] == [
        "transformers 4",
        "fairseq",
        "OpenNMT-py",
        "JoeyNMT",
        "Marian",
        "Seq2SeqTrainingArguments",
    ]
    assert all(len(row) == 3 for table in MIGRATION for row in table)
    assert min(map(len, MIGRATION)) > 5 and sum(map(len, MIGRATION)) > 100


def check_our_name(name: str) -> None:
    """Raise an error where a name of ours in a table is no setting, no command and no name in Python."""
    if name in KNOWN:
        return
    if re.match(r"[a-z-]+ ", name):
        check_ours(name.split())
    elif name.startswith(("pipeline(", "pipe(")):
        ast.parse(name)
    else:
        module, _, attribute = name.rpartition(".")
        getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("table", MIGRATION, ids=lambda table: table[0][0])
def test_each_name_of_ours_in_the_tables_exists(table):
    for _, here, _ in table[1:]:
        names = re.findall("`([^`]+)`", here)
        assert names or here == "-" or here.startswith("the same"), here
        for name in names:
            check_our_name(name)


@pytest.mark.parametrize("name", ["training.lr", "fun_transformer.training.tain", "predict MODEL --n-best 3"])
def test_a_name_that_does_not_exist_is_noticed(name):
    with pytest.raises((UnknownCommand, AttributeError, ImportError)):
        check_our_name(name)


# ── the entry for the Hub's list of libraries, and the skill ──


def test_the_snippet_for_the_hub_is_what_the_page_shows():
    """Without running TypeScript: the template's first text, filled in by hand, is the block of Python."""
    text = (DOCS / "hub-library.md").read_text(encoding="utf-8")
    entry, template = blocks(text, "typescript")
    assert all(
        f"{field}: " in entry for field in ("prettyLabel", "repoName", "repoUrl", "docsUrl", "snippets", "filter")
    )
    assert template.startswith(f"export const {re.search('snippets[.]([a-z_]+)', entry)[1]} = (model: ModelData)")
    first = re.search(r"`# \$\{install\}\n(.*?)`,\n", template, flags=re.DOTALL)[1]
    values = {
        "${task}": "translation",
        "${model.id}": "hub_configs/zh-en-small",
        '${tasks[task] ?? `"text"`}': '"text"',
    }
    for name, value in values.items():
        first = first.replace(name, value)
    assert blocks(text, "python") == [first + "\n"]


SKILL = ROOT / "skills" / "fun-transformer" / "SKILL.md"


def test_the_skill_has_the_form_of_agent_skills():
    _, header, body = SKILL.read_text(encoding="utf-8").split("---\n", 2)
    fields = yaml.safe_load(header)
    assert fields["name"] == SKILL.parent.name and re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", fields["name"])
    assert 50 < len(fields["description"]) <= 1024 and "Use when" in fields["description"]
    assert len(fields["compatibility"]) <= 500 and fields["license"] == "Apache-2.0"
    assert set(fields) <= {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}
    assert len(body.splitlines()) < 500
    used = {command.split()[1] for command in commands(body) if command.startswith("fun-transformer ")}
    assert {"train", "translate", "predict", "evaluate", "export", "check-repo", "push"} <= used


# ── API reference and benchmarks ──


def test_every_name_of_the_api_reference_can_be_imported():
    for path in sorted((DOCS / "api").glob("*.md")):
        for name in re.findall("^::: (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            module, _, attribute = name.rpartition(".")
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:
                getattr(importlib.import_module(module), attribute)


def test_the_page_of_settings_has_each_with_its_default():
    rows = {row[0]: row for table in tables(hooks.settings_tables()) for row in table[1:]}
    others = {f"`{name}`" for name in KNOWN if not name.startswith("model.")} - rows.keys()
    assert others == set() and not any(name.startswith("`model.") for name in rows)
    assert rows["`training.max_grad_norm`"][1:3] == ["number or null", "`1.0`"]
    assert rows["`tokenizer.lowercase`"][1:3] == ["`none`, `source`, `both`", "`none`"]
    assert rows["`resume`"][1] == "text or true or false" and rows["`training.report_to`"][1] == "list"
    assert rows["`tokenizer.target_type`"][1] == "`bpe`, `unigram`, `char`, `word` or null"
    assert rows["`training.seed`"][2] == "`42`" and rows["`data.bad_rows`"][2] == "`refuse`"
    assert rows["`training.max_steps`"][2] == "`auto`: null"
    assert "bf16 where" in rows["`training.precision`"][2]


def test_every_public_name_of_the_package_is_in_the_reference():
    import fun_transformer

    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted((DOCS / "api").glob("*.md")))
    entries = {name.rpartition(".")[2] for name in re.findall("^::: (.+)$", text, flags=re.MULTILINE)}
    assert sorted(set(fun_transformer.__all__) - entries) == []


def test_every_program_of_the_benchmarks_page_exists():
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    programs = re.findall(r"`python -m ([\w.]+)`", text)
    assert len(programs) == len(set(programs)) >= 15
    for name in programs:
        check_command(f"python -m {name}")


# ── the built site ──


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    for package in ("mkdocs", "material", "mkdocstrings", "jieba"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert '<html lang="zh"' in (tmp_path / "site" / "quickstart.zh.html").read_text(encoding="utf-8")
    assert '<html lang="en"' in (tmp_path / "site" / "quickstart.html").read_text(encoding="utf-8")
    assert "TrainingArguments" in (tmp_path / "site" / "api" / "training.html").read_text(encoding="utf-8")
