"""The graphs of the live page: the model of the paper, computed step by step, with every number on the way returned.

    encoder: source tokens -> states of the source          decoder: source states, target so far -> logits

Both take switches as inputs, so that one graph answers "what if": scores are not divided by sqrt(d), positions are
not added, a head gives zeros, the causal mask is off, cross-attention adds nothing. A text is alone, so there is no
axis of batches: each result is (layers, ...), or (layers, heads, ...) within attention.
"""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from fun_transformer import FunTransformerForConditionalGeneration
from fun_transformer.attention import MultiHeadAttention
from fun_transformer.modeling_fun_transformer import FeedForward, Stack

OPSET = 18
MOST = 127  # of the whole numbers of a weight

# What each kind of sublayer shows, in this order.
ATTENTION = ("query", "key", "value", "scores", "weights", "context", "output", "sum", "norm")
FEED_FORWARD = ("hidden", "output", "sum", "norm")

Trace = dict[str, list[torch.Tensor]]  # name -> what each layer gives


class TracedStack(nn.Module):
    """What the graphs of encoder and decoder share: the sublayers of `modeling_fun_transformer.py`, written out."""

    def __init__(self, stack: Stack):
        super().__init__()
        self.stack = stack

    def embed(self, input_ids: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scaled embeddings and what is added for positions, each (len, d_model).

        Args:
            input_ids: (1, len).
            positions: (), 1 or 0: whether positions are added.
        """
        embeds = self.stack.embed_tokens(input_ids)[0] * self.stack.embed_scale  # (len, d_model)
        position_ids = torch.arange(input_ids.shape[1]).unsqueeze(0)  # (1, len)
        added = self.stack.embed_positions(position_ids, input_ids.shape[1])[0]  # (len, d_model)
        return embeds, added * positions

    def attend(
        self,
        attention: MultiHeadAttention,
        states: tuple[torch.Tensor, torch.Tensor],
        switches: tuple[torch.Tensor, torch.Tensor],
        hidden: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Return what attention shows, up to its output.

        Args:
            attention: The layer.
            states: What asks (query_len, d_model), and what is attended to (key_len, d_model).
            switches: Whether scores are scaled (), and which heads are on (heads,).
            hidden: (query_len, key_len), True where a token may not look.
        """
        (asking, attended), (scaling, heads) = states, switches
        query = attention.split_heads(attention.q_proj(asking[None]))[0]  # (heads, query_len, head_dim)
        key = attention.split_heads(attention.k_proj(attended[None]))[0]  # (heads, key_len, head_dim)
        value = attention.split_heads(attention.v_proj(attended[None]))[0]
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
    """The decoder and the output layer, for a whole target at once, with all that they compute."""

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
    ) -> list[torch.Tensor]:
        """Decode.

        Args:
            input_ids: (1, target_len), beginning with the start token.
            source: (source_len, d_model), from the encoder.
            positions: (), 1 or 0.
            scaling: (), 1 or 0.
            heads: (layers, heads) of self-attention, 1 or 0.
            cross_heads: (layers, heads) of cross-attention, 1 or 0.
            causal: (), 1 or 0: whether later tokens are hidden.
            cross: (), 1 or 0: whether cross-attention adds anything.

        Returns:
            Logits (target_len, vocab_size), embeddings, positions, then each of `names`.
        """
        embeds, added = self.embed(input_ids, positions)
        states, trace = embeds + added, Trace()
        places = torch.arange(input_ids.shape[1])
        hidden = (places[None, :] > places[:, None]) & (causal > 0)  # (target_len, target_len)
        for layer, on, cross_on in zip(self.stack.layers, heads.unbind(0), cross_heads.unbind(0), strict=True):
            shown = self.attend(layer.self_attn, (states, states), (scaling, on), hidden)
            states = keep(trace, "self", ATTENTION, add_and_norm(layer.self_attn_layer_norm, states, shown))
            shown = self.attend(layer.encoder_attn, (states, source), (scaling, cross_on))
            shown[-1] = shown[-1] * cross
            states = keep(trace, "cross", ATTENTION, add_and_norm(layer.encoder_attn_layer_norm, states, shown))
            shown = self.feed_forward(layer.feed_forward, states)
            states = keep(trace, "ffn", FEED_FORWARD, add_and_norm(layer.final_layer_norm, states, shown))
        return [self.lm_head(states), embeds, added, *(torch.stack(trace[name]) for name in self.names)]


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


