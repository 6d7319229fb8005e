"""Breakdowns add up, the page holds what was measured and no text can break out of it, COMET has its own process."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from test_evaluation import data_file, figures, model_folder, run, write_rows  # noqa: F401  fixtures

from fun_transformer.analysis import AttentionMap
from fun_transformer.evaluation import (
    EvaluationData,
    Scoring,
    by_column,
    by_length,
    by_word_frequency,
    write_report,
)
from fun_transformer.evaluation.pictures import draw_attention, draw_bars
from fun_transformer.evaluation.report import Report, show_differences
from fun_transformer.evaluation.systems import System

EVIL = "<script>alert(1)</script> & \"quoted\" 'so' </style> $title"


# ── breakdowns ──


def scoring_of(data, *names):
    return Scoring(names or ["exact"], data.references)


def test_rows_are_sorted_by_the_length_of_their_source():
    sources = [" ".join(["w"] * length) for length in (1, 2, 3, 9, 10, 11, 29, 60)]
    data = EvaluationData("data", [["x"]] * 8, sources)
    found = by_length(data, {"a": ["x", "x", "y", "x", "y", "y", "y", "x"]}, scoring_of(data))
    assert found.labels == ["1-10", "11-20", "21-30", "51 or more"] and found.counts == [5, 1, 1, 1]
    assert found.scores == {"a": {"exact": [60, 0, 0, 100]}} and "in words" in found.note


@pytest.mark.parametrize("sources", [["abcd", "ab"], ["今天天气", "今天"]])
def test_single_words_and_scripts_without_spaces_are_measured_in_characters(sources):
    data = EvaluationData("data", [["x"], ["y"]], sources)
    found = by_length(data, {"a": ["x", "x"]}, scoring_of(data))
    assert found.labels == ["2", "4"] and found.scores["a"]["exact"] == [0, 100] and "in characters" in found.note


def test_rows_are_sorted_by_a_column_and_rare_values_share_a_part():
    groups = ["news"] * 5 + ["web"] * 3 + [f"rare{number}" for number in range(30)]
    data = EvaluationData("data", [["x"]] * 38, groups=groups)
    found = by_column(data, "domain", {"a": ["x"] * 5 + ["y"] * 33}, scoring_of(data))
    assert found.labels[:2] == ["news", "web"] and found.labels[-1] == "13 others"
    assert len(found.labels) == 20 and sum(found.counts) == 38
    assert found.scores["a"]["exact"][:2] == [100, 0]


def test_a_part_is_cut_into_words_as_the_whole():
    """A part whose references are Latin letters alone is scored as its Chinese neighbours are."""
    data = EvaluationData("data", [["今天天气很好啊"], ["ab-cd ef gh ij"]], groups=["zh", "en"])
    outputs = ["今天天气很好", "ab-cd ef gh"]
    found = by_column(data, "script", {"a": outputs}, scoring_of(data, "bleu"))
    alone = Scoring(["bleu"], data.references, "zh").score(outputs[1:], data.references[1:])["bleu"]
    assert found.scores["a"]["bleu"][found.labels.index("en")] == alone


def test_words_are_counted_by_hand():
    """`b` is twice in the first reference and once in its output; the second row takes the nearer reference."""
    data = EvaluationData("data", [["a b b"], ["c d", "a e"]])
    found = by_word_frequency(data, {"s": ["a b x", "a e e"]}, "none", ["a a a", "b"])
    assert found.labels == ["never", "once", "2-4 times"]
    assert found.counts == [1, 2, 2]  # e; b b; a a
    scores = found.scores["s"]
    assert scores["recall"] == pytest.approx([100, 50, 100])
    assert scores["precision"] == pytest.approx([100 / 3, 100, 100])  # x e e; b; a a
    assert scores["F"] == pytest.approx([50, 200 / 3, 100])


def test_words_are_counted_in_the_references_where_nothing_else_is_given():
    data = EvaluationData("data", [["今天今"], ["天"]])
    found = by_word_frequency(data, {"s": ["今天", "天"]}, "zh")
    assert found.labels == ["2-4 times"] and found.counts == [4] and found.scores["s"]["recall"] == [75]


def test_the_command_prints_and_writes_the_breakdowns(tmp_path, capsys):
    rows = [
        {"source": f"{'w ' * n}end", "target": f"t{n} end", "domain": "even" if n % 2 == 0 else "odd"}
        for n in range(8)
    ]
    path = write_rows(tmp_path / "data.jsonl", rows)
    (tmp_path / "out.txt").write_text("".join(f"t{n if n % 2 == 0 else 0} end\n" for n in range(8)))
    (tmp_path / "train.txt").write_text("end\nt1 end\n")
    options = ["--by", "domain", "--by-length", "--by-frequency", "--training-data", tmp_path / "train.txt"]
    found = figures(tmp_path, tmp_path / "out.txt", path, *options, "--metrics", "exact")["breakdowns"]
    length, domain, words = found
    assert sum(length["counts"]) == 8 and words["labels"] == ["never", "once", "2-4 times"]
    assert dict(zip(domain["labels"], domain["scores"]["out.txt"]["exact"])) == {"even": 100, "odd": 0}
    assert "By domain" in (printed := capsys.readouterr().out) and "training data" in printed


# ── the page ──


class Tags(HTMLParser):
    """The elements of a page, their attributes, and its visible text."""

    def __init__(self, page):
        super().__init__()
        self.names, self.attributes, self.text, self.open = [], [], [], []
        self.feed(page)

    def handle_starttag(self, name, attributes):
        self.names.append(name)
        self.attributes += attributes
        if name not in ("meta", "br"):
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.names.append(name)
        self.attributes += attributes

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append(data)


def page_of(tmp_path, text, **fields):
    """A page on which each text is the given one."""
    references = [[f"{text} one", f"{text} two"], ["other"]]
    data = EvaluationData(text, references, [f"{text} source", text], [text, text])
    systems = [System(f"{text} A", [f"{text} 1", ""]), System(f"{text} B", ["x", text])]
    outputs = {system.name: system.outputs for system in systems}
    scoring = Scoring(["bleu", "chrf"], references)
    scores = {name: scoring.score(texts, references) for name, texts in outputs.items()}
    rows = {name: scoring.row_scores(texts, references) for name, texts in outputs.items()}
    parts = [by_length(data, outputs, scoring), by_column(data, text, outputs, scoring)]
    parts.append(by_word_frequency(data, outputs, "13a"))
    write_report(Report(data, systems, scores, scoring.signatures, rows, [], parts, **fields), tmp_path / "page.html")
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_no_text_can_break_out_of_the_page(tmp_path):
    harmless, evil = Tags(page_of(tmp_path, "harmless")), Tags(page_of(tmp_path, EVIL))
    kinds = {"del", "ins", "rect", "text"}  # how texts differ, and rows of charts, depend on the words
    assert set(evil.names) == set(harmless.names) and not evil.open
    assert [name for name in evil.names if name not in kinds][:40] == [n for n in harmless.names if n not in kinds][
        :40
    ]
    assert {name for name, _ in evil.attributes} == {name for name, _ in harmless.attributes}
    shown = "".join(evil.text)
    assert shown.count(EVIL) >= 5 and "script" not in evil.names


def test_the_page_loads_nothing_and_runs_nothing(tmp_path):
    page = page_of(tmp_path, "今天")
    tags = Tags(page)
    assert not {"script", "img", "link", "iframe", "object"} & set(tags.names)
    assert not {"src", "href", "style", "onclick"} & {name for name, _ in tags.attributes}
    assert "default-src 'none'" in page and "url(" not in page
    assert 'lang="zh"' in page and "prefers-color-scheme: dark" in page


def test_the_worst_rows_come_first_with_every_system_side_by_side(tmp_path):
    rows = 30
    references = [[f"one two three four {number}"] for number in range(rows)]
    outputs = {"ours": [texts[0] for texts in references], "theirs": [texts[0] for texts in references]}
    outputs["ours"][17], outputs["ours"][4] = "zzz", "one two"
    scoring = Scoring(["chrf"], references)
    data = EvaluationData("data", references, [f"s{number}" for number in range(rows)])
    systems = [System(name, texts) for name, texts in outputs.items()]
    scores = {name: scoring.score(texts, references) for name, texts in outputs.items()}
    each = {name: scoring.row_scores(texts, references) for name, texts in outputs.items()}
    write_report(Report(data, systems, scores, {}, each), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    shown = re.findall(r"<h3>Row (\d+)</h3>", page)
    assert shown[:2] == ["18", "5"] and len(shown) == 20
    assert "theirs (100.0)" in page and "ours (0.0)" in page


@pytest.mark.parametrize(
    ("reference", "output", "shown"),
    [
        ("the cat sat", "the dog sat", "<span>the <del>cat</del><ins>dog</ins> sat</span>"),
        ("今天很好", "今天好", '<span lang="zh">今天<del>很</del>好</span>'),
        ("a", "", "<del>a</del>"),
        ("<b>", "<b>", "<span>&lt;b&gt;</span>"),
    ],
)
def test_differences_are_marked(reference, output, shown):
    assert show_differences(reference, output) == shown


def test_attention_is_drawn_where_there_is_some():
    weights = torch.tensor([[[[1.0, 0.0], [0.25, 0.75]], [[1.0, 0.0], [0.75, 0.25]]]])  # (1, 2, 2, 2)
    svg = draw_attention(AttentionMap("a <b>", "c d", ["a", "<b>"], ["c", "d"], weights))
    cells = re.findall(r'class="cell" .*?fill-opacity="([\d.]+)"><title>(.*?)</title>', svg)
    assert cells == [("1.00", "c → a: 100 %"), ("0.71", "d → a: 50 %"), ("0.71", "d → &lt;b&gt;: 50 %")]


def test_bars_are_as_long_as_the_scores():
    data = EvaluationData("data", [["x"]] * 4, groups=["p", "p", "q", "q"])
    svg = draw_bars(
        by_column(data, "g", {"a": ["x", "x", "x", "y"], "b": ["x", "y", "y", "y"]}, scoring_of(data)), "exact"
    )
    widths = [float(width) for width in re.findall(r'<rect class="system\d" .*?width="([\d.]+)"', svg)]
    assert widths == pytest.approx([300, 150, 150, 1])  # 100, 50, 50 and 0 %


def test_a_page_of_a_model_shows_what_it_attends_to(model_folder, data_file, tmp_path):  # noqa: F811
    (tmp_path / "other.txt").write_text("a b\nc\nd\ne\n")
    page = tmp_path / "page.html"
    words = [model_folder, data_file, "--against", tmp_path / "other.txt", "--device", "cpu", "--report", page]
    assert run(*words) == 0
    text = page.read_text(encoding="utf-8")
    tags = Tags(text)
    assert text.count("attention of model") == tags.names.count("details") > 0 and "attention of other" not in text
    assert "<img" not in text and "&lt;img src=x" in text and not tags.open


# ── COMET ──

FAKE = """
import json, sys
rows = [json.loads(line) for line in sys.stdin]
assert all(set(row) == {"src", "mt", "ref", "refs"} for row in rows)
for row in rows:
    print(json.dumps({"score": 0.5 + 0.5 * (row["mt"] in row["refs"])}))
