"""The data pipeline, from text to batches: SentencePair -> EncodedCorpus -> Batch.

`read_pairs` yields the sentence pairs of a data source; `train_or_load_tokenizer` trains the tokenizer on them and
`load_corpus` encodes them, both once, into the cache; `attach_alignments` adds word alignments to the training corpus;
`BatchLoader.epoch` yields padded batches, ready for the loss.
"""

from nmt.data.batch_sampler import make_batches
from nmt.data.batching import (
    Batch,
    BatchLoader,
    batch_to_device,
    collate,
    halve_batch_on_oom,
    pin_memory,
    select_rows,
    source_batch,
)
from nmt.data.config import DataConfig
from nmt.data.corpus import EncodedCorpus, TokenColumn, load_corpus, train_or_load_tokenizer
from nmt.data.sources import (
    SOURCES,
    SentencePair,
    alignment_path,
    extra_test_sets,
    read_pairs,
    resolve_split,
)
from nmt.data.subword_alignments import AlignmentTargets
from nmt.data.tokenizer import BOS, EOS, PAD, TOKENIZERS, UNK, Tokenizer, TokenizerConfig
from nmt.data.word_alignments import attach_alignments

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "SOURCES",
    "TOKENIZERS",
    "UNK",
    "AlignmentTargets",
    "Batch",
    "BatchLoader",
    "DataConfig",
    "EncodedCorpus",
    "SentencePair",
    "TokenColumn",
    "Tokenizer",
    "TokenizerConfig",
    "alignment_path",
    "attach_alignments",
    "batch_to_device",
    "collate",
    "extra_test_sets",
    "halve_batch_on_oom",
    "load_corpus",
    "make_batches",
    "pin_memory",
    "read_pairs",
    "resolve_split",
    "select_rows",
    "source_batch",
    "train_or_load_tokenizer",
]
