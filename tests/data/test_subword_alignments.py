"""Word alignments reach the subwords of their words, with dropped pairs, joined corpora and any segmentation."""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nmt.alignment import Link
from nmt.data import (
    BOS,
    EOS,
    PAD,
    Batch,
    BatchLoader,
    DataConfig,
    EncodedCorpus,
    Tokenizer,
    TokenizerConfig,
    attach_alignments,
    batch_to_device,
    load_corpus,
    select_rows,
    train_or_load_tokenizer,
    word_alignments,
)
from nmt.data.corpus import AlignmentColumn
from nmt.data.subword_alignments import project_to_subwords
from nmt.data.subword_sampling import row_keys
from nmt.data.synthetic.dataset import SyntheticConfig

KINDS = ["unigram", "bpe", "word", "char"]
WORDS = ["a", "house", "houses", "tree", "trees", "sleeps", "sleeping", "under", "underneath", "schoolbook", "ümläut,"]
NASTY = [
    "",
    " ",
    "  x  y ",
    "a▁▁ b▁",
    "nul\0 x",
    "tab\tx y",
    "a\rb \x85\u2028",
    "🙂🇩🇪 👩‍👩‍👧",
    "\u00a0x\u3000y z",
    "<unk> ??",
]


class SurfaceModel:
    """A tokenizer model with the given surfaces."""

    marks_start = True

    def __init__(self, *pieces: str) -> None:
        self.surfaces = [None, b"<unk>", None, None, *(piece.encode() for piece in pieces)]

    @property
    def size(self) -> int:
        return len(self.surfaces)

    def state(self) -> dict[str, Any]:
        return {"pieces": [surface.decode() for surface in self.surfaces[4:] if surface]}


def random_pairs(num: int, seed: int = 0) -> list[tuple[str, str, set[Link]]]:
    """Sample sentences of a few words with random links between them."""
    rng = random.Random(seed)
    pairs = []
    for _ in range(num):
        source, target = ([rng.choice(WORDS) for _ in range(rng.randint(1, 7))] for _ in range(2))
        links = [link for link in product(range(len(source)), range(len(target))) if rng.random() < 0.3]
        pairs.append((" ".join(source), " ".join(target), set(links)))
    return pairs


def pharaoh(links: set[Link]) -> str:
    return " ".join(f"{i}-{j}" for i, j in links)


def written(folder: Path, pairs: Sequence[tuple[str, str, object]], name: str = "a", **options: object) -> DataConfig:
    """Write the pairs to files and return a configuration that reads them; links are Pharaoh lines or sets."""
    folder.mkdir(exist_ok=True)
    lines = [(s, t, pharaoh(links) if isinstance(links, set) else str(links)) for s, t, links in pairs]
    for number, suffix in enumerate(("en", "de", "links")):
        (folder / f"{name}.{suffix}").write_text("".join(f"{line[number]}\n" for line in lines), encoding="utf-8")
    places = {
        "train": str(folder / name),
        "train_alignments": str(folder / f"{name}.links"),
        "cache_dir": str(folder / "cache"),
    }
    tokenizer = TokenizerConfig(type="word", vocab_size=100)
    config = DataConfig(**{"format": "text", "tokenizer": tokenizer, **places, **options})
    config.validate()
    return config


def read(config: DataConfig) -> tuple[EncodedCorpus, Tokenizer]:
    tokenizer = train_or_load_tokenizer(config)
    return attach_alignments(config, load_corpus(config, "train", tokenizer), tokenizer), tokenizer


def stored(corpus: EncodedCorpus) -> list[set[Link]]:
    assert corpus.links is not None
    pairs, offsets = corpus.links
    return [set(map(tuple, pairs[start:end].tolist())) for start, end in pairwise(offsets)]


