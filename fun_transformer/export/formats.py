"""The formats that a trained model can be exported to: what each can say, and who runs it.

A format is a class in a file of its own, loaded when it is asked for: its library may be missing.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .parity import Agreement

# Answers texts, or features of models that read something else, with this many beams and at most this many new tokens:
# (sources, num_beams, max_new_tokens).
Answer = Callable[[Sequence, int, int], list[str]]
# Of the searches that are compared, whatever the generation config says.
ONE_SEARCH = {"do_sample": False, "num_return_sequences": 1}


class Format:
    """A format of another program; the text of the class says which.

    Attributes:
        quantizations: What weights can be turned into on the way.
        suffix: Of the file that is written; "" where it is a folder.
        libraries: Modules that must be installed.
        extra: The extra of this package that installs them.
    """

    quantizations: tuple[str, ...] = ()
    suffix = ""
    libraries: tuple[str, ...] = ()
    extra = ""

    def check_name(self, output: Path) -> None:
        """Find out whether an output may have its name, before a model is loaded.

        Raises:
            ValueError: It may not.
        """

    def check(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, quantization: str | None) -> None:
        """Find out whether the format can say all of a model, before anything is written.

        Raises:
            ValueError: It cannot; with the reason, and what can be done instead.
        """

    def write(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path, quantization: str | None
    ) -> None:
        """Write a model.

        Args:
            model: In float32 on the CPU, in eval mode. A copy: it may be changed.
            tokenizer: Its tokenizer.
            output: An empty folder, or the file to write where the format has a suffix.
            quantization: One of `quantizations`.
        """
        raise NotImplementedError

    def open(self, output: Path) -> Answer:
        """Return what was written as a function that answers texts, run by the program that the format is for."""
        raise NotImplementedError

    def describe(
        self, output: Path, agreements: Sequence[Agreement], scores: Mapping[str, tuple[float, float]]
    ) -> None:
        """Add to what was written how it compares with the model, where the format has a place for that.

        Args:
            output: What was written.
            agreements: With the model, for each search.
            scores: Of each metric, before and after; empty without references.
        """


FORMATS: dict[str, tuple[str, str]] = {  # name -> file of this folder, class
    "marian": ("marian", "Marian"),
    "onnx": ("onnx", "Onnx"),
    "torch": ("torch_int8", "TorchInt8"),
    "ct2": ("ctranslate2", "CTranslate2Format"),
    "argos": ("argos", "Argos"),
}


def find_format(name: str) -> Format:
    """Return a format by name.

    Raises:
        ValueError: There is none of that name.
        ImportError: Its library is not installed.
    """
    if name not in FORMATS:
        raise ValueError(f"There is no format {name}. Choose one of {', '.join(FORMATS)}.")
    module, class_name = FORMATS[name]
    format: Format = getattr(import_module(f".{module}", __package__), class_name)()
    if missing := [library for library in format.libraries if find_spec(library) is None]:
        raise ImportError(
            f"--to {name} needs {' and '.join(missing)}: pip install 'fun-transformer[{format.extra}]'",
            name=missing[0],
        )
    return format
