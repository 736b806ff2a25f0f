"""Sweeps: many runs by one command, which skips finished runs and lists failed ones."""

from nmt.cli.sweep.grid import SweepOverride, expand_grid
from nmt.cli.sweep.jobs import SweepJob, SweepOptions
from nmt.cli.sweep.process_launcher import exit_with_parent
from nmt.cli.sweep.runner import run_sweep

__all__ = ["SweepJob", "SweepOptions", "SweepOverride", "exit_with_parent", "expand_grid", "run_sweep"]
