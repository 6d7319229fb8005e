"""CTranslate2: fast on processors and GPUs, behind Argos, LibreTranslate and others."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..engines import CTranslate2Model
from ..engines.ctranslate2_folder import QUANTIZATIONS, check_model, write_folder
from ..engines.ctranslate2_search import check_generation
from .formats import Answer, Format


class CTranslate2Format(Format):
    """A folder for CTranslate2, with the tokenizer and our config beside its files."""

    quantizations = QUANTIZATIONS
    libraries = ("ctranslate2",)
    extra = "ct2"

    def check(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, quantization: str | None) -> None:
        """Refuse layers, positions and settings of `generate` that CTranslate2 does not know.

        Raises:
            ValueError: The model has some.
        """
        check_model(model)
        check_generation(model.generation_config, is_for_beams=True)

    def write(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path, quantization: str | None
    ) -> None:
        """Write the folder."""
        write_folder(model, tokenizer, output, quantization)

    def open(self, output: Path) -> Answer:
        """Return what answers texts with CTranslate2."""
        from .write import answer_with

        return answer_with(CTranslate2Model.from_pretrained(output), AutoTokenizer.from_pretrained(output))
