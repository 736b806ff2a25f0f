"""Sequence-to-sequence translation whose attention can be chosen, compared and looked at.

Shape letters, the same in every docstring and comment:
    B batch, S source length, T target length, D width, H heads, L layers, V vocabulary, K beam.
Every tensor has its batch first. Masks are boolean: True = may be attended, a real token.
"""

import difflib
import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.10.0"

# Read by the libraries that torch loads, so they are set before it is imported; a user's own values win.
# Threads that wait for work spin for a moment and then sleep: without the spin one run on a quiet machine is a fifth to
# a half slower, with torch's much longer one two runs on one machine slow each other down many times over.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Compiled kernels are kept for every shape; batches come in more shapes than the default holds.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")

if TYPE_CHECKING:
    from nmt.api import Model, Run, load, train
    from nmt.attention import Attention

__all__ = ["Attention", "Model", "Run", "load", "train"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds."""
    if name == "train":  # the module, which can be called
        return importlib.import_module("nmt.train")
    if name in __all__:
        return getattr(importlib.import_module("nmt.attention" if name == "Attention" else "nmt.api"), name)
    nearest = difflib.get_close_matches(name, __all__, n=1) or __all__
    raise AttributeError(f"module 'nmt' has no attribute {name!r}; did you mean {' or '.join(nearest)}?")


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
