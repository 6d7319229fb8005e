"""Fun-Transformer: the Transformer of "Attention Is All You Need" as a Hugging Face package.

Beside it is the RNN encoder-decoder that came before it. Importing the package registers the models and the tokenizer
with transformers' Auto classes, and brings `pipeline("translation")`, `"summarization"`, `"text2text-generation"` and
`"image-to-text"` back. Code that is loaded from the Hub needs no registration: `auto_map` names it.
"""

from . import openmp as openmp  # isort: skip  says how threads wait, before torch is loaded

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForSpeechSeq2Seq,
    AutoModelForTextEncoding,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from .configuration_fun_transformer import FunTransformerConfig
from .configuration_seq2seq_rnn import Seq2SeqRNNConfig
from .engines import register as register_engines
from .losses import linear_cross_entropy
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
from .pipeline_fun_transformer import (
    TASKS,
    SummarizationPipeline,
    Text2TextGenerationPipeline,
    TranslationPipeline,
    register_pipelines,
)
from .pipeline_image_to_text import IMAGE_TASKS, ImageToTextPipeline
from .tokenization_fun_transformer import FunTransformerTokenizer

__version__ = "0.2.0"

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
    "ImageToTextPipeline",
    "Seq2SeqRNNConfig",
    "Seq2SeqRNNForConditionalGeneration",
    "SummarizationPipeline",
    "Text2TextGenerationPipeline",
    "TranslationPipeline",
    "linear_cross_entropy",
]

HEADS = {
    AutoModel: FunTransformerModel,
    AutoModelForCausalLM: FunTransformerForCausalLM,
    AutoModelForImageTextToText: FunTransformerForConditionalGeneration,
    AutoModelForMaskedLM: FunTransformerForMaskedLM,
    AutoModelForSeq2SeqLM: FunTransformerForConditionalGeneration,
    AutoModelForSequenceClassification: FunTransformerForSequenceClassification,
    AutoModelForSpeechSeq2Seq: FunTransformerForConditionalGeneration,
    AutoModelForTextEncoding: FunTransformerEncoderModel,
    AutoModelForTokenClassification: FunTransformerForTokenClassification,
}


def register() -> None:
    """Register all classes with transformers; a second call changes nothing."""
    for config_class in (FunTransformerConfig, Seq2SeqRNNConfig):
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        AutoTokenizer.register(config_class, fast_tokenizer_class=FunTransformerTokenizer, exist_ok=True)
    for auto_class, head in HEADS.items():
        auto_class.register(FunTransformerConfig, head, exist_ok=True)
    AutoModelForSeq2SeqLM.register(Seq2SeqRNNConfig, Seq2SeqRNNForConditionalGeneration, exist_ok=True)
    register_engines()
    register_pipelines(TASKS | IMAGE_TASKS)


register()