"""


@pytest.fixture
def scored(tmp_path):
    """Rows with two references, files of outputs of two systems, and what to call."""
    rows = [{"source": f"今天 {n}", "references": [f"today {n}", f"on day {n}"]} for n in range(40)]
    path = write_rows(tmp_path / "data.jsonl", rows)
    (tmp_path / "good.txt").write_text("".join(f"on day {n}\n" for n in range(40)))
    (tmp_path / "bad.txt").write_text("".join(f"{'today' if n < 10 else 'never'} {n}\n" for n in range(40)))
    return [tmp_path / "good.txt", path, "--against", tmp_path / "bad.txt", "--metrics", "exact"]


def command(tmp_path, code):
    (tmp_path / "fake.py").write_text(code)
    return f'"{sys.executable}" "{tmp_path / "fake.py"}"'


def test_comet_runs_in_a_process_of_its_own(scored, tmp_path):
    found = figures(tmp_path, *scored, "--comet", command(tmp_path, FAKE))
    assert {name: scores["comet"] for name, scores in found["scores"].items()} == {"good.txt": 1, "bad.txt": 0.625}
    comparison = found["comparisons"][-1]
    assert comparison["metric"] == "comet" and comparison["p_bootstrap"][1] < 0.01


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit(3)", "ended with exit status 3"),
        ("print(1)", "gave 1 lines for 40 rows"),
        ("for _ in range(40): print('good')", "printed 'good'"),
        ("for _ in range(40): print('NaN')", "printed 'NaN'"),
    ],
)
def test_a_command_that_fails_is_told(code, message, scored, tmp_path, capsys):
    assert run(*scored, "--comet", command(tmp_path, code)) == 2
    assert message in capsys.readouterr().err


def test_a_missing_script_is_told_before_anything_is_read(scored, capsys):
    assert run(*scored, "--comet", f"{sys.executable} no_such.py") == 2
    assert "there is no file no_such.py" in capsys.readouterr().err


def test_the_script_of_the_docs_speaks_with_comet(tmp_path):
    docs = Path(__file__).parents[1].joinpath("docs", "evaluation.md").read_text(encoding="utf-8")
    (tmp_path / "comet_scores.py").write_text(re.search("```python\n(import json.*?)```", docs, re.DOTALL)[1])
    (tmp_path / "comet.py").write_text(
        "from types import SimpleNamespace\n\ndef download_model(name):\n    print('noise')\n    return name\n\n"
        "def load_from_checkpoint(name):\n    return SimpleNamespace(predict=lambda rows, **options: "
        "SimpleNamespace(scores=[len(row['mt']) for row in rows]))\n"
    )
    lines = "".join(json.dumps({"src": "s", "mt": "m" * n, "ref": "r", "refs": ["r"]}) + "\n" for n in (1, 2))
    words = [sys.executable, tmp_path / "comet_scores.py"]
    done = subprocess.run(words, input=lines, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "1.0\n2.0\n" and "noise" in done.stderr


def test_the_python_of_the_docs_runs():
    docs = Path(__file__).parents[1].joinpath("docs", "evaluation.md").read_text(encoding="utf-8")
    names = {}
    exec(re.search("```python\n(from fun_transformer.evaluation.*?)```", docs, re.DOTALL)[1], names)
    assert names["scoring"].signatures["bleu"].startswith("nrefs:var")
