"""The decoder for one token at a time, as `generate` needs it: the same numbers as `Decoder`, sooner.

`Decoder` reads any number of tokens, with any mask, mixer and kernel. While a text is generated it reads one token a
step, and much of what it does could have been done once. Here is what is done otherwise:

    keys and values of the source    stored once for a text, where each beam had a copy of its own, and all copies were
                                     moved whenever beams changed places
    keys and values of the target    written into room that is there already, where `torch.cat` copied the text so far;
                                     they never move: a mask says which of a text's tokens led to which beam
    weights                          laid out as matrix products on the processor want them, q, k and v together
    masks, positions                 computed once a step or a text, where each layer or step computed them again
    modules                          called as functions, which matters where there is one text only

What it was worth was measured on zh-en-small of hub_configs (3 layers, d_model 256, 10,000 tokens): 64 sentences in
two batches with 5 beams, float32, one thread. Of the 1.84 s that the loop of transformers took, moving copies of keys
and values (`index_select`, `cat`) was 14 %, and finding the best beams among copies of all scores (`topk`, `to`) 10 %.
With this decoder and the searches of `fast_search.py` it is 0.87 s, of which products with weights are half.

The beams of a text form a tree: each token follows another, and a beam is the way from the first token to a leaf. All
tokens of the tree are in one store, and a beam attends to those on its way. With two beams:

    step 1    step 2    step 3         in the store: a, b1, b2, c1, c2
      a ------- b1 ------- c1          c1 attends to a, b1 and c1
       |         `-------- c2          c2 attends to a, b1 and c2
        `------ b2                     no beam looks at b2 any more
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from .fast_products import Product, activation_of, add_bias, additive, forbidden_score, lay_out, norm_of
from .positions import TokenPositions

ROOM = 16  # steps that a store has room for at first; it doubles when it is full
POSITIONS = 64  # positions that are encoded at a time


class LayerWeights(NamedTuple):
    """What one decoder layer multiplies by."""

    qkv: Product
    out: Product
    source_q: Product
    source_kv: Product
    source_out: Product
    fc1: Product
    fc2: Product


class DecoderWeights(NamedTuple):
    """What a decoder and its output layer multiply by."""

    layers: list[LayerWeights]
    lm_head: Product


def decoder_linears(model: PreTrainedModel) -> list[nn.Linear]:
    """Return the linear layers whose weights `lay_out_decoder` lays out."""
    linears = [model.lm_head]
    for layer in model.get_decoder().layers:
        for attention in (layer.self_attn, layer.encoder_attn):
            linears += [attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj]
        linears += [layer.feed_forward.fc1, layer.feed_forward.fc2]
    return linears


def lay_out_layer(layer: nn.Module) -> LayerWeights:
    """Lay out the weights of a `DecoderLayer`."""
    target, source, feed_forward = layer.self_attn, layer.encoder_attn, layer.feed_forward
    return LayerWeights(
        qkv=lay_out(target.q_proj, target.k_proj, target.v_proj),
        out=lay_out(target.out_proj),
        source_q=lay_out(source.q_proj),
        source_kv=lay_out(source.k_proj, source.v_proj),
        source_out=lay_out(source.out_proj),
        fc1=lay_out(feed_forward.fc1),
        fc2=lay_out(feed_forward.fc2),
    )


def lay_out_decoder(model: PreTrainedModel) -> DecoderWeights:
    """Lay out the weights of a translation model's decoder and of its output layer."""
    return DecoderWeights([lay_out_layer(layer) for layer in model.get_decoder().layers], lay_out(model.lm_head))


