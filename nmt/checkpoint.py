"""Checkpoints: a plain dict of tensors and primitives, written whole or not at all, read without executing anything."""

import hashlib
import os
import pickle
import re
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nmt import __version__
from nmt.runtime.files import atomic_write, fsync_directory, hard_link

FORMAT = "nmt-checkpoint"
FORMAT_VERSION = 3
_OLDEST = 2
"""The oldest format that is read; older ones have models with other parameters. Format 2 has no seal."""
_SEAL = b"sha256:"
_END, _END_LENGTH = b"PK\x05\x06", 22  # the last record of a zip file; its last two bytes are the comment's length


class CorruptCheckpointError(ValueError):
    """The file is not what was written: cut off, or changed."""


def save(path: Path, content: dict[str, Any], former: Path | None = None) -> None:
    """Writes to a temporary neighbour, seals it, syncs it to disk, then takes the final name.

    The seal is the SHA-256 of all bytes before it and lies in the comment of the zip file, so that the file stays a
    plain one of `torch.save` and one changed bit anywhere in it is noticed.

    Args:
        path: the final name.
        content: tensors and primitives.
        former: the name that what stands under `path` now gets; None: it is replaced.

    Raises:
        OSError: the disk is full or read-only; what stood under the final name before is untouched.
    """
    try:
        _require_space(path)
        with atomic_write(path) as temporary:
            with temporary.open("wb") as file:
                torch.save({"format": FORMAT, "format_version": FORMAT_VERSION, "nmt": __version__, **content}, file)
            _seal(temporary)
            if former is not None and path.exists():
                _rename(path, former)
        fsync_directory(path.parent)
    except (OSError, RuntimeError) as error:
        # torch's own writer tells of a full disk as a RuntimeError about positions in the file
        if isinstance(error, RuntimeError) and "unexpected pos" not in str(error):
            raise
        reason = _first_line(error) if isinstance(error, OSError) else "the disk is full"
        raise OSError(
            f"{path}: the checkpoint could not be written ({reason}); free space on the disk; nothing is lost"
        ) from error


