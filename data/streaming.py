"""Training batches by tf.data, for images that do not fit the device; needs TensorFlow."""

import itertools
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from data.sampling import Draws

_BLOCK = 100  # steps whose images are drawn at a time


def leave_accelerators() -> None:
    """Keeps TensorFlow away from GPUs, which are JAX's: it would take all of their memory."""
    tf.config.set_visible_devices([], "GPU")


def stream(
    images: np.ndarray, draws: Draws, crop: int, dims: tuple[int, ...], *start_args
) -> Iterator[np.ndarray]:
    """The batches of uint8 `images` [N, S, S, 3] that `draws(dims, *start_args)` names, endless.

    Returns:
      An iterator over float32 in [-1, 1], [*dims, S, S, 3], or where `crop` is not 0
      [*dims, crop, crop, 3].
    """
    leave_accelerators()
    # Mirrored images lie beside the others: to turn them batch by batch is seven times slower.
    source = tf.constant(np.concatenate([images, images[:, :, ::-1]]))

    @tf.function
    def gather(indices: tf.Tensor, flips: tf.Tensor, corners: tf.Tensor) -> tf.Tensor:
        pixels = tf.gather(source, indices + len(images) * tf.cast(flips, indices.dtype))
        if crop:
            # A crop of the image, mirrored, lies elsewhere in the mirrored image.
            top, left = corners[..., 0], corners[..., 1]
            left = tf.where(flips, images.shape[2] - crop - left, left)
            for axis, start in ((-3, top), (-2, left)):
                places = start[..., None] + tf.range(crop)
                pixels = tf.gather(pixels, places, axis=axis, batch_dims=len(dims))
        return (2.0 * tf.cast(pixels, tf.float32) - 255.0) * np.float32(1 / 255)

    drawn = draws(dims, *start_args)
    # Draws come in blocks, and not through `from_generator`: a pipeline that calls Python can take
    # half a minute to stop.
    while block := list(itertools.islice(drawn, _BLOCK)):
        drawn_block = tuple(map(np.stack, zip(*block, strict=True)))
        dataset = tf.data.Dataset.from_tensor_slices(drawn_block)
        yield from dataset.map(gather).prefetch(2).as_numpy_iterator()
