"""A category's images in memory, and batches of them.

`N` images, resized to `S`x`S` once and kept as uint8; a batch is float32 in [-1, 1].

The batch of step s is a pure function of (seed, s): a resumed run sees the images of an unbroken
one, no iterator state is saved and nothing is decoded to be skipped.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from data import mvtec_ad

# batches(dims, seed, first_step, process=(index, count)) -> images [*dims, S, S, 3], endless
Batches = Callable[..., Iterator[np.ndarray]]

# Independent random streams of one seed.
_ORDER, _FLIPS, _HELD_OUT = range(3)
_BLOCK = 100  # steps whose images are drawn at a time


class Images(NamedTuple):
    """Images of one split, sorted by path."""

    images: np.ndarray  # uint8 [N, S, S, 3]
    paths: list[str]  # relative to the category's folder
    defects: list[str]  # 'good' or the defect's folder
    labels: np.ndarray  # int64 [N]; 0 good, 1 defective
    # bool [h, w] each, at the image's own size; None for a defective image without a mask.
    masks: list[np.ndarray | None]  # empty for training images


class Splits(NamedTuple):
    """A category: what is trained on, what thresholds come from, what is scored."""

    train: Images
    calibration: Images
    test: Images
    digest: str  # SHA-256 of the files


def load(
    category: str,
    root: str | os.PathLike,
    image_size: int,
    *,
    calibration: float = 0.1,
    seed: int = 0,
    data_dir: str | os.PathLike = "~/tensorflow_datasets",
) -> Splits:
    """Reads a category; the first time, checks all its files and writes them as TFRecords.

    Args:
      category: one of the 15, or any folder of the same layout under `root`.
      root: the folder that holds the categories' folders; only read.
      image_size: the side to which images are resized (antialiased, as Pillow's BILINEAR).
      calibration: the share of the training images held out, chosen by `seed`; at least one if it
        is not 0, never all.
      seed: of the held-out images.
      data_dir: where the TFRecords go, in a folder named by the digest of the source files.

    Raises:
      ValueError: unknown category, bad files, a share or a size that makes no sense.
      FileNotFoundError: one of the 15 categories that is not there.
      OSError: the TFRecords cannot be written, or are damaged.
    """
    if image_size < 1 or not 0 <= calibration < 1:
        raise ValueError(
            f"image_size {image_size} must be at least 1, calibration {calibration} in [0, 1)"
        )
    files = mvtec_ad.scan(root, category)
    digest = mvtec_ad.digest(files)
    _warn_of_missing_masks(files.test)
    _leave_accelerators()
    directory = os.path.join(os.path.expanduser(data_dir), digest[:16])
    builder = mvtec_ad.prepare(category, root, directory)
    normal = _read(builder, "train", files.train, image_size)
    test = _read(builder, "test", files.test, image_size)
    order = np.random.default_rng((seed, _HELD_OUT)).permutation(len(normal.paths))
    count = _num_held_out(len(order), calibration)
    return Splits(_take(normal, order[count:]), _take(normal, order[:count]), test, digest)


def batch_indices(
    seed: int, step: int, batch_dims: tuple[int, ...], num_images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which images step `step` sees, over all devices, and which of them flipped.

    The steps cut up an endless row of permutations of all images, one an epoch, so each epoch sees
    every image once, and a batch larger than the data set repeats images.

    Returns:
      int64 indices in [0, num_images) and bool flips, both [*batch_dims].
    """
    if num_images < 1:
        raise ValueError("no images to draw batches from")
    size = math.prod(batch_dims)
    epochs, places = np.divmod(step * size + np.arange(size), num_images)
    indices = np.empty(size, np.int64)
    for epoch in np.unique(epochs):
        order = np.random.default_rng((seed, _ORDER, epoch)).permutation(num_images)
        indices[epochs == epoch] = order[places[epochs == epoch]]
    flips = np.random.default_rng((seed, _FLIPS, step)).random(size) < 0.5
    return indices.reshape(batch_dims), flips.reshape(batch_dims)


def train_batches(images: np.ndarray, *, flip: bool) -> Batches:
    """Endless training batches of `images`, uint8 [N, S, S, 3].

    Args:
      images: what to draw from.
      flip: whether each image is mirrored, left to right, every other time.

    Returns:
      `batches(dims, seed, first_step, process=(index, count))`, an iterator over the batches of
      steps first_step, first_step + 1, ...; each is float32 [*dims, S, S, 3] in [-1, 1], where dims
      are (local devices, *leading, batch per device). All devices of all processes together see the
      images that one device would see.
    """

    def batches(
        dims: tuple[int, ...], seed: int, first_step: int, process: tuple[int, int] = (0, 1)
    ) -> Iterator[np.ndarray]:
        _leave_accelerators()
        # Mirrored images lie beside the others: to turn them batch by batch is seven times slower.
        source = tf.constant(np.concatenate([images, images[:, :, ::-1]]) if flip else images)

        @tf.function
        def gather(indices: tf.Tensor, flips: tf.Tensor) -> tf.Tensor:
            places = indices + len(images) * tf.cast(flips, tf.int64) if flip else indices
            return tf.cast(tf.gather(source, places), tf.float32) / 127.5 - 1.0

        # Draws come in blocks, and not through `from_generator`: a pipeline that calls Python can
        # take half a minute to stop.
        for start in itertools.count(first_step, _BLOCK):
            steps = range(start, start + _BLOCK)
            draws = [_local_draw(seed, step, dims, process, len(images)) for step in steps]
            indices, flips = map(np.stack, zip(*draws, strict=True))
            dataset = tf.data.Dataset.from_tensor_slices((indices, flips))
            yield from dataset.map(gather).prefetch(2).as_numpy_iterator()

    return batches


def eval_batches(images: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Batches of `images`, uint8 [N, S, S, 3], in order: float32 in [-1, 1], the last short."""
    for start in range(0, len(images), batch_size):
        yield images[start : start + batch_size].astype(np.float32) / np.float32(127.5) - 1


def _local_draw(
    seed: int, step: int, dims: tuple[int, ...], process: tuple[int, int], num_images: int
) -> tuple[np.ndarray, np.ndarray]:
    (index, count), (local, *leading, batch) = process, dims
    devices = local * count
    draw = batch_indices(seed, step, (*leading, devices * batch), num_images)

    def mine(drawn: np.ndarray) -> np.ndarray:
        by_device = np.moveaxis(drawn.reshape(*leading, devices, batch), -2, 0)
        return by_device[index * local : (index + 1) * local]

    return mine(draw[0]), mine(draw[1])


def _read(
    builder: mvtec_ad.MvtecAd, split: str, samples: list[mvtec_ad.Sample], image_size: int
) -> Images:
    def resize(example: dict[str, Any]) -> dict[str, Any]:
        image = tf.image.resize(example["image"], [image_size] * 2, antialias=True)
        return {**example, "image": tf.cast(tf.round(image), tf.uint8)}

    examples: list[dict[str, Any]] = []
    if samples:
        try:
            dataset = builder.as_dataset(
                split=split,
                decoders={"mask": tfds.decode.SkipDecoding()} if split == "train" else None,
                read_config=tfds.ReadConfig(try_autocache=False),
            )
            dataset = dataset.map(resize, num_parallel_calls=tf.data.AUTOTUNE)
            examples = sorted(dataset.as_numpy_iterator(), key=lambda example: example["path"])
        except (AssertionError, KeyError, ValueError, OSError, tf.errors.OpError) as error:
            raise mvtec_ad.damaged(builder.data_dir, error) from error
    return Images(
        np.array([example["image"] for example in examples], np.uint8).reshape(
            -1, image_size, image_size, 3
        ),
        [example["path"].decode() for example in examples],
        [example["defect"].decode() for example in examples],
        np.array([example["label"] for example in examples], np.int64),
        [_mask(example) for example in examples] if split == "test" else [],
    )


def _mask(example: dict[str, Any]) -> np.ndarray | None:
    if example["label"] and not example["has_mask"]:
        return None
    return example["mask"][..., 0] > 0


def _take(images: Images, indices: np.ndarray) -> Images:
    indices = np.sort(indices)
    return Images(
        images.images[indices],
        [images.paths[index] for index in indices],
        [images.defects[index] for index in indices],
        images.labels[indices],
        [],
    )


def _num_held_out(num_images: int, share: float) -> int:
    if share == 0:
        return 0
    return min(max(round(num_images * share), 1), num_images - 1)


def _warn_of_missing_masks(samples: list[mvtec_ad.Sample]) -> None:
    missing = [sample.name for sample in samples if sample.defect != "good" and not sample.mask]
    if missing:
        logging.warning(
            "%d defective test images have no mask, there are no pixel metrics without: %s",
            len(missing),
            ", ".join(missing),
        )


def _leave_accelerators() -> None:
    tf.config.set_visible_devices([], "GPU")  # JAX's; TensorFlow would take all of its memory
