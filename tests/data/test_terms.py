"""Terms: training sources annotated with the target words they are aligned to, and sources for translation."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmt.alignment.ibm_model1 import ibm1_alignments
from nmt.cli.configs import Config
from nmt.data import (
    EOS,
    PAD,
    Batch,
    BatchLoader,
    DataConfig,
    EncodedCorpus,
    Tokenizer,
    TokenizerConfig,
    attach_alignments,
    load_corpus,
    train_or_load_tokenizer,
    word_alignments,
)
from nmt.data.terms import MAX_TERMS, MAX_WORDS, AugmentConfig, TermAnnotator, annotate
from nmt.train import _prepare

KINDS = ["unigram", "bpe", "word", "char"]
WORDS = {f"{a}{b}": f"{b}{a}ung" for a in ("haus", "baum", "kind", "schule", "tür") for b in "abcdefghij"}
NUM = 60


def pairs(num: int = NUM) -> list[tuple[str, str]]:
    """Sentences of words in one order, with signs around them and a frequent word between them."""
    rng, lines = random.Random(1), []
    for _ in range(num):
        words = rng.sample(sorted(WORDS), rng.randint(2, 7))
        lines.append((" of ".join(words) + " .", " von ".join(f'"{WORDS[word].title()}",' for word in words) + " !"))
    return lines


def config(
    folder: Path, kind: str = "unigram", *, sampling: float = 0.0, rate: float = 0.5, **options: Any
) -> DataConfig:
    lines = pairs()
    for side, language in enumerate(("en", "de")):
        (folder / f"text.{language}").write_text("".join(f"{pair[side]}\n" for pair in lines), encoding="utf-8")
    links = (" ".join(f"{i}-{i}" for i in range(len(pair[0].split()))) for pair in lines)
    (folder / "text.gold").write_text("".join(f"{line}\n" for line in links))
    text, tokenizer = str(folder / "text"), TokenizerConfig(type=kind, vocab_size=400, subword_regularization=sampling)
    data = DataConfig(format="text", train=text, valid=text, test=text, tokenizer=tokenizer, **options)
    data.cache_dir, data.augment = str(folder / "cache"), AugmentConfig(rate)
    data.validate()
    return data


def loaded(
    data: DataConfig, *, files: bool = True, rate: float | None = None
) -> tuple[EncodedCorpus, Tokenizer, BatchLoader]:
    tokenizer = train_or_load_tokenizer(data)
    corpus = attach_alignments(data, load_corpus(data, "train", tokenizer), tokenizer, files=files)
    terms = TermAnnotator(corpus, tokenizer, data.augment.terms if rate is None else rate)
    return corpus, tokenizer, BatchLoader(corpus, tokenizer, 300, 1, prefetch=0, terms=terms)


def without(ids: list[int], tokenizer: Tokenizer) -> tuple[list[int], list[tuple[list[int], list[int]]]]:
    """Return a source without its terms, and the pieces of each of these, read one by one."""
    assert tokenizer.term_ids is not None
    mark, between, end = tokenizer.term_ids
    plain, terms, source, target = list[int](), list[Any](), list[int](), list[int]()
    place = "outside"
    for index in ids:
        if index == mark:
            assert place == "outside"
            place, source, target = "source", [], []
        elif index == between:
            assert place == "source"
            place = "target"
        elif index == end:
            assert place == "target"
            terms.append((source, target))
            place = "outside"
        else:
            plain += [index] * (place != "target")
            if place != "outside":
                (source if place == "source" else target).append(index)
    assert place == "outside"
    return plain, terms


def rows(batch: Batch) -> dict[int, tuple[list[int], list[int]]]:
    """Return the ids of both sides of each row, without EOS and PAD."""
    sides = [
        [[i for i in row if i not in (EOS, PAD)] for row in side.tolist()] for side in (batch.source, batch.labels)
    ]
    return dict(zip(batch.indices.tolist(), zip(*sides, strict=True), strict=True))


@pytest.mark.parametrize("sampling", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_sources_are_annotated_with_the_words_they_are_linked_to(kind: str, sampling: float, tmp_path: Path) -> None:
    if sampling and kind not in ("unigram", "bpe"):
        pytest.skip("one segmentation only")
    corpus, tokenizer, batches = loaded(config(tmp_path, kind, sampling=sampling))
    seen, num_terms, texts = dict[int, Any](), 0, pairs()
    for batch in batches.epoch(0):
        seen |= rows(batch)
    assert sorted(seen) == list(range(NUM))
    for row, (source, target) in seen.items():
        plain, terms = without(source, tokenizer)
        assert tokenizer.decode_source(plain) == tokenizer.decode_source(source) == texts[row][0]
        assert tokenizer.decode_target(target) == texts[row][1]
        assert len(terms) <= MAX_TERMS
        assert len(source) <= max(corpus.max_length, len(plain))
        for pieces in terms:
            words = [tokenizer.decode_source(side).strip().split() for side in pieces]
            assert max(map(len, words)) <= MAX_WORDS
            # from the first letter to the last, whatever stands between the words
            first = texts[row][0].split().index(words[0][0])
            expected = " ".join(texts[row][1].split()[first : first + len(words[0])])
            assert words[0][0] == "of" or " ".join(words[1]).strip('",') == expected.strip('",')
            assert kind == "word" or (words[1][0][0].isalnum() and words[1][-1][-1].isalnum())
            assert any(pieces[1] == target[i : i + len(pieces[1])] for i in range(len(target)))
        num_terms += len(terms)
    share = np.mean([bool(without(source, tokenizer)[1]) for source, _ in seen.values()])
    assert (0.05 if sampling else 0.25) < share < 0.75  # those that dropout makes longest stay as they are
    assert num_terms > share * NUM or sampling  # some have several


def test_terms_are_a_function_of_seed_epoch_and_row(tmp_path: Path) -> None:
    data = config(tmp_path)
    batches = [batch.source.tolist() for batch in loaded(data)[2].epoch(1)]
    assert [batch.source.tolist() for batch in loaded(data)[2].epoch(1, 2)] == batches[2:]
    shares = [[batch.source.tolist() for batch in loaded(data)[2].epoch(1, share=(rank, 2))] for rank in (0, 1)]
    assert [batch[rank::2] for batch in batches for rank in (0, 1)] == [
        part for parts in zip(*shares, strict=True) for part in parts
    ]
    _, tokenizer, loader = loaded(data)
    by_row = [{row: ids[0] for batch in loader.epoch(epoch) for row, ids in rows(batch).items()} for epoch in (0, 1)]
    differ = sum(by_row[0][row] != by_row[1][row] for row in range(NUM))
    assert NUM / 3 < differ < NUM
    other = replace(loader, seed=2)
    assert by_row[0] != {row: ids[0] for batch in other.epoch(0) for row, ids in rows(batch).items()}
    assert all(
        not without(ids[0], tokenizer)[1]
        for batch in loaded(data, rate=0.0)[2].epoch(0)
        for ids in rows(batch).values()
    )


def spread(ids: list[int], tokenizer: Tokenizer, values: list[Any]) -> list[Any]:
    """Return for each id of an annotated source the value of the piece of the text that it belongs to, read one by one:
    of the one before it, for <term> the one behind it."""
    assert tokenizer.term_ids is not None
    mark, between, end = tokenizer.term_ids
    result, inside, place = list[Any](), False, -1
    for index in ids:
        inside = inside or index == between
        place += index != mark and not inside
        result.append(values[place + (index == mark)])
        inside = inside and index != end
    assert place == len(values) - 1
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_guided_attention_points_at_words_and_what_annotates_them(kind: str, tmp_path: Path) -> None:
    corpus, tokenizer, loader = loaded(config(tmp_path, kind), rate=1.0)
    links = corpus.links
    assert links is not None
    for batch in loader.epoch(0):
        assert batch.links is not None
        found = {(r, t): dict[int, float]() for r, t, _ in batch.links.indices.T.tolist()}
        for (r, t, place), weight in zip(batch.links.indices.T.tolist(), batch.links.weights.tolist(), strict=True):
            found[r, t][place] = weight
        for r, (row, (source, target)) in enumerate(rows(batch).items()):
            plain = without(source, tokenizer)[0]
            words = spread(source, tokenizer, tokenizer.source_word_ids(plain))
            pairs = links.pairs[links.offsets[row] : links.offsets[row + 1]].tolist()
            for t, word in enumerate(tokenizer.target_word_ids(target)):
                places = [place for place, own in enumerate(words) if [own, word] in pairs]
                assert found.pop((r, t), {}) == pytest.approx({place: 1 / len(places) for place in places})
        assert not found


@pytest.mark.parametrize("kind", KINDS)
def test_inserted_pieces_belong_to_the_words_they_annotate(kind: str, tmp_path: Path) -> None:
    tokenizer = train_or_load_tokenizer(config(tmp_path, kind))
    text = "hausa of (Hausb) of kindc ."
    terms = [(0, 5, "Aha"), (10, 15, "x y"), (17, 25, "K")]
    assert [text[start:end] for start, end, _ in terms] == ["hausa", "Hausb", "of kindc"]
    ids, plain = annotate(tokenizer, text, terms), tokenizer.encode_source([text])[0]
    own, found = without(ids, tokenizer)
    assert own == plain
    assert [tokenizer.decode_source(target) for _, target in found] == [
        tokenizer.decode_source(tokenizer.encode_source([target])[0]) for _, _, target in terms
    ]
    sources = [tokenizer.decode_source(source).strip(" ()") for source, _ in found]
    assert sources[0] == "hausa"
    assert sources[2] == "of kindc"
    assert kind == "word" or sources[1].endswith("ausb")  # a vocabulary may lack a capital
    assert tokenizer.decode_source(ids) == tokenizer.decode_source(plain)
    for values in (
        lambda ids: tokenizer.source_words(text, ids),
        lambda ids: tokenizer.words_to_copy(text, ids),
        lambda ids: tokenizer.offsets(text, ids, "", [])[0],
    ):
        assert values(ids) == spread(ids, tokenizer, values(plain))
    assert annotate(tokenizer, text, []) == plain


def test_text_is_never_read_as_a_mark(tmp_path: Path) -> None:
    tokenizer = train_or_load_tokenizer(config(tmp_path))
    text = "a <term> b <is> c </term> d"
    assert not set(tokenizer.encode_source([text])[0]) & set(tokenizer.term_ids or ())
    assert tokenizer.decode_target(tokenizer.encode_target([text])[0]) == text
    stored = Tokenizer.from_state_dict(tokenizer.state_dict())
    assert (stored.term_ids, stored.digest) == (tokenizer.term_ids, tokenizer.digest)
    with pytest.raises(ValueError, match=r"glossary_mode=soft: .*data\.augment\.terms"):
        annotate(tokenizer.with_tags(()), "a", [])


def test_tags_stay_before_annotated_sources(tmp_path: Path) -> None:
    data = config(tmp_path, languages=["en", "de"])
    corpus, tokenizer, loader = loaded(data, files=False, rate=1.0)
    assert tokenizer.tags == ("<2de>", "<2en>", "<term>", "<is>", "</term>")
    first = tokenizer.source_size - 5
    assert {int(row[0]) for batch in loader.epoch(0) for row in batch.source} == {first, first + 1}
    assert any((batch.source == first + 2).any() for batch in loader.epoch(0))
    tagged = tokenizer.tagged(source=["<2en>"])
    ids = annotate(tagged, "hausa", [(0, 5, "Aha")])
    assert ids == [
        first + 1,
        first + 2,
        *tokenizer.encode_source(["hausa"])[0],
        first + 3,
        *tokenizer.encode_source(["Aha"])[0],
        first + 4,
    ]
    assert len(corpus) == 2 * NUM


def test_content_words_are_aligned_by_ibm_model_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_alignments, "LEXICAL_PAIRS", 25)
    data = config(tmp_path, max_pairs=40)
    corpus, *_ = loaded(data, files=False)
    assert corpus.links is not None
    assert len(corpus) == 40
    texts = [[side.split() for side in pair] for pair in pairs(40)]
    for start, end in ((0, 25), (25, 40)):
        cores = [[[word.strip('",.!').lower() for word in side] for side in pair] for pair in texts[start:end]]
        content = [[[w for w in side if w not in ("of", "von", "")] for side in pair] for pair in cores]
        aligned = ibm1_alignments([(pair[0], pair[1]) for pair in content])
        for row, (pair, gold) in enumerate(zip(cores, aligned, strict=True), start):
            links = corpus.links.pairs[corpus.links.offsets[row] : corpus.links.offsets[row + 1]].tolist()
            places = [[i for i, word in enumerate(side) if word not in ("of", "von", "")] for side in pair]
            sure = {(places[0][i], places[1][j]) for i, j in gold.sure}
            assert sure <= {(i, j) for i, j in links} <= {(places[0][i], places[1][j]) for i, j in gold.possible}
    correct = corpus.links.pairs[:, 0] == corpus.links.pairs[:, 1]
    assert correct.mean() > 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": AugmentConfig(1.5)}, r"data\.augment\.terms=1\.5: must be at least 0 and at most 1"),
        (
            {"tokenizer": TokenizerConfig(joint=False)},
            r"terms=0\.5: the source holds target words; set data\.tokenizer\.joint=true",
        ),
        (
            {"format": "hub", "hf_dataset": "x", "streaming": True},
            r"terms=0\.5: a stream has no word alignments; set data",
        ),
        ({"corpora": {"a": {"path": "x", "tag": "is"}}}, r"data\.corpora\.a\.tag=is: is that of a language or term"),
    ],
)
def test_what_is_not_allowed_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(DataConfig(format="text", augment=AugmentConfig(0.5)), **options).validate()


def test_alignments_are_read_where_they_are_given(tmp_path: Path) -> None:
    options = Config(data=config(tmp_path))
    options.validate()
    assert not options.reads_alignments
    options.data.train_alignments = str(tmp_path / "text.gold")
    assert options.reads_alignments
    assert not options.unused_options()
    gold = _prepare(options).corpora["train"].links
    options.data.train_alignments = None
    lexical = _prepare(options).corpora["train"].links
    assert gold is not None
    assert lexical is not None
    assert len(gold.pairs) > len(lexical.pairs)
    options.data.train_alignments, options.data.max_pairs = str(tmp_path / "text.gold"), 5
    with pytest.raises(ValueError, match=r"data\.max_pairs=5: the file of alignments is read whole"):
        options.validate()
