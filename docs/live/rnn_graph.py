"""The graphs of the RNNs: what came before the Transformer, on the same page and the same text.

    encoder: source tokens -> states of the source, first state of the decoder
    decoder: source states, one target token, state -> logits of the next token, state, attention weights

A recurrence goes step by step: the page runs the decoder once for each token, and the state is all that goes from one
to the next. Weights are as in the model's file, since these models are small.
"""

import copy
import functools

import onnx
import torch
from torch import nn

from fun_transformer import Seq2SeqRNNForConditionalGeneration
from fun_transformer.modeling_seq2seq_rnn import Encoder, Source

from onnx_files import OPSET, trace  # isort: skip


# Where the gates of PyTorch's weights are among those of ONNX.
GATES = {nn.GRU: (1, 0, 2), nn.LSTM: (0, 3, 1, 2)}


def as_node(rnn: nn.RNNBase, weights: list, inputs: torch.Tensor, start: torch.Tensor | tuple | None = None) -> tuple:
    """Run an nn.GRU or nn.LSTM as the node of ONNX of that name, layer by layer.

    The exporter would unroll the recurrence, for one length alone.

    Args:
        rnn: The layers.
        weights: Of each layer, what `weights_of` returns.
        inputs: (1, seq_len, input_dim).
        start: State to begin with, as the modules take it; zeros when None.

    Returns:
        What the modules return: states of the top layer, and the last state of all layers.
    """
    directions = 2 if rnn.bidirectional else 1
    is_lstm = isinstance(rnn, nn.LSTM)
    parts = 2 if is_lstm else 1
    zeros = torch.zeros(rnn.num_layers * directions, 1, rnn.hidden_size)
    begin = [zeros] * parts if start is None else list(start) if is_lstm else [start]
    length, states, last = inputs.shape[1], inputs.transpose(0, 1), []  # (seq_len, 1, input_dim)
    attributes = {"hidden_size": rnn.hidden_size, "direction": "bidirectional" if directions == 2 else "forward"}
    shapes = [(length, directions, 1, rnn.hidden_size)] + [(directions, 1, rnn.hidden_size)] * parts
    for layer in range(rnn.num_layers):
        rows = slice(layer * directions, (layer + 1) * directions)
        outputs = torch.onnx.ops.symbolic_multi_out(
            "LSTM" if is_lstm else "GRU",
            [states, *weights[layer], None, *(part[rows] for part in begin)],
            attributes if is_lstm else attributes | {"linear_before_reset": 1},
            dtypes=[torch.float32] * (1 + parts),
            shapes=shapes,
            version=OPSET,
        )
        states = outputs[0].transpose(1, 2).flatten(2)  # (seq_len, 1, directions * hidden_size)
        last.append(outputs[1:])
    ends = tuple(torch.cat(part) for part in zip(*last, strict=True))
    return states.transpose(0, 1), ends if is_lstm else ends[0]


def weights_of(rnn: nn.RNNBase, layer: int) -> list[torch.Tensor]:
    """Return the weights of a layer as ONNX has them: for inputs, for states, and both biases; a row a direction."""
    order = next(gates for kind, gates in GATES.items() if isinstance(rnn, kind))
    ends = [f"l{layer}", f"l{layer}_reverse"][: 2 if rnn.bidirectional else 1]

    def ordered(name: str) -> torch.Tensor:
        sides = [getattr(rnn, f"{name}_{end}").detach().chunk(len(order)) for end in ends]
        return torch.stack([torch.cat([gates[number] for number in order]) for gates in sides])

    biases = torch.cat([ordered("bias_ih"), ordered("bias_hh")], dim=1)
    return [ordered("weight_ih"), ordered("weight_hh"), biases]


def source_of(states: torch.Tensor) -> Source:
    """Return states (source_len, d_model) as decoders know a source: all of it are tokens."""
    return Source(states[None], torch.ones(1, states.shape[0], dtype=torch.long))


