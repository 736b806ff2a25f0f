"""An entry of the cache is what was written, or it is made anew; what fails leaves nothing and names its file."""

import contextlib
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmt.data import (
    DataConfig,
    EncodedCorpus,
    Tokenizer,
    TokenizerConfig,
    attach_alignments,
    load_corpus,
    train_or_load_tokenizer,
)
from nmt.data import cache as data_cache
from nmt.data.cache import CHECKSUMS, cached_directory
from nmt.data.synthetic.dataset import SyntheticConfig
from nmt.runtime.errors import error_message
from nmt.runtime.files import remove_stale_temp_files

SIDES = ("source", "target", "source_text", "target_text")
FILES = {
    "corpus": ["meta.json", "dropped.bin", *(f"{name}{end}.bin" for name in SIDES for end in ("", "_offsets"))],
    "links": ["meta.json", "links.bin", "links_offsets.bin"],
    "tokenizer": ["tokenizer.json"],
    "builtin": [f"{name}.{end}" for name in ("train", "valid", "test", "test_long") for end in ("en", "de", "gold")],
}
ENTRIES = [(entry, name) for entry, names in FILES.items() for name in [*names, CHECKSUMS]]
TYPES = ["[]", "{}", "null", "7", '{"dtype": 1}', '{"dropped": []}', "{", "", "\n", "00000000\n", "00000000\n1 2 x\n"]


def config_of(cache: Path) -> DataConfig:
    """Return options with which every kind of entry has its every file."""
    tokenizer = TokenizerConfig(type="bpe", vocab_size=340, subword_regularization=0.1)
    sizes = SyntheticConfig(train=60, valid=2, test=2, long=1)
    return DataConfig(synthetic=sizes, tokenizer=tokenizer, max_length=60, cache_dir=str(cache))


def prepare(config: DataConfig) -> tuple[EncodedCorpus, Tokenizer]:
    tokenizer = train_or_load_tokenizer(config)
    return attach_alignments(config, load_corpus(config, "train", tokenizer), tokenizer), tokenizer


def content(corpus: EncodedCorpus, tokenizer: Tokenizer) -> list[Any]:
    """Return all that training gets from the cache."""
    columns = [corpus.source, corpus.target, corpus.source_text, corpus.target_text, corpus.links]
    arrays = [array.tolist() for column in columns if column is not None for array in column]
    counts = [corpus.dropped, corpus.repaired, corpus.num_read, corpus.dropped_rows.tolist()]
    return [arrays, counts, corpus.digest, tokenizer.state_dict()]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "cache"
    corpus, _ = prepare(config_of(folder))
    assert 0 < len(corpus.dropped_rows) < 30
    for entry, names in FILES.items():
        (path,) = folder.glob(f"{entry}-*")
        assert sorted(file.name for file in path.iterdir()) == sorted([*names, CHECKSUMS])
    return folder


@pytest.fixture(scope="module")
def expected(cache: Path) -> list[Any]:
    return content(*prepare(config_of(cache)))


@pytest.fixture
def copy(cache: Path, tmp_path: Path) -> Path:
    """A copy of the cache that the test may spoil."""
    shutil.copytree(cache, tmp_path / "cache")
    return tmp_path / "cache"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes() or b"x")  # an empty file has no bit to flip
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size or 1))


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] or b"x")


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").touch()


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def unreadable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    path.chmod(0)


COMMON = [flip, truncate, Path.unlink]
RARE = [noise, grow, folder_instead, link_to_nothing, unreadable]
DAMAGES = [(*file, damage) for file in ENTRIES for damage in COMMON]
DAMAGES += [(entry, names[-1], damage) for entry, names in FILES.items() for damage in RARE]


