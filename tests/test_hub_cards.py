"""The header of a card: values stay as they are written, whatever it looks like and no matter what reads it."""

import textwrap

import pytest
from huggingface_hub import ModelCard

from fun_transformer.hub import Score, TrainingFacts, training_card
from fun_transformer.hub.card import complete_card, decode_card, read_header
from fun_transformer.hub.usage import Loading

ODD = "language: no\nversion: 1.10\ntime: 12:30\nmode: 0644\nsince: 2020-01-01\nflag: yes\nsmall: 1e3\nnone: ~\n"
ADDED = "library_name: transformers\npipeline_tag: text2text-generation\ntags:\n- fun_transformer\n"
BODY = "\n# A cat\n\nimport fun_transformer, trust_remote_code\n"


def complete(card, **metadata):
    return complete_card(card, "me/cat", Loading("AutoModelForSeq2SeqLM"), metadata)


def test_what_two_versions_of_yaml_read_differently_stays_as_it_is_written():
    card = complete(f"---\n{ODD}---\n{BODY}")
    assert card == f"---\n{ODD}{ADDED}---\n{BODY}"
    assert complete(card) == card
    assert complete(card, license="mit") == f"---\n{ODD}{ADDED}license: mit\n---\n{BODY}"
    assert complete(card, language="no") == card


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("start", "end"),
    [("---", "---"), ("---", "--- "), ("--- \t", "---\t"), ("\n ---", "---"), ("\ufeff---", "---")],
)
def test_a_header_is_found_whatever_is_around_it(start, end, newline):
    """And published so that huggingface_hub finds it too."""
    text = f"{start}\n# by hand\n{ODD}{end}\n{BODY}".replace("\n", newline)
    card = complete(decode_card(text.encode()))
    assert card == f"---\n# by hand\n{ODD}{ADDED}---\n{BODY}".replace("\n", newline)
    assert ModelCard(card).data.library_name == "transformers"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("license: mit # by hand\na: no\n", "license: apache-2.0 # by hand\na: no\nlanguage:\n- zh\n- 'no'\n"),
        (
            "language:\n- no # Norsk\n# b\na: no\n",
            "language:\n- zh\n- 'no' # Norsk\n# b\na: no\nlicense: apache-2.0\n",
        ),
        ("license:\n  a: x\n  b: [1,\n  2]\n# end\n", "license: apache-2.0\n# end\nlanguage:\n- zh\n- 'no'\n"),
        ("license:\nb: &x 1.10\nc: *x\n", "license: apache-2.0\nb: &x 1.10\nc: *x\nlanguage:\n- zh\n- 'no'\n"),
        ("a: |\n  b\n\nlicense: apache-2.0\n", "a: |\n  b\n\nlicense: apache-2.0\nlanguage:\n- zh\n- 'no'\n"),
        ("license: |\n  b\n\nlanguage: [zh, no]\n", "license: apache-2.0\n\nlanguage: [zh, no]\n"),
        ("", "license: apache-2.0\nlanguage:\n- zh\n- 'no'\n"),
    ],
)
@pytest.mark.parametrize("indent", ["", "  "])
def test_what_is_asked_for_replaces_its_own_lines_alone(header, expected, indent):
    header, expected = (textwrap.indent(ADDED + text, indent) for text in (header, expected))
    card = complete(f"---\n{header}---\n{BODY}", license="apache-2.0", language=["zh", "no"])
    assert card == f"---\n{expected}---\n{BODY}"


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("---\n{license: mit}\n---\n", "cannot be written"),
        ("---\nlicense: mit\nlicense: apache-2.0\n---\n", "license twice"),
        ("---\nlicense: mit\n\n# A cat\n", "does not end"),
        ("---\na: [\n---\n", "no YAML"),
        ("---\n" + "- " * 1500 + "x\n---\n", "no YAML"),
        ("---\n- a\n---\n", "no mapping"),
        ("---\n? [a]\n: b\n---\n", "no"),
        ("---\na: *x\n---\n", "no YAML"),
    ],
)
def test_a_header_that_cannot_be_completed_is_refused_in_a_sentence(card, words):
    with pytest.raises(ValueError, match=words):
        complete(card)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "gb18030"])
def test_a_card_in_another_encoding_is_refused(encoding):
    with pytest.raises(ValueError, match="Save it as UTF-8"):
        read_header(decode_card("---\nlanguage: 挪威语\n---\n".encode(encoding)))


def test_a_card_without_a_header_keeps_its_text():
    assert (
        complete(f"A\r\n\r\n---\r\nb{BODY}") == f"---\n{ADDED}---\n".replace("\n", "\r\n") + f"A\r\n\r\n---\r\nb{BODY}"
    )


@pytest.mark.parametrize("name", ["3e-4", "no", "1.10", "12:30", "0o17", "2020-01-01", "null", ".5", "+1"])
def test_names_that_look_like_something_else_are_quoted(name):
    """In the card of a training, where a run may be called 3e-4, and in what `push` adds."""
    facts = TrainingFacts(name, "run", {}, [Score("bleu", "BLEU", "test", 20.0)])
    card = training_card(name, "translation", facts)
    assert f"- name: '{name}'" in card and f"name: '{name}'\n      type: text" in card
    assert ModelCard(card).data.model_name == name
    assert f"license: '{name}'" in complete(card, license=name)
    assert read_header(card)["model-index"][0]["name"] == name
