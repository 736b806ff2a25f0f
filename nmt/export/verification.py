"""Is the exported model the same function? Its own engine scores a few sentences, and so do we."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from nmt.data import EOS, collate
from nmt.inference.translator import Translator

LIMIT = 1e-3
"""Largest difference of a token's log-probability that is let through."""

SENTENCES, WORDS = 12, 24


class Loaded(Protocol):
    """An exported model as its own engine reads it."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without end token."""

    def log_probs(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[NDArray[Any]]:
        """Natural logarithms of the probabilities of each target's tokens and its end token."""


class Sentences(NamedTuple):
    """Texts of random pieces, their ids, and random ids to be scored as their translations."""

    texts: list[str]
    sources: list[list[int]]
    targets: list[list[int]]


def difference(translator: Translator, loaded: Loaded, longest: int) -> float:
    """The largest difference between the two models' log-probabilities of a token, in nats.

    Args:
        translator: our model.
        loaded: the exported one.
        longest: tokens that the exported model can take, end token counted.

    Raises:
        ValueError: the exported tokenizer cuts a text into other tokens, or a difference is beyond `LIMIT`.
    """
    sample = sentences(translator, min(WORDS, longest - 1))
    for text, one, other in zip(
        sample.texts, translator.tokenizer.encode_source(sample.texts), loaded.encode(sample.texts), strict=True
    ):
        if one != other:
            raise ValueError(f"the exported tokenizer is not ours: it makes {other} of {text!r}, ours {one}")
    pairs = zip(log_probs(translator, sample), loaded.log_probs(sample.sources, sample.targets), strict=True)
    worst = max(float(np.abs(one - other).max()) for one, other in pairs)
    if not worst <= LIMIT:
        raise ValueError(
            f"the exported model is not ours: log-probabilities differ by up to {worst:.2g}, more than {LIMIT:g}; "
            "nothing was written"
        )
    return worst


def sentences(translator: Translator, longest: int) -> Sentences:
    """Always the same for a tokenizer; at most `longest` tokens each."""
    rng, tokenizer = np.random.default_rng(1), translator.tokenizer
    lengths = rng.integers(1, longest, size=(2, SENTENCES), endpoint=True)
    lengths[0, 0], lengths[1, 0] = longest, longest
    drawn = [rng.integers(EOS + 1, tokenizer.source_size, size=length).tolist() for length in lengths[0]]
    texts = [tokenizer.decode_source(ids).strip(" ") for ids in drawn]
    targets = [rng.integers(EOS + 1, tokenizer.target_size, size=length).tolist() for length in lengths[1]]
    return Sentences(texts, drawn, targets)


@torch.no_grad()
def log_probs(translator: Translator, sample: Sentences) -> list[NDArray[Any]]:
    """Ours, by one teacher-forced pass."""
    batch = collate(sample.sources, sample.targets)
    logits, _ = translator.model.eval()(batch.source, batch.source_mask, batch.inputs)
    found = logits.float().log_softmax(-1).gather(2, batch.labels.unsqueeze(2)).squeeze(2).numpy()
    return [row[: len(target) + 1] for row, target in zip(found, sample.targets, strict=True)]
