"""Cleaning of parallel corpora."""
