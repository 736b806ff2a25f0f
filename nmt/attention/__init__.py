"""Attention: how well queries fit keys, weights made of that, and the values summed with them."""

from nmt.attention.config import NONE, AttentionConfig
from nmt.attention.layer import Attended, Attention, Memory
from nmt.attention.normalizers import NORMALISERS
from nmt.attention.scores import SCORES, Score
from nmt.attention.windows import CROSS, DECODER, ENCODER, SITES, WINDOWS

__all__ = [
    "CROSS",
    "DECODER",
    "ENCODER",
    "NONE",
    "NORMALISERS",
    "SCORES",
    "SITES",
    "WINDOWS",
    "Attended",
    "Attention",
    "AttentionConfig",
    "Memory",
    "Score",
]