class RNNEncoder(nn.Module):
    """The encoder, and what the decoder begins with."""

    def __init__(self, model: Seq2SeqRNNForConditionalGeneration):
        super().__init__()
        self.encoder: Encoder = model.encoder
        self.decoder = model.decoder

    def forward(self, input_ids: torch.Tensor) -> list[torch.Tensor]:
        """Read the source, (1, source_len).

        Returns:
            States and embeddings (source_len, d_model), and the decoder's first state (parts, layers, d_model).
        """
        embeds = self.encoder.embed_tokens(input_ids) * self.encoder.embed_scale  # (1, source_len, d_model)
        states = self.encoder.rnn(embeds, None)[0][0]  # (source_len, d_model)
        first = torch.stack(self.decoder.first_state(source_of(states)))[:, :, 0]  # (parts, layers, d_model)
        return [states, embeds[0], first]


class RNNDecoder(nn.Module):
    """The decoder and the output layer, for one token."""

    def __init__(self, model: Seq2SeqRNNForConditionalGeneration):
        super().__init__()
        self.decoder = model.decoder
        self.lm_head = model.lm_head

    def forward(self, input_ids: torch.Tensor, source: torch.Tensor, state: torch.Tensor) -> list[torch.Tensor]:
        """Read a token, and score the next one.

        Args:
            input_ids: (1, 1).
            source: (source_len, d_model), from the encoder.
            state: (parts, layers, d_model).

        Returns:
            Logits (vocab_size,), the new state, and weights (1, 1, 1, source_len) where there is attention.
        """
        read = source_of(source)
        embeds = self.decoder.embed_tokens(input_ids) * self.decoder.embed_scale  # (1, 1, d_model)
        before = tuple(part[:, None].contiguous() for part in state.unbind(0))  # each (layers, 1, d_model)
        position_ids = torch.zeros(1, 1, dtype=torch.long)  # only windows would read it
        unrolled = self.decoder.unroll(embeds, None, position_ids, before, read, self.decoder.keys(read))
        both = torch.cat([unrolled.contexts, unrolled.states], dim=-1)  # (1, 1, 2 * d_model)
        logits = self.lm_head(self.decoder.readout(both).tanh())[0, 0]
        weights = [] if unrolled.weights is None else [unrolled.weights[None]]
        return [logits, torch.stack(unrolled.last)[:, :, 0], *weights]


def check(model: Seq2SeqRNNForConditionalGeneration) -> None:
    """Refuse models that the page does not draw.

    Raises:
        ValueError: The model is such a one.
    """
    config = model.config
    wanted = {"attention_window": (config.attention_window, None)}
    wanted |= {"attention_weights": (config.attention_weights, "softmax")}
    for name, (got, allowed) in wanted.items():
        if got != allowed:
            raise ValueError(f"The live page draws RNNs of {name}={allowed}, and this one has {got}.")


def export(model: Seq2SeqRNNForConditionalGeneration) -> dict[str, onnx.ModelProto]:
    """Return the graphs `encoder` and `decoder`.

    Args:
        model: In float32 on the CPU.
    """
    check(model)
    model = copy.deepcopy(model).eval()
    for rnn in (model.encoder.rnn, model.decoder.rnn):
        rnn.forward = functools.partial(as_node, rnn, [weights_of(rnn, layer) for layer in range(rnn.num_layers)])
    config, length = model.config, torch.export.Dim.DYNAMIC
    parts = 2 if config.cell == "lstm" else 1
    state = torch.zeros(parts, config.decoder_layers, config.d_model)
    of_decoder = {"input_ids": torch.full((1, 1), 3), "source": torch.zeros(7, config.d_model), "state": state}
    outputs = ["logits", "new_state", *(["cross.weights"] if config.attention_score != "none" else [])]
    ids = {"input_ids": torch.full((1, 5), 3)}
    return {
        "encoder": trace(RNNEncoder(model), ids, ["states", "embeddings", "state"], {"input_ids": {1: length}}),
        "decoder": trace(RNNDecoder(model), of_decoder, outputs, {"source": {0: length}}),
    }
