"""The live page in Chromium: `make test-live`, or `CHROMIUM=/path/to/chromium pytest tests/test_live_browser.py -s`.

Skipped without playwright (`pip install playwright`) and without a Chromium: $CHROMIUM, or what `playwright install
chromium` has put where playwright looks.
"""

import functools
import http.server
import json
import os
import statistics
import threading

import numpy as np
import pytest
import torch

pytest.importorskip("onnxscript")
playwright = pytest.importorskip("playwright.sync_api")
from live_site import DECODE, MODULES, ROOT, SEARCH, build, make_site, needs_runtime, onnx_files  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from fun_transformer import FunTransformerForConditionalGeneration  # noqa: E402

pytestmark = [pytest.mark.slow, needs_runtime]
MODELS = [ROOT / "hub_configs" / name for name in build.MODELS]
MODELS = [folder for folder in MODELS if (folder / "model.safetensors").is_file()]
SENTENCES = ["今天吃什么好", "我不知道他什么时候来。", "如果明天下雨，我们就在家里看电影，不去公园了。"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files, as `python -m http.server` is, that says nothing."""

    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def live_url(tmp_path_factory):
    """The address of the page, with the shipped models, as `python -m http.server` serves it."""
    site = make_site(tmp_path_factory.mktemp("live"), *MODELS)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window."""
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(
                executable_path=os.environ.get("CHROMIUM") or None, args=["--no-sandbox", "--disable-gpu"]
            )
        except playwright.Error as error:
            pytest.skip(f"There is no Chromium: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """An empty tab; the test fails on errors that it writes to its console."""
    page, errors = browser.new_page(), []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert errors == []


def in_chromium(page, url, code, argument=None):
    """Return what a function of the page's modules gives for an argument, as `live_site.in_node` does."""
    empty = '<link rel="icon" href="data:,">'  # or the browser would ask for one
    page.route("**/empty.html", lambda route: route.fulfill(content_type="text/html", body=empty))
    page.goto(f"{url}/empty.html")
    run = """async ([code, argument, names]) => {
        const modules = await Promise.all(names.map((name) => import(`/${name}.js`)));
        const live = Object.assign({ site: location.origin }, ...modules);
        const result = await (0, eval)(`(${code})`)(live, argument);
        return JSON.stringify(result, (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value));
    }"""
    return json.loads(page.evaluate(run, [code, argument, list(MODULES)]))


@pytest.fixture(scope="session")
def shipped():
    """The model that the page shows first, with weights as the page has them, and its tokenizer."""
    folder = ROOT / "hub_configs" / "zh-en-small"
    model = FunTransformerForConditionalGeneration.from_pretrained(folder).float().eval()
    onnx_files.round_weights(model)
    return model, AutoTokenizer.from_pretrained(folder)


def test_logits_in_the_browser_are_those_of_pytorch(page, live_url, shipped):
    model, tokenizer = shipped
    source, target = tokenizer(SENTENCES[0]).input_ids, [1, *tokenizer("What's for").input_ids[:-1]]
    cases = [{"source": source, "target": target, "trace": trace} for trace in (False, True)]
    with torch.no_grad():
        ids = {"input_ids": torch.tensor([source]), "decoder_input_ids": torch.tensor([target])}
        wanted = model(**ids).logits[0, -1].numpy()
    for result in in_chromium(page, live_url, DECODE, {"name": "zh-en-small", "cases": cases}):
        difference = np.abs(np.array(result["logits"]) - wanted).max()
        print(f"largest difference of logits: {difference:.1e}")
        assert difference < 1e-3


def test_texts_in_the_browser_are_those_of_generate(page, live_url, shipped):
    model, tokenizer = shipped
    found = in_chromium(
        page, live_url, SEARCH, {"name": "zh-en-small", "texts": SENTENCES, "searches": [{"beams": 5}]}
    )
    for text, result in zip(SENTENCES, found, strict=True):
        inputs = tokenizer(text, return_tensors="pt")
        for beams, written in ((1, result), (5, result["searches"][0])):
            wanted = model.generate(**inputs, num_beams=beams)[0]
            assert written["text"] == tokenizer.decode(wanted, skip_special_tokens=True)
    print("milliseconds a token, greedy:", [round(result["milliseconds"], 1) for result in found])


def test_how_long_it_takes(page, live_url):
    code = """async (live, { text }) => {
        const begin = performance.now();
        const model = await live.loadModel(`${live.site}/zh-en-small`, live.loadRuntime(`${live.site}/runtime`));
        const loaded = performance.now() - begin;
        const on = live.allOn(model);
        const encoded = await model.encode(model.sourceTokenizer.encode(text).ids, on);
        const [quick, traced] = [[], []];
        let before = performance.now();
        for await (const step of live.greedy(model, encoded, on)) {
            quick.push(performance.now() - before);
            const start = performance.now();
            await model.decode(step.prefix, encoded, on, { trace: true });
            traced.push(performance.now() - start);
            before = performance.now();
        }
        return { loaded, quick, traced };
    }"""
    times = in_chromium(page, live_url, code, {"text": SENTENCES[2]})
    quick, traced = times["quick"], times["traced"]
    print(
        f"model loaded in {times['loaded']:.0f} ms; a token in {statistics.median(quick):.1f} ms (median of", end=" "
    )
    print(f"{len(quick)}, at most {max(quick):.1f}); with all numbers in {statistics.median(traced[1:]):.1f} ms")
    assert len(quick) == len(traced) > 5
