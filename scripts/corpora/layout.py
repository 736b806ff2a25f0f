"""The `text` layout: PREFIX.<language> files, checked before they take their names, and a record of where they are
from."""

import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import nmt
from corpora.fetch import Shelf
from corpora.progress import INTERVAL, say
from corpora.sources import Counts, Source
from nmt.runtime.files import neighbour, write_text

RECORD = "provenance.json"


class Expected(NamedTuple):
    """What is known of the files of a prefix before they come.

    lines: of each side; 0 = not recorded. sha256: by language.
    """

    lines: int = 0
    sha256: dict[str, str] = {}  # noqa: RUF012 -- never changed


@dataclass(frozen=True)
class Recipe:
    """A corpus that can be had.

    languages: source first, as its experiments translate; or all of them.
    size: of the download, for people.
    licence: terms of use as stated at its place.
    note: what else somebody should know before training on it.
    """

    name: str
    title: str
    languages: tuple[str, ...]
    sources: tuple[Source, ...]
    expected: dict[str, Expected]
    size: str
    licence: str
    note: str = ""


class Written(NamedTuple):
    """A file of the layout."""

    path: Path
    lines: int
    bytes: int
    sha256: str


@dataclass
class _Side:
    """One file while it is written."""

    final: Path
    temporary: Path
    file: IO[bytes]
    lines: int = 0
    bytes: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def write(self, lines: list[str]) -> None:
        content = "".join(f"{line}\n" for line in lines).encode()
        self.file.write(content)
        self.digest.update(content)
        self.lines += len(lines)
        self.bytes += len(content)


def present(recipe: Recipe, folder: Path) -> list[Written] | None:
    """The files of a corpus that is there already and unchanged, or None.

    Raises ValueError when files stand in the way that this program did not write, or that were changed since.
    """
    names = [f"{prefix}.{language}" for prefix in recipe.expected for language in recipe.languages]
    there = [name for name in names if (folder / name).exists()]
    try:
        recorded = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        recorded = {}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{folder / RECORD}: is damaged; move the folder away or add --force") from None
    found = []
    for name in there:
        written = _look(folder / name)
        if recorded.get(name, {}).get("sha256") != written.sha256:
            how = "was changed since it was fetched" if name in recorded else "is there and was not fetched by this"
            raise ValueError(f"{folder / name}: {how}; move it away, or add --force to replace it")
        found.append(written)
    return found if there == names else None


def write(recipe: Recipe, folder: Path, shelf: Shelf) -> list[Written]:
    """Fetches the corpus and writes all its files, or none: they take their names together, after every check."""
    counts: Counts = defaultdict(Counter)
    with _alone(folder), ExitStack() as stack:
        sides = {
            prefix: [stack.enter_context(_open(folder / f"{prefix}.{language}")) for language in recipe.languages]
            for prefix in recipe.expected
        }
        for source in recipe.sources:
            told = time.monotonic()
            for prefix, blocks in source.read(shelf, recipe.languages, counts):
                for side, lines in zip(sides[prefix], blocks, strict=True):
                    side.write(lines)
                if time.monotonic() - told > INTERVAL:
                    told = time.monotonic()
                    say(f"{prefix}: {sides[prefix][0].lines:,} pairs written")
        for prefix, expected in recipe.expected.items():
            _check(recipe, prefix, expected, sides[prefix])
        every = [side for group in sides.values() for side in group]
        written = [Written(side.final, side.lines, side.bytes, side.digest.hexdigest()) for side in every]
        # The record first: after a crash between two of the renames it says which files are ours.
        record = _record(recipe, written, shelf, counts)
        write_text(folder / RECORD, json.dumps(record, ensure_ascii=False, indent=2) + "\n")
        for side in every:
            side.file.close()
            side.temporary.replace(side.final)
    return written


def changes(counts: Counts) -> dict[str, dict[str, int]]:
    """What was counted, without what did not occur."""
    return {prefix: {reason: num for reason, num in some.items() if num} for prefix, some in counts.items()}


def _check(recipe: Recipe, prefix: str, expected: Expected, sides: list[_Side]) -> None:
    for language, side in zip(recipe.languages, sides, strict=True):
        what = f"{recipe.name}: {prefix}.{language}"
        if not side.lines:
            raise ValueError(f"{what}: nothing came; nothing was written")
        if expected.lines and side.lines != expected.lines:
            raise ValueError(
                f"{what}: {side.lines:,} lines came, {expected.lines:,} are expected: another version of the corpus, "
                "or part of it. Nothing was written; the downloads are kept and can be deleted to fetch them again"
            )
        known = expected.sha256.get(language)
        if known and side.digest.hexdigest() != known:
            raise ValueError(
                f"{what}: SHA-256 {side.digest.hexdigest()}, expected {known}: another version of the corpus. "
                "Nothing was written; the downloads are kept and can be deleted to fetch them again"
            )


def _record(recipe: Recipe, written: list[Written], shelf: Shelf, counts: Counts) -> dict[str, object]:
    files = {}
    for file in written:
        prefix, _, language = file.path.name.rpartition(".")
        expected = recipe.expected[prefix]
        known = {"lines": expected.lines, "sha256": expected.sha256.get(language)}
        files[file.path.name] = {
            "lines": file.lines,
            "bytes": file.bytes,
            "sha256": file.sha256,
            "expected": {name: value or "not recorded" for name, value in known.items()},
        }
    return {
        "corpus": recipe.name,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "program": f"nmt-attention {nmt.__version__}",
        "licence": recipe.licence,
        "downloads": {
            place: {name: "not recorded" if value is None else value for name, value in facts.items()}
            for place, facts in shelf.taken.items()
        },
        "files": files,
        "changes": changes(counts),
    }


def _look(path: Path) -> Written:
    digest, lines, size = hashlib.sha256(), 0, 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            lines += chunk.count(b"\n")
            size += len(chunk)
    return Written(path, lines, size, digest.hexdigest())


@contextmanager
def _open(final: Path) -> Iterator[_Side]:
    temporary = neighbour(final)
    with temporary.open("wb") as file:
        try:
            yield _Side(final, temporary, file)
        finally:
            file.close()
            temporary.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two that fetch the same corpus at once would write into each other's downloads."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    lock = folder / ".get_data.lock"
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{folder}: another get_data is at work there; wait for it, or stop it") from None
        yield  # the file stays: whoever deletes it may delete it from under the next one
