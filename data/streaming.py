"""Training batches by tf.data, for images that do not fit the device; needs TensorFlow."""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

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
    gather = _gatherer(images, crop, len(dims))
    drawn = draws(dims, *start_args)
    # Draws come in blocks, and not through `from_generator`: a pipeline that calls Python can take
    # half a minute to stop.
    while block := list(itertools.islice(drawn, _BLOCK)):
        drawn_block = tuple(map(np.stack, zip(*block, strict=True)))
        dataset = tf.data.Dataset.from_tensor_slices(drawn_block)
        turned = bool(drawn_block[-1].any())
        yield from dataset.map(partial(gather, turned)).prefetch(2).as_numpy_iterator()


def _gatherer(images: np.ndarray, crop: int, rank: int) -> Callable[..., tf.Tensor]:
    """(whether any turn is not 0, *a draw) -> its images; `rank` is that of the indices."""
    # Mirrored images lie beside the others: to mirror them batch by batch is seven times slower.
    source = tf.constant(np.concatenate([images, images[:, :, ::-1]]))
    height, width = (crop, crop) if crop else images.shape[1:3]

    @tf.function
    def gather(
        turned: bool, indices: tf.Tensor, flips: tf.Tensor, corners: tf.Tensor, turns: tf.Tensor
    ) -> tf.Tensor:
        # A quarter turn is a mirror image, transposed; a half turn is mirrored both ways.
        odd, half = turns % 2 == 1, turns >= 2
        mirrored = flips ^ odd ^ half
        pixels = tf.gather(source, indices + len(images) * tf.cast(mirrored, indices.dtype))
        if crop or turned:
            rows = tf.range(height)
            rows = tf.where(half[..., None], rows[::-1], rows) + corners[..., :1]
            pixels = tf.gather(pixels, rows, axis=-3, batch_dims=rank)
        if crop:
            # A crop of the image, mirrored, lies elsewhere in the mirrored image.
            left = corners[..., 1:]
            left = tf.where(mirrored[..., None], images.shape[2] - crop - left, left)
            pixels = tf.gather(pixels, left + tf.range(crop), axis=-2, batch_dims=rank)
        if turned and height == width:
            transposed = tf.transpose(pixels, (*range(rank), rank + 1, rank, rank + 2))
            pixels = tf.where(odd[..., None, None, None], transposed, pixels)
        return (2.0 * tf.cast(pixels, tf.float32) - 255.0) * np.float32(1 / 255)

    return gather
