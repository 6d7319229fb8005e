"""The live page without a browser: its texts and its address. What is seen is tested in test_live_browser.py."""

import itertools
import math
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


# Four tokens, the third twice as likely as the second after each prefix, the last one the end.
MADE_UP = """
    const probabilities = [0.125, 0.25, 0.5, 0.125];
    const model = {
        name: "made up", startId: 0, endId: 3, maxLength: 4, generation: {}, switches: [],
        layers: { encoder: 1, decoder: 1 }, heads: { encoder: 1, decoder: 1 },
        targetTokenizer: { piece: (id) => `<${id}>`, vocabularySize: 4 },
        encode: async () => ({}), decode: async () => ({ logits: Float32Array.from(probabilities, Math.log) }),
    };
"""
RUN = f"""async (live, change) => {{{MADE_UP}
    const {{ Run }} = await import(`${{live.site}}/run.js`);
    const {{ START }} = await import(`${{live.site}}/state.js`);
    const run = new Run(model, {{ ids: [1] }}, {{ ...START, ...change }});
    await run.compute(() => true);
    return {{ forced: run.state.forced, words: run.words, trees: run.trees }};
}}"""


@pytest.mark.parametrize("method", ["greedy", "sample"])
def test_a_word_has_the_probability_that_the_model_gives_it(site, method):
    # Chance has the third token alone to choose from: its probability is 1 for chance, and 0.5 for the model.
    settings = {"method": method, "temperature": 0.1, "topP": 0.3, "forced": [1]}
    words = in_node(site, RUN, settings)["words"]
    assert [word["id"] for word in words] == [1, 2, 2, 2]
    assert [word["probability"] for word in words] == pytest.approx([0.25, 0.5, 0.5, 0.5])


def test_a_tree_counts_what_was_forced_by_the_probabilities_of_the_model(site):
    trees = in_node(site, RUN, {"method": "beam", "beams": 2, "forced": [1, 0]})["trees"]
    nodes = trees[-1]["nodes"]
    forced = [(node["token"], node["parent"], node["state"]) for node in nodes[1:3]]
    assert forced == [(1, 0, "alive"), (0, 1, "alive")]
    assert nodes[2]["logProbability"] == pytest.approx(math.log(0.125))
    assert nodes[2]["sum"] == pytest.approx(math.log(0.25 * 0.125))
    assert len(trees[2]["nodes"]) == 3 + 4  # nothing is forced any more


def test_tokens_that_a_model_does_not_have_are_not_forced(site):
    assert in_node(site, RUN, {"forced": [2, 4, 99999]})["forced"] == [2]


def test_what_chance_draws_after_a_forced_token_stays_the_same(site):
    settings = {"method": "sample", "topP": 1, "temperature": 2, "seed": 5}
    free = [word["id"] for word in in_node(site, RUN, settings)["words"]]
    assert len(set(free)) > 1
    assert [word["id"] for word in in_node(site, RUN, {**settings, "forced": free[:1]})["words"]] == free
