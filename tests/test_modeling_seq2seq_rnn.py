"""The RNN encoder-decoder: against its formulas written out, against what must not change it, and in use."""

import json
import math
import shutil

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from forked_runs import write_digits_recipe
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

from fun_transformer import Seq2SeqRNNConfig, Seq2SeqRNNForConditionalGeneration
from fun_transformer.hub.code import auto_map, custom_pipelines, travelling_files
from fun_transformer.modeling_seq2seq_rnn import RNNCache, run_rnn
from fun_transformer.training.recipe.reading import parse_arguments
from fun_transformer.training.train import main, train
from fun_transformer.training.train_tokenizer import TokenizerSettings, train_tokenizer

VARIANTS = {
    "fixed context": {"attention_score": "none"},
    "Bahdanau": {"attention_score": "additive", "cell": "gru"},
    "Luong dot": {"attention_score": "dot"},
    "Luong general": {"attention_score": "general", "cell": "gru", "encoder_layers": 1, "bidirectional": False},
    "local-p": {"attention_score": "general", "attention_window": 2},
    "local-m": {"attention_score": "dot", "attention_window": 1, "attention_window_center": "monotonic"},
    "local Bahdanau": {"attention_score": "additive", "attention_window": 2, "decoder_layers": 1},
    "ReLU": {"attention_score": "general", "attention_weights": "relu", "cell": "gru"},
    "local-p ReLU": {"attention_score": "dot", "attention_weights": "relu", "attention_window": 2},
    "hard": {"attention_score": "additive", "attention_weights": "hard", "cell": "gru"},
    "local-p hard": {"attention_score": "general", "attention_weights": "hard", "attention_window": 2},
}
EVERY_VARIANT = pytest.mark.parametrize("variant", VARIANTS)
WEIGHTS_BY_FORMULA = {
    "softmax": lambda e: e.softmax(0),
    "relu": lambda e: e.clamp(min=0) / e.clamp(min=0).sum().clamp(min=1e-9),
    "hard": lambda e: (e == e.max()).float(),
}
SEARCHES = {
    "greedy": {"num_beams": 1},
    "beam": {"num_beams": 4, "num_return_sequences": 3},
    "sampling": {"do_sample": True, "num_beams": 1, "top_k": 10},
}


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@pytest.fixture
def build(shake_vectors):
    """A function from the name of a variant (and config fields) to a tiny model in eval mode; no bias is 0."""

    def build(variant="Bahdanau", **fields):
        torch.manual_seed(0)
        sizes = {"vocab_size": 23, "d_model": 12, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.2}
        model = Seq2SeqRNNForConditionalGeneration(Seq2SeqRNNConfig(**{**sizes, **VARIANTS[variant], **fields}))
        return shake_vectors(model).eval()

    return build


@pytest.fixture
def sources(tiny_batch):
    """input_ids and attention_mask of three sentences of 7, 1 and 4 tokens."""
    return {name: tiny_batch[name] for name in ("input_ids", "attention_mask")}


# Against the formulas


def lstm_step(x, h, m, w):
    """Hochreiter and Schmidhuber 1997, with forget gates (Gers et al. 2000): one step of one row."""
    gates = w["weight_ih_l0"] @ x + w["bias_ih_l0"] + w["weight_hh_l0"] @ h + w["bias_hh_l0"]
    i, f, g, o = gates.chunk(4)
    m = f.sigmoid() * m + i.sigmoid() * g.tanh()
    return o.sigmoid() * m.tanh(), m


def gru_step(x, h, w):
    """Cho et al. 2014, with the reset gate after the product, as torch has it: one step of one row."""
    from_x, from_h = w["weight_ih_l0"] @ x + w["bias_ih_l0"], w["weight_hh_l0"] @ h + w["bias_hh_l0"]
    (r_x, z_x, n_x), (r_h, z_h, n_h) = from_x.chunk(3), from_h.chunk(3)
    z = (z_x + z_h).sigmoid()
    return (1 - z) * (n_x + (r_x + r_h).sigmoid() * n_h).tanh() + z * h


