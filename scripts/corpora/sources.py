"""The kinds of places that corpora come from. Each yields blocks of parallel lines, and counts what it changes."""

import gzip
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from corpora.fetch import Remote, Shelf
from corpora.unpack import members

Block = tuple[str, tuple[list[str], ...]]
"""A prefix (train, valid, …) and lines that belong to it: as many for each language, in the recipe's order."""

Counts = dict[str, Counter[str]]
"""By prefix: what was repaired or left out, and how often."""


class Source(Protocol):
    """A place that a part of a corpus comes from."""

    def places(self) -> list[str]:
        """What is fetched, for people."""

    def read(self, shelf: Shelf, languages: tuple[str, ...], counts: Counts) -> Iterator[Block]:
        """The text. Raises OSError or ValueError with what to do next."""


@dataclass(frozen=True)
class Files:
    """One plain or .gz file for each language, taken as it is."""

    prefix: str
    remotes: dict[str, Remote]

    def places(self) -> list[str]:
        return [remote.url for remote in self.remotes.values()]

    def read(self, shelf: Shelf, languages: tuple[str, ...], counts: Counts) -> Iterator[Block]:
        sides = []
        for language in languages:
            path = shelf.get(self.remotes[language])
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                sides.append(_lines(file.read(), str(path)))
        _check_parallel(self.prefix, languages, sides)
        yield self.prefix, tuple(sides)


@dataclass(frozen=True)
class Talks:
    """TED talks as the IWSLT campaigns gave them out: an archive of tagged training files and XML sets.

    archive: the archive.
    folder: the one inside.
    train: name of the training files, without the language.
    sets: by prefix the names of the XML sets, without ".<language>.xml", that are joined.
    titles: titles and descriptions of the talks belong to the training text.
    every: every so many-th pair of the training files goes to `valid` instead; 0 = none.
    """

    archive: Remote
    folder: str
    train: str
    sets: dict[str, list[str]]
    titles: bool = False
    every: int = 0

    def places(self) -> list[str]:
        return [self.archive.url]

    def read(self, shelf: Shelf, languages: tuple[str, ...], counts: Counts) -> Iterator[Block]:
        tagged = [f"{self.folder}/{self.train}.{language}" for language in languages]
        xml = {
            prefix: [[f"{self.folder}/{name}.{language}.xml" for language in languages] for name in names]
            for prefix, names in self.sets.items()
        }
        everything = [*tagged, *(name for sets in xml.values() for names in sets for name in names)]
        path = shelf.get(self.archive)
        texts = {name: _lines(content, f"{path}: {name}") for name, content in members(path, everything).items()}
        sides = [texts[name] for name in tagged]
        _check_parallel("train", languages, sides)
        pairs = list(_untagged(zip(*sides, strict=True), counts["train"], titles=self.titles))
        valid = pairs[self.every - 1 :: self.every] if self.every else []
        if self.every:
            del pairs[self.every - 1 :: self.every]
            yield "valid", tuple(map(list, zip(*valid, strict=True)))
        yield "train", tuple(map(list, zip(*pairs, strict=True)))
        for prefix, sets in xml.items():
            for names in sets:
                sides = [segments(texts[name], counts[prefix], indented=True) for name in names]
                _check_parallel(names[0], languages, sides)
                yield prefix, tuple(sides)


@dataclass(frozen=True)
class TestSet:
    """A test set of sacreBLEU's list, whose text it equals; addresses and digests are those of that list.

    name: such as "wmt14/full". pair: such as "en-de", in the order of the recipe's languages.
    """

    prefix: str
    name: str
    pair: str

    def places(self) -> list[str]:
        return [f"sacreBLEU {self.name} {self.pair}: {remote.url}" for remote, _ in self._members()]

    def read(self, shelf: Shelf, languages: tuple[str, ...], counts: Counts) -> Iterator[Block]:
        sides = []
        for remote, name in self._members():
            path = shelf.get(remote)
            lines = _lines(members(path, [name])[name], f"{path}: {name}")
            sides.append(segments(lines, counts[self.prefix]))
        _check_parallel(f"{self.name} {self.pair}", languages, sides)
        yield self.prefix, tuple(sides)

    def _members(self) -> list[tuple[Remote, str]]:
        """Archive and member of each side."""
        from sacrebleu.dataset import DATASETS

        dataset: Any = DATASETS[self.name]
        files = dataset.langpairs[self.pair]
        remotes = [
            Remote(url, f"md5:{md5}", name=f"{self.name.replace('/', '_')}.{urlsplit(url).path.rpartition('/')[2]}")
            for url, md5 in zip(dataset.data, dataset.md5, strict=True)
        ]
        if len(remotes) == 1:
            return [(remotes[0], name) for name in files]
        by_folder = {remote.url.rpartition("/")[2].partition(".")[0]: remote for remote in remotes}
        return [(by_folder[name.partition("/")[0]], name) for name in files]


