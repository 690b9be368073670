"""Trains, checkpoints and scores any method; knows no method, no data set and no TensorFlow."""
