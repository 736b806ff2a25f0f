import random
from pathlib import Path

import numpy as np
import pytest

from nmt.alignment import (
    Gold,
    links,
    parse_gold,
    read_gold,
    read_pharaoh,
    score,
    words,
    write_gold,
    write_pharaoh,
)

SHARED = Path(__file__).parents[2] / "shared" / "data" / "word_alignment"
SETS = {
    "hansards_en_fr": ("en", "fr"),
    "wpt03_ro_en": ("ro", "en"),
    "europarl100_de_en": ("de", "en"),
    "kftt_ja_en": ("ja", "en"),
}


def gold(line):
    return parse_gold(line)


def test_sure_links_are_possible_too():
    parsed = parse_gold("0-0 2p1 10-3 2p1")
    assert parsed == Gold(frozenset({(0, 0), (10, 3)}), frozenset({(0, 0), (10, 3), (2, 1)}))
    assert parse_gold("1p1 1-1") == Gold(frozenset({(1, 1)}), frozenset({(1, 1)}))
    assert parse_gold("") == Gold(frozenset(), frozenset())


def test_score_of_a_worked_example():
    # A = {00, 11, 22, 31}, S = {00, 11}, P = S + {22}: |A∩S| = 2, |A∩P| = 3.
    result = score([[(0, 0), (1, 1), (2, 2), (3, 1)]], [gold("0-0 1-1 2p2")])
    assert result.precision == pytest.approx(3 / 4)
    assert result.recall == pytest.approx(2 / 2)
    assert result.f1 == pytest.approx(2 * 0.75 / 1.75)
    assert result.aer == pytest.approx(1 - (2 + 3) / (4 + 2))


def test_score_adds_up_the_corpus_rather_than_averaging_sentences():
    # Together A has 4 links, S 3; both sure hits are in the first sentence.
    result = score([[(0, 0), (1, 1), (2, 0)], [(0, 1)]], [gold("0-0 1-1"), gold("0-0")])
    assert result.precision == pytest.approx(2 / 4)
    assert result.recall == pytest.approx(2 / 3)
    assert result.aer == pytest.approx(1 - 4 / 7)


def test_with_sure_links_only_aer_is_one_minus_f1():
    generator = random.Random(1)
    everything = [(i, j) for i in range(6) for j in range(6)]
    sets = [[frozenset(generator.sample(everything, 8)) for _ in range(20)] for _ in range(2)]
    result = score(sets[0], [Gold(sure, sure) for sure in sets[1]])
    assert result.aer == pytest.approx(1 - result.f1)
    assert 0 < result.f1 < 1


@pytest.mark.parametrize(
    ("predicted", "line", "expected"),
    [
        ([], "0-0", (1.0, 0.0, 0.0, 0.0)),
        ([], "", (0.0, 1.0, 1.0, 1.0)),
        ([], "0p0", (0.0, 1.0, 1.0, 1.0)),
        ([(0, 0)], "", (1.0, 0.0, 1.0, 0.0)),
        ([(0, 0)], "0p0", (0.0, 1.0, 1.0, 1.0)),
        ([(0, 0), (0, 0)], "0-0", (0.0, 1.0, 1.0, 1.0)),
    ],
)
def test_score_where_a_quotient_has_nothing_below(predicted, line, expected):
    assert tuple(score([predicted], [gold(line)])) == pytest.approx(expected)


def test_score_refuses_lists_that_do_not_match():
    with pytest.raises(ValueError, match="1 predicted alignments but 2 gold ones"):
        score([[]], [gold(""), gold("")])
    with pytest.raises(ValueError, match="no sentences"):
        score([], [])


def test_words_by_hand():
    # Source pieces "▁un", "fair", "▁game", "</s>"; target pieces "▁un", "fair", "es", "▁Spiel", "</s>".
    matrix = [
        [0.5, 0.2, 0.2, 0.1],
        [0.3, 0.3, 0.1, 0.3],
        [0.1, 0.3, 0.3, 0.3],
        [0.0, 0.1, 0.2, 0.7],
        [0.0, 0.0, 0.0, 1.0],
    ]
    expected = [[(0.7 + 0.6 + 0.4) / 3, (0.2 + 0.1 + 0.3) / 3, (0.1 + 0.3 + 0.3) / 3], [0.1, 0.2, 0.7]]
    result = words(matrix, [0, 0, 0, 1, -1], [0, 0, 1, -1])
    np.testing.assert_allclose(result, expected)
    assert links(result) == [(0, 0)]


