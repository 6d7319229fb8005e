"""The modules of the live page without a page (docs/live/*.js), run by node: ids, logits and texts are ours."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

pytest.importorskip("onnxscript")
from live_site import (  # noqa: E402
    DECODE,
    ROOT,
    SEARCH,
    TOKENIZE,
    as_array,
    in_node,
    make_site,
    needs_node,
    needs_runtime,
    onnx_files,
)

from fun_transformer import (  # noqa: E402
    FunTransformerConfig,
    FunTransformerForConditionalGeneration,
    FunTransformerTokenizer,
    Seq2SeqRNNConfig,
    Seq2SeqRNNForConditionalGeneration,
)

pytestmark = needs_node
SHIPPED = ROOT / "hub_configs"
AWKWARD = "▁ \t\u3000\u00a0e\u0301ÅΣςİßABc12３,。！「」😀\u200d\ufeffあア한\u1112\u1161$€+^&<>{}[]/|-_…’न\u093c\x85\x1c々ⅷ²"


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


def lively(model):
    """Make the weights large enough for a model to prefer one token to another."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3.0)
    return model.eval()


def tiny_transformer():
    torch.manual_seed(3)
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 4}
    model = lively(FunTransformerForConditionalGeneration(FunTransformerConfig(**sizes, **heads, vocab_size=23)))
    onnx_files.round_weights(model)
    return model


def tiny_rnn(attention_score):
    torch.manual_seed(5)
    config = Seq2SeqRNNConfig(d_model=32, vocab_size=23, attention_score=attention_score)
    return lively(Seq2SeqRNNForConditionalGeneration(config))


