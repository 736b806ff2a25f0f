"""Checkpoints: read back bit for bit, written atomically, and never executed."""

import hashlib
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from nmt import checkpoint


class Bomb:
    """An object whose unpickling would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('executed')",))


def test_round_trip(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(5, 3), "b": torch.arange(4, dtype=torch.bfloat16)}
    checkpoint.save(tmp_path / "x" / "one.pt", {"model": tensors, "note": ["grün", 1, 2.5, None]})
    content = checkpoint.load(tmp_path / "x" / "one.pt")
    assert all(torch.equal(content["model"][name], tensor) for name, tensor in tensors.items())
    assert content["note"] == ["grün", 1, 2.5, None]
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["one.pt"]


def test_a_failed_write_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "one.pt"
    checkpoint.save(path, {"value": 1})
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        checkpoint.save(path, {"value": lambda: None})
    assert checkpoint.load(path)["value"] == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "one.pt"
    checkpoint.save(path, {"model": torch.randn(100, 100)})
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(ValueError, match=r"one.pt: truncated, or not a checkpoint") as error:
        checkpoint.load(path)
    assert "\n" not in str(error.value)


def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    """In the tensors, and where no part's checksum reaches: headers, padding, the list of parts, the trailer."""
    path = tmp_path / "one.pt"
    checkpoint.save(path, {"model": torch.randn(20)})
    whole = path.read_bytes()
    for place in [*range(0, len(whole), 11), *range(len(whole) - 100, len(whole))]:
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        with pytest.raises(checkpoint.CorruptCheckpointError, match=r"one.pt: (damaged|truncated)") as error:
            checkpoint.load(path)
        assert "\n" not in str(error.value)
    path.write_bytes(whole)
    checkpoint.load(path)


def test_it_is_a_plain_file_of_torch(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "one.pt", {"value": 7})
    assert torch.load(tmp_path / "one.pt", weights_only=True)["value"] == 7
    with zipfile.ZipFile(tmp_path / "one.pt") as archive:
        trailer = archive.comment
    content = (tmp_path / "one.pt").read_bytes()
    assert trailer == b"sha256:" + hashlib.sha256(content.removesuffix(trailer)).hexdigest().encode()


def test_the_previous_file_can_be_kept(tmp_path: Path) -> None:
    for value in (1, 2, 3):
        checkpoint.save(tmp_path / "one.pt", {"value": value}, tmp_path / f"before-{value}.pt")
    values = {path.name: checkpoint.load(path)["value"] for path in tmp_path.iterdir()}
    assert values == {"one.pt": 3, "before-2.pt": 1, "before-3.pt": 2}


def test_too_little_space_is_noticed_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one.pt"
    checkpoint.save(path, {"value": 1})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=path.stat().st_size - 1))
    monkeypatch.setattr(torch, "save", None)
    with pytest.raises(OSError, match=r"one.pt: the checkpoint could not be written \(needs 0.0 MB, 0.0 MB are free"):
        checkpoint.save(path, {"value": 2}, tmp_path / "before.pt")
    assert checkpoint.load(path)["value"] == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [{"some": "dict"}, [1, 2], "text"])
def test_files_of_other_projects(tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"other.pt: not a checkpoint of this project"):
        checkpoint.load(path)


def test_nothing_is_executed(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    torch.save({"format": checkpoint.FORMAT, "format_version": checkpoint.FORMAT_VERSION, "x": Bomb()}, path)
    with pytest.raises(ValueError, match=r"bomb.pt: truncated, or not a checkpoint"):
        checkpoint.load(path)


def test_the_previous_format_loads(tmp_path: Path) -> None:
    """It has no checksum trailer, but the checksums of its parts."""
    path = tmp_path / "older.pt"
    torch.save({"format": checkpoint.FORMAT, "format_version": 2, "nmt": "0.2.0", "model": torch.ones(1000)}, path)
    assert checkpoint.load(path)["model"].sum() == 1000
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(
        checkpoint.CorruptCheckpointError, match=r"older.pt: damaged checkpoint \(the checksum of its part"
    ):
        checkpoint.load(path)


def test_the_checksum_cannot_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "unsealed.pt"
    torch.save({"format": checkpoint.FORMAT, "format_version": checkpoint.FORMAT_VERSION, "nmt": "x"}, path)
    with pytest.raises(checkpoint.CorruptCheckpointError, match=r"its checksum is missing"):
        checkpoint.load(path)


def test_older_format(tmp_path: Path) -> None:
    path = tmp_path / "older.pt"
    torch.save({"format": checkpoint.FORMAT, "format_version": 1, "nmt": "0.1.0"}, path)
    with pytest.raises(ValueError, match=r"written by nmt 0.1.0, whose models have other parameters .*train again"):
        checkpoint.load(path)


def test_newer_format(tmp_path: Path) -> None:
    path = tmp_path / "new.pt"
    torch.save({"format": checkpoint.FORMAT, "format_version": 99, "nmt": "9.9"}, path)
    with pytest.raises(ValueError, match=r"written by nmt 9.9, which is newer"):
        checkpoint.load(path)


def test_resolve(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"has no checkpoints/best.pt and no checkpoints/last.pt"):
        checkpoint.resolve(run)
    checkpoint.save(run / "checkpoints" / "last.pt", {})
    assert checkpoint.resolve(run).name == "last.pt"
    checkpoint.save(run / "checkpoints" / "best.pt", {})
    assert checkpoint.resolve(str(run)).name == "best.pt"
    assert checkpoint.resolve(run / "checkpoints" / "last.pt").name == "last.pt"
    with pytest.raises(FileNotFoundError, match=r"checkpoint=.*nowhere: no such file or run directory"):
        checkpoint.resolve(tmp_path / "nowhere")
