"""Positions: how a model that sees a set of tokens learns their order. 位置编码。

`python -m examples.positions [OUTPUT_DIR]` draws positions.svg.

    PE(pos, 2i) = sin(pos / 10000^(2i / d_model))    PE(pos, 2i + 1) = cos(pos / 10000^(2i / d_model))

Rotary and relative positions tell attention how far two tokens are apart, and add nothing to the embeddings.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch

from fun_transformer import FunTransformerConfig, FunTransformerModel
from fun_transformer.positions import RelativePositions, RotaryPositions
from fun_transformer.visualization import Panel, plot_matrices

LENGTH, D_MODEL = 64, 64


def encode(position: int, d_model: int) -> list[float]:
    """One position, number by number, as the formula says it."""
    vector = []
    for two_i in range(0, d_model, 2):  # 2i, not i: doubling it again is the classic mistake
        angle = position / 10000 ** (two_i / d_model)
        vector += [math.sin(angle), math.cos(angle)]
    return vector


def main() -> None:
    by_hand = np.array([encode(position, D_MODEL) for position in range(LENGTH)])  # (seq_len, d_model)

    sizes = {"vocab_size": 9, "encoder_layers": 1, "decoder_layers": 1}
    encoder = FunTransformerModel(FunTransformerConfig(d_model=D_MODEL, **sizes)).encoder
    position_ids = torch.arange(LENGTH).unsqueeze(0)  # (1, seq_len): counted along the text, never along the batch
    ours = encoder.embed_positions(position_ids, LENGTH)[0].numpy()  # (seq_len, d_model)
    np.testing.assert_allclose(by_hand, ours, atol=1e-4)
    print(f"By hand equals SinusoidalPositions: largest difference {abs(by_hand - ours).max():.1e}")

    similarity = by_hand @ by_hand.T / (D_MODEL / 2)  # (seq_len, seq_len); cos(a - b) summed: 1 on the diagonal
    distances = [similarity[np.arange(LENGTH - 8), np.arange(LENGTH - 8) + distance] for distance in (0, 1, 8)]
    for distance, values in zip((0, 1, 8), distances):
        print(f"Positions {distance} apart: similarity {values.mean():.3f}, everywhere ({np.ptp(values):.0e})")

    # Rotary positions turn queries and keys: here one of each, at all pairs of places.
    torch.manual_seed(0)
    rotary = RotaryPositions(encoder.config, num_heads=1, is_causal=False)
    query, key = torch.randn(2, 1, 1, 1, D_MODEL).expand(2, 1, 1, LENGTH, D_MODEL)  # (batch, heads, seq_len, head_dim)
    scores = (rotary.rotate(query, position_ids) @ rotary.rotate(key, position_ids).mT / D_MODEL**0.5)[0, 0].numpy()
    np.testing.assert_allclose(scores[1:, 1:], scores[:-1, :-1], atol=1e-3)
    print("Rotary: the score of a query and a key is the same wherever they are equally far apart")

    # Relative positions add a learned number to each score, that of a range of distances.
    relative = RelativePositions(encoder.config, num_heads=1, is_causal=False)
    buckets = relative.buckets(position_ids - position_ids.T).numpy()  # (seq_len, seq_len): of key j - query i
    print(f"Relative: {len(np.unique(buckets[0]))} numbers for the distances from 0 to {LENGTH - 1}")

    # Without positions a permuted source gives permuted states: order is invisible.
    layer = encoder.layers[0].eval()
    states, order = torch.randn(1, 5, D_MODEL), torch.tensor([4, 2, 0, 3, 1])
    with torch.no_grad():
        torch.testing.assert_close(layer(states[:, order], None), layer(states, None)[:, order])
    print("An encoder layer alone does not see the order of its tokens")

    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    panels = [
        Panel("正弦编码 PE(pos, i)", by_hand, row_name="位置 position", column_name="维 dimension i"),
        Panel("正弦：两个位置的相似度 similarity", similarity, row_name="位置 position", column_name="位置 position"),
        Panel("旋转：同一对 q、k 的分数 rotary score", scores, row_name="查询 query at", column_name="键 key at"),
        Panel("相对：加上第几个数 relative: which number", buckets, row_name="查询 query at", column_name="键 key at"),
    ]
    plot_matrices(panels, folder / "positions.svg", columns=2, cell=0.05, bar="值")


if __name__ == "__main__":
    main()
