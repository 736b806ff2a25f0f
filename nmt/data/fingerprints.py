"""Digests of files, remembered where a file cannot have changed without a sign of it."""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from nmt.runtime.files import write_text

FOLDER = "digests"
SETTLED_SECONDS = 60
"""A file whose time stamps are younger is always read. Stamps have the coarseness of a clock tick (seconds on some file
systems), so a file can change twice within one; and pages written through a memory map get their stamp up to half a
minute before they are written for the last time."""
LARGE_BYTES = 1 << 24
"""Digests of smaller files are not kept on disk: reading them again takes a hundredth of a second."""

_known: dict[str, dict[str, Any]] = {}


def file_digest(path: Path, cache: Path) -> bytes:
    """The SHA-256 of a file's content.

    It is remembered, in the process and for large files in a folder of `cache`, together with the file's path, size,
    device, inode, and times of change (of content, and of the inode, which a program cannot set). Whenever one of them
    differs, or was less than a minute old when the file was read, the file is read again.
    """
    place = str(path.resolve())
    with path.open("rb") as file:
        state = _state(file.fileno(), place)
        note = cache / FOLDER / f"{hashlib.sha256(place.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.json"
        known = _known.get(place) or (_read(note) if state["size"] >= LARGE_BYTES else {})
        if known.get("state") == state:
            _known[place] = known
            return bytes.fromhex(known["sha256"])
        settled = time.time() - max(state["modified"], state["changed"]) / 1e9 > SETTLED_SECONDS
        digest = hashlib.file_digest(file, "sha256")
        if settled and _state(file.fileno(), place) == state:
            _known[place] = {"state": state, "sha256": digest.hexdigest()}
            if state["size"] >= LARGE_BYTES:
                with contextlib.suppress(OSError):  # a cache that cannot be written: the file is read again next time
                    write_text(note, json.dumps({**_known[place], "check": _check(_known[place])}))
    return digest.digest()


def _state(descriptor: int, place: str) -> dict[str, Any]:
    stat = os.fstat(descriptor)
    return {
        "path": place,
        "size": stat.st_size,
        "modified": stat.st_mtime_ns,
        "changed": stat.st_ctime_ns,
        "device": stat.st_dev,
        "inode": stat.st_ino,
    }


def _read(note: Path) -> dict[str, Any]:
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        check = content.pop("check")
        return content if check == _check(content) else {}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):  # none, or a damaged one
        return {}


def _check(known: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
