"""Check that the exported model computes the same function: both engines score a few sentences."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nmt.data import EOS, DataConfig, collate
from nmt.data.corpora import directions
from nmt.export.scripts.text import TextCodec
from nmt.inference.translator import Translator

MAX_LOG_PROB_DIFFERENCE = 1e-3
"""Largest accepted difference of a token's log-probability."""

NUM_SENTENCES, MAX_SAMPLE_TOKENS = 12, 24


class ExportedModel:
    """An exported model in a folder, run by its own engine."""

    folder: Path

    def encode(self, texts: Sequence[str], target_lang: str | None) -> list[list[int]]:
        """Return the ids of each text to be translated into a language, without end token."""
        codec = TextCodec(self.folder, "source", target_lang)
        return [codec.encode(text) for text in texts]

    def log_probs(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[NDArray[Any]]:
        """Return the natural log-probabilities of each target's tokens and its end token."""
        raise NotImplementedError


class VerificationSample(NamedTuple):
    """Texts of random subwords, their ids, and random ids to be scored as their translations."""

    texts: list[str]
    sources: list[list[int]]
    targets: list[list[int]]


def max_log_prob_difference(
    translator: Translator, exported: ExportedModel, max_length: int, data: DataConfig | None = None
) -> float:
    """Return the largest difference between the two models' log-probabilities of a token, in nats.

    The sentences have at most `max_length` tokens, end token included, and take turns in the target languages of
    `data`. A difference above `MAX_LOG_PROB_DIFFERENCE`, or a text that the two tokenizers segment differently, raises
    ValueError.
    """
    sample = sample_sentences(translator, limit := min(MAX_SAMPLE_TOKENS, max_length - 1))
    languages = list(dict.fromkeys(target for _, target in directions(data))) if data is not None else [None]
    for i, language in enumerate(languages):
        own = translator if data is None else translator.into(data, language)
        tokenizer, turns = own.tokenizer, slice(i, None, len(languages))
        encoded = tokenizer.encode_source(sample.texts[turns]), exported.encode(sample.texts[turns], language)
        for text, ours, theirs in zip(sample.texts[turns], *encoded, strict=True):
            if ours != theirs:
                raise ValueError(f"the exported tokenizer is not ours: it encodes {text!r} as {theirs}, ours as {ours}")
        for side, prefix in zip((sample.sources, sample.targets), tokenizer.prefixes, strict=True):
            side[turns] = [[*prefix, *ids][:limit] for ids in side[turns]]
    scores = zip(log_probs(translator, sample), exported.log_probs(sample.sources, sample.targets), strict=True)
    largest = max(float(np.abs(ours - theirs).max()) for ours, theirs in scores)
    if not largest <= MAX_LOG_PROB_DIFFERENCE:  # not >: NaN fails too
        raise ValueError(
            f"the exported model is not ours: log-probabilities differ by up to {largest:.2g}, more than "
            f"{MAX_LOG_PROB_DIFFERENCE:g}; nothing was written"
        )
    return largest


def sample_sentences(translator: Translator, max_length: int) -> VerificationSample:
    """Sample sentences of at most `max_length` tokens, always the same for a tokenizer."""
    rng, tokenizer = np.random.default_rng(1), translator.tokenizer
    lengths = rng.integers(1, max_length, size=(2, NUM_SENTENCES), endpoint=True)
    lengths[:, 0] = max_length
    sources, targets = (
        [rng.integers(EOS + 1, size, size=length).tolist() for length in row]
        for row, size in zip(lengths, (tokenizer.source_size, tokenizer.target_size), strict=True)
    )
    return VerificationSample([tokenizer.decode_source(ids).strip(" ") for ids in sources], sources, targets)


@torch.no_grad()
def log_probs(translator: Translator, sample: VerificationSample) -> list[NDArray[Any]]:
    """Score the sentences by one teacher-forced pass of our model."""
    batch = collate(sample.sources, sample.targets)
    logits, _ = translator.model.eval()(batch.source, batch.source_mask, batch.inputs)
    scores = logits.float().log_softmax(-1).gather(2, batch.labels.unsqueeze(2)).squeeze(2).numpy()
    return [row[: len(target) + 1] for row, target in zip(scores, sample.targets, strict=True)]
