"""From a model to translations: beam search, sampling, ensembles; over `encode`, `start`, `step` and `reserve` only.

A translation is a function of the sentence, the model and the configuration. Rounding would let a sentence's neighbours
in: libraries multiply matrices in another order when their shape changes. `decode` therefore keeps to shapes with which
a row's result was found not to depend on the others: sentences meet only others that are padded to the same length, and
no product has fewer rows than `rows.min_rows_for_determinism`.
"""

from nmt.search.beam_search import BeamSearch
from nmt.search.config import SearchConfig
from nmt.search.decode import decode, make_decode_batches, make_source_batch, translate_batch
from nmt.search.ensemble import Ensemble
from nmt.search.mbr import expected_utilities
from nmt.search.sampling import sample
from nmt.search.scoring import Hypothesis

__all__ = [
    "BeamSearch",
    "Ensemble",
    "Hypothesis",
    "SearchConfig",
    "decode",
    "expected_utilities",
    "make_decode_batches",
    "make_source_batch",
    "sample",
    "translate_batch",
]
