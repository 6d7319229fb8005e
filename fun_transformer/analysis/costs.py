"""The arithmetic of a Transformer in closed form (Vaswani et al. 2017, Table 1; Kaplan et al. 2020, section 2.1)."""

from ..configuration_fun_transformer import FunTransformerConfig


def flops_per_token(
    config: FunTransformerConfig, source_len: float, target_len: float, training: bool = True
) -> float:
    """Count floating-point operations a token, source and target tokens taken together.

    Only matrix products count, a multiplication and an addition as two: projections 2 d_model^2 each, feed-forward
    networks 4 d_model ffn_dim, scores and contexts 4 d_model for every key, the output layer 2 d_model vocab_size.

    Args:
        config: Sizes of the model.
        source_len: Mean length of a source in tokens.
        target_len: Mean length of a target in tokens.
        training: Count the backward pass too, which costs twice the forward pass.

    Returns:
        Operations for a source and its target, divided by `source_len + target_len`.
    """
    d_model = config.d_model
    projection = 2 * d_model**2
    encoder_token = config.encoder_layers * (
        4 * projection + 4 * d_model * source_len + 4 * d_model * config.encoder_ffn_dim
    )
    # Each source token becomes a key and a value in each decoder layer; a target token has 4 + 2 projections.
    cross_source_token = config.decoder_layers * 2 * projection
    decoder_token = config.decoder_layers * (
        6 * projection + 4 * d_model * (target_len + source_len) + 4 * d_model * config.decoder_ffn_dim
    )
    output_token = 2 * d_model * (config.decoder_vocab_size or config.vocab_size)
    forward = source_len * (encoder_token + cross_source_token) + target_len * (decoder_token + output_token)
    return forward * (3 if training else 1) / (source_len + target_len)
