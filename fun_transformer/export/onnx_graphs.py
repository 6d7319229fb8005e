"""The graphs of a translator in ONNX, which ONNX Runtime computes in any language and in a browser.

    encoder   input_ids, attention_mask -> last_hidden_state; input_features or pixel_values in place of ids
    decoder   input_ids, encoder_hidden_states, encoder_attention_mask, keys and values so far -> logits, and the same
              with those of these tokens

The source's keys and values are computed in the first step only: `use_cache_branch` says whether there was one.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any, cast

import onnx
import torch
from onnx import TensorProto, helper
from torch import nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from ..frontends import is_text
from ..modeling_fun_transformer import FunTransformerForConditionalGeneration

OPSET = 18  # of the operators: the least that torch writes, which ONNX Runtime has known since 2023
PARTS = ("decoder", "encoder")  # whose keys and values a layer of the decoder keeps: the target's and the source's


def cache_names(num_layers: int, prefix: str = "past_key_values", parts: tuple[str, ...] = PARTS) -> list[str]:
    """Return the names that transformers.js gives keys and values, layer by layer."""
    return [f"{prefix}.{i}.{part}.{kind}" for i in range(num_layers) for part in parts for kind in ("key", "value")]


class EncoderGraph(nn.Module):
    """Read a source: (batch, source_len) of ids and mask -> (batch, source_len, d_model)."""

    def __init__(self, model: FunTransformerForConditionalGeneration) -> None:
        super().__init__()
        self.encoder = model.model.encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the encoder's output."""
        return self.encoder(input_ids, attention_mask).last_hidden_state


