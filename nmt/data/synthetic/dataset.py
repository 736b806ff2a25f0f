"""The built-in language pair as files in the cache."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from nmt.alignment.pharaoh import GoldAlignment, Link, read_gold, write_gold
from nmt.data.cache import cached_directory

LANGUAGES = ("en", "de")
SETS = ("train", "valid", "test", "test_long")


@dataclass
class SyntheticConfig:
    """Size and seed of the built-in language pair.

    train: training pairs.
    valid: validation pairs.
    test: test pairs.
    long: pairs of the second test set, whose sentences are longer than any in training.
    seed: seed of the sampled sentences.
    """

    train: int = 40_000
    valid: int = 500
    test: int = 1000
    long: int = 200
    seed: int = 0

    def validate(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        for name in ("train", "valid", "test", "long"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.synthetic.{name}={getattr(self, name)}: must be at least 1")
        if self.seed < 0:
            raise ValueError(f"data.synthetic.seed={self.seed}: must be 0 or more")


def dataset_directory(cache: Path, config: SyntheticConfig, *, reverse: bool) -> Path:
    """Return the folder with train, valid, test and test_long as PREFIX.en, PREFIX.de and PREFIX.gold; write it if it
    does not exist.

    Args:
        cache: the folder it is in.
        config: number of pairs in each of SETS, and the seed.
        reverse: whether German is the source of the links.
    """
    from nmt.data import synthetic

    key = hashlib.sha256(json.dumps([*dataclasses.astuple(config), reverse]).encode())
    key.update(synthetic.digest().encode())

    def build(folder: Path) -> None:
        synthetic.write(
            folder,
            seed=config.seed,
            num_train=config.train,
            num_valid=config.valid,
            num_test=config.test,
            num_long=config.long,
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
