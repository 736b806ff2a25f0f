"""Sample translations from the model's distribution."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nmt.data import EOS
from nmt.models.seq2seq import Seq2Seq
from nmt.search.config import SearchConfig
from nmt.search.constraints import to_device
from nmt.search.decoder_state import DecoderRows, expand_indices
from nmt.search.scoring import Floats, Hypothesis, Ints, coverage_penalty, length_norm


def sample(
    model: Seq2Seq,
    source: Tensor,
    source_mask: Tensor,
    config: SearchConfig,
    *,
    prefixes: Sequence[Sequence[int]] | None = None,
) -> list[list[Hypothesis]]:
    """Return `config.num_hypotheses` sampled translations of each sentence, in the order in which they were sampled.

    A token is sampled from softmax(logits / temperature) over the top_k best tokens, and of these over the fewest best
    that together have probability top_p. Every sample inverts the cumulative distribution at a number that depends only
    on the seed, the sentence, the number of the sample and the position, so batching does not matter. `log_prob` is
    that of the model, without temperature and truncation.

    Arguments and errors are those of `translate_batch`.
    """
    rows = DecoderRows(model, source, source_mask, config, prefixes)
    width = config.num_hypotheses
    uniform = _uniform_numbers(source, source_mask, config, rows.constraints.max_lengths[: rows.num_sentences])
    live = np.repeat(rows.is_real_sentence, width)
    log_probs = np.zeros(len(live))
    samples: list[list[Hypothesis]] = [[Hypothesis([], 0.0, 0.0)] * width for _ in uniform]
    while live.any():
        step_log_probs, weights = rows.step()
        rows.record_attention(weights)
        streams = [uniform[sentence] for sentence in rows.sentences % rows.num_sentences]
        numbers = np.array([stream[:, min(rows.position, stream.shape[1] - 1)] for stream in streams])
        tokens, token_log_probs = _sample_tokens(step_log_probs, config, numbers.ravel())
        log_probs = np.where(live, log_probs + token_log_probs, log_probs)
        for row in np.nonzero(live & (tokens == EOS))[0].tolist():
            sentence = int(rows.sentences[row // width])
            score = float(log_probs[row] / length_norm(config, rows.position + 1))
            if rows.coverage is not None:
                score += float(coverage_penalty(config, rows.coverage[row, rows.source_mask[sentence]]))
            samples[sentence][row % width] = rows.hypothesis(row, score, float(log_probs[row]))
        live &= tokens != EOS
        rows.append(tokens)
        kept = rows.compact(np.nonzero(live.reshape(-1, width).any(1))[0])
        if kept is not None:
            kept_rows = expand_indices(kept, width)
            live, log_probs = live[kept_rows], log_probs[kept_rows]
    return samples


def _uniform_numbers(source: Tensor, source_mask: Tensor, config: SearchConfig, max_lengths: Ints) -> list[Floats]:
    """Return uniform numbers (samples, positions) for every sentence; the first do not depend on how many there are."""
    numbers = []
    for ids, mask, max_length in zip(source.cpu(), source_mask.cpu(), max_lengths.tolist(), strict=True):
        digest = hashlib.sha256(ids[mask].numpy().astype("<i8").tobytes()).digest()
        words = np.frombuffer(digest, "<u4").tolist()
        generators = [np.random.default_rng([config.seed, *words, number]) for number in range(config.num_hypotheses)]
        numbers.append(np.stack([generator.random(max_length + 1) for generator in generators]))
    return numbers


def _sample_tokens(log_probs: Tensor, config: SearchConfig, numbers: Floats) -> tuple[Ints, Floats]:
    """Return a token for each row of log-probabilities (R, V) and its log-probability, (R,) each."""
    size = log_probs.size(1)
    top_k = min(config.top_k or size, size)
    if top_k < size or config.top_p < 1:
        values, ids = log_probs.topk(top_k, dim=-1)
    else:
        values, ids = log_probs, torch.arange(size, device=log_probs.device).expand_as(log_probs)
    wide = values.double() if values.device.type == "cpu" else values.float()  # many GPUs are slow in fp64
    probs = torch.softmax(wide / config.temperature, dim=-1)
    if config.top_p < 1:
        probs = probs.masked_fill(probs.cumsum(-1) - probs >= config.top_p, 0.0)
    cumulative = probs.cumsum(-1)
    thresholds = to_device(numbers, log_probs.device).to(wide.dtype).unsqueeze(1) * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, thresholds, right=True)
    # rounding may lead beyond the last token with any probability
    last = (probs > 0).to(torch.int64).mul(torch.arange(probs.size(1), device=probs.device)).amax(1, True)
    index = torch.minimum(index, last)
    chosen = values.gather(1, index)
    found = torch.stack([ids.gather(1, index).double(), chosen.double()]).squeeze(2).cpu().numpy()  # one transfer
    return found[0].astype(np.int64), found[1]
