"""Where the named sets of values (`configs/`) lie, and what they hold."""

from pathlib import Path

import yaml  # type: ignore[import-untyped]


def folders() -> list[Path]:
    """Folders of named configurations: the project's, then `configs` in the working directory for the user's own."""
    here = Path(__file__).resolve().parent
    own = here / "configs" if (here / "configs").is_dir() else here.parent / "configs"
    if not own.is_dir():
        raise FileNotFoundError(f"{own}: the folder of configurations is missing; install nmt again")
    users = Path.cwd() / "configs"
    return [own] if not users.is_dir() or users.resolve() == own else [own, users]


def choices(group: str) -> list[str]:
    """The names that may follow `group=`."""
    return sorted({file.stem for folder in folders() for file in (folder / group).glob("*.yaml")})


def preset_options(group: str, choice: str) -> list[str]:
    """The options that a named configuration of a group sets."""
    for folder in folders():
        file = folder / group / f"{choice}.yaml"
        if file.is_file():
            values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            return [f"{group}.{key}" for key in values if key != "defaults"]
    return []
