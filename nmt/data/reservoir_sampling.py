"""The part of a text that tokenizers are trained on: drawn at random, in bounded memory, the same one every time."""

import random
from collections.abc import Iterable
from itertools import accumulate
from typing import NamedTuple


class ReservoirSample(NamedTuple):
    pairs: list[tuple[str, str]]
    num_read: int  # pairs it was drawn from


def reservoir_sample(pairs: Iterable[tuple[str, str]], max_pairs: int, max_sentence_chars: int) -> ReservoirSample:
    """At most `max_training_pairs` of the pairs, with at most about `max_sentence_chars` on both sides together (0: no
    limit).

    Each pair is as likely as any other (reservoir sampling); all of them, in order, when they are within the limits.
    Memory is bounded by twice `max_sentence_chars`: a sample that becomes larger is halved at random and goes on as one
    of half the size.
    """
    rng = random.Random(0)
    sample: list[tuple[str, str]] = []
    num_read = characters = 0
    for pair in pairs:
        if max_pairs == 0 or num_read < max_pairs:
            sample.append(pair)
        elif (slot := int(rng.random() * (num_read + 1))) < max_pairs:
            characters -= _characters(sample[slot])
            sample[slot] = pair
        else:
            num_read += 1
            continue
        num_read += 1
        characters += _characters(pair)
        if 0 < 2 * max_sentence_chars < characters and len(sample) > 1:
            rng.shuffle(sample)
            del sample[len(sample) // 2 :]
            max_pairs = len(sample)
            characters = sum(map(_characters, sample))
    if 0 < max_sentence_chars < characters:
        rng.shuffle(sample)
        num_kept = sum(total <= max_sentence_chars for total in accumulate(map(_characters, sample)))
        del sample[max(num_kept, 1) :]
    return ReservoirSample(sample, num_read)


def _characters(pair: tuple[str, str]) -> int:
    return len(pair[0]) + len(pair[1])