def step_by_hand(rnn, x, state):
    """One step of one layer; the state is (h,) or (h, m)."""
    weights = dict(rnn.named_parameters())
    return lstm_step(x, *state, weights) if isinstance(rnn, nn.LSTM) else (gru_step(x, *state, weights),)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_kernel_over_padded_rows_is_a_plain_loop_over_each_rows_tokens(kind):
    rnn, inputs = kind(3, 4, batch_first=True), torch.randn(4, 5, 3)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    start = tuple(torch.randn(1, 4, 4) for _ in range(2 if kind is nn.LSTM else 1))
    outputs, last = run_rnn(rnn, inputs, mask, start)
    for row in range(4):
        state = tuple(part[0, row] for part in start)
        for j in range(5):
            if mask[row, j]:
                state = step_by_hand(rnn, inputs[row, j], state)
            close(outputs[row, j], state[0] if mask[row, j] else torch.zeros(4))
        close(tuple(part[0, row] for part in last), state)


def translate_by_hand(model, source, target):
    """Logits (target_len, vocab_size) and weights alpha of one sentence, by the papers' formulas, one layer each."""
    config, decoder = model.config, model.decoder
    score = config.attention_score
    h = model.encoder(source[None]).last_hidden_state[0]  # (source_len, d_model)
    forward, backward = h[:, : config.d_model // 2], h[:, config.d_model // 2 :]
    c = torch.cat([forward[-1], backward[0]])
    state = decoder.bridge(c).tanh().chunk(2 if config.cell == "lstm" else 1)
    names = {name: parameter for name, parameter in model.named_parameters() if "alignment" in name}
    weight = {name.removeprefix("decoder.alignment."): parameter for name, parameter in names.items()}
    logits, alphas = [], []
    for i, token in enumerate(target):
        x = decoder.embed_tokens.weight[token] * math.sqrt(config.d_model)
        if score in ("dot", "general"):
            state = step_by_hand(decoder.rnn, x, state)
        s = state[0]
        if score == "none":
            context = c
        else:
            w_k = weight.get("score.k_proj.weight", torch.eye(config.d_model))
            if score == "additive":
                w_q, v = weight["score.q_proj.weight"], weight["score.score.weight"][0]
                e = torch.stack([v @ (w_q @ s + w_k @ h_j).tanh() for h_j in h])
            else:
                e = torch.stack([s @ w_k @ h_j for h_j in h])
            factor = torch.ones(len(h))
            if config.attention_window:
                j, d = torch.arange(len(h)), config.attention_window
                p = torch.tensor(float(min(i, len(h) - 1)))
                if config.attention_window_center == "predicted":
                    w_p, v_p = weight["window.position_proj.weight"], weight["window.position_score.weight"][0]
                    p = len(h) * (v_p @ (w_p @ s).tanh()).sigmoid()
                    factor = torch.exp(-((j - p) ** 2) / (2 * (d / 2) ** 2))
                e = e.masked_fill((j - p).abs() > d, -math.inf)
            alpha = WEIGHTS_BY_FORMULA[config.attention_weights](e) * factor
            alphas.append(alpha)
            context = alpha @ h
        if score in ("none", "additive"):
            state = step_by_hand(decoder.rnn, torch.cat([x, context]), state)
        attentional = (decoder.readout.weight @ torch.cat([context, state[0]])).tanh()
        logits.append(model.lm_head.weight @ attentional)
    return torch.stack(logits), torch.stack(alphas) if alphas else None


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@EVERY_VARIANT
def test_a_translation_is_the_papers_formulas(variant, cell, build):
    model = build(variant, cell=cell, decoder_layers=1, bidirectional=True)
    source, target = torch.randint(5, 23, (4,)), torch.randint(5, 23, (6,))
    with torch.no_grad():
        outputs = model(input_ids=source[None], decoder_input_ids=target[None], output_attentions=True)
        logits, weights = translate_by_hand(model, source, target)
    close(outputs.logits[0], logits)
    if weights is None:
        assert outputs.cross_attentions is None
    else:
        close(outputs.cross_attentions[0][0, 0], weights)


def test_the_loss_is_that_of_torch_on_labels_shifted_once(build, tiny_batch):
    model = build()
    labels = tiny_batch["labels"]
    starts = torch.full((3, 1), model.config.decoder_start_token_id)
    outputs = model(**tiny_batch)
    by_hand = model(
        **{name: tiny_batch[name] for name in ("input_ids", "attention_mask")},
        decoder_input_ids=torch.cat([starts, labels[:, :-1]], dim=1).clamp(min=0),
    )
    close(outputs.logits, by_hand.logits)
    for items, reduction in ((None, "mean"), (7, "sum")):
        expected = nn.functional.cross_entropy(
            outputs.logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1, reduction=reduction
        )
        close(model(**tiny_batch, num_items_in_batch=items).loss, expected / (items or 1))
    padded = {**tiny_batch, "labels": labels.masked_fill(labels == -100, model.config.pad_token_id)}
    for count in (None, labels.numel()):  # as a Trainer counts
        close(model(**padded, num_items_in_batch=count).loss, model(**tiny_batch).loss)


def test_initial_weights_are_those_of_the_docstring():
    model = Seq2SeqRNNForConditionalGeneration(Seq2SeqRNNConfig(vocab_size=2000, d_model=64))
    rnn = model.decoder.rnn
    for gate in rnn.weight_hh_l1.chunk(4):
        close(gate @ gate.T, torch.eye(64))
    bound = math.sqrt(6 / (128 + 64))
    assert 0.95 * bound < rnn.weight_ih_l0.abs().max() <= bound
    assert rnn.bias_ih_l0.tolist() == [0.0] * 64 + [1.0] * 64 + [0.0] * 128
    assert not rnn.bias_hh_l0.any()
    assert model.encoder.embed_tokens.weight.std().item() * 8 == pytest.approx(1, rel=0.05)


# What must not change the answer


@pytest.mark.parametrize("sides", [(3, 0), (0, 3), (1, 2)], ids=["left", "right", "both"])
@EVERY_VARIANT
def test_padding_never_changes_the_logits(variant, sides, build):
    model = build(variant)
    source, target = torch.randint(5, 23, (2, 6)), torch.randint(5, 23, (2, 4))
    with torch.no_grad():
        expected = model(input_ids=source, decoder_input_ids=target).logits
        for value in (0, 7):  # whatever stands there
            padded, mask = (
                nn.functional.pad(rows, sides, value=fill) for rows, fill in ((source, value), (source * 0 + 1, 0))
            )
            close(model(input_ids=padded, attention_mask=mask, decoder_input_ids=target).logits, expected)
            padded, mask = (
                nn.functional.pad(rows, sides, value=fill) for rows, fill in ((target, value), (target * 0 + 1, 0))
            )
            logits = model(input_ids=source, decoder_input_ids=padded, decoder_attention_mask=mask).logits
            close(logits[mask.bool()].view_as(expected), expected)


@EVERY_VARIANT
def test_a_row_does_not_see_the_batch_around_it(variant, build, tiny_batch):
    model = build(variant)
    logits = model(**tiny_batch).logits
    for order in ([2, 0, 1], [1], [0, 0, 0]):
        close(model(**{name: tensor[order] for name, tensor in tiny_batch.items()}).logits, logits[order])


@EVERY_VARIANT
def test_a_fully_padded_row_gives_no_nan_and_does_not_touch_the_others(variant, build, tiny_batch):
    model = build(variant)
    kept = model(**{name: tensor[[0, 2]] for name, tensor in tiny_batch.items()})
    tiny_batch["attention_mask"][1] = 0
    tiny_batch["labels"][1] = -100
    outputs = model(**tiny_batch)
    assert outputs.logits.isfinite().all()
    close(outputs.logits[[0, 2]], kept.logits)
    close(outputs.loss, kept.loss)
    outputs.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@EVERY_VARIANT
def test_a_target_token_changes_only_what_follows(variant, build):
    model = build(variant)
    source, target = torch.randint(5, 23, (1, 6)), torch.randint(5, 14, (1, 7))
    changed = target.clone()
    changed[0, 3] = 20
    with torch.no_grad():
        before, after = (model(input_ids=source, decoder_input_ids=ids).logits for ids in (target, changed))
    difference = (before - after).abs().amax(dim=-1)[0]  # (target_len,)
    assert (difference[:3] < 1e-6).all()
    assert (difference[3:] > 1e-5).all()


def test_a_fixed_context_hides_what_attention_sees(build):
    """The states between the ends do not reach a decoder with a fixed context: the bottleneck."""
    target = torch.randint(5, 23, (1, 4))
    states = torch.randn(1, 6, 12)
    changed = states.clone()
    changed[0, 2] = 0
    for variant, differs in (("fixed context", False), ("Bahdanau", True), ("Luong dot", True)):
        model = build(variant)
        with torch.no_grad():
            before, after = (model(encoder_outputs=(h,), decoder_input_ids=target).logits for h in (states, changed))
        assert bool((before - after).abs().max() > 1e-4) is differs


@EVERY_VARIANT
def test_all_weights_learn(variant, build, tiny_batch):
    model = build(variant)
    model(**tiny_batch).loss.backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


def test_weights_are_shown_one_row_a_target_token_and_none_falls_on_padding(build, tiny_batch):
    outputs = build()(**tiny_batch, output_attentions=True)
    (weights,) = outputs.cross_attentions
    assert weights.shape == (3, 1, 6, 7)
    close(weights.sum(-1), torch.ones(3, 1, 6))
    assert not weights.masked_select(tiny_batch["attention_mask"][:, None, None] == 0).any()
    outputs = build("fixed context")(**tiny_batch, output_attentions=True, output_hidden_states=True)
    assert outputs.cross_attentions is None
    assert [states.shape for states in outputs.encoder_hidden_states] == [(3, 7, 12)]
    assert [states.shape for states in outputs.decoder_hidden_states] == [(3, 6, 12)]


@EVERY_VARIANT
def test_half_precision_stays_near_float32(variant, build, tiny_batch):
    model = build(variant)
    expected = model(**tiny_batch)
    with torch.autocast("cpu", torch.bfloat16):
        close(model(**tiny_batch).logits.float(), expected.logits, 0.05)
    outputs = model.to(torch.bfloat16)(**tiny_batch)
    assert outputs.logits.dtype == torch.bfloat16
    close(outputs.loss.float(), expected.loss, 0.05)


# Generation


@EVERY_VARIANT
def test_cached_logits_equal_uncached_ones(variant, build, sources):
    model = build(variant)
    target = torch.randint(5, 23, (3, 6))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]])
    encoder_outputs = model.get_encoder()(**sources)
    for decoder_mask in (None, mask):
        with torch.no_grad():
            expected = model(
                **sources, decoder_input_ids=target, decoder_attention_mask=decoder_mask, use_cache=False
            ).logits
            cache, logits = None, []
            for start, stop in ((0, 3), (3, 4), (4, 6)):
                output = model(
                    encoder_outputs=encoder_outputs,
                    attention_mask=sources["attention_mask"],
                    decoder_input_ids=target[:, start:stop],
                    decoder_attention_mask=None if decoder_mask is None else decoder_mask[:, :stop],
                    past_key_values=cache,
                )
                cache = output.past_key_values
                logits.append(output.logits)
        kept = slice(None) if decoder_mask is None else decoder_mask.bool()
        close(torch.cat(logits, dim=1)[kept], expected[kept])
    assert cache.get_seq_length() == 6