class FeatureGraph(EncoderGraph):
    """Read speech or pictures: features and mask (batch, length) -> (batch, source_len, d_model)."""

    def forward(self, features: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the encoder's output."""
        named: Any = {self.encoder.main_input_name: features}
        return self.encoder(**named, attention_mask=attention_mask).last_hidden_state


class SourceGraph(nn.Module):
    """Compute what each layer of the decoder attends to in the source."""

    def __init__(self, model: FunTransformerForConditionalGeneration) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(layer.encoder_attn for layer in model.model.decoder.layers)

    def forward(self, encoder_hidden_states: torch.Tensor) -> list[torch.Tensor]:
        """Turn (batch, source_len, d_model) into a key and a value a layer, (batch, heads, source_len, head_dim)."""
        attentions: Any = self.attentions
        return [
            attention.split_heads(project(encoder_hidden_states))
            for attention in attentions
            for project in (attention.k_proj, attention.v_proj)
        ]


class DecoderGraph(nn.Module):
    """Score the next token, given the tokens that are not yet in the cache."""

    def __init__(self, model: FunTransformerForConditionalGeneration) -> None:
        super().__init__()
        self.decoder = model.model.decoder
        self.lm_head = model.lm_head
        self.ends = end_ids(model)

    def forward(
        self,
        encoder_attention_mask: torch.Tensor,
        input_ids: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        *cache: torch.Tensor,
    ) -> list[torch.Tensor]:
        """Decode.

        Args:
            encoder_attention_mask: (batch, source_len), 1 = token, 0 = padding.
            input_ids: (batch, target_len).
            encoder_hidden_states: (batch, source_len, d_model).
            cache: Keys and values by `cache_names`, (batch, heads, past_len or source_len, head_dim).

        Returns:
            Logits (batch, target_len, decoder_vocab_size), and the target's keys and values.
        """
        past = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for layer_idx in range(len(self.decoder.layers)):
            key, value, source_key, source_value = cache[4 * layer_idx : 4 * layer_idx + 4]
            past.self_attention_cache.update(key, value, layer_idx)
            past.cross_attention_cache.update(source_key, source_value, layer_idx)
            past.is_updated[layer_idx] = True
        states = self.decoder(input_ids, None, encoder_hidden_states, encoder_attention_mask, past).last_hidden_state
        logits = self.repeat_ends(self.lm_head(states), input_ids)
        layers: Any = past.self_attention_cache.layers
        return [logits, *(states for layer in layers for states in (layer.keys, layer.values))]

    def repeat_ends(self, logits: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """Let the end of a text follow its end: transformers.js asks on until the last text of a batch has ended."""
        if not self.ends:
            return logits
        others = torch.ones(logits.shape[-1], dtype=torch.bool)
        others[self.ends] = False
        ended = (input_ids.unsqueeze(-1) == torch.tensor(self.ends)).any(-1, keepdim=True)  # (batch, target_len, 1)
        return logits.masked_fill(ended & others, torch.finfo(logits.dtype).min)


def end_ids(model: FunTransformerForConditionalGeneration) -> list[int]:
    """Return the tokens that end a text; none where texts begin with one of them."""
    ends = model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    return [] if model.generation_config.decoder_start_token_id in ends else ends


def export_encoder(model: FunTransformerForConditionalGeneration) -> onnx.ModelProto:
    """Write the encoder as a graph."""
    source = {0: "batch_size", 1: "encoder_sequence_length"}
    if is_text(model.config):
        names = ("input_ids", "attention_mask")  # one tensor for both would be one input
        ids = {name: (torch.ones(2, 5, dtype=torch.long), source) for name in names}
        return export_graph(EncoderGraph(model), ids, ["last_hidden_state"])
    front_end: Any = model.model.encoder.front_end
    features = torch.cat([front_end.sample(41), front_end.sample(41)])
    axes = {0: "batch_size", front_end.length_axis: "encoder_sequence_length"}
    inputs = {model.main_input_name: (features, axes), "attention_mask": (torch.ones(2, 41, dtype=torch.long), source)}
    return export_graph(FeatureGraph(model), inputs, ["last_hidden_state"])


def export_decoder(model: FunTransformerForConditionalGeneration) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Write what reads the encoder's output, and the decoder, as graphs for `merge`."""
    config = model.config
    num_layers, heads = config.decoder_layers, config.decoder_attention_heads
    head_dim = config.d_model // heads
    states = (torch.zeros(2, 5, config.d_model), {0: "batch_size", 1: "encoder_sequence_length"})
    source = export_graph(
        SourceGraph(model), {"encoder_hidden_states": states}, cache_names(num_layers, "present", ("encoder",))
    )
    inputs = {
        "encoder_attention_mask": (torch.ones(2, 5, dtype=torch.long), states[1]),
        "input_ids": (torch.ones(2, 3, dtype=torch.long), {0: "batch_size", 1: "decoder_sequence_length"}),
        "encoder_hidden_states": states,
    }
    for name in cache_names(num_layers):
        length, length_name = (5, "encoder_sequence_length") if ".encoder." in name else (4, "past_sequence_length")
        inputs[name] = (torch.zeros(2, heads, length, head_dim), {0: "batch_size", 2: length_name})
    outputs = ["logits", *cache_names(num_layers, "present", ("decoder",))]
    return source, export_graph(DecoderGraph(model), inputs, outputs)


def export_graph(
    module: nn.Module, inputs: dict[str, tuple[torch.Tensor, dict[int, str]]], outputs: list[str]
) -> onnx.ModelProto:
    """Turn a module into a graph.

    Args:
        module: What to compute.
        inputs: Name -> a sample, and the names of those of its axes that may have any length.
        outputs: Names.

    Returns:
        A graph with neither the paths nor the lines of the code that it was made from.
    """
    positional = list(module.forward.__code__.co_varnames[1 : module.forward.__code__.co_argcount])
    axes: list[Any] = [names for _, names in inputs.values()]
    if len(axes) > len(positional):  # the rest are *cache
        axes = [*axes[: len(positional)], tuple(axes[len(positional) :])]
    with silence(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            tuple(sample for sample, _ in inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=tuple(axes),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    model: onnx.ModelProto = cast(torch.onnx.ONNXProgram, program).model_proto  # never None with dynamo
    model.graph.ClearField("value_info")
    for part in (model, model.graph, *model.graph.node, *model.graph.input, *model.graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    return model


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep torch's exporter from telling what users can do nothing about."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def merge(source: onnx.ModelProto, decoder: onnx.ModelProto) -> onnx.ModelProto:
    """Put two graphs into one that computes the source's keys and values only where there are none yet.

    Args:
        source: Computes `present.*.encoder.*` from `encoder_hidden_states`.
        decoder: Reads them as `past_key_values.*.encoder.*`. It becomes the result.

    Returns:
        A graph with a further input, `use_cache_branch`: (1,), whether the cache holds something.
    """
    presents = [output.name for output in source.graph.output]
    pasts = {name.replace("present", "past_key_values"): name for name in presents}
    source = onnx.compose.add_prefix(source, "source.", rename_inputs=False)
    cached = [helper.make_node("Identity", [past], [f"cached.{name}"]) for past, name in pasts.items()]
    fresh = list(source.graph.node)
    branches = {
        "then_branch": branch("cached", cached, source.graph.output),
        "else_branch": branch("source", fresh, source.graph.output),
    }
    for node in decoder.graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = pasts.get(name, name)
    choice = helper.make_node("If", ["use_cache_branch"], presents, name="source", **branches)
    decoder.graph.node.insert(0, choice)
    decoder.graph.initializer.extend(source.graph.initializer)
    decoder.graph.input.append(helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1]))
    for output, name in zip(source.graph.output, presents):
        output.name = name
        decoder.graph.output.append(output)
    onnx.checker.check_model(decoder)
    return decoder


def branch(prefix: str, nodes: list[onnx.NodeProto], outputs: Any) -> onnx.GraphProto:
    """Return nodes as one side of a choice; their outputs have a prefix of their own."""
    results = []
    for output in outputs:
        result = onnx.ValueInfoProto()
        result.CopyFrom(output)
        result.name = f"{prefix}.{output.name.removeprefix('source.')}"
        results.append(result)
    return helper.make_graph(nodes, prefix, [], results)
