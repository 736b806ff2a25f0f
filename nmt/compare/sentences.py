"""The same sentences, translated by every group: texts as JSON, attention as compressed bytes, and their frame."""

import json
import statistics
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nmt.compare.comparison import Comparison
from nmt.compare.grouping import Group
from nmt.compare.run_results import Outcome
from nmt.evaluation.report.html import escape, printable
from nmt.evaluation.report.weight_encoding import Matrices, Packed, largest_error

NUM = 20
"""Sentences that a page shows."""
MAX_BYTES = 6_000_000
"""All matrices of a page together, compressed."""


class Chosen(NamedTuple):
    """A sentence of the test set, counted from 0, and why it was chosen."""

    number: int
    why: str


def choose(groups: Sequence[Group], num: int) -> list[Chosen]:
    """Half of them spread evenly over the lengths of the sources, half those whose chrF differs most between groups."""
    sources = groups[0].outcomes[0].sources
    by_length = sorted(range(len(sources)), key=lambda i: (len(sources[i].split(" ")), i))
    num = min(num, len(sources))
    num_even = -(-num // 2) if len(groups) > 1 else num
    step = (len(by_length) - 1) / max(num_even - 1, 1)
    found = {by_length[round(k * step)]: "by length" for k in range(num_even)}
    means = [
        [statistics.fmean(values) for values in zip(*(run.sentence_chrf for run in group.outcomes), strict=True)]
        for group in groups
    ]
    spread = [max(values) - min(values) for values in zip(*means, strict=True)]
    for i in sorted(range(len(sources)), key=lambda i: (-spread[i], i)):
        if len(found) == num:
            break
        found.setdefault(i, f"chrF differs by {spread[i]:.0f}")
    return [Chosen(i, why) for i, why in found.items()]


def section(found: Comparison, num: int = NUM, max_bytes: int = MAX_BYTES) -> str:
    """HTML of the section; "" for no sentences.

    Raises:
        ValueError: the alignments of a report are damaged, or of another test set.
    """
    if num < 1:
        return ""
    chosen = choose(found.groups, num)
    runs = [group.outcomes[0] for group in found.groups]
    sentences = [
        {
            "n": each.number + 1,
            "why": each.why,
            "s": printable(runs[0].sources[each.number]),
            "r": printable(runs[0].references[each.number]),
            "of": [],
        }
        for each in chosen
    ]
    models: list[dict[str, Any]] = []
    lines: list[str] = []
    for group, run in zip(found.groups, runs, strict=True):
        shape, packed = _add(run, chosen, sentences, max_bytes // len(runs))
        layer, head, shift = run.reading
        models.append(
            {
                "name": printable(group.label),
                "about": printable(f"seed {run.seed}, {run.label}"),
                "layers": shape[0],
                "heads": shape[1],
                "layer": layer,
                "head": head,
                "shift": shift,
                "levels": packed.levels,
                "full": packed.num_full,
            }
        )
        lines += packed.lines
    # "<" would begin an end tag inside a text.
    content = json.dumps({"models": models, "sentences": sentences}, ensure_ascii=False, separators=(",", ":"))
    error = max(largest_error(model["levels"]) for model in models)
    return (
        f'<p class="soft small">{escape(_about(found, chosen, error))}</p>\n'
        "<noscript><p>The sentences are shown by a script, which this browser does not run; the reports of the runs "
        "hold them too.</p></noscript>\n"
        f'<div id="browser" hidden>{_FRAME}</div>\n'
        f'<script type="application/json" id="texts">{content.replace("<", chr(92) + "u003c")}</script>\n'
        f'<script type="text/plain" id="weights">{chr(10).join(lines)}</script>'
    )


def _about(found: Comparison, chosen: Sequence[Chosen], error: float) -> str:
    even = sum(each.why == "by length" for each in chosen)
    text = f"{len(chosen)} of {found.num_sentences:,} sentences: {even} spread evenly over the lengths of the sources"
    if even < len(chosen):
        text += f", {len(chosen) - even} whose chrF differs most between groups, which is no fair sample"
    one = all(len(group.outcomes) == 1 for group in found.groups)
    return f"{text}. {'' if one else 'Of each group the first seed. '}Weights are off by {error:.3f} at most."


def _add(
    run: Outcome, chosen: Sequence[Chosen], sentences: Sequence[dict[str, Any]], max_bytes: int
) -> tuple[tuple[int, int], Packed]:
    """Adds a run's translations to the sentences; layers and heads, and its matrices in their order."""
    matrices, shape = Matrices(*run.reading[:2]), (0, 0)
    for sentence, (index, weights, words) in zip(sentences, _attention(run, chosen), strict=True):
        if weights is not None:
            shape = weights.shape[0], weights.shape[1]
        matrices.add(weights)
        chrf = round(run.sentence_chrf[index], 2)
        sentence["of"].append({"h": printable(run.hypotheses[index]), "v": chrf, **words})
    return shape, matrices.pack(max_bytes)


def _attention(
    run: Outcome, chosen: Sequence[Chosen]
) -> list[tuple[int, npt.NDArray[np.float64] | None, dict[str, Any]]]:
    """For each sentence its number, (L, H, T, S) weights and what their rows and columns are; None and {} without."""
    path = run.report / "alignments.npz"
    if not path.is_file():
        return [(each.number, None, {}) for each in chosen]
    found: list[tuple[int, npt.NDArray[np.float64] | None, dict[str, Any]]] = []
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
                found.append((index, weights, words))
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{path}: {said}; evaluate the run again") from None
    return found


_FRAME = """
<div class="pane">
  <div id="list" role="listbox" tabindex="0" aria-label="Sentences"></div>
</div>
<div id="sentence">
  <div class="bar"><h3 id="name"></h3><span class="soft small" id="values"></span>
    <button type="button" id="previous">← previous</button><button type="button" id="next">next →</button></div>
  <div class="trace" id="source-line" aria-label="source"></div>
  <p id="reference" dir="auto"></p>
  <div class="bar"><label>Units <select id="units"><option value="words">words</option>
    <option value="pieces">subwords</option></select></label></div>
  <div id="models"></div>
</div>
"""