def likely_to_go_on(model):
    """Random weights repeat one token or stop at once; larger output weights make the searches disagree."""
    with torch.no_grad():
        model.lm_head.weight.mul_(3)
    return model


@EVERY_VARIANT
@pytest.mark.parametrize("search", SEARCHES)
def test_searches_with_and_without_a_cache_agree(search, variant, build, sources):
    model = likely_to_go_on(build(variant))
    found = {}
    for use_cache in (False, True):
        torch.manual_seed(0)
        found[use_cache] = model.generate(**sources, **SEARCHES[search], max_new_tokens=8, use_cache=use_cache)
    assert found[True].tolist() == found[False].tolist()
    assert found[True].shape[1] > 4


def test_the_searches_differ(build, sources):
    """Otherwise the test above would compare nothing."""
    model = likely_to_go_on(build())
    greedy, beam = (model.generate(**sources, num_beams=beams, max_new_tokens=8).tolist() for beams in (1, 4))
    assert greedy != beam


def test_the_state_of_generation_does_not_grow(build, sources):
    model = build()
    cache = RNNCache()
    model.generate(**sources, past_key_values=cache, num_beams=1, min_new_tokens=9, max_new_tokens=9)
    assert cache.get_seq_length() == 9
    assert {tuple(part.shape) for part in cache.state} == {(2, 3, 12)}


