"""Translate one batch of sentences, or any number of sentences in batches."""

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from nmt.data import source_batch
from nmt.models.seq2seq import Seq2Seq
from nmt.runtime.memory import halve_on_oom
from nmt.runtime.parallel import ordered_map
from nmt.search.beam_search import BeamSearch
from nmt.search.config import SearchConfig
from nmt.search.constraints import Phrases, check_phrases
from nmt.search.device_search import DeviceSearches, searches_on_device
from nmt.search.phrases import ConstrainedBeamSearch
from nmt.search.sampling import sample
from nmt.search.scoring import Hypothesis

LENGTH_MULTIPLE, CUDA_LENGTH_MULTIPLE = 4, 32
"""Sources are padded to a multiple of this, and only those of one padded length share a batch; on a GPU, to which every
new shape costs more than padding does, to a larger one."""

MIN_CONSTRAINED_BEAM = 10
"""Hypotheses of a sentence with phrases, at least: they are divided among banks."""


@torch.no_grad()
def translate_batch(
    model: Seq2Seq,
    source: Tensor,
    source_mask: Tensor,
    config: SearchConfig,
    *,
    attention: bool = False,
    prefixes: Sequence[Sequence[int]] | None = None,
    phrases: Phrases | None = None,
    text: Callable[[list[int]], Hashable] = tuple,
) -> list[list[Hypothesis]]:
    """Translate a batch.

    Args:
        model: in evaluation mode.
        source: (B, S) ids with end token. source_mask: (B, S).
        config: see `SearchConfig`; batch_size and batch_tokens are not used here.
        attention: collect the attention weights along the beam.
        prefixes: ids that each translation must begin with.
        phrases: for each sentence the phrases that its translation must contain, as ids: see `PhraseStates`. Prefixes
            count, and the maximum length is at least that of the prefix and all phrases.
        text: of a hypothesis: beam search keeps the best one of each text.

    Returns:
        for each sentence its finished hypotheses, best first, at most `n_best`; all samples, of which `Translator`
        selects by their text.

    Raises:
        ValueError: a coverage penalty for a model without attention; a prefix or phrases that are not allowed.
    """
    phrases = phrases if phrases and any(phrases) else None
    if phrases is not None:
        check_phrases(config, phrases)
    if config.method != "beam":
        samples = sample(model, source, source_mask, config, prefixes=prefixes)
        return [sorted(hypotheses, key=lambda hypothesis: -hypothesis.score) for hypotheses in samples]
    on_device = source.is_cuda and not attention and phrases is None
    if on_device and searches_on_device(model, source.size(1), config, prefixes):
        return DeviceSearches(model, config, source.device, text)(source.cpu(), source_mask.cpu(), prefixes)
    batch, search = (model, source, source_mask, config), BeamSearch if phrases is None else ConstrainedBeamSearch
    beam = search(*batch, attention=attention, prefixes=prefixes, phrases=phrases, text=text)
    while not beam.done:
        beam.step()
    return beam.results()


def make_source_batch(
    model: Seq2Seq, sources: Sequence[Sequence[int]], multiple: int = LENGTH_MULTIPLE
) -> tuple[Tensor, Tensor]:
    """Return padded sources (B, S) with end token and their mask (B, S), of a batch from `make_decode_batches`."""
    source, mask = source_batch(sources, multiple=multiple)
    width, longest = source.size(1), max(map(len, sources)) + 1
    if model.max_source_length is not None:
        width = max(min(width, model.max_source_length), longest)
    return source[:, :width], mask[:, :width]


def make_decode_batches(
    lengths: Sequence[int], config: SearchConfig, multiple: int = LENGTH_MULTIPLE
) -> Iterator[list[int]]:
    """Yield batches of sentences, the longest first so that running out of memory shows at once.

    A batch has one padded length, at most `batch_size` sentences and at most `batch_tokens` padded source tokens (but
    always one sentence). `lengths` are those of the sources without end token.
    """
    padded = -(-(np.asarray(lengths, np.int64) + 1) // multiple) * multiple
    order = np.argsort(-padded, kind="stable")
    start = 0
    while start < len(order):
        width = int(padded[order[start]])
        max_sentences = config.batch_size * config.beam_size // config.num_hypotheses
        if config.batch_tokens:
            max_sentences = min(max_sentences, config.batch_tokens // width)
        end = start + 1
        while end < len(order) and end - start < max_sentences and padded[order[end]] == width:
            end += 1
        yield order[start:end].tolist()
        start = end


def decode(
    model: Seq2Seq,
    sources: Sequence[Sequence[int]],
    config: SearchConfig,
    device: torch.device,
    *,
    prefixes: Sequence[Sequence[int]] | None = None,
    phrases: Phrases | None = None,
    text: Callable[[list[int]], Hashable] = tuple,
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """Translate any number of sentences, sorted by length and in batches that do not change the result.

    On a CPU as many batches as torch has threads are decoded side by side. A batch that does not fit into memory is
    decoded in halves, with a warning. Sentences with phrases have batches of their own, and a beam of at least
    `MIN_CONSTRAINED_BEAM`; on a GPU they are searched step by step.

    Args:
        model: in evaluation mode, on `device`.
        sources, prefixes: ids without end token; each translation begins with its prefix.
        phrases, text: see `translate_batch`.

    Yields:
        (index in `sources`, hypotheses), longest sources first, those with phrases last.
    """
    is_cpu, on_device = device.type == "cpu", DeviceSearches(model, config, device, text)
    multiple = LENGTH_MULTIPLE if is_cpu else CUDA_LENGTH_MULTIPLE

    @torch.no_grad()
    def translate(indices: Sequence[int]) -> list[list[Hypothesis]]:
        source, mask = make_source_batch(model, [sources[i] for i in indices], multiple)
        batch_prefixes = None if prefixes is None else [prefixes[i] for i in indices]
        batch_phrases = [phrases[i] for i in indices] if phrases is not None and phrases[indices[0]] else None
        if not is_cpu and batch_phrases is None and searches_on_device(model, source.size(1), config, batch_prefixes):
            return on_device(source, mask, batch_prefixes)
        source, mask = source.to(device), mask.to(device)
        chosen = config if batch_phrases is None else wide
        return translate_batch(model, source, mask, chosen, prefixes=batch_prefixes, phrases=batch_phrases, text=text)

    wide = replace(config, beam_size=max(config.beam_size, MIN_CONSTRAINED_BEAM))
    wide.batch_size = max(1, config.batch_size * config.beam_size // wide.beam_size)
    batches: list[list[int]] = []
    for chosen, has_phrases in ((config, False), (wide, True)):
        group = [i for i in range(len(sources)) if bool(phrases and phrases[i]) == has_phrases]
        lengths = [len(sources[i]) for i in group]
        batches += [[group[i] for i in batch] for batch in make_decode_batches(lengths, chosen, multiple)]
    halving = partial(halve_on_oom, translate, what="sentences", remedy="lower search.beam_size or the text's length")
    workers = torch.get_num_threads() if is_cpu else 1
    for indices, decoded in zip(batches, ordered_map(halving, batches, workers), strict=True):
        yield from zip(indices, itertools.chain.from_iterable(decoded), strict=True)
