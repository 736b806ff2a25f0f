"""Sentences translated by every group: texts as JSON, attention as compressed bytes, and the HTML around them."""

import zipfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nmt.compare.comparison import RunComparison, pair_runs
from nmt.compare.grouping import RunGroup
from nmt.compare.run_results import RunResult
from nmt.evaluation.report.html import macros, printable
from nmt.evaluation.report.sentence_browser import subword_row
from nmt.evaluation.report.weight_encoding import MAX_QUANTIZATION_ERROR, AttentionPacker, check_weights

NUM_SENTENCES = 20
"""Default number of sentences in a page."""
MAX_BYTES = 6_000_000
"""All matrices of a page together, compressed."""
MAX_TRANSLATIONS = 20_000
"""All translations of a page; sentences beyond are left out, unless their attention is shown."""
_BY_LENGTH = "by length"


class SampledSentence(NamedTuple):
    """A sentence of the test set, counted from 0, and the reason of its choice."""

    number: int
    reason: str


def select_sentences(groups: Sequence[RunGroup], num: int) -> list[SampledSentence]:
    """Return half of them spread evenly over the source lengths, half those whose chrF differs most."""
    sources = groups[0].results[0].sources
    by_length = sorted(range(len(sources)), key=lambda i: (len(sources[i].split(" ")), i))
    num = min(num, len(sources))
    num_even = -(-num // 2) if len(groups) > 1 else num
    step = (len(by_length) - 1) / max(num_even - 1, 1)
    reasons = {by_length[round(k * step)]: _BY_LENGTH for k in range(num_even)}
    spread = np.ptp(mean_chrf(groups), axis=0)
    for i in sorted(range(len(sources)), key=lambda i: (-spread[i], i)):
        if len(reasons) == num:
            break
        reasons.setdefault(i, f"chrF differs by {spread[i]:.0f}")
    return [SampledSentence(i, reason) for i, reason in reasons.items()]


def mean_chrf(groups: Sequence[RunGroup]) -> npt.NDArray[np.float64]:
    """Return (G, N) chrF of each group and sentence, the mean over seeds."""
    return np.array([np.mean([run.sentence_chrf for run in group.results], axis=0) for group in groups])


def chrf_gains(groups: Sequence[RunGroup]) -> npt.NDArray[np.float64]:
    """Return (G, N) by how much each sentence's chrF, to four decimals, is above that of the first group: the mean over
    the pairs of runs that are tested."""
    pairs = [pair_runs(groups[0], group) for group in groups]
    differences = [[np.subtract(run.sentence_chrf, base.sentence_chrf) for base, run in each] for each in pairs]
    return np.array([np.mean(each, axis=0) for each in differences]).round(4)


def wins(groups: Sequence[RunGroup]) -> list[list[str]]:
    """Return the label of each group but the first, and the number of sentences whose chrF is above, below and equal to
    that of the first group."""
    counts = [[(gains > 0).sum(), (gains < 0).sum(), (gains == 0).sum()] for gains in chrf_gains(groups)[1:]]
    return [[group.label, *map(str, row)] for group, row in zip(groups[1:], counts, strict=True)]


def section(comparison: RunComparison, num: int = NUM_SENTENCES, max_bytes: int = MAX_BYTES) -> str:
    """Return the HTML of the section; "" for no sentences.

    Raises:
        ValueError: the alignments of a report are damaged, or of another test set.
    """
    if num < 1:
        return ""
    chosen = select_sentences(comparison.groups, num)
    runs = [group.results[0] for group in comparison.groups]
    sources, references = runs[0].sources, runs[0].references
    reasons, num_searched = dict(chosen), min(len(sources), MAX_TRANSLATIONS // len(runs))
    shown = [*chosen, *(SampledSentence(i, "") for i in range(num_searched) if i not in reasons)]
    means, gains = mean_chrf(comparison.groups).round(4).tolist(), chrf_gains(comparison.groups).tolist()
    sentences: list[dict[str, Any]] = [
        {"n": i + 1, "why": reason, "s": printable(sources[i]), "r": printable(references[i])} for i, reason in shown
    ]
    for (i, _), sentence in zip(shown, sentences, strict=True):
        sentence |= {"rs": [printable(texts[i]) for texts in runs[0].further]} if runs[0].further else {}
        sentence["of"] = [
            {"h": printable(run.hypotheses[i]), "v": round(run.sentence_chrf[i], 2), "m": mean[i], "d": gain[i]}
            for run, mean, gain in zip(runs, means, gains, strict=True)
        ]
    models, lines = list[dict[str, Any]](), list[str]()
    for m, (group, run) in enumerate(zip(comparison.groups, runs, strict=True)):
        layer, head, shift = run.alignment_source
        packer = AttentionPacker(layer, head)
        for sentence, (weights, subwords) in zip(sentences, _attention(run, chosen), strict=False):
            packer.add(weights)
            sentence["of"][m] |= subwords
        packed = packer.pack(max_bytes // len(runs))
        lines += [*packed.lines, *[""] * (len(shown) - len(chosen))]
        about = printable(f"seed {run.seed}, {run.label}")
        seeds = {"runs": len(group.results), "shift": shift}
        models.append({"name": printable(group.label), "about": about, **seeds, **packer.header(packed)})
    content = {"models": models, "sentences": sentences}
    return macros("compare/templates/compare.html").sentences(
        _about(comparison, chosen, len(shown)), content, lines, wins(comparison.groups)
    )


def _about(comparison: RunComparison, chosen: Sequence[SampledSentence], num_shown: int) -> str:
    """Return a description of the sentences, of the sample with attention and of the precision of its weights."""
    num_even = sum(sentence.reason == _BY_LENGTH for sentence in chosen)
    text = f"{num_shown:,} of {comparison.num_sentences:,} sentences, {len(chosen)} with attention: "
    text += f"{num_even} spread evenly over the source lengths"
    if num_even < len(chosen):
        text += f", {len(chosen) - num_even} whose chrF differs most between groups, which is no representative sample"
    if any(len(group.results) > 1 for group in comparison.groups):
        text += ". Of each group the first seed is shown"
    return f"{text}. Weights are off by {MAX_QUANTIZATION_ERROR:.3f} at most."


def _attention(
    run: RunResult, chosen: Sequence[SampledSentence]
) -> Iterator[tuple[npt.NDArray[np.float64] | None, dict[str, Any]]]:
    """Yield (L, H, T, S) weights of each sentence and the subwords of their rows and columns; None and {} without."""
    path = run.report / "alignments.npz"
    if not path.is_file():
        yield from [(None, {})] * len(chosen)
        return
    try:
        with np.load(path, allow_pickle=False) as stored:
            for i, _ in chosen:
                weights = stored[f"{i}.weights"].astype(np.float64)
                arrays = ("source", "target", "source_words", "target_words", "links")
                subwords = subword_row(*(stored[f"{i}.{name}"].tolist() for name in arrays))
                check_weights(weights, (len(subwords["tp"]), len(subwords["sp"])), f"sentence {i + 1}: ")
                yield weights, subwords
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: {reason}; evaluate the run again") from None
