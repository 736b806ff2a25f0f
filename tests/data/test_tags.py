"""Tags: reserved ids before a source or a target, of languages and of corpora."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmt.data import (
    BatchLoader,
    DataConfig,
    Tokenizer,
    TokenizerConfig,
    attach_alignments,
    load_corpus,
    train_or_load_tokenizer,
)
from nmt.data.corpora import (
    default_direction,
    directions,
    tag_names,
    tokenizer_for,
    training_corpora,
    vocabulary_corpora,
)
from nmt.data.sources import further_splits, read_pairs, resolve_split, validation_splits
from nmt.data.tags import with_prefixes
from nmt.evaluation.results import load_test_sets

TEXTS = {
    "en": ["A red house .", "Two dogs run <2de> .", "The child sleeps ."],
    "de": ["Ein rotes Haus .", "Zwei Hunde rennen <web> .", "Das Kind schläft ."],
    "fr": ["Une maison rouge .", "Deux chiens courent .", "L' enfant dort ."],
}
KINDS = ["unigram", "bpe", "word", "char"]


def config(folder: Path, kind: str = "unigram", **options: Any) -> DataConfig:
    for language, lines in TEXTS.items():
        (folder / f"text.{language}").write_text("".join(f"{line}\n" for line in lines * 20), encoding="utf-8")
    tokenizer = TokenizerConfig(type=kind, vocab_size=320, **options.pop("tokenizer", {}))
    data = DataConfig(
        format="text",
        valid=str(folder / "text"),
        test=str(folder / "text"),
        tokenizer=tokenizer,
        **({"train": str(folder / "text")} if "corpora" not in options else {}),
        cache_dir=str(folder / "cache"),
        **options,
    )
    data.validate()
    return data


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["source", "decoder"])
def test_tags_are_ids_of_their_own(kind: str, place: str, tmp_path: Path) -> None:
    data = config(tmp_path, kind, languages=["en", "de", "fr"], tags=place)
    tokenizer = train_or_load_tokenizer(data)
    assert tokenizer.tags == ("<2de>", "<2fr>", "<2en>")
    into_french = tokenizer_for(data, tokenizer, "fr")
    size, text = tokenizer.source_size, TEXTS["en"][1]
    for side, encode, flat in (
        ("source", into_french.encode_source, into_french.encode_source_flat),
        ("decoder", into_french.encode_target, into_french.encode_target_flat),
    ):
        untagged = (tokenizer.encode_source if side == "source" else tokenizer.encode_target)([text, ""])
        expected = [[size - 2, *ids] for ids in untagged] if side == place else untagged
        assert encode([text, ""]) == expected
        ids, lengths = flat([text, ""])
        assert np.split(ids, np.cumsum(lengths)[:-1])[0].tolist() == expected[0]
        assert lengths.tolist() == list(map(len, expected))
        assert size - 2 not in untagged[0]  # a tag that a text spells out is text
        assert into_french.decode_source(expected[0]) == tokenizer.decode_source(untagged[0])
    ids = into_french.encode_source([text])[0]
    num = len(into_french.prefixes[0])
    assert into_french.source_subwords(ids)[:num] == ["<2fr>"][:num]
    assert into_french.source_words(text, ids) == [-1] * num + tokenizer.source_words(text, ids[num:])
    copies = into_french.words_to_copy(text, ids)
    assert copies == [""] * num + tokenizer.words_to_copy(text, ids[num:])
    restored = Tokenizer.from_state_dict(into_french.state_dict())
    assert restored.tags == tokenizer.tags
    assert restored.digest == tokenizer.digest != into_french.digest
    assert restored.encode_source([text]) == tokenizer.encode_source([text])
    assert tag_names(data) == list(tokenizer.tags)


def test_a_corpus_has_the_tags_of_its_language_and_its_own(tmp_path: Path) -> None:
    path = str(tmp_path / "text")
    entries = {
        "clean": {"path": path},
        "web": {"path": path, "tag": "web", "max_pairs": 7},
        "french": {"path": path, "target_lang": "fr"},
    }
    for sampling in (0.0, 0.1):
        options = {"subword_regularization": sampling}
        data = config(tmp_path, corpora=entries, tokenizer=options)
        tokenizer = train_or_load_tokenizer(data)
        german, french, web = (tokenizer.source_size - 3 + i for i in range(3))
        assert tokenizer.tags == ("<2de>", "<2fr>", "<web>")
        corpus = load_corpus(data, "train", tokenizer)
        firsts = [corpus.source.ids[corpus.source.offsets[row]] for row in (0, 59, 60, 66, 67, 126)]
        assert firsts == [german] * 4 + [french] * 2
        assert corpus.source.ids[corpus.source.offsets[60] + 1] == web
        assert corpus.bounds == {"clean": 0, "web": 60, "french": 67}
        assert corpus.prefixes == ([(german,), (german, web), (french,)], [(), (), ()])
        expected = [[german], [german, web], [french]]
        flat = tokenizer.encode_source_flat([TEXTS["en"][0]] * 3)
        ids, lengths = with_prefixes(flat, corpus.prefixes[0], np.array([0, 1, 2]))
        one = flat[0][: flat[1][0]].tolist()
        assert ids.tolist() == [index for prefix in expected for index in prefix + one]
        assert lengths.tolist() == [len(prefix) + len(one) for prefix in expected]


def test_sampled_segmentations_have_the_same_tags(tmp_path: Path) -> None:

    data = config(
        tmp_path,
        languages=["en", "de", "fr"],
        tags="decoder",
        tokenizer={"subword_regularization": 0.2},
    )
    tokenizer = train_or_load_tokenizer(data)
    corpus = load_corpus(data, "train", tokenizer)
    names = [*corpus.bounds]
    for batch in BatchLoader(corpus, tokenizer, 300, 1, prefetch=0).epoch(0):
        assert batch.corpora is not None
        for row, index in enumerate(batch.indices):
            part = int(np.searchsorted([*corpus.bounds.values()], index, side="right")) - 1
            language = names[part].partition("-")[2]
            expected = tokenizer.source_size - len(tokenizer.tags) + tokenizer.tags.index(f"<2{language}>")
            assert int(batch.labels[row, 0]) == expected


def test_directions_and_their_splits(tmp_path: Path) -> None:
    data = config(tmp_path, languages=["en", "de", "fr"], zero_shot=["fr-de"], source_lang="de", target_lang="fr")
    pairs = directions(data)
    assert pairs == [("en", "de"), ("en", "fr"), ("de", "en"), ("de", "fr"), ("fr", "en"), ("fr", "de")]
    assert [part.name for part in training_corpora(data)] == ["en-de", "en-fr", "de-en", "de-fr", "fr-en"]
    assert default_direction(data) == ("de", "fr")
    assert validation_splits(data)[0] == "valid@de-fr"
    assert further_splits(data, "test") == [
        "test@de-fr",
        *(f"test@{s}-{t}" for s, t in pairs if (s, t) != ("de", "fr")),
    ]
    assert next(read_pairs(data, "test@fr-de")) == (TEXTS["fr"][0], TEXTS["de"][0])
    assert resolve_split(data, "train") == [data.train] * 5
    (tmp_path / "own.fr").write_text("Bonjour\n")
    (tmp_path / "own.en").write_text("Hello\n")
    own = str(tmp_path / "own")
    assert further_splits(data, own) == [f"{own}@en-fr", f"{own}@fr-en"]
    by_name = {f"{s}-{t}": str(tmp_path / "text") for s, t in pairs}
    assert resolve_split(data, "valid@en-fr") == [data.valid]
    data.valid = {"en-de": own}
    with pytest.raises(ValueError, match="it must be a text for each direction"):
        data.validate()
    data.valid = by_name
    data.validate()


def test_directions_without_a_test_text_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = config(tmp_path, languages=["en", "de", "fr"])
    assert len(load_test_sets(data)) == 6
    assert not caplog.records
    for language in ("en", "de"):
        (tmp_path / f"some.{language}").write_text("A house .\n")
    data.test = str(tmp_path / "some")
    assert [test.split for test in load_test_sets(data)] == ["test@en-de", "test@de-en"]
    assert caplog.messages == ["data.test: has no text for de-fr, en-fr, fr-de, fr-en, which are not tested"]


def test_one_language_has_no_tag(tmp_path: Path) -> None:
    data = config(tmp_path)
    tokenizer = train_or_load_tokenizer(data)
    assert tokenizer.tags == ()
    assert tokenizer_for(data, tokenizer, "de") is tokenizer
    with pytest.raises(ValueError, match="tag=web: there are no tags"):
        tokenizer_for(data, tokenizer, "de", "web")
    entries = {"a": {"path": data.train, "tag": "web"}, "b": {"path": data.train, "tag": "bt"}}
    tagged = config(tmp_path, corpora=entries)
    with pytest.raises(ValueError, match="tag=wab: must be one of web, bt"):
        tokenizer_for(tagged, train_or_load_tokenizer(tagged), "de", "wab")


def test_the_tokenizer_reads_each_text_once(tmp_path: Path) -> None:
    data = config(tmp_path, languages=["en", "de", "fr"])
    assert [part.name for part in vocabulary_corpora(data)] == ["en-de", "en-fr"]
    data.tokenizer.joint = False
    sides = [part.direction for part in vocabulary_corpora(data)]
    assert {source for source, _ in sides} == {target for _, target in sides} == {"en", "de", "fr"}
    assert len(sides) == 4


def test_alignments_of_several_corpora(tmp_path: Path) -> None:
    """Those of each entry, tags not shifting them, are those of the joined text."""
    text = str(tmp_path / "text")
    words = {"kind": "word", "tokenizer": {}}
    data = config(tmp_path, corpora={"a": {"path": text}, "b": {"path": text, "tag": "b"}}, **words)
    links = ["0-0 1-1 2-2 3-3", "0-0 1-1 2-2 3-3 4-4", "0-0 1-1 2-2 3-3"]
    (tmp_path / "text.gold").write_text("".join(f"{line}\n" for line in links * 20))
    tokenizer = train_or_load_tokenizer(data)
    corpus = attach_alignments(data, load_corpus(data, "train", tokenizer), tokenizer)
    assert corpus.links is not None
    for row in (0, 1, 60, 61, 119):
        start, end = corpus.links.offsets[row : row + 2]
        assert corpus.links.pairs[start:end].tolist() == [[i, i] for i in range(end - start)]
        assert end - start == len(links[row % 60 % 3].split())
    (batch,) = (b for b in BatchLoader(corpus, tokenizer, 4000, 1, prefetch=0).epoch(0))
    assert batch.links is not None
    shift = (batch.indices >= 60)[batch.links.indices[0].numpy()]
    assert (batch.links.indices[2] - batch.links.indices[1]).tolist() == shift.astype(int).tolist()
    with pytest.raises(ValueError, match="word alignments are of one direction"):
        attach_alignments(config(tmp_path, languages=["en", "de"]), corpus, tokenizer)
