"""Test pairs that are in the training text: their scores say little of other text."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nmt.data.cache import cached_directory
from nmt.data.cleaning.filters import PairBlock
from nmt.data.config import DataConfig
from nmt.data.sources import dataset_fingerprint, read_blocks, resolve_split
from nmt.runtime.files import write_text


def overlaps(config: DataConfig, valid: Sequence[str], tests: Mapping[str, Sequence[tuple[str, str]]]) -> list[str]:
    """Return a sentence about each validation or test split that is part of the training text, and each test split with
    pairs that are in it but for case, punctuation, digits and spaces. The training text is read once, then cached."""
    training, texts = {*resolve_split(config, "train")}, list[str]()
    for split in [*valid, *tests]:
        if found := training & {*resolve_split(config, split)}:
            texts.append(f"{split}: {found.pop()} is training text too: its scores say nothing of text that is not")
    digest = dataset_fingerprint(config, "train").digest
    key = hashlib.sha256(json.dumps([digest, {name: list(pairs) for name, pairs in tests.items()}]).encode())

    def build(folder: Path) -> None:
        known = {name: PairBlock(*zip(*pairs, strict=True)).pair_hashes for name, pairs in tests.items() if pairs}
        found = {name: np.zeros(len(hashes), np.bool_) for name, hashes in known.items()}
        for block in read_blocks(config, "train", Counter()):
            hashes = PairBlock(*block).pair_hashes
            found = {name: rows | np.isin(known[name], hashes) for name, rows in found.items()}
        content = {name: np.flatnonzero(rows).tolist() for name, rows in found.items()}
        write_text(folder / "found.json", json.dumps(content))

    folder = cached_directory(Path(config.cache_dir) / f"overlap-{key.hexdigest()[:16]}", build)
    for name, rows in json.loads((folder / "found.json").read_text(encoding="utf-8")).items():
        if rows:
            number, first = f"{len(rows)} of {len(tests[name])} pairs", " ||| ".join(tests[name][rows[0]])
            number += " are in the training text, from which nmt.clean can remove them; the first of them"
            texts.append(f"{name}: {number} is line {rows[0] + 1}: {first}")
    return texts
