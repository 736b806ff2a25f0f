"""Sweeps: many runs by one command, which skips the finished ones and lists those that fail."""

from nmt.cli.sweep.grid import Argument, plan
from nmt.cli.sweep.jobs import Job, SweepOptions
from nmt.cli.sweep.process_launcher import follow_parent
from nmt.cli.sweep.runner import run

__all__ = ["Argument", "Job", "SweepOptions", "follow_parent", "plan", "run"]
