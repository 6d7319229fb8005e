"""The Transformer of "Attention Is All You Need" (arXiv:1706.03762), top to bottom like its Figure 1.

    feed-forward network -> encoder layer, decoder layer -> encoder, decoder -> the whole model.

After the paper's translation model come those that use one of its halves: the encoder alone as in BERT (Devlin et al.
2019, arXiv:1810.04805), the decoder alone as in GPT (Radford et al. 2018). All call a stack `encoder` or `decoder`, so
that one model loads with `from_pretrained` what another has learned.

Read `attention.py`, `masks.py`, `positions.py` and `losses.py` first: they hold the formulas that this file puts
together. `mixers.py` holds what may take the place of self-attention, `token_model.py` what the RNN shares.
"""

import math
from collections.abc import Callable

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPast,
    BaseModelOutputWithPastAndCrossAttentions,
    Seq2SeqModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention import MultiHeadAttention
from .configuration_fun_transformer import FunTransformerConfig, decoder_only, fit_config, text_only
from .copying import CopyLayer
from .dropout import Dropout
from .frontends import FRONT_ENDS, shrink, source_of
from .generation import Seq2SeqGenerationMixin
from .int8 import Int8Quantizer  # noqa: F401 (`from_pretrained` asks the library for it by its name in config.json)
from .layer_norm import LayerNorm
from .losses import IGNORE_INDEX, number_of_labels
from .masks import Packing, cross_mask, decoder_masks, encoder_masks, mask_settings
from .mixers import MIXERS, keep_the_whole_source
from .positions import (
    POSITIONS,
    TokenPositions,
    position_ids_from_mask,
    position_ids_from_segments,
    position_ids_of_keys,
)
from .token_model import (
    CausalTokenOutput,
    MaskedTokenOutput,
    Seq2SeqTokenOutput,
    TokenModel,
    tied_embeddings,
    tied_output_layer,
)


class FeedForward(nn.Module):
    """FFN(x) = max(0, x W_1 + b_1) W_2 + b_2, at each position alike (section 3.3)."""

    def __init__(self, config: FunTransformerConfig, ffn_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, ffn_dim)
        self.activation = ACT2FN[config.activation_function]
        self.dropout = Dropout(config.activation_dropout)
        self.fc2 = nn.Linear(ffn_dim, config.d_model)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Transform each position by itself, (batch, seq_len, d_model) -> (batch, seq_len, d_model)."""
        return self.fc2(self.dropout(self.activation(self.fc1(hidden_states))))


def post_norm(norm: nn.Module, dropout: nn.Module, sublayer: Callable, hidden_states: torch.Tensor) -> torch.Tensor:
    """Compute LayerNorm(x + Sublayer(x)), as in the paper (section 3.1)."""
    return norm(hidden_states + dropout(sublayer(hidden_states)))


def pre_norm(norm: nn.Module, dropout: nn.Module, sublayer: Callable, hidden_states: torch.Tensor) -> torch.Tensor:
    """Compute x + Sublayer(LayerNorm(x)) (Xiong et al. 2020, arXiv:2002.04745): no norm is in the residual path."""
    return hidden_states + dropout(sublayer(norm(hidden_states)))


RESIDUALS = {"post": post_norm, "pre": pre_norm}


class EncoderLayer(GradientCheckpointingLayer):
    """Self-attention, then a feed-forward network, each in a residual connection (Figure 1, left).

    `self_attn` is self-attention, or what else `config.encoder_layer_types` names to mix the tokens.
    """

    is_causal = False

    def __init__(self, config: FunTransformerConfig, layer_idx: int):
        super().__init__()
        self.residual = RESIDUALS[config.norm_position]
        self.dropout = Dropout(config.dropout)
        self.num_heads = config.encoder_attention_heads
        mixer = MIXERS[config.stack_layer_types("encoder")[layer_idx]]
        self.self_attn = mixer(config, self.num_heads, layer_idx, self.is_causal)
        self.self_attn_layer_norm = LayerNorm(config.d_model, config.layer_norm_eps)
        self.feed_forward = FeedForward(config, config.encoder_ffn_dim)
        self.final_layer_norm = LayerNorm(config.d_model, config.layer_norm_eps)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, **kwargs: Unpack[TransformersKwargs]
    ) -> torch.Tensor:
        """Run the layer, (batch, source_len, d_model) -> (batch, source_len, d_model)."""

        def attend(states):
            return self.self_attn(states, attention_mask, **kwargs)[0]

        hidden_states = self.residual(self.self_attn_layer_norm, self.dropout, attend, hidden_states)
        return self.residual(self.final_layer_norm, self.dropout, self.feed_forward, hidden_states)


class DecoderLayer(GradientCheckpointingLayer):
    """Masked self-attention, cross-attention to the source, then a feed-forward network (Figure 1, right)."""

    is_causal = True

    def __init__(self, config: FunTransformerConfig, layer_idx: int):
        super().__init__()
        self.residual = RESIDUALS[config.norm_position]
        self.dropout = Dropout(config.dropout)
        self.num_heads = config.decoder_attention_heads
        mixer = MIXERS[config.stack_layer_types("decoder")[layer_idx]]
        self.self_attn = mixer(config, self.num_heads, layer_idx, self.is_causal)
        self.self_attn_layer_norm = LayerNorm(config.d_model, config.layer_norm_eps)
        self.encoder_attn = MultiHeadAttention(config, self.num_heads, layer_idx)
        self.encoder_attn_layer_norm = LayerNorm(config.d_model, config.layer_norm_eps)
        self.feed_forward = FeedForward(config, config.decoder_ffn_dim)
        self.final_layer_norm = LayerNorm(config.d_model, config.layer_norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        encoder_hidden_states: torch.Tensor,  # positional, so that gradient checkpointing sees it
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        positions: TokenPositions | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Run the layer, (batch, target_len, d_model) -> (batch, target_len, d_model)."""

        def attend_to_target(states):
            return self.self_attn(
                states, attention_mask, past_key_values=past_key_values, positions=positions, **kwargs
            )[0]

        def attend_to_source(states):
            return self.encoder_attn(
                states, encoder_attention_mask, encoder_hidden_states, past_key_values=past_key_values, **kwargs
            )[0]

        hidden_states = self.residual(self.self_attn_layer_norm, self.dropout, attend_to_target, hidden_states)
        hidden_states = self.residual(self.encoder_attn_layer_norm, self.dropout, attend_to_source, hidden_states)
        return self.residual(self.final_layer_norm, self.dropout, self.feed_forward, hidden_states)


