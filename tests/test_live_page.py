"""The live page without a browser: its texts and its address. What is seen is tested in test_live_browser.py."""

import itertools
import re
import shutil

import pytest

pytest.importorskip("onnxscript")
from live_site import ROOT, in_node, make_site, needs_node

pytestmark = needs_node
LIVE = ROOT / "docs" / "live"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page without models."""
    return make_site(tmp_path_factory.mktemp("live"), with_runtime=False)


TEXTS = """async (live) => {
    const { KEYS, translate } = await import(`${live.site}/texts.js`);
    return KEYS.map((key) => [key, translate("zh", key), translate("en", key)]);
}"""


def test_texts_have_the_same_places_in_both_languages(site):
    for key, chinese, english in in_node(site, TEXTS):
        assert chinese and english, key
        assert set(re.findall(r"\{\w+\}", chinese)) == set(re.findall(r"\{\w+\}", english)), key


def test_every_text_that_the_page_asks_for_is_there(site):
    there = {key for key, *_ in in_node(site, TEXTS)}
    files = (*LIVE.glob("*.html"), *LIVE.glob("*.js"), *LIVE.glob("views/*.js"))
    place = r"""\bt\(\s*"([\w.-]+)"|data-(?:text|label)="([\w.-]+)\""""
    found = [pair for file in files for pair in re.findall(place, file.read_text(encoding="utf-8"))]
    asked = {key for pair in found for key in pair if key}
    stops = set(re.findall(r'^  \["([\w-]+)",', (LIVE / "tour.js").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert len(asked) > 80 and len(stops) > 18
    assert asked - there == set()
    assert {f"tour.{stop}" for stop in stops} - there == set()


JOIN = """async (live, texts) => {
    const tokenizer = live.Tokenizer.fromJSON(await (await fetch(`${live.site}/tokenizer.json`)).json());
    return texts.map((text) => {
        const { pieces, steps } = tokenizer.encode(text);
        return { pieces, words: steps.words, joins: steps.words.map((word) => tokenizer.joins(word)) };
    });
}"""


def test_the_joins_of_a_word_lead_from_its_characters_to_its_tokens(site):
    shutil.copy(ROOT / "hub_configs" / "zh-en-small" / "tokenizer.json", site)
    for result in in_node(site, JOIN, ["今天吃什么好", "Tokenization 很重要，你觉得呢？", "𠮷野家"]):
        last = [piece for steps in result["joins"] for piece in steps[-1]["pieces"]]
        assert [*last, "</s>"] == result["pieces"]
        for word, steps in zip(result["words"], result["joins"], strict=True):
            assert all(len(piece) == 1 or piece.startswith("<0x") for piece in steps[0]["pieces"]), word
            for before, after in itertools.pairwise(steps):
                place = after["place"]
                joined = "".join(before["pieces"][place : place + 2])
                assert after["pieces"] == [*before["pieces"][:place], joined, *before["pieces"][place + 2 :]]


READ_AND_WRITE = """async (live, addresses) => {
    const { readAddress, writeAddress } = await import(`${live.site}/state.js`);
    return addresses.map((address) => [readAddress(address), writeAddress(readAddress(address))]);
}"""


def test_an_address_is_read_as_it_was_written(site):
    address = (
        "lang=zh&theme=dark&model=g2p-en&text=a+b%26c&step=dec.3&layer=0&open=self&head=cross.1.2&query=3&key=0&method=beam"
        "&temperature=0.7&topP=0.5&seed=7&beams=5&penalty=-0.5&off=causal_enc.1.2&forced=5_17&tour=4"
    )
    [(state, written)] = in_node(site, READ_AND_WRITE, [address])
    assert written == address
    assert state["head"] == {"kind": "cross", "layer": 0, "head": 1}  # from 0; the address counts from 1
    assert state["text"] == "a b&c"
    assert state["forced"] == [5, 17]


@pytest.mark.parametrize(
    ("address", "name", "value"),
    [
        ("step=nowhere", "step", "tokens"),
        ("beams=1000", "beams", 8),
        ("temperature=0", "temperature", 0.1),
        ("beams=2.6", "beams", 3),
        ("seed=x", "seed", 1),
        ("method=magic", "method", "greedy"),
        ("head=enc.0.1", "head", None),
        ("off=causal_nothing", "off", ["causal"]),
        ("forced=1_-2_x", "forced", [1]),
        ("unknown=1", "step", "tokens"),
    ],
)
def test_what_makes_no_sense_in_an_address_is_left_out(site, address, name, value):
    [(state, _)] = in_node(site, READ_AND_WRITE, [address])
    assert state[name] == value


RUN = """async (live) => {
    const { Run } = await import(`${live.site}/run.js`);
    const targetTokenizer = { piece: (id) => `<${id}>`, vocabularySize: 4 };
    const sizes = { layers: { encoder: 1, decoder: 1 }, heads: { encoder: 1, decoder: 1 }, switches: [] };
    const model = { name: "made up", targetTokenizer, ...sizes };
    const state = { method: "sample", off: [], forced: [3, 4, 99999], temperature: 0.1, topP: 0.5, seed: 1 };
    const run = new Run(model, {}, state);
    run.take({ chosen: 1, probability: 1, logits: Float32Array.from([0, 0, 0, 0]) });
    return { forced: run.state.forced, probability: run.words[0].probability };
}"""


def test_a_drawn_token_is_as_probable_as_the_model_says_and_unknown_ones_cannot_be_forced(site):
    found = in_node(site, RUN)
    assert found["forced"] == [3] and found["probability"] == pytest.approx(0.25)
