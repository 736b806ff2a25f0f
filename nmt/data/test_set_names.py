"""Names of further test sets, which are those of the folders of their reports."""

import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

RESERVED_NAMES = (
    *("train", "valid", "test", "heatmaps", "report.html", "config.yaml", "scores.json", "diagnostics.json"),
    *("hypotheses.txt", "sentences.jsonl", "head_alignment_scores.json", "languages.html", "languages.json"),
    *("alignments.npz", "alignments.pharaoh", "reference_alignments.pharaoh"),
)
"""Names of the splits, and of all that a report holds, beside which the folders are."""


def distinct_names(locations: Sequence[str]) -> dict[str, str]:
    """Return a name for each location, of its `candidate_names`: of a/test and b/test they are a-test and b-test.

    Names differ in more than case, and in more than the characters that TensorBoard replaces.
    """
    depths = range(max((location.count("/") for location in locations), default=0) + 1)
    candidates = zip(depths, *map(candidate_names, locations), strict=False)
    taken = {key for _, *names in candidates for key, num in Counter(map(_key, names)).items() if num > 1}
    taken.update(map(_key, RESERVED_NAMES))
    names = {}
    for location in locations:
        names[location] = next(name for name in candidate_names(location) if _key(name) not in taken)
        taken.add(_key(names[location]))
    return names


def candidate_names(location: str) -> Iterator[str]:
    """Yield names for a path, which file systems allow: of a/b/test test, b-test, a-b-test, and test-2, test-3, …"""
    parts = [part for part in Path(os.path.normpath(location)).parts if part.strip("./")] or ["set"]
    suffixes = ("-".join(parts[start:]) for start in reversed(range(len(parts))))
    yield from (name for name in suffixes if len(os.fsencode(name)) <= 255)
    yield from (f"{parts[-1]}-{number}" for number in itertools.count(2))


def _key(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", unicodedata.normalize("NFKC", name).casefold())
