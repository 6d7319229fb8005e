"""Make the files that the live page loads: `python docs/live/build.py -o site/live [MODEL ...]`."""

import argparse
import shutil
import sys
from pathlib import Path

import onnx
from transformers import AutoConfig

from fun_transformer import FunTransformerForConditionalGeneration

sys.path.insert(0, str(Path(__file__).parent))
import graph

ROOT = Path(__file__).parents[2]
MODELS = (ROOT / "hub_configs" / "zh-en-small",)
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")


def build(model_folder: Path, output: Path) -> int:
    """Write the graphs, the config and the tokenizer of a model, and return their bytes.

    Args:
        model_folder: A trained model, as `save_pretrained` writes it.
        output: The folder of the page's files; the model gets one in it, of its own name.
    """
    missing = [name for name in (*FILES, "model.safetensors") if not (model_folder / name).is_file()]
    if missing:
        raise ValueError(f"{model_folder} has no {' and no '.join(missing)}. Give the folder of a trained model.")
    if AutoConfig.from_pretrained(model_folder).model_type != "fun_transformer":
        raise ValueError(f"{model_folder} is no fun_transformer. The live page shows no other models yet.")
    model = FunTransformerForConditionalGeneration.from_pretrained(model_folder).float()
    graph.round_weights(model)
    folder = output / model_folder.resolve().name
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in zip(("encoder", "decoder"), graph.export(model), strict=True):
        onnx.save(part, str(folder / f"{name}.onnx"))
    for name in FILES:
        shutil.copy(model_folder / name, folder / name)
    return sum(path.stat().st_size for path in folder.iterdir())


def main() -> None:
    """Build for the models of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path, default=list(MODELS), help="folders of trained models")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "site" / "live", help="default: site/live")
    arguments = parser.parse_args()
    for model in arguments.models:
        try:
            print(f"{model.name}: {build(model, arguments.output) / 1e6:.1f} MB")
        except ValueError as error:
            parser.error(str(error))


if __name__ == "__main__":
    main()
