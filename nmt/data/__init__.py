"""From text to batches: sources of sentence pairs, tokenizers, the cache of tokenised corpora, and batching."""

from nmt.data.batch_sampler import plan
from nmt.data.batching import Batch, Batches, collate, on_device, source_batch, take
from nmt.data.corpus import Corpus, Side, load_tokenizer, prepare
from nmt.data.sources import SOURCES, DataConfig, Pair, gold_path, locations, more_tests, read_pairs
from nmt.data.subword_alignments import Links
from nmt.data.tokenizer import BOS, EOS, PAD, TOKENIZERS, UNK, Tokenizer, TokenizerConfig
from nmt.data.word_alignments import attach

__all__ = [
    "BOS",
    "EOS",
    "PAD",
    "SOURCES",
    "TOKENIZERS",
    "UNK",
    "Batch",
    "Batches",
    "Corpus",
    "DataConfig",
    "Links",
    "Pair",
    "Side",
    "Tokenizer",
    "TokenizerConfig",
    "attach",
    "collate",
    "gold_path",
    "load_tokenizer",
    "locations",
    "more_tests",
    "on_device",
    "plan",
    "prepare",
    "read_pairs",
    "source_batch",
    "take",
]
