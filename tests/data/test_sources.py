"""Every data source yields its sentence pairs complete, in order and with their partners."""

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from nmt.data import DataConfig, SentencePair, alignment_path, extra_test_sets, read_pairs, table_files
from nmt.data.sources import read_blocks
from nmt.data.synthetic.dataset import SyntheticConfig
from nmt.data.text_files import BLOCK_LINES

NEWS = Path(__file__).parents[3] / "shared" / "data" / "wmt_news_ende"
# Everything that some reader treats as the end of a line, and text that is easily lost.
NASTY = [
    "a\rb",
    "a\u0085b",
    "a\u2028b\u2029c",
    "a\x0bb\x0cc\x1cd",
    "tab\there",
    "nul\0nul",
    "🙂 שלום",
    "...",
    "x\ufeff",
]


def write(folder: Path, name: str, sources: list[str], targets: list[str]) -> str:
    (folder / f"{name}.en").write_bytes("".join(f"{line}\n" for line in sources).encode())
    (folder / f"{name}.de").write_bytes("".join(f"{line}\n" for line in targets).encode())
    return str(folder / name)


def text(**options: object) -> DataConfig:
    config = DataConfig(format="text", **options)
    config.validate()
    return config


def test_lines_end_at_line_feeds_only(tmp_path: Path) -> None:
    prefix = write(tmp_path, "a", NASTY, NASTY[::-1])
    assert list(read_pairs(text(train=prefix), "train")) == list(map(SentencePair, NASTY, NASTY[::-1]))


def test_repairs_are_counted(tmp_path: Path) -> None:
    prefix = write(tmp_path, "a", ["\ufeffone\r", "two\r", " three  ", ""], ["eins", "zwei\r", "drei", "vier"])
    repaired: Counter[str] = Counter()
    pairs = list(read_pairs(text(test=prefix), "test", repaired))
    assert pairs == [("one", "eins"), ("two", "zwei"), ("three", "drei"), ("", "vier")]
    assert repaired == {"byte-order mark": 1, "carriage return at the end": 3, "spaces at the ends": 1}


