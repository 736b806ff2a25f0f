"""Files that are whole or not there, and a folder that only one process may write to."""

import fcntl
import logging
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

_TEMPORARY = re.compile(r"\..+@(?P<host>[^@]*)\.(?P<process>\d+)\.[0-9a-f]{8}\.tmp")


def neighbour(final: Path) -> Path:
    """A free temporary name beside `final`, whose folder is made. It tells the machine and process it belongs to."""
    final.parent.mkdir(parents=True, exist_ok=True)
    return final.parent / f".{final.name}@{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


@contextmanager
def whole(final: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the name `final` when the block ends and is removed when it fails."""
    temporary = neighbour(final)
    try:
        yield temporary
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(final: Path, text: str) -> None:
    r"""Writes the whole text or nothing, in UTF-8, lines ending at "\n"."""
    with whole(final) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


class Lines:
    """A text file that grows by whole lines: what finds no room waits in memory, and no part of a line stays behind.

    Args:
        path: the file; if it holds other lines than `begin`, it is replaced.
        begin: its first lines.
    """

    def __init__(self, path: Path, begin: Sequence[str]) -> None:
        content = "".join(line + "\n" for line in begin).encode()
        self.path, self.waiting = path, b""
        if not path.exists() or path.read_bytes() != content:
            with whole(path) as temporary:
                temporary.write_bytes(content)
        self.file = path.open("ab", buffering=0)
        self.size = len(content)

    def write(self, line: str) -> None:
        """Adds a line now, or later when the disk has no room, which is said once."""
        is_first = not self.waiting
        self.waiting += line.encode() + b"\n"
        try:
            self._flush()
        except OSError as error:
            if is_first:
                log.warning("%s: could not be written (%s); it waits in memory", self.path, error.strerror)

    def sync(self) -> None:
        """Has every line on the disk. Raises OSError when that cannot be."""
        try:
            self._flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise OSError(f"{self.path}: could not be written ({error.strerror})") from error

    def close(self) -> None:
        """Tries once more what waits."""
        with suppress(OSError):
            self._flush()
        self.file.close()

    def _flush(self) -> None:
        written = 0
        try:
            while written < len(self.waiting):
                written += self.file.write(self.waiting[written:])
        except OSError:
            self.file.truncate(self.size)
            raise
        self.size += written
        self.waiting = b""


def second_name(existing: Path, final: Path) -> None:
    """Has `final` hold what `existing` holds: another name of the same file, or a copy where links are unknown."""
    with whole(final) as temporary:
        try:
            os.link(existing, temporary)
        except OSError:
            shutil.copyfile(existing, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Has the names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, *, mine: bool = False) -> None:
    """Removes the temporary files and folders that killed processes have left in `folder`, not below it.

    Args:
        folder: need not exist.
        mine: no other process writes there, so all of them; else those of processes of this machine that are no more.
    """
    for path in folder.glob(".*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        if found is None or not (mine or (found["host"] == socket.gethostname() and not _lives(int(found["process"])))):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """`folder`, which is made, belongs to this process while the context lasts.

    The kernel releases the lock when the process ends, however it ends; the file `.lock` that may stay then is nothing.

    Raises:
        BlockingIOError: it belongs to another process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 200).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise BlockingIOError(
                f"{folder}: another process trains there ({owner}); wait until it has ended, or give this run another "
                "name (name=…)"
            ) from None
        except OSError as error:  # a disk that knows no locks
            log.warning("%s cannot be locked (%s): see to it that no second run uses it", folder, error.strerror)
            break
        if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
            break
        os.close(descriptor)  # the owner before has just removed the file: it is no lock any more
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
