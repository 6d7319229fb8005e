"""Sequence to sequence with recurrent networks: how one translated before "Attention Is All You Need".

The file reads in the order of the history:

    1. the encoder reads the source into states h_1 ... h_S             Sutskever et al. 2014 (arXiv:1409.3215)
    2. a decoder with one fixed context c for the whole target          Cho et al. 2014 (arXiv:1406.1078)
    3. attention: a context c_i of its own for each target token        Bahdanau et al. 2015 (arXiv:1409.0473)
    4. attention after the recurrence, and within a window only         Luong et al. 2015 (arXiv:1508.04025)

A decoder writes target token y_i from its state s_i and a context, and the decoders differ in the context alone. All
end alike, in Luong's attentional state (equations 5 and 6):

    p(y_i | y_<i, x) = softmax(W_o s~_i),    s~_i = tanh(W_c [c_i; s_i])

The recurrences are torch's own kernels, nn.LSTM and nn.GRU. Read `attention.py` first: it holds the scores.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.generic import can_return_tuple

from .attention import SCORES, WEIGHTS
from .configuration_seq2seq_rnn import Seq2SeqRNNConfig
from .dropout import Dropout
from .positions import position_ids_from_mask
from .token_model import Seq2SeqTokenOutput, TokenModel, tied_embeddings, tied_output_layer

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}

# (hidden,) of a GRU, (hidden, memory) of an LSTM; each (layers * directions, batch, width).
State = tuple[torch.Tensor, ...]


def build_rnn(config: Seq2SeqRNNConfig, input_dim: int, layers: int, bidirectional: bool = False) -> nn.RNNBase:
    """Build stacked LSTM or GRU layers, (batch, seq_len, input_dim) -> (batch, seq_len, d_model)."""
    return CELLS[config.cell](
        input_dim,
        config.d_model // (2 if bidirectional else 1),
        layers,
        batch_first=True,
        dropout=config.dropout if layers > 1 else 0.0,
        bidirectional=bidirectional,
    )


def run_rnn(
    rnn: nn.RNNBase, inputs: torch.Tensor, attention_mask: torch.Tensor | None, state: State | None = None
) -> tuple[torch.Tensor, State]:
    """Run a recurrence over the tokens of each row, as if the padding were not there.

    A recurrence has no mask: it would read padding like any token. So the tokens are moved to the left, packed, and
    their states are put back where the tokens were.

    Args:
        rnn: The layers.
        inputs: (batch, seq_len, input_dim).
        attention_mask: (batch, seq_len), 1 = token, 0 = padding on whatever side; None where there is none.
        state: Where to begin; zeros when None.

    Returns:
        States of the top layer (batch, seq_len, d_model), zeros at padding; and the last state of all layers.
    """
    if inputs.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # Autocast leaves a GRU as it is and gives an LSTM 16 bits, of which not every processor has a kernel.
        with torch.autocast("cpu", enabled=False):
            return run_rnn(rnn, inputs, attention_mask, state)
    inputs = inputs.to(rnn.weight_ih_l0.dtype)
    start = None if state is None else tuple(part.to(inputs.dtype) for part in state)
    start = start[0] if start and isinstance(rnn, nn.GRU) else start
    if attention_mask is None or attention_mask.all():
        outputs, last = rnn(inputs, start)  # (batch, seq_len, d_model)
        return outputs, last if isinstance(last, tuple) else (last,)
    is_token = attention_mask.bool()
    order = (~is_token).long().argsort(dim=1, stable=True).unsqueeze(-1)  # (batch, seq_len, 1): tokens first
    lengths = is_token.sum(dim=1)  # (batch,)
    packed = pack_padded_sequence(
        inputs.gather(1, order.expand_as(inputs)), lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
    )
    packed, last = rnn(packed, start)
    outputs, _ = pad_packed_sequence(packed, batch_first=True, total_length=inputs.shape[1])
    outputs = torch.zeros_like(outputs).scatter(1, order.expand_as(outputs), outputs) * is_token.unsqueeze(-1)
    last = last if isinstance(last, tuple) else (last,)
    return outputs, keep_where(lengths > 0, last, state or tuple(map(torch.zeros_like, last)))


def keep_where(condition: torch.Tensor, new: State, old: State) -> State:
    """Return the new state in rows where the condition (batch,) holds, the old one elsewhere."""
    return tuple(torch.where(condition[:, None], *pair) for pair in zip(new, old))


# 1. The encoder


class Encoder(nn.Module):
    """h_j = [h_j forward; h_j backward]: each source token in the light of those before and after it.

    (Bahdanau, section 3.2; one direction alone where the config says so.) Embeddings are scaled by sqrt(d_model), as
    in the Transformer, since the output layer may share them.
    """

    main_input_name = "input_ids"  # generate() asks

    def __init__(self, config: Seq2SeqRNNConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.embed_scale = math.sqrt(config.d_model)
        self.dropout = Dropout(config.dropout)
        self.rnn = build_rnn(config, config.d_model, config.encoder_layers, config.bidirectional)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        return_dict: bool = True,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutput:
        """Read the source.

        Args:
            input_ids: (batch, source_len); or
            inputs_embeds: (batch, source_len, d_model), not yet scaled.
            attention_mask: (batch, source_len), 1 = token, 0 = padding.
            (others): generate() gives them to every encoder; there are neither weights nor other states to return.

        Returns:
            `last_hidden_state` (batch, source_len, d_model): h_j, zeros at padding.
        """
        if (input_ids is None) == (inputs_embeds is None):
            found = "neither" if input_ids is None else "both"
            raise ValueError(f"The encoder needs either input_ids or inputs_embeds, and got {found}.")
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        states, _ = run_rnn(self.rnn, self.dropout(embeds * self.embed_scale), attention_mask)
        return BaseModelOutput(last_hidden_state=self.dropout(states))


class Source(NamedTuple):
    """What a decoder gets to know of the source: its states (batch, source_len, d_model), and which are tokens."""

    states: torch.Tensor
    mask: torch.Tensor  # (batch, source_len), 1 = token, 0 = padding

    def last_state(self, bidirectional: bool) -> torch.Tensor:
        """Return the state after the whole source has been read: c = [h_S forward; h_1 backward], (batch, d_model)."""
        rows = torch.arange(len(self.mask), device=self.mask.device)
        last = self.mask.shape[1] - 1 - self.mask.flip(1).long().argmax(dim=1)  # (batch,)
        if not bidirectional:
            return self.states[rows, last]
        first = self.mask.long().argmax(dim=1)  # (batch,)
        forward, _ = self.states[rows, last].chunk(2, dim=-1)  # (batch, d_model / 2)
        _, backward = self.states[rows, first].chunk(2, dim=-1)
        return torch.cat([forward, backward], dim=-1)


class Unrolled(NamedTuple):
    """What a decoder has made of the target."""

    states: torch.Tensor  # (batch, target_len, d_model), s_i
    contexts: torch.Tensor  # (batch, target_len, d_model), c_i
    weights: torch.Tensor | None  # (batch, target_len, source_len), if there are any
    last: State  # each part (layers, batch, d_model)


class RNNCache(Cache):
    """What goes from one target token to the next: a state of constant size, where a Transformer's cache grows."""

    def __init__(self):
        super().__init__(layers=[])
        self.state: State | None = None  # each (layers, batch, d_model)
        self.keys: torch.Tensor | None = None  # (batch, source_len, d_model): what the score made of the source
        self.seen = 0  # number of target tokens

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of target tokens read so far."""
        return self.seen

    def reorder_cache(self, beam_idx: torch.LongTensor):
        """Follow the beams that go on; all beams of a source share its keys."""
        if self.state is not None:
            self.state = tuple(part.index_select(1, beam_idx.to(part.device)) for part in self.state)

    def batch_select_indices(self, indices: torch.Tensor):
        """Keep these rows of the batch, in this order."""
        self.reorder_cache(indices)
        if self.keys is not None:
            self.keys = self.keys.index_select(0, indices.to(self.keys.device))

    def batch_repeat_interleave(self, repeats: int):
        """Repeat each row."""
        if self.state is not None:
            rows = torch.arange(self.state[0].shape[1], device=self.state[0].device)
            self.batch_select_indices(rows.repeat_interleave(repeats))

    def reset(self):
        """Forget everything."""
        self.state, self.keys, self.seen = None, None, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse: a recurrence cannot go back."""
        raise ValueError("The state of an RNN cannot be set back to an earlier token. Start again with a new cache.")

    @property
    def is_croppable(self) -> bool:
        """Say that no token can be removed."""
        return False