def test_a_cache_follows_selected_and_repeated_rows(build, sources):
    cache = build()(**sources, decoder_input_ids=torch.randint(5, 23, (3, 2)), use_cache=True).past_key_values
    state, keys = cache.state[0], cache.keys
    cache.batch_repeat_interleave(2)
    close(cache.state[0], state.repeat_interleave(2, dim=1))
    close(cache.keys, keys.repeat_interleave(2, dim=0))
    cache.batch_select_indices(torch.tensor([4, 0]))
    close(cache.state[0], state[:, [2, 0]])
    with pytest.raises(ValueError, match="cannot be set back"):
        cache.crop(1)
    cache.reset()
    assert cache.state is None and cache.get_seq_length() == 0


def test_caches_of_other_models_are_refused(build, sources):
    with pytest.raises(ValueError, match="constant size"):
        build().generate(**sources, cache_implementation="static")
    with pytest.raises(ValueError, match="stateful"):
        build().generate(**sources, assistant_model=build(), num_beams=1, max_new_tokens=4)


# The config


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"d_model": 7}, "d_model=7 is odd"),
        ({"encoder_layers": 0}, "encoder_layers=0 must be at least 1"),
        ({"attention_window": 0}, "attention_window=0 must be at least 1"),
        ({"attention_window": 3, "attention_score": "none"}, "attention_score is none"),
        ({"attention_score": "scaled"}, "attention_score"),
        ({"attention_weights": "sparse"}, "attention_weights"),
        ({"attention_weights": "hard", "attention_score": "none"}, "attention_weights=hard turns scores into weights"),
        ({"cell": "rnn"}, "cell"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"decoder_vocab_size": 9}, "cannot share one embedding"),
        ({"atention_score": "dot"}, "Did you mean attention_score"),
    ],
)
def test_a_config_that_does_not_fit_together_says_what_to_do(fields, words):
    with pytest.raises((StrictDataclassError, ValueError)) as raised:
        Seq2SeqRNNConfig(**fields)
    assert words in f"{raised.value} {raised.value.__cause__}"


