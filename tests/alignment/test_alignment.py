import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest

from nmt.alignment import (
    FORMATS,
    METHODS,
    AlignmentConfig,
    AlignmentExample,
    AlignmentSource,
    GoldAlignment,
    alignment_error_rate,
    alignment_writers,
    candidate_sources,
    hard_alignment,
    ibm1_alignments,
    read_gold,
    read_pharaoh,
    score_sources,
    select_source,
    symmetrize,
    to_word_matrix,
    write_gold,
    write_pharaoh,
)
from nmt.alignment.extraction import THRESHOLDS
from nmt.alignment.pharaoh import parse_gold
from nmt.alignment.projection import link_mask
from nmt.alignment.writers import AlignedPair

SHARED = Path(__file__).parents[3] / "shared" / "data" / "word_alignment"
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
    assert parsed == GoldAlignment(frozenset({(0, 0), (10, 3)}), frozenset({(0, 0), (10, 3), (2, 1)}))
    assert parse_gold("1p1 1-1") == GoldAlignment(frozenset({(1, 1)}), frozenset({(1, 1)}))
    assert parse_gold("") == GoldAlignment(frozenset(), frozenset())


def test_score_of_a_worked_example():
    # A = {00, 11, 22, 31}, S = {00, 11}, P = S + {22}: |A∩S| = 2, |A∩P| = 3.
    result = alignment_error_rate([[(0, 0), (1, 1), (2, 2), (3, 1)]], [gold("0-0 1-1 2p2")])
    assert result.precision == pytest.approx(3 / 4)
    assert result.recall == pytest.approx(2 / 2)
    assert result.f1 == pytest.approx(2 * 0.75 / 1.75)
    assert result.aer == pytest.approx(1 - (2 + 3) / (4 + 2))


def test_score_sums_counts_over_the_corpus_rather_than_averaging_sentences():
    # Together A has 4 links, S 3; both sure hits are in the first sentence.
    result = alignment_error_rate([[(0, 0), (1, 1), (2, 0)], [(0, 1)]], [gold("0-0 1-1"), gold("0-0")])
    assert result.precision == pytest.approx(2 / 4)
    assert result.recall == pytest.approx(2 / 3)
    assert result.aer == pytest.approx(1 - 4 / 7)


def test_with_sure_links_only_aer_is_one_minus_f1():
    generator = random.Random(1)
    all_links = [(i, j) for i in range(6) for j in range(6)]
    sets = [[frozenset(generator.sample(all_links, 8)) for _ in range(20)] for _ in range(2)]
    result = alignment_error_rate(sets[0], [GoldAlignment(sure, sure) for sure in sets[1]])
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
def test_score_with_a_zero_denominator(predicted, line, expected):
    assert tuple(alignment_error_rate([predicted], [gold(line)])) == pytest.approx(expected)


def test_score_rejects_lists_of_different_length():
    with pytest.raises(ValueError, match="1 predicted alignments but 2 gold ones"):
        alignment_error_rate([[]], [gold(""), gold("")])
    with pytest.raises(ValueError, match="no sentences"):
        alignment_error_rate([], [])


def test_word_matrix_of_a_worked_example():
    # Source subwords "▁un", "fair", "▁game", "</s>"; target subwords "▁un", "fair", "es", "▁Spiel", "</s>".
    matrix = [
        [0.5, 0.2, 0.2, 0.1],
        [0.3, 0.3, 0.1, 0.3],
        [0.1, 0.3, 0.3, 0.3],
        [0.0, 0.1, 0.2, 0.7],
        [0.0, 0.0, 0.0, 1.0],
    ]
    expected = [[(0.7 + 0.6 + 0.4) / 3, (0.2 + 0.1 + 0.3) / 3, (0.1 + 0.3 + 0.3) / 3], [0.1, 0.2, 0.7]]
    result = to_word_matrix(matrix, [0, 0, 0, 1, -1], [0, 0, 1, -1])
    np.testing.assert_allclose(result, expected)
    assert hard_alignment(result) == [(0, 0)]


def test_word_matrix_equals_plain_loops_and_keeps_the_mass():
    generator = np.random.default_rng(3)
    matrix = generator.dirichlet(np.ones(9), size=7)
    target_words, source_words = [0, 0, 1, 2, 2, 2, -1], [0, 1, 1, 2, -1, 4, 4, 4, -1]
    expected = np.zeros((3, 6))
    for j in range(3):
        rows = [t for t, word in enumerate(target_words) if word == j]
        for s, word in enumerate(source_words):
            expected[j, word if word >= 0 else 5] += sum(matrix[t, s] for t in rows) / len(rows)
    result = to_word_matrix(matrix, target_words, source_words)
    np.testing.assert_allclose(result, expected)
    np.testing.assert_allclose(result.sum(axis=1), 1.0)
    assert not result[:, 3].any()


