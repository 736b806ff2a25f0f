"""The state of a decoder for all hypotheses of a batch, whatever the search method."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nmt.data import BOS, EOS, PAD
from nmt.models.seq2seq import DecoderState, Seq2Seq
from nmt.search.config import SearchConfig
from nmt.search.constraints import DecodingConstraints, Phrases, PhraseStates, to_device
from nmt.search.scoring import Bools, Floats, Hypothesis, Ints

INITIAL_CACHE_LENGTH = 12
"""Target positions allocated at the start."""

COMPACT_BELOW = 0.9
"""The batch is compacted when less than this fraction of it is unfinished: compaction costs a copy of all states."""


def min_rows_for_determinism(device: torch.device) -> int:
    """Return the number of rows below which a matrix product may round in another way than with more rows.

    Libraries have special routines for few rows. With at least this many, each row's result was found to be the same
    whatever the other rows were and however many (measured with MKL, 1 to 16 threads).
    """
    return max(16, 2 * torch.get_num_threads()) if device.type == "cpu" else 16


def expand_indices(indices: Ints, width: int) -> Ints:
    """Return the indices of the `width` consecutive entries that belong to each index."""
    return (indices[:, None] * width + np.arange(width)).ravel()


class DecoderRows:
    """K rows of hypotheses for every sentence, those of one sentence next to each other; R rows in all.

    `sentences` maps the sentences that are still in the batch to those of the call; numbers from `num_sentences` on are
    padding. `attention_weights` (R, L, H, t, S) and `coverage` (R, S) are None unless they are needed. `phrase_states`
    (R,) are states of `phrases`.

    Arguments are those of `translate_batch`; `collect_attention` keeps the attention weights of all steps.
    """

    def __init__(
        self,
        model: Seq2Seq,
        source: Tensor,
        source_mask: Tensor,
        config: SearchConfig,
        prefixes: Sequence[Sequence[int]] | None = None,
        phrases: Phrases | None = None,
        *,
        collect_attention: bool = False,
    ) -> None:
        self.model, self.config, self.device = model, config, source.device
        self.num_sentences, self.width = source.size(0), config.num_hypotheses
        min_rows = min_rows_for_determinism(source.device)
        padded = torch.arange(max(self.num_sentences, min_rows), device=source.device).clamp(max=self.num_sentences - 1)
        memory = model.encode(source[padded], source_mask[padded])
        self.min_sentences = -(-min_rows // self.width)
        num = max(self.num_sentences, self.min_sentences)
        # contiguous, as `compact` leaves them: products of tensors with other strides may round in another way
        self.memory: DecoderState = {name: tensor[:num].contiguous() for name, tensor in memory.items()}
        indices = torch.arange(num, device=source.device).repeat_interleave(self.width)
        state = {name: tensor.index_select(0, indices) for name, tensor in model.init_state(self.memory).items()}
        self.state = model.allocate_cache(state, INITIAL_CACHE_LENGTH)
        self.sentences: Ints = np.arange(num)
        self.source_mask = source_mask.cpu().numpy()
        lengths = np.zeros(num, np.int64)
        lengths[: self.num_sentences] = self.source_mask.sum(1) - 1
        self.has_phrases = phrases is not None
        self.phrases = PhraseStates(phrases or [[]] * self.num_sentences)
        self.phrase_states: Ints = np.repeat(self.phrases.start[padded[:num].cpu().numpy()], self.width)
        required = self.phrases.num_missing(self.phrases.start).tolist()
        self.constraints = DecodingConstraints(config, lengths, prefixes, model, required)
        self.tokens: Ints = np.full((num * self.width, INITIAL_CACHE_LENGTH), PAD, np.int64)
        self.position = 0
        self.collect_attention = collect_attention
        self.attention_weights: Tensor | None = None
        coverage = np.zeros((num * self.width, source.size(1)))
        self.coverage: Floats | None = coverage if config.coverage_penalty else None

    @property
    def is_real_sentence(self) -> Bools:
        """Which sentences of the batch belong to the call and are not padding."""
        return self.sentences < self.num_sentences

    def step(self) -> tuple[Tensor, Tensor | None]:
        """Run the decoder on the last token of every row.

        Returns:
            log-probabilities (R, V), -inf where constraints forbid a token; attention weights (R, L, H, 1, S) or None.
        """
        last = self.tokens[:, self.position - 1].copy() if self.position else np.full(len(self.tokens), BOS)
        needs_weights = self.collect_attention or self.coverage is not None
        logits, weights, self.state = self.model.step(
            to_device(last, self.device), self.state, self.memory, attention=needs_weights
        )
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        log_probs = torch.log_softmax(logits, dim=-1)
        self.constraints.mask_forbidden(log_probs, self.tokens[:, : self.position], self.position)
        if self.has_phrases:  # a translation ends with all of them
            rows = np.flatnonzero(self.phrases.num_missing(self.phrase_states))
            log_probs[to_device(rows, self.device), EOS] = float("-inf")
        return log_probs, None if weights is None else weights.cross

    def record_attention(self, weights: Tensor | None) -> None:
        """Add the attention weights of a step to the coverage and to those collected."""
        if self.coverage is not None:
            if weights is None:
                raise ValueError(
                    f"search.coverage_penalty={self.config.coverage_penalty}: the model has no attention; set it to 0"
                )
            self.coverage += weights.mean((1, 2))[:, 0].double().cpu().numpy()
        if self.collect_attention and weights is not None:
            collected = self.attention_weights
            self.attention_weights = weights if collected is None else torch.cat([collected, weights], dim=3)

    def hypothesis(self, row: int, score: float, log_prob: float) -> Hypothesis:
        """Return the tokens of a row as a finished hypothesis."""
        weights = None if self.attention_weights is None else self.attention_weights[row].clone()
        truncated = bool(self.position >= self.constraints.max_lengths[row // self.width])
        return Hypothesis(self.tokens[row, : self.position].tolist(), score, log_prob, weights, truncated)

    def reorder(self, targets: Ints, sources: Ints) -> None:
        """Overwrite rows `targets` with rows `sources`, which have no row in common."""
        if len(targets) == 0:
            return
        tokens = self.tokens[sources, : self.position]
        differs = np.ones((len(targets), self.position + 1), bool)
        differs[:, :-1] = tokens != self.tokens[targets, : self.position]
        first_step = differs.argmax(1) + 1  # step 0 reads the begin token, step i + 1 token i
        self.tokens[targets, : self.position] = tokens
        indices = to_device(np.stack([targets, sources, first_step]), self.device).unbind()
        self.model.reorder_state(self.state, *indices)
        if self.attention_weights is not None:
            self.attention_weights[indices[0]] = self.attention_weights[indices[1]]
        if self.coverage is not None:
            self.coverage[targets] = self.coverage[sources]
        self.phrase_states[targets] = self.phrase_states[sources]

    def append(self, tokens: Ints) -> None:
        """Append a token to every row, (R,)."""
        if self.position == self.tokens.shape[1]:
            self.tokens = np.concatenate([self.tokens, np.full_like(self.tokens, PAD)], axis=1)
        if self.has_phrases:
            self.phrase_states = self.phrases.follow(self.phrase_states, tokens)
        self.tokens[:, self.position] = tokens
        self.position += 1

    def compact(self, unfinished: Ints) -> Ints | None:
        """Remove sentences that are not among `unfinished` (indices in `sentences`) from the batch, if that pays.

        Return the indices that are kept, in their new order, or None if nothing was removed.
        """
        num = len(self.sentences)
        num_kept = max(len(unfinished), self.min_sentences)
        if num_kept > COMPACT_BELOW * num:
            return None
        finished = np.setdiff1d(np.arange(num), unfinished)
        kept = np.concatenate([unfinished, finished[: num_kept - len(unfinished)]])
        rows = expand_indices(kept, self.width)
        kept_tensor, rows_tensor = (torch.from_numpy(indices).to(self.device) for indices in (kept, rows))
        self.memory = {name: tensor.index_select(0, kept_tensor) for name, tensor in self.memory.items()}
        self.state = {name: tensor.index_select(0, rows_tensor) for name, tensor in self.state.items()}
        self.tokens, self.sentences = self.tokens[rows], self.sentences[kept]
        self.phrase_states = self.phrase_states[rows]
        self.coverage = None if self.coverage is None else self.coverage[rows]
        self.attention_weights = None if self.attention_weights is None else self.attention_weights[rows_tensor]
        self.constraints.select(kept)
        return kept
