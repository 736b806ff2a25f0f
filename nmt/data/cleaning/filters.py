"""Filters of sentence pairs: what each measures of the N pairs of a block, and a line in `FILTERS`.

A value is nan where the filter has nothing to say of a pair, which it therefore keeps.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import field, make_dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from nmt.config import check_range
from nmt.data.cleaning.lexicon import Floats, Lexicon, PairScores
from nmt.data.cleaning.text_block import MARK, Hashes, Ints, TextBlock, characters, mix
from nmt.data.language_id import Identifier

_rows = files(__package__).joinpath("scripts.txt").read_text(encoding="utf-8").splitlines()
SCRIPTS = {name: scripts.split() for scripts, names in (row.split(":") for row in _rows) for name in names.split()}
"""The scripts of a language, as the names of Unicode's characters begin; of one that is not here LATIN."""


class Learned(NamedTuple):
    """Knowledge of the whole corpus that filters have: the languages of source and target; hashes of the lines of
    either side of the test sets; median and robust deviation of `PairBlock.length_ratio`; the association that pairs
    need, and the evidence of truncation that they may have.
    """

    languages: Sequence[str] = ()
    test_hashes: Sequence[Hashes] = ()
    identifier: Identifier | None = None
    lexicon: Lexicon | None = None
    length_ratio: tuple[float, float] = (0.0, 1.0)
    association: float = 0.0
    tolerance: float = 0.0


class PairBlock:
    """N pairs, N > 0; what several filters need is computed once."""

    def __init__(self, sources: Sequence[str], targets: Sequence[str], *, learned: Learned | None = None) -> None:
        self.sides = self.source, self.target = TextBlock(sources), TextBlock(targets)
        self.learned, self.nothing = learned or Learned(), np.full(len(sources), np.nan)

    @cached_property
    def lexical(self) -> PairScores:
        """The scores of the lexicon."""
        lexicon = self.learned.lexicon
        return lexicon.score(self.sides) if lexicon else PairScores(self.nothing, (self.nothing, self.nothing))

    @property
    def pair_hashes(self) -> Hashes:
        """A hash of each pair, normalized, (N,)."""
        return mix(self.source.normalized_hashes) + self.target.normalized_hashes

    @property
    def length_ratio(self) -> Floats:
        """Logarithm of the characters of the source over those of the target, some added to both, (N,)."""
        return np.asarray(np.log((self.source.sizes + 2) / (self.target.sizes + 2)))

    def both(self, measure: Callable[[TextBlock], Any]) -> Floats:
        """Return numbers of each line of source and target, (2, N) or (2, N, numbers)."""
        return np.stack([measure(side) for side in self.sides]).astype(np.float64)

    def unlike(self, count: Callable[[TextBlock], Ints]) -> Floats:
        """Return by how much the counts of the sides differ, (N,)."""
        return np.asarray(np.abs(np.subtract(*self.both(count))).reshape(len(self.nothing), -1).sum(1))


def _characters(side: TextBlock) -> Ints:
    return side.sizes - 1


def _digits(side: TextBlock) -> Ints:
    return side.symbols[:, :9]


def _identical(pairs: PairBlock) -> Floats:
    same = pairs.source.normalized_hashes == pairs.target.normalized_hashes
    return np.where(same, pairs.source.num_letters, 0).astype(np.float64)


def _script(pairs: PairBlock) -> Floats:
    shares = []
    for side, language in zip(pairs.sides, pairs.learned.languages, strict=True):
        scripts = SCRIPTS.get(re.split("[-_]", language.lower())[0], ["LATIN"])
        own = side.count(np.isin(side.kind, [characters().scripts[name] for name in scripts]))
        shares.append(own / np.where(side.num_letters > 0, side.num_letters, np.nan))
    return np.fmin(*shares)


def _language(pairs: PairBlock) -> Floats:
    if (identifier := pairs.learned.identifier) is None:
        return pairs.nothing
    source, target = map(identifier.per_letter, pairs.sides)
    return np.minimum(source[:, 0] - source[:, 1], target[:, 1] - target[:, 0])


def _length_ratio(pairs: PairBlock) -> Floats:
    lengths = np.maximum(pairs.both(_characters), 1)
    return np.asarray(lengths.max(0) / lengths.min(0))


def _repetition(side: TextBlock) -> Floats:
    lines, groups = np.repeat(np.arange(len(side.lines)), side.num_tokens), mix(side.tokens)
    groups = mix(mix(groups[:-2]) + groups[1:-1]) + groups[2:] + lines[2:].astype(np.uint64)
    inside = lines[2:] == lines[:-2]
    first = np.unique(groups[inside], return_index=True)[1]
    distinct = np.bincount(lines[2:][inside][first], minlength=len(side.lines))
    return np.where(side.num_tokens > 2, 1 - distinct / np.maximum(side.num_tokens - 2, 1), 0)


def truncation(pairs: PairBlock) -> Floats:
    """Return the evidence, in nats, that one side of each pair ends too early."""
    median, deviation = pairs.learned.length_ratio
    z, scores = (pairs.length_ratio - median) / deviation, pairs.lexical
    ends = pairs.both(lambda side: side.kind[side.starts + side.sizes - 2] == MARK)
    free = np.where(z > 0, *scores.tails[::-1])  # where the shorter side ends in words of its own, too, it is not cut
    value = 2 * np.abs(z) + np.where(z > 0, *scores.tails) - free + 4 * (z * (ends[0] - ends[1]) > 0)
    return np.where(np.isnan(scores.association), np.nan, value - pairs.learned.tolerance)


