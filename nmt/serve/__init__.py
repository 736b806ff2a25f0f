"""A page to try models on, and the same as JSON: one process, one model at a time, no state, no network but its own."""
