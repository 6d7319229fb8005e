"""Packed rows, against their slow twin: the same sentences in rows of their own, padded."""

from types import SimpleNamespace

import pytest
import torch

from fun_transformer import FunTransformerForCausalLM
from fun_transformer.losses import shift_tokens_right
from fun_transformer.masks import check_packing, same_sentence
from fun_transformer.positions import position_ids_from_offsets, sentences_of
from fun_transformer.varlen import Segments, varlen_attention
from training.batching import pack_batch, pad_batch
from training.sharding import compile_in_place

KERNELS = pytest.mark.parametrize("kernel", ["eager", "sdpa", "varlen"])
EXACT = {"atol": 1e-5, "rtol": 1e-4}  # float32: sums run in another order


def reference_varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size):
    """What torch's kernel computes, one sentence after the other: (tokens, heads, head_dim) each."""
    context = torch.zeros_like(query)
    for q, q_end, k, k_end in zip(cu_seq_q, cu_seq_q[1:], cu_seq_k, cu_seq_k[1:]):
        assert q_end - q <= max_q and k_end - k <= max_k
        distance = torch.arange(k_end - k) - torch.arange(q_end - q)[:, None]  # (query_len, key_len)
        left, right = (float("inf") if side < 0 else side for side in window_size)
        seen = (distance >= -left) & (distance <= right)
        scores = torch.einsum("qhd,khd->hqk", query[q:q_end], key[k:k_end]) * scale
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        context = context.index_put((torch.arange(q, q_end),), torch.einsum("hqk,khd->qhd", weights, value[k:k_end]))
    return context


@pytest.fixture(autouse=True)
def varlen_on_cpu(monkeypatch):
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", reference_varlen_attn)


def rows_of(pairs):
    return [{"input_ids": source, "labels": labels} for source, labels in pairs]


def gradients(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss, {name: parameter.grad for name, parameter in model.named_parameters()}


SLIDING = {"encoder_layer_types": ["full_attention", "sliding_attention"], "sliding_window": 2}
SLIDING["decoder_layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]


@KERNELS
@pytest.mark.parametrize("multiple", [1, 8])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"norm_position": "pre", "position_embedding_type": "learned"},
        {"decoder_vocab_size": 29, "share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
        SLIDING,
    ],
    ids=["post", "pre-learned", "two-vocabularies", "sliding"],
)
def test_loss_and_gradients_are_those_of_the_padded_rows(fields, multiple, kernel, tiny_model, sentence_pairs):
    model = tiny_model("sdpa", dropout=0.0, **fields).train()
    expected_loss, expected = gradients(model, pad_batch(rows_of(sentence_pairs), 0))
    model.set_attn_implementation(kernel)
    loss, found = gradients(model, pack_batch(rows_of(sentence_pairs), 0, multiple))
    torch.testing.assert_close(loss, expected_loss, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found, expected, **EXACT)


# No sentence sees another


@KERNELS
@pytest.mark.parametrize("fields", [{"norm_position": "pre"}, SLIDING], ids=["pre", "sliding"])
def test_what_a_sentence_becomes_depends_on_all_of_its_tokens_and_on_no_other(
    fields, kernel, tiny_model, sentence_pairs
):
    """In the encoder, in the decoder and across: the gradients say which tokens an output has seen."""
    model = tiny_model(kernel, **fields)
    packing = pack_batch(rows_of(sentence_pairs), 0)["packing"]
    embeddings = {}
    for side in ("source", "target"):
        tokens = int(packing[f"{side}_offsets"][-1])
        embeddings[side] = torch.randn(1, tokens, model.config.d_model, requires_grad=True)
    outputs = model.model(
        inputs_embeds=embeddings["source"], decoder_inputs_embeds=embeddings["target"], packing=packing
    )
    for sentence in range(len(sentence_pairs)):
        seen_by = [("source", outputs.encoder_last_hidden_state, ["source"])]
        seen_by += [("target", outputs.last_hidden_state, ["source", "target"])]
        for side, states, sees in seen_by:
            own = {name: sentences_of(packing[f"{name}_offsets"], embeddings[name].shape[1]) for name in embeddings}
            chosen = states[0, own[side] == sentence]
            gradients = torch.autograd.grad(
                (chosen * torch.randn_like(chosen)).sum(), [embeddings[name] for name in sees], retain_graph=True
            )
            for name, gradient in zip(sees, gradients):
                if fields is not SLIDING:
                    assert torch.equal(gradient[0].any(-1), own[name] == sentence)
                assert not gradient[0][own[name] != sentence].any() and gradient.any()