def test_inputs_that_are_missing_are_named(build, sources):
    with pytest.raises(ValueError, match="decoder_input_ids"):
        build()(**sources)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        build()(decoder_input_ids=torch.tensor([[1]]))


# In use


@pytest.fixture
def folder(build, tmp_path):
    """A saved model and its tokenizer."""
    tokenizer = train_tokenizer(["green tea", "grüner Tee"] * 5, settings=TokenizerSettings(type="char"))
    model = likely_to_go_on(build(vocab_size=len(tokenizer)))
    model.generation_config.max_new_tokens = 6
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("apart", [False, True])
@EVERY_VARIANT
def test_a_saved_model_is_the_same_model(variant, apart, build, tiny_batch, tmp_path):
    fields = {"decoder_vocab_size": 31, "share_encoder_decoder_embeddings": False, "tie_word_embeddings": False}
    model = build(variant, **(fields if apart else {}))
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is Seq2SeqRNNForConditionalGeneration
    assert not any(report.values())
    assert not loaded.training
    close(loaded.state_dict(), model.state_dict(), 0)
    close(loaded(**tiny_batch).logits, model(**tiny_batch).logits, 1e-6)
    embeddings = {loaded.get_input_embeddings().weight, loaded.decoder.embed_tokens.weight, loaded.lm_head.weight}
    assert len(embeddings) == (3 if apart else 1)