def test_word_matrix_rejects_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(2, 3\) does not fit 2 target subwords and 2 source subwords"):
        to_word_matrix(np.zeros((2, 3)), [0, 1], [0, 1])


def test_links_leave_out_words_that_attend_to_no_word():
    assert hard_alignment([[0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.0, 0.0, 0.0], [0.4, 0.4, 0.2]]) == [(1, 0), (0, 3)]
    assert hard_alignment(np.zeros((0, 3))) == []
    assert hard_alignment([[1.0]]) == []
    with pytest.raises(ValueError, match="not finite"):
        hard_alignment([[0.5, float("nan")]])


def test_files_round_trip(tmp_path):
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
    # U+00A0 does not separate words: each pair has a sentence of two words.
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
def test_a_bad_gold_file_is_rejected_with_file_and_line(tmp_path, text, pairs, message):
    path = tmp_path / "test.gold"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        read_gold(path, pairs)


def test_a_possible_link_in_a_pharaoh_file_is_rejected(tmp_path):
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
    assert alignment_error_rate(sure, golds) == (0.0, 1.0, 1.0, 1.0)
    shuffled = sure.copy()
    random.Random(1).shuffle(shuffled)
    assert alignment_error_rate(shuffled, golds).aer > 0.6
    diagonal = [[(i, i) for i in range(min(map(len, map(str.split, pair))))] for pair in zip(*texts, strict=True)]
    assert 0.2 < alignment_error_rate(diagonal, golds).aer < 0.95


def test_shift_selects_the_next_row():
    # Subwords "a", "b", "</s>" on both sides: row t + 1 aligns subword t.
    matrix = [[0.2, 0.2, 0.6], [0.9, 0.1, 0.0], [0.1, 0.8, 0.1]]
    np.testing.assert_allclose(to_word_matrix(matrix, [0, 1, -1], [0, 1, -1], shift=1), matrix[1:])
    np.testing.assert_allclose(to_word_matrix(matrix, [0, 1, -1], [0, 1, -1]), matrix[:2])
    # Two subwords of one word: the mean of the rows after them.
    np.testing.assert_allclose(to_word_matrix(matrix, [0, 0, -1], [0, 1, -1], shift=1), [[0.5, 0.45, 0.05]])


def test_null_and_threshold_of_a_worked_example():
    matrix = [[0.2, 0.3, 0.5], [0.6, 0.4, 0.0], [0.0, 0.0, 1.0]]
    assert hard_alignment(matrix) == [(0, 1)]
    assert hard_alignment(matrix, null=False) == [(1, 0), (0, 1)]
    assert hard_alignment(matrix, threshold=0.3) == [(1, 0), (0, 1), (1, 1)]
    assert hard_alignment(matrix, threshold=0.61) == []
    masks = link_mask(np.stack([matrix, matrix]), null=False)
    assert masks.tolist() == [[[False, True], [True, False], [False, False]]] * 2
    assert link_mask([[1.0]], null=False).shape == (1, 0)  # a source of no words
    assert hard_alignment([[1.0]], null=False) == []


# Forward and backward links of a pair of 4 and 4 words, and the result of each method, worked by hand:
# the intersection is 0-0 and 2-2. 1-1 is a diagonal neighbour of 0-0 with both words free, 2-1 then is one of 2-2 whose
# words are taken, 3-2 has a free source word. 3-0 is far from every other link: its source word is taken by then.
FORWARD = [(0, 0), (1, 1), (2, 2), (3, 2)]
BACKWARD = [(0, 0), (2, 1), (2, 2), (3, 0), (0, 3)]
JOINED = {
    "intersection": [(0, 0), (2, 2)],
    "union": [(0, 0), (0, 3), (1, 1), (2, 1), (2, 2), (3, 0), (3, 2)],
    "grow-diag": [(0, 0), (1, 1), (2, 2), (3, 2)],
    "grow-diag-final": [(0, 0), (0, 3), (1, 1), (2, 2), (3, 2)],
    "grow-diag-final-and": [(0, 0), (1, 1), (2, 2), (3, 2)],
}


