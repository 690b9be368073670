"""Judges a run in numbers: scores, metrics, thresholds, and the files that hold them."""
