"""Score translations and alignments of test sets, and write the report."""
