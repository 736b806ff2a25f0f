"""Word alignment of given texts or translations with a trained model."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from nmt.alignment import (
    AlignmentConfig,
    AlignmentExample,
    AlignmentScore,
    AlignmentSource,
    GoldAlignment,
    HeadSelection,
    Link,
    alignment_error_rate,
    candidate_sources,
    ibm1_alignments,
    read_gold,
    score_sources,
    select_source,
)
from nmt.alignment.writers import AlignedPair, word_counts_match
from nmt.data import EOS, DataConfig, SentencePair, alignment_path, read_pairs
from nmt.inference.translator import Translator

log = logging.getLogger(__name__)

ALIGN_CHUNK_PAIRS = 1000
"""Pairs whose attention is in memory at a time."""
WORDS_CHANGED = "the tokenizer's normalisation changes their words"

Texts = Sequence[tuple[str, str]]


class AlignmentEvaluation(NamedTuple):
    """Links beside gold: their score, the links, and what every layer, head, shift and null would score by argmax."""

    score: AlignmentScore
    links: list[list[Link]]
    readings: dict[AlignmentSource, AlignmentScore]


class Aligner:
    """Reads word alignments off one layer and head of a model's attention.

    Args:
        translator: the model.
        config: how.
        reading: which layer and head; None until `choose` was called.
    """

    def __init__(self, translator: Translator, config: AlignmentConfig, reading: AlignmentSource | None = None) -> None:
        self.translator, self.config, self.reading = translator, config, reading
        self.tokenizer = translator.tokenizer

    def select_head(self, pairs: Texts, gold: Sequence[GoldAlignment] | None, where: str) -> HeadSelection | None:
        """Chooses what the options leave open, by the lowest error on these pairs, and keeps it as `reading`.

        Args:
            pairs: source and target texts.
            gold: their links; None: agreement with a lexical aligner, which is trained on them.
            where: what the pairs are called.

        Returns:
            the choice and what every candidate had; None for a model without attention.

        Raises:
            ValueError: the options name a layer or head that the model does not have.
        """
        by = f"AER on {where}" if gold is not None else f"agreement with a lexical aligner on {where}"
        if gold is None:
            gold = ibm1_alignments([(_split(source), _split(target)) for source, target in pairs])
        shape = self._shape()
        if shape is None:
            return None
        readings = candidate_sources(self.config, *shape)
        if len(readings) == 1:
            by = "the options"
        sentences = (one for _, one in self._sentences(pairs, gold))
        first = next(sentences, None)
        if first is None:
            choice = HeadSelection(readings[0], "nothing, since there was no pair to choose on", {})
        else:
            choice = select_source(chain([first], sentences), readings, by)
        self.reading = choice.reading
        return choice

    def evaluate(self, pairs: Texts, gold: Sequence[GoldAlignment]) -> AlignmentEvaluation | None:
        """Links of given pairs, and the error of every reading that there is; None for a model without attention.

        A pair whose words the tokenizer changes has no links, and no part in what the readings have.
        """
        assert self.reading is not None, "choose first"
        links: list[list[Link]] = [[] for _ in pairs]
        reading = self.reading

        def noting(found: Iterable[tuple[int, AlignmentExample]]) -> Iterator[AlignmentExample]:
            for i, one in found:
                links[i] = reading.links(one.weights, one.target_words, one.source_words)
                yield one

        shape = self._shape()
        if shape is None:
            return None
        readings = candidate_sources(AlignmentConfig(decision="argmax"), *shape)
        scores = score_sources(noting(self._sentences(pairs, gold)), readings)
        return AlignmentEvaluation(alignment_error_rate(links, gold), links, dict(zip(readings, scores, strict=True)))

    def _sentences(self, pairs: Texts, gold: Sequence[GoldAlignment]) -> Iterator[tuple[int, AlignmentExample]]:
        sources = self.tokenizer.encode_source([source for source, _ in pairs])
        targets = self.tokenizer.encode_target([target for _, target in pairs])
        changed = 0
        for i, weights in self.translator.attention_weights(sources, targets):
            target_words, source_words = self._words(sources[i], targets[i])
            if word_counts_match(pairs[i][0], source_words) and word_counts_match(pairs[i][1], target_words):
                yield i, AlignmentExample(weights, target_words, source_words, gold[i])
            else:
                changed += 1
        if changed:
            log.warning("%d of %d pairs are not compared with their links: %s", changed, len(pairs), WORDS_CHANGED)

    def _shape(self) -> tuple[int, int] | None:
        """Layers and heads; None for a model without attention."""
        found = next(self.translator.attention_weights([[]], [[]]), None)
        return None if found is None else (found[1].shape[0], found[1].shape[1])

    def _words(self, source: Sequence[int], target: Sequence[int]) -> tuple[list[int], list[int]]:
        return self.tokenizer.target_word_ids([*target, EOS]), self.tokenizer.source_word_ids([*source, EOS])

    def align(self, pairs: Texts) -> Iterator[list[AlignedPair]]:
        """The pairs in order, aligned, `CHUNK` at a time; nothing for a model without attention.

        Where the tokenizer's normalisation makes other words of a text (as NFKC does of one with U+00A0), the pair has
        no links: there would be no telling what words they link. How many is logged.
        """
        changed = 0
        for begin in range(0, len(pairs), ALIGN_CHUNK_PAIRS):
            part = pairs[begin : begin + ALIGN_CHUNK_PAIRS]
            sources = self.tokenizer.encode_source([source for source, _ in part])
            targets = self.tokenizer.encode_target([target for _, target in part])
            found = self.align_ids(part, sources, targets)
            if not found:
                return
            changed += sum(not one.words_match for one in found)
            yield found
        if changed:
            log.warning("%d of %d pairs have no links: %s", changed, len(pairs), WORDS_CHANGED)

    def align_ids(
        self, texts: Texts, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[AlignedPair]:
        """As `align`, of token ids without end tokens, whose texts are given; [] for a model without attention."""
        assert self.reading is not None, "choose first"
        found: list[AlignedPair | None] = [None] * len(texts)
        for i, weights in self.translator.attention_weights(sources, targets):
            target_words, source_words = self._words(sources[i], targets[i])
            one = AlignedPair(
                *texts[i],
                [*self.tokenizer.source_subwords(sources[i]), "</s>"],
                [*self.tokenizer.target_subwords(targets[i]), "</s>"],
                source_words,
                target_words,
                weights,
                self.reading.word_matrix(weights, target_words, source_words),
                self.reading.links(weights, target_words, source_words),
            )
            found[i] = one if one.words_match else one._replace(links=[])
        return [one for one in found if one is not None]


def load_validation_pairs(config: DataConfig, num: int) -> tuple[list[SentencePair], list[GoldAlignment] | None] | None:
    """The first pairs of the validation set and their gold links, if they are still where they were.

    Raises ValueError when they are there and cannot be read.
    """
    try:
        pairs = list(read_pairs(config, "valid"))
    except OSError as error:
        log.info("the validation set is not there any more (%s)", error)
        return None
    path = alignment_path(config, "valid")
    gold = read_gold(path, pairs) if path is not None else None
    return pairs[:num], gold[:num] if gold is not None else None


def aligner_with_selected_head(
    translator: Translator, config: AlignmentConfig, data: DataConfig | None, pairs: Texts
) -> tuple[Aligner, HeadSelection | None]:
    """An aligner whose layer and head were chosen on the validation set of `data`.

    Args:
        translator: the model.
        config: how.
        data: the run's; None: it has no validation set.
        pairs: where there is no validation set, and the checkpoint carries no choice either, agreement on the first
            of these decides.

    Returns:
        the aligner, and None for a model without attention.

    Raises:
        ValueError: as `Aligner.choose`, or the validation set cannot be read.
    """
    aligner = Aligner(translator, config)
    found = load_validation_pairs(data, config.selection_pairs) if data is not None else None
    carried = translator.carried
    choice: HeadSelection | None
    if found is None and carried.by and config.is_open:
        aligner.reading, choice = (
            carried.reading,
            HeadSelection(carried.reading, f"{carried.by}, when it was trained", {}),
        )
    elif found is None:
        choice = aligner.select_head(pairs[: config.selection_pairs], None, "the text itself")
    else:
        choice = aligner.select_head(*found, "the validation set")
    if choice is not None:
        log.info("alignments are read from %s; chosen by %s", choice.reading, choice.by)
    return aligner, choice


def _split(text: str) -> list[str]:
    return [word for word in text.split(" ") if word]
