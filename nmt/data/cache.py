"""Directories of the cache: whole and unchanged, or made anew, whatever other processes build at the same time."""

import logging
import os
import zlib
from collections.abc import Callable
from pathlib import Path

from nmt.runtime.files import final_name_in_errors, remove, temp_path, write_text

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.txt"


def cached_directory(final: Path, build: Callable[[Path], None]) -> Path:
    """Return `final`, filled by `build` unless every file in it is as it was written.

    It is built in a temporary directory beside it and moved in one step. Of several processes that build it at once one
    wins, and the others use its result. A damaged directory is replaced, with a warning that names the first file at
    fault; processes that have its files open or mapped keep those.
    """
    existed = os.path.lexists(final)
    damaged = _find_damage(final)
    if damaged is None:
        return final
    if existed:
        logger.warning("%s is missing or damaged; %s is made anew", damaged, final)
    temporary, replaced = temp_path(final), temp_path(final)
    temporary.mkdir()
    try:
        with final_name_in_errors(temporary, final):
            build(temporary)
            lines = "".join(f"{_checksum(path)}\n" for path in sorted(temporary.iterdir()))
            write_text(temporary / CHECKSUMS, f"{zlib.crc32(lines.encode()):08x}\n{lines}")
        if os.path.lexists(final) and _find_damage(final) is not None:
            final.rename(replaced)
        try:
            temporary.rename(final)
        except OSError:
            if _find_damage(final) is not None:
                raise
    finally:
        remove(temporary)
        remove(replaced)
    return final


def _find_damage(folder: Path) -> Path | None:
    """Return the first file of a directory that is missing, unreadable or not as it was written; None for a whole one.

    All of it is read: at several GB/s from memory this is cheaper than any mistake.
    """
    path = folder / CHECKSUMS
    try:
        header, lines = path.read_text(encoding="utf-8").split("\n", 1)
        if not lines or header != f"{zlib.crc32(lines.encode()):08x}":
            return path
        for line in lines.splitlines():
            path = folder / line.split(" ", 2)[2]
            if _checksum(path) != line:
                return path
    except (OSError, ValueError):
        return path
    return None


def _checksum(path: Path) -> str:
    """Return the CRC-32, the size and the name of a file."""
    size = crc = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 20):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return f"{crc:08x} {size} {path.name}"
