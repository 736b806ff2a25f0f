"""Command lines: options, their files and checks, run directories and sweeps."""
