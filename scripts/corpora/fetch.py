"""Files from the web: continued where they broke off, checked, and under their name only when they are whole."""

import gzip
import hashlib
import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from urllib.parse import unquote, urlsplit

from corpora.progress import Progress, readable, say
from nmt.runtime.files import write_text

CHUNK = 1 << 16
LONGEST_WAIT = 60.0
AGENT = "nmt-attention get_data"
TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses after which trying again may help."""


@dataclass(frozen=True)
class Remote:
    """A file on the web.

    url: where it is.
    digest: "sha256:…" or "md5:…" of the file; empty: of `content` only.
    content: the same of what a .gz file holds.
    name: what it is called here; by default as in the URL.
    """

    url: str
    digest: str = ""
    content: str = ""
    name: str = ""

    @property
    def file(self) -> str:
        """Its name here."""
        return self.name or unquote(urlsplit(self.url).path).rpartition("/")[2]


@dataclass
class Shelf:
    """A folder of downloads. A file that lies there already is used, once it has been checked.

    timeout: seconds without a byte after which a connection counts as broken.
    retries: further attempts in a row that bring nothing new, before giving up.
    wait: seconds before the first of them; it doubles with each.
    taken: what `get` gave out, for the record: URL, bytes, SHA-256, and against what it was checked.
    """

    folder: Path
    timeout: float = 60.0
    retries: int = 5
    wait: float = 1.0
    taken: dict[str, dict[str, object]] = field(default_factory=dict)

    def get(self, remote: Remote) -> Path:
        """The file, downloaded unless it is there. Raises OSError or ValueError with what to do next."""
        final = self.folder / remote.file
        if not final.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._download(remote, final)
        elif (wrong := mismatch(final, remote)) and remote.url not in self.taken:
            raise ValueError(f"{final}: {wrong}; delete it to download it again, or put the right file there")
        if remote.url not in self.taken:
            self.taken[remote.url] = {
                "bytes": final.stat().st_size,
                "sha256": _digest(final, "sha256"),
                "checked against": remote.digest or (f"{remote.content} (decompressed)" if remote.content else None),
            }
        return final

    def _download(self, remote: Remote, final: Path) -> None:
        part = final.with_name(f"{final.name}.part")
        for first in (True, False):
            continued = part.exists()
            self._receive_all(remote, part, final)
            wrong = mismatch(part, remote)
            if not wrong:
                part.replace(final)
                _marks(part).unlink(missing_ok=True)
                say(f"{final.name}: {readable(final.stat().st_size)}, {checked(remote)}")
                return
            part.unlink()
            _marks(part).unlink(missing_ok=True)
            if not (continued and first):
                raise ValueError(
                    f"{remote.url}: {wrong}; it was damaged on its way or has changed at its place. Try again; if that "
                    f"does not help, find the right file elsewhere, put it at {final}, and give the same command"
                )
            say(f"{final.name}: the parts do not fit together ({wrong}); from the beginning")

    def _receive_all(self, remote: Remote, part: Path, final: Path) -> None:
        failures, most = 0, _size(part)
        while True:
            pause = 0.0
            try:
                return self._receive(remote, part)
            except urllib.error.HTTPError as error:
                with error:
                    reason = f"the server says {error.code} {error.reason}".rstrip()
                    pause = _retry_after(error.headers)
                if error.code not in TEMPORARY:
                    raise OSError(
                        f"{remote.url}: {_one_line(reason)}; it may have moved: find {remote.file} elsewhere, put it "
                        f"at {final}, and give the same command"
                    ) from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                if isinstance(error, OSError) and not _of_network(error):
                    raise
                reason = _reason(error, self.timeout)
            if (have := _size(part)) > most:
                most, failures = have, 0
            failures += 1
            if failures > self.retries:
                kept = f"; {readable(have)} are kept and the same command continues" if have else ""
                raise OSError(
                    f"{remote.url}: {reason} ({failures} attempts){kept}. Check the network (and https_proxy, where "
                    f"there is a proxy), or put the file at {final}"
                )
            pause = min(LONGEST_WAIT, max(pause, self.wait * 2 ** (failures - 1)))
            say(f"{remote.file}: {reason}; attempt {failures + 1} of {self.retries + 1} in {pause:.0f} s")
            time.sleep(pause)

    def _receive(self, remote: Remote, part: Path) -> None:
        """One connection: what is missing of `part`, or all of it when the server cannot continue."""
        validator = _validator(part, remote.url)
        if not (validator or remote.digest or remote.content):
            part.unlink(missing_ok=True)  # nothing would tell whether the two halves are of one file
        have = _size(part)
        headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-"} | ({"If-Range": validator} if validator else {})
        request = urllib.request.Request(remote.url, headers=headers)
        try:
            response = urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            if error.code != 416 or not have:
                raise
            with error:
                complete = error.headers.get("Content-Range", "").rpartition("/")[2] == str(have)
            if complete:
                return
            part.unlink()
            raise ConnectionError("the part that was here does not belong to the server's file") from None
        with response:
            start, total = _extent(response)
            if start not in (0, have):
                raise ConnectionError(f"the server continued at byte {start} instead of {have}")
            if not start:
                write_text(_marks(part), json.dumps({"url": remote.url, "validator": _strong(response.headers)}))
            with part.open("ab" if start else "wb") as file, Progress(remote.file, start, total) as progress:
                while chunk := response.read1(CHUNK):
                    file.write(chunk)
                    progress.add(len(chunk))
            if total and progress.done != total:
                raise ConnectionError(f"the connection ended after {progress.done} of {total} bytes")


def mismatch(path: Path, remote: Remote) -> str:
    """What is wrong with a file; empty when nothing is."""
    for expected, packed in ((remote.digest, False), (remote.content, True)):
        if not expected:
            continue
        algorithm, _, value = expected.partition(":")
        try:
            found = _digest(path, algorithm, packed=packed)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            return f"it is not a whole .gz file ({_one_line(str(error))}){_page(path)}"
        if found != value:
            inside = "what it holds" if packed else f"it ({path.stat().st_size} bytes)"
            return f"{inside} has {algorithm} {found} instead of {value}{_page(path)}"
    return ""


def checked(remote: Remote) -> str:
    """How far a file that came is known to be the right one."""
    return "digest as expected" if remote.digest or remote.content else "no digest is recorded to check it against"


def _digest(path: Path, algorithm: str, *, packed: bool = False) -> str:
    with gzip.open(path) if packed else path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _page(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    return "; it is a web page, perhaps a notice or a login" if start.startswith((b"<!doctype html", b"<html")) else ""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _marks(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _validator(part: Path, url: str) -> str:
    """What identifies the version of the file that the part is of; a part of something else, or of nothing known, is
    deleted."""
    try:
        marks = json.loads(_marks(part).read_text(encoding="utf-8"))
        if marks["url"] == url:
            return str(marks["validator"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    part.unlink(missing_ok=True)
    return ""


def _strong(headers: Message) -> str:
    """What If-Range may be given (RFC 9110, section 13.1.5): a strong entity tag, or else the date of change."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _extent(response: http.client.HTTPResponse) -> tuple[int, int]:
    """Where the answer starts and how long the whole file is (0 = unknown)."""
    if response.status != 206:
        return 0, int(response.headers.get("Content-Length") or 0)
    span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    return int(span.partition("-")[0]), int(total) if total.isdigit() else 0


def _retry_after(headers: Message) -> float:
    value = headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 0.0


def _of_network(error: OSError) -> bool:
    """Whether it is the connection that failed, not this machine's disk."""
    return isinstance(error, (urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError))


def _reason(error: Exception, timeout: float) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"nothing came for {timeout:g} s"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended early"
    if isinstance(error, urllib.error.URLError):
        return f"cannot be reached ({_one_line(str(cause))})"
    return _one_line(str(cause)) or type(cause).__name__


def _one_line(text: str) -> str:
    return " ".join(text.split())
