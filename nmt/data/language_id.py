"""The language of a text: by an installed package, or by character trigrams, learned within a second from texts."""

import contextlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module, metadata
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nmt.data.cleaning.text_block import DIGIT, LATIN, Flags, Ints, TextBlock, mix

MIN_LETTERS = 10
"""A text of fewer letters, such as a name or a number, is undecided."""
_BUCKETS = 1 << 18
_Rank = Callable[[str], Mapping[str, float]]


class Identifier(NamedTuple):
    """Distinguishes L languages, and no others.

    name: of the method. log_likelihoods: of every line of a block in each language, (N, L), but for a number that is
    the same for all L. margin: nats below which a text is undecided: there is little of it, or little difference. So
    none of 1000 Multi30k references in each of four languages is taken for another, and at least 99.9 % are recognized.
    grows: whether they are sums over the letters.
    """

    name: str
    languages: Sequence[str]
    log_likelihoods: Callable[[TextBlock], NDArray[np.float64]]
    margin: float
    grows: bool = False

    def identify(self, text: str) -> tuple[str, float]:
        """Return the likeliest language, and by how many nats it is likelier than the next."""
        values = self.log_likelihoods(TextBlock([text.replace("\n", " ")]))[0]
        second, first = np.argsort(values, kind="stable")[-2:]
        return self.languages[first], float(values[first] - values[second])

    def per_letter(self, block: TextBlock) -> NDArray[np.float64]:
        """Return log-likelihoods by letters, or if they do not grow with these so that the margin is 0.8, (N, L)."""
        text = np.where(block.num_letters < MIN_LETTERS, np.inf, self.margin / 0.8)
        return self.log_likelihoods(block) / (block.num_letters + MIN_LETTERS if self.grows else text)[:, None]


def installed_identifier(languages: Sequence[str]) -> Identifier | None:
    """Return the identifier of an installed package that knows all of these languages, or None."""
    codes = [re.split("[-_]", language)[0].lower() for language in languages]
    packages = (("lingua-language-detector", _lingua, 0.5), ("py3langid", _py3langid, 3.0))
    for package, make, margin in packages if len({*codes}) == len(codes) else ():
        with contextlib.suppress(ImportError, KeyError, ValueError):  # not installed, or one of them is unknown
            name, rank = f"{package.partition('-')[0]} {metadata.version(package)}", make(codes)
            return Identifier(name, languages, partial(_by_line, rank, codes), margin)
    return None


def _by_line(rank: _Rank, codes: Sequence[str], block: TextBlock) -> NDArray[np.float64]:
    return np.array([[values[code] for code in codes] for values in map(rank, block.lines)])


def _lingua(codes: Sequence[str]) -> _Rank:
    lingua: Any = import_module("lingua")
    known = {language.iso_code_639_1.name.lower(): language for language in lingua.Language.all()}
    names = {known[code]: code for code in codes}
    confidences = lingua.LanguageDetectorBuilder.from_languages(*names).build().compute_language_confidence_values
    return lambda text: {names[x.language]: math.log(max(x.value, 1e-99)) for x in confidences(text)}


def _py3langid(codes: Sequence[str]) -> _Rank:
    langid: Any = import_module("py3langid")
    langid.set_languages(list(codes))
    return lambda text: dict(langid.rank(text))


def trigram_identifier(texts: Mapping[str, Sequence[str]], name: str) -> Identifier:
    """Learn languages from lines in each of them; some 10,000 suffice. It is naive Bayes on character trigrams.

    Lines in another of the languages do no harm as long as they are few: after a first round they are left out.
    Raises ValueError unless there are two languages or more, each with letters.
    """
    blocks = [TextBlock([line.replace("\n", " ") for line in [*lines, ""]]) for lines in texts.values()]
    if len(blocks) < 2 or not all(block.num_letters.any() for block in blocks):
        raise ValueError(f"languages {', '.join(texts)}: two or more are needed, and a text with letters in each")
    log_probs, keep = np.zeros((_BUCKETS, len(blocks)), np.float32), [block.sizes > 0 for block in blocks]

    def log_likelihoods(block: TextBlock) -> NDArray[np.float64]:
        trigrams, lines = _trigrams(block, block.sizes > 0)
        return np.stack([np.bincount(lines, column, len(block.lines)) for column in log_probs[trigrams].T], 1)

    for _ in range(2):
        counts = [np.bincount(_trigrams(*side)[0], minlength=_BUCKETS) for side in zip(blocks, keep, strict=True)]
        smoothed = np.stack(counts, 1) + 0.5
        log_probs = np.log(smoothed / smoothed.sum(0)).astype(np.float32)
        keep = [log_likelihoods(block).argmax(1) == i for i, block in enumerate(blocks)]
    return Identifier(f"character trigrams of the {name}", list(texts), log_likelihoods, 10.0, grows=True)


def _trigrams(block: TextBlock, keep: Flags) -> tuple[Ints, Ints]:
    """Return the bucket of each trigram with a letter in the middle, and its line, of the lines to keep."""
    inner = np.flatnonzero((block.kind >= LATIN) & np.repeat(keep, block.sizes))
    codes = np.where(block.kind > DIGIT, block.lower, 0).astype(np.uint64)  # all else is one
    hashes = mix(codes[inner - 1] << np.uint64(42) | codes[inner] << np.uint64(21) | codes[inner + 1])
    lines = np.repeat(np.arange(len(keep)), np.where(keep, block.num_letters, 0))
    return (hashes % np.uint64(_BUCKETS)).astype(np.int64), lines
