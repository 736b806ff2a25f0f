"""Metrics that score each sentence, with sacreBLEU's interface: the score of a corpus is their mean."""

import functools
import math
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sacrebleu.metrics.base import Metric, Score, Signature

from nmt.plugins import named_function

Texts = tuple[str, ...]


class SentenceMetric(Metric):  # type: ignore[misc]
    """A metric; `score` returns N numbers for N hypotheses and R × N references, `details` are in the signature."""

    # sacreBLEU's steps from a sentence to its statistics, in whose place `score` is called for all sentences
    _preprocess_segment = _extract_reference_info = _compute_segment_statistics = None

    def __init__(self, name: str, details: Mapping[str, str], score: Callable[..., Sequence[float]]) -> None:
        super().__init__()
        self.name, self.details, self._score = name, details, score

    def get_signature(self) -> Signature:
        signature = super().get_signature()
        signature.info |= self.details
        return signature

    def scores(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Sequence[float]:
        """Return the score of each sentence."""
        return self._score(tuple(hypotheses), tuple(map(tuple, references)))  # as keys of a cache

    def _extract_corpus_statistics(self, hypotheses: Sequence[str], references: Any) -> list[list[float]]:
        self.num_refs = len(references)
        return [[score, 1.0] for score in self.scores(hypotheses, references)]

    def _aggregate_and_compute(self, stats: list[list[float]]) -> Score:
        return self._compute_score_from_stats([math.fsum(column) for column in zip(*stats, strict=True)])

    def _compute_score_from_stats(self, stats: Any) -> Score:
        return Score(self.name, stats[0] / stats[1])


def plugin_metric(written: str, sources: Sequence[str]) -> SentenceMetric:
    """Return the metric of a plugin's function, whose attributes `name` and `version`, by default its own name and the
    digest of its file, go into the signature. Raises as `named_function`."""
    function, digest = named_function("metrics.plugins", written)
    given = getattr(function, "name", written.rpartition(":")[2]), getattr(function, "version", digest[:12])
    name, version = (re.sub(r"[^\w.+-]+", "-", str(text)) for text in given)
    score = functools.partial(_scores, written, digest, tuple(sources))
    return SentenceMetric(name, {"plugin": name, "version": version}, score)


@functools.lru_cache(maxsize=16)
def _scores(written: str, digest: str, sources: Texts, hypotheses: Texts, references: Sequence[Texts]) -> list[float]:
    """Return a plugin's scores of sentences, computed once for score, interval and tests: it may be slow."""
    function, _ = named_function("metrics.plugins", written)
    try:
        scores = list(map(float, function(list(sources), list(hypotheses), list(map(list, references)))))
    except Exception as error:
        where = "".join(f"line {frame.lineno}: " for frame in traceback.extract_tb(error.__traceback__)[1:2])
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"metrics.plugins={written}: {where}{reason}") from error
    num_finite = sum(map(math.isfinite, scores))
    if not len(scores) == num_finite == len(hypotheses):
        numbers = f"{len(scores)} numbers, of which {num_finite} are finite, for {len(hypotheses)} sentences"
        raise ValueError(f"metrics.plugins={written}: returned {numbers}; each needs one")
    return scores
