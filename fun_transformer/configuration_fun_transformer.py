"""The configuration: every choice of "Attention Is All You Need" is a field, and the paper's base model the default.

Table 3 of the paper (arXiv:1706.03762) varies just these numbers: N (`encoder_layers`, `decoder_layers`), d_model,
d_ff (`*_ffn_dim`), h (`*_attention_heads`), P_drop (`dropout`) and epsilon_ls (`label_smoothing`).
"""

import copy
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .config_checks import check_known, check_positive, check_probabilities, check_vocabularies, refuse_near_misses
from .frontends import FRONT_ENDS, is_text, output_height, refuse_features
from .mixers import MIXERS
from .positions import POSITIONS

FRONT_END_FIELDS = ("num_mel_bins", "num_channels", "image_height", "image_rows", "frontend_layers")
FRONT_END_FIELDS += ("frontend_channels",)


@strict
class FunTransformerConfig(PreTrainedConfig):
    """What a Fun-Transformer is made of. Field names are those of BART and Marian.

    Args:
        vocab_size: Number of tokens of the source, and of the target when `decoder_vocab_size` is None.
        decoder_vocab_size: Number of tokens of the target, for separate vocabularies.
        d_model: Width of every hidden state (section 3.1).
        encoder_layers, decoder_layers: Number of layers N of each stack (section 3.1).
        encoder_attention_heads, decoder_attention_heads: Number of heads h (section 3.2.2); each is d_model / h wide.
        encoder_ffn_dim, decoder_ffn_dim: Inner width d_ff of the feed-forward networks (section 3.3).
        activation_function: Between the two layers of a feed-forward network.
        dropout: On the output of each sublayer and on embeddings + positions (section 5.4).
        attention_dropout: On the attention weights; the paper has none.
        activation_dropout: Inside the feed-forward networks; the paper has none.
        max_position_embeddings: The longest text that learned positions know; the others go beyond it.
        position_embedding_type: "sinusoidal" (section 3.5), "learned" (Table 3, row E), "rotary" (Su et al. 2021,
            arXiv:2104.09864), "relative" (Raffel et al. 2020, arXiv:1910.10683), or what else `POSITIONS` of
            positions.py names.
        relative_attention_max_distance: With "relative", tokens that are farther apart than this share one number.
        norm_position: "post" is LayerNorm(x + Sublayer(x)) as in section 3.1; "pre" is x + Sublayer(LayerNorm(x)) with
            a final LayerNorm on each stack (Xiong et al. 2020, arXiv:2002.04745), which trains without warmup.
        final_layer_norm: A LayerNorm at the end of each stack. None: where norms come first, as above. True with
            "post" is what `torch.nn.Transformer` does, two norms in a row.
        layer_norm_eps: What each LayerNorm adds to the variance, so that it never divides by 0.
        encoder_layer_types, decoder_layer_types: How each layer mixes the tokens of a text, from the first layer on;
            full attention in all of them when None. "full_attention" (section 3.2), "sliding_attention" (local:
            tokens within `sliding_window`), "linear_attention" (Katharopoulos et al. 2020, arXiv:2006.16236) or "conv"
            (gated convolution, Gehring et al. 2017, arXiv:1705.03122), or what else `MIXERS` of mixers.py names.
            Attention to the source is always full.
        sliding_window: Reach of local attention. In the encoder this many tokens on each side; in the decoder this
            many in all, the token itself included.
        conv_kernel_size: Number of tokens that a convolution sees: around it in the encoder, up to it in the decoder.
        scale_embedding: Multiply embeddings by sqrt(d_model) (section 3.4).
        share_encoder_decoder_embeddings: One embedding for source and target (section 3.4).
        tie_word_embeddings: The output layer uses the target's embedding (section 3.4).
        copy_attention: Let the model copy tokens of the source (See et al. 2017, arXiv:1704.04368): for inflection,
            names and numbers, where much of the answer is in the question. Both sides need one vocabulary.
        label_smoothing: epsilon_ls, the probability mass spread over the whole vocabulary (section 5.4).
        pad_token_id, bos_token_id, eos_token_id, decoder_start_token_id: Special tokens; the decoder's input is the
            target shifted right by `decoder_start_token_id`.
        source_modality: "text", or "speech" or "image" (Dong et al. 2018, Speech-Transformer), or what else
            `FRONT_ENDS` of frontends.py names. There is then no embedding of the source to share or scale.
        num_mel_bins: Height of a spectrogram.
        num_channels, image_height: Colours and height of a picture; its width is free.
        image_rows: Vectors that stand for a column of a picture, one for each of this many rows (Deng et al. 2017,
            arXiv:1609.04938); with 1 they are one vector.
        frontend_layers, frontend_channels: Convolutions before the encoder, each of which halves the length.

    Raises:
        StrictDataclassError: When a field has the wrong type or the fields do not fit together.
        ValueError: When a field's name is nearly, but not quite, one of ours.
    """

    model_type = "fun_transformer"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
        "num_attention_heads": "encoder_attention_heads",
    }

    vocab_size: int = 37000
    decoder_vocab_size: int | None = None
    d_model: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_ffn_dim: int = 2048
    activation_function: Literal["relu", "gelu", "silu"] = "relu"
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.0
    activation_dropout: float | int = 0.0
    max_position_embeddings: int = 1024
    position_embedding_type: str = "sinusoidal"
    relative_attention_max_distance: int = 128
    norm_position: Literal["post", "pre"] = "post"
    final_layer_norm: bool | None = None
    layer_norm_eps: float | int = 1e-5
    encoder_layer_types: list[str] | None = None
    decoder_layer_types: list[str] | None = None
    sliding_window: int | None = None
    conv_kernel_size: int = 3
    scale_embedding: bool = True
    share_encoder_decoder_embeddings: bool = True
    tie_word_embeddings: bool = True
    copy_attention: bool = False
    label_smoothing: float | int = 0.1
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 1
    is_encoder_decoder: bool = True
    use_cache: bool = True
    source_modality: str = "text"
    num_mel_bins: int = 80
    num_channels: int = 3
    image_height: int = 32
    image_rows: int = 1
    frontend_layers: int = 2
    frontend_channels: int = 64

    def __post_init__(self, **kwargs):
        refuse_near_misses(self, kwargs)
        if not is_text(self):
            self.share_encoder_decoder_embeddings = False
        if self.decoder_vocab_size is None:
            self.decoder_vocab_size = self.vocab_size
        super().__post_init__(**kwargs)

    def validate_names(self):
        """Refuse names that are not in the open tables of positions, mixers and front ends."""
        check_known("source_modality", self.source_modality, {"text": None} | FRONT_ENDS)
        check_known("position_embedding_type", self.position_embedding_type, POSITIONS)
        for stack in ("encoder", "decoder"):
            for layer_type in getattr(self, f"{stack}_layer_types") or ():
                check_known(f"{stack}_layer_types", layer_type, MIXERS)

    def validate_widths(self):
        """Refuse sizes below 1, and heads that do not divide d_model."""
        check_positive(
            self,
            *("vocab_size", "decoder_vocab_size", "d_model", "encoder_layers", "decoder_layers"),
            *("encoder_attention_heads", "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim"),
            *("max_position_embeddings", "conv_kernel_size", *FRONT_END_FIELDS),
        )
        height = output_height(self)
        if height % self.image_rows:
            raise ValueError(
                f"image_rows={self.image_rows} does not divide the {height} rows that {self.frontend_layers} "
                f"convolutions leave of image_height={self.image_height}. Choose a divisor of {height}."
            )
        for name in ("encoder_attention_heads", "decoder_attention_heads"):
            heads = getattr(self, name)
            if self.d_model % heads:
                below = self.d_model // heads * heads
                choices = " or ".join(str(width) for width in (below, below + heads) if width)
                raise ValueError(
                    f"d_model={self.d_model} is not divisible by {name}={heads}. "
                    f"Choose a multiple of {heads}, such as {choices}."
                )
        if self.layer_norm_eps <= 0:
            raise ValueError(f"layer_norm_eps={self.layer_norm_eps} must be above 0, as 1e-5 is.")

    def validate_positions(self):
        """Refuse positions that come in pairs where a width is odd, or that layers cannot read."""
        positions = self.position_embedding_type
        if positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(f"d_model={self.d_model} is odd, but sinusoids come in pairs. Choose an even one.")
        for heads in (self.encoder_attention_heads, self.decoder_attention_heads):
            if positions == "rotary" and self.d_model // heads % 2:
                raise ValueError(
                    f"position_embedding_type=rotary turns pairs of numbers, but {heads} heads of "
                    f"d_model={self.d_model} are {self.d_model // heads} wide. Choose d_model as a multiple of "
                    f"{2 * heads}, or other positions."
                )
        layer_types = self.stack_layer_types("encoder") + self.stack_layer_types("decoder")
        if positions in ("rotary", "relative") and "linear_attention" in layer_types:
            raise ValueError(
                f"position_embedding_type={positions} tells positions to attention scores, and layers of "
                "linear_attention have none: they would see no order. Choose sinusoidal or learned positions, or "
                "other layer types."
            )
        if self.relative_attention_max_distance <= 16:
            raise ValueError(
                f"relative_attention_max_distance={self.relative_attention_max_distance} must be above 16: up to "
                "there each distance has a number of its own. T5's is 128."
            )

    def validate_layer_types(self):
        """Refuse a list of types that does not fit the layers, and local attention without a window."""
        for stack in ("encoder", "decoder"):
            layer_types, layers = getattr(self, f"{stack}_layer_types"), getattr(self, f"{stack}_layers")
            if layer_types is not None and len(layer_types) != layers:
                raise ValueError(
                    f"{stack}_layer_types has {len(layer_types)} entries, but {stack}_layers={layers}. Name one type "
                    "for each layer, or leave it None for full attention in all of them."
                )
        if self.sliding_window is None:
            if "sliding_attention" in self.stack_layer_types("encoder") + self.stack_layer_types("decoder"):
                raise ValueError(
                    "A layer of sliding_attention has to know how many tokens it reaches: sliding_window is None. "
                    "Set it, to 8 for example."
                )
        elif self.sliding_window < 2:
            raise ValueError(f"sliding_window={self.sliding_window} must be at least 2: a token and its neighbour.")

    def validate_probabilities(self):
        """Refuse dropout rates and label smoothing that are no probabilities below 1."""
        check_probabilities(self, "dropout", "attention_dropout", "activation_dropout", "label_smoothing")

    def validate_vocabularies(self):
        """Refuse one embedding for two vocabularies of different sizes."""
        check_vocabularies(self)
        if self.copy_attention and not (self.share_encoder_decoder_embeddings and self.source_modality == "text"):
            raise ValueError(
                "copy_attention=True puts tokens of the source into the target, so both need one vocabulary: leave "
                'share_encoder_decoder_embeddings=True and source_modality="text", or copy nothing.'
            )

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what is saved; a model of text says nothing of front ends."""
        left_out = ["source_modality", *FRONT_END_FIELDS] if is_text(self) else []
        left_out += [] if self.copy_attention else ["copy_attention"]
        return {name: value for name, value in super().to_diff_dict().items() if name not in left_out}

    def stack_layer_types(self, stack: Literal["encoder", "decoder"]) -> list[str]:
        """Return the type of each layer of a stack."""
        return getattr(self, f"{stack}_layer_types") or ["full_attention"] * getattr(self, f"{stack}_layers")

    def has_final_norm(self) -> bool:
        """Say whether each stack ends in a LayerNorm."""
        return self.norm_position == "pre" if self.final_layer_norm is None else self.final_layer_norm

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None):
        """Return what transformers returns; the decoder's says for each of its layers what a cache has to keep.

        Without `layer_types` transformers would let all layers of a model with a `sliding_window` forget.
        """
        config = super().get_text_config(decoder=decoder, encoder=encoder)
        if not decoder or encoder or "layer_types" in vars(self):
            return config
        if config is self:  # a decoder alone
            config = copy.copy(self)
        config.layer_types = [MIXERS[layer_type].cache_type for layer_type in self.stack_layer_types("decoder")]
        return config


def fit_config(config: FunTransformerConfig, is_encoder_decoder: bool) -> FunTransformerConfig:
    """Return the config with or without two stacks: a copy, where it came from another kind of model.

    Raises:
        ValueError: When a field that was set later names what is in no table; only its type has been checked so far.
    """
    config.validate_names()
    if config.is_encoder_decoder != is_encoder_decoder:
        config = copy.deepcopy(config)
        config.is_encoder_decoder = is_encoder_decoder
    return config


def text_only(config: FunTransformerConfig) -> FunTransformerConfig:
    """Return the config of one stack that reads text.

    Raises:
        ValueError: When the model reads something else.
    """
    refuse_features(config, "This head")
    return fit_config(config, is_encoder_decoder=False)


def decoder_only(config: FunTransformerConfig) -> FunTransformerConfig:
    """Return a copy with the decoder's sizes everywhere: transformers reads a lone stack's in the encoder's fields."""
    config = copy.deepcopy(text_only(config))
    config.vocab_size = config.decoder_vocab_size
    config.encoder_layers = config.decoder_layers
    config.encoder_attention_heads = config.decoder_attention_heads
    config.encoder_ffn_dim = config.decoder_ffn_dim
    config.encoder_layer_types = config.decoder_layer_types
    return config


__all__ = ["FunTransformerConfig"]
