"""A cached fingerprint is never that of another content."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from nmt.data import fingerprints
from nmt.data.fingerprints import check_unchanged, file_fingerprint


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "_known", {})


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names of the files that are read."""
    names: list[str] = []
    real = hashlib.file_digest

    def digest(file: object, name: str) -> object:
        names.append(Path(file.name).name)  # type: ignore[attr-defined]
        return real(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(fingerprints.hashlib, "file_digest", digest)
    return names


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.time() + seconds
    monkeypatch.setattr(fingerprints.time, "time", lambda: now)


def test_a_settled_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]) -> None:
    later(monkeypatch, 100)
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    expected = hashlib.sha256(b"hello").hexdigest()
    assert [file_fingerprint(path).sha256 for _ in range(3)] == [expected] * 3
    assert reads == ["a"]


def test_a_young_file_is_always_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]) -> None:
    """Two contents of one size within one tick of the clock, and so with the same stamps."""
    path = tmp_path / "a"
    stamp = time.time_ns()

    class Stat:
        st_size, st_mtime_ns, st_ctime_ns, st_dev, st_ino = 5, stamp, stamp, 1, 2

    monkeypatch.setattr(fingerprints.os, "fstat", lambda _: Stat)
    for content in (b"hello", b"world"):
        path.write_bytes(content)
        assert file_fingerprint(path).sha256 == hashlib.sha256(content).hexdigest()
    later(monkeypatch, -3600)  # the clock was set back: the file is from the future
    for content in (b"there", b"again"):
        path.write_bytes(content)
        assert file_fingerprint(path).sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("how", ["content", "size", "stamp put back", "replaced", "other path", "link"])
def test_every_change_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    later(monkeypatch, 100)
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    file_fingerprint(path)
    stat = path.stat()
    time.sleep(0.02)  # another tick
    content = b"world"
    if how == "content":
        path.write_bytes(content)
    elif how == "size":
        content = b"hello world"
        path.write_bytes(content)
    elif how == "stamp put back":
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif how == "replaced":
        second = tmp_path / "b"
        second.write_bytes(content)
        os.utime(second, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        second.replace(path)
    elif how == "other path":
        second = tmp_path / "b"
        second.write_bytes(content)
        path = second
    else:
        second = tmp_path / "b"
        second.write_bytes(content)
        path.unlink()
        path.symlink_to(second)
    assert file_fingerprint(path).sha256 == hashlib.sha256(content).hexdigest()


def test_a_file_that_changes_while_it_is_read_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later(monkeypatch, 100)
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    real = hashlib.file_digest

    def digest(file: object, name: str) -> object:
        result = real(file, name)  # type: ignore[arg-type]
        time.sleep(0.02)
        path.write_bytes(b"world")
        return result

    monkeypatch.setattr(fingerprints.hashlib, "file_digest", digest)
    file_fingerprint(path)
    monkeypatch.setattr(fingerprints.hashlib, "file_digest", real)
    assert file_fingerprint(path).sha256 == hashlib.sha256(b"world").hexdigest()


@pytest.mark.parametrize("how", ["other content", "put back", "renamed and put back"])
def test_a_change_in_between_is_noticed_even_if_it_was_undone(tmp_path: Path, how: str) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"hello")
    other.write_bytes(b"there")
    before = [file_fingerprint(path), file_fingerprint(other)]
    check_unchanged(before, [file_fingerprint(path), file_fingerprint(other)])
    time.sleep(0.02)  # another tick
    if how == "renamed and put back":
        path.rename(tmp_path / "c")
        path.write_bytes(b"world")
        (tmp_path / "c").rename(path)
    else:
        path.write_bytes(b"world" if how == "other content" else b"hello")
    with pytest.raises(ValueError, match=r"a: the text was changed while it was read") as raised:
        check_unchanged(before, [file_fingerprint(path), file_fingerprint(other)])
    assert str(other) not in str(raised.value)
