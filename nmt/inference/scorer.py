"""Score given translations: the log-probability of every target token, with teacher forcing."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import NamedTuple

import torch

from nmt.attention.linear import at_least_fp32
from nmt.data import PAD, batch_to_device, collate
from nmt.models import Seq2Seq
from nmt.runtime.memory import halve_on_oom
from nmt.runtime.parallel import ordered_map
from nmt.search import SearchConfig
from nmt.search.decode import CUDA_LENGTH_MULTIPLE, LENGTH_MULTIPLE
from nmt.search.decoder_state import min_rows_for_determinism


class PairScore(NamedTuple):
    """The score of a target, given its source: the numbers that docs/evaluation.md explains.

    subwords, token_log_probs: of the target; the latter in nats, the end token last.
    error: why there is no score; log_prob is -inf then.
    """

    log_prob: float
    score: float
    per_token: float
    per_word: float
    num_tokens: int
    perplexity: float
    reverse_log_prob: float | None = None
    mean_score: float | None = None
    dual: float | None = None
    subwords: Sequence[str] = ()
    token_log_probs: Sequence[float] = ()
    error: str | None = None


def token_log_probs(
    model: Seq2Seq, pairs: Mapping[int, tuple[list[int], list[int]]], config: SearchConfig, device: torch.device
) -> Iterator[tuple[int, list[float] | str]]:
    """Yield the keys of pairs of ids without end token, each with the log-probabilities of the target's tokens and its
    end token, or with the reason why there are none: it is too long for the model, or for the memory.

    Batches do not change them: as in `search.decode`, only pairs of one padded length, here on both sides, share one,
    and products have rows enough to round in one way.
    """
    min_rows, is_cpu = min_rows_for_determinism(device), device.type == "cpu"
    has_limits = model.max_source_length or model.max_target_length  # beyond which padding must not go
    multiple = 1 if has_limits else LENGTH_MULTIPLE if is_cpu else CUDA_LENGTH_MULTIPLE

    @torch.no_grad()
    def compute(keys: Sequence[int]) -> list[list[float] | str]:
        rows = [pairs[key] for key in [*keys, *[keys[-1]] * (min_rows - len(keys))]]
        batch = collate([source for source, _ in rows], [target for _, target in rows], multiple=multiple)
        batch = batch_to_device(batch, device)
        labels = batch.labels.flatten()
        real = (labels[: len(keys) * batch.labels.size(1)] != PAD).nonzero().squeeze(1)
        positions = real[torch.arange(max(len(real), min_rows), device=device).clamp(max=len(real) - 1)]
        log_probs = []
        for member in getattr(model, "members", [model]):
            logits, _ = member(batch.source, batch.source_mask, batch.inputs, positions=positions)
            log_probs.append(at_least_fp32(logits).log_softmax(-1).gather(1, labels[positions, None])[: len(real), 0])
        values = iter((torch.stack(log_probs).logsumexp(0) - math.log(len(log_probs))).tolist())
        return [[next(values) for _ in range(len(pairs[key][1]) + 1)] for key in keys]

    def compute_all(keys: Sequence[int]) -> list[list[float] | str]:
        try:
            return [*chain(*halve_on_oom(compute, keys, what="pairs", remedy="shorten it, or use device=cpu"))]
        except ValueError as error:
            return [str(error)] if len(keys) == 1 else [*chain(*(compute_all([key]) for key in keys))]

    def shape(key: int) -> list[int]:
        return [-(-(len(ids) + 1) // multiple) * multiple for ids in pairs[key]]

    batches = list[list[int]]()
    for lengths, group in groupby(sorted(pairs, key=shape, reverse=True), shape):
        keys, size = list(group), min(config.batch_size, (config.batch_tokens or 1 << 31) // max(lengths))
        batches += [keys[start : start + max(size, 1)] for start in range(0, len(keys), max(size, 1))]
    results = ordered_map(compute_all, batches, torch.get_num_threads() if is_cpu else 1)
    yield from zip(chain(*batches), chain.from_iterable(results), strict=True)
