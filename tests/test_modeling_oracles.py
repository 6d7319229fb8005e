"""The model against three others: NumPy from the paper, torch.nn's layers, MarianMT with converted weights."""

import numpy as np
import pytest
import torch
from reference.numpy_transformer import NumpyTransformer, positional_encoding
from torch import nn
from transformers import MarianConfig, MarianMTModel

BOS = 1

VARIANTS = {
    "paper": {},
    "pre-norm": {"norm_position": "pre"},
    "learned": {"position_embedding_type": "learned"},
    "learned pre-norm gelu": {
        "position_embedding_type": "learned",
        "norm_position": "pre",
        "activation_function": "gelu",
    },
    "rotary": {"position_embedding_type": "rotary"},
    "relative": {"position_embedding_type": "relative", "norm_position": "pre"},
    "local and relative": {"position_embedding_type": "relative", "encoder_layer_types": ["sliding_attention", "conv"]}
    | {"sliding_window": 2},
    "silu, unscaled": {"activation_function": "silu", "scale_embedding": False},
    "two vocabularies": {"decoder_vocab_size": 29, "share_encoder_decoder_embeddings": False},
    "two embeddings": {"share_encoder_decoder_embeddings": False},
    "untied head": {"tie_word_embeddings": False},
    "two vocabularies, untied head": {
        "decoder_vocab_size": 29,
        "share_encoder_decoder_embeddings": False,
        "tie_word_embeddings": False,
    },
    "no label smoothing": {"label_smoothing": 0.0},
    "post-norm and a last norm": {"final_layer_norm": True, "layer_norm_eps": 0.01},
    "local": {"encoder_layer_types": ["sliding_attention"] * 2, "decoder_layer_types": ["sliding_attention"] * 3}
    | {"sliding_window": 2},
    "linear": {"encoder_layer_types": ["linear_attention"] * 2, "decoder_layer_types": ["linear_attention"] * 3},
    "convolutions": {"encoder_layer_types": ["conv"] * 2, "decoder_layer_types": ["conv"] * 3},
    "each layer another": {
        "encoder_layer_types": ["conv", "sliding_attention"],
        "decoder_layer_types": ["linear_attention", "full_attention", "conv"],
        "sliding_window": 2,
        "conv_kernel_size": 4,
        "norm_position": "pre",
    },
}


def in_numpy(model):
    return NumpyTransformer(
        {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}, model.config.to_dict()
    )


@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_the_numpy_transformer(variant, attn_implementation, tiny_model, sentence_pairs, tiny_batch):
    model = tiny_model(attn_implementation, **VARIANTS[variant]).double()
    oracle = in_numpy(model)
    with torch.no_grad():
        output = model(**tiny_batch)
    for row, (source_ids, labels) in enumerate(sentence_pairs):
        expected = oracle.logits(source_ids, [BOS, *labels[:-1]])
        torch.testing.assert_close(output.logits[row, : len(labels)].numpy(), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            output.encoder_last_hidden_state[row, : len(source_ids)].numpy(),
            oracle.encode(source_ids),
            atol=1e-5,
            rtol=1e-5,
        )


@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_equals_the_numpy_loss(variant, tiny_model, sentence_pairs, tiny_batch):
    model = tiny_model(**VARIANTS[variant]).double()
    oracle = in_numpy(model)
    torch.testing.assert_close(model(**tiny_batch).loss.item(), oracle.loss(sentence_pairs), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        model(**tiny_batch, label_smoothing=0.3).loss.item(), oracle.loss(sentence_pairs, 0.3), atol=1e-6, rtol=1e-6
    )


LAYERS = {
    layer_type: {"encoder_layer_types": [layer_type], "decoder_layer_types": [layer_type], "sliding_window": 2}
    for layer_type in ("sliding_attention", "linear_attention", "conv")
}


@pytest.mark.parametrize(
    "variant", ["paper", "learned pre-norm gelu", "two vocabularies, untied head", "rotary", "relative", *LAYERS]
)
def test_gradients_equal_the_slope_of_the_numpy_loss(variant, tiny_model, sentence_pairs, tiny_batch):
    fields = (VARIANTS | LAYERS)[variant]
    model = tiny_model(encoder_layers=1, decoder_layers=1, dropout=0.0, **fields).double().train()
    model(**tiny_batch).loss.backward()
    step = 1e-6
    for name, parameter in model.named_parameters():
        direction = torch.randn_like(parameter)
        losses = []
        for sign in (1, -2, 1):  # the loss above, below and again at the parameter
            with torch.no_grad():
                parameter.add_(sign * step * direction)
            losses.append(in_numpy(model).loss(sentence_pairs))
        slope = (losses[0] - losses[1]) / (2 * step)
        expected = pytest.approx(slope, rel=1e-4, abs=1e-6)
        assert (parameter.grad * direction).sum().item() == expected, name


