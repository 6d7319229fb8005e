"""Masks: which tokens may a token look at? 掩码：谁可以看谁？ `python -m examples.masks [OUTPUT_DIR]`

A mask is a matrix of True (may look, blue) and False. Each is written here as a formula, and compared with what a
model does: its attention weights are zero exactly where the formula says False. Draws masks.svg.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from fun_transformer import FunTransformerConfig, FunTransformerForConditionalGeneration
from fun_transformer.visualization import Panel, plot_matrices

SOURCE = ["我", "爱", "学习", "<pad>", "<pad>"]
TARGET = ["<s>", "I", "love", "learning", "words"]
WINDOW = 2


def masks_by_formula() -> dict[str, np.ndarray]:
    """The masks of a translator, (query_len, key_len)."""
    is_token = np.array([word != "<pad>" for word in SOURCE])
    query, key = np.arange(len(TARGET))[:, None], np.arange(len(TARGET))[None, :]
    return {
        # Padding 填充掩码: no token looks at padding.
        "encoder": np.broadcast_to(is_token, (len(SOURCE), len(SOURCE))),
        # Causal 因果掩码: a target token looks at itself and those before it.
        "decoder": key <= query,
        # The decoder looks at the whole source, but not at its padding.
        "cross": np.broadcast_to(is_token, (len(TARGET), len(SOURCE))),
        # Local 局部掩码: a target token looks at itself and the WINDOW - 1 tokens before it.
        "local": (key <= query) & (query - key < WINDOW),
    }


def weights_of_a_model(layer_type: str) -> dict[str, torch.Tensor]:
    """Attention weights of an untrained model, each (batch, heads, query_len, key_len)."""
    sizes = {"vocab_size": 20, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    config = FunTransformerConfig(decoder_layer_types=[layer_type], sliding_window=WINDOW, **sizes, **heads)
    outputs = FunTransformerForConditionalGeneration(config).eval()(
        input_ids=torch.tensor([[5, 6, 7, 0, 0]]),
        attention_mask=torch.tensor([[1, 1, 1, 0, 0]]),
        decoder_input_ids=torch.tensor([[1, 8, 9, 10, 11]]),
        output_attentions=True,
    )
    names = {"encoder": "encoder_attentions", "decoder": "decoder_attentions", "cross": "cross_attentions"}
    return {name: outputs[key][0] for name, key in names.items()}


def main() -> None:
    weights = weights_of_a_model("full_attention")
    weights["local"] = weights_of_a_model("sliding_attention")["decoder"]
    masks = masks_by_formula()
    for name, mask in masks.items():
        np.testing.assert_array_equal((weights[name][0] > 0).all(dim=0).numpy(), mask)
        print(f"{name}: the model's mask is the formula's")
        print(*("  " + " ".join("■" if may else "□" for may in row) for row in mask), sep="\n")
    names = {"row_name": "看 looks", "column_name": "被看 looked at"}
    panels = [
        Panel("填充掩码 padding: encoder 编码器", masks["encoder"], SOURCE, SOURCE, **names),
        Panel("填充掩码 padding: 交叉注意力 cross", masks["cross"], TARGET, SOURCE, **names),
        Panel("因果掩码 causal: decoder 解码器", masks["decoder"], TARGET, TARGET, **names),
        Panel(f"局部掩码 local: window 窗口 {WINDOW}", masks["local"], TARGET, TARGET, **names),
    ]
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    plot_matrices(panels, folder / "masks.svg", columns=2, cell=0.5, bar=("可以看 may look", "看不到 hidden"))


if __name__ == "__main__":
    main()
