"""The graphs of the live page: the model of the paper, computed step by step, with every number on the way returned.

    encoder: source tokens -> states of the source          decoder: source states, target so far -> next logits

Both take switches as inputs, so that one graph answers "what if": scores are not divided by sqrt(d), positions are
not added, a head gives zeros, the causal mask is off, cross-attention adds nothing. A text is alone, so there is no
axis of batches: each result is (layers, ...), or (layers, heads, ...) within attention.

The decoder also takes the keys and values of earlier tokens, its cache, and need not compute them again. To write
quickly there is the same graph without the numbers on the way; to look at a step, the other one with an empty cache.
"""

import onnx
import onnx.utils
import torch
from onnx_files import trace
from torch import nn

from fun_transformer import FunTransformerForConditionalGeneration
from fun_transformer.attention import MultiHeadAttention
from fun_transformer.modeling_fun_transformer import FeedForward, Stack

# What each kind of sublayer shows, in this order.
ATTENTION = ("query", "key", "value", "scores", "weights", "context", "output", "sum", "norm")
FEED_FORWARD = ("hidden", "output", "sum", "norm")

Trace = dict[str, list[torch.Tensor]]  # name -> what each layer gives


class TracedStack(nn.Module):
    """What the graphs of encoder and decoder share: the sublayers of `modeling_fun_transformer.py`, written out."""

    def __init__(self, stack: Stack):
        super().__init__()
        self.stack = stack

    def embed(
        self, input_ids: torch.Tensor, positions: torch.Tensor, past_len: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scaled embeddings and what is added for positions, each (len, d_model).

        Args:
            input_ids: (1, len).
            positions: (), 1 or 0: whether positions are added.
            past_len: Number of tokens before these.
        """
        embeds = self.stack.embed_tokens(input_ids)[0] * self.stack.embed_scale  # (len, d_model)
        position_ids = (torch.arange(input_ids.shape[1]) + past_len).unsqueeze(0)  # (1, len)
        added = self.stack.embed_positions(position_ids, past_len + input_ids.shape[1])[0]  # (len, d_model)
        return embeds, added * positions

    def attend(
        self,
        attention: MultiHeadAttention,
        states: tuple[torch.Tensor, torch.Tensor],
        switches: tuple[torch.Tensor, torch.Tensor],
        hidden: torch.Tensor | None = None,
        past: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> list[torch.Tensor]:
        """Return what attention shows, up to its output.

        Args:
            attention: The layer.
            states: What asks (query_len, d_model), and what is attended to (key_len, d_model).
            switches: Whether scores are scaled (), and which heads are on (heads,).
            hidden: (query_len, key_len), True where a token may not look.
            past: Keys and values of earlier tokens, each (heads, past_len, head_dim).
        """
        (asking, attended), (scaling, heads) = states, switches
        query = attention.split_heads(attention.q_proj(asking)[None])[0]  # (heads, query_len, head_dim)
        key = attention.split_heads(attention.k_proj(attended)[None])[0]  # (heads, key_len, head_dim)
        value = attention.split_heads(attention.v_proj(attended)[None])[0]
        if past is not None:
            key, value = torch.cat([past[0], key], 1), torch.cat([past[1], value], 1)
        scores = query @ key.transpose(1, 2)  # (heads, query_len, key_len)
        scores = torch.where(scaling > 0, scores * attention.scaling, scores)
        masked = scores if hidden is None else scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        weights = masked.softmax(-1)
        context = (weights @ value) * heads[:, None, None]  # (heads, query_len, head_dim)
        output = attention.out_proj(context.transpose(0, 1).flatten(1))  # (query_len, d_model)
        return [query, key, value, scores, weights, context, output]

    def feed_forward(self, layer: FeedForward, states: torch.Tensor) -> list[torch.Tensor]:
        """Return what is within the network (len, ffn_dim), and its output (len, d_model)."""
        hidden = layer.activation(layer.fc1(states))
        return [hidden, layer.fc2(hidden)]


def add_and_norm(norm: nn.Module, states: torch.Tensor, shown: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return what a sublayer shows, with the sum of the residual connection and its norm at the end."""
    total = states + shown[-1]
    return [*shown, total, norm(total)]


def keep(trace: Trace, sublayer: str, names: tuple[str, ...], shown: list[torch.Tensor]) -> torch.Tensor:
    """Add what a sublayer shows to a trace, and return the last of it, its norm."""
    for name, values in zip(names, shown, strict=True):
        trace.setdefault(f"{sublayer}.{name}", []).append(values)
    return shown[-1]


class TracedEncoder(TracedStack):
    """The encoder, with all that it computes."""

    names = [f"self.{name}" for name in ATTENTION] + [f"ffn.{name}" for name in FEED_FORWARD]

    def forward(
        self, input_ids: torch.Tensor, positions: torch.Tensor, scaling: torch.Tensor, heads: torch.Tensor
    ) -> list[torch.Tensor]:
        """Encode.

        Args:
            input_ids: (1, source_len).
            positions: (), 1 or 0.
            scaling: (), 1 or 0.
            heads: (layers, heads), 1 or 0.

        Returns:
            The states of the source (source_len, d_model), embeddings, positions, then each of `names`.
        """
        embeds, added = self.embed(input_ids, positions)
        states, trace = embeds + added, Trace()
        for layer, on in zip(self.stack.layers, heads.unbind(0), strict=True):
            shown = self.attend(layer.self_attn, (states, states), (scaling, on))
            states = keep(trace, "self", ATTENTION, add_and_norm(layer.self_attn_layer_norm, states, shown))
            shown = self.feed_forward(layer.feed_forward, states)
            states = keep(trace, "ffn", FEED_FORWARD, add_and_norm(layer.final_layer_norm, states, shown))
        return [states, embeds, added, *(torch.stack(trace[name]) for name in self.names)]


class TracedDecoder(TracedStack):
    """The decoder and the output layer, for a target or the rest of one, with all that they compute."""

    names = [f"{part}.{name}" for part in ("self", "cross") for name in ATTENTION]
    names += [f"ffn.{name}" for name in FEED_FORWARD]

    def __init__(self, stack: Stack, lm_head: nn.Module):
        super().__init__(stack)
        self.lm_head = lm_head

    def forward(
        self,
        input_ids: torch.Tensor,
        source: torch.Tensor,
        positions: torch.Tensor,
        scaling: torch.Tensor,
        heads: torch.Tensor,
        cross_heads: torch.Tensor,
        causal: torch.Tensor,
        cross: torch.Tensor,
        past_keys: torch.Tensor,
        past_values: torch.Tensor,
    ) -> list[torch.Tensor]:
        """Decode.

        Args:
            input_ids: (1, target_len), beginning with the start token or after the past.
            source: (source_len, d_model), from the encoder.
            positions: (), 1 or 0.
            scaling: (), 1 or 0.
            heads: (layers, heads) of self-attention, 1 or 0.
            cross_heads: (layers, heads) of cross-attention, 1 or 0.
            causal: (), 1 or 0: whether later tokens are hidden.
            cross: (), 1 or 0: whether cross-attention adds anything.
            past_keys: (layers, heads, past_len, head_dim) of self-attention, of the tokens before these.
            past_values: As the keys.

        Returns:
            Logits of what comes next (vocab_size,), embeddings, positions, then each of `names`.
        """
        past_len = past_keys.shape[2]
        embeds, added = self.embed(input_ids, positions, past_len)
        states, trace = embeds + added, Trace()
        places = torch.arange(past_len + input_ids.shape[1])
        hidden = (places[None, :] > places[past_len:, None]) & (causal > 0)  # (target_len, past_len + target_len)
        past = zip(past_keys.unbind(0), past_values.unbind(0), strict=True)
        for layer, on, cross_on in zip(self.stack.layers, heads.unbind(0), cross_heads.unbind(0), strict=True):
            shown = self.attend(layer.self_attn, (states, states), (scaling, on), hidden, next(past))
            states = keep(trace, "self", ATTENTION, add_and_norm(layer.self_attn_layer_norm, states, shown))
            shown = self.attend(layer.encoder_attn, (states, source), (scaling, cross_on))
            shown[-1] = shown[-1] * cross
            states = keep(trace, "cross", ATTENTION, add_and_norm(layer.encoder_attn_layer_norm, states, shown))
            shown = self.feed_forward(layer.feed_forward, states)
            states = keep(trace, "ffn", FEED_FORWARD, add_and_norm(layer.final_layer_norm, states, shown))
        return [self.lm_head(states[-1:])[0], embeds, added, *(torch.stack(trace[name]) for name in self.names)]


def check(model: FunTransformerForConditionalGeneration) -> None:
    """Refuse models that the page does not draw.

    Raises:
        ValueError: The model is such a one.
    """
    config = model.config
    kinds = {*config.stack_layer_types("encoder"), *config.stack_layer_types("decoder")}
    wanted = {
        "norm_position": (config.norm_position, "post"),
        "position_embedding_type": (config.position_embedding_type, "sinusoidal"),
        "layer types": (", ".join(sorted(kinds)), "full_attention"),
        "source_modality": (config.source_modality, "text"),
        "copy_attention": (config.copy_attention, False),
    }
    for name, (got, allowed) in wanted.items():
        if got != allowed:
            raise ValueError(f"The live page draws models of {name}={allowed}, and this one has {got}.")


def export(model: FunTransformerForConditionalGeneration) -> dict[str, onnx.ModelProto]:
    """Return the graphs: `encoder`, `decoder` with all numbers, and `quick_decoder` with logits and its cache alone.

    Args:
        model: In float32 on the CPU.
    """
    check(model)
    encoder, decoder = TracedEncoder(model.model.encoder), TracedDecoder(model.model.decoder, model.lm_head)
    on, config = torch.ones(()), model.config
    heads = [
        torch.ones(config.encoder_layers, config.encoder_attention_heads),
        torch.ones(config.decoder_layers, config.decoder_attention_heads),
    ]
    ids, source = torch.full((1, 5), 3), torch.zeros(7, config.d_model)
    past = torch.zeros(*heads[1].shape, 4, config.d_model // config.decoder_attention_heads)
    of_encoder = {"input_ids": ids, "positions": on, "scaling": on, "heads": heads[0]}
    of_decoder = {"input_ids": ids, "source": source, "positions": on, "scaling": on, "heads": heads[1]}
    of_decoder |= {"cross_heads": heads[1], "causal": on, "cross": on, "past_keys": past, "past_values": past}
    length = torch.export.Dim.DYNAMIC
    axes = {"input_ids": {1: length}, "source": {0: length}, "past_keys": {2: length}, "past_values": {2: length}}
    begin = ["embeddings", "positions_added"]
    full = trace(decoder, of_decoder, ["logits", *begin, *decoder.names], axes)
    quick = onnx.utils.Extractor(full).extract_model(list(of_decoder), ["logits", "self.key", "self.value"])
    return {
        "encoder": trace(encoder, of_encoder, ["states", *begin, *encoder.names], axes),
        "decoder": full,
        "quick_decoder": quick,
    }
