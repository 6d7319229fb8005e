"""Fun-Transformer: the Transformer of "Attention Is All You Need" as a Hugging Face package.

Beside it stands the RNN encoder-decoder that came before it. Importing the package registers the models with
transformers' Auto classes, and brings `pipeline("translation")`, `"summarization"` and `"text2text-generation"` back.
It takes no time: classes are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ._registration import watch

if TYPE_CHECKING:
    from .configuration_fun_transformer import FunTransformerConfig
    from .configuration_seq2seq_rnn import Seq2SeqRNNConfig
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
    from .modeling_seq2seq_rnn import Seq2SeqRNNForConditionalGeneration
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
    "Seq2SeqRNNConfig",
    "Seq2SeqRNNForConditionalGeneration",
    "SummarizationPipeline",
    "Text2TextGenerationPipeline",
    "TranslationPipeline",
]

# How a public name ends -> the kind of file that holds it; all others are models.
KINDS = {"Config": "configuration", "Tokenizer": "tokenization", "Pipeline": "pipeline"}
RNN_FILES = ("configuration_seq2seq_rnn", "modeling_seq2seq_rnn")


def __getattr__(name: str):
    """Imports a public name, or the file that holds some, when it is first asked for (PEP 562)."""
    if name in __all__:
        kind = next((kind for ending, kind in KINDS.items() if name.endswith(ending)), "modeling")
        if kind == "pipeline":
            import_module("transformers.pipelines")  # which imports ours: two threads must not begin at different ends
        family = "seq2seq_rnn" if name.startswith("Seq2SeqRNN") else "fun_transformer"
        value = getattr(import_module(f".{kind}_{family}", __name__), name)
        globals()[name] = value
        return value
    if name.removesuffix("_fun_transformer") in {*KINDS.values(), "modeling"} or name in RNN_FILES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


watch()
