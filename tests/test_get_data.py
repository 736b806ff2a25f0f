"""scripts/get_data.py: downloads from a server that fails in several ways, archives, and the files written."""

import dataclasses
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
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest
from filelock import FileLock

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

import get_data  # noqa: E402
from get_data import Downloads, Recipe, segments  # noqa: E402

RECIPES = get_data.load_recipes()
BODY = bytes(range(256)) * 1200  # 300 KiB: more than one chunk and more than the socket's buffer of a small file


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256(content: bytes) -> str:
    return f"sha256:{sha(content)}"


class Server(ThreadingHTTPServer):
    """Server of `files` with ranges. Each request takes one of the `faults` of its path, until none is left.

    Faults: ("status", code, headers), ("truncated", bytes sent), ("stall", bytes sent). `ranges`: whether they are
        supported.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self.requests: list[tuple[str, str | None]] = []
        self.ranges = True
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
        server.requests.append((path, wanted))
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
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : start + fault[1]] if len(fault) > 1 else body[start:])
        if fault[0] == "stall":
            self.wfile.flush()
            server.release.wait(20)
        self.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # a broken chunk comes again
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Downloads


def test_a_file_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    server.files["/a.bin"] = BODY
    url = server.url("/a.bin")
    downloads = Downloads(tmp_path / "downloads")
    path = downloads.get(url, sha256(BODY))
    assert path == downloads.get(url, sha256(BODY))
    assert path.read_bytes() == BODY
    assert len(server.requests) == 1
    assert downloads.record == {url: {"bytes": len(BODY), "sha256": sha(BODY), "checked against": sha256(BODY)}}
    assert names(tmp_path) == ["downloads/a.bin"]


def test_a_broken_download_continues(server: Server, tmp_path: Path) -> None:
    server.files["/f"] = BODY
    server.faults["/f"] = [("truncated", 100_000), ("truncated", 50_000)]
    path = Downloads(tmp_path).get(server.url("/f"), sha256(BODY))
    assert path.read_bytes() == BODY
    assert [wanted for _, wanted in server.requests] == [None, "bytes=100000-", "bytes=150000-"]


def test_the_next_command_continues_too(server: Server, tmp_path: Path) -> None:
    server.files["/f"] = BODY
    server.faults["/f"] = [("truncated", 1000), ("status", 503, {})]
    with pytest.raises(OSError, match=r"503 .*the same command, which continues after 1,000 bytes, or put the file at"):
        Downloads(tmp_path).get(server.url("/f"), sha256(BODY))
    assert names(tmp_path) == ["f.part"]
    assert Downloads(tmp_path).get(server.url("/f"), sha256(BODY)).read_bytes() == BODY
    assert [wanted for _, wanted in server.requests] == [None, "bytes=1000-", "bytes=1000-"]


def test_a_server_without_ranges(server: Server, tmp_path: Path) -> None:
    server.files["/f"], server.ranges = BODY, False
    server.faults["/f"] = [("truncated", 100_000), ("truncated", 90_000)]
    assert Downloads(tmp_path).get(server.url("/f"), sha256(BODY)).read_bytes() == BODY


def test_a_file_that_changes_half_way(server: Server, tmp_path: Path) -> None:
    """Parts of two files are never joined."""
    new = BODY[::-1]
    (tmp_path / "f.part").write_bytes(BODY[:1000])
    server.files["/f"] = new
    assert Downloads(tmp_path).get(server.url("/f"), sha256(new)).read_bytes() == new


@pytest.mark.parametrize("part", [BODY, BODY + b"more"])
def test_a_part_that_is_whole_or_too_long(server: Server, tmp_path: Path, part: bytes) -> None:
    server.files["/f"] = BODY
    (tmp_path / "f.part").write_bytes(part)
    assert Downloads(tmp_path).get(server.url("/f"), sha256(BODY)).read_bytes() == BODY


def test_a_wrong_digest(server: Server, tmp_path: Path) -> None:
    server.files["/f"] = b"<!DOCTYPE html><title>Please log in</title>"
    with pytest.raises(ValueError, match=f"{sha(server.files['/f'])} instead of {sha(BODY)}.* put it at {tmp_path}/f"):
        Downloads(tmp_path).get(server.url("/f"), sha256(BODY))
    assert names(tmp_path) == []
    with pytest.raises(ValueError, match=r"has md5 .* instead of 0+"):
        Downloads(tmp_path).get(server.url("/f"), "md5:" + "0" * 32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(BODY, mtime=0)[:-9], "not a whole .gz file"),
        (b"no gzip", "not a whole .gz file"),
        (gzip.compress(b"another text", mtime=0), "it has sha256"),
    ],
)
def test_the_content_of_a_packed_file_is_checked(server: Server, tmp_path: Path, content: bytes, message: str) -> None:
    server.files["/f.gz"] = content
    with pytest.raises(ValueError, match=message):
        Downloads(tmp_path).get(server.url("/f.gz"), sha256(BODY))
    assert names(tmp_path) == []
    server.files["/f.gz"] = gzip.compress(BODY, mtime=0)
    assert gzip.decompress(Downloads(tmp_path).get(server.url("/f.gz"), sha256(BODY)).read_bytes()) == BODY


@pytest.mark.parametrize("code", [404, 403, 410])
def test_a_dead_link(server: Server, tmp_path: Path, code: int) -> None:
    server.faults["/f"] = [("status", code, {})]
    with pytest.raises(OSError, match=f"{code} .*put the file at {tmp_path}/f") as error:
        Downloads(tmp_path).get(server.url("/f"), sha256(BODY))
    assert "\n" not in str(error.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirections(server: Server, tmp_path: Path, code: int) -> None:
    server.files["/new"] = BODY
    server.faults["/old"] = [("status", code, {"Location": "/new"})] * 2
    server.faults["/new"] = [("truncated", 5000)]
    assert Downloads(tmp_path).get(server.url("/old"), sha256(BODY)).read_bytes() == BODY
    assert server.requests[-1] == ("/new", "bytes=5000-")


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)
    with pytest.raises(OSError, match=r"cannot be downloaded: .*refused.*\. Check the network"):
        Downloads(tmp_path).get("http://127.0.0.1:1/f", sha256(BODY))


def test_files_that_were_put_there_by_hand(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(BODY)
    assert Downloads(tmp_path).get("http://nowhere.invalid/f", sha256(BODY)).read_bytes() == BODY
    with pytest.raises(ValueError, match="delete it to download it again, or put the right file there"):
        Downloads(tmp_path).get("http://nowhere.invalid/f", sha256(b""))
    assert (tmp_path / "f").read_bytes() == BODY


# Archives


def tar(entries: list[tuple[str, bytes | str]]) -> bytes:
    """Return an archive of files (bytes) and links (their targets)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_members_of_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(tar([("./d/a", b"one\ntwo\n"), ("d/b", b"x"), ("../c", b"three"), ("d/link", "/etc/passwd")]))
    assert get_data.members(path, ["d/a", "d/b"]) == [["one", "two"], ["x"]]
    for name in ("d/x", "d/link"):
        with pytest.raises(ValueError, match=f"no file {name} in it; it has d/a, d/b, ../c"):
            get_data.members(path, [name])
    assert names(tmp_path) == ["a.tgz"]


