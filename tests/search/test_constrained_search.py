"""Search for translations that contain phrases, compared with exhaustive search, a plain search, and itself."""

import dataclasses
import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from nmt.data import BOS, EOS, PAD, UNK, source_batch
from nmt.models import MODELS, Seq2Seq
from nmt.search import Ensemble, SearchConfig, decode, translate_batch
from nmt.search.beam_search import Candidates
from nmt.search.constraints import PhraseStates
from nmt.search.phrases import ConstrainedBeamSearch
from tests.search.test_search import (
    CONFIGS,
    KINDS,
    SOURCES,
    Scored,
    forbidden,
    limits,
    log_prob,
    make,
    next_log_probs,
    norm,
)

CPU = torch.device("cpu")
LISTS: list[list[list[int]]] = [
    [[4]],
    [[4, 5]],
    [[5, 5, 4]],
    [[4], [4]],
    [[4, 4], [4, 4]],
    [[4, 5], [5, 4]],  # they may overlap
    [[5], [4, 5]],  # 5 once more than in 4 5
    [[4, 5, 4], [1]],
    [[5, 4, 4]],
]


def as_text(tokens: Sequence[int]) -> str:
    return "".join(chr(97 + token) for token in tokens)


def contains(tokens: Sequence[int], phrases: Sequence[Sequence[int]]) -> bool:
    """Return whether every phrase occurs as often as in all phrases of the list, counted by `str.count`."""
    wanted = list(map(as_text, phrases))
    return all(as_text(tokens).count(p) >= sum(other.count(p) for other in wanted) for p in wanted)


def check_exhaustive(model: Seq2Seq, phrases: list[list[int]], prefix: list[int], config: SearchConfig) -> None:
    """A beam that holds every hypothesis finds the best translations that contain the phrases."""
    sources, texts = [[4, 5, 4], [5]], [*map(as_text, phrases)]
    # the longest length grows to the tokens that all phrases need
    num = sum(len(text) * sum(other.count(text) for other in texts) for text in {*texts})
    longest = max(config.max_length_offset, len(prefix) + num)
    config = dataclasses.replace(config, beam_size=3**longest)
    source, mask = source_batch(sources)
    found = translate_batch(model, source, mask, config, prefixes=[prefix, []], phrases=[phrases, LISTS[0]])
    for row, (begin, wanted, most) in enumerate(((prefix, phrases, longest), ([], LISTS[0], config.max_length_offset))):
        expected: Scored = []
        for length in range(most + 1):
            every = [*itertools.product([UNK, 4, 5], repeat=length)]
            all_tokens = torch.tensor(every, dtype=torch.long).reshape(len(every), length)
            num = len(all_tokens)
            inputs, labels = (
                torch.nn.functional.pad(all_tokens, pad, value=v) for pad, v in (((1, 0), BOS), ((0, 1), EOS))
            )
            logits, _ = model(source[row].expand(num, -1), mask[row].expand(num, -1), inputs)
            log_probs = torch.log_softmax(logits, -1).gather(2, labels.unsqueeze(2)).sum((1, 2)).tolist()
            scored = zip(log_probs, all_tokens.tolist(), strict=True)
            expected += [(value / norm(config, length + 1), value, tokens) for value, tokens in scored]
        held = [e for e in expected if e[2][: len(begin)] == begin and contains(e[2], wanted)]
        best = sorted(held, key=lambda entry: -entry[0])[: config.n_best]
        assert [h.tokens for h in found[row]] == [tokens for _, _, tokens in best]
        np.testing.assert_allclose([h.score for h in found[row]], [score for score, _, _ in best], atol=1e-9)


