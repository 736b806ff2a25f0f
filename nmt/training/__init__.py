"""Train a model: updates, validation, checkpoints, and the log of a run."""
