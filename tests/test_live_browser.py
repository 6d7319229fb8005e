"""The live page in Chromium: `make test-live`, or `CHROMIUM=/path/to/chromium pytest tests/test_live_browser.py -s`.

Skipped without playwright (`pip install playwright`) and without a Chromium: $CHROMIUM, or what `playwright install
chromium` has put where playwright looks.
"""

import functools
import http.server
import json
import os
import re
import statistics
import threading
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

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
    built = os.environ.get("LIVE_SITE")  # a folder that build.py has made, to save its minute
    site = Path(built) if built else make_site(tmp_path_factory.mktemp("live"), *MODELS)
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


def listen(page, errors):
    """Collect the errors that a page writes to its console."""
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))


@pytest.fixture
def page(browser):
    """An empty tab; the test fails on errors that it writes to its console."""
    page, errors = browser.new_page(), []
    listen(page, errors)
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


# The page

# Follow a link to an address of the same page.
FOLLOW = """address => new Promise((resolve) => {
    if (location.hash === `#${address}`) return resolve();
    addEventListener("hashchange", () => setTimeout(resolve), { once: true });
    location.hash = address;
})"""


@pytest.fixture(scope="module")
def opened(browser, live_url):
    """The page, opened once, and the errors that it has written to its console."""
    page, errors = browser.new_page(), []
    listen(page, errors)
    page.goto(f"{live_url}/index.html")
    yield settle(page), errors
    page.close()


@pytest.fixture
def visit(opened):
    """A function that gives the page a state, as a link does, and waits until all of it is computed."""
    page, errors = opened

    def visit(size=(1280, 900), **state):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.evaluate(FOLLOW, urlencode({"lang": "en", **state}))
        return settle(page)

    errors.clear()
    yield visit
    assert errors == []


def settle(page):
    """Wait until nothing is computed any more."""
    page.wait_for_selector("main[aria-busy=false]", timeout=180_000)
    return page


def click(page, selector):
    """Click, and wait for what follows from it."""
    page.click(selector)
    return settle(page)


def current_step(page):
    """Return the step that is shown, such as "dec.2"."""
    return page.get_attribute("#timeline [aria-current]", "data-step")


def outputs(page):
    """Return the output, after the one before where something is switched off."""
    return page.locator("#output dd").all_inner_texts()


@pytest.mark.parametrize(("settings", "beams"), [({}, 1), ({"method": "beam", "beams": 5}, 5)])
def test_the_page_writes_what_generate_writes(visit, shipped, settings, beams):
    model, tokenizer = shipped
    for text in SENTENCES:
        wanted = model.generate(**tokenizer(text, return_tensors="pt"), num_beams=beams)[0]
        assert outputs(visit(text=text, **settings)) == [tokenizer.decode(wanted, skip_special_tokens=True)]


def test_tokens_are_drawn_before_the_model_is_there(page, live_url):
    page.route("**/weights.bin", lambda route: None)  # never answered
    page.goto(f"{live_url}/index.html#lang=zh")
    page.wait_for_selector(".piece")
    print(f"first picture after {page.evaluate('performance.now()'):.0f} ms")
    assert page.locator(".piece b").all_inner_texts()[-1] == "</s>"
    assert "zh-en-small" in page.inner_text("#status")


def test_steps_go_forwards_and_backwards(visit):
    page = visit()
    steps = [current_step(page)]
    forward, right, back = "#forward", "ArrowRight", "#back"
    for press in (lambda: page.click(forward), lambda: page.keyboard.press(right), lambda: page.click(back)):
        press()
        steps.append(current_step(settle(page)))
    page.go_back()
    page.wait_for_function("document.querySelector('[aria-current]').dataset.step === 'enc.1'")
    assert steps == ["tokens", "embed", "enc.1", "embed"]
    click(page, ".step-end")
    assert page.is_disabled("#forward")