def words_by_byte(surfaces: Sequence[bytes | None], ids: Sequence[int]) -> list[int]:
    """Find the word of each token by going through the text byte by byte."""
    result = [-1] * len(ids)
    word, inside = -1, False
    waiting: list[int] = []
    for position, index in enumerate(ids):
        surface = surfaces[index]
        if surface is None:
            continue
        waiting.append(position)
        first: int | None = None
        for byte in surface:
            if byte in b" \n":
                inside = False
                continue
            if not inside:
                word, inside = word + 1, True
            first = word if first is None else first
        if first is not None:
            for earlier in waiting:
                result[earlier] = first
            waiting.clear()
    return result


def by_definition(
    source_words: Sequence[int], target_words: Sequence[int], links: set[Link]
) -> Iterator[tuple[int, int, float]]:
    """Yield (target, source, weight) of one sentence: uniform over the source subwords of all linked words."""
    for t, word in enumerate(target_words):
        linked = [s for s, source in enumerate(source_words) if word >= 0 and source >= 0 and (source, word) in links]
        yield from ((t, s, round(1 / len(linked), 5)) for s in linked)


def entries(batch: Batch, row: int) -> list[tuple[int, int, float]]:
    """Return the links of one row, sorted, with weights to five digits."""
    assert batch.links is not None
    in_row = batch.links.indices[0] == row
    _, target, source = batch.links.indices[:, in_row].tolist()
    weights = [round(weight, 5) for weight in batch.links.weights[in_row].tolist()]
    return sorted(zip(target, source, weights, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_words_of_a_batch_are_those_of_its_text_byte_by_byte(kind: str, tmp_path: Path) -> None:
    config = written(tmp_path, random_pairs(300), tokenizer=TokenizerConfig(type=kind, vocab_size=290))
    tokenizer = train_or_load_tokenizer(config)
    texts = NASTY + [source for source, _, _ in random_pairs(40, seed=1)]
    rows = [[BOS, *ids, EOS, PAD, PAD] for ids in tokenizer.encode_source(texts)]
    if config.tokenizer.type in ("unigram", "bpe"):
        tokenizer.subword_regularization = 0.5
        for seed in range(5):
            ids, lengths = tokenizer.encode_source_sampled(texts, row_keys([seed], np.arange(len(texts))))
            rows += [[*row.tolist(), EOS] for row in np.split(ids, np.cumsum(lengths)[:-1])]
    expected = [words_by_byte(tokenizer.source.surfaces, ids) for ids in rows]
    flat = np.concatenate([np.array(ids) for ids in rows])
    starts = np.concatenate([np.arange(len(ids)) == 0 for ids in rows])
    assert tokenizer.source_word_id_map(flat, starts).tolist() == [word for words in expected for word in words]
    assert [tokenizer.source_word_ids(ids) for ids in rows] == expected


def test_words_of_subwords_with_spaces_anywhere() -> None:
    """A subword model that does not split at spaces may have such subwords."""
    model = SurfaceModel("a", " a", "a ", " ", "  ", "a b", " a b ", "b  c d", "\n", "ab")
    tokenizer = Tokenizer("word", model, model)
    rng = random.Random(0)
    for _ in range(500):
        rows = [[rng.randrange(model.size) for _ in range(rng.randint(0, 9))] for _ in range(4)]
        flat = np.array([index for ids in rows for index in ids], np.int64)
        starts = np.array([position == 0 for ids in rows for position in range(len(ids))], np.bool_)
        expected = [word for ids in rows for word in words_by_byte(model.surfaces, ids)]
        assert tokenizer.source_word_id_map(flat, starts).tolist() == expected


def test_projection_agrees_with_a_manual_example() -> None:
    source = SurfaceModel(" un", "fold", "able", " map", " s")  # ids 4 to 8
    target = SurfaceModel(" Falt", "karte", " un", " s")
    tokenizer = Tokenizer("word", source, target)
    #                    0    1     2     3     4     5              0      1      2    3     4
    #                    un   fold  able  map   s     </s>           Falt   karte  un   s     </s>
    source_ids = np.array([[4, 5, 6, 7, 8, EOS], [8, 7, 5, EOS, PAD, PAD]])
    labels = np.array([[4, 5, 6, 7, EOS], [7, 6, EOS, PAD, PAD]])
    # rows 1 and 0 of a corpus of 3: "unfoldable map s" and "s mapfold"; "Faltkarte un s" and "s un"
    links = [[(1, 0)], [(0, 0), (1, 0), (0, 1)], [(0, 0), (1, 1)]]
    pairs = np.array([link for row in links for link in row], np.uint16)
    words = AlignmentColumn(pairs, np.array([0, 1, 4, 6]))
    targets = project_to_subwords(words, np.array([1, 2]), source_ids, labels, tokenizer)
    batch = Batch(*([torch.empty(0)] * 5), 0, np.array([1, 2]), targets)
    # "Faltkarte" has "unfoldable" and "map", four subwords; "un" has "unfoldable"; "s" and </s> have none
    quarter = [(t, s, 0.25) for t in (0, 1) for s in (0, 1, 2, 3)]
    assert entries(batch, 0) == [*quarter, *((2, s, 0.33333) for s in (0, 1, 2))]
    assert entries(batch, 1) == [(0, 0, 1.0), (1, 1, 0.5), (1, 2, 0.5)]
    assert targets.weights.dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "sampling"), [("unigram", 0.0), ("unigram", 0.2), ("bpe", 0.0), ("bpe", 0.3), ("word", 0.0), ("char", 0.0)]
)
@pytest.mark.parametrize("joint", [True, False])
def test_batches_hold_what_each_sentence_has_alone(kind: str, sampling: float, joint: bool, tmp_path: Path) -> None:
    pairs = random_pairs(150)
    options = TokenizerConfig(
        type=kind, vocab_size=34, subword_regularization=sampling, joint=joint, byte_fallback=False
    )
    config = written(tmp_path, pairs, tokenizer=options, max_length=30)
    corpus, tokenizer = read(config)
    kept = [pair for number, pair in enumerate(pairs) if number not in set(corpus.dropped_rows.tolist())]
    assert stored(corpus) == [links for _, _, links in kept]
    assert len(kept) == len(corpus) == 150 - sum(corpus.dropped.values())
    deterministic = tokenizer.encode_source([source for source, _, _ in kept])
    seen = set()
    num_sampled = 0
    for epoch in range(2):
        for batch in BatchLoader(corpus, tokenizer, 400, 1).epoch(epoch):
            for row, number in enumerate(batch.indices.tolist()):
                source, labels = batch.source[row].tolist(), batch.labels[row].tolist()
                words = (
                    words_by_byte(tokenizer.source.surfaces, source),
                    words_by_byte(tokenizer.target.surfaces, labels),
                )
                expected = sorted(by_definition(*words, kept[number][2]))
                assert entries(batch, row) == expected
                seen.add(number)
                num_sampled += source[: source.index(EOS)] != deterministic[number]
    assert len(seen) == len(corpus)
    assert (num_sampled > 20) == (sampling > 0)


