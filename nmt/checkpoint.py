"""Checkpoints: a plain dict of tensors and primitives, written atomically, read without executing anything."""

import contextlib
import hashlib
import os
import pickle
import re
import shutil
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nmt import __version__
from nmt.plugins import check_loaded, check_unchanged
from nmt.runtime.files import atomic_write, fsync_directory, hard_link

FORMAT = "nmt-checkpoint"
FORMAT_VERSION = 3
_OLDEST_VERSION = 2
"""The oldest format that is read; older ones have models with other parameters. Format 2 has no checksum trailer."""
_PATH = "path"
"""The entry of a loaded content that names its file; it is not stored."""
_TRAILER = b"sha256:"
_TRAILER_LENGTH = len(_TRAILER) + 64
_ZIP_END, _ZIP_END_LENGTH = b"PK\x05\x06", 22  # the last record of a zip file; its last two bytes: the comment's length


_CONTENT_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError),
    *(RuntimeError, TypeError, ValueError, pickle.UnpicklingError, struct.error),
)
"""Exceptions that a content of wrong types, names or sizes raises when it is read, in torch's code and in ours."""


class CorruptCheckpointError(ValueError):
    """The error of a file that is not what was written: truncated or changed."""


def save(path: Path, content: dict[str, Any], previous: Path | None = None) -> None:
    """Write to a temporary file beside `path`, append a checksum, sync to disk, and rename.

    The checksum trailer is the SHA-256 of all bytes before it. It lies in the comment of the zip file, so that the file
    stays a plain one of `torch.save` and a flipped bit anywhere in it is noticed.

    Args:
        path: the final name.
        content: tensors and primitives.
        previous: a new name for the file that is at `path` now; None: that file is replaced.

    Raises:
        OSError: the disk is full or read-only; the file that was at `path` before is untouched.
    """
    try:
        if path.is_file():  # as much space again as it takes now, before a full disk is found out by writing
            needed, free = path.stat().st_size, shutil.disk_usage(path.parent).free
            if free < needed:
                raise OSError(f"needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free")
        with atomic_write(path) as temporary:
            with temporary.open("wb") as file:
                header = {"format": FORMAT, "format_version": FORMAT_VERSION, "nmt": __version__}
                torch.save({name: value for name, value in (header | content).items() if name != _PATH}, file)
            _append_checksum(temporary)
            if previous is not None and path.exists():
                previous.unlink(missing_ok=True)
                try:
                    os.link(path, previous)
                except OSError:  # a disk without links: there is no file at `path` for a moment
                    path.replace(previous)
        fsync_directory(path.parent)
    except (OSError, RuntimeError) as error:
        # torch's own writer reports a full disk as a RuntimeError about positions in the file
        if isinstance(error, RuntimeError) and "unexpected pos" not in str(error):
            raise
        cause = error if isinstance(error, OSError) else error.__context__
        reason = _first_line(cause) if isinstance(cause, OSError) else "the disk is full"
        raise OSError(f"{path}: the checkpoint could not be written ({reason})") from error


