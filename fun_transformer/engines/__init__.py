"""Other programs that compute a model's answers: beside the model, with its interface.

Importing this registers their folders with transformers' Auto classes; the programs themselves are imported when a
model of theirs is loaded.
"""

from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..tokenization_fun_transformer import FunTransformerTokenizer
from .ctranslate2_model import CTranslate2Config, CTranslate2Model

__all__ = ["ENGINES", "CTranslate2Config", "CTranslate2Model", "register", "with_engine"]

ENGINES = {"ctranslate2": CTranslate2Model}


def register() -> None:
    """Let the Auto classes load the folders of engines; a second call changes nothing."""
    for engine in ENGINES.values():
        config_class = engine.config_class
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        AutoTokenizer.register(config_class, fast_tokenizer_class=FunTransformerTokenizer, exist_ok=True)
        AutoModelForSeq2SeqLM.register(config_class, engine, exist_ok=True)


def with_engine(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, engine: str) -> PreTrainedModel:
    """Return a model that answers as this one does, computed by an engine.

    Args:
        model: To convert, or of the engine already.
        tokenizer: The model's tokenizer.
        engine: One of `ENGINES`.

    Raises:
        ValueError: There is no such engine, or it cannot compute the model.
        ImportError: It is not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} is unknown. Choose one of {', '.join(ENGINES)}.")
    model_class = ENGINES[engine]
    return model if isinstance(model, model_class) else model_class.from_model(model, tokenizer)