@pytest.mark.parametrize("seed", range(12))
@torch.no_grad()
def test_a_wide_beam_finds_the_best_translations_that_contain_the_phrases(seed: int) -> None:
    kind, score = KINDS[seed * 3 % len(KINDS)]
    model = make(seed, 6, kind, score)
    config = SearchConfig(n_best=5, max_length_ratio=0.0, max_length_offset=3, early_stopping="never")
    config.early_stopping = ("never", "lookahead")[seed % 2]  # an end within two tokens more is any of these
    check_exhaustive(model, LISTS[seed % len(LISTS)], [], config)
    check_exhaustive(model, LISTS[(seed + 4) % len(LISTS)], [[4], [5, 1]][seed % 2], config)


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_every_architecture_and_ensembles(kind: str) -> None:
    model = make(1, 6, kind, "scaled")
    config = SearchConfig(n_best=3, max_length_ratio=0.0, max_length_offset=3, length_penalty=0.6)
    check_exhaustive(model, LISTS[5], [], config)
    check_exhaustive(Ensemble([model, make(2, 6, "rnn", "dot")]), LISTS[1], [5], config)


def naive(model: Seq2Seq, ids: Sequence[int], phrases: list[list[int]], prefix: list[int], config: Any) -> Scored:
    """Return the results of a beam divided into banks, written plainly: phrases are found again in every text."""
    source, mask = source_batch([ids])
    needed = Counter({p: sum(as_text(q).count(p) for q in phrases) for p in map(as_text, phrases)})

    def places(tokens: list[int]) -> tuple[int, set[int]]:
        """Return how many tokens of phrases are missing, and the tokens that bring one more."""
        text, missing, begun, follow = as_text(tokens), 0, 0, set()
        for phrase, times in needed.items():
            count, rest = text.count(phrase), text[max((m.end() for m in re.finditer(phrase, text)), default=0) :]
            if count < times:
                length = max(size for size in range(len(phrase)) if rest.endswith(phrase[:size]))
                missing, begun = missing + len(phrase) * (times - count), max(begun, length)
                follow.add(ord(phrase[length]) - 97)
        return missing - begun, follow

    min_length, max_length = limits(config, len(ids))
    max_length = max(max_length, len(prefix) + places([])[0])
    live: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: Scored = []
    for length in range(max_length + 1):
        rows = next_log_probs(model, source, mask, [tokens for _, tokens in live])
        candidates = []
        for (total, tokens), row in zip(live, rows.tolist(), strict=True):
            missing, follow = places(tokens)
            allowed = [token for token in range(len(row)) if token not in forbidden(config)]
            if length < len(prefix):
                allowed = [prefix[length]]
            elif length == max_length:
                allowed = [EOS]
            if missing or length < min_length:
                allowed = [token for token in allowed if token != EOS]
            best = sorted(allowed, key=lambda token, row=row: -row[token])[: 2 * config.beam_size]
            for token in dict.fromkeys([*best, *sorted(follow & {*allowed})]):
                left = 0 if token == EOS else places([*tokens, token])[0]
                candidates.append((left, total + row[token], tokens, token))
        banks = {left: sorted((c for c in candidates if c[0] == left), key=lambda c: -c[1]) for left, *_ in candidates}
        first = [banks[min(banks)].pop(0)] if banks else []
        ranked = [(rank + (bank == min(banks)), -c[1], c) for bank in banks for rank, c in enumerate(banks[bank])]
        chosen = [*first, *(c for _, _, c in sorted(ranked))][: 2 * config.beam_size]
        finished += [(t / norm(config, length + 1), t, tokens) for _, t, tokens, token in chosen if token == EOS]
        live = [(t, [*tokens, token]) for _, t, tokens, token in chosen if token != EOS][: config.beam_size]
        if not live:
            break
    return sorted(finished, key=lambda entry: -entry[0])[: config.n_best]


@pytest.mark.parametrize("seed", range(16))
@torch.no_grad()
def test_results_are_those_of_a_plain_search_with_banks(seed: int) -> None:
    rng = random.Random(seed)
    model = make(seed, 9, *KINDS[seed * 5 % len(KINDS)])
    config = SearchConfig(beam_size=rng.choice([2, 3, 5]), n_best=2, max_length_ratio=1.0, max_length_offset=6)
    config.early_stopping, config.length_penalty = "never", rng.choice([0.0, 0.6, 1.0])
    config.min_length_offset = rng.choice([0, 2])
    phrases = [[[rng.choice([4, 5, 6]) for _ in range(rng.randint(1, 4))] for _ in range(n)] for n in (2, 0, 1, 3)]
    prefixes = [[], [4], [8, 7, 1], [5]]
    source, mask = source_batch(SOURCES)
    found = translate_batch(model, source, mask, config, prefixes=prefixes, phrases=phrases)
    for ids, wanted, prefix, hypotheses in zip(SOURCES, phrases, prefixes, found, strict=True):
        assert hypotheses
        expected = naive(model, ids, wanted, prefix, config)
        assert [h.tokens for h in hypotheses] == [tokens for _, _, tokens in expected]
        for h in hypotheses:
            assert h.log_prob == pytest.approx(log_prob(model, ids, h.tokens), abs=1e-9)
            assert contains(h.tokens, wanted)


