"""Fun-Transformer: the Transformer of "Attention Is All You Need" as a Hugging Face package.

Importing it registers the model with transformers' Auto classes, and brings `pipeline("translation")`,
`"summarization"` and `"text2text-generation"` back. It takes no time: classes are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ._registration import watch

if TYPE_CHECKING:
    from .configuration_fun_transformer import FunTransformerConfig
    from .modeling_fun_transformer import (
        FunTransformerEncoderModel,
        FunTransformerForCausalLM,
        FunTransformerForConditionalGeneration,
        FunTransformerForMaskedLM,
        FunTransformerForSequenceClassification,
        FunTransformerForTokenClassification,
        FunTransformerModel,
        FunTransformerPreTrainedModel,
    )
    from .pipeline_fun_transformer import SummarizationPipeline, Text2TextGenerationPipeline, TranslationPipeline
    from .tokenization_fun_transformer import FunTransformerTokenizer

__version__ = "0.1.0"

__all__ = [
    "FunTransformerConfig",
    "FunTransformerEncoderModel",
    "FunTransformerForCausalLM",
    "FunTransformerForConditionalGeneration",
    "FunTransformerForMaskedLM",
    "FunTransformerForSequenceClassification",
    "FunTransformerForTokenClassification",
    "FunTransformerModel",
    "FunTransformerPreTrainedModel",
    "FunTransformerTokenizer",
    "SummarizationPipeline",
    "Text2TextGenerationPipeline",
    "TranslationPipeline",
]

# How a public name ends -> the kind of file that holds it; all others are models.
KINDS = {"Config": "configuration", "Tokenizer": "tokenization", "Pipeline": "pipeline"}


def __getattr__(name: str):
    """Imports a public name, or the file that holds some, when it is first asked for (PEP 562)."""
    if name in __all__:
        kind = next((kind for ending, kind in KINDS.items() if name.endswith(ending)), "modeling")
        if kind == "pipeline":
            import_module("transformers.pipelines")  # which imports ours: two threads must not begin at different ends
        value = getattr(import_module(f".{kind}_fun_transformer", __name__), name)
        globals()[name] = value
        return value
    if name.endswith("_fun_transformer") and name.removesuffix("_fun_transformer") in {*KINDS.values(), "modeling"}:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


watch()
