"""Our tokenizer as folders that transformers loads without our code."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, TokenizersBackend

from ..tokenization_fun_transformer import FunTransformerTokenizer

TARGET_FOLDER = "target_tokenizer"  # of targets, where they are not encoded and decoded as sources are
LEFT_OUT = {"auto_map", "backend", "vocab_file", "tokenizer_file", "name_or_path", "added_tokens_decoder"}
STOCK_CLASS = "PreTrainedTokenizerFast"  # a name that transformers 4 and 5 know


def save_stock_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, longest: int) -> None:
    """Write a tokenizer that needs no code of ours; one of another family is written as it is.

    A stock tokenizer has one vocabulary and one way to cut texts. Where ours has two, the folder's own is that of
    sources, and `target_tokenizer` in it encodes targets and decodes what the model generates.

    Args:
        tokenizer: Of a model.
        folder: Where to.
        longest: Tokens of a text that the model has positions for.
    """
    if not isinstance(tokenizer, FunTransformerTokenizer):
        tokenizer.save_pretrained(folder)
        update_settings(folder, model_max_length=longest)
        return
    source, target = tokenizer.backend_tokenizer, tokenizer.target_backend
    save_backend(source, tokenizer, folder, longest)
    if target is not source:
        save_backend(target, tokenizer, folder / TARGET_FOLDER, longest)


def save_backend(backend: Tokenizer, tokenizer: FunTransformerTokenizer, folder: Path, longest: int) -> None:
    """Write one side; what our own tokenizer knows beyond it stays in the settings, for the way back."""
    backend = Tokenizer.from_str(backend.to_str())  # what the last call asked for is no property of the tokenizer
    backend.no_truncation()
    backend.no_padding()
    settings = {name: value for name, value in tokenizer.init_kwargs.items() if name not in LEFT_OUT}
    settings |= {"model_input_names": tokenizer.model_input_names, "clean_up_tokenization_spaces": False}
    TokenizersBackend(tokenizer_object=backend, **settings).save_pretrained(folder)
    update_settings(folder, tokenizer_class=STOCK_CLASS, model_max_length=longest)


def update_settings(folder: Path, **settings: Any) -> None:
    """Change settings of a tokenizer that was written."""
    path = folder / "tokenizer_config.json"
    written = json.loads(path.read_text(encoding="utf-8")) | settings
    path.write_text(json.dumps(written, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def is_ours(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer of a folder was one of ours, which `FunTransformerTokenizer` reads from the same files."""
    return "source_type" in tokenizer.init_kwargs
