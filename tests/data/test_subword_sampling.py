"""Sampled segmentations: SentencePiece's where nothing is random, the exact distribution, alike in two processes."""

import json
import math
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from scipy.stats import chisquare

import nmt
from nmt.data import (
    BatchLoader,
    DataConfig,
    SentencePair,
    Tokenizer,
    TokenizerConfig,
    load_corpus,
    train_or_load_tokenizer,
)
from nmt.data.subword_sampling import derive_keys, uniform
from nmt.data.synthetic.dataset import SyntheticConfig

SYLLABLES = ["the", "re", "mo", "ther", "hat", "at", "e", "sa", "in", "a"]
WORDS = [first + second + third for first in SYLLABLES for second in SYLLABLES for third in SYLLABLES[:4]]
ODD = ["", " ", "  the  moth ", "▁", "a▁▁ b▁", "nul\0", "\0", "tab\tx", "🙂🇩🇪 漢字漢", "\U000f0000▁", "e\u0301 é ﬁ"]
ODD += ["<0x41>", "</s> <unk>", "\u00a0x\u3000y", "hat" * 700]


def texts() -> list[str]:
    rng = random.Random(1)
    alphabet = "hat moether▁\0\t\ré🙂\u2028\U000f0000漢<>/0x"
    plain = [" ".join("".join(rng.choices(SYLLABLES, k=rng.randint(1, 5))) for _ in range(6)) for _ in range(300)]
    return [*plain, *ODD, *("".join(rng.choices(alphabet, k=rng.randint(0, 30))) for _ in range(600))]


def train(kind: str, **options: object) -> Tokenizer:
    size = 330 if options.get("byte_fallback", True) else 80
    config = TokenizerConfig(type=kind, **{"vocab_size": size, "character_coverage": 1.0, **options})
    return Tokenizer.train(config, [SentencePair(text, text) for text in texts()[:300]])


def sample(tokenizer: Tokenizer, batch: list[str], strength: float) -> list[list[int]]:
    ids, lengths = tokenizer.source.sample(batch, strength, derive_keys(np.zeros(1, np.uint64), np.arange(len(batch))))
    return [row.tolist() for row in np.split(ids, np.cumsum(lengths)[:-1])]


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("normalization", ["identity", "nmt_nfkc"])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_without_randomness_segmentations_are_those_of_sentencepiece(
    kind: str, normalization: str, byte_fallback: bool
) -> None:
    tokenizer = train(kind, normalization=normalization, byte_fallback=byte_fallback)
    library = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.state_dict()["source"]["model"])
    batch = texts()
    sampled = sample(tokenizer, batch, 1e6 if kind == "unigram" else 0.0)
    num_ties = 0
    for text, ids, expected in zip(batch, sampled, tokenizer.encode_source(batch), strict=True):
        if ids != expected:  # of equally probable segmentations any
            assert kind == "unigram"
            assert sum(map(library.get_score, ids)) == pytest.approx(sum(map(library.get_score, expected)), abs=1e-4)
            assert tokenizer.decode_source(ids) == tokenizer.decode_source(expected), text
            num_ties += 1
    assert num_ties < 0.02 * len(batch)


def unigram_probabilities(tokenizer: Tokenizer, text: str, strength: float) -> dict[tuple[str, ...], float]:
    """Return the probability of each segmentation of a short word, by enumeration."""
    library = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.state_dict()["source"]["model"])
    pieces = {library.id_to_piece(i): library.get_score(i) for i in range(260, library.get_piece_size())}

    def segmentations(rest: str) -> Iterator[tuple[str, ...]]:
        if not rest:
            yield ()
        for length in range(1, len(rest) + 1):
            if rest[:length] in pieces:
                yield from ((rest[:length], *others) for others in segmentations(rest[length:]))

    weights = {s: math.exp(strength * sum(pieces[piece] for piece in s)) for s in segmentations("▁" + text)}
    return {segmentation: weight / sum(weights.values()) for segmentation, weight in weights.items()}


def bpe_probabilities(tokenizer: Tokenizer, text: str, strength: float) -> dict[tuple[str, ...], float]:
    """Return the probability of each outcome of BPE dropout, following both branches of every merge."""
    library = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.state_dict()["source"]["model"])
    pieces = {library.id_to_piece(i): library.get_score(i) for i in range(260, library.get_piece_size())}
    probabilities: Counter[tuple[str, ...]] = Counter()

    def follow(symbols: list[tuple[int, str]], dropped: frozenset[tuple[int, int, int]], probability: float) -> None:
        merges = []
        for i, ((start, left), (middle, right)) in enumerate(pairwise(symbols)):
            pair = (start, middle, middle + len(right))
            if left + right in pieces and pair not in dropped:
                merges.append((-pieces[left + right], i, pair))
        if not merges:
            probabilities[tuple(symbol for _, symbol in symbols)] += probability
            return
        _, i, pair = min(merges)
        merged = [*symbols[:i], (symbols[i][0], symbols[i][1] + symbols[i + 1][1]), *symbols[i + 2 :]]
        follow(symbols, dropped | {pair}, probability * strength)
        follow(merged, dropped, probability * (1 - strength))

    follow(list(enumerate("▁" + text)), frozenset(), 1.0)
    return dict(probabilities)


