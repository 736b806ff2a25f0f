"""Projection of attention between subwords to attention and links between words."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nmt.alignment.pharaoh import Link


def to_word_matrix(
    matrix: npt.ArrayLike, target_words: Sequence[int], source_words: Sequence[int], *, shift: int = 0
) -> npt.NDArray[np.float64]:
    """Project attention between subwords to attention between words.

    A source word receives the sum over its subwords, a target word the mean over its subwords (Zenkel et al. 2019), so
    rows that sum to one still do.

    Args:
        matrix: (..., T, S) weights, one row for each target subword.
        target_words: T indices: the word of each target subword, -1 for none (the end token).
        source_words: S indices, likewise.
        shift: 0 = a target subword's row is the one from which it was predicted; 1 = the next row, whose query has the
            subword as decoder input (Chen et al. 2020, section 3.1). The last subword, the end token, has no next row
            and is left out.

    Returns:
        (..., Tw, Sw + 1) weights; the last column is the weight on source subwords of no word. A word index without
        any subword has zeros.

    Raises:
        ValueError: the shapes do not fit together.
    """
    weights = np.asarray(matrix, dtype=np.float64)
    if weights.shape[-2:] != (len(target_words), len(source_words)):
        raise ValueError(
            f"attention of shape {weights.shape} does not fit {len(target_words)} target subwords"
            f" and {len(source_words)} source subwords"
        )
    target = np.asarray(target_words, dtype=np.int64)[: len(target_words) - shift]
    source = np.asarray(source_words, dtype=np.int64)
    num_target, num_source = int(target.max(initial=-1)) + 1, int(source.max(initial=-1)) + 1
    summed = np.eye(num_source + 1)[np.where(source < 0, num_source, source)]  # (S, Sw + 1)
    belongs = np.eye(num_target + 1)[:num_target, np.where(target < 0, num_target, target)]  # (Tw, T)
    averaged = belongs / np.maximum(belongs.sum(1, keepdims=True), 1)
    projected: npt.NDArray[np.float64] = averaged @ weights[..., shift:, :] @ summed
    return projected


def link_mask(word_matrix: npt.ArrayLike, *, null: bool = True, threshold: float = 0.0) -> npt.NDArray[np.bool_]:
    """Return which words are linked.

    Args:
        word_matrix: (..., Tw, Sw + 1) as `to_word_matrix` returns it.
        null: without threshold, whether the last column counts: a target word that attends to it most has no link.
        threshold: 0 = each target word is linked to the source word it attends to most, the first of equal ones, unless
            its row is all zeros; otherwise to every source word of at least this weight.

    Returns:
        (..., Tw, Sw).

    Raises:
        ValueError: not a matrix, or a weight is not a finite number.
    """
    weights = np.asarray(word_matrix, dtype=np.float64)
    if weights.ndim < 2 or weights.shape[-1] == 0:
        raise ValueError(f"word attention of shape {weights.shape}: must be (target words, source words + 1)")
    if not np.isfinite(weights).all():
        raise ValueError("word attention holds values that are not finite numbers")
    mask: npt.NDArray[np.bool_]
    if threshold:
        mask = weights[..., :-1] >= threshold
        return mask
    num_source = weights.shape[-1] - 1
    best = (weights if null or not num_source else weights[..., :-1]).argmax(-1)[..., None]  # (..., Tw, 1)
    mask = (best == np.arange(num_source)) & (np.take_along_axis(weights, best, -1) > 0)
    return mask


def hard_alignment(word_matrix: npt.ArrayLike, *, null: bool = True, threshold: float = 0.0) -> list[Link]:
    """Return the links (source word, target word) of one matrix (Tw, Sw + 1), in target order; see `link_mask`."""
    target, source = link_mask(word_matrix, null=null, threshold=threshold).nonzero()
    return list(zip(source.tolist(), target.tolist(), strict=True))
