"""Compressed files hold the same bytes, are read as a stream, and damage to them never goes unnoticed."""

import gzip
import lzma
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from nmt.runtime.compression import SUFFIXES, atomic_output, find_file, open_input, plain_path

CONTENT = b"".join(b"line %d \x85 caf\xc3\xa9\r\n" % number for number in range(20_000)) + b"no line end"


def write(path: Path, content: bytes = CONTENT) -> Path:
    with atomic_output(path) as file:
        file.write(content)
    return path


@pytest.mark.parametrize("suffix", ["", *SUFFIXES])
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.de{suffix}")
    with open_input(path) as file:
        assert file.read() == CONTENT
    with open_input(path) as file:
        assert [line.removesuffix(b"\n") for line in file] == CONTENT.split(b"\n")
    assert (path.stat().st_size < len(CONTENT) / 3) == bool(suffix)
    again = write(tmp_path / f"b.de{suffix}")
    assert again.read_bytes() == path.read_bytes()  # without a date or a name in it
    assert [file.name for file in sorted(tmp_path.iterdir())] == [path.name, again.name]
    path.write_bytes(path.read_bytes() * 2)  # as cat a.gz b.gz gives
    with open_input(path) as file:
        assert file.read() == CONTENT * 2
    with open_input(write(path, b"")) as file:
        assert file.read() == b""


def test_other_programs_read_and_write_them(tmp_path: Path) -> None:
    assert gzip.decompress(write(tmp_path / "a.gz").read_bytes()) == CONTENT
    assert lzma.decompress(write(tmp_path / "a.xz").read_bytes()) == CONTENT
    (tmp_path / "b.gz").write_bytes(gzip.compress(CONTENT))
    (tmp_path / "b.xz").write_bytes(lzma.compress(CONTENT))
    for name in ("b.gz", "b.xz"):
        with open_input(tmp_path / name) as file:
            assert file.read() == CONTENT


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}")
    whole = path.read_bytes()
    damaged = [whole[:cut] for cut in (1, 5, 40, len(whole) // 2, len(whole) - 1)]
    flipped = bytearray(whole)
    flipped[4] ^= 0xFF
    flipped[0] ^= 0xFF
    for content in [*damaged, bytes(flipped), b"not compressed at all"]:
        path.write_bytes(content)
        with (
            pytest.raises(ValueError, match="the compressed file is damaged or incomplete") as info,
            open_input(path) as f,
        ):
            list(f)
        assert str(info.value).startswith(f"{path}: ")
    path.unlink()
    with pytest.raises(FileNotFoundError) as missing, open_input(path):
        pass
    assert missing.value.filename == str(path)


@pytest.mark.parametrize("suffix", ["", *SUFFIXES])
def test_nothing_half_written_gets_the_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"

    def fail(error: Exception) -> None:
        with open_input(path) if path.exists() else nullcontext(), atomic_output(path) as file:
            file.write(CONTENT)
            raise error

    with pytest.raises(RuntimeError, match="stopped"):
        fail(RuntimeError("stopped"))
    assert list(tmp_path.iterdir()) == []
    write(path, b"before")
    with pytest.raises(OSError, match="other"):
        fail(OSError(28, "other", "elsewhere"))  # is no damage of the input
    if not suffix:
        with pytest.raises(OSError, match="other"):
            fail(OSError("other"))
    with open_input(path) as file:
        assert file.read() == b"before"


def test_the_compressed_form_is_found(tmp_path: Path) -> None:
    path = tmp_path / "train.de"
    assert find_file(path) == path
    for suffix in reversed(SUFFIXES):
        compressed = tmp_path / f"train.de{suffix}"
        compressed.write_bytes(b"")
        assert find_file(path) == compressed
        assert find_file(compressed) == compressed
        assert plain_path(compressed) == path
    path.write_bytes(b"")
    assert find_file(path) == path == plain_path(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_are_streamed(tmp_path: Path, suffix: str) -> None:
    """100 MB are written and read line by line in a few MB more than a small file takes."""
    code = """if True:
        import resource, sys
        from pathlib import Path
        from nmt.runtime.compression import atomic_output, open_input
        def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        for num in (1, 1000):
            path = Path(sys.argv[1] + str(num) + sys.argv[2])
            with atomic_output(path) as file:
                for _ in range(num):
                    file.write(b"some text of a line, which is repeated\\n" * 2560)
            with open_input(path) as file:
                assert sum(1 for line in file) == 2560 * num
            before, after = (peak(), 0) if num == 1 else (before, peak())
        print(after - before)
    """
    arguments = [sys.executable, "-c", code, str(tmp_path / "a"), suffix]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 40
