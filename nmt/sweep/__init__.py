"""Sweeps: many runs by one command, of which those that are finished are passed over and those that fail are listed."""

from nmt.sweep.jobs import Job, SweepOptions
from nmt.sweep.plan import Argument, plan
from nmt.sweep.processes import follow_parent
from nmt.sweep.sweeping import run

__all__ = ["Argument", "Job", "SweepOptions", "follow_parent", "plan", "run"]
