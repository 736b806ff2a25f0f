"""The built-in language pair as files in the cache."""

import hashlib
import json
from pathlib import Path

from nmt.alignment.pharaoh import GoldAlignment, Link, read_gold, write_gold
from nmt.data.cache import cached_directory

LANGUAGES = ("en", "de")
SETS = ("train", "valid", "test", "test_long")


def dataset_directory(cache: Path, sizes: tuple[int, int, int, int], seed: int, *, reverse: bool) -> Path:
    """Return the folder with train, valid, test and test_long as PREFIX.en, PREFIX.de and PREFIX.gold; write it if it
    does not exist.

    Args:
        cache: the folder it is in.
        sizes: number of pairs in each of SETS.
        seed: of the draw.
        reverse: whether German is the source of the links.
    """
    from nmt.data import synthetic

    key = hashlib.sha256(json.dumps([sizes, seed, reverse]).encode())
    key.update(synthetic.digest().encode())

    def build(folder: Path) -> None:
        num_train, num_valid, num_test, num_long = sizes
        synthetic.write(
            folder, seed=seed, num_train=num_train, num_valid=num_valid, num_test=num_test, num_long=num_long
        )
        if reverse:
            for path in folder.glob("*.gold"):
                write_gold(
                    path, [GoldAlignment(_turned(gold.sure), _turned(gold.possible)) for gold in read_gold(path)]
                )

    return cached_directory(cache / f"builtin-{key.hexdigest()[:16]}", _complete, build)


def _complete(folder: Path) -> bool:
    files = [folder / f"{name}.{suffix}" for name in SETS for suffix in (*LANGUAGES, "gold")]
    return all(path.is_file() and path.stat().st_size > 0 for path in files)


def _turned(links: frozenset[Link]) -> frozenset[Link]:
    return frozenset((target, source) for source, target in links)
