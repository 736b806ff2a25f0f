"""Projection of word alignments to subwords, batch by batch.

Words are separated by U+0020. A subword belongs to a word as in `nmt.data.word_ids`, as in the evaluation of
alignments. A link between two words links every subword of one with every subword of the other.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nmt.data.corpus import AlignmentColumn
from nmt.data.subword_sampling import enumerate_groups
from nmt.data.tokenizer import Tokenizer
from nmt.data.word_ids import WordIds


class AlignmentTargets(NamedTuple):
    """Reference attention of the target subwords of a batch: K entries.

    The weights of one target subword sum to 1; those without links have no entries and do not count.
    """

    indices: Tensor  # (3, K) int64: row of the batch, position in its labels, position in its source
    weights: Tensor  # (K,) float32


def project_to_subwords(
    links: AlignmentColumn,
    rows: NDArray[np.int64],
    source: NDArray[np.int64],
    labels: NDArray[np.int64],
    tokenizer: Tokenizer,
) -> AlignmentTargets:
    """Return the links of a batch's subwords, for any segmentation of its words.

    A target subword's reference distribution is uniform over the source subwords of the words that its own word is
    linked to. </s> has no links on either side.

    Args:
        links: the corpus's links.
        rows: (B,) the batch's rows of the corpus.
        source, labels: (B, S) and (B, T) ids, each row with EOS, then PAD.
        tokenizer: the tokenizer that encoded them.
    """
    starts, num_links = links.offsets[rows], links.offsets[rows + 1] - links.offsets[rows]
    row, index = enumerate_groups(num_links)
    pairs = links.pairs[starts[row] + index].astype(np.int64)
    first, num = _subword_spans(tokenizer.source_word_id_map, source, row, pairs[:, 0])
    target_first, target_num = _subword_spans(tokenizer.target_word_id_map, labels, row, pairs[:, 1])
    # Number of source subwords of all words linked to the same target word.
    word = row * labels.shape[1] + target_first
    total = np.bincount(word, num, minlength=1)[word] if len(word) else np.empty(0)
    link, index = enumerate_groups(num * target_num)
    target = target_first[link] + index // np.maximum(num[link], 1)
    column = first[link] + index % np.maximum(num[link], 1)
    indices = np.stack([row[link], target, column])
    weights = (1 / np.maximum(total, 1))[link].astype(np.float32)
    return AlignmentTargets(torch.from_numpy(indices), torch.from_numpy(weights))


def _subword_spans(
    word_map: WordIds, ids: NDArray[np.int64], row: NDArray[np.int64], word: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the position of the first subword and the number of subwords of each word in its row."""
    length = ids.shape[1]
    starts = np.zeros(ids.shape, np.bool_)
    starts[:, 0] = True
    words = word_map(ids.ravel(), starts.ravel())
    key = np.repeat(np.arange(len(ids)) * length, length) + words  # a row has no more words than subwords
    positions = np.flatnonzero(words >= 0)
    num = np.bincount(key[positions], minlength=ids.size)
    first = np.zeros(ids.size, np.int64)
    first[key[positions[::-1]]] = positions[::-1] % length  # the first one is written last
    return first[row * length + word], num[row * length + word]
