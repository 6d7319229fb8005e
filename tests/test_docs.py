"""What the docs name exists: every symbol can be imported from the file beside it, every link and picture is there."""

import importlib
import inspect
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from fun_transformer import FunTransformerConfig, FunTransformerForConditionalGeneration, FunTransformerTokenizer
from fun_transformer.analysis import cross_attention
from fun_transformer.cli import main as command_line
from fun_transformer.training.recipe.names import known_arguments

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HEADER = ["中文", "concept", "formula", "symbol", "file", "picture"]


def table_rows(text):
    """The rows of all tables with the header of docs/concepts.md, as lists of cells."""
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in text.splitlines() if "|" in line]
    return [row for row in rows if row != HEADER and not set(row) <= {"---"}]


def resolve(symbol):
    """The object behind a dotted name, and the file of the class or function that it is or belongs to."""
    parts = symbol.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if importlib.util.find_spec(parts[0]) and (ROOT / Path(*parts[:length])).with_suffix(".py").is_file():
            break
        if (ROOT / Path(*parts[:length]) / "__init__.py").is_file():
            break
    value = owner = importlib.import_module(name)
    for part in parts[length:]:
        value = getattr(value, part)
        if inspect.isclass(value) or (inspect.isfunction(value) and not inspect.isclass(owner)):
            owner = value
    return value, Path(inspect.getsourcefile(inspect.unwrap(owner)))


CONCEPTS = (DOCS / "concepts.md").read_text(encoding="utf-8")


def test_every_row_of_the_concepts_is_whole():
    rows = table_rows(CONCEPTS)
    assert len(rows) >= 40
    for row in rows:
        assert len(row) == len(HEADER), row
        assert all(row[:5]), row


@pytest.mark.parametrize("row", table_rows(CONCEPTS), ids=lambda row: row[1])
def test_the_symbol_of_a_concept_stands_in_its_file(row):
    symbol, link = re.search("`([^`]+)`", row[3])[1], re.search(r"\]\(([^)]+)\)", row[4])[1]
    if symbol.startswith("fun_transformer.visualization"):
        pytest.importorskip("matplotlib")
    if symbol.startswith("fun_transformer.embeddings"):
        pytest.importorskip("gensim")
    _, file = resolve(symbol)
    assert file == (DOCS / link).resolve()


