"""Files that may be compressed, read and written as streams: .gz, .xz and .zst, by their suffix."""

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


def plain_path(path: Path) -> Path:
    """Return a path without the suffix of its compression."""
    return path.with_suffix("") if path.suffix in SUFFIXES else path


def find_file(path: Path) -> Path:
    """Return `path`, or where there is no such file its compressed form, if that exists."""
    compressed = (path.with_name(path.name + suffix) for suffix in SUFFIXES)
    return path if path.exists() else next((file for file in compressed if file.is_file()), path)


@contextlib.contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read its bytes, decompressed. Reading raises ValueError where it is damaged or incomplete."""
    try:
        with name_in_errors(path), path.open("rb") as file:
            stream: Any = file
            if path.suffix == ".gz":
                stream = gzip.GzipFile(fileobj=file)
            elif path.suffix == ".xz":
                stream = lzma.LZMAFile(file)  # noqa: SIM115
            elif path.suffix == ".zst":
                stream = io.BufferedReader(_zstd(file, "CompressedInputStream"))
            yield stream
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        if isinstance(error, OSError) and (error.errno is not None or path.suffix not in SUFFIXES):
            raise
        raise ValueError(
            f"{path}: the compressed file is damaged or incomplete ({error}); make or fetch it again"
        ) from None


@contextlib.contextmanager
def atomic_output(final: Path) -> Iterator[BinaryIO]:
    """Open a file to write bytes to, compressed as its suffix says; it gets its name when the block succeeds."""
    with atomic_write(final) as temporary, contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(open_output(temporary))
        if final.suffix == ".gz":
            file = stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0))  # no name and time in it
        elif final.suffix == ".xz":
            file = stack.enter_context(lzma.LZMAFile(file, "wb"))
        elif final.suffix == ".zst":
            file = stack.enter_context(_zstd(file, "CompressedOutputStream"))
        yield file


def _zstd(file: BinaryIO, stream: str) -> Any:
    import pyarrow  # half a second; it finds out where a file is cut, as the package zstandard does not

    return getattr(pyarrow, stream)(pyarrow.PythonFile(file), "zstd")
