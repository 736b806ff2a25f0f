"""Terms in the source: words followed by target words that their translation shall have (Dinu et al. 2019, "append").

The ids of an annotated source are … <term> source pieces <is> target pieces </term> …, with reserved ids as marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING
from unicodedata import category

import numpy as np
from numpy.typing import NDArray

from nmt.config import check_range
from nmt.data.subword_sampling import Keys, uniform

if TYPE_CHECKING:
    from nmt.data.corpus import EncodedCorpus, TokenColumn
    from nmt.data.tokenizer import Tokenizer

MAX_WORDS, MAX_PIECES = 3, 12  # of a term on either side: of more pieces is a sentence of a script without spaces
MAX_TERMS = 3  # of a training sentence
Pieces = dict[int, tuple[int, int]]  # the first piece of a word, and the one after its last


@dataclass
class AugmentConfig:
    """Changes of the training text, made anew in each epoch.

    terms: share of the training pairs in which up to three source terms are annotated with the target words they are
        aligned to (by `data.train_alignments`, else by IBM model 1), so that the model can be given terms; 0 is off.
    """

    terms: float = 0.0

    def validate(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        check_range("data.augment", self, ["terms"], minimum=0, maximum=1)


@dataclass(eq=False)
class TermAnnotator:
    """Annotates a share `rate` of the training sources, of a corpus with links; which and how depends on keys alone."""

    corpus: EncodedCorpus
    tokenizer: Tokenizer
    rate: float

    def __post_init__(self) -> None:
        texts = [(surface or b"").decode(errors="replace") for surface in self.tokenizer.source.surfaces]
        # pieces with a letter, a mark or a digit, or a part of a character
        self._is_word = np.array([any(category(c)[0] in "LMN" or c == "\ufffd" for c in text) for text in texts])

    def annotate(self, sources: TokenColumn, targets: TokenColumn, rows: NDArray[np.int64], keys: Keys) -> TokenColumn:
        """Return the sources with terms; none becomes longer than the longest sentence of the corpus.

        Args:
            sources, targets: any segmentation of the corpus's rows `rows` (B,).
            keys: (B,) of `row_keys`.
        """
        links, marks, limit = self.corpus.links, self.tokenizer.term_ids, self.corpus.max_length
        assert links is not None
        assert marks is not None
        sides = (sources, targets)
        starts = [np.bincount(side.offsets[:-1], minlength=len(side.ids)) > 0 for side in sides]
        maps = self.tokenizer.source_word_id_map, self.tokenizer.target_word_id_map
        words = [word_map(side.ids, start) for word_map, side, start in zip(maps, sides, starts, strict=True)]
        places, values, added = list[int](), list[int](), np.zeros(len(rows), np.int64)
        for row in np.flatnonzero(uniform(keys, np.zeros(1, np.int64)) < self.rate).tolist():
            (start, stop), part = (side.offsets[row : row + 2].tolist() for side in sides)
            pieces = self._pieces(sources, words[0], start, stop), self._pieces(targets, words[1], *part)
            pairs = links.pairs[slice(*links.offsets[rows[row] : rows[row] + 2].tolist())].tolist()
            for first, last, begin, end in sorted(_choose_terms(keys[row : row + 1], *pieces, pairs)):
                inserted = [marks[1], *targets.ids[begin:end].tolist(), marks[2]]
                if stop - start + added[row] + len(inserted) < limit:
                    places += [first, *[last] * len(inserted)]
                    values += [marks[0], *inserted]
                    added[row] += len(inserted) + 1
        offsets = sources.offsets + np.append(0, np.cumsum(added))
        return sources._replace(ids=np.insert(sources.ids, places, values), offsets=offsets)

    def _pieces(self, side: TokenColumn, words: NDArray[np.int64], start: int, stop: int) -> Pieces:
        """Return where the pieces of each word are, of those from `start` to `stop`, without the signs around it."""
        pieces = Pieces()
        for place in (np.flatnonzero(self._is_word[side.ids[start:stop]]) + start).tolist():
            pieces[int(words[place])] = pieces.get(int(words[place]), (place,))[0], place + 1
        return pieces


def _choose_terms(
    key: Keys, sources: Pieces, targets: Pieces, links: list[list[int]]
) -> Iterator[tuple[int, int, int, int]]:
    """Yield the pieces, source and target, of up to `MAX_TERMS` terms of a pair: words that begin and end with a linked
    word, and that are linked with each other alone."""
    begins, taken = sorted({source for source, _ in links} & sources.keys()), set[int]()
    spans = [(i, i + n) for i, n in product(begins, range(MAX_WORDS)) if i + n in begins]
    draws = uniform(key, np.arange(1, len(spans) + 2))
    num = 1 + int(draws[0] * MAX_TERMS)
    for span in (range(first, last + 1) for first, last in (spans[i] for i in np.argsort(draws[1:]))):
        own = [target for source, target in links if source in span]
        begin, end = min(own), max(own)
        others = any(begin <= target <= end and source not in span for source, target in links)
        if others or end - begin >= MAX_WORDS or not {begin, end} <= targets.keys() or not taken.isdisjoint(span):
            continue
        pieces = sources[span[0]][0], sources[span[-1]][1], targets[begin][0], targets[end][1]
        if max(pieces[1] - pieces[0], pieces[3] - pieces[2]) <= MAX_PIECES:
            yield pieces
            taken.update(span)
            if (num := num - 1) == 0:
                return


def annotate(tokenizer: Tokenizer, text: str, terms: Iterable[tuple[int, int, str]]) -> list[int]:
    """Return the ids of a source text with its terms (start, end, target), disjoint ranges of characters, annotated.

    Raises ValueError for a model that was trained without terms.
    """
    if tokenizer.term_ids is None:
        reason = "this model was trained without terms in its sources, which need data.augment.terms=0.3 in training"
        raise ValueError(f"glossary_mode=soft: {reason}; set glossary_mode=hard")
    ids, (mark, between, end) = tokenizer.encode_source([text])[0], tokenizer.term_ids
    ranges = tokenizer.offsets(text, ids, "", [])[0]
    for start, stop, target in sorted(terms, reverse=True):
        places = [i for i, (first, last) in enumerate(ranges) if first < stop and last > start]
        if places:
            pieces = tokenizer.encode_source([target])[0][len(tokenizer.prefixes[0]) :]
            ids[places[0] : places[-1] + 1] = [mark, *ids[places[0] : places[-1] + 1], between, *pieces, end]
            del ranges[places[0] :]  # a piece of two terms belongs to the second
    return ids
