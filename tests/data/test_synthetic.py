"""Generated sentences and corpora of the synthetic language pair have their documented properties."""

import re
import time
from pathlib import Path

import pytest

from nmt.data.synthetic import SyntheticPair, generate, write_corpora
from nmt.data.synthetic.phrase_sampler import SYLLABLES


@pytest.fixture(scope="module")
def sample() -> list[SyntheticPair]:
    return list(generate(50_000, seed=11))


def test_one_translation_per_source(sample: list[SyntheticPair]) -> None:
    targets: dict[str, SyntheticPair] = {}
    for sentence in sample:
        assert targets.setdefault(sentence.source, sentence) == sentence


def test_lengths_links_and_shape(sample: list[SyntheticPair]) -> None:
    uncontracted = re.compile(r"\b(zu dem|in dem|an dem|bei dem|von dem|zu der|in das)\b")
    for sentence in sample[:15_000]:
        source, target = sentence.source.split(" "), sentence.target.split(" ")
        assert 3 <= len(source) <= 30
        assert 3 <= len(target) <= 30
        links = sentence.sure + sentence.possible
        assert len(set(links)) == len(links)
        assert {j for _, j in links} == set(range(len(target)))
        assert all(0 <= i < len(source) for i, _ in links)
        assert sentence.source[0].isupper() or sentence.source[0].isdigit()
        assert re.fullmatch(r"[\w'äöüÄÖÜß]+(,? [\w'äöüÄÖÜß]+)*[.?]", sentence.source)
        assert re.fullmatch(r"[\wäöüÄÖÜß]+(,? [\wäöüÄÖÜß]+)*[.?]", sentence.target)
        assert not re.search(r"\b(a [aeiou]|an [^aeiou])", sentence.source)
        assert not uncontracted.search(sentence.target)
    assert 10 <= sum(sentence.source.count(" ") + 1 for sentence in sample) / len(sample) <= 12.5


def test_copied_words(sample: list[SyntheticPair]) -> None:
    """Names and numbers are copied unchanged, in the intended share of sentences."""
    name = re.compile(f"((?:{'|'.join(SYLLABLES)}){{3}})('?s)?", re.IGNORECASE)
    num_names = num_numbers = 0
    for sentence in sample:
        numbers = [re.findall(r"\d+", side) for side in sentence[:2]]
        assert sorted(numbers[0]) == sorted(numbers[1])
        num_numbers += bool(numbers[0])
        names = []
        for side in sentence[:2]:
            matches = (name.fullmatch(word.strip(",.?")) for word in side.split(" "))
            names.append(sorted(match[1] for match in matches if match))
        assert names[0] == names[1]
        num_names += bool(names[0])
    assert 0.1 <= num_names / len(sample) <= 0.2
    assert 0.07 <= num_numbers / len(sample) <= 0.13


def test_vocabulary_is_large(sample: list[SyntheticPair]) -> None:
    name = re.compile(f"(?:{'|'.join(SYLLABLES)}){{3}}(?:'?s)?", re.IGNORECASE)
    for side in (0, 1):
        words = {word.strip(",.?").lower() for sentence in sample for word in sentence[side].split(" ")}
        forms = {word for word in words if not name.fullmatch(word) and not word.isdigit()}
        assert len(forms) >= 500


def test_generate_is_deterministic() -> None:
    first = list(generate(300, seed=5))
    assert first == list(generate(300, seed=5))
    assert first[:100] == list(generate(100, seed=5))
    assert first != list(generate(300, seed=6))


@pytest.mark.parametrize(("low", "high"), [(3, 3), (3, 5), (12, 14), (20, 25), (31, 70)])
def test_generate_keeps_to_the_requested_lengths(low: int, high: int) -> None:
    for sentence in generate(30, seed=2, min_words=low, max_words=high):
        assert low <= len(sentence.source.split(" ")) <= high
        assert low <= len(sentence.target.split(" ")) <= high


@pytest.mark.parametrize(("low", "high"), [(1, 2), (9, 8)])
def test_generate_refuses_impossible_lengths(low: int, high: int) -> None:
    with pytest.raises(ValueError, match=f"min_words={low}, max_words={high}"):
        generate(1, seed=1, min_words=low, max_words=high)


def test_verbs_go_to_the_end_over_a_long_distance(sample: list[SyntheticPair]) -> None:
    far = sum(max(abs(i - j) for i, j in sentence.sure) >= 4 for sentence in sample)
    assert far / len(sample) > 0.25


def read(directory: Path, name: str, suffix: str) -> list[str]:
    return (directory / f"{name}.{suffix}").read_text(encoding="utf-8").split("\n")[:-1]


def test_write(tmp_path: Path) -> None:
    counts = {"train": 3000, "valid": 150, "test": 200, "test_long": 60}
    write_corpora(tmp_path / "new", seed=4, num_train=3000, num_valid=150, num_test=200, num_long=60)
    directory = tmp_path / "new"
    assert sorted(path.name for path in directory.iterdir()) == sorted(
        f"{name}.{suffix}" for name in counts for suffix in ("en", "de", "gold")
    )
    seen: set[str] = set()
    for name, num in counts.items():
        sources, targets, golds = (read(directory, name, suffix) for suffix in ("en", "de", "gold"))
        assert len(sources) == len(targets) == len(golds) == num
        assert len(set(sources)) == num
        assert not seen & set(sources)
        seen |= set(sources)
        for source, target, gold in zip(sources, targets, golds, strict=True):
            links = [re.fullmatch(r"(\d+)([-p])(\d+)", link) for link in gold.split(" ")]
            positions = [(int(link[1]), int(link[3])) for link in links if link]
            assert len(positions) == len(links)
            assert positions == sorted(positions)
            lengths = len(source.split(" ")), len(target.split(" "))
            assert all(i < lengths[0] for i, _ in positions)
            assert {j for _, j in positions} == set(range(lengths[1]))
            low, high = (31, 70) if name == "test_long" else (3, 30)
            assert low <= min(lengths)
            assert max(lengths) <= high
    for name in ("valid", "test"):
        for gold in read(directory, name, "gold")[:8]:
            assert max(abs(int(i) - int(j)) for i, j in re.findall(r"(\d+)-(\d+)", gold)) >= 5


def test_write_is_deterministic_and_test_sets_do_not_depend_on_the_training_set(tmp_path: Path) -> None:
    for name, num_train in (("a", 100), ("b", 100), ("c", 900)):
        write_corpora(tmp_path / name, seed=4, num_train=num_train, num_valid=20, num_test=20, num_long=5)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        if not path.name.startswith("train"):
            assert path.read_bytes() == (tmp_path / "c" / path.name).read_bytes()


def test_write_refuses_a_negative_count(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_long=-1"):
        write_corpora(tmp_path, seed=1, num_train=1, num_valid=1, num_test=1, num_long=-1)


def test_write_leaves_nothing_behind_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*links: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr("nmt.data.synthetic.gold_line", fail)
    with pytest.raises(OSError, match="disk full"):
        write_corpora(tmp_path, seed=1, num_train=1, num_valid=1, num_test=1, num_long=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_speed() -> None:
    start = time.perf_counter()
    for _ in generate(20_000, seed=1):
        pass
    assert time.perf_counter() - start < 10
