"""The encoder as `generate` needs it: the same numbers as `Encoder`, sooner.

Each layer computes queries, keys and values by one product, and all products have their weights laid out once; one
mask serves all layers, and modules are called as functions.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .fast_products import Product, activation_of, add_bias, additive, forbidden_score, lay_out, norm_of


class EncoderLayerWeights(NamedTuple):
    """What one encoder layer multiplies by."""

    qkv: Product
    out: Product
    fc1: Product
    fc2: Product


def encoder_linears(encoder: nn.Module) -> list[nn.Linear]:
    """Return the linear layers whose weights `lay_out_encoder` lays out."""
    linears = []
    for layer in encoder.layers:
        attention, feed_forward = layer.self_attn, layer.feed_forward
        linears += [attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj]
        linears += [feed_forward.fc1, feed_forward.fc2]
    return linears


def lay_out_encoder(encoder: nn.Module) -> list[EncoderLayerWeights]:
    """Lay out the weights of an `Encoder`, layer by layer."""
    layers = []
    for layer in encoder.layers:
        attention, feed_forward = layer.self_attn, layer.feed_forward
        qkv = lay_out(attention.q_proj, attention.k_proj, attention.v_proj)
        out = lay_out(attention.out_proj)
        layers.append(EncoderLayerWeights(qkv, out, lay_out(feed_forward.fc1), lay_out(feed_forward.fc2)))
    return layers


def encode(
    encoder: nn.Module,
    weights: list[EncoderLayerWeights],
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
) -> torch.Tensor:
    """Encode texts.

    Args:
        encoder: An `Encoder` with full attention, in eval mode.
        weights: Its weights, from `lay_out_encoder`.
        input_ids: (batch, source_len).
        attention_mask: (batch, source_len), 1 = token, 0 = padding; None where all are tokens.

    Returns:
        (batch, source_len, d_model).
    """
    config = encoder.config
    embeds = encoder.look_up(input_ids, None)
    positions = encoder.locate(embeds, attention_mask)
    hidden_states = encoder.embed(embeds, positions, embeds.shape[1])
    batch_size, source_len, d_model = hidden_states.shape
    heads = (batch_size, source_len, 3, config.encoder_attention_heads, d_model // config.encoder_attention_heads)
    mask, bias = None, encoder.score_bias(positions, attention_mask)
    if attention_mask is not None and not bool(attention_mask.all()):
        forbidden = forbidden_score(config, hidden_states.dtype)
        mask = additive(attention_mask, hidden_states.dtype, forbidden)[:, None, None, :]  # (batch, 1, 1, source_len)
    if bias is not None:
        mask = add_bias(
            mask, bias(0, source_len).to(hidden_states.dtype)
        )  # (batch or 1, heads, source_len, source_len)
    norms_first, activation = config.norm_position == "pre", activation_of(encoder.layers[0].feed_forward)
    hidden_states = hidden_states.view(-1, d_model)  # (batch * source_len, d_model), as all that follow
    for layer, products in zip(encoder.layers, weights):
        attention_norm, final_norm = norm_of(layer.self_attn_layer_norm), norm_of(layer.final_layer_norm)
        states = attention_norm(hidden_states) if norms_first else hidden_states
        query, key, value = products.qkv(states).view(heads).permute(2, 0, 3, 1, 4).unbind()
        query, key = positions.turn(query), positions.turn(key)
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        context = products.out(context.transpose(1, 2).reshape(-1, d_model)).add_(hidden_states)
        hidden_states = context if norms_first else attention_norm(context)
        states = final_norm(hidden_states) if norms_first else hidden_states
        states = products.fc2(activation(products.fc1(states))).add_(hidden_states)
        hidden_states = states if norms_first else final_norm(states)
    return encoder.layer_norm(hidden_states).view(batch_size, source_len, d_model)


__all__ = ["EncoderLayerWeights", "encode", "encoder_linears", "lay_out_encoder"]