def test_a_weight_that_is_missing_does_not_cost_its_neighbours(build, tmp_path):
    model = build()
    kept = {name: tensor for name, tensor in model.state_dict().items() if name != "decoder.rnn.bias_hh_l0"}
    model.save_pretrained(tmp_path, state_dict=kept)
    loaded, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"] == {"decoder.rnn.bias_hh_l0"}
    assert not loaded.decoder.rnn.bias_hh_l0.any()
    close({name: loaded.state_dict()[name] for name in kept}, kept, 0)


def test_more_tokens_need_one_vocabulary(build, tiny_batch):
    model = build()
    model.resize_token_embeddings(30, mean_resizing=False)
    assert model(**tiny_batch).logits.shape[-1] == model.config.decoder_vocab_size == model.config.vocab_size == 30
    assert model.decoder.embed_tokens.weight is model.lm_head.weight
    with pytest.raises(ValueError, match="separate embeddings"):
        build(share_encoder_decoder_embeddings=False).resize_token_embeddings(30)


def test_the_translation_pipeline_takes_it(folder):
    assert isinstance(AutoConfig.from_pretrained(folder), Seq2SeqRNNConfig)
    translate = pipeline("translation", model=str(folder), device="cpu")
    texts = ["green tea", "tea"]
    found = translate(texts, batch_size=2, num_beams=2)
    assert [list(record) for record in found] == [["translation_text"]] * 2
    assert found == [translate(text, num_beams=2)[0] for text in texts]


def test_attention_maps_show_it(folder, tmp_path, build):
    pytest.importorskip("matplotlib")
    from fun_transformer import cli
    from fun_transformer.analysis import cross_attention

    command = ["attention", "--model", str(folder), "green tea", "--target", "Tee", "-o", str(tmp_path / "map.png")]
    assert cli.main(command) == 0
    assert (tmp_path / "map.png").stat().st_size > 1000
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    found = cross_attention(model, tokenizer, "green tea", "Tee")
    assert found.weights.shape == (1, 1, len(found.target_tokens), len(found.source_tokens))
    with pytest.raises(ValueError, match="returned no cross-attention weights"):
        cross_attention(build("fixed context", vocab_size=len(tokenizer)), tokenizer, "green tea", "Tee")


STRANGER = """
import sys
sys.modules["fun_transformer"] = None
import torch
from transformers import AutoModelForSeq2SeqLM, pipeline
first, again = sys.argv[1:]
trust = {"trust_remote_code": True}
texts = pipeline("translation", model=first, num_beams=2, **trust)(["green tea"])
AutoModelForSeq2SeqLM.from_pretrained(first, **trust).save_pretrained(again)
model = AutoModelForSeq2SeqLM.from_pretrained(again, **trust)
print(type(model).__module__.split(".")[0], texts[0]["translation_text"])
outputs = model(input_ids=torch.tensor([[5, 6, 7]]), decoder_input_ids=torch.tensor([[1, 8]]))
torch.save(outputs.logits, f"{again}/logits.pt")
"""