def test_play_goes_on_by_itself(visit):
    page = visit(step="dec.3")
    page.click("#play")
    page.wait_for_function("document.querySelector('[aria-current]').dataset.step === 'dec.4'")
    assert page.get_attribute("#play", "aria-pressed") == "true"
    page.click("#play")
    assert page.get_attribute("#play", "aria-pressed") == "false"


def test_an_address_brings_everything_back(visit):
    page = visit(step="dec.2", layer=0, open="self", method="beam", beams=2, off="enc.1.1_cross.1.2")
    click(page, ".thumb[data-key='thumb-self.1.3']")
    click(page, "[data-key='head-query-0']")
    address = page.url
    seen = [page.inner_text(place) for place in ("#stage", "#output", "#tree", "#switches")]
    page.goto("about:blank")  # another address of the same page would not load it again
    page.goto(address)
    settle(page)
    assert [page.inner_text(place) for place in ("#stage", "#output", "#tree", "#switches")] == seen
    assert page.is_checked("#method-beam, [data-key='method-beam']")
    assert "head 3" in page.inner_text(".head-title")


@pytest.mark.parametrize(
    "address", ["step=dec.99", "head=enc.9.9", "model=none&step=enc.77", "beams=x&off=nothing", "layer=50&step=dec.1"]
)
def test_an_address_that_makes_no_sense_does_no_harm(visit, address):
    page = visit(**dict(parse_qsl(address)))
    assert page.inner_text("#stage h2")
    assert outputs(page) != [""]


def test_all_of_the_page_is_in_both_languages(visit):
    page = visit(step="dec.2", method="beam")
    english = page.inner_text("body")
    click(page, "#language")
    chinese = page.inner_text("body")
    assert page.get_attribute("html", "lang") == "zh-CN"
    sentences = {line for line in english.splitlines() if len(re.findall("[a-z]{3,}", line)) > 3}
    same = sentences & set(chinese.splitlines())
    assert same == set()
    assert not re.findall(r"\{\w+\}|\b(?:next|head|box|tour|beams)\.[a-z]", english + chinese)


@pytest.mark.parametrize("switch", ["causal", "scaling", "positions", "cross"])
def test_a_switch_changes_what_is_computed(visit, switch):
    page = visit(step="dec.3", text=SENTENCES[2])
    picture = "document.querySelector('#heads .heads-group:last-of-type').querySelectorAll('canvas')[8].toDataURL()"
    before, was = outputs(page), page.evaluate(picture)
    click(page, f"[data-key='switch-{switch}']")
    both = outputs(page)
    assert both[0] == before[0]
    assert page.locator("#output dt").all_inner_texts() == ["Output before", "Output now"]
    assert both[1] != both[0] or page.evaluate(picture) != was
    click(page, "[data-key='all-on']")
    assert outputs(page) == before


def test_a_head_can_be_switched_off_where_it_is_opened(visit):
    page = visit(step="enc.1", head="enc.1.1")
    click(page, "[data-key='head-switch']")
    assert "off=enc.1.1" in page.url
    assert "switched off" in page.inner_text(".sum")
    assert page.locator("#heads .thumb.off").count() == 1
    assert len(outputs(page)) == 2


def test_a_token_can_be_forced(visit):
    page = visit(step="dec.2")
    first = outputs(page)
    second = page.locator(".bar:not(.chosen)").first
    name = second.locator(".bar-name").inner_text()
    second.click()
    settle(page)
    assert page.locator(".bar.chosen .bar-name").inner_text() == name
    assert page.locator("#timeline .step-dec").nth(1).inner_text() == name
    assert outputs(page)[0] == first[0] != outputs(page)[1]
    click(page, "[data-key='unforce']")
    assert outputs(page) == first