@KERNELS
def test_a_decoder_alone_reads_packed_rows_as_well(kernel, tiny_config, shake_vectors, sentence_pairs):
    model = shake_vectors(FunTransformerForCausalLM(tiny_config())).eval()
    texts = [torch.tensor([source]) for source, _ in sentence_pairs]
    with torch.no_grad():
        expected = torch.cat([model(text).logits for text in texts], dim=1)
        model.set_attn_implementation(kernel)
        packing = pack_batch(rows_of([(source, source) for source, _ in sentence_pairs]), 0)["packing"]
        found = model(torch.cat(texts, dim=1), packing=packing).logits
    torch.testing.assert_close(found, expected, **EXACT)


def test_weights_that_are_asked_for_stay_inside_their_sentence(tiny_model, sentence_pairs):
    model = tiny_model("varlen")
    batch = pack_batch(rows_of(sentence_pairs), 0)
    outputs = model(**batch, output_attentions=True)
    target = sentences_of(batch["packing"]["target_offsets"], batch["labels"].shape[1])
    source = sentences_of(batch["packing"]["source_offsets"], batch["input_ids"].shape[1])
    for weights in outputs.cross_attentions:
        assert torch.equal(weights[0] > 0, (target[:, None] == source).expand_as(weights[0]))


# What is packed


def test_sentences_and_their_positions_are_counted_from_the_offsets():
    offsets = torch.tensor([0, 2, 5, 5, 6, 6, 6], dtype=torch.int32)  # the third and the last two are empty
    assert sentences_of(offsets, 6).tolist() == [0, 0, 1, 1, 1, 3]
    assert position_ids_from_offsets(offsets, 6).tolist() == [[0, 1, 0, 1, 2, 0]]


def test_each_sentence_of_a_packed_target_begins_with_the_start_token():
    labels = torch.tensor([[5, 6, 2, 7, 2, -100, -100]])
    position_ids = position_ids_from_offsets(torch.tensor([0, 3, 5, 7]), 7)
    assert shift_tokens_right(labels, 0, 1, position_ids).tolist() == [[1, 5, 6, 1, 7, 1, 0]]


def test_the_rule_of_the_masks_is_the_same_sentence():
    segments = Segments(torch.tensor([0, 2, 3]), torch.tensor([0, 1, 4]), 2, 3)
    may = same_sentence(segments, 3, 4)
    seen = [[bool(may(0, 0, torch.tensor(i), torch.tensor(j))) for j in range(4)] for i in range(3)]
    assert seen == [[True, False, False, False], [True, False, False, False], [False, True, True, True]]


# What is not packed, and what cannot be


def test_without_packing_the_kernel_varlen_is_sdpa(tiny_model, tiny_batch):
    model, varlen = tiny_model("sdpa"), tiny_model("varlen")
    with torch.no_grad():
        assert torch.equal(model(**tiny_batch).logits, varlen(**tiny_batch).logits)
    inputs = {name: tiny_batch[name] for name in ("input_ids", "attention_mask")}
    for options in ({}, {"cache_implementation": "static", "disable_compile": True}):
        texts = [m.generate(**inputs, max_new_tokens=8, num_beams=2, **options) for m in (model, varlen)]
        assert torch.equal(*texts)


@pytest.mark.parametrize(
    ("kernel", "fields", "others", "message"),
    [
        ("sdpa", {"encoder_layer_types": ["conv"] * 2}, [], "type conv mix"),
        ("varlen", {"encoder_layer_types": ["linear_attention"] * 2}, [], "type linear_attention mix"),
        ("flash_attention_2", {}, [], "does not keep packed sentences apart"),
        ("sdpa", {}, [torch.ones(1, 4)], "without attention_mask"),
    ],
)
def test_what_would_mix_sentences_is_refused(kernel, fields, others, message, tiny_config):
    config = tiny_config(**fields)
    config._attn_implementation = kernel
    with pytest.raises(ValueError, match=message):
        check_packing(config, "encoder", torch.empty(1, 4, 0), *others)


