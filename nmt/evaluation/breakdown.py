"""Where a system is good and where it fails: scores of parts of a test set, and rates of known faults."""

import bisect
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from nmt.alignment import AlignmentScore, GoldAlignment, Link
from nmt.alignment import alignment_error_rate as alignment_score
from nmt.evaluation.metrics import MetricsConfig, build_metrics, check_lengths
from nmt.evaluation.metrics import corpus_score as corpus_score

LENGTHS = (10, 20, 30, 40, 50, 60)
"""Upper ends of the buckets of source length, in words; a last one has what is longer."""
FREQUENCIES = (0, 9, 99, 999)
"""Upper ends of the buckets of a source's rarest word, in occurrences in the training text."""
SHORT, LONG = 0.7, 1.5
"""A hypothesis is too short or too long below or above so many times the length of its reference."""
MAX_REPEATED = 4
MIN_LENGTH_CORRELATION = 0.3
"""Lengths of sources and references of a test set that correlate less than this are hardly of the same sentences."""
_WORD = re.compile(r"\w+")
_DIGIT = re.compile(r"\d")


class Bucket(NamedTuple):
    """A part of a test set: how many sentences, and their corpus BLEU (of the signature of the whole)."""

    num_sentences: int
    bleu: float


class ErrorRates(NamedTuple):
    """Shares of the sentences, and a ratio.

    length_ratio: tokens of all hypotheses over tokens of all references, as in BLEU's brevity penalty.
    exact_match: equal to the reference.
    empty: nothing at all, where the reference has something.
    under_translated: fewer than `SHORT` times the tokens of the reference.
    over_translated: more than `LONG` times.
    repetition: up to `MAX_REPEATED` tokens that follow themselves at once, more often than in the reference.
    """

    length_ratio: float
    exact_match: float
    empty: float
    under_translated: float
    over_translated: float
    repetition: float


@dataclass
class Breakdown:
    """BLEU by bucket for each way of parting the test set ("length", "rare_words", "numbers", "names")."""

    buckets: dict[str, dict[str, Bucket]]
    rates: ErrorRates


def word_tokens(text: str) -> list[str]:
    """Return words: runs of letters and digits, without regard to case."""
    return _WORD.findall(text.casefold())


def word_frequencies(training: Iterable[str], wanted: Iterable[str]) -> Counter[str]:
    """Return how often the words of some texts occur in the training text; memory grows with the former only."""
    counts: Counter[str] = Counter()
    known = {word for text in wanted for word in word_tokens(text)}
    for text in training:
        counts.update(word for word in word_tokens(text) if word in known)
    return counts


def breakdown(
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    config: MetricsConfig,
    counts: Mapping[str, int] | None = None,
) -> Breakdown:
    """Divide a test set and count faults.

    * length: words of the source, split at spaces.
    * rare_words: how often the rarest word of the source is in the training text; left out without `counts`.
    * numbers: whether the source has a digit.
    * names: whether the source has a name, which is a word, not its first, that begins with a capital and stands in
      the reference too, not first there either. Nothing but names and the like is spelt alike in two languages; where
      they have no alphabet in common none is found and the parting is left out.

    Args:
        sources, hypotheses, references: texts in the same order.
        config: BLEU's tokenizer, for lengths and repetitions too.
        counts: from `frequencies`.

    Raises:
        ValueError: lists of different length, or empty.
    """
    check_lengths(hypotheses, references)
    partings = {"length": [length_bucket(source) for source in sources]}
    if counts is not None:
        partings["rare_words"] = [_frequency_bucket(source, counts) for source in sources]
    partings["numbers"] = ["with" if _DIGIT.search(source) else "without" for source in sources]
    partings["names"] = ["with" if named else "without" for named in map(_has_name, sources, references)]
    buckets = {
        parting: {
            name: Bucket(len(members), _bleu(members, hypotheses, references, config))
            for name, members in _members(of_sentences).items()
        }
        for parting, of_sentences in partings.items()
        if parting in ("length", "rare_words") or len(set(of_sentences)) > 1
    }
    return Breakdown(buckets, rates(hypotheses, references, config))


