"""Attention maps hold the model's own weights and leave the model as it was; pictures are whole and leave no trace."""

import json
import sys
import warnings
from itertools import pairwise

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BartConfig, BartForConditionalGeneration, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

matplotlib = pytest.importorskip("matplotlib")

from fun_transformer.analysis import AttentionMap, cross_attention  # noqa: E402
from fun_transformer.visualization import (  # noqa: E402
    Node,
    Panel,
    figures,
    plot_attention,
    plot_lines,
    plot_matrices,
    plot_picture_attention,
    plot_pieces,
    plot_search_tree,
    plot_speech_attention,
    plot_training_curve,
)

SOURCE, TARGET = "今天吃什么好?", "what shall we eat"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([SOURCE, TARGET] * 5, settings=TokenizerSettings(type="bpe", vocab_size=300))


@pytest.fixture
def model(tiny_model, tokenizer):
    return tiny_model(vocab_size=len(tokenizer))


def attention_map(source_len, target_len, word="word"):
    """A made-up map whose tokens are numbered words."""
    source, target = ([f"{word}{i}" for i in range(count)] for count in (source_len, target_len))
    weights = torch.rand(3, 2, target_len, source_len).softmax(-1)
    return AttentionMap(" ".join(source), " ".join(target), source, target, weights)


def test_a_forced_target_gives_the_weights_of_the_models_own_pass(model, tokenizer):
    found = cross_attention(model, tokenizer, SOURCE, TARGET)
    batch = tokenizer(SOURCE, text_target=TARGET, return_tensors="pt")
    model.set_attn_implementation("eager")
    expected = model(**batch, output_attentions=True).cross_attentions
    torch.testing.assert_close(found.weights, torch.cat(expected), rtol=0, atol=1e-6)
    assert found.weights.shape == (3, 2, len(found.target_tokens), len(found.source_tokens))
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(found.weights.shape[:3]))


def test_a_generated_target_has_the_weights_of_the_same_target_forced(model, tokenizer):
    generated = cross_attention(model, tokenizer, SOURCE, max_new_tokens=5, num_beams=2)
    ids = model.generate(**tokenizer(SOURCE, return_tensors="pt"), max_new_tokens=5, num_beams=2)[0, 1:]
    assert generated.target == tokenizer.decode(ids, skip_special_tokens=True)
    assert len(generated.target_tokens) == len(ids)
    model.set_attn_implementation("eager")
    forced = model(**tokenizer(SOURCE, return_tensors="pt"), labels=ids[None], output_attentions=True)
    torch.testing.assert_close(generated.weights, torch.cat(forced.cross_attentions), rtol=0, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_comes_out_as_it_went_in(model, tokenizer, training):
    model.train(training)
    first = cross_attention(model, tokenizer, SOURCE, TARGET)
    second = cross_attention(model, tokenizer, SOURCE, TARGET)
    assert torch.equal(first.weights, second.weights)  # no dropout
    assert (model.config._attn_implementation, model.training) == ("sdpa", training)


def test_the_model_comes_out_as_it_went_in_after_an_error(model, tokenizer, monkeypatch):
    monkeypatch.setattr(model, "generate", lambda **kwargs: 1 / 0)
    model.train()
    with pytest.raises(ZeroDivisionError):
        cross_attention(model, tokenizer, SOURCE)
    assert (model.config._attn_implementation, model.training) == ("sdpa", True)


def test_tokens_are_readable(model, tokenizer):
    tokens = cross_attention(model, tokenizer, "今天吃 什么?\x07😀", TARGET)
    assert "".join(tokens.source_tokens) == "今天吃␣什么?<0x07><0xF0><0x9F><0x98><0x80></s>"
    assert tokens.target_tokens == [*TARGET.split(), "</s>"]


def test_tokens_of_byte_level_models_are_readable_too():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    backend.train_from_iterator(["今天 the cat"] * 5, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", pad_token="<pad>", eos_token="</s>")
    sizes = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    bart = BartForConditionalGeneration(
        BartConfig(vocab_size=len(tokenizer), d_model=8, encoder_ffn_dim=8, decoder_ffn_dim=8, **sizes)
    )
    found = cross_attention(bart, tokenizer, "今天 cat", "the cat")
    assert found.source_tokens == ["今天", "cat"]
    assert found.target_tokens == ["the", "cat"]
    assert found.weights.shape == (2, 2, 2, 2)


def test_mistakes_are_said_in_words(model, tokenizer):
    gpt2 = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=len(tokenizer)))
    with pytest.raises(ValueError, match="not an encoder-decoder"):
        cross_attention(gpt2, tokenizer, SOURCE)
    with pytest.raises(ValueError, match="num_beams would have no effect"):
        cross_attention(model, tokenizer, SOURCE, TARGET, num_beams=2)
    with pytest.raises(ValueError, match="layer=3 does not exist: the model has layers 0 to 2"):
        plot_attention(attention_map(3, 3), layer=3)
    with pytest.raises(ValueError, match="head=-3"):
        plot_attention(attention_map(3, 3), head=-3)