def round_weights(model: nn.Module) -> None:
    """Round matrices in place to what 8 bits can say: whole numbers times a scale for each row."""
    with torch.no_grad():
        for weight in {id(weight): weight for weight in model.parameters() if weight.dim() == 2}.values():
            scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / MOST
            weight.copy_((weight / scale).round() * scale)


def export(model: FunTransformerForConditionalGeneration) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return the graphs of encoder and decoder, with matrices in 8 bits.

    Args:
        model: In float32 on the CPU, its matrices rounded by `round_weights`: the graphs compute with the same
            numbers.
    """
    check(model)
    model.eval()
    encoder, decoder = TracedEncoder(model.model.encoder), TracedDecoder(model.model.decoder, model.lm_head)
    on, config = torch.ones(()), model.config
    heads = [
        torch.ones(config.encoder_layers, config.encoder_attention_heads),
        torch.ones(config.decoder_layers, config.decoder_attention_heads),
    ]
    ids, source = torch.full((1, 5), 3), torch.zeros(7, config.d_model)
    length = torch.export.Dim.DYNAMIC
    of_encoder = {"input_ids": ids, "positions": on, "scaling": on, "heads": heads[0]}
    of_decoder = {"input_ids": ids, "source": source, "positions": on, "scaling": on, "heads": heads[1]}
    of_decoder |= {"cross_heads": heads[1].clone(), "causal": on, "cross": on}
    axes = {"input_ids": {1: length}, "source": {0: length}}
    begin = ["embeddings", "positions_added"]
    return (
        trace(encoder, of_encoder, ["states", *begin, *encoder.names], axes),
        trace(decoder, of_decoder, ["logits", *begin, *decoder.names], axes),
    )


def trace(
    module: nn.Module, inputs: dict[str, torch.Tensor], outputs: list[str], axes: dict[str, dict]
) -> onnx.ModelProto:
    """Return a module as a graph."""
    samples = tuple(sample.clone() for sample in inputs.values())
    with torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            samples,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=tuple(axes.get(name) for name in inputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # never with dynamo
    graph = program.model_proto
    store_in_8_bits(graph.graph)
    return graph


def store_in_8_bits(graph: onnx.GraphProto) -> None:
    """Replace matrices that `round_weights` has rounded by whole numbers and scales; loading multiplies them."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        axis = find_axis(values) if weight.data_type == TensorProto.FLOAT and values.ndim == 2 else None
        if axis is None:
            weights.append(weight)
            continue
        scale = np.abs(values).max(axis=1 - axis, keepdims=True) / np.float32(MOST)
        name = weight.name
        weights.append(numpy_helper.from_array(np.rint(values / scale).astype(np.int8), f"{name}.int8"))
        weights.append(numpy_helper.from_array(scale, f"{name}.scale"))
        # Not DequantizeLinear: ONNX Runtime may join it with a product and then rounds the states to 8 bits, too.
        nodes.append(helper.make_node("Cast", [f"{name}.int8"], [f"{name}.float"], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [name]))
    nodes.extend(graph.node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    initial = [onnx.TensorProto.FromString(weight.SerializeToString()) for weight in weights]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(initial)


def find_axis(values: np.ndarray) -> int | None:
    """Return the axis along which a matrix has scales, (rows 0, columns 1); None where it was not rounded."""
    for axis in (0, 1):
        scale = np.abs(values).max(axis=1 - axis, keepdims=True) / np.float32(MOST)
        if (scale > 0).all() and np.abs(np.rint(values / scale) * scale - values).max() < 1e-6:
            return axis
    return None
