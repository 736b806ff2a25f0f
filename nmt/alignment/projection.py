"""From attention between subwords to attention and links between words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nmt.alignment.pharaoh import Link


def to_word_matrix(
    matrix: npt.ArrayLike, target_words: Sequence[int], source_words: Sequence[int], *, shift: int = 0
) -> npt.NDArray[np.float64]:
    """Turns attention between subwords into attention between words.

    A source word receives the sum of its pieces, a target word the mean over its pieces (Zenkel et al. 2019), so a
    row that summed to one still does.

    Args:
        matrix: (..., T, S) weights, each row a target piece.
        target_words: T indices: the word each target piece belongs to, -1 for none (the end token).
        source_words: S indices, likewise.
        shift: 0 = a target piece's row is the one with which it was predicted; 1 = the next one, whose query has
            seen the piece as the decoder's input (Chen et al. 2020, section 3.1). The last piece, the end token, has
            no next row and is left out.

    Returns:
        (..., Tw, Sw + 1) weights; the last column is what went to source pieces of no word. A word index that no piece
        has gets zeros.

    Raises:
        ValueError: the shapes do not fit together.
    """
    weights = np.asarray(matrix, dtype=np.float64)
    if weights.shape[-2:] != (len(target_words), len(source_words)):
        raise ValueError(
            f"attention of shape {weights.shape} does not fit {len(target_words)} target pieces"
            f" and {len(source_words)} source pieces"
        )
    target = np.asarray(target_words, dtype=np.int64)[: len(target_words) - shift]
    source = np.asarray(source_words, dtype=np.int64)
    num_target, num_source = int(target.max(initial=-1)) + 1, int(source.max(initial=-1)) + 1
    summed = np.eye(num_source + 1)[np.where(source < 0, num_source, source)]  # (S, Sw + 1)
    belongs = np.eye(num_target + 1)[:num_target, np.where(target < 0, num_target, target)]  # (Tw, T)
    averaged = belongs / np.maximum(belongs.sum(1, keepdims=True), 1)
    projected: npt.NDArray[np.float64] = averaged @ weights[..., shift:, :] @ summed
    return projected


def argmax_alignment(word_matrix: npt.ArrayLike, *, null: bool = True) -> npt.NDArray[np.int64]:
    """The source word that each target word attends to most.

    Args:
        word_matrix: (..., Tw, Sw + 1) as `words` returns it.
        null: a target word whose last column exceeds every word has none; otherwise that column does not count.

    Returns:
        (..., Tw) source words; -1 for none, also where the row is all zeros. The first of equal ones is taken.

    Raises:
        ValueError: not a matrix, or a weight is not a number.
    """
    weights = _checked(word_matrix)
    none = weights.shape[-1] - 1
    if none == 0:
        return np.full(weights.shape[:-1], -1)
    best = (weights if null else weights[..., :none]).argmax(-1)
    found = np.take_along_axis(weights, best[..., None], -1)[..., 0] > 0
    return np.where(found & (best != none), best, -1)


def link_mask(word_matrix: npt.ArrayLike, *, null: bool = True, threshold: float = 0.0) -> npt.NDArray[np.bool_]:
    """Which words are linked.

    Args:
        word_matrix: (..., Tw, Sw + 1) as `words` returns it.
        null: see `nearest`.
        threshold: 0: each target word is linked to the source word it attends to most (`nearest`), so at most once.
            Otherwise to every source word that receives at least so much, in which case `null` says nothing.

    Returns:
        (..., Tw, Sw).

    Raises:
        ValueError: not a matrix, or a weight is not a number.
    """
    weights = _checked(word_matrix)
    if threshold:
        found: npt.NDArray[np.bool_] = weights[..., :-1] >= threshold
        return found
    best: npt.NDArray[np.bool_] = argmax_alignment(weights, null=null)[..., None] == np.arange(weights.shape[-1] - 1)
    return best


def hard_alignment(word_matrix: npt.ArrayLike, *, null: bool = True, threshold: float = 0.0) -> list[Link]:
    """The links of one matrix (Tw, Sw + 1), see `linked`: (source word, target word), in target order."""
    rows, columns = link_mask(word_matrix, null=null, threshold=threshold).nonzero()
    return list(zip(columns.tolist(), rows.tolist(), strict=True))


def _checked(word_matrix: npt.ArrayLike) -> npt.NDArray[np.float64]:
    weights = np.asarray(word_matrix, dtype=np.float64)
    if weights.ndim < 2 or weights.shape[-1] == 0:
        raise ValueError(f"word attention of shape {weights.shape}: must be (target words, source words + 1)")
    if not np.isfinite(weights).all():
        raise ValueError("word attention holds values that are not finite numbers")
    return weights