def update_metadata(path: Path, more: dict[str, Any]) -> None:
    """Adds to a checkpoint that is there; what is the same already is not written again.

    Args:
        path: its name. Other names of the same file in its folder get the new content too.
        more: primitives by name.

    Raises: as `load` and `save`.
    """
    content = load(path)
    if all(content.get(name) == value for name, value in more.items()):
        return
    others = [other for other in path.parent.glob("*.pt") if other != path and other.samefile(path)]
    save(path, {**content, **more})
    for other in others:
        hard_link(path, other)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a checkpoint, verifying its seal (format 2: the checksum of every part).

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: the file is cut off or changed.
        ValueError: the file is not a checkpoint of this project, or of a version with other models.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        sealed = _check_seal(path)
        if not sealed:
            _check_parts(path)
        content = torch.load(path, map_location=device, weights_only=True)
    except (zipfile.BadZipFile, EOFError, RuntimeError, pickle.UnpicklingError, KeyError) as error:
        raise CorruptCheckpointError(
            f"{path}: truncated, or not a checkpoint of this project ({_first_line(error)}); "
            "use another one, for example last.pt or best.pt of a run"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: not a checkpoint of this project")
    written = content["format_version"]
    if written > FORMAT_VERSION:
        raise ValueError(f"{path}: written by nmt {content['nmt']}, which is newer than this version ({__version__})")
    if written < _OLDEST:
        raise ValueError(
            f"{path}: written by nmt {content['nmt']}, whose models have other parameters than those of this version "
            f"({__version__}): use that version, or train again"
        )
    if not sealed and written > 2:
        raise CorruptCheckpointError(f"{path}: damaged checkpoint (its checksum is missing)")
    return content


def resolve(path: str | Path) -> Path:
    """The checkpoint file that a user's `checkpoint=` means: a file, or a run directory (its best, else its last one).

    Raises:
        FileNotFoundError: neither is there.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"checkpoint={path}: no such file or run directory")
        return path
    for name in ("best.pt", "last.pt"):
        for folder in (path / "checkpoints", path):
            if (folder / name).is_file():
                return folder / name
    raise FileNotFoundError(f"checkpoint={path}: the directory has no checkpoints/best.pt and no checkpoints/last.pt")


class LatestCheckpoint(NamedTuple):
    """The newest whole checkpoint of a run, and the newer ones that are damaged, each with the reason."""

    path: Path
    content: dict[str, Any]
    damaged: list[tuple[Path, str]]


def latest_valid(folder: Path, device: torch.device | str = "cpu") -> LatestCheckpoint | None:
    """The checkpoint to continue from, reading only; None when there is none at all.

    Raises:
        ValueError: all of them are damaged, or one was written by a version that cannot be continued.
    """
    last = folder / "last.pt"
    before = [checkpoint_path(folder, "update", update) for update in reversed(saved_updates(folder, "update"))]
    paths = [path for path in (last, *before) if path.exists()]
    damaged: list[tuple[Path, str]] = []
    for path in paths:
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


def signature(folder: Path) -> tuple[int, int, int] | None:
    """Tells one state of last.pt from another without reading it; None when there is none."""
    last = folder / "last.pt"
    if not last.exists():
        return None
    stat = last.stat()
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def checkpoint_path(folder: Path, kind: str, update: int) -> Path:
    """The file of a kind ("update" or "best") that holds the state of an update."""
    return folder / f"{kind}-{update:06d}.pt"


def saved_updates(folder: Path, kind: str) -> list[int]:
    """The updates of the numbered files of a kind, ascending."""
    found = (re.fullmatch(rf"{kind}-(\d{{6,}})\.pt", path.name) for path in folder.glob(f"{kind}-*.pt"))
    return sorted(int(match[1]) for match in found if match)


def check_same_data(stored: dict[str, Any], now: dict[str, Any]) -> None:
    """That a checkpoint was trained on the text and with the tokenizer that there are now.

    Args:
        stored: content of the checkpoint; one without "texts" (of an older version) passes.
        now: the header of the run; "texts" holds for each split a list of [file or place, digest].

    Raises:
        ValueError: naming the file.
    """
    before, after = stored.get("texts", {}), now.get("texts", {})
    for split in before.keys() & after.keys():
        digests = [[digest for _, digest in texts[split]] for texts in (before, after)]
        if digests[0] == digests[1]:
            continue
        changed = [place for place, digest in after[split] if digest not in digests[0]] or [after[split][0][0]]
        raise ValueError(
            f"data.{split}: {', '.join(changed)} has changed since the run was started, which cannot be continued with "
            "other text: put the former text back, or give this run another name (name=…); nothing was changed"
        )
    if "tokenizer" in now and stored.get("tokenizer") != now["tokenizer"]:
        raise ValueError(
            "data.tokenizer: training the tokenizer on the same text gave another one than that of the run (another "
            "version of SentencePiece?): continue with the version before, or give this run another name (name=…)"
        )


def _require_space(path: Path) -> None:
    """Asks for as much free space as the file of this name has now, before a disk is filled for nothing."""
    if not path.is_file():
        return
    needed, free = path.stat().st_size, shutil.disk_usage(path.parent).free
    if free < needed:
        raise OSError(f"needs {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free")


def _seal(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-_END_LENGTH, os.SEEK_END)
        assert file.read(4) == _END
        file.seek(-2, os.SEEK_END)
        file.write(struct.pack("<H", len(_SEAL) + 64))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        file.write(_SEAL + digest.encode())
        file.flush()
        os.fsync(file.fileno())


def _check_seal(path: Path) -> bool:
    """Whether the file is sealed. Raises DamagedError when the seal does not fit the file."""
    length = len(_SEAL) + 64
    size = path.stat().st_size - length
    if size < 0:
        return False
    with path.open("rb") as file:
        file.seek(size)
        seal = file.read(length)
        if not seal.startswith(_SEAL):
            return False
        file.seek(0)
        digest, left = hashlib.sha256(), size
        while left and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    if digest.hexdigest().encode() != seal[len(_SEAL) :]:
        raise CorruptCheckpointError(f"{path}: damaged checkpoint (its checksum is wrong)")
    return True


def _check_parts(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise CorruptCheckpointError(f"{path}: damaged checkpoint (the checksum of its part {damaged} is wrong)")


def _rename(path: Path, former: Path) -> None:
    """Gives a file a second name for the moment in which its own goes to another; where links are unknown, renames."""
    former.unlink(missing_ok=True)
    try:
        os.link(path, former)
    except OSError:
        path.replace(former)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