@pytest.mark.parametrize("method", METHODS)
def test_symmetrization_of_a_worked_example(method):
    assert symmetrize(FORWARD, BACKWARD, method) == JOINED[method]


def published_procedure(forward, backward, *, both):
    """Compute grow-diag-final(-and) over matrices, following the pseudocode of Koehn et al. (2005, figure 1)."""
    size = 1 + max(max(link) for link in forward | backward)
    current = {link: link in forward & backward for link in itertools.product(range(size), repeat=2)}

    def unlinked(i, j):
        return not any(current[i, k] for k in range(size)), not any(current[k, j] for k in range(size))

    steps = [(-1, 0), (0, -1), (1, 0), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)]
    while True:
        before = dict(current)
        for i in range(size):
            for j in range(size):
                for di, dj in steps if current[i, j] else ():
                    new = (i + di, j + dj)
                    if new in forward | backward and not current[new] and any(unlinked(*new)):
                        current[new] = True
        if current == before:
            break
    for direction in (forward, backward):
        for new in itertools.product(range(size), repeat=2):
            if new in direction and (all if both else any)(unlinked(*new)):
                current[new] = True
    return sorted(link for link, is_linked in current.items() if is_linked)


def test_symmetrization_agrees_with_the_published_procedure():
    generator = random.Random(5)
    all_links = list(itertools.product(range(7), repeat=2))
    for _ in range(300):
        forward, backward = (set(generator.sample(all_links, generator.randint(1, 12))) for _ in range(2))
        results = {method: symmetrize(forward, backward, method) for method in METHODS}
        assert results["grow-diag-final"] == published_procedure(forward, backward, both=False)
        assert results["grow-diag-final-and"] == published_procedure(forward, backward, both=True)
        assert (
            forward & backward <= set(results["grow-diag"]) <= set(results["grow-diag-final-and"]) <= forward | backward
        )
        assert {tuple(link[::-1]) for link in symmetrize([(j, i) for i, j in forward], [], "union")} == forward


def attention(generator, num_target, num_source):
    return generator.dirichlet(np.full(num_source, 0.3), (2, 3, num_target)).astype(np.float32)


def test_many_sources_at_once_score_as_each_alone():
    generator = np.random.default_rng(7)
    sentences = []
    for num_target, num_source in ((5, 6), (3, 4), (9, 2), (1, 1)):
        target_words = [*np.sort(generator.integers(0, 4, num_target - 1)).tolist(), -1]
        source_words = [*np.sort(generator.integers(0, 4, num_source - 1)).tolist(), -1]
        links = gold(" ".join(f"{i}{mark}{j}" for i, j, mark in ((0, 0, "-"), (1, 2, "p"), (2, 1, "-"), (3, 3, "-"))))
        sentences.append(
            AlignmentExample(attention(generator, num_target, num_source), target_words, source_words, links)
        )
    sources = candidate_sources(AlignmentConfig(), 2, 3)
    assert len(sources) == len(set(sources)) == (1 + 2 * (1 + 3)) * 2 * (2 + len(THRESHOLDS))
    together = score_sources(sentences, sources)
    for source, score in zip(sources, together, strict=True):
        alone = [source.links(s.weights, s.target_words, s.source_words) for s in sentences]
        assert score == pytest.approx(alignment_error_rate(alone, [s.gold for s in sentences])), source
    assert len(set(together)) > len(THRESHOLDS)
    best = select_source(sentences, sources, "test")
    assert best.scores[best.source].aer == min(score.aer for score in together)


@pytest.mark.parametrize(
    ("options", "shape", "expected"),
    [
        ({}, (1, 1), [(1, 1, s, n) for s in (0, 1) for n in (True, False)]),
        ({"shift": "0", "allow_null": "true"}, (1, 2), [(1, 0), (1, 1), (1, 2)]),
        ({"shift": "0", "allow_null": "true"}, (2, 1), [(0, 0), (1, 1), (2, 1)]),
        ({"layer": "mean", "shift": "1", "allow_null": "true"}, (2, 4), [(0, 0, 1)]),
        ({"layer": "2", "head": "3", "shift": "0", "allow_null": "false"}, (2, 4), [(2, 3, 0, False)]),
        ({"layer": "2", "head": "mean", "shift": "0", "allow_null": "true"}, (2, 4), [(2, 0)]),
        (
            {"layer": "mean", "shift": "0", "decision": "auto"},
            (2, 4),
            [(0, 0, 0, True), (0, 0, 0, False), *((0, 0, 0, True, threshold) for threshold in THRESHOLDS)],
        ),
        ({"layer": "mean", "shift": "0", "decision": "threshold", "threshold": 0.3}, (2, 4), [(0, 0, 0, True, 0.3)]),
    ],
)
def test_options_determine_the_candidate_sources(options, shape, expected):
    config = AlignmentConfig(**{"decision": "argmax", **options})
    config.validate()
    assert candidate_sources(config, *shape) == [AlignmentSource(*values) for values in expected]


