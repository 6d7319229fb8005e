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

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "live"))
import build  # noqa: E402
import onnx_files  # noqa: E402, F401
import vendor  # noqa: E402

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
    request = json.dumps({"site": site.resolve().as_uri(), "modules": MODULES, "code": code, "argument": argument})
    command = ["node", str(ROOT / "tests" / "live_node.mjs")]
    result = subprocess.run(command, input=request, capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


# Functions in JavaScript

TOKENIZE = """async (live, { file, texts }) => {
    const tokenizer = live.Tokenizer.fromJSON(await (await fetch(`${live.site}/${file}`)).json());
    const results = texts.map((text) => tokenizer.encode(text));
    return results.map((result) => ({ ...result, back: tokenizer.decode(result.ids) }));
}"""

# For each case logits, and what was computed on the way if asked for; `off` are switches that differ from all on.
DECODE = """async (live, { name, cases }) => {
    const model = await live.loadModel(`${live.site}/${name}`, live.loadRuntime(`${live.site}/runtime`));
    const results = [];
    for (const { source, target, off = {}, trace = false } of cases) {
        const switches = { ...live.allOn(model), ...off };
        const encoded = await model.encode(source, switches);
        results.push({ ...(await model.decode(target, encoded, switches, { trace })), encoder: encoded.trace });
    }
    return results;
}"""

# For each text what the greedy search writes, and for each beam search its best text and its tree.
SEARCH = """async (live, { name, texts, searches = [] }) => {
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
            let tree;
            for await (tree of live.beamSearch(model, encoded, on, options));
            const path = live.pathTo(tree.nodes, tree.best);
            found.searches.push({ ...tree, ids: path, text: model.targetTokenizer.decode(path) });
        }
        results.push(found);
    }
    return results;
}"""


def as_array(values: dict) -> np.ndarray:
    """Return a table that came from JavaScript."""
    return np.array(values["data"], np.float32).reshape(values["dims"])
