"""Scores of finished outputs and of models: compared, broken down, and shown row by row."""

from .breakdown import Breakdown, by_column, by_length, by_word_frequency
from .data import Columns, EvaluationData, load_data, read_outputs
from .report import write_report
from .scores import Scoring
from .significance import compare

__all__ = [
    "Breakdown",
    "Columns",
    "EvaluationData",
    "Scoring",
    "by_column",
    "by_length",
    "by_word_frequency",
    "compare",
    "load_data",
    "read_outputs",
    "write_report",
]
