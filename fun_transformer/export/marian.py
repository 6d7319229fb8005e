"""Export to MarianMT: a folder that transformers loads without this package, and a tokenizer beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..conversion.marian import check_exportable, to_marian
from ..conversion.stock_tokenizer import TARGET_FOLDER, save_stock_tokenizer
from .formats import ONE_SEARCH, Answer, Format

logger = logging.get_logger(__name__)

BATCH_SIZE = 32


class Marian(Format):
    """transformers' MarianMT; PEGASUS or Blenderbot, where norms come before the sublayers."""

    quantizations = ("float16", "bfloat16")

    def check(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, quantization: str | None) -> None:
        """Refuse what no class of transformers computes, with the reason."""
        check_exportable(model)

    def write(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path, quantization: str | None
    ) -> None:
        """Write model and tokenizer."""
        stock = to_marian(model)
        if stock.config.model_type != "marian":
            logger.warning(
                f"Marian has norms after the sublayers, so this model is written as {type(stock).__name__}."
            )
        if quantization:
            stock = stock.to(getattr(torch, quantization))
        stock.save_pretrained(output)
        longest = stock.config.max_position_embeddings
        save_stock_tokenizer(tokenizer, output, min(tokenizer.model_max_length, longest))
        if (output / TARGET_FOLDER).is_dir():
            logger.warning(f"Targets have a tokenizer of their own: {TARGET_FOLDER} in the folder decodes the output.")

    def open(self, output: Path) -> Answer:
        """Answer texts by transformers alone, with numbers of the type that is stored."""
        model: Any = AutoModelForSeq2SeqLM.from_pretrained(output, dtype="auto").eval()
        source: Any = AutoTokenizer.from_pretrained(output)
        has_target = (output / TARGET_FOLDER).is_dir()
        target: Any = AutoTokenizer.from_pretrained(output / TARGET_FOLDER) if has_target else source

        def answer(texts: Sequence[str], num_beams: int, max_new_tokens: int) -> list[str]:
            answers: list[str] = []
            for start in range(0, len(texts), BATCH_SIZE):
                batch = source(list(texts[start : start + BATCH_SIZE]), return_tensors="pt", padding=True)
                ids = model.generate(**batch, num_beams=num_beams, max_new_tokens=max_new_tokens, **ONE_SEARCH)
                answers += target.batch_decode(ids, skip_special_tokens=True)
            return answers

        return answer