def test_a_corpus_without_links_makes_batches_without(tmp_path: Path) -> None:
    config = written(tmp_path, random_pairs(20))
    tokenizer = train_or_load_tokenizer(config)
    corpus = load_corpus(config, "train", tokenizer)
    assert all(batch.links is None for batch in BatchLoader(corpus, tokenizer, 100, 1).epoch(0))
    assert not list((tmp_path / "cache").glob("links-*"))


def test_links_follow_their_pairs_through_blocks_drops_and_joined_corpora(tmp_path: Path) -> None:
    rng = random.Random(2)
    pairs = [pair if rng.random() < 0.9 else ("", pair[1], set()) for pair in random_pairs(8300)]
    pairs[10] = pairs[8191] = pairs[8192] = ("house " * 40, "tree", {(39, 0)})
    first = written(tmp_path, pairs, "a", max_length=30)
    second = written(tmp_path, random_pairs(50, seed=5), "b", max_length=30)
    joined = replace(
        first, train=[first.train, second.train], train_alignments=[first.train_alignments, second.train_alignments]
    )
    corpus, tokenizer = read(joined)
    expected = [links for source, _, links in pairs if 0 < len(source.split()) <= 30]
    assert stored(corpus) == expected + [links for _, _, links in random_pairs(50, seed=5)]
    assert corpus.links is not None
    assert isinstance(corpus.links.pairs, np.memmap)
    assert corpus.links.pairs.dtype == np.uint16
    with pytest.raises(ValueError, match=r"1 files for the 2 entries of data\.train"):
        attach_alignments(replace(joined, train_alignments=first.train_alignments), corpus, tokenizer)