def test_sampling_follows_its_seed(visit):
    settings = {"method": "sample", "temperature": 1.5, "topP": 1}
    texts = [outputs(visit(seed=seed, **settings))[0] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_the_tree_grows_with_the_steps(visit):
    page = visit(method="beam", beams=3, step="dec.1")
    counts = []
    for step in ("dec.1", "dec.2", "end"):
        click(page, f"[data-step='{step}']")
        counts.append(page.locator(".node").count())
    assert counts[:2] == [1 + 6, 1 + 6 + 6]
    assert counts[2] > counts[1]
    assert page.locator(".node.pruned").count() > 3
    assert page.locator("table.finished tbody tr").first.locator("th").inner_text() == outputs(page)[0]
    page.locator(".node.best").last.hover()
    assert "score = " in page.inner_text("#tree .readout")


def test_the_numbers_of_a_head_are_those_of_the_graph(visit, live_url):
    page = visit(step="dec.4", head="self.2.3", query=2)
    shares = page.locator(".scores .weight").all_inner_texts()
    wanted = page.evaluate("""async () => {
        const { loadModel, allOn } = await import("/model.js");
        const { loadRuntime } = await import("/runtime.js");
        const model = await loadModel("zh-en-small", loadRuntime("runtime"));
        const on = allOn(model), encoded = await model.encode(model.sourceTokenizer.encode("今天吃什么好").ids, on);
        const { greedy } = await import("/search.js");
        const ids = [model.startId];
        for await (const step of greedy(model, encoded, on, { maxLength: 3 })) ids.push(step.chosen);
        const { dims, data } = (await model.decode(ids, encoded, on, { trace: true })).trace["self.weights"];
        const place = ((1 * dims[1] + 2) * dims[2] + 2) * dims[3];
        return [...data.slice(place, place + dims[3])];
    }""")
    assert [float(share.strip(" %<")) for share in shares] == pytest.approx([100 * one for one in wanted], abs=0.06)
    assert "−∞" in page.locator(".scores tr.masked").first.inner_text()


def test_the_keyboard_reaches_numbers_and_leaves_the_step_alone(visit):
    page = visit(step="enc.2", open="self.norm")
    page.focus("[data-key='states-sum']")
    page.keyboard.press("ArrowRight")
    said = page.inner_text("#readout-states-sum")
    page.keyboard.press("ArrowDown")
    assert "dimension 1" in said
    assert page.inner_text("#readout-states-sum") != said
    page.keyboard.press("Enter")
    assert "x + f(x)" in page.inner_text(".detail")
    assert current_step(page) == "enc.2"


def test_the_tour_lights_a_part_at_each_step(visit):
    page = visit(tour=1)
    texts = set()
    for number in range(1, 100):
        assert page.locator(".tour-light").is_visible(), number
        light, card = (page.locator(place).bounding_box() for place in (".tour-light", ".tour-card"))
        assert light["width"] > 20 and light["height"] > 15, number
        assert card["x"] >= 0 and card["x"] + card["width"] <= 1280, number
        assert card["y"] >= 0 and card["y"] + card["height"] <= 900, number
        texts.add(page.inner_text(".tour-card p"))
        if page.inner_text(".tour-buttons span") == f"{number} / {number}":
            break
        page.keyboard.press("ArrowRight")
        settle(page)
    assert 18 <= number <= 25
    assert len(texts) == number
    page.keyboard.press("Escape")
    assert page.locator(".tour-card").count() == 0


def test_the_tour_gives_back_what_was_there_before(visit):
    page = visit(text=SENTENCES[1], step="enc.2", method="beam", beams=2, off="positions")
    address, output = page.url, outputs(page)
    click(page, "#start-tour")
    assert outputs(page) != output
    for key in ("ArrowRight", "Escape"):
        page.keyboard.press(key)
        settle(page)
    assert page.url == address
    assert outputs(page) == output


def test_language_and_colours_are_no_steps_back(visit):
    page = visit(step="enc.2")
    before = page.evaluate("history.length")
    for button in ("#language", "#theme"):
        click(page, button)
    assert page.evaluate("history.length") == before
    assert page.get_attribute("html", "lang") == "zh-CN"


def test_texts_say_what_is_off(visit):
    page = visit(step="dec.3", off="causal_cross")
    words = page.inner_text("#stage")
    assert "Cross-attention (off)" in words and "Self-attention (mask off)" in words
    assert "not added" in words and "looks at the source" not in words
    assert page.locator("#heads .heads-group:last-of-type .thumb:not(.off)").count() == 0
    page = visit(step="dec.3", off="causal", head="self.1.1")
    assert "hides later tokens" not in page.inner_text("#stage")
    page = visit(step="end", off="cross")
    assert "new look" not in page.inner_text("#stage")
    assert page.locator("#stage .matrix").count() == 0  # of what looked where


def test_bytes_are_written_as_a_text(visit):
    page = visit(forced="200_201")  # two bytes that are no character
    assert "<0x" not in outputs(page)[1]
    assert "<0x" in page.inner_text("#timeline")


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"step": "embed"},
        {"step": "enc.3"},
        {"step": "enc.1", "open": "ffn"},
        {"step": "dec.3"},
        {"step": "enc.1", "head": "enc.1.1"},
        {"step": "end", "method": "beam"},
        {"tour": 5},
    ],
)
@pytest.mark.parametrize("lang", ["zh", "en"])
def test_a_phone_needs_no_scrolling_sideways(visit, state, lang):
    page = visit(size=(390, 844), lang=lang, text=SENTENCES[2], **state)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(
    "state",
    [{"step": "tokens"}, {"step": "dec.2"}, {"step": "enc.1", "head": "enc.1.1"}, {"step": "end", "method": "beam"}],
)
def test_everything_that_can_be_used_has_a_name(visit, state):
    nameless = visit(**state).evaluate("""() => {
        const named = (element) => element.ariaLabel || element.textContent.trim() || element.labels?.length;
        const used = [...document.querySelectorAll("button, input, select, [tabindex='0'], [role=dialog]")];
        const missing = used.filter((element) => element.offsetParent && !named(element));
        return missing.map((element) => element.outerHTML.slice(0, 100));
    }""")
    assert nameless == []


