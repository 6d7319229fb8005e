"""Use the models of the checkout, then train one, score, draw and use it: `python -m examples.demo RECIPE OUTPUT_DIR`.

What `make demo` and `make demo-zh-en` run. Options after OUTPUT_DIR go to the training.
"""

import io
import json
import sys
from pathlib import Path

from fun_transformer.training.train import main as train

HUB_CONFIGS = Path(__file__).parents[1] / "hub_configs"
# What the models that need no training are shown with: pipeline, model, texts.
READY = (
    ("translation", "zh-en-small", ["今天天气很好。", "你叫什么名字?", "这本书是谁的?", "Kevin住在伦敦。"]),
    ("translation", "en-zh-small", ["I like reading books.", "Where is the station?", "She is my teacher."]),
    ("text2text-generation", "g2p-en-distilled", ["attention", "translator", "everyday"]),
)
# What each demo shows: texts that no data set has, of speech and pictures test rows, and what has to be said about it.
SHOWN = {
    "g2p-en": (["transformer", "huggingface", "datawhale"], ""),
    "zh-en-tiny": (
        ["今天吃什么好"],
        "4,000 sentences make a toy: it knows their words and phrases, and guesses the rest. For a real translator,\n"
        "train on your own sentence pairs: see README.md.",
    ),
    "spoken-digits": ([], ""),
    "handwritten-digits": ([], ""),
    "formula-latex": ([], ""),
}


def use_ready_models() -> None:
    """Translate and pronounce with the models whose weights are in the checkout."""
    from transformers import pipeline

    import fun_transformer  # noqa: F401  registers the models and the pipelines

    for task, name, texts in READY:
        if not (HUB_CONFIGS / name / "model.safetensors").exists():
            continue
        print(f'pipeline("{task}", model="hub_configs/{name}")')
        for text, result in zip(texts, pipeline(task, model=str(HUB_CONFIGS / name))(texts), strict=True):
            (answer,) = result.values()
            print(f"  {text} -> {answer}")


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


def use_on_files(model: Path, recipe: Path, data: list[str]) -> None:
    """Read the first test rows with transformers' pipeline; draw what the first one listens to, or looks at."""
    from PIL import Image
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

    import fun_transformer  # noqa: F401  registers the model and the pipelines
    from fun_transformer.analysis import attention_over_features
    from fun_transformer.training.data.media import READERS, row_content
    from fun_transformer.training.data.report import RowReport
    from fun_transformer.training.data.sounds import RATE, read_sound
    from fun_transformer.training.data.splits import load_split
    from fun_transformer.training.recipe.reading import parse_arguments
    from fun_transformer.visualization import plot_picture_attention, plot_speech_attention

    arguments = parse_arguments([str(recipe), *data])
    loaded = AutoModelForSeq2SeqLM.from_pretrained(model)
    modality = loaded.config.source_modality
    rows = load_split("test", arguments.data, 0, RowReport(), modality).select(range(4))
    contents = [row_content(row["source"], row["content"]) for row in rows]
    if modality == "speech":
        sources = [{"raw": read_sound(content)[0], "sampling_rate": RATE} for content in contents]
        pipe, key = pipeline("automatic-speech-recognition", model=str(model)), "text"
    else:
        sources = [Image.open(io.BytesIO(content)) for content in contents]
        pipe, key = pipeline("image-to-text", model=str(model)), "generated_text"
    for row, source in zip(rows, sources, strict=True):
        result = pipe(source)
        print(f"  {row['target']} -> {(result if isinstance(result, dict) else result[0])[key]}")
    reader = READERS[modality].load(model, loaded.config)
    features = reader.read(contents[0])[0]
    inputs = reader.collate([{"features": features}])
    weights, tokens = attention_over_features(loaded, AutoTokenizer.from_pretrained(model), inputs)
    looks, path = weights[-1].mean(0).numpy(), model.parent / "attention.png"  # (target_len, source_len)
    if modality == "speech":
        plot_speech_attention(features.astype("float32"), looks, tokens, path)
    else:  # the vectors of a column follow each other, from top to bottom
        rows_of_vectors = looks.reshape(len(tokens), -1, loaded.config.image_rows).swapaxes(1, 2)
        plot_picture_attention(inputs["pixel_values"][0, 0].numpy(), rows_of_vectors, tokens, path)
    print(f"Attention: {path}")


def last_line(output_dir: Path) -> str:
    """The scores on the test split, in one line."""
    lines = [json.loads(line) for line in (output_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    test = next(line for line in reversed(lines) if line["split"] == "test")
    seconds = max(line["seconds"] for line in lines if "seconds" in line)
    rows = sum(1 for _ in (output_dir / "predictions.jsonl").open(encoding="utf-8"))
    if "wer" in test:
        scores = f"WER {test['wer']:.1f} %"
        unit = "recordings" if "cer" in test else "pictures"
    elif "same_picture" in test:
        scores, unit = f"same picture {test['same_picture']:.1f} %", "formulas"
    elif "per" in test:
        scores, unit = f"PER {test['per']:.1f} % WER {test['g2p_wer']:.1f} %", "words"
    else:
        scores, unit = f"BLEU {test['bleu']:.1f} chrF {test['chrf']:.1f}", "sentences"
    return f"demo: {scores} on {rows} held-out {unit}, {seconds:.0f} s of training"


def main() -> None:
    """Use what is there, train, use, report."""
    if len(sys.argv) < 3 or Path(sys.argv[1]).parent.name not in SHOWN:
        sys.exit(f"usage: python -m examples.demo RECIPE OUTPUT_DIR [OPTIONS]; a recipe of {' or '.join(SHOWN)}")
    recipe, output_dir = Path(sys.argv[1]), Path(sys.argv[2])
    if SHOWN[recipe.parent.name][0]:
        use_ready_models()
    print(f"\nNow one of your own, from {recipe}:", flush=True)
    # What `accelerate launch -m fun_transformer.training RECIPE ...` runs on each of its processes.
    if code := train([str(recipe), "--output_dir", str(output_dir), "--overwrite", *sys.argv[3:]]):
        sys.exit(code)
    texts, note = SHOWN[recipe.parent.name]
    if texts:
        use(output_dir / "model", texts)
    else:
        use_on_files(output_dir / "model", recipe, [word for word in sys.argv[3:] if word.startswith("--data.")])
    if note:
        print(note)
    print(last_line(output_dir))


if __name__ == "__main__":
    main()