def test_damaged_archives(tmp_path: Path) -> None:
    noise = hashlib.shake_256(b"").digest(20_000)  # does not compress
    whole = tar([("wanted", noise), ("other", noise)])
    path = tmp_path / "a"
    for damaged in (whole[: len(whole) // 2], b"", b"<html>"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cannot be unpacked \(.*\); delete it and try again"):
            get_data.members(path, ["wanted"])


# Corpora

ENGLISH = "One.\nTwo\x85 two.\n Three \n".encode()
GERMAN = b"Eins.\nZwei zwei.\n Drei\r\n"


def recipe(languages: tuple[str, ...], lines: dict[str, int], **source: Any) -> Recipe:
    return Recipe("A corpus", list(languages), lines, "1 kB", "anybody's", **source)


def corpus(server: Server, english: bytes = ENGLISH, german: bytes = GERMAN, lines: int = 0) -> Recipe:
    """Return a recipe of two compressed files."""
    server.files |= {"/train.en.gz": gzip.compress(english, mtime=0), "/train.de.gz": gzip.compress(german, mtime=0)}
    digests = {"train.en": sha(english), "train.de": sha(german)}
    files = {"url": server.url("/{name}.gz"), "sha256": digests}
    return recipe(("en", "de"), {"train": lines}, files=files)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the command with given recipes and returns its exit code, output and errors."""

    def run(*arguments: str, **recipes: Recipe) -> tuple[int, str, str]:
        monkeypatch.setattr(get_data, "load_recipes", lambda: recipes or RECIPES)
        code = get_data.main([*arguments, "--root", str(tmp_path / "data")])
        return (code, *capsys.readouterr())

    return run


def test_files_are_taken_as_they_are(server: Server, tmp_path: Path, run: Any) -> None:
    x = corpus(server, lines=3)
    code, out, err = run("x", x=x)
    folder = tmp_path / "data/x"
    assert code == 0, err
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
    assert record["downloads"][server.url("/train.en.gz")]["checked against"] == sha256(ENGLISH)
    assert record["changes"] == {}
    written = [name for name in names(folder) if name != ".get_data.lock"]
    assert written == [
        "downloads/train.de.gz",
        "downloads/train.en.gz",
        "provenance.json",
        "train.de",
        "train.en",
    ]

    server.requests.clear()
    code, again, err = run("x", x=x)
    assert (code, again, server.requests) == (0, out, [])
    assert "exists already" in err


def test_the_trainer_reads_what_was_written(server: Server, tmp_path: Path, run: Any) -> None:
    from nmt.data import DataConfig, read_pairs

    run("x", x=corpus(server))
    config = DataConfig(format="text", train=str(tmp_path / "data/x/train"), source_lang="en", target_lang="de")
    assert [pair.target for pair in read_pairs(config, "train")] == ["Eins.", "Zwei zwei.", "Drei"]


@pytest.mark.parametrize(
    ("lines", "english", "message"),
    [
        (4, ENGLISH, "train.en: lines 3, expected 4"),
        (0, ENGLISH[:-1], f"train.en: sha256 {sha(ENGLISH)}, expected {sha(ENGLISH[:-1])}"),
        (0, ENGLISH + b"Four.\n", "train: 4 lines of en, 3 lines of de; all need the same number"),
        (0, b"One.\nTwo.\n\xff\n", "line 3 is not UTF-8"),
    ],
)
def test_wrong_texts_leave_what_is_there(
    server: Server, tmp_path: Path, run: Any, lines: int, english: bytes, message: str
) -> None:
    run("x", x=corpus(server, lines=3))
    before = {name: (tmp_path / "data/x" / name).read_bytes() for name in ("train.en", "train.de", "provenance.json")}
    bad = corpus(server, english, lines=lines)
    (tmp_path / "data/x/downloads/train.en.gz").unlink()
    code, out, err = run("x", "--force", x=bad)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: x: ")
    assert message in err.splitlines()[-1]
    assert before == {name: (tmp_path / "data/x" / name).read_bytes() for name in before}
    assert not list((tmp_path / "data/x").glob(".incomplete*"))


def test_empty_files_are_refused(server: Server, run: Any) -> None:
    assert "train.en: is empty; nothing was written" in run("x", x=corpus(server, b"", b""))[2]


def test_files_of_others_are_not_replaced(server: Server, tmp_path: Path, run: Any) -> None:
    x = corpus(server)
    folder = tmp_path / "data/x"
    folder.mkdir(parents=True)
    (folder / "train.en").write_text("mine\n", encoding="utf-8")
    code, _, err = run("x", x=x)
    assert code == 1
    assert "train.en: exists and was not fetched by this script; move it away, or add --force" in err
    assert server.requests == []
    assert run("x", "--force", x=x)[0] == 0
    assert (folder / "train.en").read_bytes() == ENGLISH
    (folder / "train.en").write_text("mine\n", encoding="utf-8")
    assert "train.en: was changed since it was fetched" in run("x", x=x)[2]
    (folder / "train.en").unlink()  # a file that is gone is made again, from the downloads
    server.requests.clear()
    assert run("x", x=x)[0] == 0
    assert server.requests == []
    (folder / "provenance.json").write_text("{", encoding="utf-8")
    assert "provenance.json: is damaged" in run("x", x=x)[2]


def test_a_crash_between_the_files(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    """After a crash between two renames, the same command writes the rest."""
    x = corpus(server)
    real, done = Path.replace, Counter[str]()

    def crashing(self: Path, target: Path) -> Path:
        if Path(target).name == "train.de" and not done["train.de"]:
            done["train.de"] += 1
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", crashing)
    assert run("x", x=x)[0] == 130
    assert (tmp_path / "data/x/train.en").exists()
    assert not (tmp_path / "data/x/train.de").exists()
    (tmp_path / "data/x/.incomplete-0").mkdir()
    assert run("x", x=x)[0] == 0
    assert (tmp_path / "data/x/train.de").read_bytes() == GERMAN
    assert not list((tmp_path / "data/x").glob(".incomplete*"))


def test_two_at_once(server: Server, tmp_path: Path, run: Any) -> None:
    x = corpus(server)
    (tmp_path / "data/x").mkdir(parents=True)
    with FileLock(tmp_path / "data/x/.get_data.lock"):
        code, _, err = run("x", x=x)
    assert code == 1
    assert "another get_data writes there" in err
    assert run("x", x=x)[0] == 0


def test_one_that_fails_does_not_stop_the_others(server: Server, tmp_path: Path, run: Any) -> None:
    good = corpus(server)
    bad = dataclasses.replace(good, files={**good.files, "url": server.url("/gone/{name}.gz")})
    code, _, err = run("bad", "x", bad=bad, x=good)
    assert code == 1
    assert "error: bad: " in err
    assert (tmp_path / "data/x/train.en").exists()


def test_a_stopped_process_continues_where_it_was(server: Server, tmp_path: Path) -> None:
    english, german = b"a line\n" * 40_000, b"eine Zeile\n" * 40_000
    server.files |= {"/train.en": english, "/train.de": german}
    server.faults["/train.de"] = [("stall", 30_000)]
    files = {"url": server.url("/{name}"), "sha256": {"train.en": sha(english), "train.de": sha(german)}}
    program = f"""import sys
sys.path.insert(0, {str(SCRIPTS)!r})
import get_data, huggingface_hub.constants
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 1000
get_data.load_recipes = lambda: {{"x": get_data.Recipe("", ["en", "de"], {{"train": 40_000}}, "", "", files={files})}}
raise SystemExit(get_data.main(["x", "--root", {str(tmp_path / "data")!r}]))
"""
    part = tmp_path / "data/x/downloads/train.de.part"
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 20_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(2)  # the rest is buffered: it has to be read first, on a busy machine too
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.rstrip().splitlines()[-1] == "stopped; the same command continues"
    assert "Traceback" not in err
    assert not (tmp_path / "data/x/train.en").exists()
    assert part.stat().st_size == 30_000
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert server.requests == [("/train.en", None), ("/train.de", None), ("/train.de", "bytes=30000-")]
    assert done.stdout.count("40,000 lines") == 2
    assert (tmp_path / "data/x/train.de").read_bytes() == german


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
    source = {
        "url": server.url("/de-en.tgz"),
        "digest": sha256(server.files["/de-en.tgz"]),
        "train": "de-en/train.tags",
        "sets": {"test": ["de-en/dev", "de-en/tst1", "de-en/tst2"]},
    }
    prefixes = ["train", "test", *(["valid"] if options.get("every") else [])]
    return recipe(("de", "en"), dict.fromkeys(prefixes, 0), talks=source | options)


def test_talks(server: Server, tmp_path: Path, run: Any) -> None:
    code, _, err = run("t", t=talks(server))
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
    assert run("t", t=talks(server, titles=True, every=2))[0] == 0
    folder = tmp_path / "data/t"
    assert (folder / "train.de").read_text(encoding="utf-8") == "Title de\nFirst de\nThird de\n"
    assert (folder / "valid.de").read_text(encoding="utf-8") == "What it is about de\nSecond de\n"
    changes = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["changes"]["train"]
    assert changes["tags of <title> taken off"] == 1


def test_talks_out_of_step(server: Server, run: Any) -> None:
    wrong = talks(server)
    entries: list[tuple[str, bytes | str]] = [
        (f"de-en/{name}.{language}.xml", talk(language, ["a"] * (2 if (name, language) == ("tst2", "en") else 1)))
        for name in ("dev", "tst1", "tst2")
        for language in ("de", "en")
    ]
    entries += [(f"de-en/train.tags.{language}", b"x\n") for language in ("de", "en")]
    server.files["/de-en.tgz"] = tar(entries)
    wrong.talks["digest"] = sha256(server.files["/de-en.tgz"])
    assert "de-en/tst2: 1 lines of de, 2 lines of en" in run("t", t=wrong)[2]


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
    """sacreBLEU's code reads the same text from the same archive."""
    from sacrebleu.dataset import DATASETS
    from sacrebleu.dataset.fake_sgml import FakeSGMLDataset

    files = [f"test/x-{side}.{language}.sgm" for side, language in (("src", "en"), ("ref", "de"))]
    entries: list[tuple[str, bytes | str]] = [(name, SGM.format(name[-6:-4]).encode()) for name in files]
    server.files["/test.tgz"] = tar(entries)
    md5 = hashlib.md5(server.files["/test.tgz"], usedforsecurity=False).hexdigest()
    theirs = FakeSGMLDataset("a/b", data=[server.url("/test.tgz")], md5=[md5], langpairs={"en-de": files})
    theirs._outdir, theirs._rawdir = str(tmp_path / "sacrebleu"), str(tmp_path / "sacrebleu/raw")
    set_of_five = recipe(("en", "de"), {"test": 5}, test_sets={"test": "a/b"})
    DATASETS["a/b"] = theirs
    try:
        assert run("s", s=set_of_five)[0] == 0
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
    for name, corpus in RECIPES.items():
        for test_set in corpus.test_sets.values():
            for (_, digest, member), language in zip(
                get_data.archives(test_set, corpus), corpus.languages, strict=True
            ):
                assert f".{language}." in member or f"-{language}." in member, name
                assert digest.startswith("md5:")
    urls = [url.rpartition("/")[2] for url, _, _ in get_data.archives("iwslt17", RECIPES["iwslt17_de_en"])]
    assert urls == ["de-en.tgz", "en-de.tgz"]


def test_segments_may_be_indented_in_talks() -> None:
    line = ' \t<seg id="1">a</seg>'
    assert segments([line], Counter(), indented=True) == ["a"]
    assert segments([line], Counter()) == []


def hub(folder: Path, lines: int) -> Recipe:
    """Return a recipe of a data set that was copied from the hub by hand."""
    import datasets

    rows = [{"translation": {"de": "Eins", "en": "One"}}, {"translation": {"de": "Zwei\nzwei ", "en": None}}]
    local = folder / "downloads/set/de-en"
    local.mkdir(parents=True)
    datasets.Dataset.from_list(rows).to_parquet(local / "train-00000-of-00001.parquet")
    return recipe(("en", "de"), {"train": lines}, hub={"path": "owner/set", "config": "de-en"})


def test_data_sets_of_the_hub(tmp_path: Path, run: Any) -> None:
    code, _, err = run("h", h=hub(tmp_path / "data/h", 2))
    assert code == 0, err
    assert (tmp_path / "data/h/train.en").read_text(encoding="utf-8") == "One\n\n"
    assert (tmp_path / "data/h/train.de").read_text(encoding="utf-8") == "Eins\nZwei zwei\n"
    changes = json.loads((tmp_path / "data/h/provenance.json").read_text(encoding="utf-8"))["changes"]["train"]
    assert changes == {"empty cell": 1, "line break in a cell": 1, "spaces at the ends": 1}


def test_a_data_set_of_another_size(tmp_path: Path, run: Any) -> None:
    assert "train.en: lines 2, expected 3" in run("h", h=hub(tmp_path / "data/h", 3))[2]
    assert not (tmp_path / "data/h/train.en").exists()


def test_a_data_set_that_cannot_be_read(tmp_path: Path, run: Any) -> None:
    damaged = hub(tmp_path / "data/h", 2)
    (tmp_path / "data/h/downloads/set/de-en/train-00000-of-00001.parquet").write_bytes(b"PAR1 and nothing else")
    code, out, err = run("h", h=damaged)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: h: ")
    assert "Traceback" not in err


def test_the_hub_is_out_of_reach(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    source = {"path": "owner/no-such-set", "config": "de-en", "revision": "abc"}
    code, out, err = run("h", h=recipe(("en", "de"), {"train": 0}, hub=source))
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert last.startswith("error: h: owner/no-such-set (de-en, train): cannot be opened: ")
    assert str(tmp_path / "data/h/downloads/no-such-set/de-en") in last


# The command and its table


def test_the_list_is_complete(run: Any) -> None:
    code, out, err = run("--list")
    assert (code, err) == (0, "")
    for name, corpus in RECIPES.items():
        assert f"{name}: {corpus.title}" in out
        assert f"terms of use: {corpus.license}" in out
        if corpus.files:
            assert all(corpus.files["url"].format(name=file) in out for file in corpus.expected())
        assert corpus.talks.get("url", "") in out
        assert corpus.hub.get("path", "") in out
        assert all(f"sacreBLEU {test_set}: https://" in out for test_set in corpus.test_sets.values())


def test_wrong_names(run: Any) -> None:
    code, _, err = run("multi3k")
    assert code == 1
    assert err.startswith("error: multi3k: no such corpus; there are multi30k, ")
    assert run()[0] == 1


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path, run: Any) -> None:
    (tmp_path / "data").write_text("a file", encoding="utf-8")
    code, _, err = run("x", x=corpus(server))
    assert code == 1
    assert err.splitlines()[-1].startswith(f"error: x: {tmp_path / 'data'}")


def test_the_table_is_well_formed() -> None:
    for corpus in RECIPES.values():
        digests = {name: f"sha256:{digest}" for name, digest in corpus.files.get("sha256", {}).items()}
        prefixes = {
            *corpus.test_sets,
            *(["train"] if corpus.hub else []),
            *(name.partition(".")[0] for name in digests),
        }
        if corpus.files:
            assert set(digests) == set(corpus.expected())
            assert corpus.files["url"].format(name="x").startswith("https://")
        if corpus.talks:
            prefixes |= {"train", *corpus.talks["sets"], *(["valid"] if corpus.talks.get("every") else [])}
            assert corpus.talks["url"].startswith("https://")
            digests["archive"] = corpus.talks["digest"]
        assert prefixes == set(corpus.lines)
        for digest in digests.values():
            algorithm, _, value = digest.partition(":")
            assert len(bytes.fromhex(value)) == {"sha256": 32, "md5": 16}[algorithm]


# Experiments


def experiments() -> list[str]:
    names = {path.stem for path in (SCRIPTS.parent / "configs/experiment").glob("*.yaml")}
    return sorted(names - {"debug"})  # which goes with any corpus


@pytest.mark.parametrize("name", experiments())
def test_experiments_build(name: str) -> None:
    """Each experiment composes, reads the files of a recipe, and builds a model for its vocabulary."""
    import torch

    from nmt import models
    from nmt.cli.compose import run_command
    from nmt.cli.configs import Config

    seen: list[Config] = []
    run_command(lambda config, overrides: seen.append(config), Config, "train", [f"experiment={name}"])
    (config,) = seen
    size = config.data.tokenizer.vocab_size
    with torch.device("meta"):
        model = models.build_model(config.model, size, size, joint=config.data.tokenizer.joint)
    assert max(parameter.shape[0] for parameter in model.parameters() if parameter.dim() == 2) >= size
    source, target = config.data.source_lang, config.data.target_lang
    corpora = {Path(place).parts[1] for place in (config.data.train, config.data.valid, config.data.test)}
    assert len(corpora) == 1
    if corpora <= {"small_parallel_enja", "libreoffice_help"}:
        return  # no recipe: see data/README.md
    corpus = RECIPES[corpora.pop()]
    assert {source, target} <= set(corpus.languages)
    for place in (config.data.train, config.data.valid, config.data.test, *config.data.extra_tests):
        assert Path(place).parts[0] == "data"
        assert Path(place).name in corpus.lines


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
