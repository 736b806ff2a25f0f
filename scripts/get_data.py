"""Download public corpora and write them as text files for training.

usage: python scripts/get_data.py NAME [NAME …] [--root data] [--force]
       python scripts/get_data.py --list

The corpora, with their addresses and digests, are in corpora.yaml.
"""

import argparse
import gzip
import hashlib
import json
import logging
import re
import shutil
import sys
import tarfile
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from filelock import FileLock, Timeout
from huggingface_hub.file_download import http_get

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # nmt, where it is not installed

import nmt
from nmt.data import table_files
from nmt.runtime.errors import error_message
from nmt.runtime.files import write_text

RECORD = "provenance.json"
Counts = dict[str, Counter[str]]
"""By prefix, the number of changes of each kind to the text."""


@dataclass(frozen=True)
class Recipe:
    """A corpus in corpora.yaml."""

    title: str
    languages: list[str]
    lines: dict[str, int]
    size: str
    license: str
    note: str = ""
    files: dict[str, Any] = field(default_factory=dict)
    talks: dict[str, Any] = field(default_factory=dict)
    test_sets: dict[str, str] = field(default_factory=dict)
    hub: dict[str, str] = field(default_factory=dict)

    def expected(self) -> dict[str, dict[str, Any]]:
        """Return the expected lines and SHA-256 of each file; None = not recorded."""
        digests = self.files.get("sha256", {})
        return {
            name: {"lines": num_lines or None, "sha256": digests.get(name)}
            for prefix, num_lines in self.lines.items()
            for name in self.names(prefix)
        }

    def names(self, prefix: str) -> list[str]:
        """Return the names of the files of a prefix."""
        return [f"{prefix}.{language}" for language in self.languages]


