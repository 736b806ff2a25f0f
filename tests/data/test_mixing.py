"""Mixtures of corpora: shares, stages, order, memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmt.data import (
    BatchLoader,
    DataConfig,
    Tokenizer,
    TokenizerConfig,
    batch_sampler,
    load_corpus,
    mixing,
    train_or_load_tokenizer,
)
from nmt.data.corpus import EncodedCorpus
from nmt.data.mixing import make_mixture, of_rows, target_tokens

WORDS = ["der", "die", "das", "Haus", "Baum", "Auto", "grün", "rot", "alt", "läuft", "steht", "geht", "und", "heute"]


def write(folder: Path, name: str, num: int, longest: int, seed: int) -> str:
    rng = np.random.default_rng(seed)
    for side, language in enumerate(("en", "de")):
        rows = (" ".join(rng.choice(WORDS, rng.integers(1, longest))) + f" {name}{i % 7} {side}" for i in range(num))
        (folder / f"{name}.{language}").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return str(folder / name)


def prepare(folder: Path, **options: Any) -> tuple[DataConfig, EncodedCorpus, Tokenizer]:
    entries = {
        "clean": {"path": write(folder, "clean", 900, 9, 1)},
        "web": {"path": write(folder, "web", 3000, 30, 2)},
        "bt": {"path": write(folder, "bt", 500, 15, 3)},
    }
    for name, values in options.pop("entries", {}).items():
        entries[name] |= values
    tokenizer = TokenizerConfig(type="word", vocab_size=200)
    config = DataConfig(format="text", corpora=entries, cache_dir=str(folder / "cache"), tokenizer=tokenizer, **options)
    config.validate()
    trained = train_or_load_tokenizer(config)
    return config, load_corpus(config, "train", trained), trained


def loader(config: DataConfig, corpus: EncodedCorpus, tokenizer: Tokenizer, tokens: int = 400) -> BatchLoader:
    mixture = make_mixture(config, corpus, tokens, 7, 1)
    return BatchLoader(corpus, tokenizer, tokens, 7, prefetch=0, mixture=mixture)


def used_rows(batches: BatchLoader, epoch: int, **options: Any) -> list[list[int]]:
    return [batch.indices.tolist() for batch in batches.epoch(epoch, **options)]


def test_without_weights_the_batches_are_those_of_the_joined_text(tmp_path: Path) -> None:
    config, corpus, tokenizer = prepare(tmp_path)
    paths = [entry["path"] for entry in config.corpora.values()]
    joined = DataConfig(format="text", train=paths, cache_dir=config.cache_dir, tokenizer=config.tokenizer)
    one = BatchLoader(load_corpus(joined, "train", train_or_load_tokenizer(joined)), tokenizer, 400, 7, prefetch=0)
    several = loader(config, corpus, tokenizer)
    for a, b in zip(one.epoch(2), several.epoch(2), strict=True):
        assert all(bool((x == y).all()) for x, y in zip(a[:5], b[:5], strict=True))
        assert a.corpora is None
        assert b.corpora is not None
        assert b.rows_by_corpus is not None
        expected = of_rows(corpus, b.indices)
        assert b.corpora.tolist() == expected.tolist()
        assert b.rows_by_corpus.tolist() == np.bincount(expected, minlength=3).tolist()


@pytest.mark.parametrize("weights", [(3, 1, 1), (1, 0, 1), (0.05, 0.9, 0.05)])
def test_shares_of_tokens_are_the_weights(weights: tuple[float, ...], tmp_path: Path) -> None:
    entries = {name: {"weight": w} for name, w in zip(("clean", "web", "bt"), weights, strict=True)}
    config, corpus, tokenizer = prepare(tmp_path, entries=entries)
    batches, tokens, epoch = loader(config, corpus, tokenizer), np.zeros(3), 0
    num = 0
    while num < 200:
        for batch in batches.epoch(epoch):
            lengths = (batch.labels != 0).sum(1).numpy()
            tokens += np.bincount(of_rows(corpus, batch.indices), lengths, 3)
            num += 1
            if num == 200:
                break
        epoch += 1
    np.testing.assert_allclose(tokens / tokens.sum(), np.array(weights) / sum(weights), atol=0.01)


def test_temperature(tmp_path: Path) -> None:
    config, corpus, _ = prepare(tmp_path, temperature=5.0)
    mixture = make_mixture(config, corpus, 400, 7, 1)
    assert mixture is not None
    expected = np.array([float(n) ** 0.2 for n in target_tokens(corpus)])
    np.testing.assert_allclose(mixture.stages[0].shares, expected / expected.sum())
    lengths = np.diff(corpus.target.offsets) + 1
    assert target_tokens(corpus).tolist() == [lengths[:900].sum(), lengths[900:3900].sum(), lengths[3900:].sum()]


def test_each_pass_has_every_row_once(tmp_path: Path) -> None:
    stages = [{"mix": {"clean": 1, "web": 1}, "until": "2.5 epochs of clean"}, {"mix": {"bt": 1, "web": 0.01}}]
    config, corpus, tokenizer = prepare(tmp_path, stages=stages)
    batches = loader(config, corpus, tokenizer)
    first = np.bincount(
        [row for epoch in range(3) for rows in used_rows(batches, epoch) for row in rows], minlength=4400
    )
    assert set(first[:900]) == {2, 3}
    assert first[:900].sum() == 2250
    assert first[3900:].sum() == 0
    web = first[900:3900]
    assert web.max() - web.min() <= 1
    later = [np.bincount(np.concatenate(used_rows(batches, epoch)), minlength=4400) for epoch in (3, 4)]
    assert all(counts[:900].sum() == 0 for counts in later)
    bt = later[0][3900:] + later[1][3900:]
    assert bt.max() - bt.min() <= 1
    # the order differs from pass to pass
    assert used_rows(batches, 0) != used_rows(batches, 1)


def test_every_pass_of_an_epoch_samples_new_segmentations(tmp_path: Path) -> None:
    config, _, _ = prepare(tmp_path, entries={"clean": {"weight": 0.01}, "web": {"weight": 1}, "bt": {"weight": 9}})
    config.tokenizer = TokenizerConfig(type="bpe", vocab_size=320, subword_regularization=0.5)
    tokenizer = train_or_load_tokenizer(config)
    batches = loader(config, corpus := load_corpus(config, "train", tokenizer), tokenizer)
    found = dict[int, list[str]]()
    for batch in batches.epoch(0):
        for row, ids in zip(batch.indices.tolist(), batch.source.tolist(), strict=True):
            found.setdefault(row, []).append(" ".join(map(str, filter(None, ids))))
    read_often = {row: texts for row, texts in found.items() if len(texts) > 4}
    assert set(of_rows(corpus, np.array([*read_often])).tolist()) == {2}
    assert np.mean([len({*texts}) / len(texts) for texts in read_often.values()]) > 0.8
    again = [batch.source.tolist() for batch in batches.epoch(0, 7)]
    assert again == [batch.source.tolist() for batch in batches.epoch(0)][7:]


def test_an_epoch_begins_anywhere_and_is_shared(tmp_path: Path) -> None:
    config, corpus, tokenizer = prepare(tmp_path, entries={"web": {"weight": 5}})
    batches = loader(config, corpus, tokenizer, 150)
    for epoch in (0, 3):
        whole = used_rows(batches, epoch)
        assert len(whole) == batches.num_batches() or epoch
        for start in (1, 65, len(whole) - 1):
            assert used_rows(batches, epoch, start=start) == whole[start:]
        halves = [used_rows(batches, epoch, share=(rank, 2)) for rank in (0, 1)]
        for rows, *parts in zip(whole, *halves, strict=True):
            assert [rows[0::2], rows[1::2]] == parts


def test_a_stage_of_updates_has_as_many_batches(tmp_path: Path) -> None:
    stages = [{"mix": {"clean": 1, "web": 3}, "until": "70 updates"}, {"mix": {"bt": 1}}]
    config, corpus, tokenizer = prepare(tmp_path, stages=stages)
    mixture = make_mixture(config, corpus, 400, 7, 2)
    batches = BatchLoader(corpus, tokenizer, 400, 7, prefetch=0, mixture=mixture)
    assert len(used_rows(batches, 0)) == 140
    assert all(row >= 3900 for rows in used_rows(batches, 1) for row in rows)


def test_large_corpora_are_shuffled_in_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "SEGMENT_ROWS", 8)
    monkeypatch.setattr(batch_sampler, "SEGMENT_ROWS", 8)
    monkeypatch.setattr(mixing, "WINDOW_SEGMENTS", 5)
    config, corpus, _ = prepare(tmp_path, entries={"web": {"weight": 1}, "clean": {"weight": 1}, "bt": {"weight": 0}})
    mixture = make_mixture(config, corpus, 400, 7, 1)
    assert mixture is not None
    for corpus_number, size, first in ((0, 900, 0), (1, 3000, 900)):
        one_pass = mixture._rows(corpus_number, 0, size)
        assert sorted(one_pass.tolist()) == list(range(first, first + size))
        another = mixture._rows(corpus_number, size, 2 * size)
        assert sorted(another.tolist()) == sorted(one_pass.tolist())
        assert (another != one_pass).any()
        pieces = [mixture._rows(corpus_number, start, start + 37) for start in range(0, size, 37)]
        assert np.concatenate(pieces)[:size].tolist() == one_pass.tolist()
    assert abs(np.corrcoef(one_pass, np.arange(len(one_pass)))[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entries": {"web": {"weight": -1.0}}}, "data.corpora.web.weight=-1.0: must be at least 0"),
        ({"entries": {n: {"weight": 0} for n in ("web", "clean", "bt")}}, "all weights are 0"),
        (
            {"entries": {"web": {"wieght": 1}}},
            "corpora.web.wieght: no such option of a corpus; did you mean weight",
        ),
        ({"entries": {"web": {"weight": "x"}}}, "data.corpora.web.weight=x: a number is needed"),
        (
            {"entries": {"web": {"weight": float("inf")}}},
            "data.corpora.web.weight=inf: must be at least 0",
        ),
        ({"entries": {"web": {"weight": float("nan")}}}, "data.corpora.web.weight=nan: must be"),
        ({"entries": {"web": {"columns": [1, 1]}}}, r"data.corpora.web.columns=\[1, 1\]: must be two different"),
        ({"entries": {"web": {"max_length_ratio": -1.0}}}, "data.corpora.web.max_length_ratio=-1.0: must be 0"),
        ({"entries": {"web": {"source_lang": "de"}}}, "data.corpora.web.target_lang=de: must differ"),
        ({"entries": {"web": {"format": "hub"}}}, "data.corpora.web.hf_dataset: not given"),
        ({"entries": {"web": {"path": 5}}}, "data.corpora.web.path=5: must be a name or a list of names"),
        (
            {"languages": ["en", "de"], "zero_shot": ["en-de", "de-en"]},
            "data.zero_shot=.*: leaves no direction",
        ),
        ({"zero_shot": ["en-de"]}, "must be a direction of data.languages, which has none"),
        ({"entries": {"web": {"weight": 1}}, "temperature": 5.0}, "data.temperature=5: the corpora have weights"),
        ({"stages": [{"mix": {"wab": 1}}]}, "stage 1: no corpus of data.corpora is named wab; did you mean web"),
        ({"stages": [{"mix": {"web": 1}}, {"mix": {"bt": 1}}]}, "stage 1: never ends; add until"),
        ({"stages": [{"mix": {"web": 1}, "until": "2 epochs of web"}]}, "stage 1: is the last"),
        ({"stages": [{"mix": {"web": 1}, "until": "2 epochs of bt"}, {"mix": {"bt": 1}}]}, "of a corpus of this stage"),
        ({"stages": [{"mix": {"web": 1}, "until": "soon"}, {"mix": {"bt": 1}}]}, "until=soon: must be"),
        ({"stages": [{"mix": {"web": 0}}]}, "weights must be numbers, none below 0 and one above"),
        ({"train": "x"}, "data.train=x: has no effect beside data.corpora"),
        ({"entries": {"web": {"path": []}}}, "data.corpora.web: needs a path"),
        ({"tags": "none", "entries": {"web": {"target_lang": "fr"}}}, "only a tag tells the model"),
        ({"tags": "x"}, "data.tags=x"),
        ({"entries": {"web": {"tag": "2de"}}}, "data.corpora.web.tag=2de: is that of a language"),
        ({"languages": ["en"]}, "two or more different languages"),
        ({"languages": ["en", "de", "fr"], "zero_shot": ["en-xx"]}, "data.zero_shot: en-xx"),
    ],
)
def test_errors_name_the_option(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(tmp_path, **options)


def test_max_pairs_and_own_options(tmp_path: Path) -> None:
    entries = {"web": {"max_pairs": 100}, "clean": {"max_length": 5}}
    _, corpus, _ = prepare(tmp_path, entries=entries)
    assert corpus.bounds["bt"] - corpus.bounds["web"] == 100
    assert np.diff(corpus.target.offsets)[: corpus.bounds["web"]].max() == 5
    assert corpus.num_read == 900 + 100 + 500
