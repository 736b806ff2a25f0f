"""Attention: scores of queries and keys, normalized to weights, and the weighted sum of values."""

from nmt.attention.config import NO_ATTENTION, AttentionConfig
from nmt.attention.layer import AttentionLayer, AttentionOutput, KeyValueCache
from nmt.attention.multihead import Attention
from nmt.attention.normalizers import NORMALIZERS
from nmt.attention.scores import SCORES, Score
from nmt.attention.windows import ATTENTION_TYPES, CROSS, DECODER_SELF, ENCODER_SELF, WINDOWS

__all__ = [
    "ATTENTION_TYPES",
    "CROSS",
    "DECODER_SELF",
    "ENCODER_SELF",
    "NORMALIZERS",
    "NO_ATTENTION",
    "SCORES",
    "WINDOWS",
    "Attention",
    "AttentionConfig",
    "AttentionLayer",
    "AttentionOutput",
    "KeyValueCache",
    "Score",
]
