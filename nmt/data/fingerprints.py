"""Fingerprints of files, cached in the process as long as a file cannot have changed unnoticed."""

import hashlib
import os
import time
from pathlib import Path

MIN_MTIME_AGE = 60
"""A file with more recent time stamps is always read. Stamps have the resolution of a clock tick (seconds on some file
systems), so a file can change twice within one; and pages written through a memory map get their stamp up to half a
minute before they are written for the last time."""

_known: dict[Path, tuple[tuple[int, ...], bytes]] = {}


def file_fingerprint(path: Path) -> bytes:
    """Return the SHA-256 of a file's content.

    It is cached with the file's size, device, inode, and times of change (of content, and of the inode, which a program
    cannot set). Whenever one of them differs, or was less than a minute old when the file was read, the file is read
    again.
    """
    resolved = path.resolve()
    with path.open("rb") as file:
        state = _state(file.fileno())
        cached_state, digest = _known.get(resolved, (None, b""))
        if cached_state == state:
            return digest
        settled = time.time() - max(state[-2:]) / 1e9 > MIN_MTIME_AGE
        digest = hashlib.file_digest(file, "sha256").digest()
        if settled and _state(file.fileno()) == state:
            _known[resolved] = state, digest
    return digest


def _state(descriptor: int) -> tuple[int, ...]:
    stat = os.fstat(descriptor)
    return stat.st_size, stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns
