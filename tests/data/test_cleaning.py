"""Filters of pairs: values worked by hand, arrays against plain Python, words that only a lexicon can tell apart."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.data.cleaning.filters import FILTERS, SCRIPTS, FilterOptions, Learned, PairBlock
from nmt.data.cleaning.hashing import HashSet, SortedKeys
from nmt.data.cleaning.lexicon import Lexicon
from nmt.data.cleaning.text_block import SYMBOLS, TextBlock, characters
from nmt.data.language_id import Identifier, trigram_identifier

STEMS = [first + second for first in "bdfgklmnprst" for second in "aeiou"]
ENGLISH = [f"{stem}the" for stem in STEMS]
GERMAN = [f"{stem}ung" for stem in reversed(STEMS)]


def corpus(num: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return sentences of random words, and their translations word by word."""
    rng = random.Random(seed)
    rows = [rng.choices(range(len(ENGLISH)), k=rng.randint(6, 12)) for _ in range(num)]
    return tuple([" ".join(words[i] for i in row) + " ." for row in rows] for words in (ENGLISH, GERMAN))  # type: ignore[return-value]


def value(name: str, source: str, target: str, languages: tuple[str, str] = ("en", "de"), **learned: Any) -> float:
    measure = FILTERS[name].measure
    assert measure is not None
    block = PairBlock(
        ["x y z", source], ["", target], learned=Learned(languages, **learned)
    )  # another line must not matter
    return float(measure(block)[1])


@pytest.mark.parametrize(
    ("name", "source", "target", "expected"),
    [
        ("min_characters", "abcd", "äb", 2),
        ("max_characters", "abcd", "äb\U0001f600\U00020000ef", 6),
        ("min_words", " a  b\tc", "a-b", 1),
        ("max_words", "a b c", "", 3),
        ("identical", "It is 5 o'clock!", "it is – OCLOCK", 10),
        ("identical", "It is five", "Es ist fünf", 0),
        ("script", "abc дef 12", "abc", 5 / 6),
        ("length_ratio", "abc", "abcdef", 2),
        ("length_ratio", "", "abcd", 4),
        ("repetition", "buy now ! buy now ! buy now !", "a b c d", 4 / 7),
        ("repetition", "a b", "", 0),
        ("urls", "see https://a.org/b and http://c.de", "siehe https://a.org", 1),
        ("urls", "and/or", "und oder", 0),
        ("emails", "write to me@here.org.", "schreib mir", 1),
        ("emails", "a @ b", "a@b", 0),
        ("brackets", "f(x) [y]", "f（x） y", 2),
        ("numbers", "on 12/31/1999 and 1,000", "am 31.12.1999 und 1000", 0),
        ("numbers", "12", "10", 1 / 7),
        ("numbers", "٣ pages", "3 Seiten", 0),
        ("numbers", "1999", "none", 4 / 8),
    ],
)
def test_values(name: str, source: str, target: str, expected: float) -> None:
    assert value(name, source, target) == pytest.approx(expected)


def test_scripts_are_those_of_unicode() -> None:
    assert {name for names in SCRIPTS.values() for name in names} <= characters().scripts.keys()
    assert value("script", "привет", "Γειά", ("ru", "el")) == 1
    assert value("script", "日本のコーヒー", "ＡＢＣ", ("ja", "en_US")) == 1
    assert value("script", "हिन्दी", "ไทย", ("hi", "th")) == 1
    assert value("script", "hello", "привет", ("en", "de")) == 0
    assert np.isnan(value("script", "123", "!"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=12), min_size=1, max_size=8))
def test_blocks_agree_with_single_lines_and_with_python(lines: list[str]) -> None:
    block, alone = TextBlock(lines), [TextBlock([line]) for line in lines]
    for name in ("hashes", "normalized_hashes", "num_letters", "num_words", "num_tokens", "symbols"):
        assert np.array_equal(getattr(block, name), np.concatenate([getattr(one, name) for one in alone])), name
    assert np.array_equal(block.tokens, np.concatenate([one.tokens for one in alone]))
    assert (block.sizes - 1).tolist() == list(map(len, lines))
    assert len(set(block.hashes.tolist())) == len({*lines})


def test_tokens_and_normalized_lines() -> None:
    block = TextBlock(["Don't stop2go.", "日本のコーヒー", "walkings WALKING", "ab", "A-B 7", "7", "8"])
    assert block.num_tokens.tolist() == [7, 4, 2, 1, 4, 1, 1]
    assert len(set(block.tokens[11:13].tolist())) == 1  # of one stem
    assert block.normalized_hashes[3] == block.normalized_hashes[4]
    assert block.normalized_hashes[5] != block.normalized_hashes[6]  # without letters the line itself
    assert block.symbols[0].tolist() == [0, 1] + [0] * (len(SYMBOLS) - 2)
    swapped = PairBlock(["a", "b"], ["b", "a"]).pair_hashes
    assert swapped[0] != swapped[1]


def test_sorted_hashes_are_a_set_and_a_dictionary() -> None:
    rng = np.random.default_rng(1)
    table, known = HashSet(), set[int]()
    for size in (1, 700, 5000, 40_000):
        hashes = rng.integers(0, 30_000, size).astype(np.uint64)
        expected = [not (h in known or known.add(h)) for h in hashes.tolist()]  # type: ignore[func-returns-value]
        assert table.add(hashes).tolist() == expected
    assert sum(map(len, table.arrays)) == len(known)
    keys = np.unique(rng.integers(1, 2**63, 20_000).astype(np.uint64))
    which, places = SortedKeys(keys).find(np.r_[keys[:3], keys + np.uint64(1), keys[-1:]])
    assert which.tolist() == [0, 1, 2, len(keys) + 3]
    assert places.tolist() == [0, 1, 2, len(keys) - 1]
    assert not len(SortedKeys(keys[:0]).find(keys)[0])


def test_a_lexicon_finds_pairs_that_do_not_belong_together_and_ends_that_are_missing() -> None:
    sources, targets = corpus(1500)
    targets[:100] = targets[1:101]  # which it learns from, too
    sources[100:200] = [" ".join(text.split()[:3]) for text in sources[100:200]]
    lexicon = Lexicon((TextBlock(sources), TextBlock(targets)))
    scores = lexicon.score((TextBlock(sources), TextBlock(targets)))
    assert scores.association[:100].max() < scores.association[200:].min()
    assert scores.tails[1][100:200].min() > 0.6 > scores.tails[1][200:].max()
    assert scores.tails[0][100:].max() < 1
    fresh = corpus(5, seed=9)
    assert lexicon.score((TextBlock(fresh[0]), TextBlock(fresh[1]))).association.min() > 1
    swapped = lexicon.score((TextBlock(["zq zq", *fresh[0]]), TextBlock(["", *fresh[1]])))
    assert np.isnan(swapped.association[0])  # unknown words say nothing
    assert np.array_equal(
        swapped.association[1:], lexicon.score((TextBlock(fresh[0]), TextBlock(fresh[1]))).association
    )
    learned = {"lexicon": lexicon, "length_ratio": (-0.1, 0.1)}
    whole, cut = value("truncation", fresh[0][0], fresh[1][0], **learned), " ".join(fresh[1][0].split()[:3])
    assert value("truncation", fresh[0][0], cut, **learned) > 10 > 5 > whole
    assert value("truncation", fresh[0][0], fresh[1][0].removesuffix(" ."), **learned) > whole + 3
    assert value("lexical", fresh[0][0], fresh[1][0], lexicon=lexicon, association=0.5) == pytest.approx(
        lexicon.score((TextBlock(fresh[0][:1]), TextBlock(fresh[1][:1]))).association[0] - 0.5
    )


def test_a_lexicon_is_ibm_model_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pairs each twice; worked with dictionaries."""
    pairs = [("a b", "x y"), ("a b", "x y"), ("a c", "x z"), ("a c", "x z")]
    monkeypatch.setattr("nmt.data.cleaning.lexicon._USEFUL", 0.0)
    lexicon = Lexicon((TextBlock([s for s, _ in pairs]), TextBlock([t for _, t in pairs])))
    words = {(s, t): 1.0 for source, target in pairs for s in source.split() for t in target.split()}
    counts, totals = dict(words), dict[str, float]()
    for _ in range(5):
        counts = dict.fromkeys(words, 0.0)
        for source, target in pairs:
            for t in target.split():
                total = sum(words[s, t] for s in source.split())
                for s in source.split():
                    counts[s, t] += words[s, t] / total
        totals = {s: sum(value for (other, _), value in counts.items() if other == s) for s, _ in words}
        words = {(s, t): value / totals[s] for (s, t), value in counts.items()}
    frequency = {"x": 0.5, "y": 0.25, "z": 0.25}
    expected = {key: max(counts[key] - 1, 0) / (totals[key[0]] + 2) / frequency[key[1]] for key in words}
    ratios = sorted(value for value in lexicon.ratios[0] if value)
    assert ratios == pytest.approx(sorted(value for value in expected.values() if value > 0), rel=1e-5)


def test_languages_are_told_apart_in_spite_of_lines_in_the_other() -> None:
    sources, targets = corpus(600)
    noisy = sources[:60] + targets[60:]
    identifier = trigram_identifier({"en": sources, "de": noisy}, "")
    for text, language in [
        *zip(sources[-50:], ["en"] * 50, strict=True),
        *zip(targets[-50:], ["de"] * 50, strict=True),
    ]:
        found, margin = identifier.identify(text)
        assert (found, margin > 5) == (language, True)
    assert identifier.identify("123 !")[1] == 0
    values = identifier.log_likelihoods(TextBlock([sources[0], targets[0]]))
    assert values.shape == (2, 2)
    assert identifier.identify(sources[0])[1] == pytest.approx(values[0, 0] - values[0, 1])
    learned = {"identifier": identifier}
    assert value("language", sources[0], targets[0], **learned) > 0.5
    assert value("language", targets[0], sources[0], **learned) < -0.5
    assert value("language", targets[0], targets[0], **learned) < -0.5
    package = Identifier(
        "", ["en", "de"], lambda block: np.array([[3.0, 0.0]] * len(block.lines)), 3.0
    )  # all is English
    assert value("language", "of ten letters", "zehn Buchstaben", identifier=package) == pytest.approx(-0.8)
    assert value("language", "ten", "zehn Buch", identifier=package) == 0
    with pytest.raises(ValueError, match="two or more are needed"):
        trigram_identifier({"en": ["text"], "de": ["12"]}, "")


def test_every_filter_has_options_and_one_threshold() -> None:
    for name, options in vars(FilterOptions()).items():
        kind, bound = FILTERS[name], "max" if FILTERS[name].min is None else "min"
        assert getattr(options, bound) == getattr(kind, bound)
        options.validate()
        threshold = getattr(options, bound)
        excess = kind.excess(np.array([threshold - 1, threshold + 1, np.nan, threshold]), options)
        assert (excess > 0).tolist() == [bound == "min", bound == "max", False, False]
        for wrong in (kind.least - 1, float("nan"), np.nextafter(kind.most or float("inf"), float("inf"))):
            setattr(options, bound, wrong)
            with pytest.raises(ValueError, match=f"filters.{name}.{bound}="):
                options.validate()
