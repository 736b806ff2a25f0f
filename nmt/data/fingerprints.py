"""Fingerprints of files, cached in the process as long as a file cannot have changed unnoticed."""

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from nmt.runtime.files import name_in_errors

MIN_MTIME_AGE = 60
"""A file with more recent time stamps is always read. Stamps have the resolution of a clock tick (seconds on some file
systems), so a file can change twice within one; and pages written through a memory map get their stamp up to half a
minute before they are written for the last time."""


class FileFingerprint(NamedTuple):
    """The content of a file, or of a data set that is not files.

    sha256: in hexadecimal digits. stamps: times of change of the content and of the inode, which differ after every
    change, also after one that was undone.
    """

    name: str
    sha256: str
    stamps: tuple[int, ...] = ()


_known: dict[Path, tuple[tuple[int, ...], str]] = {}


def file_fingerprint(path: Path) -> FileFingerprint:
    """Return the fingerprint of a file.

    Its SHA-256 is cached with the file's size, device, inode, and times of change (of content, and of the inode, which
    a program cannot set). Whenever one of them differs, or was less than a minute old when the file was read, the file
    is read again.
    """
    resolved = path.resolve()
    with name_in_errors(path), path.open("rb") as file:
        state = _state(file.fileno())
        cached_state, sha256 = _known.get(resolved, (None, ""))
        if cached_state != state:
            settled = time.time() - max(state[-2:]) / 1e9 > MIN_MTIME_AGE
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if settled and _state(file.fileno()) == state:
                _known[resolved] = state, sha256
    return FileFingerprint(str(path), sha256, state[-2:])


def check_unchanged(before: Iterable[FileFingerprint], after: Iterable[FileFingerprint]) -> None:
    """Raise ValueError, naming the files, when some have changed between the two, even if the change was undone."""
    if changed := sorted({file.name for file in set(before) ^ set(after)}):
        raise ValueError(
            f"{', '.join(changed)}: the text was changed while it was read; start again when it is complete"
        )


def _state(descriptor: int) -> tuple[int, ...]:
    stat = os.fstat(descriptor)
    return stat.st_size, stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns
