"""Constraints of decoding: lengths, forced prefixes, repeated n-grams."""

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

    Raises:
        ValueError: a prefix contains an id that cannot be part of a translation.
    """

    def __init__(
        self, config: SearchConfig, lengths: Ints, prefixes: Sequence[Sequence[int]] | None, model: Seq2Seq
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
