"""Make the folder of the live page, for any server of files: `python docs/live/build.py -o site/live [MODEL ...]`."""

import argparse
import json
import shutil
import sys
from pathlib import Path

import onnx
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig

from fun_transformer import FunTransformerForConditionalGeneration, Seq2SeqRNNForConditionalGeneration

sys.path.insert(0, str(Path(__file__).parent))
import graph
import onnx_files
import rnn_graph
import vendor

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODELS = ("zh-en-small", "g2p-en", "rnn-fixed", "rnn-additive")  # of hub_configs, those of them that have weights
NEEDED = ("config.json", "generation_config.json", "tokenizer.json", "model.safetensors")
PAGES = ("*.html", "*.css", "*.js", "views/*.js")
MOST_MB = 25

# What search.js reads, and what says nothing about what is written.
READ = {"bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "max_new_tokens", "num_beams"}
READ |= {"length_penalty", "early_stopping", "repetition_penalty", "no_repeat_ngram_size"}
OF_NO_EFFECT = {"transformers_version", "use_cache", "_from_model_config"}
OF_NO_EFFECT |= {"do_sample", "temperature", "top_k", "top_p"}  # the page has sliders for them


def build(model_folder: Path, output: Path) -> dict:
    """Write the graphs, the weights, the tokenizer and the description of a model, and return the description.

    Args:
        model_folder: A trained model, as `save_pretrained` writes it.
        output: The folder of the page's files; the model gets one in it, of its own name.

    Raises:
        ValueError: The page cannot show this model.
    """
    missing = [name for name in NEEDED if not (model_folder / name).is_file()]
    if missing:
        raise ValueError(f"{model_folder} has no {' and no '.join(missing)}. Give the folder of a trained model.")
    config = AutoConfig.from_pretrained(model_folder)
    description = describe(model_folder, config)
    if config.model_type == "fun_transformer":
        transformer = FunTransformerForConditionalGeneration.from_pretrained(model_folder).float()
        onnx_files.round_weights(transformer)
        graphs = graph.export(transformer)
        for part in graphs.values():
            onnx_files.store_in_8_bits(part.graph)
    else:
        graphs = rnn_graph.export(Seq2SeqRNNForConditionalGeneration.from_pretrained(model_folder).float())
        for part in graphs.values():
            onnx_files.store_in_16_bits(part.graph)
    folder = output / description["name"]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / onnx_files.WEIGHTS_FILE).write_bytes(onnx_files.take_weights(graphs))
    for name, part in graphs.items():
        onnx.save(part, str(folder / f"{name}.onnx"))
    description["bytes"] = sum(file.stat().st_size for file in folder.iterdir())
    write_tokenizers(model_folder, folder, description)
    (folder / "model.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
    return description


def describe(model_folder: Path, config: PreTrainedConfig) -> dict:
    """Return what model.js needs to know of a model.

    Raises:
        ValueError: The page cannot show this model.
    """
    kinds = {"fun_transformer": "transformer", "seq2seq_rnn": "rnn"}
    if config.model_type not in kinds:
        raise ValueError(f"{model_folder} is a {config.model_type}. The live page shows {' and '.join(kinds)}.")
    settings = json.loads((model_folder / "generation_config.json").read_text(encoding="utf-8"))
    settings = {name: value for name, value in settings.items() if value is not None}
    foreign = {name for name, value in settings.items() if value} - READ - OF_NO_EFFECT
    if foreign:
        raise ValueError(
            f"{model_folder / 'generation_config.json'} has {', '.join(sorted(foreign))}, which the live page does "
            f"not follow. It follows {', '.join(sorted(READ))}."
        )
    is_transformer = config.model_type == "fun_transformer"
    switches = ["positions", "scaling", "causal", "cross", "encoderHeads", "heads", "crossHeads"]
    heads = (config.encoder_attention_heads, config.decoder_attention_heads) if is_transformer else (1, 1)
    return {
        "name": model_folder.resolve().name,
        "kind": kinds[config.model_type],
        "layers": {"encoder": config.encoder_layers, "decoder": config.decoder_layers},
        "heads": dict(zip(("encoder", "decoder"), heads, strict=True)),
        "switches": switches if is_transformer else [],
        "startId": settings.get("decoder_start_token_id", config.decoder_start_token_id),
        "endId": settings.get("eos_token_id", config.eos_token_id),
        "maxLength": settings.get("max_new_tokens", 100),
        "config": config.to_dict(),
        "generation": settings,
    }


def write_tokenizers(model_folder: Path, folder: Path, description: dict) -> None:
    """Write the source's tokenizer, and the target's where it is another one, and say so in the description."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    shutil.copy(model_folder / "tokenizer.json", folder)
    description["hasTargetTokenizer"] = tokenizer.target_backend is not tokenizer.backend_tokenizer
    if description["hasTargetTokenizer"]:
        (folder / "target_tokenizer.json").write_text(tokenizer.target_backend.to_str(), encoding="utf-8")


def write_pages(output: Path) -> None:
    """Copy the page and its modules, and what it draws with, which the attention page of the package has, too."""
    for pattern in PAGES:
        for file in HERE.glob(pattern):
            target = output / file.relative_to(HERE)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    shutil.copy(ROOT / "fun_transformer" / "visualization" / "draw.js", output)


def main() -> None:
    """Build the page with the models of the command line."""
    default = [ROOT / "hub_configs" / name for name in MODELS]
    default = [folder for folder in default if (folder / "model.safetensors").is_file()]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "models",
        nargs="*",
        type=Path,
        default=default,
        help="folders of trained models; default: those of hub_configs",
    )
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "site" / "live", help="default: site/live")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "npm", help="keeps ONNX Runtime Web")
    arguments = parser.parse_args()
    output = arguments.output
    try:
        models = [build(model, output) for model in arguments.models]
        vendor.write_runtime(output / "runtime", arguments.cache)
    except ValueError as error:
        parser.error(str(error))
    write_pages(output)
    shown = [{name: model[name] for name in ("name", "kind", "bytes")} for model in models]
    (output / "models.json").write_text(json.dumps(shown, indent=1), encoding="utf-8")
    sizes = {part: sum(file.stat().st_size for file in part.rglob("*") if file.is_file()) for part in output.iterdir()}
    for part, size in sorted(sizes.items()):
        print(f"{size / 1e6:6.2f} MB  {part}")
    total = sum(sizes.values()) / 1e6
    print(f"{total:6.2f} MB  in all, of {MOST_MB} MB at most. Look at it: python -m http.server -d {output}")
    if total > MOST_MB:
        sys.exit(f"That is more than {MOST_MB} MB. Leave a model out.")


if __name__ == "__main__":
    main()
