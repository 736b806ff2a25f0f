"""The same sentences, translated by every group: texts as JSON, attention as compressed bytes, and their frame."""

import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nmt.compare.comparison import RunComparison
from nmt.compare.grouping import RunGroup
from nmt.compare.run_results import RunResult
from nmt.evaluation.report.html import macros, printable
from nmt.evaluation.report.weight_encoding import LEVELS, MAX_QUANTIZATION_ERROR, AttentionPacker

NUM_SENTENCES = 20
"""Sentences that a page shows."""
MAX_BYTES = 6_000_000
"""All matrices of a page together, compressed."""


class SampledSentence(NamedTuple):
    """A sentence of the test set, counted from 0, and why it was chosen."""

    number: int
    why: str


def sample_sentences(groups: Sequence[RunGroup], num: int) -> list[SampledSentence]:
    """Return half of them spread evenly over the lengths of the sources, half those whose chrF differs most."""
    sources = groups[0].results[0].sources
    by_length = sorted(range(len(sources)), key=lambda i: (len(sources[i].split(" ")), i))
    num = min(num, len(sources))
    num_even = -(-num // 2) if len(groups) > 1 else num
    step = (len(by_length) - 1) / max(num_even - 1, 1)
    reasons = {by_length[round(k * step)]: "by length" for k in range(num_even)}
    means = [np.mean([run.sentence_chrf for run in group.results], axis=0) for group in groups]
    spread = np.ptp(means, axis=0)
    for i in sorted(range(len(sources)), key=lambda i: (-spread[i], i)):
        if len(reasons) == num:
            break
        reasons.setdefault(i, f"chrF differs by {spread[i]:.0f}")
    return [SampledSentence(i, why) for i, why in reasons.items()]


def section(comparison: RunComparison, num: int = NUM_SENTENCES, max_bytes: int = MAX_BYTES) -> str:
    """Return the HTML of the section; "" for no sentences.

    Raises:
        ValueError: the alignments of a report are damaged, or of another test set.
    """
    if num < 1:
        return ""
    chosen = sample_sentences(comparison.groups, num)
    runs = [group.results[0] for group in comparison.groups]
    sentences: list[dict[str, Any]] = [
        {
            "n": each.number + 1,
            "why": each.why,
            "s": printable(runs[0].sources[each.number]),
            "r": printable(runs[0].references[each.number]),
            "of": [],
        }
        for each in chosen
    ]
    models, lines = [], []
    for group, run in zip(comparison.groups, runs, strict=True):
        matrices, shape = AttentionPacker(*run.alignment_source[:2]), (0, 0)
        attention = _attention(run, chosen)
        for (index, _), sentence, (weights, words) in zip(chosen, sentences, attention, strict=True):
            if weights is not None:
                shape = weights.shape[0], weights.shape[1]
            matrices.add(weights)
            chrf = round(run.sentence_chrf[index], 2)
            sentence["of"].append({"h": printable(run.hypotheses[index]), "v": chrf, **words})
        packed = matrices.pack(max_bytes // len(runs))
        lines += packed.lines
        model = {
            "name": printable(group.label),
            "about": printable(f"seed {run.seed}, {run.label}"),
            "layers": shape[0],
            "heads": shape[1],
            **dict(zip(("layer", "head", "shift"), run.alignment_source, strict=True)),
            "levels": LEVELS,
            "full": packed.num_full,
        }
        models.append(model)
    content = {"models": models, "sentences": sentences}
    made: str = macros("compare/templates/compare.html").sentences(_about(comparison, chosen), content, lines)
    return made


def _about(comparison: RunComparison, chosen: Sequence[SampledSentence]) -> str:
    even = sum(each.why == "by length" for each in chosen)
    text = (
        f"{len(chosen)} of {comparison.num_sentences:,} sentences: {even} spread evenly over the lengths of the sources"
    )
    if even < len(chosen):
        text += f", {len(chosen) - even} whose chrF differs most between groups, which is no fair sample"
    one = all(len(group.results) == 1 for group in comparison.groups)
    return f"{text}. {'' if one else 'Of each group the first seed. '}Weights are off by {MAX_QUANTIZATION_ERROR:.3f} at most."


def _attention(
    run: RunResult, chosen: Sequence[SampledSentence]
) -> list[tuple[npt.NDArray[np.float64] | None, dict[str, Any]]]:
    """Return (L, H, T, S) weights of each sentence and what their rows and columns are; None and {} without."""
    path = run.report / "alignments.npz"
    if not path.is_file():
        return [(None, {})] * len(chosen)
    rows: list[tuple[npt.NDArray[np.float64] | None, dict[str, Any]]] = []
    try:
        with np.load(path, allow_pickle=False) as stored:
            for index, _ in chosen:
                weights = stored[f"{index}.weights"].astype(np.float64)
                words = {
                    "sp": [printable(piece) for piece in stored[f"{index}.source"].tolist()],
                    "tp": [printable(piece) for piece in stored[f"{index}.target"].tolist()],
                    "sw": stored[f"{index}.source_words"].tolist(),
                    "tw": stored[f"{index}.target_words"].tolist(),
                    "k": stored[f"{index}.links"].tolist(),
                }
                if weights.shape[2:] != (len(words["tp"]), len(words["sp"])):
                    raise ValueError(f"the matrix of sentence {index + 1} does not fit its subwords")
                rows.append((weights, words))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: {reason}; evaluate the run again") from None
    return rows
