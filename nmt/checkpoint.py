"""Checkpoints: a plain dict of tensors and primitives, written whole or not at all, read without executing anything."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from nmt import __version__
from nmt.files import whole

FORMAT = "nmt-checkpoint"
FORMAT_VERSION = 2


def save(path: Path, content: dict[str, Any]) -> None:
    """Writes to a temporary neighbour, syncs it to disk, then takes the final name.

    Raises:
        OSError: the disk is full or read-only; what stood under the final name before is untouched.
    """
    try:
        with whole(path) as temporary, temporary.open("wb") as file:
            torch.save({"format": FORMAT, "format_version": FORMAT_VERSION, "nmt": __version__, **content}, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        # torch's own writer tells of a full disk as a RuntimeError about positions in the file
        if isinstance(error, RuntimeError) and "unexpected pos" not in str(error):
            raise
        reason = _first_line(error) if isinstance(error, OSError) else "the disk is full"
        raise OSError(f"{path}: the checkpoint could not be written ({reason}); free space on the disk") from error


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a checkpoint, verifying the checksum of every part.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, not a checkpoint of this project, or of a version with other models.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{path}: damaged checkpoint (the checksum of its part {damaged} is wrong)")
        content = torch.load(path, map_location=device, weights_only=True)
    except (zipfile.BadZipFile, EOFError, RuntimeError, pickle.UnpicklingError, KeyError) as error:
        raise ValueError(
            f"{path}: truncated, or not a checkpoint of this project ({_first_line(error)}); "
            "use another one, for example last.pt or best.pt of a run"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: not a checkpoint of this project")
    if content["format_version"] > FORMAT_VERSION:
        raise ValueError(f"{path}: written by nmt {content['nmt']}, which is newer than this version ({__version__})")
    if content["format_version"] < FORMAT_VERSION:
        raise ValueError(
            f"{path}: written by nmt {content['nmt']}, whose models have other parameters than those of this version "
            f"({__version__}): use that version, or train again"
        )
    return content


def locate(path: str | Path) -> Path:
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


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
