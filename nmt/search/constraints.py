"""Constraints of decoding: lengths, forced prefixes, repeated n-grams, required phrases."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.data import BOS, EOS, PAD, UNK
from nmt.models.seq2seq import Seq2Seq
from nmt.search.config import SearchConfig
from nmt.search.scoring import Ints

Phrases = Sequence[Sequence[Sequence[int]]]
"""For each sentence the phrases that its translation must contain, as ids."""


def to_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """Copy numbers to the device; to a GPU without waiting for it, through memory that it can read."""
    tensor = torch.from_numpy(values)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


class DecodingConstraints:
    """Which tokens may follow, with one entry per sentence.

    Args:
        config: see `SearchConfig`.
        lengths: of the sources, without end token.
        prefixes: ids that a translation must begin with, for each of the first sentences; None: none.
        model: with the longest target that it can take, and its tags.
        required: tokens of phrases for which a translation needs room, for each of the first sentences.

    Raises:
        ValueError: a prefix contains an id that cannot be part of a translation, or the model has no room for phrases.
    """

    def __init__(
        self,
        config: SearchConfig,
        lengths: Ints,
        prefixes: Sequence[Sequence[int]] | None,
        model: Seq2Seq,
        required: Sequence[int] = (),
    ) -> None:
        self.no_repeat_ngram_size, self.forbid_unknown = config.no_repeat_ngram_size, config.replace_unknown == "forbid"
        self.max_lengths: Ints = np.ceil(config.max_length_ratio * lengths).astype(np.int64) + config.max_length_offset
        self.num_tags = model.num_tags
        if model.max_target_length is not None:
            self.max_lengths = np.minimum(self.max_lengths, model.max_target_length - 1)
        self.prefixes: Ints = np.full((len(lengths), max(map(len, prefixes or [[]]))), -1, np.int64)
        for sentence, prefix in enumerate(prefixes or []):
            for token in prefix:
                if token < 0 or token in (PAD, BOS, EOS):
                    raise ValueError(f"a prefix holds the id {token}, which cannot be part of a translation")
            self.prefixes[sentence, : len(prefix)] = prefix
            self.max_lengths[sentence] = max(self.max_lengths[sentence], len(prefix))
        for sentence, num in enumerate(required):
            num += int((self.prefixes[sentence] >= 0).sum()) * (num > 0)
            if (longest := model.max_target_length) is not None and num >= longest:
                raise ValueError(f"required phrases need {num} tokens, and the model can write {longest - 1}")
            self.max_lengths[sentence] = max(self.max_lengths[sentence], num)
        min_lengths = np.ceil(config.min_length_ratio * lengths).astype(np.int64) + config.min_length_offset
        self.min_lengths: Ints = np.minimum(min_lengths, self.max_lengths)

    def select(self, sentences: Ints) -> None:
        """Keep only these sentences."""
        self.max_lengths, self.min_lengths = self.max_lengths[sentences], self.min_lengths[sentences]
        self.prefixes = self.prefixes[sentences]

    def mask_forbidden(self, log_probs: Tensor, tokens: Ints, position: int) -> None:
        """Set the log-probabilities (R, V) of tokens that must not follow `tokens` (R, position) to -inf."""

        def rows_of(sentences: NDArray[np.bool_]) -> Tensor:
            """Return the rows of some sentences: indices, because masks on a GPU would be counted, and waited for."""
            rows = np.repeat(sentences, log_probs.size(0) // len(sentences))
            return to_device(np.flatnonzero(rows), log_probs.device)

        eos_log_probs = log_probs[:, EOS].clone()
        log_probs[:, PAD] = log_probs[:, BOS] = float("-inf")
        forced_rows = forced = forced_log_probs = None
        if position < self.prefixes.shape[1] and (self.prefixes[:, position] >= 0).any():
            tokens_here = np.repeat(self.prefixes[:, position], log_probs.size(0) // len(self.prefixes))
            forced_rows = rows_of(self.prefixes[:, position] >= 0)
            forced = to_device(tokens_here[tokens_here >= 0], log_probs.device)
            forced_log_probs = log_probs[forced_rows, forced]
        if self.forbid_unknown:
            log_probs[:, UNK] = float("-inf")
        if self.num_tags:
            log_probs[:, -self.num_tags :] = float("-inf")
        if self.no_repeat_ngram_size and position >= self.no_repeat_ngram_size:
            self._mask_repeated(log_probs, tokens)
            log_probs[:, EOS] = eos_log_probs
        too_short = position < self.min_lengths
        if too_short.any():
            rows = rows_of(too_short)
            log_probs[rows, EOS] = float("-inf")
            if self.no_repeat_ngram_size:  # where no other token is left the hypothesis has to end
                is_stuck = (log_probs[rows] == float("-inf")).all(1)
                log_probs[rows, EOS] = eos_log_probs[rows].masked_fill(~is_stuck, float("-inf"))
        must_end = position >= self.max_lengths
        if must_end.any():
            rows = rows_of(must_end)
            log_probs.index_fill_(0, rows, float("-inf"))
            log_probs[rows, EOS] = eos_log_probs[rows]
        if forced_rows is not None and forced is not None and forced_log_probs is not None:
            log_probs.index_fill_(0, forced_rows, float("-inf"))
            log_probs[forced_rows, forced] = forced_log_probs

    def _mask_repeated(self, log_probs: Tensor, tokens: Ints) -> None:
        size = self.no_repeat_ngram_size
        ngrams = np.lib.stride_tricks.sliding_window_view(tokens, size, axis=1)  # (R, t - size + 1, size)
        context = tokens[:, None, tokens.shape[1] - size + 1 :]  # (R, 1, size - 1)
        rows, places = np.nonzero((ngrams[:, :, :-1] == context).all(-1))
        repeated = to_device(np.stack([rows, ngrams[rows, places, -1]]), log_probs.device)
        log_probs[repeated[0], repeated[1]] = float("-inf")


def check_phrases(config: SearchConfig, phrases: Phrases = ()) -> None:
    """Raise ValueError if the search cannot hold phrases, or one is empty or has an id that cannot be translated to."""
    for name, needed in (("method", "beam"), ("diverse_groups", 1), ("no_repeat_ngram_size", 0)):
        if (value := getattr(config, name)) != needed:
            raise ValueError(f"search.{name}={value}: does not go with required phrases or a glossary; set {needed}")
    forbidden = {PAD, BOS, EOS, *([UNK] if config.replace_unknown == "forbid" else [])}
    for phrase in (phrase for wanted in phrases for phrase in wanted):
        if not phrase:
            raise ValueError("a required phrase is empty")
        if wrong := [token for token in phrase if token < 0 or token in forbidden]:
            raise ValueError(f"a required phrase holds the id {wrong[0]}, which cannot be part of a translation")


class PhraseStates:
    """Progress of hypotheses with the phrases of their sentences: an automaton whose states get numbers when met.

    A phrase is needed as often as it occurs, without overlaps, in the phrases of the list: twice if it is given twice,
    or once and as a part of another. Two phrases may overlap. One that breaks off goes on from its longest beginning
    that the hypothesis ends with, as in the search of Knuth, Morris & Pratt (1977).

    Arguments are those of `check_phrases`.
    """

    def __init__(self, phrases: Phrases) -> None:
        self._tokens = np.array([*{token for wanted in phrases for phrase in wanted for token in phrase}], np.int64)
        self._num_tokens = int(self._tokens.max(initial=0)) + 2
        self._phrases: list[dict[tuple[int, ...], int]] = []  # with the tokens needed, in all their occurrences
        # a state: the sentence, and of each of its phrases the tokens that were met, as a beginning of its occurrences
        self._states: dict[tuple[int, ...], int] = {}
        self._keys: list[tuple[int, ...]] = []
        self._next_tokens: list[list[int]] = []
        self._num_missing: list[int] = []
        self._followed: dict[int, int] = {}
        for wanted in phrases:
            texts = ["".join(map(chr, phrase)) for phrase in wanted]  # for str.count
            needed = [len(text) * sum(other.count(text) for other in texts) for text in texts]
            self._phrases.append(dict(zip(map(tuple, wanted), needed, strict=True)))
        starts = [self._number((i, *[0] * len(needed))) for i, needed in enumerate(self._phrases)]
        self.start: Ints = np.array(starts, np.int64)

    def num_missing(self, states: Ints) -> Ints:
        """Return how many tokens of phrases are missing; with one of `next_tokens` it falls."""
        return np.array(self._num_missing, np.int64)[states]

    def next_tokens(self, states: Ints) -> Ints:
        """Return the tokens that begin or continue a missing phrase, (R, A) of states (R,); -1 for none."""
        tokens = [self._next_tokens[state] for state in states.tolist()]
        width = max(map(len, tokens))
        return np.array([row + [-1] * (width - len(row)) for row in tokens], np.int64).reshape(len(tokens), width)

    def follow(self, states: Ints, tokens: Ints) -> Ints:
        """Return the states after one token more each, of states and tokens of the same shape."""
        known = np.where(np.isin(tokens, self._tokens), tokens, -1) + 1
        pairs, places = np.unique(states * self._num_tokens + known, return_inverse=True)
        after = np.array([self._follow(pair) for pair in pairs.tolist()], np.int64)
        return after[places].reshape(states.shape)

    def _follow(self, pair: int) -> int:
        if pair not in self._followed:
            state, token = pair // self._num_tokens, pair % self._num_tokens - 1
            sentence, *met = self._keys[state]
            for i, (phrase, needed) in enumerate(self._phrases[sentence].items()):
                if met[i] < needed:
                    begun = met[i] % len(phrase)
                    ends = ((*phrase[:begun], token)[start:] for start in range(begun + 2))
                    met[i] += next(len(end) for end in ends if phrase[: len(end)] == end) - begun
            self._followed[pair] = self._number((sentence, *met))
        return self._followed[pair]

    def _number(self, state: tuple[int, ...]) -> int:
        if state not in self._states:
            items = zip(self._phrases[state[0]].items(), state[1:], strict=True)
            missing = [(phrase, met % len(phrase), needed - met) for (phrase, needed), met in items if met < needed]
            # of the phrases that are begun one counts, the longest: only it is sure to go on with the next token
            num = sum(length + num for _, length, num in missing) - max((length for _, length, _ in missing), default=0)
            self._num_missing.append(num)
            self._next_tokens.append([*dict.fromkeys(phrase[length] for phrase, length, _ in missing)])
            self._states[state] = len(self._keys)
            self._keys.append(state)
        return self._states[state]