class DecoderOnlyLayer(EncoderLayer):
    """Masked self-attention, then a feed-forward network: an encoder layer that looks at no later token."""

    is_causal = True


class FunTransformerPreTrainedModel(TokenModel):
    """What all heads share: initial weights, and what transformers has to know."""

    config: FunTransformerConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["EncoderLayer", "DecoderLayer", "DecoderOnlyLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True

    def create_masks_for_generate(
        self, config, inputs_embeds, attention_mask, past_key_values=None, position_ids=None, **kwargs
    ) -> dict:
        """Make the decoder's masks, as `generate` does ahead of compiled code; `kwargs` are other models'."""
        decoder = self.get_decoder()
        past_len = past_key_values.get_seq_length() if past_key_values is not None else 0
        positions = decoder.locate(inputs_embeds, attention_mask, position_ids, past_len)
        bias = decoder.score_bias(positions, attention_mask, past_len)
        return decoder_masks(config, inputs_embeds, attention_mask, past_key_values, bias=bias)

    @torch.no_grad()
    def _init_weights(self, module):
        """Fill a fresh module as `TokenModel` does; convolutions keep the variance, norms begin as the identity."""
        super()._init_weights(module)
        if isinstance(module, nn.Conv1d):  # variance 4, of which the gate lets a quarter through
            init.normal_(module.weight, mean=0.0, std=(4 / (module.in_channels * module.kernel_size[0])) ** 0.5)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)


