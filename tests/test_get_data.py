"""Fetching corpora: a server that misbehaves in every way it can, archives that do, and the files that come of it."""

import gzip
import hashlib
import io
import json
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

import get_data  # noqa: E402
from corpora import fetch, layout, progress, unpack  # noqa: E402
from corpora.fetch import Remote, Shelf  # noqa: E402
from corpora.layout import Expected, Recipe  # noqa: E402
from corpora.recipes import RECIPES  # noqa: E402
from corpora.sources import Files, Hub, Talks, TestSet, segments  # noqa: E402

TestSet.__test__ = False  # type: ignore[attr-defined]

BODY = bytes(range(256)) * 1200  # 300 KiB: more than one chunk and more than the socket's buffer of a small file


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files` with ETags and ranges; `faults` of a path are used up one a request, then all is well.

    Faults: ("status", code, headers), ("cut", bytes sent), ("stall", bytes sent). `ranges` False: none are honoured.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self.asked: list[tuple[str, str | None]] = []
        self.sent = 0
        self.ranges = True
        self.validators = True
        self.checks_if_range = True
        self.shift = 0
        self.release = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server, path = self.server, self.path
        wanted = self.headers.get("Range")
        server.asked.append((path, wanted))
        fault = server.faults[path].pop(0) if server.faults[path] else ("none",)
        if fault[0] == "status":
            self.send_response(fault[1])
            for name, value in fault[2].items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path not in server.files:
            self.send_error(404)
            return
        body = server.files[path]
        tag = f'"{sha(body)[:16]}"'
        if server.checks_if_range and self.headers.get("If-Range") not in (None, tag):
            wanted = None
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        start += server.shift if start else 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if server.validators:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        part = body[start : start + fault[1]] if len(fault) > 1 else body[start:]
        server.sent += len(part)  # before the client can have it
        self.wfile.write(part)
        if fault[0] == "stall":
            self.wfile.flush()
            server.release.wait(20)
        self.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which are not waited for."""
    found: list[float] = []
    monkeypatch.setattr(fetch.time, "sleep", found.append)
    return found


def shelf(tmp_path: Path, **options: Any) -> Shelf:
    return Shelf(tmp_path / "downloads", **({"timeout": 5.0, "retries": 3} | options))


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Downloads


def test_a_file_comes_once(server: Server, tmp_path: Path) -> None:
    server.files["/a%20b.bin"] = BODY
    remote = Remote(server.url("/a%20b.bin"), f"sha256:{sha(BODY)}")
    here = shelf(tmp_path)
    path = here.get(remote)
    assert path == here.get(remote)
    assert path.name == "a b.bin"
    assert path.read_bytes() == BODY
    assert len(server.asked) == 1
    assert here.taken[remote.url] == {"bytes": len(BODY), "sha256": sha(BODY), "checked against": remote.digest}
    assert names(tmp_path) == ["downloads/a b.bin"]


def test_a_broken_download_continues(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.files["/f"] = BODY
    server.faults["/f"] = [("cut", 100_000), ("cut", 50_000), ("status", 503, {})]
    path = shelf(tmp_path).get(Remote(server.url("/f"), f"sha256:{sha(BODY)}"))
    assert path.read_bytes() == BODY
    assert [wanted for _, wanted in server.asked] == [None, "bytes=100000-", "bytes=150000-", "bytes=150000-"]
    assert server.sent == len(BODY)  # nothing came twice
    assert len(waits) == 3


def test_a_new_process_continues_too(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.files["/f"] = BODY
    server.faults["/f"] = [("cut", 1000), ("cut", 0), ("cut", 0)]
    remote = Remote(server.url("/f"), f"sha256:{sha(BODY)}")
    with pytest.raises(OSError, match=r"ended after 1000 of 307200 bytes \(2 attempts\); 1000 B are kept and the same"):
        shelf(tmp_path, retries=1).get(remote)
    assert shelf(tmp_path, retries=1).get(remote).read_bytes() == BODY
    assert [wanted for _, wanted in server.asked][1:] == ["bytes=1000-"] * (len(server.asked) - 1)


def test_a_server_without_ranges(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.files["/f"], server.ranges = BODY, False
    server.faults["/f"] = [("cut", 100_000), ("cut", 90_000)]
    assert shelf(tmp_path).get(Remote(server.url("/f"), f"sha256:{sha(BODY)}")).read_bytes() == BODY
    assert server.sent == len(BODY) + 190_000
    server.files["/g"] = BODY
    server.faults["/g"] = [("cut", 1000)] * 50  # always at the same place: it must end some time
    with pytest.raises(OSError, match=r"ended after 1000 of 307200 bytes \(4 attempts\)"):
        shelf(tmp_path).get(Remote(server.url("/g")))


@pytest.mark.parametrize("validators", [True, False])
@pytest.mark.parametrize("checks", [True, False])
@pytest.mark.parametrize("digest", [True, False])
def test_a_file_that_changes_half_way(
    server: Server, tmp_path: Path, waits: list[float], validators: bool, checks: bool, digest: bool
) -> None:
    """The halves of two files are never put together, unless the server lies and nobody knows the digest."""
    new = BODY[::-1]
    server.validators, server.checks_if_range = validators, checks
    server.files["/f"] = BODY
    server.faults["/f"] = [("cut", 1000)]
    remote = Remote(server.url("/f"), f"sha256:{sha(new)}" if digest else "")
    with pytest.raises(OSError, match="1 attempts"):
        shelf(tmp_path, retries=0).get(remote)
    server.files["/f"] = new
    lies = validators and not checks
    if lies and not digest:
        return
    assert shelf(tmp_path).get(remote).read_bytes() == new


def test_a_server_that_continues_elsewhere(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.files["/f"], server.shift = BODY, 7
    server.faults["/f"] = [("cut", 1000)]
    with pytest.raises(OSError, match="the server continued at byte 1007 instead of 1000"):
        shelf(tmp_path).get(Remote(server.url("/f")))
    server.shift = 0
    assert shelf(tmp_path).get(Remote(server.url("/f"))).read_bytes() == BODY


def test_everything_was_there_but_the_name(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.files["/f"] = BODY
    server.faults["/f"] = [("cut", 1000)]
    remote = Remote(server.url("/f"), f"sha256:{sha(BODY)}")
    with pytest.raises(OSError, match="1 attempts"):
        shelf(tmp_path, retries=0).get(remote)
    (tmp_path / "downloads/f.part").write_bytes(BODY)
    assert shelf(tmp_path).get(remote).read_bytes() == BODY
    assert server.sent == 1000
    (tmp_path / "downloads/f").unlink()
    (tmp_path / "downloads/f.part").write_bytes(BODY + b"more")  # of nobody knows what: thrown away
    assert shelf(tmp_path).get(remote).read_bytes() == BODY


def test_a_wrong_digest(server: Server, tmp_path: Path) -> None:
    server.files["/f"] = b"<!DOCTYPE html><title>Please log in</title>"
    remote = Remote(server.url("/f"), f"sha256:{sha(BODY)}")
    with pytest.raises(ValueError, match=f"instead of {sha(BODY)}; it is a web page, perhaps a notice or a login") as e:
        shelf(tmp_path).get(remote)
    assert sha(server.files["/f"]) in str(e.value)
    assert f"put it at {tmp_path / 'downloads/f'}" in str(e.value)
    assert names(tmp_path) == []
    with pytest.raises(ValueError, match=r"has md5 .* instead of 0+"):
        shelf(tmp_path).get(Remote(server.url("/f"), "md5:" + "0" * 32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(BODY, mtime=0)[:-9], "not a whole .gz file"),
        (b"no gzip", "not a whole .gz file"),
        (gzip.compress(b"another text", mtime=0), "what it holds has sha256"),
    ],
)
def test_what_a_packed_file_holds_is_checked(server: Server, tmp_path: Path, content: bytes, message: str) -> None:
    server.files["/f.gz"] = content
    remote = Remote(server.url("/f.gz"), content=f"sha256:{sha(BODY)}")
    with pytest.raises(ValueError, match=message):
        shelf(tmp_path).get(remote)
    assert names(tmp_path) == []
    server.files["/f.gz"] = gzip.compress(BODY, mtime=0)
    assert gzip.decompress(shelf(tmp_path).get(remote).read_bytes()) == BODY


@pytest.mark.parametrize("code", [404, 403, 410])
def test_a_dead_link_is_not_asked_again(server: Server, tmp_path: Path, waits: list[float], code: int) -> None:
    server.faults["/f"] = [("status", code, {})]
    with pytest.raises(OSError, match=f"the server says {code} .*find f elsewhere, put it at") as error:
        shelf(tmp_path).get(Remote(server.url("/f")))
    assert "\n" not in str(error.value)
    assert len(server.asked) == 1
    assert waits == []


def test_an_overloaded_server(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.files["/f"] = BODY
    server.faults["/f"] = [("status", 429, {"Retry-After": "7"}), ("status", 500, {}), ("status", 503, {})]
    assert shelf(tmp_path).get(Remote(server.url("/f"))).read_bytes() == BODY
    assert waits == [7, 2, 4]
    server.faults["/g"] = [("status", 503, {"Retry-After": "99999"})] * 9
    with pytest.raises(OSError, match=r"the server says 503 .*\(4 attempts\)\. Check the network"):
        shelf(tmp_path).get(Remote(server.url("/g")))
    assert waits[3:] == [fetch.LONGEST_WAIT] * 3


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirections(server: Server, tmp_path: Path, waits: list[float], code: int) -> None:
    server.files["/new"] = BODY
    server.faults["/old"] = [("status", code, {"Location": "/new"})] * 2
    server.faults["/new"] = [("cut", 5000)]
    assert shelf(tmp_path).get(Remote(server.url("/old"))).read_bytes() == BODY
    assert server.asked[-1] == ("/new", "bytes=5000-")
    server.faults["/round"] = [("status", code, {"Location": "/round"})] * 99
    with pytest.raises(OSError, match="infinite loop"):
        shelf(tmp_path).get(Remote(server.url("/round")))


def test_a_server_that_falls_silent(server: Server, tmp_path: Path, waits: list[float]) -> None:
    server.files["/f"] = BODY
    server.faults["/f"] = [("stall", 2000), ("stall", 0), ("stall", 0), ("stall", 0)]
    with pytest.raises(OSError, match=r"nothing came for 0.2 s \(2 attempts\); 2.0 KiB are kept"):
        shelf(tmp_path, timeout=0.2, retries=1).get(Remote(server.url("/f")))
    server.faults["/f"] = [("stall", 2000)]
    assert shelf(tmp_path, timeout=0.5).get(Remote(server.url("/f"))).read_bytes() == BODY


def test_no_server(tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(OSError, match=r"cannot be reached \(.*refused.*\) \(4 attempts\)\. Check the network"):
        shelf(tmp_path).get(Remote("http://127.0.0.1:1/f"))
    assert waits == [1, 2, 4]


def test_files_that_were_put_there_by_hand(tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/f").write_bytes(BODY)
    assert shelf(tmp_path).get(Remote("http://nowhere.invalid/f", f"sha256:{sha(BODY)}")).read_bytes() == BODY
    with pytest.raises(ValueError, match="delete it to download it again, or put the right file there"):
        shelf(tmp_path).get(Remote("http://nowhere.invalid/f", f"sha256:{sha(b'')}"))
    assert (tmp_path / "downloads/f").read_bytes() == BODY


# Progress


def test_progress_is_plain_in_a_log_and_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    with progress.Progress("f", 1 << 20, 4 << 20) as told:
        told.add(1 << 20)
        assert told.line(2.0) == "f: 2.0 MiB of 4.0 MiB (50%), 512.0 KiB/s, 0:04 left"
    line = capsys.readouterr().err
    assert line.startswith("f: 2.0 MiB of 4.0 MiB (50%), ")
    assert "\r" not in line
    assert progress.Progress("f", 0, 0).line(1.0) == "f: 0 B, 0 B/s"
    assert progress.duration(3725) == "1:02:05"
    assert progress.readable(3 << 30) == "3.00 GiB"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress.Progress("f", 0, 4 << 20) as told:
        told.add(3 << 20)
        assert told.bar is not None
        told.bar.refresh()
    assert "\r" in terminal.getvalue()
    assert "75%" in terminal.getvalue()


# Archives


def tar(entries: list[tuple[str, bytes | str]], mode: str = "w:gz") -> bytes:
    """An archive of files (bytes) and links (where to)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(entries: list[tuple[str, bytes | str]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


PACKERS: dict[str, Callable[[list[tuple[str, bytes | str]]], bytes]] = {"tgz": tar, "zip": zipped}


@pytest.mark.parametrize("kind", PACKERS)
def test_members_of_archives(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(PACKERS[kind]([("./d/a", b"one"), ("d/b", BODY), ("c", b"three")]))
    assert unpack.members(path, ["d/a", "d/b"]) == {"d/a": b"one", "d/b": BODY}
    with pytest.raises(ValueError, match="no file d/x in it; it has d/a, d/b, c"):
        unpack.members(path, ["d/x"])


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "d/../../evil", "C:\\evil", "..\\evil", "\\evil", "C:evil"])
def test_paths_that_lead_out_of_an_archive(tmp_path: Path, kind: str, name: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a").write_bytes(PACKERS[kind]([("wanted", b"text"), (name, b"evil")]))
    with pytest.raises(ValueError, match="leads out of its folder; nothing was taken from it"):
        unpack.members(folder / "a", ["wanted"])
    assert names(tmp_path) == ["in/a"]


def test_archives_that_are_not_what_they_seem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(tar([("wanted", "/etc/passwd")]))
    with pytest.raises(ValueError, match="wanted is a link or no ordinary file"):
        unpack.members(path, ["wanted"])
    path.write_bytes(tar([("wanted", b"1"), ("wanted", b"2")]))
    with pytest.raises(ValueError, match="wanted is in it twice"):
        unpack.members(path, ["wanted"])
    monkeypatch.setattr(unpack, "LARGEST", 1000)
    for packer in PACKERS.values():
        path.write_bytes(packer([("wanted", BODY)]))
        with pytest.raises(ValueError, match="would be 307200 bytes"):
            unpack.members(path, ["wanted"])


@pytest.mark.parametrize("kind", PACKERS)
def test_damaged_archives(tmp_path: Path, kind: str) -> None:
    noise = hashlib.shake_256(b"").digest(20_000)  # does not compress
    whole = PACKERS[kind]([("wanted", noise), ("other", noise)])
    path = tmp_path / "a"
    for damaged in (whole[: len(whole) // 2], whole[:9000] + b"\0" * 50 + whole[9050:], b"", b"<html>"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cannot be unpacked \(.*\); delete it and give the command again"):
            unpack.members(path, ["wanted"])


# Corpora

ENGLISH = "One.\nTwo\x85 two.\n Three \n".encode()
GERMAN = b"Eins.\nZwei zwei.\n Drei\r\n"


def corpus(server: Server, **expected: Any) -> Recipe:
    """Two files of three lines, one of them packed."""
    server.files |= {"/x.en": ENGLISH, "/x.de.gz": gzip.compress(GERMAN, mtime=0)}
    files = Files("train", {"en": Remote(server.url("/x.en")), "de": Remote(server.url("/x.de.gz"))})
    return Recipe("x", "A corpus", ("en", "de"), (files,), {"train": Expected(**expected)}, "1 kB", "anybody's")


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command with recipes of one's own; what it returns and prints."""

    def run(*arguments: str, recipes: tuple[Recipe, ...] = ()) -> tuple[int, str, str]:
        table = {recipe.name: recipe for recipe in recipes} or RECIPES
        monkeypatch.setattr(get_data, "RECIPES", table)
        code = get_data.main([*arguments, "--root", str(tmp_path / "data")])
        return (code, *capsys.readouterr())

    return run


def test_files_are_taken_as_they_are(server: Server, tmp_path: Path, run: Any) -> None:
    recipe = corpus(server, lines=3, sha256={"en": sha(ENGLISH), "de": sha(GERMAN)})
    code, out, err = run("x", recipes=(recipe,))
    folder = tmp_path / "data/x"
    assert code == 0
    assert (folder / "train.en").read_bytes() == ENGLISH
    assert (folder / "train.de").read_bytes() == GERMAN
    assert out.count("3 lines") == 2
    assert "lines as expected, digest as expected" in out
    assert "terms of use: anybody's" in err
    record = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert record["files"]["train.de"] == {
        "lines": 3,
        "bytes": len(GERMAN),
        "sha256": sha(GERMAN),
        "expected": {"lines": 3, "sha256": sha(GERMAN)},
    }
    assert record["downloads"][server.url("/x.en")]["checked against"] == "not recorded"
    assert record["changes"] == {}
    downloads = ["downloads/x.de.gz", "downloads/x.en"]
    assert names(folder) == [".get_data.lock", *downloads, "provenance.json", "train.de", "train.en"]

    server.asked.clear()
    code, again, err = run("x", recipes=(recipe,))
    assert (code, again, server.asked) == (0, out, [])
    assert "is there already" in err


def test_what_the_trainer_reads_is_what_came(server: Server, tmp_path: Path, run: Any) -> None:
    from nmt.data.sources import DataConfig, read_pairs

    run("x", recipes=(corpus(server),))
    config = DataConfig(kind="text", train=str(tmp_path / "data/x/train"), source_lang="en", target_lang="de")
    assert [pair.target for pair in read_pairs(config, "train")] == ["Eins.", "Zwei zwei.", "Drei"]


@pytest.mark.parametrize(
    ("expected", "english", "message"),
    [
        ({"lines": 4}, ENGLISH, "train.en: 3 lines came, 4 are expected"),
        ({"sha256": {"en": "0" * 64}}, ENGLISH, f"train.en: SHA-256 {sha(ENGLISH)}, expected 000"),
        ({}, ENGLISH + b"Four.\n", "train: 4 lines of en, 3 lines of de; all need the same number"),
        ({}, b"One.\nTwo.\n\xff\n", "line 3 is not UTF-8"),
    ],
)
def test_wrong_texts_leave_what_is_there(
    server: Server, tmp_path: Path, run: Any, expected: Any, english: bytes, message: str
) -> None:
    good = corpus(server, lines=3)
    run("x", recipes=(good,))
    before = {name: (tmp_path / "data/x" / name).read_bytes() for name in ("train.en", "train.de", "provenance.json")}
    bad = corpus(server, **expected)
    server.files["/x.en"] = english
    (tmp_path / "data/x/downloads/x.en").unlink()
    code, out, err = run("x", "--force", recipes=(bad,))
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: x: ")
    assert message in err.splitlines()[-1]
    assert before == {name: (tmp_path / "data/x" / name).read_bytes() for name in before}
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]


def test_empty_files_are_refused(server: Server, run: Any) -> None:
    recipe = corpus(server)
    server.files |= {"/x.en": b"", "/x.de.gz": gzip.compress(b"", mtime=0)}
    assert "train.en: nothing came" in run("x", recipes=(recipe,))[2]


def test_other_peoples_files_are_not_replaced(server: Server, tmp_path: Path, run: Any) -> None:
    recipe = corpus(server)
    folder = tmp_path / "data/x"
    folder.mkdir(parents=True)
    (folder / "train.en").write_text("mine\n", encoding="utf-8")
    code, _, err = run("x", recipes=(recipe,))
    assert code == 1
    assert "train.en: is there and was not fetched by this; move it away, or add --force" in err
    assert server.asked == []
    assert run("x", "--force", recipes=(recipe,))[0] == 0
    assert (folder / "train.en").read_bytes() == ENGLISH
    (folder / "train.en").write_text("mine\n", encoding="utf-8")
    assert "train.en: was changed since it was fetched" in run("x", recipes=(recipe,))[2]
    (folder / "train.en").unlink()  # a file that is gone is made again, from the downloads
    server.asked.clear()
    assert run("x", recipes=(recipe,))[0] == 0
    assert server.asked == []
    (folder / "provenance.json").write_text("{", encoding="utf-8")
    assert "provenance.json: is damaged" in run("x", recipes=(recipe,))[2]


def test_a_crash_between_the_files(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    """Half of the files have their names, the machine goes down: the same command makes the rest."""
    recipe = corpus(server)
    real, done = Path.replace, Counter[str]()

    def crashing(self: Path, target: Path) -> Path:
        if Path(target).name == "train.de" and not done["train.de"]:
            done["train.de"] += 1
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", crashing)
    assert run("x", recipes=(recipe,))[0] == 130
    assert (tmp_path / "data/x/train.en").exists()
    assert not (tmp_path / "data/x/train.de").exists()
    assert run("x", recipes=(recipe,))[0] == 0
    assert (tmp_path / "data/x/train.de").read_bytes() == GERMAN


def test_two_at_once(server: Server, tmp_path: Path, run: Any) -> None:
    recipe = corpus(server)
    with layout._alone(tmp_path / "data/x"):
        code, _, err = run("x", recipes=(recipe,))
    assert code == 1
    assert "another get_data is at work there" in err
    assert run("x", recipes=(recipe,))[0] == 0


def test_one_that_fails_does_not_stop_the_others(server: Server, tmp_path: Path, run: Any) -> None:
    import dataclasses

    good = corpus(server)
    bad = dataclasses.replace(good, name="bad", sources=(Files("train", {"en": Remote(server.url("/gone"))}),))
    code, _, err = run("bad", "x", recipes=(bad, good))
    assert code == 1
    assert "error: bad: " in err
    assert (tmp_path / "data/x/train.en").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_process_continues_where_it_was(server: Server, tmp_path: Path, number: int, code: int) -> None:
    server.files |= {"/x.en": b"a line\n" * 40_000, "/x.de": b"eine Zeile\n" * 40_000}
    server.faults["/x.de"] = [("stall", 30_000)]
    program = tmp_path / "program.py"
    program.write_text(
        f"""import sys
sys.path.insert(0, {str(SCRIPTS)!r})
import get_data
from corpora.fetch import Remote
from corpora.layout import Expected, Recipe
from corpora.sources import Files
files = Files("train", {{x: Remote({server.url("/x.")!r} + x) for x in ("en", "de")}})
get_data.RECIPES = {{"x": Recipe("x", "", ("en", "de"), (files,), {{"train": Expected(40_000)}}, "", "")}}
raise SystemExit(get_data.main(["x", "--root", {str(tmp_path / "data")!r}]))
""",
        encoding="utf-8",
    )
    part = tmp_path / "data/x/downloads/x.de.part"
    process = subprocess.Popen([sys.executable, str(program)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size == 0 and len(server.asked) == 2) and time.monotonic() < deadline:
        if part.exists() and part.stat().st_size:
            break
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert err.rstrip().splitlines()[-1] == "stopped; the same command continues"
    assert "Traceback" not in err
    assert part.stat().st_size == 30_000
    assert not (tmp_path / "data/x/train.en").exists()
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True)
    assert server.asked == [("/x.en", None), ("/x.de", None), ("/x.de", "bytes=30000-")]
    assert server.sent == 280_000 + 440_000
    assert done.stdout.count("40,000 lines") == 2
    assert (tmp_path / "data/x/train.de").read_bytes() == server.files["/x.de"]


# Kinds of sources

TAGGED = """<url>http://x</url>
<keywords>talks, {0}</keywords>
<talkid>1</talkid>
<title>Title {0}</title>
<description>What it is about {0}</description>
 First {0}
Second {0}
{1}
Third {0}
"""


def talk(language: str, lines: list[str]) -> bytes:
    rows = "\n".join(f'<seg id="{number}"> {line} </seg>' for number, line in enumerate(lines, start=1))
    return f'<?xml version="1.0"?>\n<doc>\n<title>{language}</title>\n  {rows}\n</doc>\n'.encode()


def talks(server: Server, **options: Any) -> Recipe:
    entries: list[tuple[str, bytes | str]] = []
    for language, odd in (("de", "<3 Herz"), ("en", "<speaker>somebody</speaker>")):
        entries.append((f"de-en/train.tags.{language}", TAGGED.format(language, odd).encode()))
        for name in ("dev", "tst1", "tst2"):
            entries.append((f"de-en/{name}.{language}.xml", talk(language, [f"{name} a  &amp; {language}", "b"])))
    server.files["/de-en.tgz"] = tar(entries)
    source = Talks(
        Remote(server.url("/de-en.tgz")), "de-en", "train.tags", {"test": ["dev", "tst1", "tst2"]}, **options
    )
    prefixes = ["train", "test", *(["valid"] if options.get("every") else [])]
    return Recipe("t", "", ("de", "en"), (source,), {prefix: Expected() for prefix in prefixes}, "", "")


def test_talks(server: Server, tmp_path: Path, run: Any) -> None:
    code, _, err = run("t", recipes=(talks(server),))
    assert code == 0, err
    folder = tmp_path / "data/t"
    assert (folder / "train.en").read_text(encoding="utf-8") == "First en\nSecond en\nThird en\n"
    assert (folder / "test.de").read_text(encoding="utf-8").split("\n")[:3] == [
        "dev a &amp; de",
        "b",
        "tst1 a &amp; de",
    ]
    changes = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["changes"]
    assert changes["train"] == {
        "pair left out: <url>": 1,
        "pair left out: <keywords>": 1,
        "pair left out: <talkid>": 1,
        "pair left out: <title>": 1,
        "pair left out: <description>": 1,
        "pair left out: tag on one side only, or different tags": 1,
        "spaces at the ends": 1,
    }
    assert changes["test"] == {"inner white space made one space": 6, "XML entity left as it is": 6}


def test_talks_with_titles_and_a_share_for_validation(server: Server, tmp_path: Path, run: Any) -> None:
    assert run("t", recipes=(talks(server, titles=True, every=2),))[0] == 0
    folder = tmp_path / "data/t"
    assert (folder / "train.de").read_text(encoding="utf-8") == "Title de\nFirst de\nThird de\n"
    assert (folder / "valid.de").read_text(encoding="utf-8") == "What it is about de\nSecond de\n"
    changes = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["changes"]["train"]
    assert changes["tags of <title> taken off"] == 1


def test_talks_out_of_step(server: Server, run: Any) -> None:
    recipe = talks(server)
    entries: list[tuple[str, bytes | str]] = [
        (f"de-en/{name}.{language}.xml", talk(language, ["a"] * (2 if (name, language) == ("tst2", "en") else 1)))
        for name in ("dev", "tst1", "tst2")
        for language in ("de", "en")
    ]
    entries += [(f"de-en/train.tags.{language}", b"x\n") for language in ("de", "en")]
    server.files["/de-en.tgz"] = tar(entries)
    assert "tst2.de.xml: 1 lines of de, 2 lines of en" in run("t", recipes=(recipe,))[2]


SGM = """<refset setid="x" srclang="any" trglang="{0}">
<doc docid="1" origlang="en">
<p>
<seg id="1">Plain {0}.</seg>
<seg id="2">  Two\u00a0 spaces\u0085and &quot;quotes&quot; &amp;  {0} </seg>
<seg id="3"></seg>
<seg id="4">with <b>tags</b> {0}</seg></p>
<seg id="5">no end {0}
</p>
</doc>
"""


def test_test_sets_are_those_of_sacrebleu(server: Server, tmp_path: Path, run: Any) -> None:
    """The same archive through its code and ours: the same text."""
    from sacrebleu.dataset import DATASETS
    from sacrebleu.dataset.fake_sgml import FakeSGMLDataset

    files = [f"test/x-{side}.{language}.sgm" for side, language in (("src", "en"), ("ref", "de"))]
    entries: list[tuple[str, bytes | str]] = [(name, SGM.format(name[-6:-4]).encode()) for name in files]
    server.files["/test.tgz"] = tar(entries)
    md5 = hashlib.md5(server.files["/test.tgz"], usedforsecurity=False).hexdigest()
    theirs = FakeSGMLDataset("a/b", data=[server.url("/test.tgz")], md5=[md5], langpairs={"en-de": files})
    theirs._outdir, theirs._rawdir = str(tmp_path / "sacrebleu"), str(tmp_path / "sacrebleu/raw")
    recipe = Recipe("s", "", ("en", "de"), (TestSet("test", "a/b", "en-de"),), {"test": Expected(5)}, "", "")
    DATASETS["a/b"] = theirs
    try:
        assert run("s", recipes=(recipe,))[0] == 0
    finally:
        del DATASETS["a/b"]
    theirs.process_to_text("en-de")
    for language, path in zip(("en", "de"), theirs.get_files("en-de"), strict=False):
        ours = (tmp_path / f"data/s/test.{language}").read_text(encoding="utf-8")
        assert ours == Path(path).read_text(encoding="utf-8")
        assert ours.count("\n") == 5
    changes = json.loads((tmp_path / "data/s/provenance.json").read_text(encoding="utf-8"))["changes"]["test"]
    assert changes["segment that does not end on its line, kept with its tag"] == 2
    assert names(tmp_path / "data/s/downloads") == ["a_b.test.tgz"]


def test_every_test_set_of_the_table_is_in_sacrebleus() -> None:
    for recipe in RECIPES.values():
        for source in recipe.sources:
            if isinstance(source, TestSet):
                for (remote, member), language in zip(source._members(), recipe.languages, strict=True):
                    assert f".{language}." in member or f"-{language}." in member
                    assert remote.digest.startswith("md5:")
    remotes = {remote.file for remote, _ in TestSet("tst2017", "iwslt17", "de-en")._members()}
    assert remotes == {"iwslt17.de-en.tgz", "iwslt17.en-de.tgz"}


def test_segments_may_be_indented_in_talks() -> None:
    line = ' \t<seg id="1">a</seg>'
    assert segments([line], Counter(), indented=True) == ["a"]
    assert segments([line], Counter()) == []


def hub(folder: Path, lines: int) -> Recipe:
    """A data set as it would be copied from the hub by hand."""
    import datasets

    rows = [{"translation": {"de": "Eins", "en": "One"}}, {"translation": {"de": "Zwei\nzwei ", "en": None}}]
    local = folder / "downloads/set/de-en"
    local.mkdir(parents=True)
    datasets.Dataset.from_list(rows).to_parquet(local / "train-00000-of-00001.parquet")
    source = Hub("train", "owner/set", "de-en")
    assert source.local(folder / "downloads") == local
    return Recipe("h", "", ("en", "de"), (source,), {"train": Expected(lines)}, "", "")


def test_data_sets_of_the_hub(tmp_path: Path, run: Any) -> None:
    recipe = hub(tmp_path / "data/h", 2)
    code, _, err = run("h", recipes=(recipe,))
    assert code == 0, err
    assert (tmp_path / "data/h/train.en").read_text(encoding="utf-8") == "One\n\n"
    assert (tmp_path / "data/h/train.de").read_text(encoding="utf-8") == "Eins\nZwei zwei\n"
    changes = json.loads((tmp_path / "data/h/provenance.json").read_text(encoding="utf-8"))["changes"]["train"]
    assert changes == {"empty cell": 1, "line break in a cell": 1, "spaces at the ends": 1}


def test_a_data_set_of_another_size(tmp_path: Path, run: Any) -> None:
    assert "train.en: 2 lines came, 3 are expected" in run("h", recipes=(hub(tmp_path / "data/h", 3),))[2]
    assert not (tmp_path / "data/h/train.en").exists()


def test_a_data_set_that_cannot_be_read(tmp_path: Path, run: Any) -> None:
    recipe = hub(tmp_path / "data/h", 2)
    (tmp_path / "data/h/downloads/set/de-en/train-00000-of-00001.parquet").write_bytes(b"PAR1 and nothing else")
    code, out, err = run("h", recipes=(recipe,))
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: h: ")
    assert "Traceback" not in err


def test_the_hub_is_out_of_reach(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    source = Hub("train", "owner/no-such-set", "de-en", revision="abc")
    recipe = Recipe("h", "", ("en", "de"), (source,), {"train": Expected()}, "", "")
    code, out, err = run("h", recipes=(recipe,))
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert last.startswith("error: h: owner/no-such-set (de-en, train): cannot be opened: ")
    assert str(tmp_path / "data/h/downloads/no-such-set/de-en") in last


# The command and its table


def test_the_list_says_everything(run: Any) -> None:
    code, out, err = run("--list")
    assert (code, err) == (0, "")
    for recipe in RECIPES.values():
        assert f"{recipe.name}: {recipe.title}" in out
        assert f"terms of use: {recipe.licence}" in out
        for source in recipe.sources:
            assert all(place in out for place in source.places())


def test_wrong_names_and_options(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert "error: multi3k: no such corpus; did you mean multi30k?" in run("multi3k")[2]
    assert run("zzz")[2].startswith("error: zzz: no such corpus; there are multi30k, ")
    assert run()[0] == 1
    for options in (["--timeout=0"], ["--timeout=nan"], ["--retries=-1"], ["--retries=x"]):
        with pytest.raises(SystemExit) as stop:
            run("multi30k", *options)
        assert stop.value.code == 2
        assert options[0].partition("=")[0] in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path, run: Any) -> None:
    recipe = corpus(server)
    (tmp_path / "data").write_text("a file", encoding="utf-8")
    code, _, err = run("x", recipes=(recipe,))
    assert code == 1
    assert err.splitlines()[-1].startswith(f"error: x: {tmp_path / 'data'}")


def test_the_table_is_well_formed() -> None:
    for name, recipe in RECIPES.items():
        assert name == recipe.name
        prefixes = set()
        for source in recipe.sources:
            if isinstance(source, Files):
                prefixes.add(source.prefix)
                assert tuple(source.remotes) == recipe.languages
                remotes = list(source.remotes.values())
            elif isinstance(source, Talks):
                prefixes |= {"train", *source.sets, *(["valid"] if source.every else [])}
                remotes = [source.archive]
            else:
                assert isinstance(source, (TestSet, Hub))
                prefixes.add(source.prefix)
                remotes = []
            for remote in remotes:
                assert remote.url.startswith("https://")
                algorithm, _, value = (remote.digest or remote.content).partition(":")
                assert len(bytes.fromhex(value)) == {"sha256": 32, "md5": 16}[algorithm]
        assert prefixes == set(recipe.expected)


# Experiments


def experiments() -> list[str]:
    return sorted(path.stem for path in (SCRIPTS.parent / "configs/experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", experiments())
def test_experiments_build(name: str) -> None:
    """Each composes, reads what a recipe writes, and builds a model of its vocabulary's size."""
    import torch

    from nmt import models
    from nmt.cli.compose import command
    from nmt.cli.configs import Config

    seen: list[Config] = []
    command(lambda config, overrides: seen.append(config), Config, "train", [f"experiment={name}"])
    (config,) = seen
    size = config.data.tokenizer.vocab_size
    with torch.device("meta"):
        model = models.build(config.model, size, size, joint=config.data.tokenizer.joint)
    assert max(parameter.shape[0] for parameter in model.parameters() if parameter.dim() == 2) >= size
    source, target = config.data.source_lang, config.data.target_lang
    corpora = {Path(place).parts[1] for place in (config.data.train, config.data.valid, config.data.test)}
    assert len(corpora) == 1
    if corpora == {"small_parallel_enja"}:
        return  # no recipe: see data/README.md
    recipe = RECIPES[corpora.pop()]
    assert {source, target} <= set(recipe.languages)
    for place in (config.data.train, config.data.valid, config.data.test, *config.data.more_tests):
        assert Path(place).parts[0] == "data"
        assert Path(place).name in recipe.expected


def test_every_recipe_has_an_experiment_and_both_stand_in_the_documents() -> None:
    documents = {
        name: (SCRIPTS.parent / name).read_text(encoding="utf-8") for name in ("docs/recipes.md", "data/README.md")
    }
    for name in RECIPES:
        assert any(experiment.startswith(name.rpartition("_")[0]) for experiment in experiments())
        for text in documents.values():
            assert f"`{name}`" in text or f"get_data.py {name}" in text
    for experiment in experiments():
        assert f"experiment={experiment}" in documents["docs/recipes.md"]
