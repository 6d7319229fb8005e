"""Attention by hand, in NumPy, step by step, and equal to the model's. 手写注意力。

`python -m examples.attention_by_hand [OUTPUT_DIR]` draws attention_steps.svg and attention_variants.svg.

    scores = Q K^T / sqrt(d_k)    weights = softmax(scores)    context = weights V
"""

import sys
from pathlib import Path

import numpy as np
import torch

from fun_transformer import FunTransformerConfig, FunTransformerModel
from fun_transformer.visualization import Panel, plot_matrices

WORDS = ["我", "爱", "学习"]


def softmax(scores: np.ndarray) -> np.ndarray:
    """Positive numbers that sum to 1 in each row; the maximum is subtracted so that exp() cannot overflow."""
    grown = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return grown / grown.sum(axis=-1, keepdims=True)


def attention(query, key, value, may_look=None) -> dict[str, np.ndarray]:
    """One head: query (query_len, d_k), key (key_len, d_k), value (key_len, d_v), may_look (query_len, key_len)."""
    scores = query @ key.T / np.sqrt(key.shape[-1])  # (query_len, key_len)
    if may_look is not None:
        scores = np.where(may_look, scores, -np.inf)  # exp(-inf) = 0
    weights = softmax(scores)  # (query_len, key_len)
    return {"scores": scores, "weights": weights, "context": weights @ value}  # context: (query_len, d_v)


def multi_head_attention(states: np.ndarray, parameters: dict[str, np.ndarray], heads: int) -> np.ndarray:
    """All heads: project, let each head attend in its own slice of the width, concatenate, project."""

    def project(name, x):
        return x @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]

    slices = [np.split(project(name, states), heads, axis=-1) for name in ("q_proj", "k_proj", "v_proj")]
    contexts = [attention(query, key, value)["context"] for query, key, value in zip(*slices)]
    return project("out_proj", np.concatenate(contexts, axis=-1))  # (seq_len, d_model)


def main() -> None:
    torch.manual_seed(1)
    config = FunTransformerConfig(vocab_size=9, d_model=8, encoder_attention_heads=2, decoder_attention_heads=2)
    ours = FunTransformerModel(config).eval().encoder.layers[0].self_attn
    states = torch.randn(1, len(WORDS), config.d_model)
    expected = ours(states)[0][0].detach().numpy()
    parameters = {name: parameter.detach().numpy() for name, parameter in ours.named_parameters()}
    by_hand = multi_head_attention(states[0].numpy(), parameters, heads=2)
    np.testing.assert_allclose(by_hand, expected, atol=1e-5)
    print(f"Two heads by hand equal MultiHeadAttention: largest difference {abs(by_hand - expected).max():.1e}")

    numbers = np.random.default_rng(88)  # one that shows each case: all rows have a positive and a negative score
    words = numbers.normal(size=(len(WORDS), 4)).round(1)  # X, (seq_len, d_model)
    learned = dict(zip("QKV", (0.7 * numbers.normal(size=(3, 4, 4))).round(1)))  # W_Q, W_K, W_V
    query, key, value = (words @ matrix for matrix in learned.values())  # (seq_len, d_k)
    free, causal = attention(query, key, value), attention(query, key, value, np.tri(len(WORDS), dtype=bool))
    looks = {"rows": WORDS, "columns": WORDS, "row_name": "看 looks", "column_name": "被看"}
    steps: list[Panel | None] = [Panel("1  X 词向量 words", words, WORDS)]
    steps += [Panel(f"2  W_{name} 学到的 learned", matrix) for name, matrix in learned.items()]
    results = zip((3, 4, 5), "QKV", ("查询", "键", "值"), (query, key, value))
    steps += [
        None,
        *(Panel(f"{step}  {name} = X W_{name} {word}", matrix, WORDS) for step, name, word, matrix in results),
    ]
    steps += [
        None,
        Panel("6  分数 Q Kᵀ / √4 scores", free["scores"], **looks),
        Panel("7  权重 softmax 6 weights", free["weights"], **looks),
        Panel("8  上下文 7 × V context", free["context"], WORDS),
    ]
    kept, hard = np.maximum(free["scores"], 0), np.eye(len(WORDS))[free["scores"].argmax(-1)]
    variants = [
        Panel("因果掩码 masked 分数", causal["scores"], **looks),
        Panel("因果掩码 masked 权重", causal["weights"], **looks),
        Panel("ReLU 权重 weights", kept / kept.sum(-1, keepdims=True), **looks),
        Panel("硬注意力 hard", hard, **looks),
    ]
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    plot_matrices(steps, folder / "attention_steps.svg", numbers=True)
    plot_matrices(variants, folder / "attention_variants.svg", numbers=True)


if __name__ == "__main__":
    main()