def test_a_source_selects_its_layer_and_head():
    weights = np.arange(24.0).reshape(2, 3, 2, 2)
    np.testing.assert_array_equal(AlignmentSource(2, 3).matrix(weights), weights[1, 2])
    np.testing.assert_array_equal(AlignmentSource(2, 0).matrix(weights), weights[1].mean(0))
    np.testing.assert_array_equal(AlignmentSource().matrix(weights), weights.mean((0, 1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "0"}, r"alignment\.layer=0: must be auto, mean, or a number"),
        ({"head": "first"}, r"alignment\.head=first"),
        ({"layer": "mean", "head": "2"}, r"alignment\.head=2: the mean of all layers has no heads"),
        ({"shift": "2"}, r"alignment\.shift=2"),
        ({"allow_null": "no"}, r"alignment\.allow_null=no"),
        ({"decision": "best"}, r"alignment\.decision=best: must be one of auto, argmax, threshold"),
        ({"threshold": 0.0}, r"alignment\.threshold=0"),
        ({"selection_pairs": 0}, r"alignment\.selection_pairs=0"),
        ({"head_importance_pairs": -1}, r"alignment\.head_importance_pairs=-1"),
    ],
)
def test_an_invalid_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        AlignmentConfig(**options).validate()


def test_a_layer_that_does_not_exist_is_rejected():
    with pytest.raises(ValueError, match=r"alignment\.layer=3: attention to the source has 2 layers"):
        candidate_sources(AlignmentConfig(layer="3"), 2, 4)
    with pytest.raises(ValueError, match=r"alignment\.head=2: attention to the source has 1 head$"):
        candidate_sources(AlignmentConfig(head="2"), 2, 1)


def test_the_lexical_aligner_learns_a_one_to_one_lexicon_in_any_order():
    generator = random.Random(3)
    pairs, truth = [], []
    for _ in range(200):
        numbers = generator.sample(range(30), generator.randint(2, 7))
        order = generator.sample(range(len(numbers)), len(numbers))
        pairs.append(([f"s{n}" for n in numbers], [f"t{numbers[i]}" for i in order]))
        truth.append([(i, j) for j, i in enumerate(order)])
    assert alignment_error_rate(truth, ibm1_alignments(pairs)).aer < 0.02
    assert ibm1_alignments([([], ["a"]), (["a"], [])]) == [gold(""), gold("")]


def test_lexical_agreement_distinguishes_shifts_as_gold_does():
    # One head attends to the word it predicts, one to the word before: only with the shift is the second right.
    generator = random.Random(11)
    pairs, sentences = [], []
    for _ in range(150):
        numbers = generator.sample(range(40), 5)
        pairs.append(([f"s{n}" for n in numbers], [f"t{n}" for n in numbers]))
        diagonal = np.eye(6)
        weights = np.stack([diagonal, np.vstack([diagonal[-1:], diagonal[:-1]])])[None].astype(np.float32)
        sentences.append(AlignmentExample(weights, [0, 1, 2, 3, 4, -1], [0, 1, 2, 3, 4, -1], gold("")))
    compared = [s._replace(gold=g) for s, g in zip(sentences, ibm1_alignments(pairs), strict=True)]
    for head, shift in (("1", 0), ("2", 1)):
        sources = candidate_sources(AlignmentConfig(head=head), 1, 2)
        assert select_source(compared, sources, "lexicon").source.shift == shift


def aligned_pair(generator, source, target):
    """Return a pair whose subwords are its words."""
    num_source, num_target = (len(list(filter(None, text.split(" ")))) for text in (source, target))
    weights = attention(generator, num_target + 1, num_source + 1)
    source_words, target_words = [*range(num_source), -1], [*range(num_target), -1]
    matrix = AlignmentSource().word_matrix(weights, target_words, source_words)
    subwords = [[*filter(None, text.split(" ")), "</s>"] for text in (source, target)]
    return AlignedPair(source, target, *subwords, source_words, target_words, weights, matrix, hard_alignment(matrix))


