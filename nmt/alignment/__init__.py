"""Word alignment read off attention: projection to words, links, files, choice of layer and head, and error."""

from nmt.alignment.aer import AlignmentScore, Tally, score
from nmt.alignment.extraction import AlignmentConfig, Carried, Choice, Reading, Sentence, candidates, choose, compare
from nmt.alignment.ibm_model1 import lexical_gold
from nmt.alignment.pharaoh import (
    Gold,
    Link,
    parse_gold,
    parse_pharaoh,
    read_gold,
    read_pharaoh,
    write_gold,
    write_pharaoh,
)
from nmt.alignment.projection import linked, links, nearest, words
from nmt.alignment.symmetrization import METHODS, symmetrize
from nmt.alignment.writers import FORMATS, writing

__all__ = [
    "FORMATS",
    "METHODS",
    "AlignmentConfig",
    "AlignmentScore",
    "Carried",
    "Choice",
    "Gold",
    "Link",
    "Reading",
    "Sentence",
    "Tally",
    "candidates",
    "choose",
    "compare",
    "lexical_gold",
    "linked",
    "links",
    "nearest",
    "parse_gold",
    "parse_pharaoh",
    "read_gold",
    "read_pharaoh",
    "score",
    "symmetrize",
    "words",
    "write_gold",
    "write_pharaoh",
    "writing",
]
