"""Documents: what is cut is the text again, and what says nothing in words is copied."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fun_transformer.decoding.documents import assemble, main_script, read_document
from fun_transformer.pipeline_batches import token_batches
from fun_transformer.text_parts import has_words, split_sentences

ROOT = Path(__file__).parents[1]
DOCUMENT = """# 标题在这里

我喜欢喝茶。他昨天去了北京，离开的时候他说以后还会再来看我们，而且
要带他的孩子。
- 第一项
2. [ ] 第二项 `code`

> 他说：“走吧。”

```python
print("你好")
```

| 名字 | 3 |
| --- | --- |

<p>**我不知道。**</p>

---
https://a.b/c
me@x.org
2024-11-26
Only English here.
😀
"""
SENTENCES = [
    "标题在这里",
    "我喜欢喝茶。",
    "他昨天去了北京，离开的时候他说以后还会再来看我们，而且要带他的孩子。",
    "第一项",
    "第二项 `code`",
    "他说：“走吧。”",
    "名字",
    "**我不知道。**",
]


def texts(document, script=None):
    return [piece.sentence for piece in read_document(document, script) if piece.is_text]


def test_only_sentences_are_translated_and_all_else_stays():
    pieces = read_document(DOCUMENT, main_script(DOCUMENT))
    sentences = [piece.sentence for piece in pieces if piece.is_text]
    assert [text.strip("*") for text in sentences] == [text.strip("*") for text in SENTENCES]
    translated = assemble(pieces, [f"T{i}." for i in range(len(sentences))])
    assert translated == (
        '# T0.\n\nT1. T2.\n- T3.\n2. [ ] T4.\n\n> T5.\n\n```python\nprint("你好")\n```\n\n| T6. | 3 |\n'
        "| --- | --- |\n\n<p>**T7.**</p>\n\n---\nhttps://a.b/c\nme@x.org\n2024-11-26\nOnly English here.\n😀\n"
    )


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda path: path.name)
def test_the_pieces_of_our_own_pages_are_the_pages(path):
    document = path.read_text(encoding="utf-8")
    pieces = read_document(document, main_script(document))
    assert "".join(piece.text for piece in pieces) == document
    assert sum(piece.is_text for piece in pieces) > 10
    assert not any("\n" in piece.sentence or piece.sentence.startswith("```") for piece in pieces if piece.is_text)


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="a我。. \n\t\r#>-|`*<p>~1/@:!？😀$[]()", max_size=60))
def test_the_pieces_of_any_text_are_the_text(document):
    pieces = read_document(document)
    assert "".join(piece.text for piece in pieces) == document
    assert "".join(split_sentences(document)) == document


def test_a_sentence_goes_on_in_the_next_line_of_its_paragraph():
    english = "This sentence was wrapped by an editor in the\nmiddle of it. And this one was not.\nShort\nlines\n"
    expected = [
        "This sentence was wrapped by an editor in the middle of it.",
        "And this one was not.",
        "Short",
        "lines",
    ]
    assert texts(english) == expected
    assert texts("这一行很长很长很长很长很长很长很长很长很长很长\n没有完。\n") == [
        "这一行很长很长很长很长很长很长很长很长很长很长没有完。"
    ]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("---\ntitle: 标题\n\ntags: [茶]\n---\n正文\n", ["正文"]),
        ("---\r\ntitle: 标题\r\n---\r\n正文\r\n", ["正文"]),
        ("---\n# 正文\n---\n", ["正文"]),  # rules
        ("正文\n---\na: 标题\n---\n", ["正文", "a: 标题"]),
        ("<script>\nalert('你好')\n\n// 茶\n</script>\n<style type='a'>\n/* 茶 */</style>\n正文", ["正文"]),
        ("<!-- 第一\n\n第二 --> 正文\n<!-- 茶 -->\n正文\n", ["正文", "正文"]),
        ("$$\nx = 茶\n$$\n正文\n$$茶$$\n正文\n", ["正文", "正文"]),
        ("$$ 很贵。\n\n正文 $$\n", ["$$ 很贵。", "正文 $$"]),
        ("```\n<!-- 茶\n```\n正文 -->\n", ["正文 -->"]),
        ("<!-- 没有完\n", ["<!-- 没有完"]),
    ],
)
def test_front_matter_scripts_comments_and_formulas_are_copied(document, expected):
    assert texts(document, "han") == expected
    assert "".join(piece.text for piece in read_document(document)) == document


def test_the_address_of_a_link_that_is_a_line_is_copied():
    pieces = read_document('- [链接](https://a.b/x)\n![图](图/茶.png "茶")\n')
    assert assemble(pieces, ["Link", "Picture"]) == '- [Link](https://a.b/x)\n![Picture](图/茶.png "茶")\n'


@pytest.mark.parametrize(
    ("document", "translations", "expected"),
    [
        ("北京。This is English.\n", ["Beijing."], "Beijing. This is English.\n"),
        ("Tea. 茶。\n", ["茶。"], "Tea.茶。\n"),
        ("**北京。**\n", ["Beijing."], "**Beijing.**\n"),
        ("```\na\n```\n   北京。", ["Beijing."], "```\na\n```\n   Beijing."),
        ("One.  Two. 北京。", ["Beijing."], "One.  Two. Beijing."),
    ],
)
def test_a_translation_next_to_a_copied_sentence_is_parted_from_it(document, translations, expected):
    assert assemble(read_document(document, "han"), translations) == expected


def test_code_is_copied_up_to_its_own_fence():
    assert texts("````\n```\nfor x in y\n````\nAfter.\n") == ["After."]
    assert texts("~~~\nopen code\n") == []
    assert texts("Text.\n\n    indented code\n\n- item\n") == ["Text.", "item"]


@pytest.mark.parametrize(
    ("script", "expected"), [("han", ["你好。"]), ("alphabet", ["Hello."]), (None, ["你好。", "Hello."])]
)
def test_lines_without_letters_of_the_source_script_are_copied(script, expected):
    assert texts("你好。\nHello.\n", script) == expected


def test_the_script_of_a_document_is_that_of_its_prose():
    assert main_script("看这个：\n```\nimport everything from anywhere\n```\n") == "han"
    assert main_script("He said 你好 to me.\n") == "alphabet"


def test_assemble_wants_a_translation_for_each_piece():
    with pytest.raises(ValueError, match="2 translations for 1 pieces"):
        assemble(read_document("One.\n"), ["a", "b"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3.14", False),
        ("https://a.b/cat", False),
        ("me@x.org", False),
        ("😀 ---", False),
        (">>en<< 42", False),
        ("a", True),
        ("发到a@b.com就好", True),
        ("https://a.b/c很好用吗我不知道", True),
        ("看www.a.b/c", True),
        ("https://a.b/c좋아요", True),
        ("www.a.b/c，me@x.org。(https://zürich.ch/ü) git@a.b:c/d.git", False),
    ],
)
def test_what_has_no_words(text, expected):
    assert has_words(text) is expected


def test_a_long_text_has_a_batch_of_its_own():
    lengths = [1161, *[40] * 27]
    assert list(token_batches(lengths, 2048, 32)) == [[0], list(range(1, 28))]
    assert [len(batch) for batch in token_batches([1000] * 100, 8192, 32)] == [8] * 12 + [4]
    assert [len(batch) for batch in token_batches([10] * 100, 300)] == [30, 30, 30, 10]
    assert list(token_batches([], 2048, 3)) == []
    assert list(token_batches([5, 4, 6], 2048, 1)) == [[2], [0], [1]]


@given(st.lists(st.integers(1, 99)), st.integers(1, 300), st.integers(1, 9))
def test_batches_hold_each_text_once_and_no_more_tokens_than_allowed(lengths, tokens, most):
    batches = list(token_batches(lengths, tokens, most))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) <= most for batch in batches)
    assert all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= tokens for batch in batches)
    assert [lengths[i] for batch in batches for i in batch] == sorted(lengths, reverse=True)
