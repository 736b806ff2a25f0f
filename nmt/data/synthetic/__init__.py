"""The built-in synthetic language pair: correct English and German with known word alignments, from a synchronous
grammar.

`generate` yields sentence pairs, `write` writes corpora of them. `words/` holds the words, `morphology` their inflected
forms; `sentence_sampler`, with `clause_sampler` and `phrase_sampler`, samples the content of a sentence (`semantics`),
and `realization`, with `noun_phrases` and `verb_phrases`, expresses it in both languages. The German is a function of
the English: a source sentence has one target sentence, so a perfect model reaches a perfect score.

Alignment convention. Words are runs of non-space characters; punctuation belongs to the word it touches. Every target
word has a link. Sure links:
  * each word to the word it translates, articles, pronouns, auxiliaries, prepositions and conjunctions included;
  * both parts of a separable verb ("ruft … an") to the verb and its particle ("picks … up"), and so its closed forms;
    the "zu" inside "anzurufen" adds "to";
  * a contraction to preposition and article ("zum" to "to the"), a compound to both nouns ("Apfelbaum" to "apple
    tree");
  * "kein" to "no", or to "not" and the article it absorbs; "kann" and "nicht" both to "cannot"; "nicht" to "not".
Possible links, for words that only one of the languages needs:
  * the finite verb to the "do" that supports it;
  * an infinitive to the "to" of "wants to", "had to", "was able to", "is allowed to";
  * the German article in "das Haus des Lehrers" to "teacher's" in "the teacher's house".
"""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

from nmt.alignment.pharaoh import gold_line
from nmt.data.synthetic.semantics import SyntheticPair
from nmt.data.synthetic.sentence_sampler import SentenceSampler
from nmt.runtime.files import atomic_write, open_output

__all__ = ["SyntheticPair", "digest", "generate", "write_corpora"]

_LONG: Final = 16  # from this minimum on, clauses are joined until the sentence is long enough
_NUM_NON_MONOTONE: Final = 8  # non-monotone examples at the head of valid and test
_MAX_REPEATS: Final = 200_000


def generate(num: int, *, seed: int, min_words: int = 3, max_words: int = 30) -> Iterator[SyntheticPair]:
    """Yield `num` sentence pairs whose two sides both have `min_words` to `max_words` words; sources may repeat.

    The sentences are a function of the arguments alone. The shortest sentence has 3 words; a `min_words` of 16 or
    more is reached by joining main clauses.

    Raises:
        ValueError: the range of lengths is empty or lies below 3 words.
    """
    if max_words < 3 or min_words > max_words:
        raise ValueError(
            f"min_words={min_words}, max_words={max_words}: no sentence has such a length; "
            "max_words must be at least 3 and not below min_words"
        )
    return islice(_sample_pairs(Random(f"generate/{seed}"), min_words, max_words), num)


def write_corpora(directory: Path, *, seed: int, num_train: int, num_valid: int, num_test: int, num_long: int) -> None:
    """Write the corpora train, valid, test and test_long as `NAME.en`, `NAME.de` and `NAME.gold` into `directory`.

    No source sentence occurs twice, within a corpus or across them. Sentences have 3 to 30 words a side, those of
    test_long 31 to 70. A line of `NAME.gold` holds the links of one pair, "i-j" when sure and "ipj" when only
    possible, source word first, counted from 0. The smaller corpora do not depend on `num_train`. Files appear under
    their names when complete.

    Raises:
        ValueError: a count is negative, or larger than the number of distinct sentences that sampling can reach.
    """
    counts = {"test_long": num_long, "test": num_test, "valid": num_valid, "train": num_train}
    for name, num in counts.items():
        if num < 0:
            raise ValueError(f"num_{name.removeprefix('test_')}={num}: must be 0 or more")
    directory.mkdir(parents=True, exist_ok=True)
    seen: set[int] = set()  # hashes, not sentences: a large training corpus must fit in memory
    for name, num in counts.items():
        min_words, max_words = (31, 70) if name == "test_long" else (3, 30)
        pairs = _sample_pairs(Random(f"{name}/{seed}"), min_words, max_words)
        num_non_monotone = _NUM_NON_MONOTONE if name in ("valid", "test") else 0
        _write_corpus(directory / name, _distinct(pairs, num, seen, num_non_monotone))


def digest() -> str:
    """Return a hash of the grammar's code and words, which changes whenever the output of `write` might."""
    directory = Path(__file__).parent
    paths = sorted([*directory.glob("*.py"), *directory.glob("words/*.txt")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _distinct(
    pairs: Iterator[SyntheticPair], num: int, seen: set[int], num_non_monotone: int
) -> Iterator[SyntheticPair]:
    """Yield `num` pairs whose sources are not in `seen`; the first `num_non_monotone` are non-monotone examples."""
    num_pairs = num_repeats = 0
    while num_pairs < num:
        pair = next(pairs)
        if num_pairs < num_non_monotone and not _is_non_monotone(pair):
            continue
        key = int.from_bytes(hashlib.blake2b(pair.source.encode(), digest_size=8).digest(), "big")
        if key in seen:
            num_repeats += 1
            if num_repeats > _MAX_REPEATS + 10 * num:
                raise ValueError(
                    f"the built-in grammar found only {num_pairs} of {num} new sentences; ask for fewer pairs"
                )
            continue
        seen.add(key)
        num_pairs += 1
        yield pair


def _is_non_monotone(pair: SyntheticPair) -> bool:
    """Return whether a word and its counterpart lie far apart in a sentence that is not long."""
    return pair.source.count(" ") < 15 and max(abs(i - j) for i, j in pair.sure) >= 5


def _write_corpus(prefix: Path, pairs: Iterator[SyntheticPair]) -> None:
    with ExitStack() as stack:
        paths = [stack.enter_context(atomic_write(Path(f"{prefix}.{suffix}"))) for suffix in ("en", "de", "gold")]
        files = [stack.enter_context(open_output(path)) for path in paths]
        for pair in pairs:
            for file, line in zip(files, (pair.source, pair.target, gold_line(pair.sure, pair.possible)), strict=True):
                file.write(f"{line}\n".encode())


def _sample_pairs(random: Random, min_words: int, max_words: int) -> Iterator[SyntheticPair]:
    sampler = SentenceSampler(random.random)
    while True:
        if min_words >= _LONG:
            pair = sampler.long_sentence(min_words + int(random.random() * (max_words - min_words + 1)))
        else:
            pair = sampler.sentence()
        lengths = pair.source.count(" ") + 1, pair.target.count(" ") + 1
        if min_words <= min(lengths) and max(lengths) <= max_words:
            yield pair
