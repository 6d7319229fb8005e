"""Translate a sentence, and look at what the model looked at. 翻译，并看看模型在看哪里。

`python -m examples.translate MODEL_FOLDER TEXT [OUTPUT_DIR]` writes attention.html and attention_heads.png.
"""

import argparse
from pathlib import Path

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import fun_transformer  # noqa: F401  registers the model with the Auto classes
from fun_transformer.analysis import cross_attention
from fun_transformer.visualization import plot_attention_heads, write_attention_page


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.translate", description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a model folder, or the name of a model on the Hub")
    parser.add_argument("text", help="the sentence")
    parser.add_argument("folder", nargs="?", type=Path, default=".", help="where the page and the picture go")
    args = parser.parse_args()
    model = AutoModelForSeq2SeqLM.from_pretrained(args.model)
    found = cross_attention(model, AutoTokenizer.from_pretrained(args.model), args.text, num_beams=4)
    print(f"{found.source} -> {found.target}")

    weights = found.weights[-1].mean(dim=0)  # (target_len, source_len), the last layer's mean over heads
    for word, row in zip(found.target_tokens, weights):
        print(f"  {word:>12} looks most at {found.source_tokens[row.argmax()]} ({row.max():.0%})")
    write_attention_page(found, args.folder / "attention.html")
    plot_attention_heads(found, args.folder / "attention_heads.png")


if __name__ == "__main__":
    main()