def test_a_possible_link_counts_where_there_is_no_sure_one(tmp_path: Path) -> None:
    config = written(tmp_path, [("a b c", "x y", "0p0 1p0 2-1 0p1 2-1"), ("a", "x", ""), ("a b", "x", "1p0 \t0-0")])
    corpus, _ = read(config)
    assert stored(corpus) == [{(0, 0), (1, 0), (2, 1)}, set(), {(0, 0)}]


def test_gold_beside_the_text_is_read_where_no_file_is_named(tmp_path: Path) -> None:
    config = replace(written(tmp_path, [("a b", "x y", {(0, 1)})]), train_alignments=None)
    tokenizer = train_or_load_tokenizer(config)
    corpus = load_corpus(config, "train", tokenizer)
    with pytest.raises(FileNotFoundError, match=r"a\.gold: no such file; .* data\.train_alignments=FILE names them"):
        attach_alignments(config, corpus, tokenizer)
    (tmp_path / "a.links").rename(tmp_path / "a.gold")
    assert stored(attach_alignments(config, corpus, tokenizer)) == [{(0, 1)}]


def test_the_synthetic_pair_has_links(tmp_path: Path) -> None:
    sizes = SyntheticConfig(train=60, valid=2, test=2, long=1)
    for languages in (("en", "de"), ("de", "en")):
        options = TokenizerConfig(type="word", vocab_size=1000)
        config = DataConfig(
            synthetic=sizes,
            source_lang=languages[0],
            target_lang=languages[1],
            cache_dir=str(tmp_path),
            tokenizer=options,
        )
        corpus, _ = read(config)
        backward = stored(corpus)
        numbers = zip(backward, np.diff(corpus.target.offsets).tolist(), strict=True)
        if languages[0] == "en":  # every German word has a link
            assert all({j for _, j in links} == set(range(num)) for links, num in numbers)
            forward = backward
    assert sum({(j, i) for i, j in links} <= back for links, back in zip(forward, backward, strict=True)) > 40


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0-0", "0-0"], r"a\.links has 2 lines and .*a has at least 3 pairs: each pair needs one line of links"),
        (["0-0", "0-0", "", "0-0"], r"a\.links has 4 lines and .*a has 3 pairs"),
        (["0-0", "0-0 2-1", ""], r"a\.links: line 2: link 2-1 points beyond a sentence of 2 source and 2 target words"),
        (["0-0", "0-0 1-2", ""], r"a\.links: line 2: link 1-2 points beyond a sentence of 2 source and 2 target"),
        (["", "0-0 1:1", ""], r"a\.links: line 2: '1:1' is not a link: write i-j"),
        (["0-0\u00a01-1", "", ""], r"a\.links: line 1: .* is not a link"),
        (["-1-0", "", ""], r"line 1: '-1-0' is not a link"),
        (["99999999999999999999-0", "", ""], r"line 1: '99999999999999999999-0' is not a link"),
    ],
)
def test_errors_name_the_line(lines: list[str], message: str, tmp_path: Path) -> None:
    config = written(tmp_path, [("a b", "x y", set())] * 3)
    (tmp_path / "a.links").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    tokenizer = train_or_load_tokenizer(config)
    corpus = load_corpus(config, "train", tokenizer)
    with pytest.raises(ValueError, match=message):
        attach_alignments(config, corpus, tokenizer)
    assert not list((tmp_path / "cache").glob("*links*"))


