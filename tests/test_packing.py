"""Packed rows, against the same segments in rows of their own, padded."""

from types import SimpleNamespace

import pytest
import torch

from fun_transformer import FunTransformerForCausalLM
from fun_transformer.losses import shift_tokens_right
from fun_transformer.masks import check_packing
from fun_transformer.positions import position_ids_from_segments
from fun_transformer.training.data.batches import pad_batch
from fun_transformer.training.data.packing import pack_batch
from fun_transformer.training.model.wrapping import compile_in_place

KERNELS = pytest.mark.parametrize("kernel", ["eager", "sdpa"])
EXACT = {"atol": 1e-5, "rtol": 1e-4}  # float32: sums run in another order


def rows_of(pairs):
    return [{"input_ids": source, "labels": labels} for source, labels in pairs]


def packed(pairs, length=16, rows=3):
    """Batches of this many rows, not all of which the pairs fill."""
    return pack_batch(rows_of(pairs), 0, length, rows)


def gradients(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss, {name: parameter.grad for name, parameter in model.named_parameters()}


SLIDING = {"encoder_layer_types": ["full_attention", "sliding_attention"], "sliding_window": 2}
SLIDING["decoder_layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]


@KERNELS
@pytest.mark.parametrize("length", [8, 16, 64])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"norm_position": "pre", "position_embedding_type": "learned", "max_position_embeddings": 8},
        {"decoder_vocab_size": 29, "share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
        SLIDING,
        {"copy_attention": True},
    ],
    ids=["post", "pre-learned", "two-vocabularies", "sliding", "copying"],
)
def test_loss_and_gradients_are_those_of_the_padded_rows(fields, length, kernel, tiny_model, sentence_pairs):
    model = tiny_model("sdpa", dropout=0.0, **fields).train()
    expected_loss, expected = gradients(model, pad_batch(rows_of(sentence_pairs), 0))
    model.set_attn_implementation(kernel)
    loss, found = gradients(model, packed(sentence_pairs, length))
    torch.testing.assert_close(loss, expected_loss, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found, expected, **EXACT)


# No segment sees another


def segments_in(packing, side):
    """(row, places) of each segment, in order."""
    for row, numbers in enumerate(packing[f"{side}_segment_ids"]):
        yield from ((row, numbers == number) for number in range(1, int(numbers.max()) + 1))


@KERNELS
@pytest.mark.parametrize("fields", [{"norm_position": "pre"}, SLIDING], ids=["pre", "sliding"])
def test_what_a_segment_becomes_depends_on_all_of_its_tokens_and_on_no_other(
    fields, kernel, tiny_model, sentence_pairs
):
    """In the encoder, in the decoder and across: the gradients say which tokens an output has seen."""
    model = tiny_model(kernel, **fields)
    batch = packed(sentence_pairs, 11, rows=2)  # two pairs in the first row, one in the second
    shape = (*batch["input_ids"].shape, model.config.d_model)
    source, target = (torch.randn(shape, requires_grad=True) for _ in range(2))
    outputs = model.model(inputs_embeds=source, decoder_inputs_embeds=target, packing=batch["packing"])
    places = [list(segments_in(batch["packing"], side)) for side in ("source", "target")]
    assert [row for row, _ in places[0]] == [row for row, _ in places[1]] == [0, 0, 1]
    for (row, of_source), (_, of_target) in zip(*places, strict=True):
        for states, own, sees in (
            (outputs.encoder_last_hidden_state, of_source, [(source, of_source)]),
            (outputs.last_hidden_state, of_target, [(source, of_source), (target, of_target)]),
        ):
            chosen = states[row, own]
            found = torch.autograd.grad(
                (chosen * torch.randn_like(chosen)).sum(), [embeddings for embeddings, _ in sees], retain_graph=True
            )
            for gradient, (_, seen) in zip(found, sees):
                expected = torch.zeros(shape[:2], dtype=torch.bool)
                expected[row] = seen
                if fields is SLIDING:  # which sees a part of it
                    assert not gradient[~expected].any() and gradient.any()
                else:
                    assert torch.equal(gradient.any(-1), expected)


@KERNELS
def test_a_decoder_alone_reads_packed_rows_as_well(kernel, tiny_config, shake_vectors, sentence_pairs):
    model = shake_vectors(FunTransformerForCausalLM(tiny_config())).eval()
    batch = packed([(source, source) for source, _ in sentence_pairs])
    with torch.no_grad():
        expected = [model(torch.tensor([source])).logits[0] for source, _ in sentence_pairs]
        model.set_attn_implementation(kernel)
        logits = model(batch["input_ids"], packing=batch["packing"]).logits
    found = [logits[row, places] for row, places in segments_in(batch["packing"], "target")]
    torch.testing.assert_close(found, expected, **EXACT)


def test_weights_that_are_asked_for_stay_inside_their_segment(tiny_model, sentence_pairs):
    batch = packed(sentence_pairs)
    outputs = tiny_model("sdpa")(**batch, output_attentions=True)
    source, target = (batch["packing"][f"{side}_segment_ids"] for side in ("source", "target"))
    same = target[:, None, :, None] == source[:, None, None, :]  # (rows, 1, target_len, source_len)
    for weights in outputs.cross_attentions:
        assert torch.equal(weights > 0, same.expand_as(weights))


# What is packed


def test_positions_begin_again_with_each_segment_and_padding_has_none():
    segment_ids = torch.tensor([[1, 1, 2, 2, 2, 0, 0], [1, 0, 0, 0, 0, 0, 0], [0] * 7])
    expected = [[0, 1, 0, 1, 2, 0, 0], [0] * 7, [0] * 7]
    assert position_ids_from_segments(segment_ids).tolist() == expected


