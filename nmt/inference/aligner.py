"""Word alignment of given texts or translations with a trained model."""

import logging
from collections.abc import Iterator, Sequence
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
from nmt.alignment.writers import AlignedPair, words_known
from nmt.data import DataConfig, SentencePair, alignment_path, read_pairs
from nmt.data.corpora import default_direction, directions
from nmt.data.sources import validation_splits
from nmt.inference.translator import Ids, Translator

log = logging.getLogger(__name__)

ALIGN_CHUNK_PAIRS = 1000
"""Pairs whose attention is in memory at a time."""
WORDS_CHANGED = "the tokenizer does not keep their words apart"

Texts = Sequence[tuple[str, str]]


class AlignmentEvaluation(NamedTuple):
    """Comparison with gold links: the score, the links, and the score of every alignment source with argmax."""

    score: AlignmentScore
    links: list[list[Link]]
    head_scores: dict[AlignmentSource, AlignmentScore]


class Aligner:
    """Extracts word alignments from one layer and head of a model's attention.

    Args:
        translator: the model.
        config: see `AlignmentConfig`.
        reading: the alignment source; None until `select_head` was called.
    """

    def __init__(self, translator: Translator, config: AlignmentConfig, reading: AlignmentSource | None = None) -> None:
        self.translator, self.config, self.source = translator, config, reading
        self.tokenizer = translator.tokenizer

    def select_head(self, pairs: Texts, gold: Sequence[GoldAlignment] | None, where: str) -> HeadSelection | None:
        """Select the alignment source with the lowest error on these pairs, among those that the options allow.

        Args:
            pairs: source and target texts.
            gold: their links; None: agreement with a lexical aligner, which is trained on them.
            where: name of the pairs.

        Returns:
            the selection and the scores of all candidates; None for a model without attention.

        Raises:
            ValueError: the options name a layer or head that the model does not have.
        """
        by = f"AER on {where}"
        if gold is None:
            by = f"agreement with a lexical aligner on {where}"
            gold = ibm1_alignments([(_split(source), _split(target)) for source, target in pairs])
        shape = self.translator.attention_shape()
        if not any(shape):
            return None
        candidates = candidate_sources(self.config, *shape)
        if len(candidates) == 1:
            by = "the options"
        examples = (example for _, example in self._examples(pairs, gold))
        first = next(examples, None)
        if first is None:
            selection = HeadSelection(candidates[0], "nothing, since there was no pair to choose on", {})
        else:
            selection = select_source(chain([first], examples), candidates, by)
        self.source = selection.source
        return selection

    def evaluate(self, pairs: Texts, gold: Sequence[GoldAlignment]) -> AlignmentEvaluation | None:
        """Compare links with gold, and score every alignment source; return None for a model without attention.

        A pair whose words the tokenizer changes has no links, and is not counted in the scores of the sources.
        """
        assert self.source is not None, "call select_head first"
        shape = self.translator.attention_shape()
        if not any(shape):
            return None
        selected = self.source
        links: list[list[Link]] = [[] for _ in pairs]

        def extract_links() -> Iterator[AlignmentExample]:
            for i, example in self._examples(pairs, gold):
                links[i] = selected.links(example.weights, example.target_words, example.source_words)
                yield example

        sources = candidate_sources(AlignmentConfig(decision="argmax"), *shape)
        scores = dict(zip(sources, score_sources(extract_links(), sources), strict=True))
        return AlignmentEvaluation(alignment_error_rate(links, gold), links, scores)

    def _examples(self, pairs: Texts, gold: Sequence[GoldAlignment]) -> Iterator[tuple[int, AlignmentExample]]:
        sources, targets = self.translator.encode_pairs(pairs)
        num_changed = 0
        for i, weights in self.translator.attention_weights(sources, targets):
            source_words, target_words = self.translator.pair_words(pairs[i], sources[i], targets[i])
            if words_known(pairs[i][0], source_words) and words_known(pairs[i][1], target_words):
                yield i, AlignmentExample(weights, target_words, source_words, gold[i])
            else:
                num_changed += 1
        if num_changed:
            log.warning("%d of %d pairs are not compared with their links: %s", num_changed, len(pairs), WORDS_CHANGED)

    def align(self, pairs: Texts) -> Iterator[list[AlignedPair]]:
        """Yield aligned pairs in order, `ALIGN_CHUNK_PAIRS` at a time; nothing for a model without attention.

        A pair has no links if the tokenizer does not keep its words apart (characters without one for the space). The
        number of such pairs is logged. A pair with a blank side has no links either.
        """
        num_changed = 0
        for start in range(0, len(pairs), ALIGN_CHUNK_PAIRS):
            chunk = pairs[start : start + ALIGN_CHUNK_PAIRS]
            aligned = self.align_ids(chunk, *self.translator.encode_pairs(chunk))
            if not aligned:
                return
            num_changed += sum(not pair.words_match for pair in aligned)
            yield aligned
        if num_changed:
            log.warning("%d of %d pairs have no links: %s", num_changed, len(pairs), WORDS_CHANGED)

    def align_ids(self, texts: Texts, sources: Ids, targets: Ids) -> list[AlignedPair]:
        """Align token ids without end tokens, whose texts are given; return [] for a model without attention."""
        assert self.source is not None, "call select_head first"
        aligned: dict[int, AlignedPair] = {}
        for i, weights in self.translator.attention_weights(sources, targets):
            source_words, target_words = self.translator.pair_words(texts[i], sources[i], targets[i])
            aligned[i] = AlignedPair(
                *texts[i],
                [*self.tokenizer.source_subwords(sources[i]), "</s>"],
                [*self.tokenizer.target_subwords(targets[i]), "</s>"],
                source_words,
                target_words,
                weights,
                self.source.word_matrix(weights, target_words, source_words),
                self.source.links(weights, target_words, source_words),
            )
        return [aligned[i] for i in sorted(aligned)]


