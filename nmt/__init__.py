"""Sequence-to-sequence translation whose attention can be chosen, compared and looked at.

Shape letters, the same in every docstring and comment:
    B batch, S source length, T target length, D width, H heads, L layers, V vocabulary, K beam.
Every tensor has its batch first. Masks are boolean: True = may be attended, a real token.
"""

import os

__version__ = "0.1.0"

# Read by the OpenMP runtime when torch is first imported: waiting threads sleep instead of spinning, so that two runs
# on one machine do not slow each other down many times over.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