@pytest.mark.parametrize("config", CONFIGS)
@torch.no_grad()
def test_sentences_without_phrases_are_searched_as_before(config: SearchConfig) -> None:
    """Bit for bit in fp32, beside sentences that have some, too."""
    model = make(3, 20, "transformer", "scaled").float()
    source, mask = source_batch(SOURCES)
    plain = translate_batch(model, source, mask, config)
    mixed = translate_batch(model, source, mask, config, phrases=[[[7, 8]], [], [], [[9], [5, 5]]])
    for number in (1, 2):
        assert [tuple(h) for h in mixed[number]] == [tuple(h) for h in plain[number]]
    for number, (phrases) in {0: [[7, 8]], 3: [[9], [5, 5]]}.items():
        assert mixed[number]
        assert all(contains(h.tokens, phrases) for h in mixed[number])
    none = translate_batch(model, source, mask, config, phrases=[[], [], [], []])
    assert [[tuple(h) for h in found] for found in none] == [[tuple(h) for h in found] for found in plain]


@pytest.mark.parametrize("case", range(0, len(KINDS), 9))
@torch.no_grad()
def test_results_do_not_depend_on_batches(case: int) -> None:
    model = make(case, 20, *KINDS[case]).float()
    rng = random.Random(case)
    sources = [[rng.randrange(4, 20) for _ in range(length)] for length in [5, 1, 9, 3, 7, 7, 2, 0, 12, 7]]
    phrases = [[[rng.randrange(4, 20) for _ in range(2)] for _ in range(rng.choice([0, 1, 3]))] for _ in sources]
    assert 1 < sum(map(bool, phrases)) < len(sources) - 1
    config = SearchConfig(beam_size=3, n_best=2, max_length_ratio=0.5, max_length_offset=3)
    plain = dict(decode(model, sources, config, CPU))
    results = []
    for changes in ({"batch_size": 1}, {"batch_size": 9}, {}, {"batch_tokens": 16}):
        order = list(range(len(sources)))
        rng.shuffle(order)
        chosen = dataclasses.replace(config, **changes)
        decoded = decode(model, [sources[i] for i in order], chosen, CPU, phrases=[phrases[i] for i in order])
        results.append({order[i]: [(h.tokens, h.score) for h in hypotheses] for i, hypotheses in decoded})
    assert all(result == results[0] for result in results)
    for i, wanted in enumerate(phrases):
        assert all(contains(tokens, wanted) for tokens, _ in results[0][i])
        if not wanted:
            assert results[0][i] == [(h.tokens, h.score) for h in plain[i]]


@pytest.mark.parametrize("early_stopping", ["lookahead", "beam"])
@torch.no_grad()
def test_early_ends_change_little(early_stopping: str) -> None:
    """The bounds know what is missing: a search that ends early finds nearly always the same."""
    scores = []
    for seed in range(12):
        model = make(seed, 12, "transformer", "scaled", sharpness=3.0)
        source, mask = source_batch(SOURCES)
        config = SearchConfig(beam_size=10, max_length_ratio=1.0, max_length_offset=8)
        phrases = [[[4 + seed % 5, 5, 9, 10]], [[7], [8, 8]], [[5, 6, 7, 8, 9]], [[4]]]
        for how in ("never", early_stopping):
            config.early_stopping = how
            found = translate_batch(model, source, mask, config, phrases=phrases)
            scores.append([hypotheses[0].score for hypotheses in found])
    losses = np.array(scores[::2]) - np.array(scores[1::2])
    assert (losses >= -1e-12).all()
    assert np.median(losses) == pytest.approx(0.0, abs=1e-9)
    assert losses.mean() < 0.05


