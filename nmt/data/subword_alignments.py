"""Word alignments turned into links of subwords, by batch.

Words are what U+0020 separates. A subword belongs to a word as in `nmt.data.word_ids`, which the evaluation of
alignments uses too. A link between two words links every subword of one with every subword of the other.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.data.corpus import AlignmentColumn
from nmt.data.tokenizer import Tokenizer
from nmt.data.word_ids import WordIds


class AlignmentTargets(NamedTuple):
    """Which source subwords belong to the target subwords of a batch, and how much: K entries.

    The weights of one target subword sum to 1; one without links has no entry and does not count.
    """

    indices: Tensor  # (3, K) int64: row of the batch, place in its labels, place in its source
    weights: Tensor  # (K,) float32


def project_to_subwords(
    links: AlignmentColumn,
    rows: NDArray[np.int64],
    source: NDArray[np.int64],
    labels: NDArray[np.int64],
    tokenizer: Tokenizer,
) -> AlignmentTargets:
    """The links of a batch's subwords, for whatever way its words were cut.

    A target subword's reference distribution is uniform over the source subwords of the words that its own word is
    linked to. </s> has no links on either side.

    Args:
        links: of the corpus.
        rows: (B,) of the corpus.
        source, labels: (B, S) and (B, T) ids, each row with EOS, then PAD.
        tokenizer: that made them.
    """
    starts, ends = links.offsets[rows], links.offsets[rows + 1]
    row = np.repeat(np.arange(len(rows)), ends - starts)
    within = np.arange(len(row)) - np.repeat(np.cumsum(ends - starts) - (ends - starts), ends - starts)
    pairs = links.pairs[np.repeat(starts, ends - starts) + within].astype(np.int64)
    first, num = _pieces(tokenizer.source_word_ids_map, source, row, pairs[:, 0])
    target_first, target_num = _pieces(tokenizer.target_word_ids_map, labels, row, pairs[:, 1])
    # Source subwords of all words linked to the same target word.
    word = row * labels.shape[1] + target_first
    total = np.bincount(word, num, minlength=1)[word] if len(word) else np.empty(0)
    size = num * target_num  # entries that a link becomes
    link = np.repeat(np.arange(len(row)), size)
    inside = np.arange(len(link)) - np.repeat(np.cumsum(size) - size, size)
    target = target_first[link] + inside // np.maximum(num[link], 1)
    column = first[link] + inside % np.maximum(num[link], 1)
    indices = np.stack([row[link], target, column])
    weights = (1 / np.maximum(total, 1))[link].astype(np.float32)
    return AlignmentTargets(torch.from_numpy(indices), torch.from_numpy(weights))


def _pieces(
    word_map: WordIds, ids: NDArray[np.int64], row: NDArray[np.int64], word: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Place of the first subword of the given words of the given rows, and how many subwords they have."""
    length = ids.shape[1]
    starts = np.zeros(ids.shape, np.bool_)
    starts[:, 0] = True
    words = word_map(ids.ravel(), starts.ravel())
    key = np.repeat(np.arange(len(ids)) * length, length) + words  # a row has no more words than subwords
    places = np.flatnonzero(words >= 0)
    num = np.bincount(key[places], minlength=ids.size)
    first = np.zeros(ids.size, np.int64)
    first[key[places[::-1]]] = places[::-1] % length  # the first one is written last
    wanted = row * length + word
    return first[wanted], num[wanted]
