"""Constraints of decoding: lengths, forced prefixes, repeated n-grams."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.data import BOS, EOS, PAD, UNK
from nmt.search.config import SearchConfig
from nmt.search.scoring import Ints


class DecodingConstraints:
    """Which tokens may follow, with one entry per sentence.

    Args:
        config: see `SearchConfig`.
        lengths: of the sources, without end token.
        prefixes: ids that a translation must begin with, for each of the first sentences; None: none.
        max_target: longest target that the model can take, begin token counted; None: any.

    Raises:
        ValueError: a prefix contains an id that cannot be part of a translation.
    """

    def __init__(
        self, config: SearchConfig, lengths: Ints, prefixes: Sequence[Sequence[int]] | None, max_target: int | None
    ) -> None:
        self.no_repeat_ngram_size, self.forbid_unknown = config.no_repeat_ngram_size, config.replace_unknown == "forbid"
        self.max_lengths: Ints = np.ceil(config.max_length_ratio * lengths).astype(np.int64) + config.max_length_offset
        if max_target is not None:
            self.max_lengths = np.minimum(self.max_lengths, max_target - 1)
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

        def to_rows(per_sentence: NDArray[np.generic]) -> Tensor:
            rows = np.repeat(per_sentence, log_probs.size(0) // len(per_sentence))
            return torch.from_numpy(rows).to(log_probs.device)

        eos_log_probs = log_probs[:, EOS].clone()
        log_probs[:, PAD] = log_probs[:, BOS] = float("-inf")
        forced = forced_log_probs = None
        if position < self.prefixes.shape[1] and (self.prefixes[:, position] >= 0).any():
            forced = to_rows(self.prefixes[:, position])
            forced_log_probs = log_probs.gather(1, forced.clamp(0, log_probs.size(1) - 1).unsqueeze(1))
        if self.forbid_unknown:
            log_probs[:, UNK] = float("-inf")
        if self.no_repeat_ngram_size and position >= self.no_repeat_ngram_size:
            self._mask_repeated(log_probs, tokens)
            log_probs[:, EOS] = eos_log_probs
        too_short = position < self.min_lengths
        if too_short.any():
            mask = to_rows(too_short)
            log_probs[mask, EOS] = float("-inf")
            if self.no_repeat_ngram_size:  # where no other token is left the hypothesis has to end
                stuck = mask & (log_probs == float("-inf")).all(1)
                log_probs[stuck, EOS] = eos_log_probs[stuck]
        must_end = position >= self.max_lengths
        if must_end.any():
            mask = to_rows(must_end)
            log_probs[mask] = float("-inf")
            log_probs[mask, EOS] = eos_log_probs[mask]
        if forced is not None and forced_log_probs is not None:
            mask = forced >= 0
            log_probs[mask] = float("-inf")
            log_probs[mask, forced[mask]] = forced_log_probs[mask, 0]

    def _mask_repeated(self, log_probs: Tensor, tokens: Ints) -> None:
        size = self.no_repeat_ngram_size
        ngrams = np.lib.stride_tricks.sliding_window_view(tokens, size, axis=1)  # (R, t - size + 1, size)
        context = tokens[:, None, tokens.shape[1] - size + 1 :]  # (R, 1, size - 1)
        rows, places = np.nonzero((ngrams[:, :, :-1] == context).all(-1))
        repeated = torch.from_numpy(ngrams[rows, places, -1]).to(log_probs.device)
        log_probs[torch.from_numpy(rows).to(log_probs.device), repeated] = float("-inf")
