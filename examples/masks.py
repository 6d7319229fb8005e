"""Masks: which tokens may a token look at? 掩码：谁可以看谁？ `python -m examples.masks [OUTPUT_DIR]`

A mask is a matrix of True (may look, yellow) and False. Each is written here as a formula, and compared with what a
model does: its attention weights are zero exactly where the formula says False. Draws masks.png.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from fun_transformer import FunTransformerConfig, FunTransformerForConditionalGeneration
from fun_transformer.visualization import Panel, plot_matrices

SOURCE = ["我", "爱", "学习", "<pad>", "<pad>"]
TARGET = ["<s>", "I", "love", "learning"]


def masks_by_formula() -> dict[str, np.ndarray]:
    """The three masks of a translator, (query_len, key_len)."""
    is_token = np.array([word != "<pad>" for word in SOURCE])
    query, key = np.arange(len(TARGET))[:, None], np.arange(len(TARGET))[None, :]
    return {
        # Padding 填充掩码: nobody looks at padding.
        "encoder": np.broadcast_to(is_token[None, :], (len(SOURCE), len(SOURCE))),
        # Causal 因果掩码: a target token looks at itself and those before it.
        "decoder": key <= query,
        # The decoder looks at the whole source, but not at its padding.
        "cross": np.broadcast_to(is_token[None, :], (len(TARGET), len(SOURCE))),
    }


def masks_of_a_model() -> dict[str, np.ndarray]:
    """Where the attention weights of an untrained model are not zero."""
    sizes = {"vocab_size": 20, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    model = FunTransformerForConditionalGeneration(FunTransformerConfig(**sizes, **heads)).eval()
    outputs = model(
        input_ids=torch.tensor([[5, 6, 7, 0, 0]]),
        attention_mask=torch.tensor([[1, 1, 1, 0, 0]]),
        decoder_input_ids=torch.tensor([[1, 8, 9, 10]]),
        output_attentions=True,
    )
    weights = {
        "encoder": outputs.encoder_attentions,
        "decoder": outputs.decoder_attentions,
        "cross": outputs.cross_attentions,
    }
    return {name: (layers[0][0] > 0).all(dim=0).numpy() for name, layers in weights.items()}


def local_mask(length: int, window: int) -> np.ndarray:
    """Local attention 局部注意力: a token looks at itself and the window - 1 tokens before it."""
    query, key = np.arange(length)[:, None], np.arange(length)[None, :]
    return (key <= query) & (query - key < window)


def main() -> None:
    formula, model = masks_by_formula(), masks_of_a_model()
    for name, mask in formula.items():
        np.testing.assert_array_equal(model[name], mask)
        print(f"{name}: the model's mask is the formula's")
        print(*("  " + " ".join("■" if may else "□" for may in row) for row in mask), sep="\n")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    panels = [
        Panel("padding 填充掩码\n(encoder)", formula["encoder"], SOURCE, SOURCE, "looks", "is looked at"),
        Panel("causal 因果掩码\n(decoder)", formula["decoder"], TARGET, TARGET),
        Panel("padding 填充掩码\n(cross-attention)", formula["cross"], TARGET, SOURCE),
        Panel("local 局部掩码\n(window of 3)", local_mask(8, 3), list("12345678"), list("12345678")),
    ]
    plot_matrices(panels, folder / "masks.png", cell=0.3)


if __name__ == "__main__":
    main()