def load_validation_pairs(config: DataConfig, num: int) -> tuple[list[SentencePair], list[GoldAlignment] | None] | None:
    """Return the first pairs of the validation set and their gold links; None if the files no longer exist.

    Raise ValueError if they exist and cannot be read.
    """
    try:
        pairs = list(read_pairs(config, split := validation_splits(config)[0]))
    except OSError as error:
        log.info("the validation set is not there any more (%s)", error)
        return None
    path = alignment_path(config, split)
    return pairs[:num], read_gold(path, pairs)[:num] if path is not None else None


def aligner_with_selected_head(
    translator: Translator, config: AlignmentConfig, data: DataConfig | None, pairs: Texts
) -> tuple[Aligner, HeadSelection | None]:
    """Return an aligner and how its layer and head were selected, or None for a model without attention.

    They are selected on the validation set of `data`. Without one, the selection stored in the checkpoint is used, or
    else agreement with a lexical aligner on the first of `pairs` decides.

    Raises:
        ValueError: as `Aligner.select_head`, or the validation set cannot be read.
    """
    aligner = Aligner(translator, config)
    validation = load_validation_pairs(data, config.selection_pairs) if data is not None else None
    stored = translator.stored_source
    if validation is not None:
        selection = aligner.select_head(*validation, "the validation set")
    elif stored.selected_by and config.is_all_auto:
        aligner.source = stored.source
        selection = HeadSelection(stored.source, f"{stored.selected_by}, when it was trained", {})
    else:
        selection = aligner.select_head(pairs[: config.selection_pairs], None, "the text itself")
    if selection is not None:
        log.info("alignments are read from %s; chosen by %s", selection.source, selection.selected_by)
    return aligner, selection


def check_directions(
    name: object, data: DataConfig, reverse_name: object, reverse: DataConfig, target_lang: str | None = None
) -> str:
    """Return the language that the second of two models, named as they were given, translates into where the first one
    translates into `target_lang`. Raise ValueError unless it has one direction that is the opposite."""
    default, known = default_direction(data), directions(data)
    target = target_lang or default[1]
    sources = [source for source, end in known if end == target_lang] if target_lang else [default[0]]
    found = [source for source in sources if (target, source) in directions(reverse)]
    if len(found) > 1:
        text = f"the source may be {' or '.join(found)}; give a run of one direction, or leave target_lang out"
        raise ValueError(f"reverse={reverse_name}: {text}")
    if not found:
        others = ", ".join(f"{source} into {end}" for source, end in directions(reverse))
        text = f"translates {others}, {name} {' or '.join(sources)} into {target}"
        raise ValueError(f"reverse={reverse_name}: {text}: a run of the other direction is needed")
    return found[0]


def _split(text: str) -> list[str]:
    return [word for word in text.split(" ") if word]