class Downloads:
    """Downloaded files in a folder; existing files are checked and used.

    Attributes:
        record: by URL or data set, the size, SHA-256, and the digest it was compared with.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record: dict[str, dict[str, object]] = {}

    def get(self, url: str, digest: str, name: str = "") -> Path:
        """Return the path of a file, after downloading it if necessary.

        Args:
            url: of the file, whose last part is the default name.
            digest: "sha256:…" or "md5:…" of the file, or of the decompressed content of a .gz file.
            name: in the folder.

        Raises:
            OSError: it cannot be downloaded; the next call continues after the part that was received.
            ValueError: the file does not have the digest.
        """
        final = self.folder / (name or url.rpartition("/")[2])
        if not final.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            part = final.with_name(f"{final.name}.part")
            is_continued = part.exists()
            _receive(url, part, final)
            if is_continued and _mismatch(part, digest, final.suffix):  # the parts may belong to different versions
                part.unlink()
                _receive(url, part, final)
            if problem := _mismatch(part, digest, final.suffix):
                part.unlink()
                raise ValueError(
                    f"{url}: {problem}; it was damaged or has changed. Try again, or find the right file elsewhere, "
                    f"put it at {final}, and give the same command"
                )
            part.replace(final)
        elif problem := _mismatch(final, digest, final.suffix):
            raise ValueError(f"{final}: {problem}; delete it to download it again, or put the right file there")
        facts = _describe(final)
        self.record[url] = {"bytes": facts["bytes"], "sha256": facts["sha256"], "checked against": digest}
        return final


def _receive(url: str, part: Path, final: Path) -> None:
    """Start or continue a download; `http_get` retries when the connection breaks."""
    try:
        with part.open("ab") as file:
            headers = {"Accept-Encoding": "identity"}  # or a server may decompress a .gz file
            http_get(url, file, resume_size=file.tell(), headers=headers, displayed_filename=final.name)
    except Exception as error:  # the exceptions of the library and its transport have no common ancestor
        if getattr(getattr(error, "response", None), "status_code", 0) == 416:  # nothing is left to download
            return
        raise OSError(
            f"{url}: cannot be downloaded: {_sentence(error)}. Check the network (and https_proxy, where there is a "
            f"proxy) and give the same command, which continues after {part.stat().st_size:,} bytes, or put the file "
            f"at {final}"
        ) from error


def _mismatch(path: Path, digest: str, suffix: str) -> str:
    """Return how a file differs from its digest, or ""."""
    algorithm, _, expected = digest.partition(":")
    try:
        with gzip.open(path) if suffix == ".gz" else path.open("rb") as file:
            actual = hashlib.file_digest(file, algorithm).hexdigest()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return f"it is not a whole .gz file ({_sentence(error)})"
    return "" if actual == expected else f"it has {algorithm} {actual} instead of {expected}"


def read(recipe: Recipe, downloads: Downloads, counts: Counts) -> Iterator[tuple[str, Sequence[list[str]]]]:
    """Yield prefixes (train, valid, …) with blocks of their lines, the same number for each language.

    Raises:
        OSError, ValueError: the message contains the remedy.
    """
    if recipe.files:
        for prefix in recipe.lines:
            yield prefix, _parallel(prefix, recipe, [_file(recipe, downloads, name) for name in recipe.names(prefix)])
    if recipe.talks:
        yield from _talks(recipe, downloads, counts)
    for prefix, name in recipe.test_sets.items():
        sides = []
        for url, digest, member in archives(name, recipe):
            path = downloads.get(url, digest, f"{name.replace('/', '_')}.{url.rpartition('/')[2]}")
            sides.append(segments(*members(path, [member]), counts[prefix]))
        yield prefix, _parallel(name, recipe, sides)
    if recipe.hub:
        yield from (("train", sides) for sides in _hub(recipe, downloads, counts["train"]))


def _file(recipe: Recipe, downloads: Downloads, name: str) -> list[str]:
    path = downloads.get(recipe.files["url"].format(name=name), f"sha256:{recipe.files['sha256'][name]}")
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return _lines(file.read(), str(path))


def _talks(recipe: Recipe, downloads: Downloads, counts: Counts) -> Iterator[tuple[str, Sequence[list[str]]]]:
    talks = recipe.talks
    path = downloads.get(talks["url"], talks["digest"])
    sides = _parallel("train", recipe, members(path, recipe.names(talks["train"])))
    pairs = list(_untagged(zip(*sides, strict=True), counts["train"], titles=talks.get("titles", False)))
    if every := talks.get("every", 0):
        yield "valid", list(map(list, zip(*pairs[every - 1 :: every], strict=True)))
        del pairs[every - 1 :: every]
    yield "train", list(map(list, zip(*pairs, strict=True)))
    for prefix, names in talks["sets"].items():
        for name in names:
            texts = members(path, [f"{file}.xml" for file in recipe.names(name)])
            sides = [segments(lines, counts[prefix], indented=True) for lines in texts]
            yield prefix, _parallel(name, recipe, sides)


def archives(name: str, recipe: Recipe) -> list[tuple[str, str, str]]:
    """Return for each side of a sacreBLEU test set the URL and digest of its archive, and the file in it."""
    from sacrebleu.dataset import DATASETS

    dataset: Any = DATASETS[name]
    digests = {url: f"md5:{md5}" for url, md5 in zip(dataset.data, dataset.md5, strict=True)}
    by_folder = {url.rpartition("/")[2].partition(".")[0]: url for url in digests}
    files = dataset.langpairs["-".join(recipe.languages)]
    urls = [dataset.data[0] if len(digests) == 1 else by_folder[file.partition("/")[0]] for file in files]
    return [(url, digests[url], file) for url, file in zip(urls, files, strict=True)]


def _hub(recipe: Recipe, downloads: Downloads, counts: Counter[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Read a data set through the `datasets` library, or from a folder in the downloads such as wmt14/de-en."""
    import datasets

    datasets.logging.set_verbosity(logging.CRITICAL)  # its tracebacks; the exception has the reason
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    path, config, revision = recipe.hub["path"], recipe.hub["config"], recipe.hub.get("revision")
    local = downloads.folder / path.rpartition("/")[2] / config
    where = f"{local if local.is_dir() else path} ({config}, train)"
    try:
        if local.is_dir():
            stream = datasets.load_dataset(str(local), split="train", streaming=True)
        else:
            stream = datasets.load_dataset(path, config, split="train", revision=revision)
    except Exception as error:  # the exceptions of the library and its transport have no common ancestor
        raise OSError(
            f"{where}: cannot be opened: {_sentence(error)}. Check the network and give the command again "
            f"(what has arrived is kept), or put the data set's files for {config} into {local}"
        ) from error
    downloads.record[where] = {"revision": revision or "not recorded", "checked against": "not recorded"}
    batches = table_files.read_batches(stream, where)
    yield from table_files.iter_pairs(batches, where, "translation", *recipe.languages, counts)


