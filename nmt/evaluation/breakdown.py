"""Strengths and weaknesses of a system: scores of parts of a test set, and rates of known errors."""

import bisect
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from nmt.alignment import AlignmentScore, GoldAlignment, Link, alignment_error_rate
from nmt.alignment.pharaoh import num_words
from nmt.evaluation.metrics import Lines, MetricsConfig, build_metrics, check_lengths, corpus_score
from nmt.runtime.text import is_blank

LENGTH_BUCKETS = (10, 20, 30, 40, 50, 60)
"""Upper ends of the buckets of source length, in words; a last bucket has no upper end."""
FREQUENCY_BUCKETS = (0, 9, 99, 999)
"""Upper ends of the buckets of the frequency of a source's rarest word in the training text."""
MIN_LENGTH_RATIO, MAX_LENGTH_RATIO = 0.7, 1.5
"""Range of a hypothesis's length, in reference lengths, outside of which it is under- or over-translated."""
MAX_REPEATED = 4
MIN_LENGTH_CORRELATION = 0.3
"""Correlation of the lengths of sources and references below which they are hardly of the same sentences."""
_WORD = re.compile(r"\w+")
_DIGIT = re.compile(r"\d")


class Bucket(NamedTuple):
    """A part of a test set: number of sentences and corpus BLEU (with the signature of the whole)."""

    num_sentences: int
    bleu: float


class ErrorRates(NamedTuple):
    """Shares of the sentences, and a ratio.

    length_ratio: tokens of all hypotheses over tokens of all references, as in the brevity penalty; None without any.
    exact_match: equal to the reference.
    empty: without any token, where the reference has some.
    under_translated: fewer than `MIN_LENGTH_RATIO` times the tokens of the reference.
    over_translated: more than `MAX_LENGTH_RATIO` times.
    repetition: runs of up to `MAX_REPEATED` tokens immediately repeated more often than in the reference.
    """

    length_ratio: float | None
    exact_match: float
    empty: float
    under_translated: float
    over_translated: float
    repetition: float


class OutputLanguages(NamedTuple):
    """The languages of hypotheses: the one that was asked for, and the share of the sentences in each; the share of all
    in a wrong one, and of those too short to tell; what told them apart."""

    target: str
    shares: dict[str, float]
    wrong: float
    undecided: float
    identifier: str


@dataclass
class Breakdown:
    """BLEU by bucket in each category ("length", "rare_words", "numbers", "names"), and error rates."""

    buckets: dict[str, dict[str, Bucket]]
    rates: ErrorRates


def word_tokens(text: str) -> list[str]:
    """Return the runs of letters and digits, case-folded."""
    return _WORD.findall(text.casefold())


def word_frequencies(training: Iterable[str], wanted: Iterable[str]) -> Counter[str]:
    """Count the words of some texts in the training text; memory grows with the former only."""
    counts: Counter[str] = Counter()
    vocabulary = {word for text in wanted for word in word_tokens(text)}
    for text in training:
        counts.update(word for word in word_tokens(text) if word in vocabulary)
    return counts


def breakdown(
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    config: MetricsConfig,
    counts: Mapping[str, int] | None = None,
    further: Sequence[Lines] = (),
) -> Breakdown:
    """Score a test set by category and measure error rates.

    * length: words of the source, split at spaces.
    * rare_words: frequency of the source's rarest word in the training text; left out without `counts`.
    * numbers: whether the source has a digit.
    * names: whether the source has a name, that is, a capitalized word, not its first, that is in the reference too,
      not first there either. Little but names is spelled alike in two languages; without a common alphabet no name is
      found and the category is left out.

    Args:
        sources, hypotheses, references: texts in the same order.
        config: BLEU's tokenizer, for lengths and repetitions too.
        counts: from `word_frequencies`.
        further: references beyond the first, for BLEU; names and error rates are those of the first.

    Raises:
        ValueError: lists of different length, or empty.
    """
    check_lengths(hypotheses, references)
    categories = {"length": [length_bucket(source) for source in sources]}
    if counts is not None:
        categories["rare_words"] = [_frequency_bucket(source, counts) for source in sources]
    categories["numbers"] = ["with" if _DIGIT.search(source) else "without" for source in sources]
    categories["names"] = ["with" if has_name else "without" for has_name in map(_has_name, sources, references)]
    bleu_config = replace(config, names=["bleu"], plugins=[])

    def bucket(members: list[int]) -> Bucket:
        first, second, *rest = [[texts[i] for i in members] for texts in (hypotheses, references, *further)]
        return Bucket(len(members), corpus_score(first, second, bleu_config, rest)["bleu"].score)

    buckets = {
        category: {name: bucket(members) for name, members in _members(bucket_of_sentence).items()}
        for category, bucket_of_sentence in categories.items()
        if category in ("length", "rare_words") or len(set(bucket_of_sentence)) > 1
    }
    return Breakdown(buckets, rates(hypotheses, references, config))