@pytest.mark.parametrize("end", ["", "\n"])
def test_last_line_with_or_without_line_feed(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.en").write_text("one\ntwo" + end)
    (tmp_path / "a.de").write_text("eins\nzwei\n")
    assert [*read_pairs(text(train=str(tmp_path / "a")), "train")] == [("one", "eins"), ("two", "zwei")]


def test_blocks_stay_parallel_when_lines_are_of_very_different_length(tmp_path: Path) -> None:
    num = 2 * BLOCK_LINES + 3
    sources = [f"s{row}" * (1 + row % 3) for row in range(num)]
    targets = [f"t{row} " + "x" * (300 if row % 2 else 0) + "." for row in range(num)]
    targets[7] = "long" * 700_000
    prefix = write(tmp_path, "a", sources, targets)
    assert list(read_pairs(text(train=prefix), "train")) == list(zip(sources, targets, strict=True))


def test_lists_are_joined(tmp_path: Path) -> None:
    first, second = write(tmp_path, "a", ["one"], ["eins"]), write(tmp_path, "b", ["two"], ["zwei"])
    assert [*read_pairs(text(train=[first, second]), "train")] == [("one", "eins"), ("two", "zwei")]
    assert [*read_pairs(text(), second)] == [("two", "zwei")]


def test_languages_determine_direction(tmp_path: Path) -> None:
    prefix = write(tmp_path, "a", ["one"], ["eins"])
    config = text(train=prefix, source_lang="de", target_lang="en")
    assert [*read_pairs(config, "train")] == [("eins", "one")]


def error(config: DataConfig, split: str = "train") -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as info:
        list(read_pairs(config, split))
    assert "\n" not in str(info.value)
    return str(info.value)


def test_sides_of_different_length(tmp_path: Path) -> None:
    for extra in (1, 2 * BLOCK_LINES):
        prefix = write(tmp_path, "a", ["x"] * 5, ["x"] * (5 + extra))
        message = error(text(train=prefix))
        assert f"{prefix}.en has 5 lines and {prefix}.de has {5 + extra}" in message
        assert "line 6 of a.de" in message


@pytest.mark.parametrize("before", [1, 100_000])
def test_not_utf8_names_line_and_byte(tmp_path: Path, before: int) -> None:
    prefix = write(tmp_path, "a", ["some words to fill a line"] * before, ["x"] * before)
    with Path(f"{prefix}.en").open("ab") as file:
        file.write("fü".encode() + "für".encode("latin-1") + b"\n")
    assert f"{prefix}.en: line {before + 1}, byte 5 (0xfc)" in error(text(train=prefix))


def test_missing_empty_directory(tmp_path: Path) -> None:
    prefix = write(tmp_path, "a", ["x"], ["x"])
    assert f"{prefix}.fr: no such file" in (message := error(text(train=prefix, target_lang="fr")))
    assert message.endswith("suffixes that exist: .de, .en")
    assert "no such file" in error(text(train=str(tmp_path / "nowhere" / "b")))
    Path(f"{prefix}.de").write_bytes(b"")
    assert f"{prefix}.de: the file is empty" in error(text(train=prefix))
    Path(f"{prefix}.de").unlink()
    Path(f"{prefix}.de").mkdir()
    assert f"{prefix}.de: is a directory" in error(text(train=prefix))
    assert "data.valid: not given" in error(text(train=prefix), "valid")


def test_tsv(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes('one \teins\tnote\r\n\n" two\tzwei\tNA\n\tdrei\nfour\u2028\tvier'.encode())
    config = DataConfig(format="tsv", train=str(path))
    rows = [("one", "eins"), ("", ""), ('" two', "zwei"), ("", "drei"), ("four\u2028", "vier")]
    assert [*read_pairs(config, "train")] == rows
    config.columns = [2, 1]
    assert [*read_pairs(config, "train")] == [row[::-1] for row in rows]
    path.write_bytes("\u200b\n \t\u3000\nNA\tnull\n\u00a0\t\n".encode())
    assert [*read_pairs(DataConfig(format="tsv", train=str(path)), "train")] == [
        *(("", ""), ("", "\u3000"), ("NA", "null"), ("\u00a0", ""))
    ]
    path.write_bytes(b"a\tb\tc\n" * 3 + b"a\tb\n")
    config.columns = [1, 3]
    assert f"{path}: line 4: 2 tab-separated columns" in error(config)


RECORDS = [("One.\u2028", "Eins."), ("", "Zwei"), ("three\nlines\r\nhere", "drei"), ("a\rb", "NA"), ("5", "2020-01-01")]
READ = [("One.\u2028", "Eins."), ("", "Zwei"), ("three lines here", "drei"), ("a\rb", "NA"), ("5", "2020-01-01")]


def nested(pairs: list[tuple[object, object]]) -> list[dict[str, object]]:
    return [{"translation": {"en": source, "de": target}} for source, target in pairs]


def write_table(path: Path, records: list[dict[str, object]]) -> str:
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_tables(tmp_path: Path, kind: str) -> None:
    repaired: Counter[str] = Counter()
    path = write_table(tmp_path / f"a.{kind}", nested(RECORDS))
    assert [*read_pairs(DataConfig(format=kind, train=path), "train", repaired)] == READ
    assert repaired == {"line break in a cell": 1}
    flat = write_table(tmp_path / f"b.{kind}", [{"de": de, "en": en, "id": 1} for en, de in RECORDS])
    assert [*read_pairs(DataConfig(format=kind, train=[path, flat]), "train")] == READ + READ

    missing = write_table(tmp_path / f"c.{kind}", nested([("a", "b"), (None, "c")]))
    assert [*read_pairs(DataConfig(format=kind, train=missing), "train", repaired)] == [("a", "b"), ("", "c")]
    assert repaired["empty cell"] == 1
    numbers = write_table(tmp_path / f"d.{kind}", nested([("a", 1), ("b", 2)]))
    assert f"{numbers}: de: row 1 holds 1, which is not text" in error(DataConfig(format=kind, train=numbers))
    message = error(DataConfig(format=kind, train=path, target_lang="fr"))
    assert "column translation has no language fr; it has de, en" in message
    message = error(DataConfig(format=kind, train=flat, target_lang="fr", column="text"))
    assert "no column text (data.column) and no column fr; it has de, en, id" in message
    (tmp_path / f"e.{kind}").write_text("nonsense {\n")
    assert f"e.{kind}: cannot be" in error(DataConfig(format=kind, train=str(tmp_path / f"e.{kind}")))


def test_hub_folder(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        write_table(tmp_path / f"{split}.parquet", nested([(split, "x"), *RECORDS]))
    config = DataConfig(format="hub", hf_dataset=str(tmp_path))
    config.validate()
    for split, name in (("train", "train"), ("valid", "validation"), ("test", "test")):
        assert [*read_pairs(config, split)] == [(name, "x"), *READ]
    config.test = "train"
    assert next(read_pairs(config, "test")) == ("train", "x")
    config.test = "dev"
    assert "cannot be opened" in error(config, "test")


LOOKS_LIKE_ANOTHER_TYPE = [
    *("", "2024-01-02", "2024-01-02T03:04:05Z", "12:30:00", "null", "NA", "NaN", "nan", "None", "#N/A", "true", "no"),
    *("1e5", "007", "0x10", "1_000", "-0.0", "1,5", "[1]", "{}", "inf", "1/2", "'quoted'", "False"),
]


@pytest.mark.parametrize(
    "kind", ["jsonl", "list", "gz", "parquet", "tsv", "hub:jsonl", "hub:csv", "hub:tsv", "hub:parquet"]
)
@pytest.mark.parametrize("cells", [LOOKS_LIKE_ANOTHER_TYPE, ["2024-01-02", "2024-01-03"], ["NA", "NA"], ["007", "008"]])
def test_text_is_text(tmp_path: Path, kind: str, cells: list[str]) -> None:
    """Also where every value of a column looks like a date, a number, a truth value or nothing."""
    pairs = list(zip(cells, cells[::-1], strict=True))
    kind, _, hub = kind.rpartition(":")[::-1]
    path = tmp_path / f"train.{ {'list': 'json', 'gz': 'jsonl.gz'}.get(kind, kind) }"
    records = [{"id": row, "en": source, "de": target} for row, (source, target) in enumerate(pairs)]
    if kind in ("csv", "tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, delimiter="," if kind == "csv" else "\t", lineterminator="\n")
            rows.writerows([["id", "en", "de"]] * bool(hub) + [[row, *pair] for row, pair in enumerate(pairs)])
    elif kind == "list":
        path.write_text(json.dumps(records, indent=1))
    elif kind == "gz":
        path.write_bytes(gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode()))
    else:
        write_table(path, records)
    config = DataConfig(format={"list": "jsonl", "gz": "jsonl"}.get(kind, kind), train=str(path), columns=[2, 3])
    if hub:
        config = DataConfig(format="hub", hf_dataset=str(tmp_path))
    repaired: Counter[str] = Counter()
    assert [*read_pairs(config, "train", repaired)] == pairs
    assert repaired == {}


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_text_is_text_in_datasets_that_are_downloaded(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    class RemotePath(type(Path())):  # type: ignore[misc]
        def is_dir(self) -> bool:
            return False

    monkeypatch.setattr(table_files, "Path", RemotePath)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    pairs = [("2024-01-02", "NA"), ("2024-01-03", "007")]
    if kind == "csv":
        (folder / "train.csv").write_text("en,de,id\n" + "".join(f"{en},{de},1\n" for en, de in pairs))
    else:
        write_table(folder / "train.jsonl", [{"en": en, "de": de} for en, de in pairs])
    config = DataConfig(format="hub", hf_dataset=str(folder))
    for _ in range(2):  # downloaded, and from the library's cache
        assert [*read_pairs(config, "train")] == pairs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"en": "a", "de": 5}', "de: row 3 holds 5, which is not text"),
        ('{"en": "a", "de": true}', "de: row 3 holds True, which is not text"),
        ('{"en": ["a"], "de": "b"}', "en: row 3 holds ['a'], which is not text"),
        ('{"en": "a", "de": {"text": "b"}}', "de: row 3 holds {'text': 'b'}, which is not text"),
        ('{"en": "a", "de": "b"', "cannot be read: row 3 is not JSON: "),
        ('{"en": "a\\ud800", "de": "b"}', "cannot be read: row 3 is not JSON: 'utf-8' codec can't encode character"),
        ('"a"', "cannot be read: row 3 is not a JSON object"),
        ("[" * 100_000, "cannot be read: row 3 is not JSON: maximum recursion depth"),
    ],
)
def test_json_that_is_not_text_names_the_row(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"en": "x", "de": null}\n{"en": "y"}\n' + line + "\n")
    assert f"{path}: {message}" in error(DataConfig(format="jsonl", train=str(path)))


def test_json_lines_as_programs_write_them(tmp_path: Path) -> None:
    """A byte-order mark, lines between the rows, other ends of lines, characters that end a line elsewhere, nulls."""
    path, repaired = tmp_path / "a.jsonl", Counter[str]()
    rows = ['{"en": "a\u2028b\u0085", "de": "1"}', "", '{"en": null, "de": "\\u00fc\\n2"}\r', "  ", '{"de": "3"}']
    path.write_bytes(("\ufeff" + "\n".join(rows)).encode())
    pairs = [*read_pairs(DataConfig(format="jsonl", train=str(path)), "train", repaired)]
    assert pairs == [("a\u2028b\u0085", "1"), ("", "ü 2"), ("", "3")]
    assert repaired == {"empty cell": 2, "line break in a cell": 1}


def test_json_lines_come_in_blocks_of_as_many_rows_as_lines_of_text(tmp_path: Path) -> None:
    """So that word alignments are read beside them."""
    path = tmp_path / "a.jsonl"
    num = 2 * BLOCK_LINES + 3
    path.write_text("".join(f'{{"en": "{row}", "de": "x"}}\n' + "\n" * (row % 2) for row in range(num)))
    blocks = [*read_blocks(DataConfig(format="jsonl", train=str(path)), "train", Counter())]
    assert [len(sources) for sources, _ in blocks] == [BLOCK_LINES, BLOCK_LINES, 3]
    assert [source for sources, _ in blocks for source in sources] == [str(row) for row in range(num)]


def test_alignment_path(tmp_path: Path) -> None:
    prefix = write(tmp_path, "a.tok", ["x"], ["x"])
    assert alignment_path(text(test=prefix), "test") is None
    gold = Path(f"{prefix}.gold")
    gold.write_text("0-0\n")
    assert alignment_path(text(test=prefix), "test") == gold
    assert alignment_path(text(), prefix) == gold
    assert alignment_path(text(test=[prefix, prefix]), "test") is None
    assert "suffixes that exist: .de, .en" in error(text(test=prefix, source_lang="xx"), "test")


@pytest.mark.parametrize("source", ["en", "de"])
def test_builtin(tmp_path: Path, source: str) -> None:
    pytest.importorskip("nmt.data.synthetic")
    target = {"en": "de", "de": "en"}[source]
    sizes = SyntheticConfig(train=50, valid=10, test=20, long=5)
    config = DataConfig(cache_dir=str(tmp_path), source_lang=source, target_lang=target, synthetic=sizes)
    config.validate()
    assert [len(list(read_pairs(config, split))) for split in ("train", "valid", "test")] == [50, 10, 20]
    (long,) = extra_test_sets(config)
    assert Path(long).name == "test_long"
    for split in ("train", "test", long):
        pairs = list(read_pairs(config, split))
        gold = alignment_path(config, split)
        assert gold is not None
        lines = gold.read_text().splitlines()
        assert len(lines) == len(pairs)
        for pair, line in zip(pairs, lines, strict=True):
            links = [tuple(map(int, link.replace("p", "-").split("-"))) for link in line.split()]
            # Both bounds, so that a reversed direction shows where the sides differ in length.
            assert links
            assert all(i < len(pair.source.split(" ")) and j < len(pair.target.split(" ")) for i, j in links)
    # A damaged folder is made anew, and the same.
    before = list(read_pairs(config, "train"))
    (folder,) = tmp_path.glob("builtin-*")
    (folder / "train.de").unlink()
    assert list(read_pairs(config, "train")) == before
    config.synthetic.seed = 1
    assert list(read_pairs(config, "train")) != before


def test_builtin_directions_agree(tmp_path: Path) -> None:
    pytest.importorskip("nmt.data.synthetic")
    sizes = SyntheticConfig(train=5, valid=5, test=30, long=5)
    forward = DataConfig(cache_dir=str(tmp_path), synthetic=sizes)
    backward = DataConfig(cache_dir=str(tmp_path), source_lang="de", target_lang="en", synthetic=sizes)
    assert [pair[::-1] for pair in read_pairs(forward, "test")] == [*read_pairs(backward, "test")]
    paths = alignment_path(forward, "test"), alignment_path(backward, "test")
    assert paths[0] is not None
    assert paths[1] is not None
    for line, reverse_line in zip(*(path.read_text().splitlines() for path in paths), strict=True):  # type: ignore[union-attr]
        links = {tuple(link.replace("p", "-").split("-")) for link in line.split()}
        assert {tuple(link.replace("p", "-").split("-")[::-1]) for link in reverse_line.split()} == links
        assert line.count("p") == reverse_line.count("p")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "txt"}, "data.format=txt: must be one of builtin, text"),
        ({"format": "text", "train": 3}, "data.train=3"),
        ({"format": "text", "valid": ["a", ""]}, "data.valid"),
        ({"source_lang": "de"}, "data.target_lang=de"),
        ({"source_lang": "fr"}, "the built-in pair is en and de"),
        ({"format": "hub"}, "data.hf_dataset: not given"),
        ({"synthetic": SyntheticConfig(train=0)}, "data.synthetic.train=0"),
        ({"synthetic": SyntheticConfig(seed=-1)}, "data.synthetic.seed=-1"),
        ({"columns": [1]}, "data.columns=[1]"),
        ({"max_length": 0}, "data.max_length=0"),
        ({"max_length_ratio": 0.5}, "data.max_length_ratio=0.5"),
        ({"cache_dir": ""}, "data.cache_dir"),
        ({"column": ""}, "data.column"),
    ],
)
def test_validate(options: dict[str, object], message: str) -> None:
    DataConfig().validate()
    with pytest.raises(ValueError, match=r"^data\.") as info:
        DataConfig(**options).validate()
    assert message in str(info.value)


@pytest.mark.skipif(not NEWS.is_dir(), reason="needs the WMT news sets")
def test_newstest2009_stays_parallel() -> None:
    pairs = list(read_pairs(text(test=str(NEWS / "newstest2009")), "test"))
    assert len(pairs) == 2525
    assert sum("\u0085" in pair.target for pair in pairs) > 0
