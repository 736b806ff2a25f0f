"""Files and folders of the cache: complete or not there, whoever else may be making them at the same time."""

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path


def _neighbour(final: Path) -> Path:
    final.parent.mkdir(parents=True, exist_ok=True)
    return final.parent / f".{final.name}.{os.getpid()}.{secrets.token_hex(4)}"


def cached_directory(final: Path, complete: Callable[[Path], bool], build: Callable[[Path], None]) -> Path:
    """`final`, filled by `build` unless it is already `complete`.

    It is built beside its place and moved there in one step. Of several processes that build it at once one wins, and
    the others take what it made. An incomplete folder is replaced.
    """
    if complete(final):
        return final
    temporary = _neighbour(final)
    temporary.mkdir()
    try:
        build(temporary)
        if final.exists() and not complete(final):
            damaged = _neighbour(final)
            final.rename(damaged)
            shutil.rmtree(damaged)
        try:
            temporary.rename(final)
        except OSError:
            if not complete(final):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def write_file(final: Path, content: bytes) -> None:
    """Writes the whole file or nothing."""
    temporary = _neighbour(final)
    try:
        temporary.write_bytes(content)
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)
