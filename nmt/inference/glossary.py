"""Glossaries: which words of a text are terms, and what they become in its translation."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from nmt.data.text_files import check_file, read_lines
from nmt.inference.translator import Translator
from nmt.runtime.text import UNSPACED, is_unspaced
from nmt.search.phrases import check_phrases

_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]")


class Term(NamedTuple):
    """A term of a text, what it shall become, and whether it did: whether the translation has it as whole words."""

    source: str
    target: str
    used: bool


class Glossary:
    """Terms and their translations.

    Args:
        entries: target terms by source terms.
        places: where each entry comes from, for messages.

    Raises:
        ValueError: a term is empty.
    """

    def __init__(self, entries: Mapping[str, str], places: Mapping[str, str] | None = None) -> None:
        self.entries, self.places = dict(entries), places or {source: f"glossary: {source!r}" for source in entries}
        self._folded: dict[str, str] = {}
        self._lengths: dict[str, set[int]] = {}  # of the terms that begin with a word, in lower case
        for source, target in entries.items():
            for side, text in (("source", source), ("target", target)):
                if not text.strip() or "\n" in text:
                    raise ValueError(f"{self.places[source]}: the {side} term is empty or has a line break")
            self._folded.setdefault(source.lower(), target)
            first = _WORD.match(source)
            self._lengths.setdefault(first[0].lower() if first else "", set()).add(len(source))

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file with a source term, a tab and its target term in each line; empty lines and lines that begin with
        # are left out. It may be compressed.

        Raises:
            OSError, ValueError: there is no such file; a line without a tab or with an empty term, or two that
                contradict each other.
        """
        file = check_file(Path(path), "")
        entries, places, number = dict[str, str](), dict[str, str](), 0
        for line in (line for block in read_lines(file, Counter()) for line in block):
            number += 1
            if not line.strip() or line.startswith("#"):
                continue
            place = f"{file}, line {number}"
            terms = [" ".join(term.split()) for term in line.split("\t")]
            if len(terms) != 2:
                raise ValueError(f"{place}: must be a source term, one tab and its target term, not {line[:60]!r}")
            source, target = terms
            if entries.setdefault(source, target) != target:
                raise ValueError(f"{place}: {source!r} is {target!r} here and {entries[source]!r} in {places[source]}")
            places.setdefault(source, place)
        if not entries:
            raise ValueError(f"{file}: has no terms; write a source term, a tab and its target term in each line")
        return cls(entries, places)

    def terms(self, text: str) -> list[tuple[str, str]]:
        """Return the terms of a text, each time they occur, with their targets.

        A term is whole words, or any characters of a script without spaces. Of those that begin at one place the
        longest is taken, as it is written or else in another case, and none begins inside another.
        """
        found, end = [], 0
        for word in _WORD.finditer(text):
            start = word.start()
            for length in sorted(self._lengths.get(word[0].lower(), ()), reverse=True) if start >= end else ():
                term, after = text[start : start + length], text[start + length : start + length + 1]
                target = self.entries.get(term) or self._folded.get(term.lower())
                if target is not None and not (_is_in_word(term[-1]) and _is_in_word(after)):
                    found.append((term, target))
                    end = start + length
                    break
        return found

    def check(self, translator: Translator) -> Self:
        """Return this. Raise ValueError if the vocabulary cannot write a target, or the search cannot hold phrases."""
        check_phrases(translator.config)
        targets = list(self.entries.values())
        for source, target, ids in zip(self.entries, targets, translator.encode_phrases(targets), strict=True):
            if (written := translator.tokenizer.decode_target(ids).strip(" ")) != target:
                raise ValueError(
                    f"{self.places[source]}: the vocabulary cannot write {target!r}, only {written!r}; change the entry"
                )
        return self

    def used(self, segments: Sequence[str], translation: str) -> list[Term]:
        """Return the terms of the segments of a text, and which of them the translation has, each as often as asked."""
        wanted = [term for segment in segments for term in self.terms(segment)]
        left = {target: len(re.findall(_whole(target), translation)) for _, target in wanted}
        terms = []
        for source, target in wanted:
            terms.append(Term(source, target, left[target] > 0))
            left[target] -= 1
        return terms


def _is_in_word(character: str) -> bool:
    """Return whether a word with this character may go on beside it: of scripts without spaces none does."""
    return re.match(r"\w", character) is not None and not is_unspaced(character)


def _whole(text: str) -> str:
    """Return a regular expression of a text that is not part of a longer word."""
    begin, end = r"(?<!\w)" if _is_in_word(text[0]) else "", r"(?!\w)" if _is_in_word(text[-1]) else ""
    return begin + re.escape(text) + end


def load_glossary(source: Any, translator: Translator) -> Glossary | None:
    """Return the glossary of a file, or of a dictionary, for a translator; None for none.

    Errors are those of `Glossary.read` and `Glossary.check`, and TypeError for a dictionary of other things than texts.
    """
    if source is None:
        return None
    if not isinstance(source, Mapping):
        return Glossary.read(source).check(translator)
    if wrong := [term for pair in source.items() for term in pair if not isinstance(term, str)]:
        raise TypeError(f"glossary: {wrong[0]!r} is no text; a dictionary has target terms by source terms")
    return Glossary(source).check(translator)
