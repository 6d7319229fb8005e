"""Train from a recipe, score, draw, and use the model as anybody would: `python -m examples.demo RECIPE OUTPUT_DIR`.

What `make demo` and `make demo-zh-en` run. Options after OUTPUT_DIR go to the training.
"""

import json
import sys
from pathlib import Path

from fun_transformer.training.train import main as train

# What each demo shows: texts that no data set has, and what has to be said about the model.
SHOWN = {
    "g2p-en": (["transformer", "huggingface", "datawhale"], ""),
    "zh-en-tiny": (
        ["今天吃什么好"],
        "4,000 sentences make a toy: it knows their words and phrases, and guesses the rest. For a real translator,\n"
        "train on your own sentence pairs: see README.md.",
    ),
}


def use(model: Path, texts: list[str]) -> None:
    """Load the model with transformers and use it."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

    import fun_transformer  # noqa: F401  registers the model and the pipelines
    from fun_transformer.analysis import cross_attention
    from fun_transformer.visualization import plot_attention

    pipe = pipeline("text2text-generation", model=str(model))
    for text, result in zip(texts, pipe(texts), strict=True):
        print(f"  {text} -> {result['generated_text']}")

    loaded = AutoModelForSeq2SeqLM.from_pretrained(model)
    attention = cross_attention(loaded, AutoTokenizer.from_pretrained(model), texts[0])
    plot_attention(attention, model.parent / "attention.png")
    print(f"Attention: {model.parent / 'attention.png'}")


def last_line(output_dir: Path) -> str:
    """The scores on the test split, in one line."""
    lines = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    test = next(line for line in reversed(lines) if line["split"] == "test")
    seconds = max(line["seconds"] for line in lines if "seconds" in line)
    rows = sum(1 for _ in (output_dir / "predictions.jsonl").open(encoding="utf-8"))
    if "per" in test:
        scores, unit = f"PER {test['per']:.1f} % WER {test['wer']:.1f} %", "words"
    else:
        scores, unit = f"BLEU {test['bleu']:.1f} chrF {test['chrf']:.1f}", "sentences"
    return f"demo: {scores} on {rows} held-out {unit}, {seconds:.0f} s of training"


def main() -> None:
    """Train, use, report."""
    if len(sys.argv) < 3 or Path(sys.argv[1]).parent.name not in SHOWN:
        sys.exit(f"usage: python -m examples.demo RECIPE OUTPUT_DIR [OPTIONS]; a recipe of {' or '.join(SHOWN)}")
    recipe, output_dir = Path(sys.argv[1]), Path(sys.argv[2])
    # What `accelerate launch -m fun_transformer.training RECIPE ...` runs on each of its processes.
    if code := train([str(recipe), "--output_dir", str(output_dir), "--overwrite", *sys.argv[3:]]):
        sys.exit(code)
    texts, note = SHOWN[recipe.parent.name]
    use(output_dir / "model", texts)
    if note:
        print(note)
    print(last_line(output_dir))


if __name__ == "__main__":
    main()