def is_made_anew(copy: Path, path: Path, expected: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """Check that the next preparation warns of the file and gives what was prepared first; and the one after, alike."""
    for warns in (True, False):
        caplog.clear()
        assert content(*prepare(config_of(copy))) == expected
        warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert warnings == ([f"{path} is missing or damaged; {path.parent} is made anew"] if warns else [])
    assert len(list(copy.iterdir())) == len(FILES)


@pytest.mark.parametrize(("entry", "name", "damage"), DAMAGES)
def test_a_damaged_file_is_made_anew(
    entry: str,
    name: str,
    damage: Callable[[Path], None],
    copy: Path,
    expected: list[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (folder,) = copy.glob(f"{entry}-*")
    damage(folder / name)
    is_made_anew(copy, folder / name, expected, caplog)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_file_that_cannot_be_read(
    error: OSError,
    copy: Path,
    expected: list[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (folder,) = copy.glob("corpus-*")
    number, real = (folder / "source.bin").stat().st_ino, data_cache._checksum

    def checksum(path: Path) -> str:
        if path.stat().st_ino == number:
            raise error
        return real(path)

    monkeypatch.setattr(data_cache, "_checksum", checksum)
    is_made_anew(copy, folder / "source.bin", expected, caplog)


@pytest.mark.parametrize("text", TYPES)
@pytest.mark.parametrize(("entry", "name"), [("corpus", "meta.json"), ("links", CHECKSUMS)])
def test_values_of_other_types(
    entry: str, name: str, text: str, copy: Path, expected: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    (folder,) = copy.glob(f"{entry}-*")
    (folder / name).write_text(text)
    for _ in range(2):
        assert content(*prepare(config_of(copy))) == expected
    assert "missing or damaged" in caplog.text


@pytest.mark.parametrize("what", ["a file", "a link to nothing", "an empty folder"])
def test_something_else_under_the_name_of_an_entry(what: str, copy: Path, expected: list[Any]) -> None:
    for entry in FILES:
        (folder,) = copy.glob(f"{entry}-*")
        shutil.rmtree(folder)
        if what == "a file":
            folder.write_text("")
        elif what == "an empty folder":
            folder.mkdir()
        else:
            folder.symlink_to("nowhere")
    assert content(*prepare(config_of(copy))) == expected
    assert len(list(copy.iterdir())) == len(FILES)


def test_an_entry_may_be_a_link_to_another_disk(
    copy: Path, tmp_path: Path, expected: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    (folder,) = copy.glob("corpus-*")
    folder.rename(tmp_path / "other")
    folder.symlink_to(tmp_path / "other")
    assert content(*prepare(config_of(copy))) == expected
    assert "made anew" not in caplog.text


def test_who_has_an_entry_mapped_keeps_it(copy: Path, expected: list[Any]) -> None:
    """Another process finds it damaged, and makes it anew under the feet of the first."""
    first = prepare(config_of(copy))
    for path in copy.glob("*/*.bin"):
        truncated = path.with_suffix(".new")
        truncated.write_bytes(b"")
        truncated.replace(path)
    assert content(*prepare(config_of(copy))) == expected
    assert content(*first) == expected


def test_a_process_that_is_too_late_uses_the_existing_entry(tmp_path: Path) -> None:
    final = tmp_path / "entry"

    def build_while_another_is_first(folder: Path) -> None:
        cached_directory(final, lambda theirs: write(theirs, "theirs"))
        write(folder, "ours")

    def write(folder: Path, text: str) -> None:
        (folder / "text").write_text(text)

    for _ in range(2):
        assert cached_directory(final, build_while_another_is_first) == final
        assert (final / "text").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_fails_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise error

    with pytest.raises(error):
        cached_directory(tmp_path / "entry", build)
    assert list(tmp_path.iterdir()) == []


def _build_and_die(final: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    cached_directory(final, build)


def test_what_a_killed_process_leaves_is_harmless_until_it_is_removed(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_build_and_die, args=(tmp_path / "entry",))
    process.start()
    process.join()
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".tmp")
    cached_directory(tmp_path / "entry", lambda folder: (folder / "text").touch())
    remove_stale_temp_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk is not allowed here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("entry", [*FILES, "last page"])
def test_a_full_disk_is_named_with_the_file(entry: str, cache: Path, expected: list[Any], small_disk: Path) -> None:
    """The disk becomes full when the entry is prepared, the others being there; or with the entry's last file."""
    copy = small_disk / "cache"
    shutil.copytree(cache, copy)
    whole = {path.name for path in copy.iterdir()}
    (folder,) = copy.glob("links-*" if entry == "last page" else f"{entry}-*")
    num_pages = sum(-(-path.stat().st_size // 4096) for path in folder.iterdir())
    shutil.rmtree(folder)
    room = 4096 * (num_pages - 1) if entry == "last page" else 0
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    os.truncate(ballast, ballast.stat().st_size // 4096 * 4096 - room)
    with pytest.raises(OSError, match="No space left") as raised:
        prepare(config_of(copy))
    message = error_message(raised.value)
    assert message.startswith(f"{folder}/"), message
    assert message.endswith(": No space left on device")
    assert ".tmp" not in message
    assert {path.name for path in copy.iterdir()} == whole - {folder.name}
    ballast.unlink()
    assert content(*prepare(config_of(copy))) == expected


def test_the_checksums_cover_every_file(cache: Path) -> None:
    for folder in cache.iterdir():
        _, *lines = (folder / CHECKSUMS).read_text().splitlines()
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != CHECKSUMS}
        assert lines == [f"{zlib.crc32(data):08x} {len(data)} {name}" for name, data in sorted(files.items())]