@pytest.mark.parametrize("symbol", ["fun_transformer.attention.NoScore", "fun_transformer.Seq2SeqRNNConfig.no_field"])
def test_a_symbol_that_is_not_there_is_noticed(symbol):
    with pytest.raises(AttributeError):
        resolve(symbol)


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_links_and_pictures_are_there(path):
    text = re.sub("```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
    missing = [link for link in links if link and not (path.parent / link).exists()]
    assert missing == []


# What the notes of the course explain, in their order.
NOTES = (
    "序列到序列 固定长度的上下文向量 填充掩码 因果掩码 编码器-解码器 长短期记忆网络 门控循环单元 "
    "曝光偏差 加性注意力 点积注意力 ReLU 软注意力 硬注意力 全局注意力 局部注意力 多头注意力 编码器 解码器 位置编码 "
    "独热编码 Word2Vec GloVe 复杂度 BERT GPT 序列标注 线性注意力"
)


@pytest.mark.parametrize("concept", NOTES.split())
def test_every_concept_of_the_notes_has_a_row(concept):
    assert any(concept in row[0] for row in table_rows(CONCEPTS))


def test_the_python_of_the_course_runs():
    code = "\n".join(
        re.findall("```python\n(.*?)```", (DOCS / "course.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    )
    names = {}
    exec(compile(code, "docs/course.md", "exec"), names)
    assert names["written"].shape[0] == 1 and "tagger" in names


# ── the course ──

COURSE = (DOCS / "course.md").read_text(encoding="utf-8")


def test_chapters_of_the_course_are_numbered_and_named_in_both_languages():
    titles = re.findall("^## (.*)$", COURSE, flags=re.MULTILINE)
    assert [int(title.partition(".")[0]) for title in titles] == list(range(1, len(titles) + 1))
    assert all(re.search("[\u4e00-\u9fff].* · .*[A-Z]", title) for title in titles)


def test_examples_that_the_course_names_exist():
    names = set(re.findall(r"python -m examples\.([a-z]\w+)", COURSE))
    assert {"masks", "bpe", "beam_search", "label_smoothing"} <= names
    assert [name for name in sorted(names) if not (ROOT / "examples" / f"{name}.py").is_file()] == []


def test_settings_of_recipes_that_the_course_names_exist():
    prose = re.sub("```.*?```", "", COURSE, flags=re.DOTALL)
    named = set(re.findall(r"`(?:--)?((?:data|model|training|generation)\.\w+)", prose))
    assert {"training.bpe_dropout", "model.label_smoothing"} <= named
    assert named - set(known_arguments()) - {f"model.{name}" for name in FunTransformerConfig().to_dict()} == set()


@pytest.mark.slow
@pytest.mark.parametrize("line", re.findall("^fun-transformer .*$", COURSE.replace("\\\n", " "), flags=re.MULTILINE))
def test_the_commands_of_the_course_run_in_a_checkout(line, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    command, *words = shlex.split(line)
    output = tmp_path / words[words.index("-o") + 1]
    monkeypatch.chdir(ROOT)
    assert command == "fun-transformer" and command_line([*words, "-o", str(output)]) in (None, 0)
    assert capsys.readouterr().out.strip() and output.stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("word", ["tired", "wide"])
def test_what_the_course_says_of_it_is_so(word):
    """In both sentences "it" looks at the nearest noun, and hardly at the animal."""
    folder = ROOT / "hub_configs" / "en-zh-small"
    model = FunTransformerForConditionalGeneration.from_pretrained(folder)
    text = f"The animal didn't cross the street because it was too {word}"
    found = cross_attention(model, FunTransformerTokenizer.from_pretrained(folder), text, "它")
    weights = found.encoder_weights[:, :, found.source_tokens.index("it")]  # (layers, heads, source_len)
    street = weights[..., found.source_tokens.index("street")]
    animal = weights[..., [found.source_tokens.index(part) for part in ("anim", "al")]].sum(-1)
    assert weights.shape[:2] == (5, 4)
    assert (round(street.mean().item(), 2), round(animal.mean().item(), 2)) == (0.18, 0.09)
    assert street[1:3, 1].min() > 0.4


def test_each_box_of_figure_1_is_in_the_course_and_links_to_its_code():
    """The picture and the table below it name what is there, in the file where it is."""
    picture = (DOCS / "images" / "figure-1.svg").read_text(encoding="utf-8")
    boxes = set(re.findall(r'<a href="[^"]*/(fun_transformer/\w+\.py)"><title>([\w.]+)</title>', picture))
    rows = set(re.findall(r"\| `([\w.]+)` \| \[\w+\.py\]\(\.\./(fun_transformer/\w+\.py)\) \|", COURSE))
    assert {(symbol, file) for file, symbol in boxes} == rows and len(rows) >= 8
    for symbol, file in rows:
        assert resolve(f"fun_transformer.{symbol}")[1] == ROOT / file


def test_pictures_of_the_docs_are_small():
    assert [path.name for path in (DOCS / "images").iterdir() if path.stat().st_size > 200_000] == []


# ── the tree of docs/architecture.md ──

ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
WHOLE_FOLDERS = ["fun_transformer", "training", "examples", "course", "benchmarks"]  # all in the tree


def tree_paths(text):
    """The files and folders of the tree, whose lines are indented by two spaces a level, with their notes."""
    paths, folders = {}, []
    for line in re.search(r"## The tree\n+```\n(.*?)```", text, re.DOTALL)[1].splitlines():
        level = (len(line) - len(line.lstrip())) // 2
        name, _, note = line.strip().partition(" ")
        folders = [*folders[:level], name.rstrip("/")]
        paths[Path(*folders)] = note.strip()
    return paths


def files_of(folder):
    """The files that people write, in a folder and those below it."""
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {path.relative_to(ROOT) for path in found}


def test_the_tree_names_exactly_the_files_that_exist():
    paths = tree_paths(ARCHITECTURE)
    assert [str(path) for path in paths if not (ROOT / path).exists()] == []
    summarised = {
        path for path in paths if (ROOT / path).is_dir() and not any(path in other.parents for other in paths)
    }
    existing = {path for folder in WHOLE_FOLDERS for path in files_of(folder)}
    assert sorted(path for path in existing - set(paths) if not summarised & set(path.parents)) == []


def test_each_file_of_the_tree_has_a_note():
    assert [str(path) for path, note in tree_paths(ARCHITECTURE).items() if not note and path.suffix] == []


# ── pages beside the README ──

PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "training/README.md")]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_of_the_pages_for_contributors_are_there(path):
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))]
    assert [link for link in links if link and "//" not in link and not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_forms_and_workflows_are_yaml(path):
    assert yaml.safe_load(path.read_text(encoding="utf-8"))


def test_each_form_asks_something_and_names_its_labels():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem != "config":
            assert form["name"] and form["description"] and form["labels"]
            fields = [part["attributes"]["label"] for part in form["body"]]
            assert len(set(fields)) == len(fields) > 0


def test_the_workflow_tests_by_make_alone_on_the_versions_that_the_package_allows():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make check", "make test"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == f">={job['strategy']['matrix']['python'][0]}"


def test_the_citation_names_the_version_and_the_license_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert citation["cff-version"] == "1.2.0" and citation["authors"] and citation["message"] and citation["title"]


def test_the_changelog_begins_with_what_is_not_released():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings[0] == "Unreleased"


def test_the_commands_without_make_are_those_of_make():
    """CONTRIBUTING.md gives the commands of `make check`, `make test` and the set-up for systems without make."""
    page, makefile = ((ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "Makefile"))
    tests = 'pytest -n auto --dist worksteal -m "not gpu and not library"'
    for command in ("ruff check .", "ruff format --check .", "mypy", tests):
        assert f"$(PY) -m {command}\n" in makefile and f".venv/bin/python -m {command}\n" in page
    extras = re.search(r"-e '(.+?)'\n\t@touch", makefile)[1]
    assert f'-c constraints.txt -e "{extras}"' in page
