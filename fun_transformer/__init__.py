"""Fun-Transformer: the Transformer of "Attention Is All You Need" as a Hugging Face package.

Importing it registers the model with transformers' Auto classes, and brings `pipeline("translation")`,
`"summarization"` and `"text2text-generation"` back.
"""

from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM

from .configuration_fun_transformer import FunTransformerConfig
from .modeling_fun_transformer import (
    FunTransformerForConditionalGeneration,
    FunTransformerModel,
    FunTransformerPreTrainedModel,
)

__version__ = "0.1.0"

AutoConfig.register("fun_transformer", FunTransformerConfig)
AutoModel.register(FunTransformerConfig, FunTransformerModel)
AutoModelForSeq2SeqLM.register(FunTransformerConfig, FunTransformerForConditionalGeneration)

__all__ = [
    "FunTransformerConfig",
    "FunTransformerForConditionalGeneration",
    "FunTransformerModel",
    "FunTransformerPreTrainedModel",
]
