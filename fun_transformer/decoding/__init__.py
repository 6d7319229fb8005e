"""What `generate` does not do, for every encoder-decoder model: outputs watched, scored and aligned."""

from .alignment import Aligner, Alignment, Heads, choose_heads
from .confidence import Confidence, score_generated, score_texts
from .faults import FAULTS, find_faults
from .guards import FALLBACKS, Generate, Guarded, Output, generator, guarded
from .links import Gold, Links, alignment_error_rate, parse_links
from .words import split_words

__all__ = [
    "FALLBACKS",
    "FAULTS",
    "Aligner",
    "Alignment",
    "Confidence",
    "Generate",
    "Gold",
    "Guarded",
    "Heads",
    "Links",
    "Output",
    "alignment_error_rate",
    "choose_heads",
    "find_faults",
    "generator",
    "guarded",
    "parse_links",
    "score_generated",
    "score_texts",
    "split_words",
]