def test_states_count_phrases_in_random_texts() -> None:
    rng = random.Random(0)
    for _ in range(300):
        phrases = [[rng.choice([4, 5]) for _ in range(rng.randint(1, 4))] for _ in range(rng.randint(1, 3))]
        states = PhraseStates([phrases])
        state, tokens = states.start, list[int]()
        before = int(states.num_missing(state)[0])
        while len(tokens) < 12:
            wanted = states.next_tokens(state)[0].tolist()
            assert bool(wanted) == bool(before) == (not contains(tokens, phrases))
            after = states.follow(np.repeat(state, len(wanted)), np.array(wanted, np.int64))
            assert not wanted or states.num_missing(after).min() < before
            tokens.append(rng.choice([4, 5, 6, *wanted]))
            state = states.follow(state, np.array(tokens[-1:]))
            before = int(states.num_missing(state)[0])


@pytest.mark.parametrize(
    ("changes", "phrases", "message"),
    [
        (
            {"method": "sample"},
            [[4]],
            "search.method=sample: does not go with required phrases or a",
        ),
        ({"beam_size": 4, "diverse_groups": 2}, [[4]], "search.diverse_groups=2: does not go with required phrases"),
        ({"no_repeat_ngram_size": 3}, [[4]], "search.no_repeat_ngram_size=3: does not go with required phrases"),
        ({"replace_unknown": "forbid"}, [[4, UNK]], f"a required phrase holds the id {UNK}, which cannot be part of"),
        ({}, [[4, EOS]], f"a required phrase holds the id {EOS}, which cannot"),
        ({}, [[BOS]], f"a required phrase holds the id {BOS}, which cannot"),
        ({}, [[PAD]], f"a required phrase holds the id {PAD}, which cannot"),
        ({}, [[-1]], "a required phrase holds the id -1, which cannot"),
        ({}, [[]], "a required phrase is empty"),
        ({}, [[4] * 6], "required phrases need 6 tokens, and the model can write 5"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(changes: dict[str, Any], phrases: Any, message: str) -> None:
    model = make(0, 9, "transformer", "scaled", positions="learned", max_positions=6)
    with pytest.raises(ValueError, match=re.escape(message)):
        dict(decode(model, [[4], [5]], SearchConfig(**changes), CPU, phrases=[phrases, []]))


@torch.no_grad()
def test_the_longest_length_grows_so_that_all_phrases_fit() -> None:
    for kind, seed in itertools.product(MODELS, range(3)):
        model = make(seed, 12, kind, "scaled")
        model.output.bias.data[4:9] = -50.0  # no phrase is likely
        config = SearchConfig(beam_size=2, max_length_ratio=0.0, max_length_offset=2)
        phrases, prefix = [[4, 5, 6, 7, 8], [6, 5], [8]], [9, 9, 9]
        found = dict(decode(model, [[10, 11]], config, CPU, prefixes=[prefix], phrases=[phrases]))[0]
        assert contains(found[0].tokens, phrases)
        assert found[0].tokens[:3] == prefix
        assert len(found[0].tokens) <= 3 + 5 + 2 + 2
        assert math.isfinite(found[0].score)


def test_ends_count_among_the_most_probable_of_a_step() -> None:
    """Those of unlikely hypotheses, which stand first because they have all phrases, do not end a search."""
    source, mask = source_batch([[4]])
    config = SearchConfig(beam_size=2, early_stopping="beam")
    for log_probs, ended in (([-9, -8, -1, -2], 0), ([-1, -8, -9, -2], 1), ([-1, -2, -9, -8], 2)):
        beam = ConstrainedBeamSearch(make(0, 12), source, mask, config, phrases=[[[4]]])
        num = len(beam.log_probs)
        tokens, slots = np.tile([EOS, EOS, 5, 6], (num, 1)), np.zeros((num, 4), np.int64)
        values = np.full((num, 4), -np.inf)  # of sentences that are padding
        values[0] = log_probs
        beam._finish_hypotheses(Candidates(values, slots, tokens))
        assert beam.num_ended[0] == ended
