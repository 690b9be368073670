"""Training images gathered by tf.data, for those that do not fit the device; needs TensorFlow."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from data.sampling import StepDraw

_BLOCK = 100  # steps whose images are drawn at a time


def leave_accelerators() -> None:
    """Keeps TensorFlow away from GPUs, which are JAX's: it would take all of their memory."""
    tf.config.set_visible_devices([], "GPU")


def gather_drawn(images: np.ndarray, draws: Iterator[StepDraw]) -> Iterator[tuple[np.ndarray, ...]]:
    """Each of `draws` with the images themselves in place of their indices.

    Args:
      images: uint8 [N, H, W, C].
      draws: of indices [*dims] and of whatever belongs to them.

    Returns:
      An iterator over (uint8 [*dims, H, W, C], *what belongs to them).
    """
    leave_accelerators()
    source = tf.constant(images)

    def gather(indices: tf.Tensor, *others: tf.Tensor) -> tuple[Any, ...]:
        return tf.gather(source, indices), *others

    # Draws come in blocks, and not through `from_generator`: a pipeline that calls Python can take
    # half a minute to stop.
    while block := list(itertools.islice(draws, _BLOCK)):
        drawn = tuple(map(np.stack, zip(*block, strict=True)))
        dataset = tf.data.Dataset.from_tensor_slices(drawn).map(gather)
        yield from dataset.prefetch(2).as_numpy_iterator()
