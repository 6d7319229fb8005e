"""An encoder layer step by step, with the shape of every step. 编码器的一层，逐步。 `python -m examples.encoder_layer`

x -> LayerNorm(x + SelfAttention(x)) -> LayerNorm(x + FFN(x))    (post-norm, as in the paper)
"""

import torch

from fun_transformer import FunTransformerConfig, FunTransformerModel

BATCH, SOURCE_LEN, HEADS = 2, 5, 4


def show(step: str, states: torch.Tensor) -> torch.Tensor:
    print(f"{step:45} {tuple(states.shape)}")
    return states


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "d_model": 32, "encoder_ffn_dim": 128, "encoder_layers": 1, "decoder_layers": 1}
    model = FunTransformerModel(FunTransformerConfig(**sizes, encoder_attention_heads=HEADS)).eval()  # no dropout
    encoder, layer = model.encoder, model.encoder.layers[0]
    attention, feed_forward = layer.self_attn, layer.feed_forward
    input_ids = torch.randint(3, 20, (BATCH, SOURCE_LEN))

    # 1. Words become vectors, scaled by sqrt(d_model); positions are added.
    show("token ids", input_ids)
    embedded = show("embeddings * sqrt(d_model)", encoder.embed_tokens(input_ids) * 32**0.5)
    position_ids = torch.arange(SOURCE_LEN).unsqueeze(0)  # (1, seq_len)
    x = show("x = embeddings + positions", embedded + encoder.embed_positions(position_ids, SOURCE_LEN))

    # 2. Self-attention: h heads look around, each in a slice of the width.
    query = show("queries, split into heads", attention.split_heads(attention.q_proj(x)))
    key = attention.split_heads(attention.k_proj(x))
    value = attention.split_heads(attention.v_proj(x))
    scores = show("scores = Q K^T / sqrt(d_k)", query @ key.transpose(-2, -1) / (32 / HEADS) ** 0.5)
    weights = show("weights = softmax(scores)", scores.softmax(dim=-1))
    context = show("context = weights V", weights @ value)
    joined = show("heads side by side again", context.transpose(1, 2).flatten(-2))
    attended = show("W^O", attention.out_proj(joined))

    # 3. Residual and norm: what the words were, plus what they have seen.
    x = show("x = LayerNorm(x + attention)", layer.self_attn_layer_norm(x + attended))

    # 4. The feed-forward network works on each word alone.
    inner = show("max(0, x W_1 + b_1)", feed_forward.fc1(x).relu())
    x = show("x = LayerNorm(x + FFN(x))", layer.final_layer_norm(x + feed_forward.fc2(inner)))

    ours = model.encoder(input_ids).last_hidden_state
    torch.testing.assert_close(x, ours, atol=1e-5, rtol=0)
    print(f"The model says the same: largest difference {(x - ours).abs().max():.1e}")


if __name__ == "__main__":
    main()
