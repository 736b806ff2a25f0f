"""From a model to translations: beam search, sampling and ensembles, for any model with the methods of `Seq2Seq`.

A translation depends only on the sentence, the model and the configuration. Rounding could make it depend on the rest
of the batch, because libraries multiply matrices in another order when their shape changes. `decode` therefore uses
only shapes with which a row's result was found not to depend on the others: all sentences of a batch are padded to the
same length, and no product has fewer rows than `decoder_state.min_rows_for_determinism`.
"""

from nmt.search.beam_search import BeamSearch
from nmt.search.config import SearchConfig
from nmt.search.decode import decode, make_decode_batches, make_source_batch, translate_batch
from nmt.search.ensemble import Ensemble
from nmt.search.mbr import expected_utilities
from nmt.search.sampling import sample
from nmt.search.scoring import Hypothesis

__all__ = ["BeamSearch", "Ensemble", "Hypothesis", "SearchConfig", "decode", "expected_utilities"]
__all__ += ["make_decode_batches", "make_source_batch", "sample", "translate_batch"]