def members(archive: Path, names: Sequence[str]) -> list[list[str]]:
    """Return the lines of files in a .tar archive, without unpacking it to the disk."""
    try:
        with tarfile.open(archive) as tar:
            by_name = {str(PurePosixPath(member.name)): member for member in tar if member.isfile()}
            contents = {name: tar.extractfile(by_name[name]).read() for name in names}  # type: ignore[union-attr]
    except KeyError as error:
        raise ValueError(f"{archive}: no file {error.args[0]} in it; it has {', '.join([*by_name][:8])}") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{archive}: cannot be unpacked ({_sentence(error)}); delete it and try again") from error
    return [_lines(content, f"{archive}: {name}") for name, content in contents.items()]


def segments(lines: list[str], counts: Counter[str], *, indented: bool = False) -> list[str]:
    """Return the text of the <seg> lines of a test set; white space becomes single spaces, as in sacreBLEU."""
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


def _untagged(pairs: Iterator[tuple[str, ...]], counts: Counter[str], *, titles: bool) -> Iterator[tuple[str, ...]]:
    """Yield the pairs without the metadata of talks."""
    for pair in pairs:
        matches = [re.match(r"\s*<([A-Za-z]+)(?: [^<>]*)?>", line) for line in pair]
        tag, *further_tags = sorted({match[1] if match else "" for match in matches})
        if further_tags:
            counts["pair left out: tag on one side only, or different tags"] += 1
            continue
        if tag and not (titles and tag in ("title", "description")):
            counts[f"pair left out: <{tag}>"] += 1
            continue
        if tag:
            counts[f"tags of <{tag}> taken off"] += 1
            pair = tuple(line.replace(f"<{tag}>", "").replace(f"</{tag}>", "") for line in pair)
        stripped = tuple(line.strip() for line in pair)
        counts["spaces at the ends"] += stripped != pair
        yield stripped


def _lines(content: bytes, where: str) -> list[str]:
    """Split at line feeds only."""
    try:
        return content.decode("utf-8").removesuffix("\n").split("\n") if content else []
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{where}: line {line} is not UTF-8; this is not the expected file") from None


def _parallel(where: str, recipe: Recipe, sides: list[list[str]]) -> list[list[str]]:
    if len({len(side) for side in sides}) != 1:
        sizes = ", ".join(f"{len(side)} lines of {name}" for name, side in zip(recipe.languages, sides, strict=True))
        raise ValueError(f"{where}: {sizes}; all need the same number. One of the files is damaged or another version")
    return sides


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        num_lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"lines": num_lines, "bytes": path.stat().st_size, "sha256": digest}