class Stack(FunTransformerPreTrainedModel):
    """What encoder and decoder share: embeddings + positions, then layers, then a norm if norms come first."""

    def __init__(self, config: FunTransformerConfig, vocab_size: int, layers: list[nn.Module], front_end=None):
        super().__init__(config)
        if front_end is not None:
            self.front_end = front_end(config)
        else:
            self.embed_tokens = nn.Embedding(vocab_size, config.d_model)
        is_scaled = config.scale_embedding and front_end is None  # what a front end gives has variance 1 or 2 already
        self.embed_scale = math.sqrt(config.d_model) if is_scaled else 1.0
        encoding = POSITIONS[config.position_embedding_type]
        self.embed_positions = encoding(config, layers[0].num_heads, layers[0].is_causal)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(layers)
        self.layer_norm = (
            LayerNorm(config.d_model, config.layer_norm_eps) if config.has_final_norm() else nn.Identity()
        )
        self.gradient_checkpointing = False
        self.post_init()

    def look_up(self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
        """Return the embeddings of tokens, (batch, seq_len, d_model), from the one or the other argument."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError(
                f"{type(self).__name__} needs either input_ids or inputs_embeds, and got "
                f"{'neither' if input_ids is None else 'both'}."
            )
        return self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds

    def locate(
        self,
        embeds: torch.Tensor,
        attention_mask: torch.Tensor | dict | None,
        position_ids: torch.Tensor | None = None,
        past_len: int | torch.Tensor = 0,
        segment_ids: torch.Tensor | None = None,
    ) -> TokenPositions:
        """Find out where in their texts the tokens of a call are, once for all layers.

        Args:
            embeds: (batch, seq_len, ...).
            attention_mask: (batch, past_len + seq_len); positions count its ones.
            position_ids: (batch, seq_len), if the caller knows better.
            past_len: Number of tokens in the cache.
            segment_ids: (batch, seq_len), those of packed rows: each segment begins at position 0.
        """
        seq_len = embeds.shape[1]
        if position_ids is None:
            if segment_ids is not None:
                position_ids = position_ids_from_segments(segment_ids)  # (batch, seq_len)
            elif isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2:
                position_ids = position_ids_from_mask(attention_mask)[:, -seq_len:]  # (batch, seq_len)
            else:
                position_ids = (torch.arange(seq_len, device=embeds.device) + past_len).unsqueeze(0)
        turns = self.embed_positions.overrides("rotate")
        return TokenPositions(position_ids, self.embed_positions.rotate if turns else None)

    def score_bias(
        self, positions: TokenPositions, attention_mask: torch.Tensor | dict | None, past_len: int | torch.Tensor = 0
    ) -> Callable | None:
        """Return what positions add to scores, as a function (see `masks.Bias`); None where they add nothing."""
        if not self.embed_positions.overrides("bias"):
            return None

        def bias(first: int, count: int) -> torch.Tensor:
            keys = position_ids_of_keys(positions.position_ids, attention_mask, past_len, first, count)
            return self.embed_positions.bias(positions.position_ids, keys)

        return bias

    def embed(self, embeds: torch.Tensor, positions: TokenPositions, text_len: int | torch.Tensor) -> torch.Tensor:
        """Scale embeddings, add positions, drop out (sections 3.4, 3.5 and 5.4).

        Args:
            embeds: (batch, seq_len, d_model).
            positions: From `locate`.
            text_len: Length of the texts with what is in the cache; 0 for packed rows, which cannot say.

        Returns:
            (batch, seq_len, d_model).
        """
        hidden_states = embeds * self.embed_scale
        added = self.embed_positions(positions.position_ids, text_len)  # (batch or 1, seq_len, d_model)
        if added is not None:
            hidden_states = hidden_states + added.to(embeds.dtype)
        device_type = hidden_states.device.type
        if self.config.norm_position == "post" and torch.is_autocast_enabled(device_type):
            # Half the memory traffic: each norm brings the residual stream back to a range that 16 bits hold well.
            hidden_states = hidden_states.to(torch.get_autocast_dtype(device_type))
        return self.dropout(hidden_states)


def tensor_parallel_plan(*attentions: str) -> dict[str, str]:
    """Split heads and inner units over devices, and sum once a sublayer (Shoeybi et al. 2019, arXiv:1909.08053)."""
    split = [f"{attention}.{name}_proj" for attention in attentions for name in "qkv"] + ["feed_forward.fc1"]
    joined = [f"{attention}.out_proj" for attention in attentions] + ["feed_forward.fc2"]
    return {f"layers.*.{name}": "colwise" if name in split else "rowwise" for name in split + joined}


class Encoder(Stack):
    """Reads the source: N layers, each token attends to all tokens of the source (section 3.1)."""

    _tp_plan = tensor_parallel_plan("self_attn")
    _can_record_outputs = {
        "hidden_states": EncoderLayer,
        "attentions": OutputRecorder(MultiHeadAttention, index=1, layer_name="self_attn"),
    }

    def __init__(self, config: FunTransformerConfig):
        layers = [EncoderLayer(config, i) for i in range(config.encoder_layers)]
        super().__init__(config, config.vocab_size, layers, FRONT_ENDS.get(config.source_modality))

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        packing: Packing | None = None,
        input_features: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Encode.

        Args:
            input_ids: (batch, source_len).
            attention_mask: (batch, source_len), 1 = token, 0 = padding; (batch, frames) or (batch, width) of speech
                and pictures, padded on the right.
            inputs_embeds: (batch, source_len, d_model), instead of `input_ids`.
            packing: The segments of packed rows.
            input_features: (batch, frames, num_mel_bins), where the source is speech.
            pixel_values: (batch, num_channels, image_height, width), where it is a picture.

        Returns:
            `last_hidden_state` (batch, source_len, d_model).
        """
        given = {"input_ids": input_ids, "inputs_embeds": inputs_embeds}
        features = source_of(self.config, **given, input_features=input_features, pixel_values=pixel_values)
        if features is None:
            embeds, position_ids = self.look_up(input_ids, inputs_embeds), None
        else:
            embeds, attention_mask, position_ids = self.front_end(features, attention_mask)
        segment_ids = packing and packing["source_segment_ids"]
        positions = self.locate(embeds, attention_mask, position_ids, segment_ids=segment_ids)
        hidden_states = self.embed(embeds, positions, embeds.shape[1] if packing is None else 0)
        settings, bias = mask_settings(self.config, hidden_states, kwargs), self.score_bias(positions, attention_mask)
        masks = encoder_masks(*settings, attention_mask, packing, bias)
        for layer, layer_type in zip(self.layers, self.config.stack_layer_types("encoder")):
            hidden_states = layer(hidden_states, masks[layer_type], positions=positions, **kwargs)
        return BaseModelOutput(last_hidden_state=self.layer_norm(hidden_states))


class Decoder(Stack):
    """Writes the target: each token attends to those before it and to the whole source (section 3.1)."""

    _tp_plan = tensor_parallel_plan("self_attn", "encoder_attn")
    _can_record_outputs = {
        "hidden_states": DecoderLayer,
        "attentions": OutputRecorder(MultiHeadAttention, index=1, layer_name="self_attn"),
        "cross_attentions": OutputRecorder(MultiHeadAttention, index=1, layer_name="encoder_attn"),
    }

    def __init__(self, config: FunTransformerConfig):
        layers = [DecoderLayer(config, i) for i in range(config.decoder_layers)]
        super().__init__(config, config.decoder_vocab_size, layers)

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        packing: Packing | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Decode.

        Args:
            input_ids: (batch, target_len), the tokens that are not yet in the cache.
            attention_mask: (batch, past_len + target_len), 1 = token, 0 = padding.
            encoder_hidden_states: (batch, source_len, d_model).
            encoder_attention_mask: (batch, source_len), 1 = token, 0 = padding.
            past_key_values: Keys and values of earlier steps.
            inputs_embeds: (batch, target_len, d_model), instead of `input_ids`.
            position_ids: (batch, target_len); counted from the mask and the cache when None.
            use_cache: Return keys and values for the next step.
            packing: The segments of packed rows; no cache is made then.

        Returns:
            `last_hidden_state` (batch, target_len, d_model) and `past_key_values`.
        """
        if encoder_hidden_states is None:
            raise ValueError("The decoder attends to a source: pass encoder_hidden_states, the encoder's output.")
        if use_cache and past_key_values is None and packing is None:
            past_key_values = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache())
        if past_key_values is not None:
            keep_the_whole_source(past_key_values, encoder_hidden_states.shape[1])
        embeds = self.look_up(input_ids, inputs_embeds)
        past_len = past_key_values.get_seq_length() if past_key_values is not None else 0
        segment_ids = packing and packing["target_segment_ids"]
        positions = self.locate(embeds, attention_mask, position_ids, past_len, segment_ids)
        hidden_states = self.embed(embeds, positions, past_len + embeds.shape[1] if packing is None else 0)
        settings = mask_settings(self.config, hidden_states, kwargs)
        bias = self.score_bias(positions, attention_mask, past_len)
        masks = decoder_masks(*settings, attention_mask, past_key_values, packing, bias)
        encoder_mask = cross_mask(*settings, encoder_hidden_states, encoder_attention_mask, packing)
        for layer, layer_type in zip(self.layers, self.config.stack_layer_types("decoder")):
            hidden_states = layer(
                hidden_states,
                masks[layer_type],
                encoder_hidden_states,
                encoder_mask,
                past_key_values=past_key_values,
                positions=positions,
                **kwargs,
            )
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=self.layer_norm(hidden_states), past_key_values=past_key_values
        )


class DecoderOnly(Stack):
    """Continues a text: each token attends to itself and those before it."""

    _tp_plan = tensor_parallel_plan("self_attn")
    _can_record_outputs = {
        "hidden_states": DecoderOnlyLayer,
        "attentions": OutputRecorder(MultiHeadAttention, index=1, layer_name="self_attn"),
    }

    def __init__(self, config: FunTransformerConfig):
        layers = [DecoderOnlyLayer(config, i) for i in range(config.decoder_layers)]
        super().__init__(config, config.decoder_vocab_size, layers)

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        packing: Packing | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """Decode; arguments and results are those of `Decoder.forward`, without a source."""
        if use_cache and past_key_values is None and packing is None:
            past_key_values = DynamicCache(config=self.config)
        embeds = self.look_up(input_ids, inputs_embeds)
        past_len = past_key_values.get_seq_length() if past_key_values is not None else 0
        segment_ids = packing and packing["target_segment_ids"]
        positions = self.locate(embeds, attention_mask, position_ids, past_len, segment_ids)
        hidden_states = self.embed(embeds, positions, past_len + embeds.shape[1] if packing is None else 0)
        settings = mask_settings(self.config, hidden_states, kwargs)
        bias = self.score_bias(positions, attention_mask, past_len)
        masks = decoder_masks(*settings, attention_mask, past_key_values, packing, bias)
        for layer, layer_type in zip(self.layers, self.config.stack_layer_types("decoder")):
            hidden_states = layer(
                hidden_states, masks[layer_type], past_key_values=past_key_values, positions=positions, **kwargs
            )
        return BaseModelOutputWithPast(
            last_hidden_state=self.layer_norm(hidden_states), past_key_values=past_key_values
        )


class FunTransformerModel(FunTransformerPreTrainedModel):
    """Encoder and decoder (Figure 1, without the output layer)."""

    def __init__(self, config: FunTransformerConfig):
        super().__init__(fit_config(config, is_encoder_decoder=True))
        self._tied_weights_keys = tied_embeddings(config)
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, config=None, **kwargs):
        """Load the model; or the encoder or decoder alone, where the config given (`AutoModel` does) says so."""
        alone = not getattr(config, "is_encoder_decoder", True)
        if cls is FunTransformerModel and alone:
            of_decoder = {"FunTransformerDecoderModel", "FunTransformerForCausalLM"} & {*(config.architectures or [])}
            stack = FunTransformerDecoderModel if of_decoder else FunTransformerEncoderModel
            stack._auto_class = stack._auto_class or cls._auto_class  # remote code is saved again with the model
            return stack.from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)
        return super().from_pretrained(pretrained_model_name_or_path, *model_args, config=config, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        decoder_position_ids: torch.LongTensor | None = None,
        encoder_outputs: tuple[torch.Tensor] | BaseModelOutput | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        input_features: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqModelOutput:
        """Encode the source, unless `encoder_outputs` are given, and decode the target.

        Args:
            input_ids: (batch, source_len).
            attention_mask: (batch, source_len), 1 = token, 0 = padding.
            decoder_input_ids: (batch, target_len), starting with `decoder_start_token_id`.
            decoder_attention_mask: (batch, past_len + target_len), 1 = token, 0 = padding.
            decoder_position_ids: (batch, target_len); counted from the mask and the cache when None.
            encoder_outputs: What the encoder returned before; its first item is (batch, source_len, d_model).
            past_key_values: Keys and values of earlier steps.
            inputs_embeds, decoder_inputs_embeds: (batch, len, d_model), instead of the ids.
            use_cache: Return keys and values for the next step.
            input_features, pixel_values: Speech or pictures, as in `Encoder.forward`, and so is then their mask.
            kwargs: With `packing` (`masks.Packing`) a row holds several segments, and none sees another; there is
                then no mask and no cache.

        Returns:
            `last_hidden_state` (batch, target_len, d_model), the cache, and what else was asked for.
        """
        if decoder_input_ids is None and decoder_inputs_embeds is None:
            raise ValueError(
                f"{type(self).__name__} needs decoder_input_ids, the target so far, and got none. For the vectors of "
                "a text alone, load the same weights as FunTransformerEncoderModel."
            )
        if encoder_outputs is None:
            features = {"input_features": input_features, "pixel_values": pixel_values}
            encoder_outputs = self.encoder(input_ids, attention_mask, inputs_embeds, **features, **kwargs)
        elif not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        decoder_outputs = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=shrink(self.config, attention_mask),
            past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds,
            position_ids=decoder_position_ids,
            use_cache=use_cache,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            past_key_values=decoder_outputs.past_key_values,
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )


class FunTransformerForConditionalGeneration(FunTransformerPreTrainedModel, Seq2SeqGenerationMixin):
    """The whole of Figure 1: encoder, decoder, and an output layer that gives each token of the vocabulary a logit."""

    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: FunTransformerConfig):
        super().__init__(fit_config(config, is_encoder_decoder=True))
        self._tied_weights_keys = tied_output_layer(config, "model.")
        self.model = FunTransformerModel(self.config)
        self.lm_head = nn.Linear(config.d_model, config.decoder_vocab_size, bias=False)
        self.copy_layer = CopyLayer(config) if config.copy_attention else None
        self.post_init()

    def prepare_decoder_input_ids_from_labels(
        self, labels: torch.Tensor, packing: Packing | None = None
    ) -> torch.Tensor:
        """Shift the target right by one, each segment of packed rows by itself; labels are (batch, target_len)."""
        position_ids = packing and position_ids_from_segments(packing["target_segment_ids"])
        return self.shift_right(labels, position_ids)

    def copy_tokens(self, outputs, source_ids, attention_mask, packing) -> torch.Tensor:
        """Return the logarithms of the probabilities of a model that copies, (batch, target_len, vocab_size)."""
        if source_ids is None:
            raise ValueError(
                "copy_attention=True copies tokens of the source: pass input_ids, or decoder_source_ids beside "
                "encoder_outputs."
            )
        states, logits = outputs.last_hidden_state, self.lm_head(outputs.last_hidden_state)
        source_states = outputs.encoder_last_hidden_state
        return self.copy_layer(logits, states, source_states, source_ids, attention_mask, packing)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        decoder_position_ids: torch.LongTensor | None = None,
        encoder_outputs: tuple[torch.Tensor] | BaseModelOutput | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        label_smoothing: float | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        skip_logits: bool | None = None,
        input_features: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        decoder_source_ids: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqTokenOutput:
        """Score the next token at each position of the target, and compare with `labels`.

        Args:
            labels: (batch, target_len), the target itself, ending in `eos_token_id`: it is shifted here, to make the
                decoder's input when there is none, and nowhere else. -100 and `pad_token_id` are ignored, as in
                `TokenModel.token_loss`.
            label_smoothing: Instead of the config's; 0 gives the cross-entropy whose exponential is the perplexity.
            num_items_in_batch: Number of labels to divide the loss by, when this is a part of a larger batch; all
                but -100 are counted, as a `Trainer` does.
            skip_logits: Return no logits, which saves their memory; by default in training with labels. A loss of your
                own that reads `outputs.logits` in training needs False.
            decoder_source_ids: (batch, source_len), for `copy_attention` beside `encoder_outputs`: what these encode.
            (others): As in `FunTransformerModel.forward`.

        Returns:
            `loss`, `logits` (batch, target_len, decoder_vocab_size), and what the model returns.
        """
        if labels is not None:
            use_cache = False if use_cache is None else use_cache
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels, kwargs.get("packing"))
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            decoder_position_ids=decoder_position_ids,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            input_features=input_features,
            pixel_values=pixel_values,
            **kwargs,
        )
        loss, states, output_layer = None, outputs.last_hidden_state, self.lm_head
        if self.copy_layer is not None:
            source_ids = input_ids if decoder_source_ids is None else decoder_source_ids
            states = self.copy_tokens(outputs, source_ids, attention_mask, kwargs.get("packing"))
            output_layer = None
        if labels is not None:
            loss = self.token_loss(states, output_layer, labels, label_smoothing, num_items_in_batch)
        if skip_logits is None:
            skip_logits = self.training and labels is not None
        return Seq2SeqTokenOutput(
            loss=loss,
            logits=None if skip_logits else output_layer(states) if output_layer else states,
            **{name: value for name, value in outputs.items() if name != "last_hidden_state"},
        )


# What `generate` has a fast way to compute; a class derived from one of them may compute something else.
FAST_PARTS = {FunTransformerForConditionalGeneration, FunTransformerModel, FeedForward}
FAST_PARTS |= {Encoder, EncoderLayer, Decoder, DecoderLayer}
FunTransformerForConditionalGeneration.fast_parts = FAST_PARTS


class FunTransformerEncoderModel(FunTransformerPreTrainedModel):
    """The encoder alone: a vector for each token that knows the whole text."""

    def __init__(self, config: FunTransformerConfig):
        super().__init__(fit_config(config, is_encoder_decoder=False))
        self.encoder = Encoder(self.config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Encode; arguments and results are those of `Encoder.forward`."""
        return self.encoder(input_ids, attention_mask, inputs_embeds, **kwargs)


class FunTransformerForMaskedLM(FunTransformerPreTrainedModel):
    """Predict hidden tokens from those on both sides (BERT, section 3.1): the encoder and an output layer.

    The output layer is the encoder's embedding if tied. It is not called `lm_head`, which scores the target's tokens.
    """

    _tp_plan = {"mask_head": "colwise_gather_output"}

    def __init__(self, config: FunTransformerConfig):
        super().__init__(text_only(config))
        if config.tie_word_embeddings:
            self._tied_weights_keys = {"mask_head.weight": "model.encoder.embed_tokens.weight"}
        self.model = FunTransformerEncoderModel(self.config)
        self.mask_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """Return the embedding, (vocab_size, d_model)."""
        return self.mask_head

    def set_output_embeddings(self, new_embeddings: nn.Module):
        """Replace the output layer."""
        self.mask_head = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        label_smoothing: float | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        skip_logits: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaskedTokenOutput:
        """Score the tokens that fit at each position, and compare with `labels`.

        Args:
            input_ids: (batch, seq_len), some of them the mask token.
            attention_mask: (batch, seq_len), 1 = token, 0 = padding.
            inputs_embeds: (batch, seq_len, d_model), instead of `input_ids`.
            labels: (batch, seq_len), the hidden tokens; -100 where there is nothing to guess. `pad_token_id` is
                ignored too, as in `TokenModel.token_loss`.
            label_smoothing, num_items_in_batch, skip_logits: As in `FunTransformerForConditionalGeneration.forward`.

        Returns:
            `loss`, `logits` (batch, seq_len, vocab_size), and what else was asked for.
        """
        outputs = self.model(input_ids, attention_mask, inputs_embeds, **kwargs)
        loss = None
        if labels is not None:
            loss = self.token_loss(
                outputs.last_hidden_state, self.mask_head, labels, label_smoothing, num_items_in_batch
            )
        if skip_logits is None:
            skip_logits = self.training and labels is not None
        return MaskedTokenOutput(
            loss=loss,
            logits=None if skip_logits else self.mask_head(outputs.last_hidden_state),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class FunTransformerForSequenceClassification(FunTransformerPreTrainedModel):
    """One label, several, or a number for each text: the mean of its tokens' vectors, and a linear layer.

    The mean is over the tokens that `attention_mask` keeps (Reimers and Gurevych 2019, arXiv:1908.10084), so that
    padding on either side changes nothing. `config.problem_type` says what `labels` are. By default they are numbers
    if there is one label, classes if they are integers, and several classes for each text if they are rows of floats.
    """

    def __init__(self, config: FunTransformerConfig):
        super().__init__(text_only(config))
        self.model = FunTransformerEncoderModel(self.config)
        self.dropout = Dropout(config.dropout)
        self.classifier = nn.Linear(config.d_model, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """Classify texts.

        Args:
            input_ids: (batch, seq_len).
            attention_mask: (batch, seq_len), 1 = token, 0 = padding.
            inputs_embeds: (batch, seq_len, d_model), instead of `input_ids`.
            labels: (batch,) of class ids or numbers, or (batch, num_labels) of numbers or of 0.0 and 1.0.
            num_items_in_batch: Number of labels to divide the loss by, when this is a part of a larger batch; all
                but -100 are counted, as a `Trainer` does.

        Returns:
            `loss`, `logits` (batch, num_labels), and what else was asked for.
        """
        outputs = self.model(input_ids, attention_mask, inputs_embeds, **kwargs)
        hidden_states = outputs.last_hidden_state
        if attention_mask is None:
            attention_mask = hidden_states.new_ones(hidden_states.shape[:2])
        kept = attention_mask.unsqueeze(-1).to(hidden_states)  # (batch, seq_len, 1)
        pooled = (hidden_states * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)  # (batch, d_model)
        logits = self.classifier(self.dropout(pooled))  # (batch, num_labels)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels, logits, self.config)
            counted = (labels != IGNORE_INDEX).sum()
            if num_items_in_batch is not None:
                loss = loss * counted / number_of_labels(labels, num_items_in_batch)
            loss = loss.where(counted > 0, 0.0)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class FunTransformerForTokenClassification(FunTransformerPreTrainedModel):
    """A label for each token, such as the kind of name that it belongs to: the encoder and a linear layer."""

    def __init__(self, config: FunTransformerConfig):
        super().__init__(text_only(config))
        self.model = FunTransformerEncoderModel(self.config)
        self.dropout = Dropout(config.dropout)
        self.classifier = nn.Linear(config.d_model, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TokenClassifierOutput:
        """Classify tokens.

        Args:
            input_ids: (batch, seq_len).
            attention_mask: (batch, seq_len), 1 = token, 0 = padding.
            inputs_embeds: (batch, seq_len, d_model), instead of `input_ids`.
            labels: (batch, seq_len); -100 for padding, and for all tokens of a word but its first. Any other number is
                a class, `pad_token_id` too.
            num_items_in_batch: Number of labels to divide the loss by, when this is a part of a larger batch; all
                but -100 are counted, as a `Trainer` does.

        Returns:
            `loss`, `logits` (batch, seq_len, num_labels), and what else was asked for.
        """
        outputs = self.model(input_ids, attention_mask, inputs_embeds, **kwargs)
        logits = self.classifier(self.dropout(outputs.last_hidden_state))  # (batch, seq_len, num_labels)
        loss = None
        if labels is not None:
            count = number_of_labels(labels, num_items_in_batch)
            loss = self.loss_function(logits, labels, self.config, num_items_in_batch=count)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class FunTransformerDecoderModel(FunTransformerPreTrainedModel):
    """The decoder alone, without cross-attention: what `FunTransformerForCausalLM` is made of."""

    def __init__(self, config: FunTransformerConfig):
        super().__init__(decoder_only(config))
        self.decoder = DecoderOnly(self.config)
        self.post_init()

    @can_return_tuple
    def forward(self, *args, **kwargs: Unpack[TransformersKwargs]) -> BaseModelOutputWithPast:
        """Decode; arguments and results are those of `DecoderOnly.forward`."""
        return self.decoder(*args, **kwargs)


class FunTransformerForCausalLM(FunTransformerPreTrainedModel, GenerationMixin):
    """Continue a text (GPT, section 3.1): the decoder without a source, and an output layer.

    The embedding that a translator shares between its stacks is saved as its encoder's; to begin with it here, pass
    `key_mapping={"encoder.embed_tokens": "decoder.embed_tokens"}` to `from_pretrained`.
    """

    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: FunTransformerConfig):
        super().__init__(decoder_only(config))
        if config.tie_word_embeddings:
            self._tied_weights_keys = {"lm_head.weight": "model.decoder.embed_tokens.weight"}
        self.model = FunTransformerDecoderModel(self.config)
        self.lm_head = nn.Linear(config.d_model, config.decoder_vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        shift_labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        label_smoothing: float | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        skip_logits: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalTokenOutput:
        """Score the token that follows each position, and compare with `labels`.

        Args:
            input_ids: (batch, seq_len), the tokens that are not yet in the cache.
            attention_mask: (batch, past_len + seq_len), 1 = token, 0 = padding.
            position_ids: (batch, seq_len); counted from the mask and the cache when None.
            past_key_values: Keys and values of earlier steps.
            inputs_embeds: (batch, seq_len, d_model), instead of `input_ids`.
            labels: (batch, seq_len), the text itself: it is shifted here. -100 and `pad_token_id` are ignored, as in
                `TokenModel.token_loss`.
            shift_labels: (batch, seq_len), labels shifted already, as when a text is split over devices.
            use_cache: Return keys and values for the next step.
            logits_to_keep: Return the logits of this many last positions only, or of those positions; 0 keeps all.
            label_smoothing, num_items_in_batch, skip_logits: As in `FunTransformerForConditionalGeneration.forward`.

        Returns:
            `loss`, `logits` (batch, seq_len, decoder_vocab_size), the cache, and what else was asked for.
        """
        if shift_labels is None and labels is not None:
            shift_labels = nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)  # (batch, seq_len)
        if shift_labels is not None:
            use_cache = False if use_cache is None else use_cache
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            position_ids=position_ids,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states, loss = outputs.last_hidden_state, None
        if shift_labels is not None:
            loss = self.token_loss(hidden_states, self.lm_head, shift_labels, label_smoothing, num_items_in_batch)
        if skip_logits is None:
            skip_logits = self.training and loss is not None
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        return CausalTokenOutput(
            loss=loss,
            logits=None if skip_logits else self.lm_head(hidden_states[:, kept]),
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = [
    "FunTransformerEncoderModel",
    "FunTransformerForCausalLM",
    "FunTransformerForConditionalGeneration",
    "FunTransformerForMaskedLM",
    "FunTransformerForSequenceClassification",
    "FunTransformerForTokenClassification",
    "FunTransformerModel",
    "FunTransformerPreTrainedModel",
]