def test_each_segment_of_a_packed_target_begins_with_the_start_token():
    labels = torch.tensor([[5, 6, 2, 7, 2, -100, -100]])
    position_ids = position_ids_from_segments(torch.tensor([[1, 1, 1, 2, 2, 0, 0]]))
    assert shift_tokens_right(labels, 0, 1, position_ids).tolist() == [[1, 5, 6, 1, 7, 1, 1]]


@KERNELS
def test_rows_that_are_empty_or_full_of_padding_leave_no_trace(kernel, tiny_model, sentence_pairs):
    model = tiny_model(kernel, dropout=0.0).train()
    (few, expected), (many, found) = (gradients(model, packed(sentence_pairs, 16, rows)) for rows in (1, 9))
    torch.testing.assert_close(few, many)
    torch.testing.assert_close(found, expected, **EXACT)
    assert all(gradient.isfinite().all() for gradient in found.values())


# What cannot be packed


@pytest.mark.parametrize(
    ("kernel", "fields", "others", "message"),
    [
        ("sdpa", {"encoder_layer_types": ["conv"] * 2}, [], "type conv mix"),
        ("eager", {"encoder_layer_types": ["linear_attention"] * 2}, [], "type linear_attention mix"),
        ("flash_attention_2", {}, [], "does not keep the segments of a packed row apart"),
        ("sdpa", {}, [torch.ones(1, 4)], "neither attention_mask nor"),
    ],
)
def test_what_would_mix_segments_is_refused(kernel, fields, others, message, tiny_config):
    config = tiny_config(**fields)
    config._attn_implementation = kernel
    with pytest.raises(ValueError, match=message):
        check_packing(config, "encoder", *others)


def test_masks_and_caches_are_refused(tiny_model, sentence_pairs, tiny_batch):
    model, batch = tiny_model(), packed(sentence_pairs)
    with pytest.raises(ValueError, match="attention_mask"):
        model(**batch, attention_mask=torch.ones_like(batch["input_ids"]))
    cache = model(**tiny_batch, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="cache"):
        model(**batch, past_key_values=cache)


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
@pytest.mark.parametrize("collate", [lambda rows: pad_batch(rows, 0), lambda rows: pack_batch(rows, 0, 32, 3)])
def test_one_graph_serves_batches_of_all_sizes(collate, tiny_model, sentence_pairs):
    model, rows = tiny_model("sdpa", dropout=0.0).train(), rows_of(sentence_pairs)
    batches = [collate(chosen) for chosen in (rows[:2], [*rows, rows[0]], [rows[1], *rows[::-1]])]
    expected = [model(**batch).loss.item() for batch in batches]
    graphs = compiled(model)
    assert [model(**batch).loss.item() for batch in batches] == pytest.approx(expected, rel=1e-5)
    assert len(graphs) == 1


# On a GPU


def to_gpu(batch):
    return {name: to_gpu(value) if isinstance(value, dict) else value.cuda() for name, value in batch.items()}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("cudnn", [False, True])
@pytest.mark.parametrize("fields", [{}, {"norm_position": "pre"}, SLIDING], ids=["post", "pre", "sliding"])
def test_fused_kernels_in_bf16_are_near_padded_rows_in_float32(fields, cudnn, tiny_model, sentence_pairs):
    widths = {"d_model": 64, "encoder_attention_heads": 4, "decoder_attention_heads": 2}
    widths["activation_function"] = "gelu"  # rounding flips a ReLU, and with it a whole gradient
    model = tiny_model("eager", dropout=0.0, **widths, **fields).train().cuda()
    expected_loss, expected = gradients(model, to_gpu(pad_batch(rows_of(sentence_pairs), 0)))
    model.set_attn_implementation("sdpa")
    torch.backends.cuda.enable_cudnn_sdp(cudnn)
    try:
        with torch.autocast("cuda", torch.bfloat16):
            loss, found = gradients(model, to_gpu(packed(sentence_pairs)))
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)
    torch.testing.assert_close(loss, expected_loss, atol=2e-2, rtol=2e-2)
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():  # that of a key's bias is 0 but for rounding
        assert (found[name] - gradient).norm() < 0.05 * gradient.norm() + 0.01 * largest, name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_norm_keeps_the_dtype_of_the_residual_stream():
    from fun_transformer.layer_norm import LayerNorm

    norm, states = LayerNorm(64).cuda(), torch.randn(5, 64, device="cuda")
    expected = norm(states)
    with torch.autocast("cuda", torch.bfloat16):
        assert torch.equal(norm(states), expected)
        found = norm(states.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=2e-2, rtol=2e-2)
    found.float().square().mean().backward()
    assert norm.weight.grad.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_gradients_that_accumulate_are_those_of_the_model_as_it_is(mode, tiny_model, sentence_pairs):
    widths = {"d_model": 64, "encoder_attention_heads": 4, "decoder_attention_heads": 2}
    model = tiny_model("sdpa", dropout=0.0, **widths).train().cuda()
    batches = [to_gpu(packed(pairs)) for pairs in (sentence_pairs, sentence_pairs[:2], sentence_pairs[1:])]

    def accumulated():
        model.zero_grad(set_to_none=False)
        for batch in batches:
            model(**batch).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    expected = accumulated()
    options = {"backend": "inductor", "mode": mode, "dynamic": False}
    plugin = SimpleNamespace(backend="inductor", use_regional_compilation=False, to_kwargs=lambda: options)
    compile_in_place(model, SimpleNamespace(state=SimpleNamespace(dynamo_plugin=plugin)))
    for _ in range(4):  # CUDA graphs are recorded at the second time
        torch.testing.assert_close(accumulated(), expected, atol=1e-4, rtol=1e-3)
