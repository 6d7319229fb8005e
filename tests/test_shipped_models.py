"""Models whose weights lie in the checkout: they load without network, by one line, and are small."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

import fun_transformer  # noqa: F401 (registers the models and the pipelines)
from fun_transformer.analysis import cross_attention

FOLDERS = sorted(path.parent for path in (Path(__file__).parents[1] / "hub_configs").glob("*/model.safetensors"))
MEGABYTES = 20


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_weights_are_small_and_computed_with_in_float32(folder):
    assert (folder / "model.safetensors").stat().st_size < MEGABYTES * 1e6
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"  # float16 is slow on CPUs
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float16}  # noqa: SIM118
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: ") and "seed" in card
    assert {"## Data", "## How it was trained"} <= set(card.splitlines())


@pytest.mark.parametrize(
    "name, source, words",
    [
        ("zh-en-small", "中国的首都是北京。", {"China", "Beijing"}),
        ("zh-en-small", "Kevin住在伦敦。", {"Kevin", "London"}),
        ("zh-en-small", "他有37本书。", {"37", "books"}),
        ("zh-en-small", "他是我的老師", {"teacher"}),
    ],
)
def test_zh_en_small_translates(name, source, words):
    (found,) = pipeline("translation", model=str(FOLDERS[0].parent / name))(source)
    assert words <= set(re.findall(r"\w+", found["translation_text"])), found


def test_en_zh_small_translates():
    (found,) = pipeline("translation", model=str(FOLDERS[0].parent / "en-zh-small"))("Tom lives in Boston.")
    assert found["translation_text"] == "汤姆住在波士顿。"


def test_g2p_en_distilled_spells():
    spell = pipeline("text2text-generation", model=str(FOLDERS[0].parent / "g2p-en-distilled"))
    found = [row["generated_text"] for row in spell(["attention", "kitten", "shipping"])]
    assert found == ["AH T EH N SH AH N", "K IH T AH N", "SH IH P IH NG"]


def test_g2p_en_spells_what_the_rnns_forget():
    spell = pipeline("text2text-generation", model=str(FOLDERS[0].parent / "g2p-en"))
    found = [row["generated_text"] for row in spell(["kitten", "internationalization"])]
    assert found == ["K IH T AH N", "IH N T ER N AE SH AH N AH L IH Z EY SH AH N"]


def test_rnn_additive_spells_and_looks_from_left_to_right():
    folder = str(FOLDERS[0].parent / "rnn-additive")
    (found,) = pipeline("text2text-generation", model=folder)("kitten")
    assert found["generated_text"] == "K IH T AH N"
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    seen = cross_attention(model, AutoTokenizer.from_pretrained(folder), "kitten")
    assert seen.target == found["generated_text"]
    centers = (seen.weights[0, 0] * torch.arange(len(seen.source_tokens))).sum(-1)  # (target_len,)
    assert centers.diff().gt(0).all(), centers


def test_rnn_fixed_spells_short_words_and_forgets_long_ones():
    spell = pipeline("text2text-generation", model=str(FOLDERS[0].parent / "rnn-fixed"))
    short, long = [row["generated_text"] for row in spell(["kitten", "electroencephalography"])]
    assert short == "K IH T AH N"
    assert long.startswith("EH L") and "S EH F" not in long  # "-ceph-" is gone