def rates(hypotheses: Sequence[str], references: Sequence[str], config: MetricsConfig) -> ErrorRates:
    """Return rates of faults; tokens are those of BLEU, in lower case where the metrics compare so."""
    if config.lowercase:
        hypotheses, references = [text.lower() for text in hypotheses], [text.lower() for text in references]
    tokenize = build_metrics(replace(config, names=["bleu"]))["bleu"].tokenizer
    pairs = [(tokenize(h).split(), tokenize(r).split()) for h, r in zip(hypotheses, references, strict=True)]
    num_reference = sum(len(reference) for _, reference in pairs)

    def share(of: Callable[[list[str], list[str]], bool]) -> float:
        return sum(of(*pair) for pair in pairs) / len(pairs)

    return ErrorRates(
        length_ratio=sum(len(hypothesis) for hypothesis, _ in pairs) / max(num_reference, 1),
        exact_match=sum(h.strip() == r.strip() for h, r in zip(hypotheses, references, strict=True)) / len(pairs),
        empty=share(lambda h, r: not h and bool(r)),
        under_translated=share(lambda h, r: len(h) < SHORT * len(r)),
        over_translated=share(lambda h, r: len(h) > LONG * len(r)),
        repetition=share(lambda h, r: repetitions(h) > repetitions(r)),
    )


def repetitions(tokens: Sequence[str]) -> int:
    """Return how many times one to `MAX_REPEATED` tokens are followed by the same again: "a man a man" has one."""
    return sum(
        tokens[i : i + n] == tokens[i + n : i + 2 * n]
        for n in range(1, MAX_REPEATED + 1)
        for i in range(len(tokens) - 2 * n + 1)
    )


def length_correlation_warning(sources: Sequence[str], references: Sequence[str]) -> float | None:
    """Return the correlation of their lengths in characters if it is so low that the two can hardly belong together.

    None where they do, and where there are fewer than 30 or hardly differ in length.
    """
    lengths = [[len(text) for text in side] for side in (sources, references)]
    if len(sources) < 30 or any(statistics.pstdev(side) < 0.15 * statistics.fmean(side) for side in lengths):
        return None
    correlation = statistics.correlation(*lengths)
    return correlation if correlation < MIN_LENGTH_CORRELATION else None


def length_bucket(source: str) -> str:
    """Return the bucket of a source by its words: "0-10", …, "61-"."""
    return _between(sum(1 for word in source.split(" ") if word), LENGTHS)


def bucket_sort_key(bucket: str) -> tuple[int, str]:
    """Sort buckets by their first number."""
    number = bucket.partition("-")[0]
    return (int(number) if number.isdecimal() else 0), bucket


def alignment_by_length(
    sources: Sequence[str], links: Sequence[Sequence[Link]], gold: Sequence[GoldAlignment]
) -> dict[str, AlignmentScore]:
    """Return the alignment error of the sentences in each bucket of source length."""
    return {
        bucket: alignment_score([links[i] for i in members], [gold[i] for i in members])
        for bucket, members in _members(map(length_bucket, sources)).items()
    }


def _members(buckets: Iterable[str]) -> dict[str, list[int]]:
    """Return the sentences of each bucket, the buckets in their order."""
    members: dict[str, list[int]] = {}
    for i, bucket in enumerate(buckets):
        members.setdefault(bucket, []).append(i)
    return {bucket: members[bucket] for bucket in sorted(members, key=bucket_sort_key)}


def _frequency_bucket(source: str, counts: Mapping[str, int]) -> str:
    return _between(
        min((counts.get(word, 0) for word in word_tokens(source)), default=FREQUENCIES[-1] + 1), FREQUENCIES
    )


def _between(number: int, ends: Sequence[int]) -> str:
    i = bisect.bisect_left(ends, number)
    low = ends[i - 1] + 1 if i else 0
    if i == len(ends):
        return f"{low}-"
    return f"{low}-{ends[i]}" if low < ends[i] else f"{low}"


def _has_name(source: str, reference: str) -> bool:
    capital = {word for word in _WORD.findall(source)[1:] if word[0].isupper()}
    return bool(capital & set(_WORD.findall(reference)[1:]))


def _bleu(members: list[int], hypotheses: Sequence[str], references: Sequence[str], config: MetricsConfig) -> float:
    config = replace(config, names=["bleu"])
    return corpus_score([hypotheses[i] for i in members], [references[i] for i in members], config)["bleu"].score