def _test_overlap(pairs: PairBlock) -> Floats:
    sides = zip(pairs.sides, pairs.learned.test_hashes, strict=True)
    return np.asarray(sum(np.isin(side.normalized_hashes, hashes).astype(float) for side, hashes in sides))


class Filter(NamedTuple):
    """A filter.

    text: about its measure. measure: None for one of duplicates, or of the values of trained models. min, max: one of
    them, its threshold, which is `least` to `most`. hashes: by which one of duplicates recognizes a pair, (N,): its
    values depend on the pairs before.
    """

    text: str
    measure: Callable[[PairBlock], Floats] | None = None
    min: float | None = None
    max: float | None = None
    least: float = 0.0
    most: float | None = None
    hashes: Callable[[PairBlock], Hashes] | None = None
    enabled: bool = True

    def excess(self, values: Floats, options: Any) -> Floats:
        """Return by how much values are beyond the threshold: those above 0 are rejected."""
        return np.asarray(values - options.max if self.min is None else options.min - values)


_AS = "but for case, punctuation, digits and spaces"
# fmt: off
FILTERS: dict[str, Filter] = {
    "min_characters": Filter("characters of the shorter side", lambda p: p.both(_characters).min(0), min=1),
    "max_characters": Filter("characters of the longer side", lambda p: p.both(_characters).max(0), max=2000),
    "min_words": Filter("words of the shorter side", lambda p: p.both(lambda s: s.num_words).min(0), min=1),
    "max_words": Filter("words of the longer side", lambda p: p.both(lambda s: s.num_words).max(0), max=250),
    "identical": Filter(f"letters of a target that is the source {_AS}", _identical, max=25),
    "script": Filter("share of letters of the script of their language, on the worse side", _script, min=0.4, most=1),
    "language": Filter("nats by which a letter is likelier in the right language", _language, min=-0.8, least=-99),
    "length_ratio": Filter("characters of the longer side over the shorter", _length_ratio, max=9, least=1),
    "repetition": Filter("share of groups of three words that repeat one, on the worse side",
                         lambda p: p.both(_repetition).max(0), max=0.5, most=1),
    "urls": Filter("web addresses that one side has more",
                   lambda p: p.unlike(lambda s: s.matches("://", r"\w://\w")), max=0),
    "emails": Filter("e-mail addresses that one side has more",
                     lambda p: p.unlike(lambda s: s.matches("@", r"\w@[\w-]+\.\w")), max=0),
    "brackets": Filter("brackets that one side has more", lambda p: p.unlike(lambda s: s.symbols[:, 9:]), max=8),
    "numbers": Filter("digits but 0 that one side has more, over all of them and 4",
                      lambda p: p.unlike(_digits) / (p.both(_digits).sum((0, 2)) + 4), max=0.5, most=1),
    "lexical": Filter("likelihood of words given the other side, less what is needed",
                      lambda p: p.lexical.association - p.learned.association, min=0, least=-9),
    "truncation": Filter("evidence, in nats, that one side ends too early", truncation, max=8.5),
    "test_overlap": Filter(f"sides that are a line of a test set {_AS}", _test_overlap, max=0, most=2),
    "duplicate_pairs": Filter("1 for a pair that was kept before", max=0, most=1,
                              hashes=lambda p: mix(p.source.hashes) + p.target.hashes),
    "duplicate_normalized": Filter(f"1 for a pair that was kept before {_AS}", max=0, most=1,
                                   hashes=lambda p: p.pair_hashes),
    "duplicate_source": Filter("1 for a source that was kept before", max=0, most=1, enabled=False,
                               hashes=lambda p: p.source.hashes),
    "duplicate_target": Filter("1 for a target that was kept before", max=0, most=1, enabled=False,
                               hashes=lambda p: p.target.hashes),
    "model": Filter("probability of a target token by checkpoint, geometric mean", min=0.001, most=1),
    "coverage": Filter("share of words with a link in the alignment by checkpoint, on the worse side", min=0.1, most=1,
                       enabled=False),
    "dual": Filter("probability of a token by checkpoint and reverse, less their disagreement", min=0.001, most=1),
}
# fmt: on
"""The filters; of several that reject a pair the first one here is given as the reason."""
MODELS = [name for name, kind in FILTERS.items() if not (kind.measure or kind.hashes)]
"""Filters whose values are those of trained models."""


def _options(item: tuple[str, Filter]) -> tuple[str, Any]:
    """Return the name of a filter and a dataclass of its options."""
    (name, kind), text = item, "enabled: use the filter at all.\ndry: count and show what it would reject, and keep it."
    bound, word = ("max", "higher") if kind.min is None else ("min", "lower")
    text = f"{kind.text}.\n\n{text}\n{bound}: {kind.text}; {word} values are rejected."
    limits: Any = {"minimum": kind.least, "below" if kind.most is None else "maximum": kind.most or np.inf}
    namespace = {"__doc__": text, "validate": lambda self: check_range(f"filters.{name}", self, [bound], **limits)}
    default = float(getattr(kind, bound))
    members: list[Any] = [("enabled", bool, kind.enabled), ("dry", bool, False), (bound, float, default)]
    return name, make_dataclass(name, members, namespace=namespace)


_fields: list[Any] = [(name, kind, field(default_factory=kind)) for name, kind in map(_options, FILTERS.items())]
FilterOptions: Any = make_dataclass("FilterOptions", _fields, namespace={"__doc__": "Filters and their thresholds."})
