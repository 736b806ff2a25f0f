"""Members of archives, read without unpacking anything to the disk: no name in an archive decides where bytes go."""

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

LARGEST = 1 << 30
"""Bytes; no file of a corpus that comes in an archive is nearly as large."""


def members(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """The contents of the named files of a .tar (compressed or not) or .zip archive.

    Raises ValueError when the archive is damaged, lacks one of them, has it twice, holds it as a link, or has any
    member whose path leads out of the archive's folder.
    """
    found: dict[str, bytes] = {}
    everything: list[str] = []
    with _sentences(archive):
        for name, content in _zip(archive, names) if zipfile.is_zipfile(archive) else _tar(archive, names):
            everything.append(name)
            if content is not None:
                if name in found:
                    raise ValueError(f"{archive}: {name} is in it twice; this is not the archive that was meant")
                found[name] = content
    for name in names:
        if name not in found:
            raise ValueError(f"{archive}: no file {name} in it; it has {', '.join(everything[:8]) or 'nothing'}")
    return found


@contextmanager
def _sentences(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{archive}: cannot be unpacked ({reason}); delete it and give the command again") from error


def _tar(archive: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
    with tarfile.open(archive) as tar:
        for member in tar:
            name = _safe(archive, member.name)
            if name not in names:
                yield name, None
                continue
            if not member.isreg():
                raise ValueError(f"{archive}: {name} is a link or no ordinary file; this is not the archive meant")
            _check_size(archive, name, member.size)
            file = tar.extractfile(member)
            assert file is not None
            yield name, file.read()
    _to_the_end(archive)


def _to_the_end(archive: Path) -> None:
    """A tar ends before the compressed stream that holds it: only the end of that has the check sum."""
    with archive.open("rb") as file:
        start = file.read(2)
    openings: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
    if start in openings:
        with openings[start](archive) as packed:
            while packed.read(1 << 20):
                pass


def _zip(archive: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            name = _safe(archive, info.filename)
            if name not in names:
                yield name, None
                continue
            _check_size(archive, name, info.file_size)
            yield name, packed.read(info)


def _safe(archive: Path, name: str) -> str:
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    if path.is_absolute() or windows.drive or windows.root or ".." in {*path.parts, *windows.parts}:
        raise ValueError(
            f"{archive}: holds {name!r}, a path that leads out of its folder; nothing was taken from it. Get the "
            "archive from its original place"
        )
    return str(path)


def _check_size(archive: Path, name: str, size: int) -> None:
    if size > LARGEST:
        raise ValueError(f"{archive}: {name} would be {size} bytes, more than any corpus of this kind; not unpacked")
