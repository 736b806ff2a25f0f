"""Compressed files of text, by their suffix: .gz, .xz and .zst, read and written as a stream.

Readers take `FILE` for `FILE.gz` where only that exists; `find_file` is the one place that says so.
"""

import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nmt.runtime.files import atomic_write, name_in_errors, open_output

SUFFIXES = (".gz", ".xz", ".zst")
_READ_BYTES = 1 << 14  # of a .zst file at a time: what they give is in memory together


def plain_path(path: Path) -> Path:
    """Return a path without the suffix of its compression."""
    return path.with_suffix("") if path.suffix in SUFFIXES else path


def find_file(path: Path) -> Path:
    """Return `path`, or where there is no such file its compressed form, if that exists."""
    candidates = (path.with_name(path.name + suffix) for suffix in SUFFIXES)
    return path if path.exists() else next((file for file in candidates if file.is_file()), path)


@contextlib.contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read its bytes, decompressed.

    Raises:
        ValueError: it is compressed and damaged or incomplete, which is found out when it is read; or a package that
            reads it is not installed.
        OSError: it cannot be read.
    """
    damages: tuple[type[Exception], ...] = (gzip.BadGzipFile, EOFError, lzma.LZMAError, zlib.error)
    damages += (_zstandard(path).ZstdError,) if path.suffix == ".zst" else ()
    try:
        with name_in_errors(path), path.open("rb") as file, _decompressed(file, path) as stream:
            yield stream
    except damages as error:
        raise ValueError(
            f"{path}: the compressed file is damaged or incomplete ({error}); make or fetch it again"
        ) from None


@contextlib.contextmanager
def atomic_output(final: Path) -> Iterator[BinaryIO]:
    """Open a file to write bytes to, compressed as its suffix says. It gets its name when the block succeeds.

    The same bytes give the same file: no time and no name is stored in it.
    """
    with atomic_write(final) as temporary, contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(open_output(temporary))
        if final.suffix == ".gz":
            file = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))
        elif final.suffix == ".xz":
            file = stack.enter_context(lzma.LZMAFile(file, "wb"))
        elif final.suffix == ".zst":
            file = stack.enter_context(_zstandard(final).ZstdCompressor().stream_writer(file, closefd=False))
        yield file


def _decompressed(file: BinaryIO, path: Path) -> Any:
    if path.suffix == ".gz":
        return gzip.GzipFile(fileobj=file)
    if path.suffix == ".xz":
        return lzma.LZMAFile(file)
    return io.BufferedReader(_ZstdReader(file, path)) if path.suffix == ".zst" else file


class _ZstdReader(io.RawIOBase):
    """The content of a .zst file of any number of frames. The library's own reader takes a cut one for a whole."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._decompressor = file, _zstandard(path).ZstdDecompressor()
        self._frame: Any = None  # the one that is being read
        self._input = self._content = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._content:
            data = self._input or self._file.read(_READ_BYTES)
            if not data and self._frame is not None:
                raise EOFError("it ends inside a frame")
            if not data:
                return 0
            self._frame = self._frame or self._decompressor.decompressobj()
            self._content, self._input = self._frame.decompress(data), self._frame.unused_data
            self._frame = None if self._frame.eof else self._frame
        num = min(len(buffer), len(self._content))
        buffer[:num], self._content = self._content[:num], self._content[num:]
        return num


def _zstandard(path: Path) -> Any:
    try:
        import zstandard
    except ImportError:
        hint = "python -m pip install 'nmt-attention[zstd]' installs it; or use .gz or .xz"
        raise ValueError(f"{path}: needs the package zstandard, which is not installed; {hint}") from None
    return zstandard