def present(recipe: Recipe, folder: Path) -> dict[str, dict[str, Any]] | None:
    """Return the files of a corpus that was downloaded before and is unchanged, or None.

    Raises:
        ValueError: files were not written by this program, or were changed since.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        record = {}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{folder / RECORD}: is damaged; move the folder away or add --force") from None
    files = {name: _describe(folder / name) for name in recipe.expected() if (folder / name).exists()}
    for name, facts in files.items():
        if record.get(name, {}).get("sha256") != facts["sha256"]:
            how = "was changed since it was fetched" if name in record else "exists and was not fetched by this script"
            raise ValueError(f"{folder / name}: {how}; move it away, or add --force to replace it")
    return files if len(files) == len(recipe.expected()) else None


def write(corpus: str, recipe: Recipe, folder: Path) -> dict[str, dict[str, Any]]:
    """Download a corpus and write all its files or none: they are renamed together, after every check."""
    counts: Counts = defaultdict(Counter)
    downloads = Downloads(folder / "downloads")
    for stale_folder in folder.glob(".incomplete-*"):  # of a crash
        shutil.rmtree(stale_folder)
    with tempfile.TemporaryDirectory(prefix=".incomplete-", dir=folder) as name:
        temporary = Path(name)
        with ExitStack() as stack:
            streams = {
                name: stack.enter_context((temporary / name).open("w", encoding="utf-8", newline="\n"))
                for name in recipe.expected()
            }
            for prefix, sides in read(recipe, downloads, counts):
                for name, lines in zip(recipe.names(prefix), sides, strict=True):
                    streams[name].writelines(f"{line}\n" for line in lines)
        files = {}
        for name, expected in recipe.expected().items():
            files[name] = facts = _describe(temporary / name)
            if not facts["lines"]:
                raise ValueError(f"{name}: is empty; nothing was written")
            for quantity, value in expected.items():
                if value and facts[quantity] != value:
                    raise ValueError(
                        f"{name}: {quantity} {facts[quantity]}, expected {value}: another version of the corpus, "
                        f"or part of it. Nothing was written; delete {downloads.folder} to download it again"
                    )
            facts["expected"] = {quantity: value or "not recorded" for quantity, value in expected.items()}
        record = {
            "corpus": corpus,
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "program": f"nmt-attention {nmt.__version__}",
            "licence": recipe.license,
            "downloads": downloads.record,
            "files": files,
            "changes": {prefix: {kind: num for kind, num in some.items() if num} for prefix, some in counts.items()},
        }
        # The record first: after a crash between two renames it lists the files of this program.
        write_text(folder / RECORD, json.dumps(record, ensure_ascii=False, indent=2) + "\n")
        for name in files:
            (temporary / name).replace(folder / name)
    return files


def load_recipes() -> dict[str, Recipe]:
    """Return the recipes by corpus name."""
    text = Path(__file__).with_name("corpora.yaml").read_text(encoding="utf-8")
    return {name: Recipe(**fields) for name, fields in yaml.safe_load(text).items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 done or nothing to do, 1 a corpus could not be downloaded, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="get_data.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="a corpus, see --list")
    parser.add_argument("--list", action="store_true", help="show every corpus: languages, size, license, sources")
    parser.add_argument("--root", type=Path, default=Path("data"), help="write to ROOT/NAME/ (default: data)")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    options = parser.parse_args(arguments)
    recipes = load_recipes()
    if options.list:
        print("\n\n".join(describe(name, recipe) for name, recipe in recipes.items()))
        return 0
    unknown = [name for name in options.names if name not in recipes]
    if unknown or not options.names:
        problem = f"{unknown[0]}: no such corpus" if unknown else "no corpus is named"
        return _fail(f"{problem}; there are {', '.join(recipes)}")
    code = 0
    for name in options.names:  # a failure does not stop the others
        folder = options.root / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".get_data.lock", timeout=0):
                _get(name, recipes[name], folder, force=options.force)
        except KeyboardInterrupt:
            print("stopped; the same command continues", file=sys.stderr)
            return 130
        except Timeout:
            code = _fail(f"{name}: {folder}: another get_data writes there; wait until it has ended, or stop it")
        except (ValueError, OSError) as error:
            code = _fail(f"{name}: {_sentence(error)}")
    return code


def _get(name: str, recipe: Recipe, folder: Path, *, force: bool) -> None:
    files = None if force else present(recipe, folder)
    if files:
        print(f"{name}: exists already, unchanged since it was fetched", file=sys.stderr)
    else:
        print(describe(name, recipe), file=sys.stderr, flush=True)
        files = write(name, recipe, folder)
        print(f"sources and changes: {folder / RECORD}; {folder / 'downloads'} is not needed any more", file=sys.stderr)
    for file, expected in recipe.expected().items():
        checks = ["lines as expected" if expected["lines"] else "lines: none recorded to compare with"]
        checks += ["digest as expected"] if expected["sha256"] else []
        facts = files[file]
        print(f"{folder / file}  {facts['lines']:,} lines  {facts['bytes']:,} bytes  {', '.join(checks)}")


def describe(name: str, recipe: Recipe) -> str:
    """Return the description of a corpus for `--list`."""
    lines = ", ".join(f"{prefix} {num:,}" if num else f"{prefix} not recorded" for prefix, num in recipe.lines.items())
    sources = [recipe.files["url"].format(name=file) for file in recipe.expected()] if recipe.files else []
    sources += [recipe.talks["url"]] if recipe.talks else []
    for test_set in recipe.test_sets.values():
        sources += [f"sacreBLEU {test_set}: {url}" for url, _, _ in archives(test_set, recipe)]
    sources += [f"data set {', '.join(recipe.hub.values())}"] if recipe.hub else []
    text = f"{name}: {recipe.title}\n  languages: {' '.join(recipe.languages)}; download: {recipe.size}\n"
    text += f"  lines: {lines}\n  terms of use: {recipe.license}\n" + (f"  {recipe.note}\n" if recipe.note else "")
    return "\n".join([f"{text}  from:", *(f"    {source}" for source in dict.fromkeys(sources))])


def _fail(problem: str) -> int:
    print(f"error: {problem}", file=sys.stderr, flush=True)
    return 1


def _sentence(error: Exception) -> str:
    return error_message(error)[:1000]


if __name__ == "__main__":
    raise SystemExit(main())