TEXTS = [("ein\u00a0Haus steht", "a house 🏠 , stands ."), ("", ""), ("東京\u3000都 は", "Tokyo")]


def test_aligned_pairs_round_trip_in_every_format(tmp_path):
    import datasets

    generator = np.random.default_rng(1)
    pairs = [aligned_pair(generator, *text) for text in TEXTS]
    with alignment_writers(tmp_path, list(FORMATS), weights=True) as write:
        write(pairs[:2])
        write(pairs[2:])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"alignments.{name}" for name in FORMATS)
    assert read_pharaoh(tmp_path / "alignments.pharaoh", [(p.source, p.target) for p in pairs]) == [
        pair.links for pair in pairs
    ]
    rows = [json.loads(line) for line in (tmp_path / "alignments.jsonl").read_text("utf-8").split("\n")[:-1]]
    table = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "alignments.parquet"), cache_dir=str(tmp_path / "cache"), split="train"
    )
    assert table.num_rows == len(rows) == len(pairs)
    with np.load(tmp_path / "alignments.npz") as arrays:
        assert int(arrays["schema"]) == 2
        for i, (pair, row, stored) in enumerate(zip(pairs, rows, table, strict=True)):
            matrix, weights = row.pop("matrix"), stored.pop("weights")
            np.testing.assert_allclose(np.reshape(matrix, pair.matrix.shape), pair.matrix, atol=1e-4)
            np.testing.assert_allclose(np.reshape(stored.pop("matrix"), pair.matrix.shape), pair.matrix, atol=1e-6)
            np.testing.assert_allclose(weights, pair.weights, atol=1e-3)
            assert row == stored
            assert (row["schema_version"], row["id"], row["source"], row["target"]) == (2, i, pair.source, pair.target)
            assert row["source_words"] == [word for word in pair.source.split(" ") if word]
            assert row["target_subwords"] == arrays[f"{i}.target"].tolist() == pair.target_subwords
            assert row["source_word_ids"] == arrays[f"{i}.source_words"].tolist() == pair.source_words
            assert list(map(tuple, row["links"])) == list(map(tuple, arrays[f"{i}.links"].tolist())) == pair.links
            np.testing.assert_allclose(arrays[f"{i}.weights"], pair.weights, atol=1e-3)


def test_files_are_written_all_or_none(tmp_path):
    def interrupt():
        with alignment_writers(tmp_path, list(FORMATS), weights=False) as write:
            write([aligned_pair(np.random.default_rng(1), *TEXTS[0])])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert list(tmp_path.iterdir()) == []


def test_the_lexical_aligner_is_model_1_written_out_word_by_word():
    generator = random.Random(5)
    pairs = [
        ([f"s{generator.randint(0, 6)}" for _ in range(generator.randint(0, 5))],
         [f"t{generator.randint(0, 6)}" for _ in range(generator.randint(0, 5))])
        for _ in range(40)
    ]  # fmt: skip

    def best(pairs: list[tuple[list[str], list[str]]]) -> list[set[tuple[int, int]]]:
        """Return the place of the most likely source word of each target word; the empty word has none."""
        table = {(s, t): 1.0 for source, target in pairs for s in [None, *source] for t in target}
        for _ in range(5):
            counts = dict.fromkeys(table, 0.0)
            for source, target in pairs:
                for t in target:
                    total = sum(table[s, t] for s in [None, *source])
                    for s in [None, *source]:
                        counts[s, t] += table[s, t] / total
            totals: dict[str | None, float] = {}
            for (s, _), count in counts.items():
                totals[s] = totals.get(s, 0.0) + count
            table = {(s, t): count / totals[s] for (s, t), count in counts.items()}
        links = []
        for source, target in pairs:
            words = [None, *source]
            chosen = [max(range(len(words)), key=lambda i: (table[words[i], t], -i)) for t in target]
            links.append({(i - 1, j) for j, i in enumerate(chosen) if i})
        return links

    forward = best(pairs)
    backward = [{(j, i) for i, j in links} for links in best([(target, source) for source, target in pairs])]
    found = ibm1_alignments(pairs)
    assert [alignment.sure for alignment in found] == [a & b for a, b in zip(forward, backward, strict=True)]
    assert [alignment.possible for alignment in found] == [a | b for a, b in zip(forward, backward, strict=True)]
