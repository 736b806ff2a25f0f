"""The model's side of a search: rows of hypotheses, memory once per sentence, and what is the same in any batch."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nmt.data import PAD
from nmt.models.seq2seq import DecoderState, Seq2Seq
from nmt.search.config import SearchConfig
from nmt.search.constraints import DecodingConstraints
from nmt.search.scoring import Ints

INITIAL_CACHE_LENGTH = 12
"""Target positions for which room is made at first."""

COMPACT_BELOW = 0.9
"""Sentences leave the batch when fewer than this share of it are unfinished: leaving costs a copy of all states."""


def min_rows_for_determinism(device: torch.device) -> int:
    """Rows below which a matrix product may round in another way than with more rows.

    Libraries have special routines for few rows. With at least this many, each row's result was found to be the same
    whatever the other rows were and however many (measured with MKL, 1 to 16 threads).
    """
    return max(16, 2 * torch.get_num_threads()) if device.type == "cpu" else 16


class DecoderRows:
    """K rows of hypotheses for every sentence, one sentence's after the other.

    Args:
        model: in evaluation mode.
        source: (B, S) ids with end token. source_mask: (B, S).
        config: see `SearchConfig`.
        prefixes: see `DecodingConstraints`.

    `sentences` says which sentence of the call each of the present ones is.
    """

    def __init__(
        self,
        model: Seq2Seq,
        source: Tensor,
        source_mask: Tensor,
        config: SearchConfig,
        prefixes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.model, self.num, self.width = model, source.size(0), config.num_hypotheses
        least = min_rows_for_determinism(source.device)
        padding = max(least - self.num, 0)
        memory = model.encode(_repeat_last(source, padding), _repeat_last(source_mask, padding))
        self.least = -(-least // self.width)
        num = max(self.num, self.least)  # the last are there to fill up
        self.memory: DecoderState = {name: tensor[:num] for name, tensor in memory.items()}
        every = torch.arange(num, device=source.device).repeat_interleave(self.width)
        start = {name: tensor.index_select(0, every) for name, tensor in model.init_state(self.memory).items()}
        self.state = model.allocate_cache(start, INITIAL_CACHE_LENGTH)
        self.sentences: Ints = np.arange(num)
        lengths = (source_mask.sum(1) - 1).cpu().numpy()
        fill = [0] * (num - self.num)
        self.constraints = DecodingConstraints(
            config,
            np.concatenate([lengths, np.array(fill, np.int64)]),
            None if prefixes is None else [*prefixes, *([] for _ in fill)],
            model.max_target,
        )
        self.tokens: Ints = np.full((num * self.width, INITIAL_CACHE_LENGTH), PAD, np.int64)
        self.position = 0
        self.device = source.device

    @property
    def is_real_sentence(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
        """Which of the present sentences belong to the call."""
        return self.sentences < self.num

    def step(self, last: Ints, *, attention: bool) -> tuple[Tensor, Tensor | None]:
        """One more token, `last` (R,) being the latest -> log-probabilities (R, V) with what may not follow at -inf,
        and the weights (R, L, H, 1, S) when asked for."""
        token = torch.from_numpy(last).to(self.device)
        logits, record, self.state = self.model.step(token, self.state, self.memory, attention=attention)
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        log_probs = torch.log_softmax(logits, dim=-1)
        self.constraints.mask_forbidden(log_probs, self.tokens[:, : self.position], self.position)
        return log_probs, None if record is None else record.cross

    def reorder(self, to: Ints, of: Ints) -> None:
        """Rows `to` go on from rows `of`, none of which is in `to`."""
        if len(to) == 0:
            return
        wanted = self.tokens[of, : self.position]
        differ = np.concatenate([wanted != self.tokens[to, : self.position], np.ones((len(to), 1), bool)], axis=1)
        since = differ.argmax(1) + 1  # step 0 reads the begin token, step i + 1 token i
        self.tokens[to, : self.position] = wanted
        self.model.reorder_state(self.state, *(torch.from_numpy(rows).to(self.device) for rows in (to, of, since)))

    def append(self, tokens: Ints) -> None:
        """The token of every row (R,)."""
        if self.position == self.tokens.shape[1]:
            self.tokens = np.concatenate([self.tokens, np.full_like(self.tokens, PAD)], axis=1)
        self.tokens[:, self.position] = tokens
        self.position += 1

    def compact(self, unfinished: Ints) -> Ints | None:
        """Of the present sentences only these are needed: the rows that stay, in order, when enough can leave."""
        num = len(self.sentences)
        wanted = max(len(unfinished), self.least)
        if wanted > COMPACT_BELOW * num:
            return None
        others = np.setdiff1d(np.arange(num), unfinished)
        stay = np.concatenate([unfinished, others[: wanted - len(unfinished)]])
        rows = (stay[:, None] * self.width + np.arange(self.width)).ravel()
        index, row_index = (torch.from_numpy(x).to(self.device) for x in (stay, rows))
        self.memory = {name: tensor.index_select(0, index) for name, tensor in self.memory.items()}
        self.state = {name: tensor.index_select(0, row_index) for name, tensor in self.state.items()}
        self.tokens, self.sentences = self.tokens[rows], self.sentences[stay]
        self.constraints.select(stay)
        return stay


def _repeat_last(tensor: Tensor, num: int) -> Tensor:
    return torch.cat([tensor, tensor[-1:].expand(num, -1)]) if num else tensor
