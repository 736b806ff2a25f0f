"""Glossaries: which words of a text are terms, and what they become in its translation."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self

from nmt.data.text_files import check_file, read_lines
from nmt.inference.translator import Translator
from nmt.runtime.text import UNSPACED
from nmt.search.constraints import check_phrases

MODES = ("hard", "soft")


class Term(NamedTuple):
    """A term of a text, what it shall become, and whether it did: whether the translation has it as whole words."""

    source: str
    target: str
    used: bool


class Glossary:
    """Terms and their translations, which translations must contain, or (`is_soft`) sources are annotated with.

    Args:
        entries: target terms by source terms.
        places: where each entry comes from, for messages.

    Raises:
        TypeError, ValueError: a term is no text, or an empty one.
    """

    def __init__(self, entries: Mapping[str, str], places: Mapping[str, str] | None = None) -> None:
        self.entries, self.places = dict(entries), places or {source: f"glossary: {source!r}" for source in entries}
        self._folded: dict[str, str] = {}
        self.is_soft = False
        for source, target in entries.items():
            for side, text in (("source", source), ("target", target)):
                if not isinstance(text, str):
                    raise TypeError(f"glossary: {text!r} is no text; a dictionary has target terms by source terms")
                if not text.strip() or "\n" in text:
                    raise ValueError(f"{self.places[source]}: the {side} term is empty or has a line break")
            self._folded.setdefault(source.lower(), target)
        longest_first = map(_whole, sorted(entries, key=len, reverse=True))
        self._pattern = re.compile("|".join(longest_first) or r"(?!)", re.IGNORECASE)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file with a source term, a tab and its target term in each line; empty lines and lines that begin with
        # are left out. It may be compressed.

        Raises:
            OSError, ValueError: there is no such file; a line without a tab or with an empty term, or two that
                contradict each other.
        """
        file = check_file(Path(path), "")
        entries, places = dict[str, str](), dict[str, str]()
        for number, line in enumerate(chain.from_iterable(read_lines(file, Counter())), 1):
            if not line.strip() or line.startswith("#"):
                continue
            place, terms = f"{file}, line {number}", [" ".join(term.split()) for term in line.split("\t")]
            if len(terms) != 2:
                raise ValueError(f"{place}: must be a source term, one tab and its target term, not {line[:60]!r}")
            source, target = terms
            if entries.setdefault(source, target) != target:
                raise ValueError(f"{place}: {source!r} is {target!r} here and {entries[source]!r} in {places[source]}")
            places.setdefault(source, place)
        return cls(entries, places)

    def find(self, text: str) -> list[tuple[int, int, str]]:
        """Return where the terms of a text are, each time they occur, with their targets.

        A term is whole words, or any characters of a script without spaces. Of those that begin at one place the
        longest is taken, as it is written or else in another case, and none begins inside another.
        """
        found = [(match.span(), match[0]) for match in self._pattern.finditer(text)]
        targets = ((*span, self.entries.get(term) or self._folded.get(term.lower())) for span, term in found)
        return [(start, end, target) for start, end, target in targets if target is not None]

    def used(self, segments: Sequence[str], translation: str) -> list[Term]:
        """Return the terms of the segments of a text, and which of them the translation has, each as often as asked."""
        wanted = [(text[start:end], target) for text in segments for start, end, target in self.find(text)]
        left = {target: len(re.findall(_whole(target), translation)) for _, target in wanted}
        ranks = [[target for _, target in wanted[:i]].count(target) for i, (_, target) in enumerate(wanted)]
        return [Term(*term, rank < left[term[1]]) for term, rank in zip(wanted, ranks, strict=True)]


def _whole(text: str) -> str:
    """Return a regular expression of a text that is not part of a longer word; scripts without spaces have none."""
    is_word = [re.match(rf"[^\W{UNSPACED}]", character) is not None for character in (text[0], text[-1])]
    return r"(?<!\w)" * is_word[0] + re.escape(text) + r"(?!\w)" * is_word[1]


def load_glossary(source: Any, translator: Translator, mode: str = "hard") -> Glossary | None:
    """Return the glossary of a file, or of a dictionary, for a translator and one of `MODES`; None for none.

    Raises:
        TypeError, ValueError, OSError: as of `Glossary` and `Glossary.read`, and if it is neither, the vocabulary
            cannot write a target, the search cannot hold phrases (hard), the model was trained without terms (soft), or
            there is a mode and no glossary.
    """
    if mode not in MODES:
        raise ValueError(f"glossary_mode={mode}: must be one of {', '.join(MODES)}")
    if source is None:
        if mode != MODES[0]:
            raise ValueError(f"glossary_mode={mode}: there is no glossary; give one, as in glossary=terms.tsv")
        return None
    if not isinstance(source, str | os.PathLike | Mapping):
        raise TypeError(
            f"glossary: must be a file, or a dictionary of target terms by source terms, not {source!r:.60}"
        )
    glossary = Glossary(source) if isinstance(source, Mapping) else Glossary.read(source)
    glossary.is_soft = mode == "soft"
    if glossary.is_soft:
        translator.encode_sources([""], [()])  # raises for a model without terms
    else:
        check_phrases(translator.config)
    targets = list(glossary.entries.values())
    for place, target, written in zip(glossary.places.values(), targets, translator.written(targets), strict=True):
        if written != target:
            raise ValueError(f"{place}: the vocabulary cannot write {target!r}, only {written!r}; change the entry")
    return glossary
