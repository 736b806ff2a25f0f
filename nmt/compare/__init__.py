"""Comparison of runs: their differences, results, statistical significance and costs."""

from nmt.compare.comparison import GroupContrast, RunComparison, compare_runs
from nmt.compare.grouping import RunGroup
from nmt.compare.run_diff import RunSnapshot, diff_runs
from nmt.compare.run_results import RunResult

__all__ = ["GroupContrast", "RunComparison", "RunGroup", "RunResult", "RunSnapshot", "compare_runs", "diff_runs"]
