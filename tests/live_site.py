"""The folder of the live page for tests, and its modules run by node.

What a test asks is a function in JavaScript, `async (live, argument) => result`: `live` has all that the modules
export, and `live.site`, the address of the folder. tests/test_live_browser.py runs the same functions in Chromium.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models

from fun_transformer import (
    FunTransformerConfig,
    FunTransformerForConditionalGeneration,
    FunTransformerTokenizer,
    Seq2SeqRNNConfig,
    Seq2SeqRNNForConditionalGeneration,
)

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "live"))
import build  # noqa: E402  isort: skip
import onnx_files  # noqa: E402  isort: skip
import vendor  # noqa: E402  isort: skip

CACHE = ROOT / "build" / "npm"
MODULES = ("tokenizer", "model", "search", "runtime")
FIRST_NODE = 20  # that knows the flag v of regular expressions


def has_runtime() -> bool:
    """Tell whether ONNX Runtime Web has been loaded: `python docs/live/build.py` does it."""
    return (CACHE / f"onnxruntime-web-{vendor.VERSION}.tgz").is_file()


def has_node() -> bool:
    """Tell whether there is a node that is new enough."""
    if shutil.which("node") is None:
        return False
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"\d+", version)[0]) >= FIRST_NODE


needs_node = pytest.mark.skipif(not has_node(), reason=f"node {FIRST_NODE} or newer runs the page's modules")
needs_runtime = pytest.mark.skipif(not has_runtime(), reason="python docs/live/build.py loads ONNX Runtime Web")


def make_site(site: Path, *models: Path, with_runtime: bool = True) -> Path:
    """Write the folder of the page with these models; without the runtime where it has never been loaded."""
    for model in models:
        build.build(model, site)
    build.write_pages(site)
    (site / "package.json").write_text('{"type": "module"}')  # for node
    if with_runtime and has_runtime():
        vendor.write_runtime(site / "runtime", CACHE)
    return site


def in_node(site: Path, code: str, argument=None):
    """Return what a function gives for an argument."""
    return ask_node(site, (code, argument))[0]


def ask_node(site: Path, *questions: tuple) -> list:
    """Return what functions give, each for its argument, all in one process: the runtime takes a second to start."""
    asked = [{"code": code, "argument": argument} for code, argument in questions]
    request = json.dumps({"site": site.resolve().as_uri(), "modules": MODULES, "questions": asked})
    command = ["node", str(ROOT / "tests" / "live_node.mjs")]
    result = subprocess.run(command, input=request, capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


# Tiny models that read letters and write words, with weights large enough to prefer one token to another


def lively(model):
    """Return a model in eval mode after its matrices have grown."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(2.0)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def tiny_transformer(position_embedding_type="sinusoidal"):
    """Return a Transformer of rounded weights, always the same one; every size in it is another number."""
    torch.manual_seed(13)  # of texts of several lengths
    sizes = {"d_model": 40, "encoder_ffn_dim": 48, "decoder_ffn_dim": 56, "vocab_size": len(PIECES)}
    layers = {"encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 2, "decoder_attention_heads": 4}
    config = FunTransformerConfig(**sizes, **layers, position_embedding_type=position_embedding_type)
    model = lively(FunTransformerForConditionalGeneration(config))
    model.set_attn_implementation("eager")
    onnx_files.round_weights(model)
    return model


def tiny_rnn(**fields):
    """Return an RNN, always the same one for the same fields."""
    torch.manual_seed(5)
    config = Seq2SeqRNNConfig(d_model=32, vocab_size=len(PIECES), **fields)
    return lively(Seq2SeqRNNForConditionalGeneration(config))


LETTERS, WORDS = "abcdefgh▁", [f"▁{word}" for word in "ABCDEFGHI"]
PIECES = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", *LETTERS, *WORDS]
TINY = {
    "transformer": tiny_transformer,
    "rnn-none": lambda: tiny_rnn(attention_score="none", cell="gru", encoder_layers=1),
    "rnn-additive": lambda: tiny_rnn(attention_score="additive", decoder_layers=1),
}


def ids_of(text: str) -> list[int]:
    """Return a source as the tiny models' tokenizer gives it."""
    return [*(PIECES.index(letter) for letter in text.lower().replace(" ", "▁")), 2]


def make_tiny_site(folder: Path) -> Path:
    """Write the folder of the page with the tiny models."""
    folders = []
    for name, make in TINY.items():
        model = make()
        backend = Tokenizer(models.WordLevel({piece: number for number, piece in enumerate(PIECES)}, "<unk>"))
        FunTransformerTokenizer.from_backend(backend, "char", "word", "source").save_pretrained(folder / name)
        model.generation_config.update(max_new_tokens=12)
        model.save_pretrained(folder / name)
        folders.append(folder / name)
    return make_site(folder / "site", *folders)


# Functions in JavaScript

TOKENIZE = """async (live, { file, texts }) => {
    const tokenizer = live.Tokenizer.fromJSON(await (await fetch(`${live.site}/${file}`)).json());
    const results = texts.map((text) => tokenizer.encode(text));
    return results.map((result) => ({ ...result, back: tokenizer.decode(result.ids) }));
}"""

# For each case logits, and what was computed on the way if asked for; `off` are switches that differ from all on.
# Cases of equal sources and switches share what the decoder remembers.
DECODE = """async (live, { name, cases }) => {
    const model = await live.loadModel(`${live.site}/${name}`, live.loadRuntime(`${live.site}/runtime`));
    const results = [];
    const known = new Map();
    for (const { source, target, off = {}, trace = false } of cases) {
        const switches = { ...live.allOn(model), ...off };
        const key = JSON.stringify([source, off]);
        if (!known.has(key)) known.set(key, await model.encode(source, switches));
        const encoded = known.get(key);
        results.push({ ...(await model.decode(target, encoded, switches, { trace })), encoder: encoded.trace });
    }
    return results;
}"""

# For each text what the greedy search writes, and for each beam search its best text and its tree.
SEARCH = """async (live, { name, texts, searches = [], isKept = false }) => {
    const model = await live.loadModel(`${live.site}/${name}`, live.loadRuntime(`${live.site}/runtime`));
    const on = live.allOn(model);
    const settings = model.generation;
    const results = [];
    for (const text of texts) {
        const { ids } = model.sourceTokenizer.encode(text);
        const encoded = await model.encode(ids, on);
        const start = performance.now();
        const written = [model.startId];
        for await (const step of live.greedy(model, encoded, on)) written.push(step.chosen);
        const milliseconds = (performance.now() - start) / (written.length - 1);
        const found = { ids: written, text: model.targetTokenizer.decode(written), milliseconds, searches: [] };
        for (const { generation, ...options } of searches) {
            model.generation = { ...settings, ...generation };
            const trees = [];
            for await (const tree of live.beamSearch(model, encoded, on, options)) trees.push(tree);
            const { nodes, best } = trees[trees.length - 1];
            const path = live.pathTo(nodes, best);
            const { score } = nodes[best];
            const text = model.targetTokenizer.decode(path);
            found.searches.push({ score, ids: path, text, trees: isKept ? trees : [] });
        }
        model.generation = settings;
        results.push(found);
    }
    return results;
}"""


def as_array(values: dict) -> np.ndarray:
    """Return a table that came from JavaScript."""
    return np.array(values["data"], np.float32).reshape(values["dims"])