@pytest.mark.parametrize(
    ("kind", "strength"), [("unigram", 0.1), ("unigram", 0.5), ("unigram", 1.0), ("bpe", 0.1), ("bpe", 0.4)]
)
def test_segmentations_have_the_exact_distribution(kind: str, strength: float) -> None:
    """Of the two short words that have most."""
    tokenizer = train(kind)
    probabilities = {"unigram": unigram_probabilities, "bpe": bpe_probabilities}[kind]
    words = [word for word in WORDS if len(word) < 7][::3]
    by_word = {word: probabilities(tokenizer, word, strength) for word in words}
    for text in sorted(words, key=lambda word: -len(by_word[word]))[:2]:
        check_distribution(tokenizer, text, strength, by_word[text])


def check_distribution(
    tokenizer: Tokenizer, text: str, strength: float, expected: dict[tuple[str, ...], float]
) -> None:
    """Test 20,000 segmentations of a text against their probabilities, by chi-square."""
    num = 20_000
    drawn = Counter(tuple(tokenizer.source_subwords(ids)) for ids in sample(tokenizer, [text] * num, strength))
    assert set(drawn) <= set(expected)
    assert len(expected) > 1
    common = [s for s, probability in expected.items() if probability * num > 5]
    observed, predicted = [drawn[s] for s in common], [expected[s] * num for s in common]
    observed.append(num - sum(observed))
    predicted.append(num - sum(predicted) + 1e-9)
    if predicted[-1] < 5:  # too rare together for the test: with the last of the others
        observed[-2:], predicted[-2:] = [sum(observed[-2:])], [sum(predicted[-2:])]
    assert len(observed) == 1 or chisquare(observed, predicted).pvalue > 1e-3


def test_random_numbers_are_uniform_and_unrelated() -> None:
    keys = derive_keys(np.zeros(1, np.uint64), np.arange(300))
    numbers = uniform(np.repeat(keys, 200), np.tile(np.arange(200), 300))
    assert chisquare(np.histogram(numbers, 50, (0, 1))[0]).pvalue > 1e-3
    grid = numbers.reshape(300, 200)
    for first, second in ((grid[:-1], grid[1:]), (grid[:, :-1], grid[:, 1:])):
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


def epoch(kind: str, rank: int, size: int, cache: str) -> list[list[list[int]]]:
    """Return the rows of the corpus, the sources and the labels of each batch of a rank."""
    tokenizer = TokenizerConfig(type=kind, vocab_size=330, subword_regularization=0.2)
    synthetic = SyntheticConfig(train=120, valid=2, test=2, long=1)
    config = DataConfig(synthetic=synthetic, cache_dir=cache, tokenizer=tokenizer)
    loaded = train_or_load_tokenizer(config)
    batches = BatchLoader(load_corpus(config, "train", loaded), loaded, 512, 1).epoch(2, share=(rank, size))
    return [[batch.indices.tolist(), batch.source.tolist(), batch.labels.tolist()] for batch in batches]


def test_ranks_in_processes_of_their_own_share_the_epoch_of_one(tmp_path: Path) -> None:
    """Every row once, with the segmentation that a single process draws."""
    kinds = ["unigram", "bpe"]
    whole = [epoch(kind, 0, 1, str(tmp_path)) for kind in kinds]
    program = f"import runpy, json; epoch = runpy.run_path({__file__!r})['epoch']\n"
    program += f"print(json.dumps([epoch(kind, 1, 2, {str(tmp_path)!r}) for kind in {kinds}]))"
    environment = {**os.environ, "PYTHONPATH": str(Path(nmt.__file__).parent.parent)}
    out = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True, timeout=200)
    for kind, batches, other in zip(kinds, whole, json.loads(out.stdout), strict=True):
        assert sorted(index for batch in batches for index in batch[0]) == list(range(120))
        shards = zip(batches, epoch(kind, 0, 2, str(tmp_path)), other, strict=True)
        assert all([a, b] == [part[0::2], part[1::2]] for batch in shards for part, a, b in zip(*batch, strict=True))
