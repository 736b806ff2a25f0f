"""Atomic writes, and a folder that only one process may write to."""

import errno
import logging
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"\..+@(?P<host>[^@]*)\.(?P<process>\d+)\.[0-9a-f]{8}\.tmp")


def temp_path(final: Path) -> Path:
    """Return a free temporary path beside `final`, named after this host and process; make the folder."""
    final.parent.mkdir(parents=True, exist_ok=True)
    return final.parent / f".{final.name}@{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


@contextmanager
def atomic_write(final: Path) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to `final` when the block ends and removed when it fails."""
    temporary = temp_path(final)
    try:
        yield temporary
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(final: Path, text: str) -> None:
    r"""Write the whole text or nothing, as UTF-8 with "\n" as the line end."""
    with atomic_write(final) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


class JsonlLog:
    """A text file to which whole lines are appended; lines for which the disk has no room wait in memory.

    Args:
        path: the file; if its lines differ from `begin`, it is replaced.
        begin: its first lines.
    """

    def __init__(self, path: Path, begin: Sequence[str]) -> None:
        content = "".join(line + "\n" for line in begin).encode()
        self.path, self.waiting = path, b""
        if not path.exists() or path.read_bytes() != content:
            with atomic_write(path) as temporary:
                temporary.write_bytes(content)
        self.file = path.open("ab", buffering=0)
        self.size = len(content)

    def write(self, line: str) -> None:
        """Append a line now, or later when the disk is full, which is logged once."""
        is_first = not self.waiting
        self.waiting += line.encode() + b"\n"
        try:
            self._flush()
        except OSError as error:
            if is_first:
                log.warning("%s: could not be written (%s); it waits in memory", self.path, error.strerror)

    def sync(self) -> None:
        """Write every line to the disk. Raise OSError when that fails."""
        try:
            self._flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise OSError(f"{self.path}: could not be written ({error.strerror})") from error

    def close(self) -> None:
        """Try once more to write the lines that wait."""
        with suppress(OSError):
            self._flush()
        self.file.close()

    def _flush(self) -> None:
        written = 0
        try:
            while written < len(self.waiting):
                written += self.file.write(self.waiting[written:])
        except OSError:
            self.file.truncate(self.size)  # no part of a line stays
            raise
        self.size += written
        self.waiting = b""


def hard_link(existing: Path, final: Path) -> None:
    """Make `final` a hard link to `existing`, or a copy on a disk without links."""
    with atomic_write(final) as temporary:
        try:
            os.link(existing, temporary)
        except OSError:
            shutil.copyfile(existing, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())


def fsync_directory(folder: Path) -> None:
    """Make the names in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_stale_temp_files(folder: Path, *, mine: bool = False) -> None:
    """Remove the temporary files and folders that killed processes left directly in `folder`.

    Args:
        folder: need not exist.
        mine: no other process writes there, so remove all of them; otherwise those of ended processes of this host.
    """
    for path in folder.glob(".*.tmp"):
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or not (mine or (match["host"] == socket.gethostname() and _ended(int(match["process"])))):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _ended(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's process
        pass
    return False


@contextmanager
def directory_lock(folder: Path) -> Iterator[None]:
    """Make `folder` and reserve it for this process. The lock ends with the process, even if `.lock` stays behind.

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
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        path.unlink(missing_ok=True)  # before the release, so that it is not another process's lock
        lock.release()