TINY = {
    "transformer": tiny_transformer,
    "rnn-none": lambda: tiny_rnn("none"),
    "rnn-additive": lambda: tiny_rnn("additive"),
}
LETTERS, WORDS = "abcdefgh▁", [f"▁{word}" for word in "ABCDEFGHI"]
PIECES = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", *LETTERS, *WORDS]
TEXTS = ["abc", "Bad cafe", "dead", "e", "abcdefgh"]
SEARCHES = {
    "plain": {},
    "short": {"length_penalty": 0.0},
    "long": {"length_penalty": 2.0},
    "eager": {"early_stopping": True},
    "never": {"early_stopping": "never"},
    "fresh": {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page with the tiny models, which read letters and write words."""
    folders = []
    for name, make in TINY.items():
        model, folder = make(), tmp_path_factory.mktemp("models") / name
        backend = Tokenizer(models.WordLevel({piece: number for number, piece in enumerate(PIECES)}, "<unk>"))
        FunTransformerTokenizer.from_backend(backend, "char", "word", "source").save_pretrained(folder)
        model.generation_config.update(max_new_tokens=12)
        model.save_pretrained(folder)
        folders.append(folder)
    return make_site(tmp_path_factory.mktemp("site"), *folders)


def ids_of(text):
    """Return a source as the tiny models' tokenizer gives it."""
    return [*(PIECES.index(letter) for letter in text.lower().replace(" ", "▁")), 2]


@needs_runtime
@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_logits_and_weights_are_those_of_pytorch(site, name):
    model, source, target = TINY[name](), ids_of("bad cafe"), [1, 17, 18, 15]
    cases = [{"source": source, "target": target, "trace": trace} for trace in (False, True)]
    quick, traced = in_node(site, DECODE, {"name": name, "cases": cases})
    if name == "transformer":
        model.set_attn_implementation("eager")
    with torch.no_grad():
        ids = {"input_ids": torch.tensor([source]), "decoder_input_ids": torch.tensor([target])}
        wanted = model(**ids, output_attentions=True)
    np.testing.assert_allclose(quick["logits"], wanted.logits[0, -1].numpy(), atol=1e-3)
    np.testing.assert_allclose(traced["logits"], wanted.logits[0, -1].numpy(), atol=1e-3)
    if name == "rnn-none":
        assert traced["trace"] == {}
    else:
        weights = torch.cat(wanted.cross_attentions).numpy()
        np.testing.assert_allclose(as_array(traced["trace"]["cross.weights"]), weights, atol=1e-4)


@needs_runtime
@pytest.mark.slow
def test_each_switch_is_its_own_input_of_the_graphs(site):
    """What a switch does is tested in test_live.py; here that the right one is switched, in WebAssembly as elsewhere."""
    onnxruntime = pytest.importorskip("onnxruntime")
    encoder, decoder = (
        onnxruntime.InferenceSession(str(site / "transformer" / f"{n}.onnx")) for n in ("encoder", "decoder")
    )
    source, target = ids_of("bad cafe"), [1, 17, 18, 15]
    rows = {"encoderHeads": (2, 2), "heads": (1, 4), "crossHeads": (1, 4)}
    off = {name: False for name in ("positions", "scaling", "causal", "cross")}
    for name, shape in rows.items():
        off[name] = np.ones(shape, bool)
        off[name][0, 1] = False
    cases = [{"source": source, "target": target}]
    cases += [{"source": source, "target": target, "off": {name: np.array(value).tolist()}} for name, value in off.items()]
    found = [result["logits"] for result in in_node(site, DECODE, {"name": "transformer", "cases": cases})]
    on = {name: np.array(1, np.float32) for name in ("positions", "scaling", "causal", "cross")}
    on |= {name: np.ones(shape, np.float32) for name, shape in rows.items()}
    empty = np.zeros((1, 4, 0, 8), np.float32)
    for case, logits in zip(cases, found, strict=True):
        now = on | {name: np.array(value, np.float32) for name, value in case.get("off", {}).items()}
        common = {name: now[name] for name in ("positions", "scaling")}
        read = {"input_ids": np.array([source]), "heads": now["encoderHeads"], **common}
        inputs = {"input_ids": np.array([target]), "source": encoder.run(["states"], read)[0], **common}
        inputs |= {"heads": now["heads"], "cross_heads": now["crossHeads"], "past_keys": empty, "past_values": empty}
        inputs |= {name: now[name] for name in ("causal", "cross")}
        np.testing.assert_allclose(logits, decoder.run(["logits"], inputs)[0], atol=1e-4)
    assert len({round(logits[7], 3) for logits in found}) == len(cases)


@needs_runtime
@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_what_is_remembered_changes_nothing(site, name):
    code = """async (live, { name, source, target }) => {
        const model = await live.loadModel(`${live.site}/${name}`, live.loadRuntime(`${live.site}/runtime`));
        const results = [];
        for (const causal of [true, false]) {
            const switches = { ...live.allOn(model), causal };
            const encoded = await model.encode(source, switches);
            for (const length of [1, 2, 3, 4, 2, 4]) {
                const ids = target.slice(0, length);
                const fresh = await model.encode(source, switches);
                const [with_, without] = [await model.decode(ids, encoded, switches), await model.decode(ids, fresh, switches)];
                results.push([with_.logits, without.logits]);
            }
        }
        return results;
    }"""
    results = in_node(site, code, {"name": name, "source": ids_of("bad"), "target": [1, 17, 18, 15]})
    for with_memory, without in results:
        np.testing.assert_allclose(with_memory, without, atol=1e-4)


@needs_runtime
@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_searches_write_what_generate_writes(site, name):
    model = TINY[name]()
    options = [(settings, beams) for settings in SEARCHES.values() for beams in (1, 2, 4)]
    searches = [
        {"beams": beams, "generation": settings, "lengthPenalty": settings.get("length_penalty", 1.0)}
        for settings, beams in options
    ]
    found = in_node(site, SEARCH, {"name": name, "texts": TEXTS, "searches": searches})
    lengths = set()
    for text, result in zip(TEXTS, found, strict=True):
        source = torch.tensor([ids_of(text)])
        assert result["ids"] == model.generate(source, max_new_tokens=12)[0].tolist()
        for (settings, beams), search in zip(options, result["searches"], strict=True):
            scores = {"return_dict_in_generate": True, "output_scores": True}
            wanted = model.generate(source, max_new_tokens=12, num_beams=beams, **settings, **scores)
            assert search["ids"] == wanted.sequences[0].tolist(), (text, settings, beams)
            if beams > 1:
                score = search["nodes"][search["best"]]["score"]
                assert score == pytest.approx(wanted.sequences_scores[0].item(), abs=1e-3)
            lengths.add(len(search["ids"]))
    assert len(lengths) > 2  # or the searches would have had nothing to decide


@needs_runtime
@pytest.mark.slow
def test_a_tree_shows_what_became_of_each_candidate(site):
    code = SEARCH.replace("let tree;\n", "let tree; const trees = [];\n").replace("options));", "options)) trees.push(tree);")
    code = code.replace("...tree, ids", "...tree, trees, ids")
    [found] = in_node(site, code, {"name": "transformer", "texts": ["bad"], "searches": [{"beams": 3}]})
    trees = found["searches"][0]["trees"]
    for step, tree in enumerate(trees, 1):
        nodes = tree["nodes"]
        assert [node["id"] for node in nodes] == list(range(len(nodes)))
        newest = [node for node in nodes if node["step"] == step]
        assert len(newest) == 6
        assert sum(node["state"] == "alive" for node in newest) == (3 if step < len(trees) else len(trees) < 12 and 3)
        for node in nodes[1:]:
            parent = nodes[node["parent"]]
            assert node["sum"] == pytest.approx(parent["sum"] + node["logProbability"])
            assert node["score"] == pytest.approx(node["sum"] / node["step"])
            assert parent["state"] == "alive" or node["state"] == "pruned"
        children = {node["parent"] for node in nodes if node["state"] != "pruned"}
        for node in nodes:
            assert node["state"] != "alive" or node["step"] == step or node["id"] in children


@needs_runtime
@pytest.mark.slow
def test_chance_depends_on_the_seed_alone(site):
    code = """async (live, { seeds }) => {
        const model = await live.loadModel(`${live.site}/transformer`, live.loadRuntime(`${live.site}/runtime`));
        const encoded = await model.encode([5, 6, 2], live.allOn(model));
        const results = [];
        for (const seed of seeds) {
            const written = [];
            const options = { temperature: 2, topP: 0.9, seed };
            for await (const step of live.sample(model, encoded, live.allOn(model), options)) written.push(step.chosen);
            results.push(written.join(" "));
        }
        return results;
    }"""
    results = in_node(site, code, {"seeds": [1, 1, *range(2, 12)]})
    assert results[0] == results[1]
    assert len(set(results)) > 5


@needs_runtime
@pytest.mark.slow
def test_the_shipped_model_writes_what_generate_writes(tmp_path):
    from transformers import AutoTokenizer

    folder = SHIPPED / "zh-en-small"
    if not (folder / "model.safetensors").is_file():
        pytest.skip("a wheel has no weights")
    sentences = ["今天吃什么好", "我不知道他什么时候来。", "她在图书馆里看书。", "请把窗户关上。", "你会说中文吗？"]
    site = make_site(tmp_path, folder)
    searches = [{"beams": 5}, {"beams": 3, "lengthPenalty": 0.2}]
    found = in_node(site, SEARCH, {"name": "zh-en-small", "texts": sentences, "searches": searches})
    model = FunTransformerForConditionalGeneration.from_pretrained(folder).float().eval()
    onnx_files.round_weights(model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scores = {"return_dict_in_generate": True, "output_scores": True}
    for text, result in zip(sentences, found, strict=True):
        inputs = tokenizer(text, return_tensors="pt")
        greedy = model.generate(**inputs, num_beams=1)[0]
        assert result["text"] == tokenizer.decode(greedy, skip_special_tokens=True)
        for (beams, penalty), search in zip([(5, 1.0), (3, 0.2)], result["searches"], strict=True):
            wanted = model.generate(**inputs, num_beams=beams, length_penalty=penalty, **scores)
            assert search["text"] == tokenizer.decode(wanted.sequences[0], skip_special_tokens=True)
            score = search["nodes"][search["best"]]["score"]
            assert score == pytest.approx(wanted.sequences_scores[0].item(), abs=1e-3)
