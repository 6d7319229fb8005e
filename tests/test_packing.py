"""Packed rows, against their slow twin: the same sentences in rows of their own, padded."""

import pytest
import torch

from fun_transformer import FunTransformerForCausalLM, FunTransformerForConditionalGeneration
from training.batching import pack_batch, pad_batch

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
        context = context.index_put(
            (torch.arange(q, q_end),), torch.einsum("hqk,khd->qhd", weights, value[k:k_end])
        )
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
