"""Images on disk to batches in memory: MVTec AD, folders of own images, a generated data set.

TensorFlow lives here; nothing in this package imports JAX or another package of the project.
"""