def test_errors_are_said_in_words(visit):
    page = visit()
    page.fill("#text", "  ")
    click(page, "#ask button[type=submit]")
    assert "no text" in page.inner_text("#error")
    page.fill("#text", "今天" * 100)
    click(page, "#ask button[type=submit]")
    assert "at most" in page.inner_text("#error")
    assert page.locator(".piece").count() > 48


def test_a_missing_file_is_named(browser, live_url):
    page = browser.new_page()  # the browser itself complains, too
    page.route("**/weights.bin", lambda route: route.fulfill(status=404))
    page.goto(f"{live_url}/index.html#lang=en")
    settle(page)
    assert "weights.bin" in page.inner_text("#error")
    assert "build.py" in page.inner_text("#error")
    page.close()


LETTERS = [folder.name for folder in MODELS if folder.name != "zh-en-small"]


@pytest.mark.skipif(not LETTERS, reason="no model of letters ships yet")
@pytest.mark.parametrize("name", LETTERS)
def test_a_model_of_letters_writes_phonemes(visit, name):
    folder = ROOT / "hub_configs" / name
    page = visit(model=name, text="phone", step="dec.2")
    assert current_step(page) == "dec.2"
    assert outputs(page) == ["F OW N"], folder


@pytest.mark.skipif(not LETTERS, reason="no model of letters ships yet")
def test_a_model_says_that_it_does_not_know_a_character(visit):
    page = visit(model=LETTERS[0], text="猫")
    assert "<unk>" in page.inner_text("#output .note") and "<unk>" in page.inner_text(".view-tokens > .note")
    assert visit(model=LETTERS[0], text="cat").locator("#output .note").count() == 0


@pytest.mark.skipif(len(LETTERS) < 2, reason="fewer than two models of letters ship")
def test_models_are_compared_side_by_side(visit):
    page = visit(model=LETTERS[0], text="phone")
    page.wait_for_function(f"document.querySelectorAll('.compare-column .target').length === {len(LETTERS)}")
    assert page.locator(".compare-column .target").all_inner_texts() == ["F OW N"] * len(LETTERS)