class FastDecoder:
    """The decoder of a model, in the middle of some texts.

    Args:
        model: A `FunTransformerForConditionalGeneration` with full attention in its decoder, in eval mode.
        weights: Its weights, from `lay_out_decoder`.
        encoder_hidden_states: (batch, source_len, d_model).
        source_mask: (batch, source_len), 1 = token, 0 = padding; None where all are tokens.
        num_beams: How many continuations each text has from its second step on.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        weights: DecoderWeights,
        encoder_hidden_states: torch.Tensor,
        source_mask: torch.Tensor | None,
        num_beams: int,
    ):
        self.decoder, self.weights, self.num_beams = model.get_decoder(), weights, num_beams
        self.batch_size, source_len, self.d_model = encoder_hidden_states.shape
        self.num_heads = model.config.decoder_attention_heads
        self.head_dim = self.d_model // self.num_heads
        self.norms_first = model.config.norm_position == "pre"
        self.norms = [
            (norm_of(one.self_attn_layer_norm), norm_of(one.encoder_attn_layer_norm), norm_of(one.final_layer_norm))
            for one in self.decoder.layers
        ]
        self.activation = activation_of(self.decoder.layers[0].feed_forward)
        self.dtype, self.device = encoder_hidden_states.dtype, encoder_hidden_states.device
        self.forbidden = forbidden_score(model.config, self.dtype)
        states = encoder_hidden_states.reshape(-1, self.d_model)  # (batch * source_len, d_model)
        shape = (self.batch_size, source_len, 2, self.num_heads, self.head_dim)
        self.source = [layer.source_kv(states).view(shape) for layer in weights.layers]
        self.source_mask = None
        if source_mask is not None and not bool(source_mask.all()):
            self.source_mask = additive(source_mask, self.dtype, self.forbidden)[
                :, None, None, :
            ]  # (batch, 1, 1, source_len)
        self.target = [self.new_room(ROOM * num_beams) for _ in weights.layers]
        self.look_at_stores()
        self.on_way = torch.zeros(self.batch_size, num_beams, ROOM * num_beams, device=self.device, dtype=self.dtype)
        self.apart = additive(
            torch.eye(num_beams, device=self.device), self.dtype, self.forbidden
        )  # (num_beams, num_beams)
        self.mask: torch.Tensor | None = None  # (batch, 1 or heads, beams, key_len), that of this step
        self.used = 0  # tokens of a text in the store, with those of this step
        self.text_len = 0  # tokens of a beam
        self.first_positions: torch.Tensor | None = None  # (batch, 1), where prompts are padded
        self.has_padding = False
        self.encodings = encoder_hidden_states.new_empty(0, self.d_model)
        self.turns, self.biases = (self.decoder.embed_positions.overrides(method) for method in ("rotate", "bias"))
        self.places = torch.zeros(ROOM * num_beams, device=self.device, dtype=torch.long)  # in a beam, of all tokens
        self.positions = TokenPositions(self.places[:1, None])  # of this step's tokens

    def new_room(self, room: int) -> torch.Tensor:
        """Return an empty store for the keys and values of a layer, (batch, room, 2, heads, head_dim)."""
        shape = (self.batch_size, room, 2, self.num_heads, self.head_dim)
        return torch.empty(shape, device=self.device, dtype=self.dtype)

    def look_at_stores(self) -> None:
        """Find keys and values of each layer in the stores, both (batch, heads, key_len, head_dim)."""
        self.seen_source = [store.permute(2, 0, 3, 1, 4).unbind() for store in self.source]
        self.seen_target = [store.permute(2, 0, 3, 1, 4).unbind() for store in self.target]

    def make_room(self, count: int) -> None:
        """See to it that this many more tokens of each text fit into the store."""
        room = self.on_way.shape[2]
        if self.used + count <= room:
            return
        more = max(room, count)
        self.target = [torch.cat([store, self.new_room(more)], dim=1) for store in self.target]
        self.on_way = F.pad(self.on_way, (0, more))  # (batch, num_beams, room + more)
        self.places = F.pad(self.places, (0, more))  # (room + more,)
        self.look_at_stores()

    def read_prompt(self, tokens: torch.Tensor, attention_mask: torch.Tensor | None, source: torch.Tensor) -> None:
        """Read a prompt but for its last token, which is the first that `step` reads.

        Args:
            tokens: (batch, prompt_len).
            attention_mask: (batch, prompt_len), 1 = token, 0 = padding; None where all are tokens.
            source: The encoder's output (batch, source_len, d_model), which has no influence on these keys' places.
        """
        if attention_mask is not None and not bool(attention_mask.all()):
            self.has_padding = True
            self.first_positions = attention_mask.sum(dim=1, keepdim=True) - tokens.shape[1]  # (batch, 1), 0 or less
        prompt_len = tokens.shape[1] - 1
        if prompt_len == 0:
            return
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        source_mask = None if self.source_mask is None else (self.source_mask[:, 0, 0] == 0).long()
        self.decoder(
            input_ids=tokens[:, :-1],
            attention_mask=None if attention_mask is None else attention_mask[:, :-1],
            encoder_hidden_states=source,
            encoder_attention_mask=source_mask,
            past_key_values=cache,
            use_cache=True,
        )
        self.make_room(prompt_len)
        for store, layer in zip(self.target, cache.self_attention_cache.layers):
            store[:, :prompt_len, 0] = layer.keys.transpose(1, 2)
            store[:, :prompt_len, 1] = layer.values.transpose(1, 2)
        if self.has_padding:
            self.on_way[:, :, :prompt_len] = additive(attention_mask[:, None, :-1], self.dtype, self.forbidden)
        self.places[:prompt_len] = torch.arange(prompt_len, device=self.device)
        self.used = self.text_len = prompt_len

    def locate(self, places: torch.Tensor) -> torch.Tensor:
        """Return the positions of tokens by their places in a beam, (count,) -> (batch or 1, count)."""
        if self.first_positions is None:
            return places[None]
        return (self.first_positions + places).clamp(min=0)  # (batch, count)

    def encoding(self) -> torch.Tensor | float:
        """Return what is added to the embeddings of this step's tokens, (batch or 1, 1, d_model)."""
        if self.text_len >= self.encodings.shape[0]:
            longest = type(self.decoder.embed_positions).longest_text(self.decoder.config)
            known = self.text_len + POSITIONS
            if longest is not None:
                known = max(min(known, longest), self.text_len + 1)  # one too many is refused in the next line
            added = self.decoder.embed_positions(torch.arange(known, device=self.device)[None], known)
            if added is None:
                return 0.0
            self.encodings = added[0].to(self.dtype)  # (known, d_model)
        if self.first_positions is None:
            return self.encodings[self.text_len]
        return self.encodings[(self.first_positions + self.text_len).clamp(min=0)]  # (batch, 1, d_model)

    def reorder(self, parents: torch.Tensor) -> None:
        """Note which beam each beam goes on from.

        Args:
            parents: (batch, num_beams), numbers of beams.
        """
        seen = self.on_way[:, :, : self.used]
        self.on_way[:, :, : self.used] = seen.gather(1, parents[:, :, None].expand_as(seen))

    def keep(self, texts: torch.Tensor) -> None:
        """Drop all texts but these, (kept,): those that are finished cost nothing any more."""
        self.batch_size = texts.shape[0]
        self.source = [store.index_select(0, texts) for store in self.source]
        self.target = [store.index_select(0, texts) for store in self.target]
        self.look_at_stores()
        self.on_way = self.on_way.index_select(0, texts)
        if self.source_mask is not None:
            self.source_mask = self.source_mask.index_select(0, texts)
        if self.first_positions is not None:
            self.first_positions = self.first_positions.index_select(0, texts)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Attend from the beams of each text to what is stored of it.

        Args:
            query: (batch, beams, heads, head_dim).
            key: (batch, heads, key_len, head_dim).
            value: (batch, heads, key_len, head_dim).
            mask: (batch, 1 or heads, beams or 1, key_len), added to the scores.

        Returns:
            (batch * beams, d_model).
        """
        context = F.scaled_dot_product_attention(query.transpose(1, 2), key, value, attn_mask=mask)
        return context.transpose(1, 2).reshape(-1, self.d_model)  # (batch * beams, d_model)

    def attend_to_target(self, number: int, states: torch.Tensor) -> torch.Tensor:
        """Attend to the tokens so far in layer `number`, (batch * beams, d_model) -> (batch * beams, d_model)."""
        weights, (key, value) = self.weights.layers[number], self.seen_target[number]
        qkv = weights.qkv(states).view(self.batch_size, -1, 3, self.num_heads, self.head_dim)
        if self.turns:
            for one in (qkv[:, :, 0], qkv[:, :, 1]):  # query and key, (batch, beams, heads, head_dim)
                one.copy_(self.positions.turn(one.transpose(1, 2)).transpose(1, 2))
        self.target[number][:, self.used - qkv.shape[1] : self.used] = qkv[:, :, 1:]
        key, value = key[:, :, : self.used], value[:, :, : self.used]
        return weights.out(self.attend(qkv[:, :, 0], key, value, self.mask))

    def attend_to_source(self, number: int, states: torch.Tensor) -> torch.Tensor:
        """Attend to the source in layer `number`, (batch * beams, d_model) -> (batch * beams, d_model)."""
        weights, (key, value) = self.weights.layers[number], self.seen_source[number]
        query = weights.source_q(states).view(self.batch_size, -1, self.num_heads, self.head_dim)
        return weights.source_out(self.attend(query, key, value, self.source_mask))

    def feed_forward(self, number: int, states: torch.Tensor) -> torch.Tensor:
        """Transform each token by itself in layer `number`, (batch * beams, d_model) -> (batch * beams, d_model)."""
        weights = self.weights.layers[number]
        return weights.fc2(self.activation(weights.fc1(states)))

    def look_where(self, beams: int) -> None:
        """Find the positions of this step's tokens, and what the distances of those before them add to the scores."""
        encoding, places = self.decoder.embed_positions, self.places[: self.used]
        position_ids = self.locate(places[-beams:])  # (batch or 1, beams)
        self.positions = TokenPositions(position_ids, encoding.rotate if self.turns else None)
        if self.biases:
            bias = encoding.bias(position_ids, self.locate(places))  # (batch or 1, heads, beams, used)
            self.mask = add_bias(self.mask, bias.to(self.dtype))

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Read one token of each beam, and score those that may follow.

        Args:
            tokens: (batch, 1) at the first step, where the beams of a text do not differ yet; then (batch, num_beams).

        Returns:
            (batch * beams, decoder_vocab_size), in the model's dtype.
        """
        beams = tokens.shape[1]
        self.make_room(beams)
        self.used += beams
        if beams > 1:
            self.on_way[:, :, self.used - beams : self.used] = self.apart
        self.places[self.used - beams : self.used] = self.text_len
        is_masked = beams > 1 or self.has_padding
        self.mask = self.on_way[:, None, :beams, : self.used] if is_masked else None
        if self.turns or self.biases:
            self.look_where(beams)
        hidden_states = self.decoder.embed_tokens(tokens) * self.decoder.embed_scale
        hidden_states = (hidden_states + self.encoding()).view(-1, self.d_model)  # (batch * beams, d_model)
        self.text_len += 1
        sublayers = (self.attend_to_target, self.attend_to_source, self.feed_forward)
        for number, norms in enumerate(self.norms):
            for sublayer, norm in zip(sublayers, norms):
                if self.norms_first:
                    hidden_states = sublayer(number, norm(hidden_states)).add_(hidden_states)
                else:
                    hidden_states = norm(sublayer(number, hidden_states).add_(hidden_states))
        return self.weights.lm_head(self.decoder.layer_norm(hidden_states))

    def cache(self, prompt_len: int) -> EncoderDecoderCache:
        """Return what is stored as transformers keeps it: each beam with keys and values of its own.

        Args:
            prompt_len: Number of tokens that all beams of a text share.
        """
        beams = self.num_beams
        visible = self.on_way[:, :, : self.used] == 0  # (batch, num_beams, used)
        visible[:, :, :prompt_len] = True
        places = visible.nonzero()[:, 2].view(-1, self.text_len)  # (batch * num_beams, text_len)
        caches = (DynamicCache(), DynamicCache())
        for layer_idx, (target, source) in enumerate(zip(self.target, self.source)):
            rows = torch.arange(self.batch_size, device=self.device).repeat_interleave(beams)[:, None]
            for cache, store in zip(caches, (target[rows, places], source.repeat_interleave(beams, dim=0))):
                heads = store.transpose(1, 3)  # (batch * num_beams, heads, 2, seq_len, head_dim)
                cache.update(heads[:, :, 0].contiguous(), heads[:, :, 1].contiguous(), layer_idx)
        return EncoderDecoderCache(*caches)


__all__ = ["DecoderWeights", "FastDecoder", "decoder_linears", "lay_out_decoder"]
