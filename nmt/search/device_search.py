"""Beam search as fixed operations on the device: no step waits for the processor, and a GPU can repeat a recorded one.

It is the search of `nmt.search.beam_search`, which says what a step does and why; here every number is a tensor, no
shape depends on a value, and hypotheses that cannot win stay in the batch as rows that nothing reads.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from nmt.attention.rotary import MAX_FIXED_POSITIONS
from nmt.data import BOS, EOS, PAD, UNK
from nmt.models.seq2seq import DecoderState, Seq2Seq
from nmt.runtime.logs import warn_once
from nmt.runtime.memory import is_oom_error
from nmt.search.beam_search import merge_groups
from nmt.search.config import SearchConfig
from nmt.search.constraints import DecodingConstraints, to_device
from nmt.search.decoder_state import min_rows_for_determinism
from nmt.search.scoring import MIN_COVERAGE, Hypothesis, Ints, length_norm

CACHE_STEPS = 32
"""Target positions for which caches have room at first; they double, so that short translations pay for short ones."""
POLL_STEPS = 4
"""Steps between two looks at whether the search is done. Each waits for the steps before; those in between do not."""
NEVER = float("-inf")


def searches_on_device(
    model: Seq2Seq, width: int, config: SearchConfig, prefixes: Sequence[Sequence[int]] | None = None
) -> bool:
    """Return whether a GPU searches a batch of this width by itself: for a model whose states can be of fixed size.

    Not where texts take part in the search (`n_best` > 1 without groups, of which each text is wanted once), or where a
    translation may be longer than the tables of positions.
    """
    longest = max(config.max_length_ratio * width + config.max_length_offset, *map(len, prefixes or [[]]))
    has_texts = config.n_best > 1 and config.diverse_groups == 1
    fits = longest < MAX_FIXED_POSITIONS and model.has_fixed_states
    return fits and config.method == "beam" and not has_texts


class DeviceSearches:
    """The searches of one model on a GPU, the last of which is used again for batches of its shape, with the steps
    recorded as CUDA graphs.

    Memory of a graph belongs to the autocast context that it was recorded in: searches must not be used after it.

    Arguments are those of `translate_batch`.
    """

    def __init__(
        self, model: Seq2Seq, config: SearchConfig, device: torch.device, text: Callable[[list[int]], Hashable]
    ) -> None:
        self.model, self.config, self.device, self.text = model, config, device, text
        self.last: DeviceBeamSearch | None = None

    def __call__(
        self, source: Tensor, source_mask: Tensor, prefixes: Sequence[Sequence[int]] | None
    ) -> list[list[Hypothesis]]:
        """Search a batch. Its size is rounded up to a power of two, so that few shapes occur."""
        num, width = 1 << (source.size(0) - 1).bit_length(), source.size(1)
        if self.last is None or (self.last.num_sentences, self.last.width) != (num, width):
            self.last = None  # its memory first
            self.last = DeviceBeamSearch(self.model, num, width, self.config, self.device, cuda_graph, self.text)
        self.last.start(source, source_mask, prefixes)
        return self.last.run()


def cuda_graph(step: Callable[[], None]) -> Callable[[], None]:
    """Return the step as a CUDA graph, or as it is, with a warning, where the device cannot record it."""
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
    except RuntimeError as error:
        if is_oom_error(error):
            raise
        reason = str(error).partition("\n")[0]
        warn_once(f"a step of the search cannot be recorded as a CUDA graph, so decoding is slower ({reason})")
        return step
    return graph.replay


class DeviceBeamSearch:
    """Beam search over batches of at most `num_sentences` sentences and sources of `width` tokens.

    Args:
        model: in evaluation mode.
        num_sentences, width: the shape of every batch; `start` pads what is smaller.
        config: of beam search, with n_best=1 or groups.
        record: turns a step, a function that always does the same operations on the same tensors, into one that does
            them faster, such as a CUDA graph.
        text: see `translate_batch`.

    Raises:
        ValueError: a coverage penalty for a model without attention.
    """

    position: Tensor
    log_probs: Tensor
    token: Tensor
    scores: Tensor
    finished_log_probs: Tensor
    finished_at: Tensor
    num_ended: Tensor
    max_lengths: Tensor
    min_lengths: Tensor
    prefixes: Tensor
    tokens: Tensor
    parents: Tensor
    history: Tensor
    coverage: Tensor
    source_mask: Tensor

    def __init__(
        self,
        model: Seq2Seq,
        num_sentences: int,
        width: int,
        config: SearchConfig,
        device: torch.device,
        record: Callable[[Callable[[], None]], Callable[[], None]] = lambda step: step,
        text: Callable[[list[int]], Hashable] = tuple,
    ) -> None:
        self.model, self.config, self.device, self.record, self.text = model, config, device, record, text
        self.beam, self.groups = config.beam_size, config.diverse_groups
        self.num_sentences = num_sentences
        self.num = max(num_sentences, -(-min_rows_for_determinism(device) // self.beam))
        self.size = self.beam // self.groups  # slots of a group
        self.pool = config.n_best if self.groups == 1 else config.beam_size  # finished hypotheses of a group
        self.width, self.rows = width, self.num * self.beam
        self.steps = int(np.ceil(config.max_length_ratio * (width - 1))) + config.max_length_offset + 1
        if model.max_target_length is not None:
            self.steps = min(self.steps, model.max_target_length)
        self.memory: DecoderState = {}
        self.states: dict[int, DecoderState] = {}  # by the number of positions they have room for
        self.capacity = 0
        self.recorded: dict[int, Callable[[], None]] = {}  # steps, of each of these
        self.has_prefixes = False
        self.norms = self._tensor(length_norm(config, np.arange(self.steps + config.lookahead + 4)))
        banned = [PAD, BOS, *([UNK] if config.replace_unknown == "forbid" else [])]
        self.banned = torch.tensor(banned, device=device)
        self.first_row = torch.arange(self.num * self.groups, device=device).view(-1, 1) * self.size

    def start(self, source: Tensor, source_mask: Tensor, prefixes: Sequence[Sequence[int]] | None = None) -> None:
        """Begin the search of a batch on the CPU: source (B, S) and mask (B, S), B and S at most those of the search.
        Arguments and errors as of `translate_batch`."""
        num = source.size(0)
        lengths = np.zeros(self.num, np.int64)
        lengths[:num] = source_mask.sum(1).numpy() - 1
        self.constraints = DecodingConstraints(self.config, lengths, prefixes, self.model)
        longest = int(self.constraints.max_lengths.max()) + 1
        self.num_real, self.max_steps = num, longest
        has_prefixes = self.constraints.prefixes.shape[1] > 0
        if longest > self.steps or has_prefixes != self.has_prefixes:  # a prefix may be longer than the options allow
            self.steps, self.has_prefixes, self.recorded = max(longest, self.steps), has_prefixes, {}
            self.norms = self._tensor(length_norm(self.config, np.arange(self.steps + self.config.lookahead + 4)))
        padded = torch.arange(self.num).clamp(max=num - 1)
        ids = torch.nn.functional.pad(source, (0, self.width - source.size(1)), value=PAD)[padded]
        ids = to_device(ids.numpy(), self.device)
        mask = ids != PAD
        memory = self.model.encode(ids, mask)
        _fill(self.memory, {name: tensor.contiguous() for name, tensor in memory.items()})
        rows = torch.arange(self.num, device=self.device).repeat_interleave(self.beam)
        state = {name: x.index_select(0, rows) for name, x in self.model.init_state(self.memory).items()}
        fixed = self.model.fixed_state(state, min(CACHE_STEPS, self.steps))
        grows = any(fixed[name] is not state.get(name) for name in fixed)
        self._use_state(fixed, min(CACHE_STEPS, self.steps) if grows else self.steps)
        self._start_numbers(num, mask)

    def _use_state(self, state: DecoderState, capacity: int) -> None:
        self.capacity, kept = capacity, self.states.setdefault(capacity, {})
        if not _fill(kept, state):
            self.recorded.pop(capacity, None)
        for name in kept.keys() - state.keys():  # as coverage, which begins with zeros
            kept[name].zero_()

    def _start_numbers(self, num: int, mask: Tensor) -> None:
        groups, pool, device = self.num * self.groups, self.pool, self.device
        first = torch.full((groups, self.size), NEVER, dtype=torch.float64, device=device)
        first[: num * self.groups, 0] = 0.0
        constraints, longest = self.constraints, self.steps
        prefixes = np.full((self.num, longest + 1), -1, np.int64)
        prefixes[:, : constraints.prefixes.shape[1]] = constraints.prefixes
        numbers = {
            "position": torch.zeros(1, dtype=torch.long, device=device),
            "log_probs": first,
            "token": torch.full((self.rows,), BOS, device=device),
            "scores": torch.full_like(first[:, :1], NEVER).repeat(1, pool),  # of finished hypotheses, best first
            "finished_log_probs": torch.zeros(groups, pool, dtype=torch.float64, device=device),
            "finished_at": torch.zeros(groups, pool, dtype=torch.long, device=device),  # position · rows + row
            "num_ended": torch.zeros(groups, dtype=torch.long, device=device),
            "max_lengths": self._by_row(constraints.max_lengths),
            "min_lengths": self._by_row(constraints.min_lengths),
            "prefixes": self._by_row(prefixes),
            "tokens": torch.full((longest + 1, self.rows), PAD, device=device),  # of each step, appended to its parents
            "parents": torch.zeros(longest + 1, self.rows, dtype=torch.long, device=device),
            "history": torch.full((self.rows, longest + 1), PAD, device=device),  # of no_repeat_ngram_size
            "coverage": torch.zeros(self.rows, self.width, dtype=torch.float64, device=device),
            "source_mask": mask.repeat_interleave(self.beam, 0),
        }
        _fill(self.__dict__, numbers)

    def _by_row(self, values: Ints) -> Tensor:
        return to_device(np.repeat(values, self.beam, axis=0), self.device)

    def _tensor(self, values: "np.typing.NDArray[np.float64]") -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)

    def run(self) -> list[list[Hypothesis]]:
        """Search until every sentence is done; return what `translate_batch` does."""
        for number in range(self.max_steps):
            self.step(number)
            if number % POLL_STEPS == POLL_STEPS - 1 and not bool((self.log_probs > NEVER).any()):
                break
        return self.results()

    def step(self, number: int) -> None:
        """Extend every live hypothesis by one token; `number` is that of the step, from 0."""
        if number == self.capacity:
            capacity = min(2 * self.capacity, self.steps)
            self._use_state(self.model.fixed_state(self.states[self.capacity], capacity), capacity)
        step = self.recorded.get(self.capacity)
        if step is None:  # the first one of its shapes also prepares what recording must not
            self._step()
            self.recorded[self.capacity] = self._record
        else:
            step()

    def _record(self) -> None:
        self.recorded[self.capacity] = step = self.record(self._step)
        step()

    def _step(self) -> None:
        config, state = self.config, self.states[self.capacity]
        logits, weights, after = self.model.step(self.token, state, self.memory, attention=config.coverage_penalty > 0)
        if config.coverage_penalty:
            if weights is None:
                raise ValueError(
                    f"search.coverage_penalty={config.coverage_penalty}: the model has no attention; set it to 0"
                )
            self.coverage.add_(weights.cross.mean((1, 2))[:, 0])
        logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
        log_probs = torch.log_softmax(logits, dim=-1)
        self._mask_forbidden(log_probs)
        num = 1 if self.beam == 1 else self.beam + self.size
        best, tokens = log_probs.topk(min(num, log_probs.size(1)), dim=-1)
        rows = self._advance_beams(*self._candidates(best.double(), tokens))
        for name, tensor in after.items():
            if name in state:
                state[name].copy_(tensor.index_select(0, rows))
            else:  # in the first step
                state[name] = tensor.index_select(0, rows)

    def _mask_forbidden(self, log_probs: Tensor) -> None:
        """Do what `DecodingConstraints.mask_forbidden` does, for tensors."""
        config, position = self.config, self.position
        end = log_probs[:, EOS].clone()
        ends = end
        if self.has_prefixes:
            forced = self.prefixes.index_select(1, position)  # (R, 1), -1 where nothing is
            kept = log_probs.gather(1, forced.clamp(0, log_probs.size(1) - 1))
        log_probs.index_fill_(1, self.banned, NEVER)
        if self.model.num_tags:
            log_probs[:, -self.model.num_tags :].fill_(NEVER)
        size = config.no_repeat_ngram_size
        if size:
            self._mask_repeated(log_probs, size)
        if config.min_length_ratio or config.min_length_offset:
            is_short = position < self.min_lengths
            if size:  # where no other token is left the hypothesis has to end
                log_probs[:, EOS] = NEVER
                is_short = is_short & (log_probs > NEVER).any(1)
            ends = ends.masked_fill(is_short, NEVER)
        must_end = position >= self.max_lengths
        ends = torch.where(must_end, end, ends)
        log_probs.masked_fill_(must_end.unsqueeze(1), NEVER)
        log_probs[:, EOS] = ends
        if self.has_prefixes:
            log_probs.masked_fill_(forced >= 0, NEVER)
            index = forced.clamp(0, log_probs.size(1) - 1)  # where nothing is forced, PAD, which is forbidden
            log_probs.scatter_(1, index, torch.where(forced >= 0, kept, NEVER))

    def _mask_repeated(self, log_probs: Tensor, size: int) -> None:
        """Forbid the tokens that would complete an n-gram of the row a second time."""
        history, position = self.history, self.position
        places = torch.arange(history.size(1) - size + 1, device=self.device)
        is_past = places <= position - size  # the n-gram is complete
        matches = is_past.expand(self.rows, -1)
        for i in range(size - 1):
            context = history.index_select(1, (position - size + 1 + i).clamp(min=0))
            matches = matches & (history[:, i : i + len(places)] == context)
        repeated = history[:, size - 1 :].masked_fill(~matches, PAD)
        log_probs.scatter_(1, repeated, NEVER)

    def _candidates(self, best: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probabilities, slots and tokens of every group's candidates, best first, (N · G, C) each."""
        size, width = self.size, best.size(1)
        num = 1 if self.beam == 1 else min(2 * size, size * width)
        log_probs = (self.log_probs.unsqueeze(-1) + best.view(-1, size, width)).view(self.num, self.groups, -1)
        tokens = tokens.view(self.num, self.groups, -1)
        orders: list[Tensor] = []
        penalized: list[Tensor] = []
        for group in range(self.groups):
            scores = log_probs[:, group]
            if group:
                counts = (tokens[:, group].unsqueeze(-1) == torch.cat(penalized, 1).unsqueeze(1)).sum(-1)
                scores = scores - self.config.diversity_penalty * counts
            values, order = scores.sort(dim=1, descending=True, stable=True)
            values, order = values[:, :num], order[:, :num]
            orders.append(order)
            if group < self.groups - 1:
                chosen = tokens[:, group].gather(1, order)
                is_dead = (chosen == EOS) | (values == NEVER)
                live_first = is_dead.byte().sort(dim=1, stable=True).indices[:, :size]
                penalized.append(chosen.masked_fill(is_dead, -1).gather(1, live_first))
        order = torch.stack(orders, 1) if self.groups > 1 else orders[0].unsqueeze(1)
        chosen_log_probs, chosen_tokens = log_probs.gather(2, order), tokens.gather(2, order)
        slots = torch.div(order, width, rounding_mode="floor")
        return chosen_log_probs.view(-1, num), slots.view(-1, num), chosen_tokens.view(-1, num)

    def _advance_beams(self, log_probs: Tensor, slots: Tensor, tokens: Tensor) -> Tensor:
        """Finish the candidates that end, and move the best others into the beam slots; return their parents, (R,)."""
        config, position = self.config, self.position
        rows = self.first_row + slots
        is_end = tokens == EOS
        ends = is_end & (log_probs > NEVER)
        scores = log_probs / self.norms.index_select(0, position + 1)
        if config.coverage_penalty:
            covered = torch.where(self.source_mask, self.coverage, 1.0).clamp(MIN_COVERAGE, 1.0).log().sum(-1)
            scores = scores + config.coverage_penalty * covered[rows]
        scores = torch.cat([self.scores, scores.masked_fill(~ends, NEVER)], 1)
        best, places = scores.sort(dim=1, descending=True, stable=True)
        places = places[:, : self.pool]
        at = torch.cat([self.finished_at, position * self.rows + rows], 1).gather(1, places)
        finished = torch.cat([self.finished_log_probs, log_probs], 1).gather(1, places)
        self.scores.copy_(best[:, : self.pool])
        self.finished_at.copy_(at)
        self.finished_log_probs.copy_(finished)
        threshold = self.scores[:, -1:]

        order = is_end.byte().sort(dim=1, stable=True).indices[:, : self.size]
        live, tokens, rows = log_probs.gather(1, order), tokens.gather(1, order), rows.gather(1, order)
        live = live.masked_fill(tokens == EOS, NEVER)
        final = (self.max_lengths + 1).view(-1, self.size)[:, :1]
        if config.early_stopping == "lookahead":
            final = torch.minimum(final, position + 2 + config.lookahead)
        lost = live / self.norms[final] <= threshold
        if self.beam == 1:  # greedy search ends with its best token
            lost = lost | (threshold > NEVER)
        if config.early_stopping == "beam":
            self.num_ended.add_(ends[:, : self.size].sum(1))
            lost = lost | (self.num_ended >= self.size).unsqueeze(1)
        self.log_probs.copy_(live.masked_fill(lost, NEVER))

        rows, token = rows.view(-1), tokens.reshape(-1)
        self.token.copy_(token)
        self.tokens.index_copy_(0, position, token.unsqueeze(0))
        self.parents.index_copy_(0, position, rows.unsqueeze(0))
        if config.no_repeat_ngram_size:
            self.history.copy_(self.history.index_select(0, rows))
            self.history.index_copy_(1, position, token.unsqueeze(1))
        if config.coverage_penalty:
            self.coverage.copy_(self.coverage.index_select(0, rows))
        position.add_(1)
        return rows

    def results(self) -> list[list[Hypothesis]]:
        """Return the finished hypotheses of every sentence, as `BeamSearch.results`."""
        scores, log_probs = self.scores.cpu().numpy(), self.finished_log_probs.cpu().numpy()
        at, tokens, parents = (x.cpu().numpy() for x in (self.finished_at, self.tokens, self.parents))
        finished: list[list[Hypothesis]] = []
        for group in range(self.num_real * self.groups):
            finished.append([])
            max_length = int(self.constraints.max_lengths[group // self.groups])
            for rank in np.nonzero(scores[group] > NEVER)[0].tolist():
                length, row = divmod(int(at[group, rank]), self.rows)
                ids: list[int] = []
                for step in range(length - 1, -1, -1):
                    ids.append(int(tokens[step, row]))
                    row = int(parents[step, row])
                score, log_prob = float(scores[group, rank]), float(log_probs[group, rank])
                finished[-1].append(Hypothesis(ids[::-1], score, log_prob, None, length >= max_length))
        return merge_groups(finished, self.config, self.text)


def _fill(kept: dict[str, Tensor], values: dict[str, Tensor]) -> bool:
    """Copy values into tensors that stay where they are; return whether all could, or else replace those of another
    shape."""
    all_stay = True
    for name, value in values.items():
        stays = name in kept and kept[name].shape == value.shape and kept[name].dtype == value.dtype
        kept[name] = kept[name].copy_(value) if stays else value.clone()
        all_stay &= stays
    return all_stay
