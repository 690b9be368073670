"""A category's images, and batches of them.

`N` images, resized to `S`x`S` once and kept as uint8 in a file; a batch is float32 in [-1, 1].
TensorFlow is imported only to prepare MVTec AD, which is done once, and to stream batches.
"""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from absl import logging

from data import sampling, sources
from data.decoded import Decoded, Images
from data.rows import Rows

# batches(dims, seed, first_step, process=(index, count)) -> images [*dims, S, S, 3], endless
Batches = Callable[..., Iterator[np.ndarray]]


class Splits(NamedTuple):
    """A category: what is trained on, what thresholds come from, what is scored."""

    train: Images
    calibration: Images
    test: Images
    digest: str  # SHA-256 of the files; empty where the test images were not read


def load(
    category: str,
    root: str | os.PathLike,
    image_size: int,
    *,
    calibration: float = 0.1,
    seed: int = 0,
    data_dir: str | os.PathLike = "~/tensorflow_datasets",
    test: bool = True,
    folder: str | os.PathLike = "",
) -> Splits:
    """Reads a category; the first time, checks all its files and writes decoded copies of them.

    The copies are, in `data_dir/decoded/`, one `.npz` of the resized images, which every later run
    reads without TensorFlow, and, but of `folder`, TFRecords. Those of other files are made anew.

    Of the good images in a `folder` with bad/ (data/folder.py), as many again as are held out are
    tested with, and not trained on: a threshold is judged on images that it does not come from.

    Args:
      category: one of the 15, or any folder of the same layout under `root`; with `folder`, the
        name of the product.
      root: the folder that holds the categories' folders, only read; or such an `.npz` itself,
        where the images are not at hand.
      image_size: the side to which images are resized (antialiased, as Pillow's BILINEAR).
      calibration: the share of the training images held out, chosen by `seed`; at least one if it
        is not 0, never all.
      seed: of the held-out images, and of the good test images of a `folder`.
      data_dir: where the copies go.
      test: whether to read the test set. Without it no file of test/, ground_truth/ and bad/ is
        listed or opened; a copy of all files can then neither be checked nor made, so that the
        training images of a folder are decoded each time. `test` is empty, `train` and
        `calibration` are the same to the bit.
      folder: a folder of good images and nothing else, or of good/ and bad/; `root` is not read.

    Raises:
      ValueError: unknown category, bad files, a share or a size that makes no sense, an `.npz` of
        other images.
      FileNotFoundError: `folder`, or one of the 15 categories, is not there.
      OSError: a folder cannot be listed; the TFRecords cannot be written, or are damaged;
        TensorFlow is missing.
    """
    check_numbers(image_size, calibration)
    root, folder, data_dir = (os.path.expanduser(os.fspath(at)) for at in (root, folder, data_dir))
    if folder:
        images = sources.from_folder(category, folder, image_size, data_dir, test=test)
    elif os.path.isfile(root):
        images = sources.from_copy(root, category, image_size, test=test)
    else:
        images = sources.from_layout(category, root, image_size, data_dir, test=test)
    if not images.pick_test:  # own images have no masks
        _warn_of_missing_masks(images.test)
    return _split(images, seed, calibration, test)


def check_numbers(image_size: int, calibration: float) -> None:
    """Raises ValueError for a size or a share of held-out images that makes no sense."""
    if image_size < 1 or not 0 <= calibration < 1:
        raise ValueError(
            f"image_size {image_size} must be at least 1, calibration {calibration} in [0, 1)"
        )


def train_draws(images: np.ndarray, *, flip: bool, crop: int, rotation: int = 0) -> sampling.Draws:
    """Endless draws from `images`, uint8 [N, S, S, 3], of crops of side `crop`; 0: of whole images.

    `flip` and `rotation` as in `sampling.draws`.

    Raises:
      ValueError: the crop is larger than the images, the rotation is not 0, 90 or 180, or quarter
        turns would change the shape of images that are not square.
    """
    room = sampling.crop_room(images, crop)
    height, width = images.shape[1:3]
    if rotation == 90 and not crop and height != width:
        raise ValueError(
            f"data.rotation 90 does not fit images of {height}x{width} px, which are not square: "
            "choose 180 or 0, or square crops with data.crop"
        )
    return sampling.draws(len(images), flip=flip, rotation=rotation, room=room)


def train_batches(images: np.ndarray, *, flip: bool, crop: int = 0, rotation: int = 0) -> Batches:
    """Endless training batches of `images`, uint8 [N, S, S, 3], streamed by tf.data.

    Returns:
      `batches(dims, seed, first_step, process=(index, count))`, an iterator over float32 in
      [-1, 1], [*dims, S, S, 3] or crops of side `crop`: what `train_draws` draws for the same
      arguments.

    Raises:
      ValueError: as `train_draws`.
    """
    draws = train_draws(images, flip=flip, crop=crop, rotation=rotation)

    def batches(
        dims: tuple[int, ...], seed: int, first_step: int, process: tuple[int, int] = (0, 1)
    ) -> Iterator[np.ndarray]:
        with sources.tensorflow_to("stream batches"):
            from data import streaming
        return streaming.stream(images, draws, crop, dims, seed, first_step, process)

    return batches


def eval_batches(images: np.ndarray | Rows, batch_size: int) -> Iterator[np.ndarray]:
    """Batches of `images`, uint8 [N, S, S, 3], in order: float32 in [-1, 1], the last short."""
    for start in range(0, len(images), batch_size):
        yield sampling.scale(images[start : start + batch_size])


def _split(images: Decoded, seed: int, calibration: float, test: bool) -> Splits:
    count, pick = len(images.train.paths), images.pick_test
    trained, held_out, picked = sampling.split(seed, count, calibration, pick_test=pick)
    tested = images.test
    if pick and test:
        tested = _with_good(tested, _take(images.train, picked))
    return Splits(
        _take(images.train, trained), _take(images.train, held_out), tested, images.digest
    )


def _with_good(bad: Images, good: Images) -> Images:
    """Both, by name: bad/... and good/...; nothing in a good image is defective."""
    nothing = [np.broadcast_to(np.False_, size) for size in good.sizes]  # views of one byte
    return Images(
        _joined(bad.images, good.images),
        bad.paths + good.paths,
        bad.defects + good.defects,
        np.concatenate([bad.labels, good.labels]),
        [*bad.masks, *nothing],
        np.concatenate([bad.sizes, good.sizes]),
    )


def _joined(bad: np.ndarray | Rows, good: np.ndarray | Rows) -> np.ndarray | Rows:
    if isinstance(bad, Rows) and isinstance(good, Rows):  # of one file
        return bad.join(good)
    return np.concatenate([bad, good])


def _take(images: Images, indices: np.ndarray) -> Images:
    all_images = images.images
    return Images(
        all_images.take(indices) if isinstance(all_images, Rows) else all_images[indices],
        [images.paths[index] for index in indices],
        [images.defects[index] for index in indices],
        images.labels[indices],
        [],
        images.sizes[indices],
    )


def _warn_of_missing_masks(images: Images) -> None:
    missing = [path for path, mask in zip(images.paths, images.masks, strict=True) if mask is None]
    if missing:
        logging.warning(
            "%d defective test images have no mask, there are no pixel metrics without: %s",
            len(missing),
            ", ".join(missing),
        )
