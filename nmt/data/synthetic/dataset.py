"""The built-in language pair as files in the cache."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from nmt.data.cache import cached_directory

if TYPE_CHECKING:
    from nmt.data.sources import DataConfig

LANGUAGES = ("en", "de")
SETS = ("train", "valid", "test", "test_long")


def validate(config: "DataConfig") -> None:
    """Raises ValueError, naming the option, for values that cannot work."""
    for name in ("builtin_pairs", "builtin_valid", "builtin_test", "builtin_long"):
        if getattr(config, name) < 1:
            raise ValueError(f"data.{name}={getattr(config, name)}: must be at least 1")
    if config.builtin_seed < 0:
        raise ValueError(f"data.builtin_seed={config.builtin_seed}: must be 0 or more")
    languages = (config.source_lang, config.target_lang)
    own = [name for name in ("train", "valid", "test") if not getattr(config, name)]
    if own and sorted(languages) != sorted(LANGUAGES):
        raise ValueError(
            f"data.source_lang={languages[0]} and data.target_lang={languages[1]}: the built-in pair is en and de, "
            "in either direction"
        )


def directory(config: "DataConfig") -> Path:
    """The folder with train, valid, test and test_long as PREFIX.en, PREFIX.de and PREFIX.gold, written if need be."""
    from nmt.data import synthetic

    validate(config)
    reverse = config.source_lang != LANGUAGES[0]
    sizes = [config.builtin_pairs, config.builtin_valid, config.builtin_test, config.builtin_long]
    digest = hashlib.sha256(json.dumps([sizes, config.builtin_seed, reverse]).encode())
    assert synthetic.__file__ is not None
    for module in sorted(Path(synthetic.__file__).parent.glob("*.py")):
        digest.update(module.read_bytes())  # another grammar writes other text

    def build(folder: Path) -> None:
        num_train, num_valid, num_test, num_long = sizes
        synthetic.write(
            folder,
            seed=config.builtin_seed,
            num_train=num_train,
            num_valid=num_valid,
            num_test=num_test,
            num_long=num_long,
        )
        if reverse:
            for gold in folder.glob("*.gold"):
                lines = gold.read_text(encoding="utf-8").splitlines()
                gold.write_text("".join(f"{_reversed(line)}\n" for line in lines), encoding="utf-8")

    return cached_directory(Path(config.cache) / f"builtin-{digest.hexdigest()[:16]}", _complete, build)


def _complete(folder: Path) -> bool:
    files = [folder / f"{name}.{suffix}" for name in SETS for suffix in (*LANGUAGES, "gold")]
    return all(path.is_file() and path.stat().st_size > 0 for path in files)


def _reversed(line: str) -> str:
    """A line of alignment links with the two languages exchanged."""
    links = []
    for link in line.split():
        mark = "p" if "p" in link else "-"
        source, target = link.split(mark)
        links.append((int(target), int(source), mark))
    return " ".join(f"{i}{mark}{j}" for i, j, mark in sorted(links))
