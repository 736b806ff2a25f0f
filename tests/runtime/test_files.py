"""Errors of writing name the file, and leave no part of it."""

import contextlib
import errno
import logging
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from nmt.alignment.writers import FORMATS, AlignedPair, alignment_writers
from nmt.evaluation.report.heatmap import save_heatmap
from nmt.export.output_folder import atomic_directory, write_manifest
from nmt.runtime.errors import error_message
from nmt.runtime.files import (
    JsonlLog,
    atomic_write,
    directory_lock,
    hard_link,
    name_in_errors,
    open_output,
    remove_stale_temp_files,
    temp_path,
    write_text,
)


@contextlib.contextmanager
def max_file_size(size: int) -> Iterator[None]:
    """Let writes beyond a size fail, as on a full disk, but with "File too large"."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_log(path: Path) -> None:
    JsonlLog(path, ["{}"] * 9)


def copy(path: Path) -> None:
    hard_link(Path(__file__), path)


def lock(path: Path) -> None:
    with directory_lock(path.parent):
        raise AssertionError


def write_array(path: Path) -> None:
    with atomic_write(path) as temporary, open_output(temporary) as file:
        file.write(bytes(100))


def picture(path: Path) -> None:
    save_heatmap(path, np.eye(3), ["a", "b", "c"], ["x", "y", "z"])


def align(path: Path) -> None:
    name = path.suffix.removeprefix(".")
    words, ids = ["a", "</s>"], [0, -1]
    pair = AlignedPair(
        "a", "a", words, words, ids, ids, np.ones((1, 1, 2, 2), np.float32), np.ones((1, 2)), [(0, 0)] * 9
    )
    with alignment_writers(path.parent, [name], weights=True) as write:
        write([pair])


def export(path: Path) -> None:
    with atomic_directory(path) as folder:
        write_manifest(folder, {"files": ["x"] * 9})


WRITERS: list[tuple[str, Callable[[Path], None]]] = [
    ("a.txt", lambda path: write_text(path, "x" * 20)),
    ("a.jsonl", write_log),
    ("a.pt", copy),
    (".lock", lock),
    ("a.bin", write_array),
    ("a.png", picture),
    *((f"alignments.{name}", align) for name in FORMATS),
    ("model", export),
]


@pytest.mark.parametrize(("name", "write"), WRITERS, ids=[name for name, _ in WRITERS])
@pytest.mark.parametrize("size", [0, 10])
def test_a_file_that_cannot_be_written_is_named(
    name: str, write: Callable[[Path], None], size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "folder" / name
    if write is picture:
        picture(tmp_path / "first.png")  # fonts are cached in a file
    with max_file_size(size), pytest.raises(OSError, match="File too large") as raised:
        write(path)
    assert error_message(raised.value).startswith(f"{path}: ")
    assert list(path.parent.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_named_whenever_it_is_found() -> None:
    """When a large part is written, when the rest is, and when the file is closed."""
    path = Path("/dev/full")
    for how in ("write", "flush", "close"):
        file = open_output(path)
        file.write(b"x")
        with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
            _ = file.write(bytes(1 << 20)) if how == "write" else getattr(file, how)()
        with contextlib.suppress(OSError):
            file.close()
        assert file.closed


@pytest.mark.parametrize(
    ("error", "in_atomic_write", "in_names"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "theirs"), "theirs", "theirs"),  # a file that is read
        (OSError(errno.ENOSPC, "No space left on device"), None, "ours"),  # perhaps of the output, by someone else
        (OSError("this is a sentence"), None, None),
    ],
)
def test_only_errors_without_a_name_get_one(
    error: OSError, in_atomic_write: str | None, in_names: str | None, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match=r"this is a sentence|No ") as raised, atomic_write(tmp_path / "ours"):
        raise error
    assert raised.value.filename == in_atomic_write
    with pytest.raises(OSError, match=r"this is a sentence|No ") as raised, name_in_errors(Path("ours")):
        raise error
    assert raised.value.filename == in_names


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"File exists|Not a directory") as raised:
        write_text(tmp_path / "file" / "a.txt", "x")
    assert error_message(raised.value).startswith(f"{tmp_path}/file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as raised_too:
        write_text(tmp_path / "folder", "x")
    assert error_message(raised_too.value) == f"{tmp_path}/folder: Is a directory"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_lines_that_are_lost_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = JsonlLog(tmp_path / "a.jsonl", ["one"])
    with max_file_size(10), caplog.at_level(logging.WARNING):
        log.write("two")
        for _ in range(3):
            log.write("more than there is room for")
        log.close()
    assert (tmp_path / "a.jsonl").read_text() == "one\ntwo\n"
    lost = f"{tmp_path}/a.jsonl: the last 3 lines could not be written (File too large) and are lost"
    assert caplog.messages[-1] == lost
    assert len(caplog.messages) == 2


def test_names_that_only_look_like_temporary_ones(tmp_path: Path) -> None:
    """No process has such a number."""
    name = temp_path(tmp_path / "a").name.replace(f".{os.getpid()}.", f".{10**30}.")
    (tmp_path / name).touch()
    remove_stale_temp_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
