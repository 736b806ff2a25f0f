"""Constraints of decoding: lengths, forced prefixes, repeated n-grams."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.data import BOS, EOS, PAD
from nmt.search.config import SearchConfig
from nmt.search.scoring import Ints


class DecodingConstraints:
    """Which tokens may follow: lengths, forced prefixes, no n-gram twice. One entry per sentence.

    Args:
        config: see `SearchConfig`.
        lengths: of the sources, without end token.
        prefixes: ids that a translation must begin with, one list for each sentence; None: none.
        longest: target that the model can take, begin token counted; None: any.

    Raises:
        ValueError: a prefix holds an id that cannot stand in a translation.
    """

    def __init__(
        self, config: SearchConfig, lengths: Ints, prefixes: Sequence[Sequence[int]] | None, longest: int | None
    ) -> None:
        self.config = config
        self.most: Ints = np.ceil(config.max_length_ratio * lengths).astype(np.int64) + config.max_length_offset
        if longest is not None:
            self.most = np.minimum(self.most, longest - 1)
        least = np.ceil(config.min_length_ratio * lengths).astype(np.int64) + config.min_length_offset
        width = max(map(len, prefixes or [[]]), default=0)
        self.forced: Ints = np.full((len(lengths), width), -1, np.int64)
        for row, prefix in enumerate(prefixes or []):
            for token in prefix:
                if token < 0 or token in (PAD, BOS, EOS):
                    raise ValueError(f"a prefix holds the id {token}, which cannot stand in a translation")
            self.forced[row, : len(prefix)] = prefix
            self.most[row] = max(self.most[row], len(prefix))
        self.least: Ints = np.minimum(least, self.most)

    def select(self, sentences: Ints) -> None:
        """Only these sentences stay."""
        self.most, self.least, self.forced = self.most[sentences], self.least[sentences], self.forced[sentences]

    def mask_forbidden(self, log_probs: Tensor, tokens: Ints, position: int) -> None:
        """Sets the log_probs (R, V) of tokens that may not come at `position` to -inf.

        `tokens` (R, position) came before.
        """
        rows = log_probs.size(0) // len(self.most)
        size = log_probs.size(1)
        ends = log_probs[:, EOS].clone()
        log_probs[:, PAD] = log_probs[:, BOS] = float("-inf")
        forced = self.forced[:, position] if position < self.forced.shape[1] else np.full(len(self.most), -1)
        early = position < self.least
        kept = None
        if (forced >= 0).any():
            target = _spread(forced, rows, log_probs.device)
            kept = log_probs.gather(1, target.clamp(0, size - 1).unsqueeze(1))
        if self.config.no_repeat_ngram_size and position >= self.config.no_repeat_ngram_size:
            self._hide_repeated(log_probs, tokens, ends)
        if early.any():
            only_end = early & (position < self.most)
            mask = _spread(only_end, rows, log_probs.device)
            log_probs[mask, EOS] = float("-inf")
            if self.config.no_repeat_ngram_size:  # nothing else may be left: then the end must do
                stuck = mask & (log_probs == float("-inf")).all(1)
                log_probs[stuck, EOS] = ends[stuck]
        full = position >= self.most
        if full.any():
            mask = _spread(full, rows, log_probs.device)
            log_probs[mask] = float("-inf")
            log_probs[mask, EOS] = ends[mask]
        if kept is not None:
            mask = target >= 0
            log_probs[mask] = float("-inf")
            log_probs[mask, target[mask]] = kept[mask, 0]

    def _hide_repeated(self, log_probs: Tensor, tokens: Ints, ends: Tensor) -> None:
        num = self.config.no_repeat_ngram_size
        windows = np.lib.stride_tricks.sliding_window_view(tokens, num, axis=1)  # (R, t - num + 1, num)
        last = tokens[:, None, tokens.shape[1] - num + 1 :]  # (R, 1, num - 1)
        row, place = np.nonzero((windows[:, :, :-1] == last).all(-1))
        banned = windows[row, place, -1]
        log_probs[torch.from_numpy(row).to(log_probs.device), torch.from_numpy(banned).to(log_probs.device)] = float(
            "-inf"
        )
        log_probs[:, EOS] = ends


def _spread(values: NDArray[np.generic], rows: int, device: torch.device) -> Tensor:
    """One entry per sentence -> one for each of its rows."""
    return torch.from_numpy(np.repeat(values, rows)).to(device)
