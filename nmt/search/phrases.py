"""Beam search for translations that contain given phrases: dynamic beam allocation (Post & Vilar 2018)."""

import numpy as np
from torch import Tensor

from nmt.data import PAD
from nmt.search.beam_search import BeamSearch, Candidates
from nmt.search.constraints import to_device
from nmt.search.scoring import Floats, Ints


class ConstrainedBeamSearch(BeamSearch):
    """Beam search for translations that contain phrases; a sentence without any is searched as `BeamSearch` does.

    To the best continuations of a hypothesis come those that begin or continue a missing phrase. Candidates with
    equally many missing tokens are a bank: the beam takes the best of each bank, the second of each, and so on, so that
    a bank with few leaves its slots to others. Of the best of their banks the one with the fewest missing tokens comes
    first: each step brings one token at least, and all phrases are met before the longest length.
    """

    def _best_tokens(self, log_probs: Tensor) -> tuple[Floats, Ints]:
        best, tokens = super()._best_tokens(log_probs)
        wanted = self.rows.phrases.next_tokens(self.rows.phrase_states)
        tokens_wanted = wanted.clip(PAD)  # where there is none, one that is forbidden
        values: Floats = log_probs.gather(1, to_device(tokens_wanted, log_probs.device)).double().cpu().numpy()
        values[(wanted < 0) | (wanted[:, :, None] == tokens[:, None]).any(-1)] = -np.inf
        return np.concatenate([best, values], 1), np.concatenate([tokens, tokens_wanted], 1)

    def _select_candidates(self, best_log_probs: Floats, best_tokens: Ints) -> Candidates:
        size, width, num_sentences = self.group_size, best_log_probs.shape[1], len(self.rows.sentences)
        log_probs = (self.log_probs.reshape(-1, 1) + best_log_probs).reshape(num_sentences, -1)
        tokens = best_tokens.reshape(num_sentences, -1)
        slots = np.repeat(np.arange(size), width)[None].repeat(num_sentences, 0)
        missing = self._num_missing(slots, tokens)
        order = np.lexsort((-log_probs, missing))  # bank after bank, the best of each first
        candidates = Candidates(log_probs, slots, tokens).take(order)
        log_probs, missing = candidates.log_probs, np.take_along_axis(missing, order, 1)
        places = np.arange(order.shape[1])
        begins = np.diff(missing, axis=1, prepend=-1) != 0
        ranks = places - np.maximum.accumulate(np.where(begins, places, 0), axis=1)
        ranks[log_probs == -np.inf] = len(places)
        is_farthest = (ranks == 0) & (np.cumsum(ranks == 0, axis=1) == 1)
        return candidates.take(np.lexsort((-log_probs, ~is_farthest, ranks))[:, : 1 if size == 1 else 2 * size])

    def _finish_hypotheses(self, candidates: Candidates) -> None:
        super()._finish_hypotheses(candidates.take(np.argsort(-candidates.log_probs, axis=1, kind="stable")))

    def _num_missing(self, slots: Ints, tokens: Ints) -> Ints:
        states = np.take_along_axis(self.rows.phrase_states.reshape(len(slots), -1), slots, 1)
        return self.rows.phrases.num_missing(self.rows.phrases.follow(states, tokens))
