"""Reservoir sampling of the training text of tokenizers: in bounded memory, the same sample every time."""

import random
from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple


class ReservoirSample(NamedTuple):
    """A random sample of sentence pairs."""

    pairs: list[tuple[str, str]]
    num_read: int  # pairs it was sampled from


def reservoir_sample(pairs: Iterable[tuple[str, str]], max_pairs: int, max_characters: int) -> ReservoirSample:
    """Sample at most `max_pairs` of the pairs, with at most about `max_characters` characters on both sides of all of
    them together (0: no limit).

    Each pair is as likely as any other; within the limits the sample is all pairs, in order. Memory is bounded by twice
    `max_characters`: a sample that becomes larger is halved at random and continues as one of half the size.
    """
    rng = random.Random(0)
    sample: list[tuple[str, str]] = []
    num_read = characters = 0
    for pair in pairs:
        num_read += 1
        if max_pairs == 0 or num_read <= max_pairs:
            sample.append(pair)
        elif (slot := int(rng.random() * num_read)) < max_pairs:
            characters -= _num_characters(sample[slot])
            sample[slot] = pair
        else:
            continue
        characters += _num_characters(pair)
        if 0 < 2 * max_characters < characters and len(sample) > 1:
            rng.shuffle(sample)
            del sample[len(sample) // 2 :]
            max_pairs = len(sample)
            characters = sum(map(_num_characters, sample))
    if 0 < max_characters < characters:
        rng.shuffle(sample)
        num_kept = sum(total <= max_characters for total in accumulate(map(_num_characters, sample)))
        del sample[max(num_kept, 1) :]
    return ReservoirSample(sample, num_read)


def _num_characters(pair: tuple[str, str]) -> int:
    return len(pair[0]) + len(pair[1])
