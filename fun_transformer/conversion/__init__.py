"""Models of other tools as models of ours, with equal logits; what ours cannot say is refused, with the reason."""

from .readers import READERS, find_reader
from .source import Converted, Options, Reader
from .write import Agreement, convert

__all__ = ["READERS", "Agreement", "Converted", "Options", "Reader", "convert", "find_reader"]