def test_cross_attentions_equal_the_numpy_weights(tiny_model, sentence_pairs, tiny_batch):
    model = tiny_model("eager").double()
    oracle = in_numpy(model)
    with torch.no_grad():
        output = model(**tiny_batch, output_attentions=True)
    assert len(output.encoder_attentions) == model.config.encoder_layers
    assert len(output.decoder_attentions) == len(output.cross_attentions) == model.config.decoder_layers
    for row, (source_ids, labels) in enumerate(sentence_pairs):
        _, expected = oracle.decode([BOS, *labels[:-1]], oracle.encode(source_ids))
        for layer in range(model.config.decoder_layers):
            weights = output.cross_attentions[layer][row, :, : len(labels)].numpy()
            torch.testing.assert_close(weights[..., : len(source_ids)], expected[layer], atol=1e-6, rtol=1e-5)
            assert not weights[..., len(source_ids) :].any(), "padding is attended to"


def test_greedy_search_equals_the_numpy_search(tiny_model, sentence_pairs, tiny_batch):
    model = tiny_model().double()
    oracle = in_numpy(model)
    del tiny_batch["labels"]
    generated = model.generate(**tiny_batch, max_new_tokens=10, num_beams=1)
    for row, (source_ids, _) in enumerate(sentence_pairs):
        expected = oracle.greedy(source_ids, max_new_tokens=10)
        assert generated[row, 1 : 1 + len(expected)].tolist() == expected


def test_the_numpy_encoding_is_the_papers():
    encoding = positional_encoding(3, d_model=4)
    np.testing.assert_allclose(encoding, [np.sin(3), np.cos(3), np.sin(0.03), np.cos(0.03)])


# torch.nn


def copy_attention(ours, theirs):
    """nn.MultiheadAttention keeps query, key and value projections in one matrix, in this order."""
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q_proj.weight, ours.k_proj.weight, ours.v_proj.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q_proj.bias, ours.k_proj.bias, ours.v_proj.bias]))
    theirs.out_proj.load_state_dict(ours.out_proj.state_dict())


def copy_parts(ours, theirs, names):
    for our_name, their_name in names.items():
        getattr(theirs, their_name).load_state_dict(getattr(ours, our_name).state_dict())


def with_our_weights(ours, theirs):
    """Copy one of our layers into torch's."""
    copy_attention(ours.self_attn, theirs.self_attn)
    copy_parts(ours.feed_forward, theirs, {"fc1": "linear1", "fc2": "linear2"})
    if isinstance(theirs, nn.TransformerEncoderLayer):
        norms = ["self_attn_layer_norm", "final_layer_norm"]
    else:
        copy_attention(ours.encoder_attn, theirs.multihead_attn)
        norms = ["self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"]
    copy_parts(ours, theirs, {name: f"norm{i}" for i, name in enumerate(norms, start=1)})
    return theirs.eval()


SOURCE_MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 1, 1, 1]]).bool()  # True = may attend
CAUSAL_MASK = torch.ones(4, 4).tril().bool()
BOTH_KERNELS = pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
BOTH_NORMS = pytest.mark.parametrize("norm_position", ["post", "pre"])
TORCHS_ACTIVATIONS = pytest.mark.parametrize("activation_function", ["relu", "gelu"])


def additive(mask):
    """True = may attend, made into what is added to scores: (rows, 1, 1, key_len) or (1, 1, query_len, key_len)."""
    minimum = torch.finfo(torch.float32).min
    return torch.zeros(mask.shape).masked_fill(~mask, minimum)


@BOTH_KERNELS
def test_attention_equals_torch_multihead_attention(attn_implementation, tiny_model):
    ours = tiny_model(attn_implementation).get_decoder().layers[0].encoder_attn
    theirs = nn.MultiheadAttention(16, num_heads=2, batch_first=True).eval()
    copy_attention(ours, theirs)
    queries, source = torch.randn(3, 4, 16), torch.randn(3, 5, 16)
    output, weights = ours(queries, additive(SOURCE_MASK)[:, None, None], source)
    expected, expected_weights = theirs(
        queries, source, source, key_padding_mask=~SOURCE_MASK, average_attn_weights=False
    )
    torch.testing.assert_close(output, expected, atol=1e-6, rtol=1e-5)
    if attn_implementation == "eager":
        torch.testing.assert_close(weights, expected_weights, atol=1e-6, rtol=1e-5)