def test_the_last_layers_mean_over_heads_is_drawn_unless_told():
    drawn = attention_map(4, 3)
    image = plot_attention(drawn).axes[0].images[0].get_array()
    torch.testing.assert_close(torch.tensor(image), drawn.weights[2].mean(0))
    image = plot_attention(drawn, layer=0, head=1).axes[0].images[0].get_array()
    torch.testing.assert_close(torch.tensor(image), drawn.weights[0, 1])


@pytest.mark.parametrize(("source_len", "target_len"), [(3, 3), (40, 4), (2, 50), (60, 60)])
def test_no_label_is_cut(source_len, target_len):
    figure = plot_attention(attention_map(source_len, target_len, word="internationalisation"))
    figure.draw_without_rendering()
    whole = figure.bbox
    axes = figure.axes[0]
    texts = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label]
    for text in [*texts, figure._suptitle]:
        box = text.get_window_extent()
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1, text
        assert whole.y0 <= box.y0 and box.y1 <= whole.y1, text
    assert max(figure.get_size_inches()) < 20
    labels = [text.get_window_extent() for text in axes.get_yticklabels()]
    assert all(above.y0 >= below.y1 for above, below in pairwise(labels))  # none covers the next


def test_chinese_is_drawn_and_dollar_signs_are_no_formula(tmp_path):
    pytest.importorskip("mplfonts")
    drawn = AttentionMap(
        "今天好 $x_1$", "ˈtəʊ $\\frac$", ["今", "天", "好", "$x_1$"], ["ˈtəʊ", "$"], torch.rand(1, 1, 2, 4)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns about a character that no font has
        plot_attention(drawn, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_chinese_font_is_warned_about(monkeypatch):
    monkeypatch.setattr(figures, "CJK_FONTS", [])
    monkeypatch.setattr(figures.importlib.util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="mplfonts"):
        assert figures.fonts_for("今天") == ["DejaVu Sans"]


def test_pictures_leave_no_trace(tmp_path, monkeypatch):
    before = matplotlib.rcParams.copy()
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it would fail
    plot_attention(AttentionMap("今天", "to", ["今天"], ["to"], torch.rand(1, 1, 1, 1)), tmp_path / "map.png")
    assert matplotlib.rcParams.copy() == before
    assert [path.name for path in tmp_path.iterdir()] == ["map.png"]


def test_a_picture_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "map.txt"
    path.write_text("old")
    with pytest.raises(ValueError, match=r"map\.txt.*picture format"):
        plot_attention(attention_map(2, 2), path)
    assert path.read_text() == "old"


def write_metrics(path, rows, end=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + end, encoding="utf-8")


def test_the_training_curve_has_a_panel_for_loss_learning_rate_and_scores(tmp_path):
    rows = [{"step": step, "split": "train", "loss": 9 / step, "learning_rate": 1e-3 / step} for step in range(1, 50)]
    rows += [
        {"step": step, "split": "validation", "loss": 9 / step, "per": 0.5, "seconds": 3.0, "bleu_signature": "v"}
        for step in (10, 20)
    ]
    rows += [{"step": 10, "split": "train", "loss": 0.123, "learning_rate": 1e-3}]  # again, after a resumed run
    write_metrics(tmp_path / "metrics.jsonl", rows, end='{"step": 60, "split": "tr')
    figure = plot_training_curve(tmp_path / "metrics.jsonl", tmp_path / "curve.png")

    loss, learning_rate, scores = figure.axes
    assert [line.get_label().split(" (")[0] for line in loss.lines] == ["train", "validation"]
    assert loss.get_yscale() == "log"
    steps, losses = loss.lines[0].get_data()
    assert list(steps) == list(range(1, 50))
    assert losses[9] == 0.123
    assert len(learning_rate.lines) == 1
    assert [line.get_label() for line in scores.lines] == ["PER"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.png", "metrics.jsonl"]


def test_a_training_curve_of_losses_alone_has_one_panel(tmp_path):
    write_metrics(tmp_path / "metrics.jsonl", [{"step": 1, "split": "train", "loss": 2.0}])
    figure = plot_training_curve(tmp_path / "metrics.jsonl", tmp_path / "curve.png")
    assert len(figure.axes) == 1
    assert figure.axes[0].get_yscale() == "linear"


def test_a_metrics_file_without_losses_or_with_a_broken_line_is_refused(tmp_path):
    write_metrics(tmp_path / "metrics.jsonl", [{"step": 1, "split": "test", "bleu": 2.0}])
    with pytest.raises(ValueError, match="no line with a step and a loss"):
        plot_training_curve(tmp_path / "metrics.jsonl", tmp_path / "curve.png")
    write_metrics(tmp_path / "metrics.jsonl", [{"step": 1}], end="oops\n{}\n")
    with pytest.raises(ValueError, match="line 2 is no JSON"):
        plot_training_curve(tmp_path / "metrics.jsonl", tmp_path / "curve.png")


def test_matrices_stand_side_by_side_with_their_numbers():
    panels = [
        Panel("scores 分数", [[1.5, float("-inf")], [-0.25, 0.5]], ["我", "爱"], ["我", "爱"]),
        Panel("weights", torch.tensor([[1.0, 0.0, 0.0]])),
        Panel("third", [[1]]),
    ]
    figure = plot_matrices(panels, columns=2, numbers=True)
    scores, weights, third, empty = figure.axes
    assert [text.get_text() for text in scores.texts] == ["1.50", "−∞", "-0.25", "0.50"]
    assert scores.images[0].get_clim() == (-1.5, 1.5)  # zero is white
    assert [label.get_text() for label in scores.get_yticklabels()] == ["我", "爱"]
    assert weights.images[0].get_array().tolist() == [[1.0, 0.0, 0.0]]
    assert third.get_title(loc="left") == "third" and not empty.axison


def test_yes_and_no_have_a_legend():
    figure = plot_matrices([Panel("masks", torch.tensor([[True, False]]))], bar=("可以看 may look", "hidden"))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["可以看 may look", "hidden"]
    image = figure.axes[0].images[0]
    drawn = [tuple(image.cmap(image.norm(value))) for value in (True, False)]
    assert drawn == [patch.get_facecolor() for patch in legend.get_patches()]  # the colours of the cells


def test_long_chinese_labels_are_upright_and_latin_ones_are_turned():
    (axes,) = plot_matrices([Panel("a", [[1, 2, 3]], [], ["学习", "我", "learning"])]).axes
    labels = axes.get_xticklabels()
    assert [label.get_text() for label in labels] == ["学\n习", "我", "learning"]
    assert [label.get_rotation() for label in labels] == [0, 0, 90]
    (axes,) = plot_matrices([Panel("a", [[1, 2]], [], ["学习", "我"])], cell=1.0).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["学习", "我"]  # there is room


def test_names_of_axes_are_upright_above_them():
    figure = plot_lines({"up": ([1, 2], [3, 4])}, x_name="步", y_name="学习率", title="预热")
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "预热\n↑ 学习率" and axes.get_ylabel() == ""


def test_an_svg_file_is_light_or_dark_as_its_reader_is_and_the_same_each_time(tmp_path):
    for name in ("one.svg", "two.svg"):
        plot_lines({"up": ([1, 2], [3, 4])}, tmp_path / name, title="今天")
    text = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "two.svg").read_text(encoding="utf-8")
    assert text.count("<style>@media (prefers-color-scheme: dark)") == 1
    body = text.partition("</style>")[2]
    for light in (figures.PAPER, figures.INK, figures.COLOURS[0]):  # what the dark style replaces is in the picture
        assert f": {light}" in body and f'[style*="fill: {light}"]' in text


def test_pieces_are_boxes_and_what_is_new_is_marked():
    figure = plot_pieces([("", ["l", "o", "w"]), ("l + o", ["lo", "w"]), ("", ["今天", "w"])])
    (axes,) = figure.axes
    colours = [patch.get_facecolor() for patch in axes.patches]
    assert len(colours) == 7
    assert [colour == colours[3] for colour in colours] == [False] * 3 + [True] + [False] * 3  # "lo" alone


def test_a_search_is_drawn_as_a_tree():
    nodes = [Node("<s>", None, 0.0), Node("a", 0, -0.5), Node("b", 0, -1.0, "pruned"), Node("</s>", 1, -0.7, "best")]
    figure = plot_search_tree(nodes, title="搜索")
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["<s>", "a", "-0.50", "b", "-1.00", "</s>", "-0.70"]
    colours = {text.get_text(): text.get_color() for text in axes.texts}
    assert colours["<s>"] == colours["a"] == colours["</s>"] != colours["b"]  # the way to the best output
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert [places[token][0] for token in ("<s>", "a", "b", "</s>")] == [0, 1, 1, 2]
    with pytest.raises(ValueError, match="after its parent"):
        plot_search_tree([Node("<s>", None, 0.0), Node("a", 1, 0.0)])


def test_curves_share_a_frame(tmp_path):
    figure = plot_lines(
        {"up": ([1, 2], [3, 4]), "down": ([1, 2], [4, 3])}, tmp_path / "c.png", "step", "rate", "title"
    )
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["up", "down"]
    assert list(axes.lines[1].get_ydata()) == [4, 3]
    assert (tmp_path / "c.png").exists()


def test_a_picture_is_drawn_once_for_each_token_with_its_weights_on_it(tmp_path):
    picture, weights = torch.rand(16, 48).numpy(), torch.rand(5, 2, 6).numpy()  # (target_len, rows, columns)
    figure = plot_picture_attention(picture, weights, ["\\frac", "{", "$", "今", "}"], tmp_path / "looks.png")
    drawn = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title(loc="center") for axis in drawn] == ["\\frac", "{", "$", "今", "}"]
    for axis, places in zip(drawn, weights, strict=True):
        paper, heat = axis.images
        assert (paper.get_array() == picture).all()
        assert heat.get_alpha() == pytest.approx(0.8 * places / places.max())
        assert paper.get_extent() == heat.get_extent() == [0, 48, 16, 0]
    assert (tmp_path / "looks.png").read_bytes().startswith(b"\x89PNG")


def test_attention_of_each_word_is_below_the_sound_that_it_is_about():
    figure = plot_speech_attention(torch.rand(200, 8).numpy(), torch.rand(3, 25).numpy(), ["one", "$", "五"])
    above, below = figure.axes[:2]
    assert above.images[0].get_extent()[:2] == below.images[0].get_extent()[:2] == [0, 2.0]
    assert [label.get_text() for label in below.get_yticklabels()] == ["one", "$", "五"]