def test_words_that_normalization_changes_lose_their_links(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """NFKC turns U+00A0 into a space: the encoded text has one word more than the text of the links."""
    pairs = [("a\u00a0house sleeps", "x y", {(1, 0)}), ("a house", "x y", {(1, 1)}), ("tree", "x", set())] * 20
    options = TokenizerConfig(type="bpe", vocab_size=290, normalization="nfkc")
    config = written(tmp_path, pairs, tokenizer=options)
    with caplog.at_level("INFO", "nmt"):
        corpus, _ = read(config)
    assert stored(corpus) == [set(), {(1, 1)}, set()] * 20
    assert "links: 20, pairs whose words the tokenizer changes: 20, pairs without links: 40" in caplog.text


def test_links_come_from_the_cache_until_the_file_changes(tmp_path: Path) -> None:
    pairs = random_pairs(30)
    config = written(tmp_path, pairs)
    first, tokenizer = read(config)
    folder = next((tmp_path / "cache").glob("links-*"))
    before = folder.stat().st_mtime_ns
    again = attach_alignments(config, load_corpus(config, "train", tokenizer), tokenizer)
    assert folder.stat().st_mtime_ns == before
    assert stored(again) == stored(first)
    assert again.digest == first.digest != load_corpus(config, "train", tokenizer).digest
    written(tmp_path, [(source, target, set()) for source, target, _ in pairs])
    changed = attach_alignments(config, load_corpus(config, "train", tokenizer), tokenizer)
    assert not any(stored(changed))
    assert changed.digest != first.digest


@pytest.mark.parametrize("changed", ["a.links", "a.en"])
def test_links_or_text_that_change_while_they_are_read(
    changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache must not keep new links under the digest of the old ones, nor links of another text."""
    pairs = random_pairs(30)
    config = written(tmp_path, pairs)
    tokenizer = train_or_load_tokenizer(config)
    corpus = load_corpus(config, "train", tokenizer)
    real = word_alignments.parse_block

    def change(*arguments: Any) -> Any:
        former = [("house " + source, target, set()) for source, target, _ in pairs]
        written(tmp_path / "other", former)
        (tmp_path / "other" / changed).replace(tmp_path / changed)
        return real(*arguments)

    monkeypatch.setattr(word_alignments, "parse_block", change)
    with pytest.raises(ValueError, match=rf"{re.escape(changed)}: the text was changed while it was read"):
        attach_alignments(config, corpus, tokenizer)
    assert not list((tmp_path / "cache").glob("*links*"))
    monkeypatch.undo()
    if changed == "a.en":
        with pytest.raises(ValueError, match=r"a\.en: the text was changed while it was read"):
            attach_alignments(config, corpus, tokenizer)  # the corpus is of the former text
    else:
        assert not any(stored(attach_alignments(config, corpus, tokenizer)))


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_the_shards_of_a_batch_make_up_the_batch(size: int, tmp_path: Path) -> None:
    corpus, tokenizer = read(written(tmp_path, random_pairs(40)))
    for batch in BatchLoader(corpus, tokenizer, 120, 1).epoch(0):
        parts = [select_rows(batch, slice(rank, None, size)) for rank in range(size)]
        assert sum(part.num_tokens for part in parts) == batch.num_tokens
        for rank, part in enumerate(parts):
            rows = range(rank, len(batch.indices), size)
            assert len(part.indices) == len(rows)
            for name in ("source", "source_mask", "inputs", "labels"):
                assert torch.equal(getattr(part, name), getattr(batch, name)[rank::size])
            assert part.indices.tolist() == batch.indices[rank::size].tolist()
            for row, whole in enumerate(rows):
                assert entries(part, row) == entries(batch, whole)
        assert batch_to_device(batch, torch.device("cpu")) is batch
        turned = select_rows(batch, [len(batch.indices) - 1, 0])
        assert entries(turned, 1) == entries(batch, 0)
        assert select_rows(batch._replace(links=None), [0]).links is None