@dataclass(frozen=True)
class Hub:
    """A split of a data set that the `datasets` library fetches (and keeps in its own cache, where a broken download
    continues), with a column `translation`.

    A folder of the data set's name in the downloads, such as wmt14/de-en, is read instead of the network.
    """

    prefix: str
    path: str
    config: str
    split: str = "train"
    revision: str | None = None

    def places(self) -> list[str]:
        at = f" at {self.revision}" if self.revision else ""
        return [f"data set {self.path}, {self.config}, split {self.split}{at}"]

    def local(self, folder: Path) -> Path:
        """Where its files may be put by hand, given the folder of downloads."""
        return folder / self.path.rpartition("/")[2] / self.config

    def read(self, shelf: Shelf, languages: tuple[str, ...], counts: Counts) -> Iterator[Block]:
        import datasets

        from nmt.data import table_files

        local = self.local(shelf.folder)
        where = f"{local if local.is_dir() else self.path} ({self.config}, {self.split})"
        with _quiet():
            try:
                if local.is_dir():
                    stream = datasets.load_dataset(str(local), split=self.split, streaming=True)
                else:
                    stream = datasets.load_dataset(self.path, self.config, split=self.split, revision=self.revision)
            except Exception as error:  # what the library and its transport raise has no common ancestor
                raise OSError(
                    f"{where}: cannot be opened: {_sentence(error)}. Check the network and give the command again "
                    f"(what has come is kept), or put the data set's files for {self.config} into {local}"
                ) from error
            shelf.taken[where] = {"revision": self.revision, "checked against": None}
            source, target = languages
            for sides in table_files.read(stream, where, "translation", source, target, counts[self.prefix]):
                yield self.prefix, sides


def segments(lines: list[str], counts: Counter[str], *, indented: bool = False) -> list[str]:
    """The text of the <seg> lines of a test set, white space made single spaces as sacreBLEU does."""
    texts = []
    for line in lines:
        if not (line.lstrip() if indented else line).startswith("<seg "):
            continue
        inner = re.sub(r"<seg [^>]*>(.*)</seg>", r"\1", line)
        if "<seg " in inner:
            counts["segment that does not end on its line, kept with its tag"] += 1
        text = re.sub(r"\s+", " ", inner.strip())
        counts["inner white space made one space"] += text != inner.strip()
        counts["XML entity left as it is"] += bool(re.search(r"&(amp|lt|gt|quot|apos|#\d+);", text))
        texts.append(text)
    return texts


_TAG = re.compile(r"\s*<([A-Za-z]+)(?: [^<>]*)?>")
_TITLES = {"title", "description"}


def _untagged(pairs: Iterator[tuple[str, ...]], counts: Counter[str], *, titles: bool) -> Iterator[tuple[str, ...]]:
    """The pairs without the lines that say something of the talk."""
    for pair in pairs:
        tags = {match[1] if (match := _TAG.match(line)) else "" for line in pair}
        if tags != {""}:
            (tag, *others) = sorted(tags)
            if others:
                counts["pair left out: tag on one side only, or different tags"] += 1
                continue
            if not (titles and tag in _TITLES):
                counts[f"pair left out: <{tag}>"] += 1
                continue
            counts[f"tags of <{tag}> taken off"] += 1
            pair = tuple(line.replace(f"<{tag}>", "").replace(f"</{tag}>", "") for line in pair)
        stripped = tuple(line.strip() for line in pair)
        counts["spaces at the ends"] += stripped != pair
        yield stripped


def _lines(content: bytes, where: str) -> list[str]:
    """Lines end at a line feed and nowhere else."""
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{where}: line {line} is not UTF-8; this is not the file that was meant") from None
    if not lines[-1]:
        lines.pop()
    return lines


def _check_parallel(where: str, languages: tuple[str, ...], sides: list[list[str]]) -> None:
    if len({len(side) for side in sides}) != 1:
        found = ", ".join(f"{len(side)} lines of {language}" for language, side in zip(languages, sides, strict=True))
        raise ValueError(f"{where}: {found}; all need the same number. One of the files is damaged or another version")


@contextmanager
def _quiet() -> Iterator[None]:
    """The library's tracebacks become one sentence, and its moving bars stay on terminals."""
    import datasets

    level = datasets.logging.get_verbosity()
    bars = datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(logging.CRITICAL)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
