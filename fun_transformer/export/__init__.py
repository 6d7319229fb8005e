"""A trained model in the formats of other programs, compared with the model itself at the end."""

from .formats import FORMATS, Answer, Format, find_format
from .parity import Agreement, random_texts
from .write import Exported, NotKept, export_model

__all__ = [
    "FORMATS",
    "Agreement",
    "Answer",
    "Exported",
    "Format",
    "NotKept",
    "export_model",
    "find_format",
    "random_texts",
]
