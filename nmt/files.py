"""Files that are whole or not there."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def neighbour(final: Path) -> Path:
    """A free temporary name beside `final`, whose folder is made."""
    final.parent.mkdir(parents=True, exist_ok=True)
    return final.parent / f".{final.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


@contextmanager
def whole(final: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the name `final` when the block ends and is removed when it fails."""
    temporary = neighbour(final)
    try:
        yield temporary
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(final: Path, text: str) -> None:
    r"""Writes the whole text or nothing, in UTF-8, lines ending at "\n"."""
    with whole(final) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
