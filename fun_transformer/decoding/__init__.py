"""What `generate` does not do, for every encoder-decoder model.

Outputs are watched (guards), scored (confidence) and aligned; made to contain terms and to begin with a prefix;
searched with diversity and chosen by minimum risk. Documents are taken apart and put together again.
"""

from .alignment import Aligner, Alignment, Heads, choose_heads
from .confidence import Confidence, score_generated, score_texts
from .constrained import ConstrainedBeamSearch, Constraint
from .diverse import DiverseBeamSearch
from .ensemble import Ensemble, check_tokenizers
from .faults import FAULTS, find_faults
from .glossary import Glossary, Term, constrain
from .guards import FALLBACKS, Generate, Guarded, Output, generator, guarded
from .links import Gold, Links, alignment_error_rate, parse_links
from .mbr import SAMPLING, choose
from .placeholders import Protected, protect
from .prefix import prefixed
from .spelling import continuing_tokens, spell
from .words import split_words

__all__ = [
    "FALLBACKS",
    "FAULTS",
    "SAMPLING",
    "Aligner",
    "Alignment",
    "Confidence",
    "ConstrainedBeamSearch",
    "Constraint",
    "DiverseBeamSearch",
    "Ensemble",
    "Generate",
    "Glossary",
    "Gold",
    "Guarded",
    "Heads",
    "Links",
    "Output",
    "Protected",
    "Term",
    "alignment_error_rate",
    "check_tokenizers",
    "choose",
    "choose_heads",
    "constrain",
    "continuing_tokens",
    "find_faults",
    "generator",
    "guarded",
    "parse_links",
    "prefixed",
    "protect",
    "score_generated",
    "score_texts",
    "spell",
    "split_words",
]