def test_words_equals_plain_loops_and_keeps_the_mass():
    generator = np.random.default_rng(3)
    matrix = generator.dirichlet(np.ones(9), size=7)
    target_words, source_words = [0, 0, 1, 2, 2, 2, -1], [0, 1, 1, 2, -1, 4, 4, 4, -1]
    expected = np.zeros((3, 6))
    for j in range(3):
        rows = [t for t, word in enumerate(target_words) if word == j]
        for s, word in enumerate(source_words):
            expected[j, word if word >= 0 else 5] += sum(matrix[t, s] for t in rows) / len(rows)
    result = words(matrix, target_words, source_words)
    np.testing.assert_allclose(result, expected)
    np.testing.assert_allclose(result.sum(axis=1), 1.0)
    assert not result[:, 3].any()


def test_words_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(2, 3\) does not fit 2 target pieces and 2 source pieces"):
        words(np.zeros((2, 3)), [0, 1], [0, 1])


def test_links_leave_out_words_that_attend_to_no_word():
    assert links([[0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.0, 0.0, 0.0], [0.4, 0.4, 0.2]]) == [(1, 0), (0, 3)]
    assert links(np.zeros((0, 3))) == []
    assert links([[1.0]]) == []
    with pytest.raises(ValueError, match="not finite"):
        links([[0.5, float("nan")]])


def test_files_come_back_as_written(tmp_path):
    sentences = [gold("0-0 1p2 10-3"), gold(""), gold("2-2")]
    write_gold(tmp_path / "new" / "test.gold", sentences)
    assert read_gold(tmp_path / "new" / "test.gold") == sentences
    alignments = [[(3, 1), (0, 0)], [], [(12, 7)]]
    write_pharaoh(tmp_path / "test.pharaoh", alignments)
    assert (tmp_path / "test.pharaoh").read_bytes() == b"3-1 0-0\n\n12-7\n"
    assert read_pharaoh(tmp_path / "test.pharaoh") == alignments
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "test.gold", "test.pharaoh"]


def test_a_link_inside_every_sentence_is_accepted(tmp_path):
    path = tmp_path / "test.gold"
    path.write_bytes(b"\xef\xbb\xbf1-0\r\n0p1")
    # U+00A0 does not part words: each sentence has two on one side.
    pairs = [("ein\u00a0Haus  steht", "standing"), ("one", "zwei Worte")]
    assert read_gold(path, pairs) == [gold("1-0"), gold("0p1")]


@pytest.mark.parametrize(
    ("text", "pairs", "message"),
    [
        ("0-0\n0-x\n", None, r"test\.gold, line 2: '0-x' is not a link: write i-j \(sure\) or ipj \(possible\)"),
        ("0-0\n0--1\n", None, r"line 2: '0--1' is not a link"),
        ("٣-0\n", None, r"line 1: '٣-0' is not a link"),
        ("0-0\n\n1-0\n", [("a", "b")] * 3, r"line 3: link 1-0 points beyond a sentence of 1 source and 1 target words"),
        ("0p1\n", [("a", "b")], r"line 1: link 0-1 points beyond"),
        ("0-0\n", [("a", "b")] * 2, r"test\.gold: 1 lines for 2 sentence pairs"),
        (b"0-0\n\xff\n", None, r"line 2: not UTF-8 text"),
    ],
)
def test_a_bad_gold_file_is_refused_with_its_place(tmp_path, text, pairs, message):
    path = tmp_path / "test.gold"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        read_gold(path, pairs)


def test_a_possible_link_in_a_pharaoh_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("0-0 1p1\n")
    with pytest.raises(ValueError, match=r"out, line 1: '1p1' is not a link \(possible links belong in a gold file\)"):
        read_pharaoh(tmp_path / "out")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the published alignment sets")
@pytest.mark.parametrize("name", SETS)
def test_published_gold_against_itself(name):
    source, target = SETS[name]
    texts = [(SHARED / name / f"test.{lang}").read_bytes().decode().split("\n")[:-1] for lang in (source, target)]
    golds = read_gold(SHARED / name / "test.gold", list(zip(*texts, strict=True)))
    sure = [sorted(sentence.sure) for sentence in golds]
    assert score(sure, golds) == (0.0, 1.0, 1.0, 1.0)
    shuffled = sure.copy()
    random.Random(1).shuffle(shuffled)
    assert score(shuffled, golds).aer > 0.6
    diagonal = [[(i, i) for i in range(min(map(len, map(str.split, pair))))] for pair in zip(*texts, strict=True)]
    assert 0.2 < score(diagonal, golds).aer < 0.95
