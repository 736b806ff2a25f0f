"""The language of outputs: the share of translations in another language than the one that was asked for."""

import logging
from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice

from nmt.data import DataConfig
from nmt.data.corpora import directions, training_corpora
from nmt.data.language_id import MIN_LETTERS, Identifier, installed_identifier, trigram_identifier
from nmt.data.sources import read_blocks
from nmt.evaluation.breakdown import OutputLanguages
from nmt.evaluation.results import EvaluationSet

log = logging.getLogger(__name__)

MAX_LINES, MAX_BLOCKS = 10_000, 2
"""Lines of each language from which its character trigrams are learned, and blocks that are read of each corpus."""


def make_identifier(config: DataConfig, sets: Sequence[EvaluationSet]) -> Identifier | None:
    """Return what distinguishes the languages of a model with several target languages, and no others: an installed
    package that knows all of them, or trigrams of the training text, or where that cannot be read of the test sets."""
    if len({target for _, target in directions(config)}) < 2:
        return None
    languages = list(dict.fromkeys(chain.from_iterable(directions(config))))
    if installed := installed_identifier(languages):
        return installed
    parts = [(part.direction, read_blocks(part.config, "train", Counter())) for part in training_corpora(config)]
    tests = [((test.source_lang, test.target_lang), iter([zip(*test.pairs, strict=True)])) for test in sets]
    for source, texts in (("training text", parts), ("test sets", tests)):
        lines: dict[str, list[str]] = {language: [] for language in languages}
        try:
            for direction, blocks in texts:
                for sources, targets in islice(blocks, MAX_BLOCKS):
                    for language, side in zip(direction, (sources, targets), strict=True):
                        lines[language] += side[: MAX_LINES - len(lines[language])]
            return trigram_identifier(lines, source)
        except (OSError, ValueError) as error:
            log.info("languages cannot be told apart by the %s: %s", source, error)
    return None


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