@pytest.mark.slow
def test_its_code_travels_with_it(folder, strangers, tmp_path):
    expected = AutoModelForSeq2SeqLM.from_pretrained(folder)(
        input_ids=torch.tensor([[5, 6, 7]]), decoder_input_ids=torch.tensor([[1, 8]])
    )
    text = pipeline("translation", model=str(folder), num_beams=2)("green tea")[0]["translation_text"]
    configs = {name: json.loads((folder / name).read_text()) for name in ("config.json", "tokenizer_config.json")}
    files = travelling_files(*configs.values())
    assert "modeling_fun_transformer.py" not in files
    for file in files.values():
        shutil.copy(file, folder)
    named = {"auto_map": auto_map(*configs.values())}
    assert named["auto_map"]["AutoModelForSeq2SeqLM"] == "modeling_seq2seq_rnn.Seq2SeqRNNForConditionalGeneration"
    tasks = {"custom_pipelines": custom_pipelines(configs["config.json"], configs["tokenizer_config.json"])}
    (folder / "config.json").write_text(json.dumps(configs["config.json"] | named | tasks))
    (folder / "tokenizer_config.json").write_text(json.dumps(configs["tokenizer_config.json"] | named))
    modules = str(tmp_path / "modules")
    output = strangers.python("-c", STRANGER, folder, tmp_path / "again", cwd=tmp_path, HF_MODULES_CACHE=modules)
    assert output.rstrip("\n") == f"transformers_modules {text}"
    close(torch.load(tmp_path / "again" / "logits.pt"), expected.logits)


# Training


@pytest.fixture
def recipe(tmp_path):
    """A function from fields of the model to the path of a recipe: 300 words of digits, backwards."""
    threads = torch.get_num_threads()

    def write(**model):
        path = write_digits_recipe(tmp_path)
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        sizes = {"model_type": "seq2seq_rnn", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1}
        path.write_text(yaml.safe_dump(values | {"model": {**sizes, **model}}), encoding="utf-8")
        return path

    AcceleratorState._reset_state(reset_partial_state=True)
    yield write
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_recipe_trains_it(precision, recipe, tmp_path):
    options = ["--training.max_steps", "2", "--training.precision", precision]
    train(parse_arguments([str(recipe(attention_score="dot", cell="gru")), *options]))
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run" / "model")
    assert (model.config.model_type, model.config.attention_score, model.config.cell) == ("seq2seq_rnn", "dot", "gru")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert list(pipeline("text2text-generation", model=str(tmp_path / "run" / "model"))("123")[0]) == [
        "generated_text"
    ]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"model_type": "seq2seq_rmm"}, "Choose one of fun_transformer, seq2seq_rnn"),
        ({"encoder_attention_heads": 2}, "encoder_attention_heads is no field of a seq2seq_rnn"),
        ({"model_type": "fun_transformer", "cell": "gru"}, "cell is no field of a fun_transformer"),
        ({"attention_score": "none", "attention_window": 2}, "attention_score is none"),
    ],
)
def test_a_recipe_with_a_field_of_another_model_is_refused(model, words, recipe, capsys):
    assert main([str(recipe(**model))]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "expected"), [("fixed context", 0.95), ("Bahdanau", 0.95), ("ReLU", 0.85), ("hard", 0.95)]
)
def test_it_learns_to_write_digits_backwards(variant, expected):
    """Words of 3 digits, 800 of them: those never seen come out right, too."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 13, "d_model": 64, "encoder_layers": 1, "decoder_layers": 1}
    config = Seq2SeqRNNConfig(**sizes, **VARIANTS[variant], dropout=0.0, label_smoothing=0.0)
    model = Seq2SeqRNNForConditionalGeneration(config)
    words = torch.cartesian_prod(*[torch.arange(3, 13)] * 3)[torch.randperm(1000)]
    ends = torch.full((1000, 1), config.eos_token_id)
    sources, labels = torch.cat([words, ends], 1), torch.cat([words.flip(1), ends], 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(300):
        rows = torch.randint(800, (64,))
        model(input_ids=sources[rows], labels=labels[rows]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    found = model.eval().generate(input_ids=sources[800:], max_new_tokens=4, num_beams=1)[:, 1:]
    right = (found == labels[800:]).all(dim=1).float().mean()
    assert right > expected, right
