"""Translate and align text with a trained model."""