def rates(hypotheses: Sequence[str], references: Sequence[str], config: MetricsConfig) -> ErrorRates:
    """Measure error rates; tokens are those of BLEU, in lower case where the metrics ignore case."""
    if config.lowercase:
        hypotheses, references = [text.lower() for text in hypotheses], [text.lower() for text in references]
    tokenize = build_metrics(replace(config, names=["bleu"], plugins=[]))["bleu"].tokenizer

    def tokens(text: str) -> list[str]:
        return [] if is_blank(text) else tokenize(text).split()

    pairs = [(tokens(h), tokens(r)) for h, r in zip(hypotheses, references, strict=True)]
    num_reference = sum(len(reference) for _, reference in pairs)

    def share(condition: Callable[[list[str], list[str]], bool]) -> float:
        return sum(condition(*pair) for pair in pairs) / len(pairs)

    return ErrorRates(
        length_ratio=sum(len(hypothesis) for hypothesis, _ in pairs) / num_reference if num_reference else None,
        exact_match=sum(h.strip() == r.strip() for h, r in zip(hypotheses, references, strict=True)) / len(pairs),
        empty=share(lambda h, r: not h and bool(r)),
        under_translated=share(lambda h, r: len(h) < MIN_LENGTH_RATIO * len(r)),
        over_translated=share(lambda h, r: len(h) > MAX_LENGTH_RATIO * len(r)),
        repetition=share(lambda h, r: repetitions(h) > repetitions(r)),
    )


def repetitions(tokens: Sequence[str]) -> int:
    """Count how often one to `MAX_REPEATED` tokens are followed by the same again: "a man a man" has one."""
    return sum(
        tokens[i : i + n] == tokens[i + n : i + 2 * n]
        for n in range(1, MAX_REPEATED + 1)
        for i in range(len(tokens) - 2 * n + 1)
    )


def length_correlation_warning(sources: Sequence[str], references: Sequence[str]) -> float | None:
    """Return the correlation of the lengths in characters if it is so low that the two can hardly belong together.

    None if it is not, and for fewer than 30 sentences or sentences of similar length.
    """
    lengths = [[len(text) for text in side] for side in (sources, references)]
    if len(sources) < 30 or any(statistics.pstdev(side) <= 0.15 * statistics.fmean(side) for side in lengths):
        return None
    correlation = statistics.correlation(*lengths)
    return correlation if correlation < MIN_LENGTH_CORRELATION else None


def length_bucket(source: str) -> str:
    """Return the bucket of a source by its number of words: "0-10", …, "61-"."""
    return _bucket_name(num_words(source), LENGTH_BUCKETS)


def bucket_sort_key(bucket: str) -> tuple[int, str]:
    """Sort buckets by their first number."""
    number = bucket.partition("-")[0]
    return (int(number) if number.isdecimal() else 0), bucket


def alignment_by_length(
    sources: Sequence[str], links: Sequence[Sequence[Link]], gold: Sequence[GoldAlignment]
) -> dict[str, AlignmentScore]:
    """Return the alignment error of the sentences in each bucket of source length that has gold links."""
    return {
        bucket: alignment_error_rate([links[i] for i in members], [gold[i] for i in members])
        for bucket, members in _members(map(length_bucket, sources)).items()
        if any(map(any, (gold[i] for i in members)))
    }


def _members(buckets: Iterable[str]) -> dict[str, list[int]]:
    """Return the sentences of each bucket, the buckets in order."""
    members: dict[str, list[int]] = {}
    for i, bucket in enumerate(buckets):
        members.setdefault(bucket, []).append(i)
    return {bucket: members[bucket] for bucket in sorted(members, key=bucket_sort_key)}


def _frequency_bucket(source: str, counts: Mapping[str, int]) -> str:
    frequencies = (counts.get(word, 0) for word in word_tokens(source))
    return _bucket_name(min(frequencies, default=FREQUENCY_BUCKETS[-1] + 1), FREQUENCY_BUCKETS)


def _bucket_name(number: int, upper_ends: Sequence[int]) -> str:
    i = bisect.bisect_left(upper_ends, number)
    low = upper_ends[i - 1] + 1 if i else 0
    if i == len(upper_ends):
        return f"{low}-"
    return f"{low}-{upper_ends[i]}" if low < upper_ends[i] else f"{low}"


def _has_name(source: str, reference: str) -> bool:
    capitalized = {word for word in _WORD.findall(source)[1:] if word[0].isupper()}
    return bool(capitalized & set(_WORD.findall(reference)[1:]))