def update_metadata(path: Path, metadata: dict[str, Any]) -> None:
    """Add entries to a checkpoint; do nothing when it has them already.

    Args:
        path: of the file. Its hard links in the same folder get the new content too.
        metadata: primitives by name.

    Raises: as `load` and `save`.
    """
    content = load(path)
    if all(content.get(name) == value for name, value in metadata.items()):
        return
    links = [link for link in path.parent.glob("*.pt") if link != path and link.samefile(path)]
    save(path, {**content, **metadata})
    for link in links:
        hard_link(path, link)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint and verify its checksum (format 2: the checksum of every part).

    Raises:
        FileNotFoundError: there is no such file.
        CorruptCheckpointError: the file is truncated or changed.
        ValueError: the file is not a checkpoint of this project, or of a version with other models.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        has_checksum = _verify_checksum(path)
        content = torch.load(path, map_location=device, weights_only=True)
    except CorruptCheckpointError:
        raise
    except (zipfile.BadZipFile, EOFError, *_CONTENT_ERRORS) as error:
        raise CorruptCheckpointError(
            f"{path}: truncated, or not a checkpoint of this project ({_first_line(error)}); "
            "use another one, for example last.pt or best.pt of a run"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: not a checkpoint of this project")
    version = content.get("format_version")
    if type(version) is not int or not isinstance(content.get("nmt"), str):
        raise ValueError(f"{path}: not a checkpoint of this project (it does not say which version wrote it)")
    if version > FORMAT_VERSION:
        raise ValueError(f"{path}: written by nmt {content['nmt']}, which is newer than this version ({__version__})")
    if version < _OLDEST_VERSION:
        raise ValueError(
            f"{path}: written by nmt {content['nmt']}, whose models have other parameters than those of this version "
            f"({__version__}): use that version, or train again"
        )
    if not has_checksum and version > 2:
        raise CorruptCheckpointError(f"{path}: damaged checkpoint (its checksum is missing)")
    return {**content, _PATH: str(path)}


@contextlib.contextmanager
def interpreting(content: Mapping[str, Any]) -> Iterator[None]:
    """Turn whatever is wrong inside a checkpoint, a result of `load`, into a ValueError that names the file."""
    try:
        check_loaded(content.get("plugins", ()))
        yield
    except _CONTENT_ERRORS as error:
        path, reason = content.get(_PATH, "checkpoint"), _first_line(error)
        if isinstance(error, KeyError):
            reason = f"{reason} is missing"
        elif not isinstance(error, ValueError):
            reason = f"its content is not one that this program writes ({type(error).__name__}: {reason})"
        raise ValueError(f"{path}: {reason.removeprefix(f'{path}: ')}") from error


def resolve(path: str | Path) -> Path:
    """Return the checkpoint file that `checkpoint=` names: a file, or the best, else the last one of a run directory.

    Raises:
        FileNotFoundError: neither exists.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            relative = "" if path.is_absolute() else f" (relative to {Path.cwd()})"
            raise FileNotFoundError(f"checkpoint={path}: no such file or run directory{relative}")
        return path
    for name in ("best.pt", "last.pt"):
        for folder in (path / "checkpoints", path):
            if (folder / name).is_file():
                return folder / name
    raise FileNotFoundError(f"checkpoint={path}: the directory has no checkpoints/best.pt and no checkpoints/last.pt")


class LatestCheckpoint(NamedTuple):
    """The newest valid checkpoint of a run, and the newer ones that are damaged, with the reason of each."""

    path: Path
    content: dict[str, Any]
    corrupt: list[tuple[Path, str]]


def latest_valid(folder: Path, device: torch.device | str = "cpu") -> LatestCheckpoint | None:
    """Return the checkpoint to continue from, or None when there is none at all; changes no file.

    Raises:
        ValueError: all of them are damaged, or one was written by a version that cannot be continued.
    """
    numbered = [checkpoint_path(folder, "update", update) for update in reversed(saved_updates(folder, "update"))]
    damaged: list[tuple[Path, str]] = []
    for path in (folder / "last.pt", *numbered):
        if path.exists():
            try:
                return LatestCheckpoint(path, load(path, device), damaged)
            except (CorruptCheckpointError, OSError) as error:
                damaged.append((path, str(error).removeprefix(f"{path}: ")))
    if not damaged:
        return None
    reasons = "; ".join(f"{path}: {reason}" for path, reason in damaged)
    raise ValueError(
        f"the run cannot be continued, no checkpoint of it is whole ({reasons}): put back a copy, or delete "
        f"{folder.parent} to start again; nothing was changed"
    )


def average_state_dicts(states: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of several states of one model, summed in fp64, with one of them in memory at a time.

    Tensors that are not of floating-point numbers are those of the last state.
    """
    sums: dict[str, Tensor] = {}
    num, last = 0, {}  # type: tuple[int, Mapping[str, Tensor]]
    for num, last in enumerate(states, start=1):  # noqa: B007
        for name, tensor in last.items():
            if tensor.is_floating_point():
                sums[name] = sums[name] + tensor if name in sums else tensor.double()
    return {name: (sums[name] / num).to(tensor.dtype) if name in sums else tensor for name, tensor in last.items()}


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a model's weights."""
    sha256 = hashlib.sha256()
    for name in sorted(state):
        sha256.update(name.encode())
        sha256.update(state[name].cpu().reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def file_stamp(folder: Path) -> tuple[int, int, int] | None:
    """Return what distinguishes one version of last.pt from another, without reading it; None when there is none."""
    last = folder / "last.pt"
    if not last.exists():
        return None
    stat = last.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def checkpoint_path(folder: Path, kind: str, update: int) -> Path:
    """Return the file of a kind ("update" or "best") for the state of an update."""
    return folder / f"{kind}-{update:06d}.pt"


def saved_updates(folder: Path, kind: str) -> list[int]:
    """Return the updates of the numbered files of a kind, ascending."""
    matches = (re.fullmatch(rf"{kind}-(\d{{6,}})\.pt", path.name) for path in folder.glob(f"{kind}-*.pt"))
    return sorted(int(match[1]) for match in matches if match)


def check_same_data(stored: dict[str, Any], header: dict[str, Any]) -> None:
    """Check that a checkpoint was trained on today's text, with today's tokenizer and plugins.

    Args:
        stored: content of the checkpoint; one without "texts" (of an older version) passes.
        header: of the run; "texts" holds for each split a list of [file or location, digest].

    Raises:
        ValueError: naming the file.
    """
    check_unchanged(stored.get("plugins", ()), header.get("plugins", ()))
    stored_texts, texts = stored.get("texts", {}), header.get("texts", {})
    for split in stored_texts.keys() & texts.keys():
        stored_digests = [digest for _, digest in stored_texts[split]]
        if stored_digests == [digest for _, digest in texts[split]]:
            continue
        changed = [file for file, digest in texts[split] if digest not in stored_digests] or [texts[split][0][0]]
        raise ValueError(
            f"data.{split}: {', '.join(changed)} has changed since the run was started, which cannot be continued with "
            "other text: put the former text back, or give this run another name (name=…); nothing was changed"
        )
    if "tokenizer" in header and stored.get("tokenizer") != header["tokenizer"]:
        raise ValueError(
            "data.tokenizer: training the tokenizer on the same text gave another one than that of the run (another "
            "version of SentencePiece?): continue with the version before, or give this run another name (name=…)"
        )


def _append_checksum(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-_ZIP_END_LENGTH, os.SEEK_END)
        assert file.read(4) == _ZIP_END
        file.seek(-2, os.SEEK_END)
        file.write(struct.pack("<H", _TRAILER_LENGTH))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(_TRAILER + digest.encode())
        file.flush()
        os.fsync(file.fileno())


def _verify_checksum(path: Path) -> bool:
    """Verify the checksum trailer, or those of the zip file's parts; return whether there is a trailer."""
    remaining = max(0, path.stat().st_size - _TRAILER_LENGTH)
    with path.open("rb") as file:
        file.seek(remaining)
        trailer = file.read(_TRAILER_LENGTH)
        if trailer.startswith(_TRAILER):
            file.seek(0)
            sha256 = hashlib.sha256()
            while remaining and (block := file.read(min(remaining, 1 << 20))):
                sha256.update(block)
                remaining -= len(block)
            if sha256.hexdigest().encode() != trailer[len(_TRAILER) :]:
                raise CorruptCheckpointError(f"{path}: damaged checkpoint (its checksum is wrong)")
            return True
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise CorruptCheckpointError(f"{path}: damaged checkpoint (the checksum of its part {damaged} is wrong)")
    return False


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