@BOTH_KERNELS
@BOTH_NORMS
@TORCHS_ACTIVATIONS
def test_the_encoder_layer_equals_torchs(activation_function, norm_position, attn_implementation, tiny_model):
    model = tiny_model(attn_implementation, activation_function=activation_function, norm_position=norm_position)
    ours = model.get_encoder().layers[0]
    settings = {"activation": activation_function, "norm_first": norm_position == "pre", "batch_first": True}
    theirs = with_our_weights(ours, nn.TransformerEncoderLayer(16, nhead=4, dim_feedforward=24, **settings))
    source = torch.randn(3, 5, 16)
    output = ours(source, additive(SOURCE_MASK)[:, None, None])
    expected = theirs(source, src_key_padding_mask=~SOURCE_MASK)
    torch.testing.assert_close(output[SOURCE_MASK], expected[SOURCE_MASK], atol=1e-5, rtol=1e-5)


@BOTH_KERNELS
@BOTH_NORMS
@TORCHS_ACTIVATIONS
def test_the_decoder_layer_equals_torchs(activation_function, norm_position, attn_implementation, tiny_model):
    model = tiny_model(attn_implementation, activation_function=activation_function, norm_position=norm_position)
    ours = model.get_decoder().layers[0]
    settings = {"activation": activation_function, "norm_first": norm_position == "pre", "batch_first": True}
    theirs = with_our_weights(ours, nn.TransformerDecoderLayer(16, nhead=2, dim_feedforward=20, **settings))
    target, source = torch.randn(3, 4, 16), torch.randn(3, 5, 16)
    output = ours(target, additive(CAUSAL_MASK)[None, None], source, additive(SOURCE_MASK)[:, None, None])
    expected = theirs(target, source, tgt_mask=~CAUSAL_MASK, memory_key_padding_mask=~SOURCE_MASK)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)


# MarianMT

RESIDUAL_INPUT = (
    "q_proj.weight",
    "k_proj.weight",
    "v_proj.weight",
    "fc1.weight",
    "embed_tokens.weight",
    "lm_head.weight",
)
RESIDUAL_OUTPUT = ("out_proj.weight", "out_proj.bias", "fc2.weight", "fc2.bias", "norm.weight", "norm.bias")

NOT_MARIANS = ("model_type", "architectures", "transformers_version", "auto_map")


def as_marian(model):
    """The same model as a MarianMTModel.

    Marian's positions are [all sines | all cosines], ours alternate. Nothing else in the model knows an order of the
    d_model axis, so all weights that read from or write to it are permuted: even indices first, then odd ones.
    """
    ours = model.config
    fields = [name for name in MarianConfig().to_dict() if name in ours.to_dict() and name not in NOT_MARIANS]
    theirs = MarianMTModel(MarianConfig(**{name: getattr(ours, name) for name in fields}, forced_eos_token_id=None))
    order = torch.cat([torch.arange(0, ours.d_model, 2), torch.arange(1, ours.d_model, 2)])
    weights = {}
    for name, weight in model.state_dict().items():
        if name.endswith(RESIDUAL_INPUT):
            weight = weight[:, order]
        elif name.endswith(RESIDUAL_OUTPUT):
            weight = weight[order]
        weights[name.replace("feed_forward.", "")] = weight
    weights["model.shared.weight"] = weights["model.encoder.embed_tokens.weight"]
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert not unexpected
    assert not [name for name in missing if "embed_positions" not in name and name != "final_logits_bias"]
    return theirs.eval()


@pytest.mark.parametrize("activation_function", ["relu", "gelu", "silu"])
def test_logits_equal_marian(activation_function, tiny_model, tiny_batch):
    model = tiny_model(activation_function=activation_function)
    marian = as_marian(model)
    with torch.no_grad():
        torch.testing.assert_close(model(**tiny_batch).logits, marian(**tiny_batch).logits, atol=1e-5, rtol=1e-5)


def test_beam_search_equals_marians(tiny_model, tiny_batch):
    model = tiny_model()
    marian = as_marian(model)
    del tiny_batch["labels"]
    settings = {"num_beams": 3, "max_new_tokens": 12, "length_penalty": 0.6}
    assert model.generate(**tiny_batch, **settings).tolist() == marian.generate(**tiny_batch, **settings).tolist()
