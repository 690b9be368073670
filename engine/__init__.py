"""Trains, checkpoints and scores any method; knows no method, no data set and no TensorFlow."""

VERSION = "0.2.0"
"""Of the whole project; CITATION.cff and CHANGELOG.md say the same."""
