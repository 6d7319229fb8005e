"""Fun-Transformer: the Transformer of "Attention Is All You Need" as a Hugging Face package.

Importing it registers the model with transformers' Auto classes, and brings `pipeline("translation")`,
`"summarization"` and `"text2text-generation"` back.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

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
from .pipeline_fun_transformer import (
    SummarizationPipeline,
    Text2TextGenerationPipeline,
    TranslationPipeline,
    register_pipelines,
)
from .tokenization_fun_transformer import FunTransformerTokenizer

__version__ = "0.1.0"

AutoConfig.register("fun_transformer", FunTransformerConfig)
AutoModel.register(FunTransformerConfig, FunTransformerModel)
AutoModelForSeq2SeqLM.register(FunTransformerConfig, FunTransformerForConditionalGeneration)
AutoModelForTextEncoding.register(FunTransformerConfig, FunTransformerEncoderModel)
AutoModelForMaskedLM.register(FunTransformerConfig, FunTransformerForMaskedLM)
AutoModelForCausalLM.register(FunTransformerConfig, FunTransformerForCausalLM)
AutoModelForSequenceClassification.register(FunTransformerConfig, FunTransformerForSequenceClassification)
AutoModelForTokenClassification.register(FunTransformerConfig, FunTransformerForTokenClassification)
AutoTokenizer.register(FunTransformerConfig, fast_tokenizer_class=FunTransformerTokenizer)
register_pipelines()

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
