"""A model of this project with weights in 8 bits, for `from_pretrained`: a quarter of the size, run by torch."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..engines.ctranslate2_folder import is_of_another_family
from ..int8 import quantize_int8
from ..modeling_fun_transformer import FunTransformerForConditionalGeneration
from .formats import Answer, Format
from .parity import Agreement
from .write import answer_with

CARD = "README.md"
LICENCES = ("LICENSE*", "NOTICE*")


class TorchInt8(Format):
    """A folder that `from_pretrained`, the pipelines and this package's commands load like any other."""

    quantizations = ("int8",)

    def check(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, quantization: str | None) -> None:
        """Refuse other models, and to write a plain copy."""
        if not isinstance(model, FunTransformerForConditionalGeneration):
            own = "transformers loads other families in 8 bits with quantization_config=TorchAoConfig(...)."
            raise ValueError(
                "--to torch is for a FunTransformerForConditionalGeneration, and this is a "
                f"{type(model).__name__}.{f' {own}' if is_of_another_family(model) else ''}"
            )
        if quantization is None:
            raise ValueError("--to torch needs --quantization int8: without it, the model is such a folder already.")

    def write(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path, quantization: str | None
    ) -> None:
        """Write config, weights and tokenizer; and the model's own card and licence, where there are some."""
        source = Path(str(model.name_or_path))
        card = source / CARD
        quantize_int8(model).save_pretrained(output)
        tokenizer.save_pretrained(output)
        text = card.read_text(encoding="utf-8").rstrip() if card.is_file() else "# A translation model"
        (output / CARD).write_text(text + "\n", encoding="utf-8")
        for file in [path for pattern in LICENCES for path in source.glob(pattern) if card.is_file()]:
            shutil.copy(file, output)

    def open(self, output: Path) -> Answer:
        """Load it as everyone does."""
        model = AutoModelForSeq2SeqLM.from_pretrained(output)
        return answer_with(model, AutoTokenizer.from_pretrained(output))

    def describe(
        self, output: Path, agreements: Sequence[Agreement], scores: Mapping[str, tuple[float, float]]
    ) -> None:
        """Add to the card what the weights are, and what that costs."""
        lines = ["", "## Weights in 8 bits", "", SAYS, ""]
        if scores:
            lines += ["| | float32 | int8 |", "| --- | --- | --- |"]
            lines += [f"| {name} | {one:.2f} | {other:.2f} |" for name, (one, other) in scores.items()]
            lines += [""]
        lines += [f"- {found}" for found in agreements]
        with (output / CARD).open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


SAYS = (
    "Linear layers, embeddings and the output layer are in 8 bits, each row with a scale; norms and biases are in "
    "float32.\nAnswers compared with those of the model in float32:"
)
