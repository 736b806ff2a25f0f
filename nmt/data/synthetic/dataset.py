"""The synthetic language pair as files in the cache."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from nmt.alignment.pharaoh import GoldAlignment, Link, read_gold, write_gold
from nmt.config import check_range
from nmt.data.cache import cached_directory

LANGUAGES = ("en", "de")


@dataclass
class SyntheticConfig:
    """Size and seed of the built-in language pair.

    train: number of training pairs.
    valid: number of validation pairs.
    test: number of test pairs.
    long: number of pairs of the second test set, whose sentences are longer than any in training.
    seed: seed of the sampled sentences.
    """

    train: int = 40_000
    valid: int = 500
    test: int = 1000
    long: int = 200
    seed: int = 0

    def validate(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        check_range("data.synthetic", self, ["train", "valid", "test", "long"], minimum=1)
        check_range("data.synthetic", self, ["seed"], minimum=0)


def dataset_directory(cache: Path, config: SyntheticConfig, *, reverse: bool) -> Path:
    """Return the directory with train, valid, test and test_long as PREFIX.en, PREFIX.de and PREFIX.gold; write it if
    it does not exist.

    Args:
        cache: its parent directory.
        config: number of pairs in each of them, and the seed.
        reverse: whether German is the source of the links.
    """
    from nmt.data import synthetic

    key = hashlib.sha256(json.dumps([*dataclasses.astuple(config), reverse]).encode())
    key.update(synthetic.digest().encode())

    def build(folder: Path) -> None:
        counts = {
            "num_train": config.train,
            "num_valid": config.valid,
            "num_test": config.test,
            "num_long": config.long,
        }
        synthetic.write_corpora(folder, seed=config.seed, **counts)
        for path in folder.glob("*.gold") if reverse else ():
            gold = [GoldAlignment(_reverse(links.sure), _reverse(links.possible)) for links in read_gold(path)]
            write_gold(path, gold)

    return cached_directory(cache / f"builtin-{key.hexdigest()[:16]}", build)


def _reverse(links: frozenset[Link]) -> frozenset[Link]:
    return frozenset((target, source) for source, target in links)
