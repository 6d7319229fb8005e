"""The modules of the live page without a page (docs/live/*.js), run by node: ids, logits and texts are ours."""

import functools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

pytest.importorskip("onnxscript")
from live_site import (
    DECODE,
    ROOT,
    SEARCH,
    TINY,
    TOKENIZE,
    as_array,
    ask_node,
    ids_of,
    in_node,
    make_site,
    needs_node,
    needs_runtime,
)

pytestmark = needs_node
SHIPPED = ROOT / "hub_configs"
AWKWARD = (
    "▁ \t\u3000\u00a0e\u0301ÅΣςİßABc12３,。！「」😀\u200d\ufeffあア한\u1112\u1161$€+^&<>{}[]/|-_…’न\u093c\x85\x1c々ⅷ²"
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The modules of the page, without a model; tokenizers of the shipped models under their names."""
    site = make_site(tmp_path_factory.mktemp("site"), with_runtime=False)
    for name in ("zh-en-small", "rnn-additive"):
        (site / f"{name}.json").write_bytes((SHIPPED / name / "tokenizer.json").read_bytes())
    return site


# Tokenizers


@pytest.fixture(scope="module")
def texts():
    """A thousand sentences in Chinese and English, and three hundred texts that mean nothing."""
    hsk = pytest.importorskip("hsk_sentences_audio")
    rows = json.loads((Path(hsk.__path__[0]) / "data" / "sentences.json").read_text(encoding="utf-8"))
    chance = random.Random(0)
    sentences = [text for row in chance.sample(rows, 500) for text in (row["chinese"], row["translation"]["en"])]
    made = ["".join(chance.choices(AWKWARD, k=chance.randint(0, 25))) for _ in range(300)]
    return [*sentences, *made, "", " ", "a</s>b <mask>  今天", "今" * 80, "!" * 70]


@pytest.mark.parametrize("name", ["zh-en-small", "rnn-additive"])
def test_the_tokenizer_gives_the_same_ids_and_texts(pages, name, texts):
    ours = Tokenizer.from_file(str(pages / f"{name}.json"))
    results = in_node(pages, TOKENIZE, {"file": f"{name}.json", "texts": texts})
    for text, wanted, result in zip(texts, ours.encode_batch(texts), results, strict=True):
        assert result["ids"] == wanted.ids, text
        assert result["pieces"] == wanted.tokens
        assert result["back"] == ours.decode(wanted.ids)


def test_spans_say_where_each_piece_comes_from(pages):
    text = "I  am 😀 here, cafe\u0301今天"
    [result] = in_node(pages, TOKENIZE, {"file": "zh-en-small.json", "texts": [text]})
    units = text.encode("utf-16-le")  # what JavaScript counts
    shown = [units[2 * start : 2 * end].decode("utf-16-le") for start, end in result["spans"]]
    assert shown[:3] == ["I", "  am", " "]
    assert shown[3:7] == ["😀"] * 4
    assert result["pieces"][3:7] == ["<0xF0>", "<0x9F>", "<0x98>", "<0x80>"]
    assert "e\u0301" in shown
    assert shown[-2:] == ["今天", ""]
    assert result["steps"]["normalized"] == "I am 😀 here, caf\u00e9今天"
    assert result["steps"]["words"][:3] == ["▁I", "▁am", "▁😀"]


def test_a_tokenizer_that_is_not_known_is_refused(pages):
    (pages / "unigram.json").write_text(Tokenizer(models.Unigram([("a", 0.0)])).to_str())
    with pytest.raises(AssertionError, match=r"The model Unigram is not known here\. Known: BPE, WordLevel"):
        in_node(pages, TOKENIZE, {"file": "unigram.json", "texts": ["a"]})


# Searches


def test_tokens_are_drawn_from_what_temperature_and_top_p_leave(pages):
    logits = (torch.randn(4, 50, generator=torch.Generator().manual_seed(1)) * 3).double()
    settings = [(1.0, 0.9), (0.5, 0.95), (2.0, 0.3), (1.0, 1.0)]
    code = "async (live, rows) => rows.map(({ logits, t, p }) => live.nucleus(logits, t, p))"
    rows = [{"logits": row.tolist(), "t": t, "p": p} for row, (t, p) in zip(logits, settings, strict=True)]
    for row, (temperature, top_p), found in zip(logits, settings, in_node(pages, code, rows), strict=True):
        warped = TopPLogitsWarper(top_p)(None, TemperatureLogitsWarper(temperature)(None, row[None]))
        wanted = warped.softmax(-1)[0]
        assert {choice["id"] for choice in found} == set(wanted.nonzero().flatten().tolist())
        for choice in found:
            assert choice["probability"] == pytest.approx(wanted[choice["id"]].item(), abs=1e-6)


@pytest.mark.parametrize(("temperature", "top_p", "message"), [(0, 1, "above 0"), (1, 1.5, "above 0 and at most 1")])
def test_settings_that_mean_nothing_are_refused(pages, temperature, top_p, message):
    with pytest.raises(AssertionError, match=message):
        in_node(pages, f"async (live) => live.nucleus([1, 2], {temperature}, {top_p})")


# Models

SOURCE, TARGET = ids_of("bad cafe"), [1, 17, 14, 16]
TEXTS = ["abc", "Bad cafe"]
SEARCHES = {
    "plain": {},
    "short": {"length_penalty": 0.0},
    "long": {"length_penalty": 2.0},
    "eager": {"early_stopping": True},
    "never": {"early_stopping": "never"},
    "fresh": {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
}
OPTIONS = [(settings, beams) for settings in SEARCHES.values() for beams in (1, 3)]


SWITCHES = {"encoderHeads": (2, 2), "heads": (3, 4), "crossHeads": (3, 4)}
SWITCHES |= dict.fromkeys(("positions", "scaling", "causal", "cross"), ())
OFF = {name: np.ones(shape, bool) for name, shape in SWITCHES.items()}
for switch in OFF.values():
    switch[(0, 1) if switch.ndim else ()] = False
CASES = [{}, {"trace": True}, *({"target": TARGET[:length]} for length in (1, 2, 4, 2, 4))]
OFF_CASES = [{"off": {name: value.tolist()}, "trace": trace} for trace in (False, True) for name, value in OFF.items()]

SAMPLE = """async (live, { name, source, seeds }) => {
    const model = await live.loadModel(`${live.site}/${name}`, live.loadRuntime(`${live.site}/runtime`));
    const on = live.allOn(model);
    const encoded = await model.encode(source, on);
    const results = [];
    for (const seed of seeds) {
        const written = [];
        const steps = live.sample(model, encoded, on, { temperature: 3, topP: 0.9, seed });
        for await (const step of steps) written.push(step.chosen);
        results.push(written.join(" "));
    }
    return results;
}"""


@pytest.fixture(scope="module")
def answers(tiny_live_site):
    """A function from a tiny model to what node says of it: CASES, TEXTS x OPTIONS, seeds, and OFF_CASES."""

    @functools.cache
    def ask(name):
        decoding = [{"source": SOURCE, "target": TARGET, **case} for case in CASES]
        searches = [
            {"beams": beams, "generation": settings, "lengthPenalty": settings.get("length_penalty", 1.0)}
            for settings, beams in OPTIONS
        ]
        questions = [
            (DECODE, {"cases": decoding}),
            (SEARCH, {"texts": TEXTS, "searches": searches, "isKept": True}),
            (SAMPLE, {"source": SOURCE, "seeds": [1, 1, *range(2, 12)]}),
        ]
        if name == "transformer":
            questions.append((DECODE, {"cases": [{"source": SOURCE, "target": TARGET, **case} for case in OFF_CASES]}))
        return ask_node(tiny_live_site, *((code, {"name": name, **rest}) for code, rest in questions))

    return ask


@needs_runtime
@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_logits_and_weights_are_those_of_pytorch_with_and_without_memory(answers, name):
    results = answers(name)[0]
    with torch.no_grad():
        ids = {"input_ids": torch.tensor([SOURCE]), "decoder_input_ids": torch.tensor([TARGET])}
        wanted = TINY[name]()(**ids, output_attentions=True)
    for case, result in zip(CASES, results, strict=True):
        last = len(case.get("target", TARGET)) - 1
        np.testing.assert_allclose(result["logits"], wanted.logits[0, last].numpy(), atol=1e-3)
    trace = results[1]["trace"]
    if wanted.cross_attentions:
        weights = torch.cat(wanted.cross_attentions).numpy()
        np.testing.assert_allclose(as_array(trace["cross.weights"]), weights, atol=1e-4)
    else:
        assert trace == {}


@needs_runtime
@pytest.mark.slow
def test_each_switch_is_its_own_input_of_the_graphs(answers, tiny_live_site):
    """What switches do is tested in test_live.py; here that each is the right one, in WebAssembly as elsewhere."""
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = tiny_live_site / "transformer"
    encoder, decoder = (onnxruntime.InferenceSession(str(folder / f"{name}.onnx")) for name in ("encoder", "decoder"))
    found = [result["logits"] for result in answers("transformer")[3]]
    empty = np.zeros((3, 4, 0, 10), np.float32)
    for case, logits in zip(OFF_CASES, found, strict=True):
        on = {name: np.ones(shape, bool) for name, shape in SWITCHES.items()}
        now = {name: np.array(value, np.float32) for name, value in (on | case["off"]).items()}
        common = {name: now[name] for name in ("positions", "scaling")}
        read = {"input_ids": np.array([SOURCE]), "heads": now["encoderHeads"], **common}
        inputs = {"input_ids": np.array([TARGET]), "source": encoder.run(["states"], read)[0], **common}
        inputs |= {"heads": now["heads"], "cross_heads": now["crossHeads"], "past_keys": empty, "past_values": empty}
        inputs |= {name: now[name] for name in ("causal", "cross")}
        np.testing.assert_allclose(logits, decoder.run(["logits"], inputs)[0], atol=1e-3)
    assert len({round(logits[7], 3) for logits in found}) == len(OFF)


@needs_runtime
@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer", "rnn-additive"])
def test_searches_write_what_generate_writes(answers, name):
    model, lengths = TINY[name](), set()
    for text, result in zip(TEXTS, answers(name)[1], strict=True):
        source = torch.tensor([ids_of(text)])
        assert result["ids"] == model.generate(source, max_new_tokens=12)[0].tolist()
        for (settings, beams), search in zip(OPTIONS, result["searches"], strict=True):
            scores = {"return_dict_in_generate": True, "output_scores": True}
            wanted = model.generate(source, max_new_tokens=12, num_beams=beams, **settings, **scores)
            assert search["ids"] == wanted.sequences[0].tolist(), (text, settings, beams)
            if beams > 1:
                assert search["score"] == pytest.approx(wanted.sequences_scores[0].item(), abs=1e-3)
            lengths.add(len(search["ids"]))
    assert len(lengths) > 2  # or the searches would have had nothing to decide


@needs_runtime
@pytest.mark.slow
def test_a_tree_shows_what_became_of_each_candidate(answers):
    trees = answers("transformer")[1][0]["searches"][OPTIONS.index(({}, 3))]["trees"]
    assert len(trees) > 2
    for step, tree in enumerate(trees, 1):
        nodes = tree["nodes"]
        assert [node["id"] for node in nodes] == list(range(1 + 6 * step))  # two candidates for each beam
        children = {node["parent"] for node in nodes if node["state"] != "pruned"}
        for node in nodes[1:]:
            parent = nodes[node["parent"]]
            assert (parent["step"], parent["state"]) == (node["step"] - 1, "alive") or node["state"] == "pruned"
            assert node["sum"] == pytest.approx(parent["sum"] + node["logProbability"])
            assert node["score"] == pytest.approx(node["sum"] / node["step"])
            assert node["state"] != "alive" or node["step"] == step or node["id"] in children
    for tree in trees[:-1]:
        assert sum(node["state"] == "alive" for node in tree["nodes"][-6:]) == 3
    finished = [node for node in trees[-1]["nodes"] if node["state"] == "finished"]
    assert trees[-1]["best"] == max(finished, key=lambda node: node["score"])["id"]


@needs_runtime
@pytest.mark.slow
def test_chance_depends_on_the_seed_alone(answers):
    results = answers("rnn-additive")[2]
    assert results[0] == results[1]
    assert len(set(results)) > 5
