"""Comparing runs: what was different about them, what came out, what is certain about it, and what it cost."""

from nmt.compare.comparison import Comparison, Contrast, compare
from nmt.compare.grouping import Group
from nmt.compare.run_diff import Run, difference
from nmt.compare.run_results import Outcome

__all__ = ["Comparison", "Contrast", "Group", "Outcome", "Run", "compare", "difference"]
