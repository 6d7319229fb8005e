"""The attention page as a reader has it: in headless Chromium tokens are clicked and the highlighted ones read."""

import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch

pytest.importorskip("matplotlib")

from fun_transformer.analysis import AttentionMap, cross_attention
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer
from fun_transformer.visualization import plot_attention, plot_attention_heads, write_attention_page
from fun_transformer.visualization.html import language_of

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: apt-get install chromium")
SOURCE, TARGET = ["今天", "吃", "</script>", "&lt;"], ["what", "to eat"]

# What the tests say to the page.
STEPS = """
const token = (side, index) => document.querySelector(`[data-side="${side}"][data-index="${index}"]`);
const all = side => [...document.querySelectorAll(`[data-side="${side}"]`)];
const read = side => all(side).map(button => button.dataset.weight ?? null);
const choose = (id, value) => {
  document.getElementById(id).value = value;
  document.getElementById(id).dispatchEvent(new Event("change"));
};
const press = key => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const said = () => document.getElementById("said").textContent;
"""


def explore(page, steps, *flags):
    """Open a page in a browser without a window, run JavaScript in it, and return the object `found` it filled."""
    lines = f"{{ const found = {{}}; {STEPS} {steps}\ndocument.title = JSON.stringify(found); }}"
    script = f'<script type="module">{lines}</script>'  # a module: after that of the page
    changed = page.with_name("explored.html")
    changed.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{script}</body>"), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *flags, "--dump-dom"]
    command += [f"--user-data-dir={page.parent / 'profile'}", changed.as_uri()]
    output = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    title = re.search("<title>(.*?)</title>", output).group(1)
    return json.loads(title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


def rows(*values):
    """Weights (1, query_len, key_len) of one head."""
    return torch.tensor([values])


@pytest.fixture
def attention_map():
    """Two layers of two heads, with weights that tell layer, head, query and key apart."""
    one = rows([0.7, 0.2, 0.1, 0.0], [0.0, 0.1, 0.2, 0.7])
    other = rows([0.1, 0.4, 0.5, 0.0], [0.25, 0.25, 0.25, 0.25])
    cross = torch.stack([torch.cat([one, one]), torch.cat([one, other])])  # (layers, heads, target_len, source_len)
    encoder = torch.eye(4).flip(0).expand(3, 1, 4, 4)
    decoder = torch.tensor([[1.0, 0.0], [0.25, 0.75]]).expand(2, 1, 2, 2)
    return AttentionMap("今天吃", "what to eat", SOURCE, TARGET, cross, encoder, decoder, ["<s>", "what"])


@pytest.fixture
def page(attention_map, tmp_path):
    write_attention_page(attention_map, tmp_path / "page.html")
    return tmp_path / "page.html"


@pytest.mark.slow
@needs_browser
def test_a_clicked_token_shows_where_it_looks(page):
    found = explore(
        page,
        """
        found.before = read("key");
        token("query", 0).click();
        found.clicked = read("key");
        found.number = token("key", 0).lastChild.textContent;
        found.strength = [0, 1, 3].map(i => Number(token("key", i).style.getPropertyValue("--strength")));
        found.title = token("key", 1).title;
        found.label = token("key", 2).getAttribute("aria-label");
        found.pressed = token("query", 0).getAttribute("aria-pressed");
        found.said = said();
        token("query", 1).dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
        found.held = read("key");
        choose("head", "1"); found.head = read("key");
        choose("layer", "0"); found.layer = read("key");
        token("key", 3).click();
        found.column = [read("key"), read("query")];
        found.looked_at = said();
        press("Escape"); found.after = read("query");
        """,
    )
    assert found["before"] == ["0.1250", "0.1750", "0.2250", "0.4750"]  # of "to eat", which looks most at one word
    assert found["clicked"] == ["0.4000", "0.3000", "0.3000", "0.0000"]  # the mean of both heads of the last layer
    assert found["number"] == "40"
    assert found["strength"] == [0.632, 0.548, 0]
    assert (found["title"], found["label"]) == ("30.0 %", "</script>, 30.0 %")
    assert found["pressed"] == "true"
    assert found["said"] == "what looks at 今天 40.0 %, 吃 30.0 %, </script> 30.0 %."
    assert found["held"] == found["clicked"]
    assert found["head"] == ["0.1000", "0.4000", "0.5000", "0.0000"]
    assert found["layer"] == ["0.7000", "0.2000", "0.1000", "0.0000"]
    assert found["column"] == [[None] * 4, ["0.0000", "0.7000"]]
    assert found["looked_at"] == "&lt; is looked at by to eat 70.0 %."
    assert found["after"] == [None] * 2


@pytest.mark.slow
@needs_browser
def test_the_keyboard_is_enough(page):
    found = explore(
        page,
        """
        choose("kind", "encoder");
        const stops = () => all("query").filter(button => button.tabIndex === 0).map(button => button.dataset.index);
        found.stops = stops();
        token("query", 0).focus(); found.first = read("query");
        press("ArrowRight"); found.second = read("query");
        press("End"); found.last = read("query");
        press("ArrowRight"); found.focus = document.activeElement.dataset.index;
        found.stops_after = stops();
        choose("kind", "decoder");
        token("query", 1).focus(); found.decoder = read("query");
        """,
    )
    zero, one = "0.0000", "1.0000"
    assert found["stops"] == ["0"]
    assert found["first"] == [zero, zero, zero, one]
    assert found["second"] == [zero, zero, one, zero]
    assert found["last"] == [one, zero, zero, zero]
    assert (found["focus"], found["stops_after"]) == ("3", ["3"])
    assert found["decoder"] == ["0.2500", "0.7500"]


@pytest.mark.slow
@needs_browser
def test_the_page_opens_with_the_most_telling_token_and_thumbnails_of_all_heads(attention_map, tmp_path):
    choices = [[("what", 0.75), ("who", 0.125)], [("to", 0.5), ("to eat", 0.25)]]
    end = torch.tensor([0.0, 0.0, 0.01, 0.99]).expand(2, 2, 2, 4)  # all look at the end of the source
    keys = ["今天", "吃", "好", "</s>"]
    shown = replace(attention_map, alternatives=choices)
    write_attention_page(shown, tmp_path / "page.html")
    found = explore(
        tmp_path / "page.html",
        """
        const bars = () => [...document.querySelectorAll("#choices li")].map(item => item.textContent);
        const heads = () => [...document.querySelectorAll(".head")];
        const pressed = () => heads().filter(button => button.getAttribute("aria-pressed") === "true")
          .map(button => button.getAttribute("aria-label"));
        found.said = said();
        found.bars = bars();
        found.chosen = document.querySelector("#choices .chosen").textContent;
        found.heads = heads().map(button => [button.dataset.layer, button.dataset.head]);
        found.pressed = pressed();
        heads()[0].click();
        found.after = [pressed(), document.getElementById("layer").value, document.getElementById("head").value];
        const pixel = (n, x, y) => [...heads()[n].firstChild.getContext("2d").getImageData(x, y, 1, 1).data];
        found.pixels = [pixel(0, 3, 1), pixel(0, 3, 0)];
        token("query", 0).click();
        found.other = bars();
        press("Escape"); found.nothing = [said(), bars()];
        """,
    )
    assert found["said"].startswith("to eat looks at &lt; 47.5 %, </script> 22.5 %")
    assert found["bars"] == ["to50.0 %", "to eat25.0 %"] and found["chosen"] == "to eat25.0 %"
    assert found["heads"] == [[str(layer), head] for layer in (0, 1) for head in ("0", "1", "mean")]
    assert found["pressed"] == ["layer 1, mean of its heads"]
    assert found["after"] == [["layer 0, head 0"], "0", "0"]
    assert found["pixels"][0][0] > 150 and found["pixels"][1][:3] == [0, 34, 78]  # 0.7 is bright, 0 is dark
    assert found["other"] == ["what75.0 %", "who12.5 %"]
    assert found["nothing"] == ["No token is chosen.", []]

    write_attention_page(replace(attention_map, weights=end, source_tokens=keys), tmp_path / "page.html")
    found = explore(tmp_path / "page.html", "found.said = said();")
    assert found["said"].startswith("what looks at </s>")  # by what it looks at beside the mark


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(("scheme", "page_is_dark"), [(0, True), (1, False)])
def test_the_page_follows_the_readers_colours(page, scheme, page_is_dark):
    steps = "found.colours = [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color];"
    found = explore(page, steps, f"--blink-settings=preferredColorScheme={scheme}")
    background, text = (sum(map(int, re.findall(r"\d+", colour))) for colour in found["colours"])
    assert (background < text) == page_is_dark and abs(background - text) > 500


def test_the_page_begins_with_what_was_asked_for(attention_map, tmp_path):
    write_attention_page(attention_map, tmp_path / "page.html", layer=-1, head=0, kind="encoder")
    data = json.loads(re.search('type="application/json">(.*?)</script>', (tmp_path / "page.html").read_text())[1])
    assert (data["kind"], data["layer"], data["head"]) == ("encoder", "2", "0")
    assert data["views"]["cross"]["weights"][1][1][1] == [250, 250, 250, 250]
    assert [line["lang"] for line in data["views"]["cross"]["lines"]] == ["zh", ""]


def test_the_page_loads_nothing_from_anywhere(page):
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|\bsrc=|@import|url\(|<link", text)


def test_models_without_self_attention_have_one_kind(attention_map, tmp_path):
    lone = AttentionMap(
        *(getattr(attention_map, name) for name in ("source", "target", "source_tokens")),
        TARGET,
        attention_map.weights,
    )
    assert list(lone.views()) == ["cross"]
    write_attention_page(lone, tmp_path / "page.html")
    with pytest.raises(ValueError, match=r"The model has no encoder self-attention\. Choose one of: cross"):
        write_attention_page(lone, tmp_path / "other.html", kind="encoder")
    with pytest.raises(ValueError, match='"encodr" is no kind of attention'):
        plot_attention(lone, kind="encodr")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("text", "language"),
    [("今天", "zh"), ("the 猫", "zh"), ("猫です", "ja"), ("고양이", "ko"), ("le chat", ""), ("", "")],
)
def test_letters_tell_the_language(text, language):
    assert language_of(text) == language


@pytest.mark.parametrize("target", ["what shall we eat", None])
def test_self_attentions_are_those_of_the_models_own_pass(target, tiny_model):
    tokenizer = train_tokenizer(
        ["今天吃什么好?", "what shall we eat"] * 5, settings=TokenizerSettings(type="bpe", vocab_size=300)
    )
    model = tiny_model(vocab_size=len(tokenizer))
    options = {} if target else {"max_new_tokens": 5}
    found = cross_attention(model, tokenizer, "今天吃什么", target, **options)
    batch = tokenizer("今天吃什么", return_tensors="pt")
    if target:
        labels = tokenizer(text_target=target, return_tensors="pt").input_ids
        read = model.prepare_decoder_input_ids_from_labels(labels)
    else:
        read = model.generate(**batch, max_new_tokens=5)[:, :-1]
    model.set_attn_implementation("eager")
    expected = model(**batch, decoder_input_ids=read, output_attentions=True)
    torch.testing.assert_close(found.encoder_weights, torch.cat(expected.encoder_attentions), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.decoder_weights, torch.cat(expected.decoder_attentions), rtol=0, atol=1e-6)
    assert len(found.decoder_tokens) == read.shape[1] and found.decoder_tokens[0] == "<s>"
    assert found.decoder_tokens[1:] == found.target_tokens[:-1]


def test_alternatives_are_the_models_own_probabilities(tiny_model):
    tokenizer = train_tokenizer(["吃什么", "what to eat"] * 5, settings=TokenizerSettings(type="bpe", vocab_size=300))
    model = tiny_model(vocab_size=len(tokenizer))
    found = cross_attention(model, tokenizer, "吃什么", "what to eat")
    batch = tokenizer("吃什么", text_target="what to eat", return_tensors="pt")
    shares = model.eval()(**batch).logits[0].softmax(-1)  # (target_len, vocab_size)
    assert len(found.alternatives) == len(found.target_tokens) == len(shares)
    for row, choices, label in zip(shares, found.alternatives, batch["labels"][0].tolist()):
        written = [share for _, share in choices]
        torch.testing.assert_close(torch.tensor(written[:5]), row.topk(5).values)
        assert any(share == pytest.approx(row[label].item(), rel=1e-4) for share in written)  # the written one


def test_small_multiples_show_every_layer_and_head(attention_map):
    figure = plot_attention_heads(attention_map)
    *panels, bar = figure.axes
    assert len(panels) == 4 and bar.get_title(loc="left") == "weight"
    for panel, weights in zip(panels, attention_map.weights.flatten(0, 1)):
        torch.testing.assert_close(torch.tensor(panel.images[0].get_array()), weights)
    assert [label.get_text() for label in panels[0].get_yticklabels()] == TARGET
    assert plot_attention(attention_map, kind="decoder").axes[0].images[0].get_array().shape == (2, 2)


def test_layers_without_weights_keep_their_numbers(attention_map, tmp_path):
    found = replace(attention_map, layers={"decoder": [1, 3]})
    assert plot_attention(found, kind="decoder", layer=1).axes[0].get_xlabel() == "weights of layer 1, its only head"
    assert plot_attention_heads(found, kind="decoder").axes[1].get_ylabel() == "layer 3"
    with pytest.raises(ValueError, match=r"layer=2 has no weights: layers 1, 3 have some\."):
        plot_attention(found, kind="decoder", layer=2)
    write_attention_page(found, tmp_path / "page.html", layer=3, kind="decoder")
    data = json.loads(re.search('type="application/json">(.*?)</script>', (tmp_path / "page.html").read_text())[1])
    assert (data["layer"], data["views"]["decoder"]["layers"]) == ("1", [1, 3])