# 2. The fixed context


class Decoder(nn.Module):
    """The fixed context: s_i = f(s_{i-1}, y_{i-1}, c) with the same c for all i, the encoder's last state.

    (Cho, section 2.2.) All that the target is made from has to fit into this one vector, however long the source is:
    the bottleneck. Of Cho, the readout differs: one tanh layer where he has a maxout.

    s_0 = tanh(W_s c), one for each layer and part of the state. The decoders with attention begin in the same way.
    """

    has_context_as_input = True  # f reads the context beside the last token

    def __init__(self, config: Seq2SeqRNNConfig):
        super().__init__()
        self.bidirectional = config.bidirectional
        self.embed_tokens = nn.Embedding(config.decoder_vocab_size, config.d_model)
        self.embed_scale = math.sqrt(config.d_model)
        self.dropout = Dropout(config.dropout)
        parts = config.decoder_layers * (2 if config.cell == "lstm" else 1)
        self.bridge = nn.Linear(config.d_model, parts * config.d_model)  # W_s
        input_dim = config.d_model * (2 if self.has_context_as_input else 1)
        self.rnn = build_rnn(config, input_dim, config.decoder_layers)
        self.readout = nn.Linear(2 * config.d_model, config.d_model, bias=False)  # W_c

    def first_state(self, source: Source) -> State:
        """Make s_0 from the source, each part (layers, batch, d_model)."""
        bridged = self.bridge(source.last_state(self.bidirectional)).tanh()  # (batch, parts * d_model)
        parts = bridged.unflatten(-1, (-1, self.rnn.num_layers, self.rnn.hidden_size))
        return tuple(part.contiguous() for part in parts.permute(1, 2, 0, 3).to(self.rnn.weight_ih_l0.dtype))

    def keys(self, source: Source) -> torch.Tensor | None:
        """Compute what attention needs once for a source, (batch, source_len, d_model); nothing here."""
        return None

    def unroll(
        self,
        embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor,
        state: State,
        source: Source,
        keys: torch.Tensor | None,
    ) -> Unrolled:
        """Run over the target, all of which is known in training: teacher forcing.

        Args:
            embeds: (batch, target_len, d_model), y_{i-1}.
            attention_mask: (batch, target_len), 1 = token, 0 = padding.
            position_ids: (batch, target_len), i.
            state: Where to begin, each part (layers, batch, d_model).
            source: What the encoder has read.
            keys: (batch, source_len, d_model), what `keys` returned.

        Returns:
            States s_i and contexts c_i, attention weights if there are any, and the last state.
        """
        context = source.last_state(self.bidirectional).unsqueeze(1).expand_as(embeds)  # (batch, target_len, d_model)
        states, state = run_rnn(self.rnn, torch.cat([embeds, context], dim=-1), attention_mask, state)
        return Unrolled(states, context, None, state)

    def forward(
        self,
        source: Source,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: RNNCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Decode.

        Args:
            source: What the encoder has read.
            input_ids: (batch, target_len), the tokens that are not yet in the cache; or
            inputs_embeds: (batch, target_len, d_model), not yet scaled.
            attention_mask: (batch, past_len + target_len), 1 = token, 0 = padding.
            past_key_values: The state after earlier tokens; goes on to that after these.

        Returns:
            s~_i (batch, target_len, d_model), and the attention weights (batch, target_len, source_len) if any.
        """
        if (input_ids is None) == (inputs_embeds is None):
            found = "neither" if input_ids is None else "both"
            raise ValueError(
                f"The decoder needs either decoder_input_ids, the target so far, or decoder_inputs_embeds, and got "
                f"{found}. In training, labels are enough."
            )
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        embeds = self.dropout(embeds * self.embed_scale)  # (batch, target_len, d_model)
        cache = RNNCache() if past_key_values is None else past_key_values
        target_len = embeds.shape[1]
        if attention_mask is None:
            position_ids = (torch.arange(target_len, device=embeds.device) + cache.seen).unsqueeze(0)
        else:
            position_ids = position_ids_from_mask(attention_mask)[:, -target_len:]  # (batch, target_len)
            attention_mask = attention_mask[:, -target_len:]
        if cache.state is None:
            cache.state, cache.keys = self.first_state(source), self.keys(source)
        unrolled = self.unroll(embeds, attention_mask, position_ids, cache.state, source, cache.keys)
        cache.state = unrolled.last
        cache.seen += target_len
        read = torch.cat([unrolled.contexts.to(unrolled.states.dtype), unrolled.states], dim=-1)
        return self.dropout(self.readout(read).tanh()), unrolled.weights  # (batch, target_len, d_model), ...


# 3. Attention


class PredictedWindow(nn.Module):
    """local-p: look around p_i = S sigmoid(v_p^T tanh(W_p s_i)), the less the further away (Luong, equations 9, 10).

    Weights are multiplied by exp(-(j - p_i)^2 / (2 sigma^2)), sigma = D / 2, and are 0 beyond D. As in the paper, they
    then sum to less than 1.
    """

    def __init__(self, config: Seq2SeqRNNConfig):
        super().__init__()
        self.width = config.attention_window  # D
        self.position_proj = nn.Linear(config.d_model, config.d_model, bias=False)  # W_p
        self.position_score = nn.Linear(config.d_model, 1, bias=False)  # v_p

    def centers(self, query: torch.Tensor, position_ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Predict p_i, (batch, query_len, 1), from queries (batch, query_len, d_model) and lengths S (batch, 1, 1)."""
        return lengths * self.position_score(self.position_proj(query).tanh()).float().sigmoid()

    def favour(self, distance: torch.Tensor) -> torch.Tensor:
        """Return the factor for the weight at a distance j - p_i."""
        return torch.exp(-(distance**2) / (2 * (self.width / 2) ** 2))

    def forward(
        self, query: torch.Tensor, position_ids: torch.Tensor, source_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Place the window.

        Args:
            query: (batch, query_len, d_model).
            position_ids: (batch or 1, query_len), i.
            source_mask: (batch, source_len), 1 = token, 0 = padding.

        Returns:
            What lies in the window (True), and a factor for each weight; both (batch, query_len, source_len).
        """
        lengths = source_mask.sum(dim=1)[:, None, None]  # (batch, 1, 1)
        positions = position_ids_from_mask(source_mask).unsqueeze(1)  # (batch, 1, source_len), j
        distance = positions - self.centers(query, position_ids, lengths)  # (batch, query_len, source_len)
        return distance.abs() <= self.width, self.favour(distance)


class MonotonicWindow(PredictedWindow):
    """local-m: p_i = i, so target and source advance together; past the source's end, p_i stays at its last token."""

    def __init__(self, config: Seq2SeqRNNConfig):
        nn.Module.__init__(self)
        self.width = config.attention_window

    def centers(self, query: torch.Tensor, position_ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return p_i, (batch, query_len, 1)."""
        return torch.minimum(position_ids.unsqueeze(-1), lengths - 1)

    def favour(self, distance: torch.Tensor) -> torch.Tensor:
        """Treat all positions alike."""
        return torch.ones_like(distance, dtype=torch.float32)


WINDOWS = {"predicted": PredictedWindow, "monotonic": MonotonicWindow}


class Alignment(nn.Module):
    """c_i = sum_j alpha_ij h_j: which source tokens matter for target token i?

    alpha_ij = softmax_j(e_ij), or what else the config makes of scores. A window hides what lies outside before the
    scores become weights, and local-p's factor comes after: hard attention picks within the window, and gives what it
    picked a weight below 1.
    """

    def __init__(self, config: Seq2SeqRNNConfig):
        super().__init__()
        self.score = SCORES[config.attention_score](config.d_model)
        self.to_weights = WEIGHTS[config.attention_weights]
        self.window = WINDOWS[config.attention_window_center](config) if config.attention_window else None

    def forward(
        self, query: torch.Tensor, keys: torch.Tensor, source: Source, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Look at the source.

        Args:
            query: (batch, query_len, d_model), decoder states.
            keys: (batch, source_len, d_model), what the score made of the source.
            source: Its states are the values.
            position_ids: (batch or 1, query_len), i.

        Returns:
            Contexts (batch, query_len, d_model) and weights (batch, query_len, source_len) of float32.
        """
        scores = self.score(query, keys).float()  # (batch, query_len, source_len)
        allowed = source.mask.bool().unsqueeze(1)  # (batch, 1, source_len)
        factor = None
        if self.window is not None:
            near, factor = self.window(query, position_ids, source.mask)
            allowed = allowed & near
        hidden = torch.zeros_like(scores).masked_fill(~allowed, torch.finfo(scores.dtype).min)
        weights = self.to_weights(scores, hidden)  # (batch, query_len, source_len)
        if factor is not None:
            weights = weights * factor
        return torch.matmul(weights.to(source.states.dtype), source.states), weights


class BahdanauDecoder(Decoder):
    """s_i = f(s_{i-1}, y_{i-1}, c_i), where c_i looks at the source with s_{i-1} (Bahdanau, section 3.1).

    The context of a step is made from the state before it and goes into the state after it: even in training, where
    the target is known, the steps have to run one by one. With several layers, the top one's state looks.
    """

    def __init__(self, config: Seq2SeqRNNConfig):
        super().__init__(config)
        self.alignment = Alignment(config)

    def keys(self, source: Source) -> torch.Tensor:
        """Compute U_a h_j, (batch, source_len, d_model)."""
        return self.alignment.score.keys(source.states)

    def unroll(self, embeds, attention_mask, position_ids, state, source, keys):
        """Run over the target token by token; arguments and results are those of `Decoder.unroll`."""
        steps = []
        for i in range(embeds.shape[1]):
            query = state[0][-1].unsqueeze(1)  # (batch, 1, d_model), s_{i-1}
            context, weights = self.alignment(query, keys, source, position_ids[:, i : i + 1])
            inputs = torch.cat([embeds[:, i : i + 1], context.to(embeds.dtype)], dim=-1)  # (batch, 1, 2 * d_model)
            output, new = run_rnn(self.rnn, inputs, None, state)
            state = new if attention_mask is None else keep_where(attention_mask[:, i].bool(), new, state)
            steps.append((output, context, weights))
        return Unrolled(*(torch.cat(parts, dim=1) for parts in zip(*steps)), state)


# 4. Attention after the recurrence


class LuongDecoder(BahdanauDecoder):
    """s_i = f(s_{i-1}, y_{i-1}), and c_i looks at the source with s_i itself (Luong, section 3).

    No state waits for a context, so in training the whole target runs in one call of the kernel, and all its tokens
    look at the source in one matrix product. Luong's input feeding (section 3.3), which leads s~_{i-1} into s_i, would
    take that away again, and is left out.
    """

    has_context_as_input = False

    def unroll(self, embeds, attention_mask, position_ids, state, source, keys):
        """Run over the target in one call; arguments and results are those of `Decoder.unroll`."""
        states, state = run_rnn(self.rnn, embeds, attention_mask, state)
        contexts, weights = self.alignment(states, keys, source, position_ids)
        return Unrolled(states, contexts, weights, state)


DECODERS = {"none": Decoder, "additive": BahdanauDecoder, "dot": LuongDecoder, "general": LuongDecoder}


# The whole model


class Seq2SeqRNNForConditionalGeneration(TokenModel, GenerationMixin):
    """Encoder, decoder, and an output layer that gives each token of the vocabulary a logit.

    Its state while generating is an `RNNCache`.
    """

    config: Seq2SeqRNNConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    accepts_loss_kwargs = True  # the Trainer may pass num_items_in_batch
    _is_stateful = True  # no assisted generation: a state cannot go back
    _skip_keys_device_placement = ["past_key_values"]

    def __init__(self, config: Seq2SeqRNNConfig):
        super().__init__(config)
        self._tied_weights_keys = tied_embeddings(config) | tied_output_layer(config)
        self.encoder = Encoder(config)
        self.decoder = DECODERS[config.attention_score](config)
        self.lm_head = nn.Linear(config.d_model, config.decoder_vocab_size, bias=False)  # W_o
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        """Fill a fresh module as `TokenModel` does; recurrent weights are orthogonal (Saxe et al. 2014).

        Biases are 0, but 1 for an LSTM's forget gates, which then remember at first (Jozefowicz et al. 2015).
        """
        super()._init_weights(module)
        if isinstance(module, nn.RNNBase):
            for name, parameter in module.named_parameters():
                if getattr(parameter, "_is_hf_initialized", False):
                    continue  # the pieces below do not know that it has been loaded
                gates = parameter.chunk(
                    4 if isinstance(module, nn.LSTM) else 3
                )  # an LSTM's: input, forget, cell, output
                for number, gate in enumerate(gates):
                    if name.startswith("weight_hh"):
                        init.orthogonal_(gate)
                    elif name.startswith("weight_ih"):
                        init.xavier_uniform_(gate)
                    else:
                        forget = isinstance(module, nn.LSTM) and number == 1 and name.startswith("bias_ih")
                        init.constant_(gate, 1.0 if forget else 0.0)

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """Return the encoder."""
        return self.encoder

    def get_decoder(self) -> nn.Module:
        """Return the decoder."""
        return self.decoder

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Shift the target right by one, (batch, target_len) -> (batch, target_len)."""
        return self.shift_right(labels)

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, generation_mode, *args):
        """Begin with an empty state, unless the caller has one or wants none."""
        if generation_config.cache_implementation not in (None, "dynamic"):
            raise ValueError(
                f"cache_implementation={generation_config.cache_implementation} is for models that keep all keys and "
                "values. The state of an RNN has a constant size: leave it out."
            )
        if generation_config.use_cache is not False and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = RNNCache()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: tuple[torch.Tensor] | BaseModelOutput | None = None,
        past_key_values: RNNCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        label_smoothing: float | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        skip_logits: bool | None = None,
    ) -> Seq2SeqTokenOutput:
        """Score the next token at each position of the target, and compare with `labels`.

        Args:
            input_ids: (batch, source_len).
            attention_mask: (batch, source_len), 1 = token, 0 = padding.
            decoder_input_ids: (batch, target_len), starting with `decoder_start_token_id`.
            decoder_attention_mask: (batch, past_len + target_len), 1 = token, 0 = padding.
            encoder_outputs: What the encoder returned before; its first item is (batch, source_len, d_model).
            past_key_values: The state after earlier tokens.
            inputs_embeds, decoder_inputs_embeds: (batch, len, d_model), instead of the ids.
            labels: (batch, target_len), the target itself, ending in `eos_token_id`: it is shifted here, to make the
                decoder's input when there is none, and nowhere else. -100 and `pad_token_id` are ignored, as in
                `TokenModel.token_loss`.
            use_cache: Return the state for the next step.
            output_attentions: Return the attention weights.
            output_hidden_states: Return the states of the top layers; torch's kernels do not return those between.
            label_smoothing: Instead of the config's; 0 gives the cross-entropy whose exponential is the perplexity.
            num_items_in_batch: Number of labels to divide the loss by, when this is a part of a larger batch; all
                but -100 are counted, as a `Trainer` does.
            skip_logits: Return no logits, which saves their memory; by default in training with labels. A loss of your
                own that reads `outputs.logits` in training needs False.

        Returns:
            `loss`, `logits` (batch, target_len, decoder_vocab_size), the state, and, where there is attention,
            `cross_attentions`: a tuple of one (batch, 1, target_len, source_len).
        """
        if use_cache is None:
            use_cache = self.config.use_cache and labels is None
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask, inputs_embeds)
        encoder_states = encoder_outputs[0]  # (batch, source_len, d_model)
        if attention_mask is None:
            attention_mask = encoder_states.new_ones(encoder_states.shape[:2], dtype=torch.long)
        if past_key_values is None and use_cache:
            past_key_values = RNNCache()
        hidden_states, weights = self.decoder(
            Source(encoder_states, attention_mask),
            decoder_input_ids,
            decoder_attention_mask,
            past_key_values,
            decoder_inputs_embeds,
        )
        loss = None
        if labels is not None:
            loss = self.token_loss(hidden_states, self.lm_head, labels, label_smoothing, num_items_in_batch)
        if skip_logits is None:
            skip_logits = self.training and labels is not None
        return Seq2SeqTokenOutput(
            loss=loss,
            logits=None if skip_logits else self.lm_head(hidden_states),
            past_key_values=past_key_values,
            cross_attentions=(weights.unsqueeze(1),) if output_attentions and weights is not None else None,
            decoder_hidden_states=(hidden_states,) if output_hidden_states else None,
            encoder_last_hidden_state=encoder_states,
            encoder_hidden_states=(encoder_states,) if output_hidden_states else None,
        )


__all__ = ["Seq2SeqRNNForConditionalGeneration"]
