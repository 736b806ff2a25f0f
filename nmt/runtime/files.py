"""Atomic writes, errors that name their file, and directory locks."""

import errno
import io
import logging
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"\..+@(?P<host>[^@]*)\.(?P<process>\d{1,9})\.[0-9a-f]{8}\.tmp")


def temp_path(final: Path) -> Path:
    """Return a new temporary path beside `final`, named after this host and process; create the folder."""
    final.parent.mkdir(parents=True, exist_ok=True)
    return final.parent / f".{final.name}@{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


@contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """Name `path` in an OSError of the block that names no file: those of writing, flushing and closing do not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def final_name_in_errors(temporary: Path, final: Path) -> Iterator[None]:
    """Write `final` for `temporary`, a file or a folder, in the file name of an OSError of the block."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str):
            error.filename = error.filename.replace(str(temporary), str(final))
        raise


class _OutputFile(io.FileIO):
    def write(self, data: Any, /) -> int:
        with name_in_errors(Path(str(self.name))):
            return super().write(data)

    def close(self) -> None:
        with name_in_errors(Path(str(self.name))):
            super().close()


def open_output(path: Path) -> io.BufferedWriter:
    """Create a file to write to; errors of writing it, such as a full disk, name it as those of opening do."""
    return io.BufferedWriter(_OutputFile(path, "w"))


@contextmanager
def atomic_write(final: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `final` when the block succeeds and removed when it fails."""
    temporary = temp_path(final)
    try:
        with final_name_in_errors(temporary, final):
            yield temporary
            temporary.replace(final)
    finally:
        remove(temporary)


def write_text(final: Path, text: str) -> None:
    r"""Write a text atomically, as UTF-8 with "\n" as the line end."""
    with atomic_write(final) as temporary, open_output(temporary) as file:
        file.write(text.encode())


class JsonlLog:
    """A text file to which whole lines are appended; lines are buffered in memory while the disk is full.

    Args:
        path: the file; if its lines differ from `first_lines`, it is replaced.
        first_lines: without line ends.
    """

    def __init__(self, path: Path, first_lines: Sequence[str]) -> None:
        content = "".join(line + "\n" for line in first_lines).encode()
        self.path, self.buffer = path, b""
        if not path.exists() or path.read_bytes() != content:
            with atomic_write(path) as temporary, open_output(temporary) as file:
                file.write(content)
        self.file = path.open("ab", buffering=0)
        self.size = len(content)

    def write(self, line: str) -> None:
        """Append a line now, or later if the disk is full, which is logged once."""
        was_empty = not self.buffer
        self.buffer += line.encode() + b"\n"
        try:
            self._flush()
        except OSError as error:
            if was_empty:
                log.warning("%s: could not be written (%s); it waits in memory", self.path, error.strerror)

    def sync(self) -> None:
        """Write every line to the disk; raise OSError when that fails."""
        try:
            self._flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise OSError(f"{self.path}: could not be written ({error.strerror})") from error

    def close(self) -> None:
        """Try once more to write the buffered lines; log those that are lost."""
        try:
            self._flush()
        except OSError as error:
            num = self.buffer.count(b"\n")
            log.warning("%s: the last %d lines could not be written (%s) and are lost", self.path, num, error.strerror)
        self.file.close()

    def _flush(self) -> None:
        written = 0
        try:
            while written < len(self.buffer):
                written += self.file.write(self.buffer[written:])
        except OSError:
            self.file.truncate(self.size)  # leaves no part of a line
            raise
        self.size += written
        self.buffer = b""


def hard_link(existing: Path, final: Path) -> None:
    """Make `final` a hard link to `existing`, or a copy on a file system without links."""
    with atomic_write(final) as temporary:
        try:
            os.link(existing, temporary)
        except OSError:
            with existing.open("rb") as source, open_output(temporary) as file, name_in_errors(final):
                shutil.copyfileobj(source, file)
                file.flush()
                os.fsync(file.fileno())


def fsync_directory(folder: Path) -> None:
    """Flush the entries of a folder to the disk, so that they survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with name_in_errors(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_stale_temp_files(folder: Path, *, mine: bool = False) -> None:
    """Remove the temporary files and folders of killed processes directly in `folder`, which need not exist.

    Args:
        folder: the folder.
        mine: remove all of them, since no other process writes there; otherwise those of ended processes of this host.
    """
    for path in folder.glob(".*.tmp"):
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or not (mine or (match["host"] == socket.gethostname() and _has_ended(int(match["process"])))):
            continue
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its content, as far as they exist and permissions allow."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):  # also on a disk that became read-only: this would hide the error
        path.unlink()


def _has_ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:  # EPERM: a process of another user
        return error.errno == errno.ESRCH
    return False


@contextmanager
def directory_lock(folder: Path) -> Iterator[None]:
    """Create and lock `folder` for this process. The lock ends with the process, even if the file `.lock` remains.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    lock = FileLock(path, timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        owner = path.read_text(errors="replace") if path.exists() else ""
        raise BlockingIOError(
            f"{folder}: another process trains there ({owner or 'unknown'}); wait until it has ended, or give this run "
            "another name (name=…)"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        log.warning("%s cannot be locked (%s): make sure that no second run uses it", folder, error.strerror)
    try:
        with name_in_errors(path):
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        path.unlink(missing_ok=True)  # before the release, so that it is not another process's lock
        lock.release()
