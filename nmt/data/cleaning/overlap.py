"""Test pairs that are in the training text: their scores say nothing of other text."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nmt.data.cache import cached_directory
from nmt.data.cleaning.filters import pair_hashes
from nmt.data.cleaning.text_block import TextBlock
from nmt.data.sources import DataConfig, dataset_fingerprint, read_blocks, resolve_split
from nmt.runtime.files import write_text


def overlaps(config: DataConfig, tests: Mapping[str, Sequence[tuple[str, str]]]) -> list[str]:
    """Return a sentence about each validation or test text that is part of the training text, and each test set by name
    with pairs that are in it but for case, punctuation, digits and spaces. The training text is read once, then cached.
    """
    same = {name: {*resolve_split(config, "train")} & {*resolve_split(config, name)} for name in ("valid", "test")}
    texts = [
        f"data.{name}={' '.join(found)}: is training text too, so that its scores are no measure of others"
        for name, found in same.items()
        if found
    ]
    key = json.dumps(
        [dataset_fingerprint(config, "train").digest, {name: list(pairs) for name, pairs in tests.items()}]
    )

    def build(folder: Path) -> None:
        known = {
            name: pair_hashes(*(TextBlock(side) for side in zip(*pairs, strict=True))) for name, pairs in tests.items()
        }
        found = {name: np.zeros(len(hashes), np.bool_) for name, hashes in known.items()}
        for block in read_blocks(config, "train", Counter()):
            hashes = pair_hashes(*map(TextBlock, block))
            found = {name: rows | np.isin(known[name], hashes) for name, rows in found.items()}
        write_text(
            folder / "found.json", json.dumps({name: np.flatnonzero(rows).tolist() for name, rows in found.items()})
        )

    folder = cached_directory(
        Path(config.cache_dir) / f"overlap-{hashlib.sha256(key.encode()).hexdigest()[:16]}", build
    )
    for name, rows in json.loads((folder / "found.json").read_text(encoding="utf-8")).items():
        if rows:
            first = " ||| ".join(tests[name][rows[0]])
            number = f"{len(rows)} of its {len(tests[name])} pairs are in the training text, the first of them line {rows[0] + 1}"
            texts.append(f"{name}: {number}: {first}; remove them with python -m nmt.clean tests=[PREFIX]")
    return texts
