"""The configuration of the RNN encoder-decoder: each choice of the years before the Transformer is a field.

Cho et al. 2014 (arXiv:1406.1078): GRU and a fixed context. Bahdanau et al. 2015 (arXiv:1409.0473): a bidirectional
encoder and additive attention. Luong et al. 2015 (arXiv:1508.04025): multiplicative and local attention.
"""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .config_checks import check_positive, check_probabilities, check_vocabularies, refuse_near_misses


@strict
class Seq2SeqRNNConfig(PreTrainedConfig):
    """What an RNN encoder-decoder is made of.

    Args:
        vocab_size: Number of tokens of the source, and of the target when `decoder_vocab_size` is None.
        decoder_vocab_size: Number of tokens of the target, for separate vocabularies.
        cell: "lstm" (Hochreiter and Schmidhuber 1997) or "gru" (Cho et al. 2014, section 2.3).
        d_model: Width of embeddings and of every hidden state; a bidirectional encoder gives each direction a half.
        encoder_layers, decoder_layers: Number of recurrent layers of each stack.
        bidirectional: Read the source in both directions (Bahdanau, section 3.2).
        attention_score: "none" is one fixed context for the whole target (Cho, section 2.2); "additive" is Bahdanau's
            attention (section 3.1); "dot" and "general" are Luong's (section 3.1).
        attention_weights: How scores become weights: "softmax", or "relu" (Zhang et al. 2021, arXiv:2104.07012), or
            "hard", one source token at a time (Xu et al. 2015, arXiv:1502.03044).
        attention_window: D of local attention (Luong, section 3.2): look at most this many positions to either side of
            a center; None looks at the whole source.
        attention_window_center: Where the window is: "predicted" (Luong's local-p, with a Gaussian around the
            center) or "monotonic" (local-m: target position t looks at source position t).
        dropout: On embeddings, between layers and before the output layer (Zaremba et al. 2014, arXiv:1409.2329).
        share_encoder_decoder_embeddings: One embedding for source and target.
        tie_word_embeddings: The output layer uses the target's embedding (Press and Wolf 2017, arXiv:1608.05859).
        label_smoothing: The probability mass spread over the whole vocabulary.
        pad_token_id, bos_token_id, eos_token_id, decoder_start_token_id: Special tokens; the decoder's input is the
            target shifted right by `decoder_start_token_id`.

    Raises:
        StrictDataclassError: When a field has the wrong type or the fields do not fit together.
        ValueError: When a field's name is nearly, but not quite, one of ours.
    """

    model_type = "seq2seq_rnn"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {"hidden_size": "d_model", "num_hidden_layers": "encoder_layers"}

    vocab_size: int = 37000
    decoder_vocab_size: int | None = None
    cell: Literal["lstm", "gru"] = "lstm"
    d_model: int = 512
    encoder_layers: int = 2
    decoder_layers: int = 2
    bidirectional: bool = True
    attention_score: Literal["none", "additive", "dot", "general"] = "additive"
    attention_weights: Literal["softmax", "relu", "hard"] = "softmax"
    attention_window: int | None = None
    attention_window_center: Literal["predicted", "monotonic"] = "predicted"
    dropout: float | int = 0.1
    share_encoder_decoder_embeddings: bool = True
    tie_word_embeddings: bool = True
    label_smoothing: float | int = 0.1
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 1
    is_encoder_decoder: bool = True
    use_cache: bool = True

    def __post_init__(self, **kwargs):
        refuse_near_misses(self, kwargs)
        if self.decoder_vocab_size is None:
            self.decoder_vocab_size = self.vocab_size
        super().__post_init__(**kwargs)

    def validate_sizes(self):
        """Refuse sizes below 1, and widths that two directions cannot share equally."""
        check_positive(self, "vocab_size", "decoder_vocab_size", "d_model", "encoder_layers", "decoder_layers")
        if self.bidirectional and self.d_model % 2:
            raise ValueError(
                f"d_model={self.d_model} is odd, but each direction of a bidirectional encoder gets a half of it. "
                "Choose an even one, or bidirectional=False."
            )

    def validate_weights(self):
        """Refuse a way to make weights where there are no scores."""
        if self.attention_score == "none" and self.attention_weights != "softmax":
            raise ValueError(
                f"attention_weights={self.attention_weights} turns scores into weights, but attention_score is none. "
                "Choose additive, dot or general, or leave the weights out."
            )

    def validate_window(self):
        """Refuse windows narrower than one position, and those without an attention to narrow."""
        if self.attention_window is None:
            return
        if self.attention_window < 1:
            raise ValueError(f"attention_window={self.attention_window} must be at least 1, or None.")
        if self.attention_score == "none":
            raise ValueError(
                f"attention_window={self.attention_window} narrows attention, but attention_score is none. "
                "Choose additive, dot or general, or leave the window out."
            )

    def validate_probabilities(self):
        """Refuse a dropout rate or label smoothing that is no probability below 1."""
        check_probabilities(self, "dropout", "label_smoothing")

    def validate_vocabularies(self):
        """Refuse one embedding for two vocabularies of different sizes."""
        check_vocabularies(self)


__all__ = ["Seq2SeqRNNConfig"]
