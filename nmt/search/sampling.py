"""Translations drawn from the model."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nmt.data import BOS, EOS
from nmt.models.seq2seq import Seq2Seq
from nmt.search.config import SearchConfig
from nmt.search.decoder_state import DecoderRows
from nmt.search.scoring import Floats, Hypothesis, Ints, coverage_penalty, length_norm


def sample(
    model: Seq2Seq,
    source: Tensor,
    source_mask: Tensor,
    config: SearchConfig,
    *,
    prefixes: Sequence[Sequence[int]] | None = None,
) -> list[list[Hypothesis]]:
    """`config.rows` translations of each sentence, in the order in which they were drawn.

    A token is drawn from softmax(logits / temperature) over the top_k best tokens, and of these over the fewest best
    that have probability top_p together. Every draw inverts the distribution at a number that depends on the seed, the
    sentence, the sample and the position alone, so that batches do not matter. `log_prob` is that of the model,
    without temperature and limits.

    Args:
        model: in evaluation mode.
        source: (B, S) ids with end token. source_mask: (B, S).
        config: see `SearchConfig`.
        prefixes: ids that each translation must begin with.

    Raises:
        ValueError: a coverage penalty for a model without attention.
    """
    rows = DecoderRows(model, source, source_mask, config, prefixes)
    width, covering = config.num_hypotheses, config.coverage_penalty > 0
    num = len(rows.sentences)
    numbers = _numbers(source, source_mask, config, rows.constraints.most[: rows.num])
    live = np.repeat(rows.is_real_sentence, width)
    log_probs, last = np.zeros(num * width), np.full(num * width, BOS)
    covered: Floats = np.zeros((num * width, source.size(1)))
    mask = source_mask.cpu().numpy()
    found: list[list[Hypothesis]] = [[Hypothesis([], 0.0, 0.0)] * width for _ in range(rows.num)]
    while live.any():
        position = rows.position
        allowed, weights = rows.step(last, attention=covering)
        if covering:
            if weights is None:
                raise ValueError(f"search.coverage_penalty={config.coverage_penalty}: the model has no attention")
            covered += weights.mean((1, 2))[:, 0].double().cpu().numpy()
        at = np.array([numbers[s][:, min(position, numbers[s].shape[1] - 1)] for s in rows.sentences % rows.num])
        drawn, own = _draw(allowed, config, at.ravel())
        log_probs = np.where(live, log_probs + own, log_probs)
        for row in np.nonzero(live & (drawn == EOS))[0].tolist():
            sentence, number = int(rows.sentences[row // width]), row % width
            score = float(log_probs[row] / length_norm(config, position + 1))
            if covering:
                score += float(coverage_penalty(config, covered[row, mask[sentence]]))
            cut = position >= int(rows.constraints.most[row // width])
            found[sentence][number] = Hypothesis(
                rows.tokens[row, :position].tolist(), score, float(log_probs[row]), None, cut
            )
        live &= drawn != EOS
        last = drawn
        rows.append(drawn)
        stay = rows.compact(np.nonzero(live.reshape(-1, width).any(1))[0])
        if stay is not None:
            kept = (stay[:, None] * width + np.arange(width)).ravel()
            live, log_probs, last, covered = live[kept], log_probs[kept], last[kept], covered[kept]
    return found


def _numbers(source: Tensor, source_mask: Tensor, config: SearchConfig, most: Ints) -> list[Floats]:
    """Uniform numbers (samples, positions) of every sentence; the first are the same however many there are."""
    found = []
    for ids, mask, longest in zip(source.cpu(), source_mask.cpu(), most.tolist(), strict=True):
        digest = hashlib.sha256(ids[mask].numpy().astype("<i8").tobytes()).digest()
        words = np.frombuffer(digest, "<u4").tolist()
        streams = [np.random.default_rng([config.seed, *words, number]) for number in range(config.num_hypotheses)]
        found.append(np.stack([stream.random(longest + 1) for stream in streams]))
    return found


def _draw(log_probs: Tensor, config: SearchConfig, numbers: Floats) -> tuple[Ints, Floats]:
    """A token of each row (R,) of log-probabilities (R, V), and what it has there."""
    size = log_probs.size(1)
    top = min(config.top_k or size, size)
    if top < size or config.top_p < 1:
        values, ids = log_probs.topk(top, dim=-1)
    else:
        values, ids = log_probs, torch.arange(size, device=log_probs.device).expand_as(log_probs)
    weights = torch.softmax(values.double() / config.temperature, dim=-1)
    if config.top_p < 1:
        before = weights.cumsum(-1) - weights
        weights = weights.masked_fill(before >= config.top_p, 0.0)
    sums = weights.cumsum(-1)
    wanted = torch.from_numpy(numbers).to(log_probs.device).unsqueeze(1) * sums[:, -1:]
    place = torch.searchsorted(sums, wanted, right=True)
    # rounding may point behind the last token that has any weight
    largest = (weights > 0).to(torch.int64).mul(torch.arange(weights.size(1), device=weights.device)).amax(1, True)
    place = torch.minimum(place, largest)
    own = values.gather(1, place)
    return ids.gather(1, place).squeeze(1).cpu().numpy(), own.squeeze(1).double().cpu().numpy()
