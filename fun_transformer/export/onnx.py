"""`--to onnx`: a folder that transformers.js loads in a browser, and ONNX Runtime anywhere."""

import json
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..configuration_fun_transformer import FRONT_END_FIELDS
from ..engines.ctranslate2_folder import is_of_another_family
from ..frontends import is_text
from ..modeling_fun_transformer import FunTransformerForConditionalGeneration
from ..tokenization_fun_transformer import FunTransformerTokenizer
from .formats import Answer, Format

# What transformers.js calls each kind of weights, and the ending of its files.
KINDS = {None: ("fp32", ""), "float16": ("fp16", "_fp16"), "int8": ("q8", "_quantized")}


class Onnx(Format):
    """ONNX graphs, and the config and tokenizer that transformers.js reads.

    transformers.js knows no `fun_transformer`, but what it does for a `marian` depends on the graphs alone: names of
    inputs and outputs, and the sizes in config.json. So that is what config.json says. A model of speech or pictures
    is for ONNX Runtime alone.
    """

    quantizations = ("int8", "float16")
    libraries = ("onnx", "onnxscript", "onnxruntime")
    extra = "onnx"

    def check(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, quantization: str | None) -> None:
        """Find out whether transformers.js can run a model.

        Raises:
            ValueError: It cannot.
        """
        if not isinstance(model, FunTransformerForConditionalGeneration):
            other = " For models of other families there is optimum." if is_of_another_family(model) else ""
            raise ValueError(
                "--to onnx is for a FunTransformerForConditionalGeneration, and this is a "
                f"{type(model).__name__}.{other}"
            )
        if not tokenizer.is_fast:
            raise ValueError("--to onnx needs a fast tokenizer: transformers.js reads only tokenizer.json.")
        if model.config.copy_attention:
            raise ValueError(
                "copy_attention=True copies from the ids of the source, which transformers.js does not give to a "
                "decoder. Choose torch."
            )
        kept = model.config.get_text_config(decoder=True).layer_types  # by each layer while it generates
        for layer_type, cache_type in zip(model.config.stack_layer_types("decoder"), kept):
            if cache_type not in ("full_attention", "sliding_attention"):
                raise ValueError(
                    f"decoder_layer_types names {layer_type}, which keeps a state while it generates. transformers.js "
                    "passes on only keys and values of attention. In the encoder such layers can be exported."
                )

    def write(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path, quantization: str | None
    ) -> None:
        """Write a model; arguments are those of `Format.write`."""
        import onnx

        from .onnx_graphs import export_decoder, export_encoder, merge
        from .onnx_weights import halve_weights, quantize_weights

        model.set_attn_implementation("eager")
        translator = cast(FunTransformerForConditionalGeneration, model)
        graphs = [export_encoder(translator), *export_decoder(translator)]
        if quantization:
            graphs = [(halve_weights if quantization == "float16" else quantize_weights)(graph) for graph in graphs]
        suffix = KINDS[quantization][1]
        (output / "onnx").mkdir()
        onnx.save(graphs[0], str(output / "onnx" / f"encoder_model{suffix}.onnx"))
        onnx.save(merge(*graphs[1:]), str(output / "onnx" / f"decoder_model_merged{suffix}.onnx"))
        write_json(output / "config.json", describe(model, quantization))
        model.generation_config.save_pretrained(output)
        save_tokenizer(tokenizer, output)

    def open(self, output: Path) -> Answer:
        """Return what was written as a function that answers texts, run by ONNX Runtime."""
        from .onnx_model import OnnxModel
        from .write import answer_with

        return answer_with(OnnxModel.open(output), FunTransformerTokenizer.from_pretrained(output))


def describe(model: PreTrainedModel, quantization: str | None) -> dict[str, Any]:
    """Return what config.json has to say."""
    config = model.config
    names = ["decoder_attention_heads", "decoder_ffn_dim", "decoder_layers", "decoder_vocab_size", "d_model"]
    names += ["encoder_ffn_dim", "encoder_layers", "vocab_size", "activation_function", "scale_embedding"]
    names += ["pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "is_encoder_decoder"]
    names += [] if is_text(config) else ["source_modality", *FRONT_END_FIELDS]
    return {
        "model_type": "marian",
        "architectures": ["MarianMTModel"],
        **{name: getattr(config, name) for name in names},
        # transformers.js 3 sizes the source's keys by this; they have the decoder's heads.
        "encoder_attention_heads": config.decoder_attention_heads,
        "transformers.js_config": {"dtype": KINDS[quantization][0]},
    }


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, output: Path) -> None:
    """Write a tokenizer, and where source and target have separate vocabularies a second one in a folder."""
    tokenizer.save_pretrained(output)
    settings = json.loads((output / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # as transformers.js knows no class of ours
    write_json(output / "tokenizer_config.json", settings)
    backend = json.loads((output / "tokenizer.json").read_text(encoding="utf-8"))
    write_json(output / "tokenizer.json", backend, indent=None)
    if target := settings.pop("target_tokenizer", None):
        folder = output / "target_tokenizer"
        folder.mkdir()
        write_json(folder / "tokenizer_config.json", settings)
        write_json(folder / "tokenizer.json", json.loads(target), indent=None)


def write_json(path: Path, content: dict[str, Any], indent: int | None = 2) -> None:
    """Write a file as those of the Hub are written, or in one line."""
    separators = None if indent else (",", ":")
    path.write_text(json.dumps(content, indent=indent, separators=separators, ensure_ascii=False) + "\n", "utf-8")
