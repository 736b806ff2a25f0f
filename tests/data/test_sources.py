"""Every data source yields its sentence pairs complete, in order and with their partners."""

import json
from collections import Counter
from pathlib import Path

import pytest

from nmt.data import DataConfig, SentencePair, alignment_path, extra_test_sets, read_pairs
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
