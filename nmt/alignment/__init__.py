"""Word alignment read off attention: projection to words, links, files, choice of layer and head, and error."""

from nmt.alignment.error import AlignmentScore, Tally, score
from nmt.alignment.gold import (
    Gold,
    Link,
    parse_gold,
    parse_pharaoh,
    read_gold,
    read_pharaoh,
    write_gold,
    write_pharaoh,
)
from nmt.alignment.lexical import lexical_gold
from nmt.alignment.projection import linked, links, nearest, words
from nmt.alignment.reading import AlignmentConfig, Carried, Choice, Reading, Sentence, candidates, choose, compare
from nmt.alignment.record import FORMATS, writing
from nmt.alignment.symmetry import METHODS, symmetrize

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
