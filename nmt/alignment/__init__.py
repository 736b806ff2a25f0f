"""Word alignment from attention: projection to words, links, files, selection of layer and head, and error rate."""

from nmt.alignment.aer import AlignmentScore, alignment_error_rate
from nmt.alignment.extraction import (
    AlignmentConfig,
    AlignmentExample,
    AlignmentSource,
    HeadSelection,
    StoredAlignmentSource,
    candidate_sources,
    score_sources,
    select_source,
)
from nmt.alignment.ibm_model1 import ibm1_alignments
from nmt.alignment.pharaoh import GoldAlignment, Link, read_gold, read_pharaoh, write_gold, write_pharaoh
from nmt.alignment.projection import hard_alignment, to_word_matrix
from nmt.alignment.symmetrization import METHODS, symmetrize
from nmt.alignment.writers import FORMATS, alignment_writers

__all__ = [
    "FORMATS",
    "METHODS",
    "AlignmentConfig",
    "AlignmentExample",
    "AlignmentScore",
    "AlignmentSource",
    "GoldAlignment",
    "HeadSelection",
    "Link",
    "StoredAlignmentSource",
    "alignment_error_rate",
    "alignment_writers",
    "candidate_sources",
    "hard_alignment",
    "ibm1_alignments",
    "read_gold",
    "read_pharaoh",
    "score_sources",
    "select_source",
    "symmetrize",
    "to_word_matrix",
    "write_gold",
    "write_pharaoh",
]