def test_several_packed_rows_masks_and_caches_are_refused(tiny_model, sentence_pairs, tiny_batch):
    model, batch = tiny_model(), pack_batch(rows_of(sentence_pairs), 0)
    with pytest.raises(ValueError, match="one row"):
        model(**tiny_batch | {"attention_mask": None}, packing=batch["packing"])
    with pytest.raises(ValueError, match="attention_mask"):
        model(**batch, attention_mask=torch.ones_like(batch["input_ids"]))
    cache = model(**tiny_batch, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="cache"):
        model(**batch, past_key_values=cache)


def test_the_kernel_varlen_says_that_it_drops_no_weights():
    states, segments = torch.randn(1, 2, 3, 8), Segments(torch.tensor([0, 3]), torch.tensor([0, 3]), 3, 3)
    with pytest.raises(ValueError, match=r"attention_dropout=0, got 0\.1"):
        varlen_attention(torch.nn.Identity(), states, states, states, segments, 1.0, dropout=0.1)


# Compiled


def compiled(model):
    """Compile a model as the trainer does; returns the graphs that it is cut into, filled as they are made."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    options = {"backend": backend, "dynamic": True}
    plugin = SimpleNamespace(backend="test", use_regional_compilation=False, to_kwargs=lambda: options)
    torch._dynamo.reset()
    compile_in_place(model, SimpleNamespace(state=SimpleNamespace(dynamo_plugin=plugin)))
    return graphs


@pytest.mark.slow
@pytest.mark.parametrize("collate", [pad_batch, pack_batch])
def test_one_graph_serves_batches_of_all_sizes(collate, tiny_model, sentence_pairs):
    model, rows = tiny_model("sdpa", dropout=0.0).train(), rows_of(sentence_pairs)
    # Not all of them at first: sources and targets would have 12 tokens each, which the compiler takes for a law.
    batches = [collate(chosen, 0) for chosen in (rows[:2], [*rows, rows[0]], [rows[1], *rows[::-1]])]
    expected = [model(**batch).loss.item() for batch in batches]
    graphs = compiled(model)
    assert [model(**batch).loss.item() for batch in batches] == pytest.approx(expected, rel=1e-5)
    assert len(graphs) == 1


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what can be shown without a GPU")
def test_the_kernel_varlen_is_traced_into_one_graph(tiny_model, sentence_pairs, monkeypatch):
    monkeypatch.undo()  # the kernel of torch itself, which a CPU can trace and not run
    model = tiny_model("varlen")
    graphs = compiled(model)
    with pytest.raises(NotImplementedError, match="_flash_attention_forward"):
        model(**pack_batch(rows_of(sentence_pairs), 0))
    kernels = [node for node in graphs[0].graph.nodes if "varlen_attn" in str(node.target)]
    assert len(graphs) == 1 and len(kernels) == 2 + 2 * 3  # encoder layers; decoder layers and across


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fields", [{}, SLIDING], ids=["full", "sliding"])
def test_the_real_kernel_is_sdpa_in_bf16(fields, tiny_model, sentence_pairs, monkeypatch):
    monkeypatch.undo()  # the kernel of torch itself
    widths = {"d_model": 64, "encoder_attention_heads": 4, "decoder_attention_heads": 2}
    model = tiny_model("sdpa", dropout=0.0, **widths, **fields).train().cuda()
    batch = pack_batch(rows_of(sentence_pairs), 0, multiple=8)
    packing = {n: v.cuda() if isinstance(v, torch.Tensor) else v for n, v in batch.pop("packing").items()}
    batch = {name: tensor.cuda() for name, tensor in batch.items()} | {"packing": packing}
    found = {}
    for kernel in ("sdpa", "varlen"):
        model.set_attn_implementation(kernel)
        with torch.autocast("cuda", torch.bfloat16):
            found[kernel] = gradients(model, batch)
    torch.testing.assert_close(found["varlen"][0], found["sdpa"][0], atol=1e-2, rtol=1e-2)
    for name, expected in found["sdpa"][1].items():
        difference = (found["varlen"][1][name] - expected).norm() / expected.norm().clamp(min=1e-3)
        assert difference < 0.05, name
