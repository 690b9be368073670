"""A category's images in memory, and batches of them.

`N` images, resized to `S`x`S` once and kept as uint8; a batch is float32 in [-1, 1]. TensorFlow is
imported only to decode files, which is done once, and to stream batches.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from absl import logging

from data import decoded, layout, sampling
from data.decoded import Decoded, Images

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
) -> Splits:
    """Reads a category; the first time, checks all its files and writes decoded copies of them.

    The copies are TFRecords and, in `data_dir/decoded/`, one `.npz` of the resized images, which
    every later run reads without TensorFlow. One made from other files is made anew.

    Args:
      category: one of the 15, or any folder of the same layout under `root`.
      root: the folder that holds the categories' folders, only read; or such an `.npz` itself,
        where the images are not at hand.
      image_size: the side to which images are resized (antialiased, as Pillow's BILINEAR).
      calibration: the share of the training images held out, chosen by `seed`; at least one if it
        is not 0, never all.
      seed: of the held-out images.
      data_dir: where the copies go.
      test: whether to read the test set. Without it no file of test/ and ground_truth/ is listed
        or opened; a copy of all files can then neither be checked nor made, so that the training
        images of a folder are decoded each time. `test` is empty, `train` and `calibration` are
        the same to the bit.

    Raises:
      ValueError: unknown category, bad files, a share or a size that makes no sense, an `.npz` of
        other images.
      FileNotFoundError: one of the 15 categories that is not there.
      OSError: the TFRecords cannot be written, or are damaged; TensorFlow is missing.
    """
    if image_size < 1 or not 0 <= calibration < 1:
        raise ValueError(
            f"image_size {image_size} must be at least 1, calibration {calibration} in [0, 1)"
        )
    root = os.path.expanduser(root)
    if os.path.isfile(root):
        images = _of(root, category, image_size, test)
    elif not test:
        images = _decode_training(category, root, image_size)
    else:
        images = _decode_once(category, root, image_size, os.path.expanduser(data_dir))
    _warn_of_missing_masks(images.test)
    trained, held_out = sampling.held_out(seed, len(images.train.paths), calibration)
    return Splits(
        _take(images.train, trained), _take(images.train, held_out), images.test, images.digest
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
        with _tensorflow_to("stream batches"):
            from data import streaming
        return streaming.stream(images, draws, crop, dims, seed, first_step, process)

    return batches


def eval_batches(images: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Batches of `images`, uint8 [N, S, S, 3], in order: float32 in [-1, 1], the last short."""
    for start in range(0, len(images), batch_size):
        yield sampling.scale(images[start : start + batch_size])


def _of(path: str, category: str, image_size: int, test: bool) -> Decoded:
    """The decoded copy that the user names, held against what the config asks for."""
    images = decoded.read(path, test=test)
    side = images.train.images.shape[1]
    if (images.category, side) != (category, image_size):
        raise ValueError(
            f"{path} holds {images.category} at {side} px, not {category} at {image_size} px: "
            "name the folder of the images, or another file"
        )
    return images


def _decode_once(category: str, root: str, image_size: int, data_dir: str) -> Decoded:
    """The decoded copy where it was made from these files, else a new one."""
    files = layout.scan(root, category)
    digest = layout.digest(files)
    path = os.path.join(data_dir, "decoded", f"{category}_{image_size}px.npz")
    if found := _up_to_date(path, category, digest, image_size):
        return found
    with _tensorflow_to("decode images for the first time"):
        from data import mvtec_ad
    builder = mvtec_ad.prepare(category, root, os.path.join(data_dir, digest[:16]))
    train = mvtec_ad.read(builder, "train", files.train, image_size)
    test = mvtec_ad.read(builder, "test", files.test, image_size)
    images = Decoded(category, digest, train, test)
    try:
        decoded.write(path, images)
        logging.info("Wrote the decoded images to %s: with it, no TensorFlow is needed.", path)
    except OSError as error:
        logging.warning("The decoded images are not kept: %s", error)
    return images


def _decode_training(category: str, root: str, image_size: int) -> Decoded:
    samples = layout.scan_training(root, category)
    with _tensorflow_to("decode images"):
        from data import mvtec_ad
    train = mvtec_ad.decode_training(samples, image_size)
    return Decoded(category, "", train, decoded.no_images(image_size))


def _up_to_date(path: str, category: str, digest: str, image_size: int) -> Decoded | None:
    try:
        found = decoded.read(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logging.warning("Decoding the images anew: %s", error)
        return None
    shape = found.train.images.shape
    if (found.category, found.digest, shape[1:3]) == (category, digest, (image_size,) * 2):
        return found
    logging.info("The images are not those of %s: decoding them anew.", path)
    return None


@contextlib.contextmanager
def _tensorflow_to(purpose: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise OSError(
            f"TensorFlow is needed to {purpose} and cannot be imported ({error}): install "
            "requirements.txt, or name a decoded .npz from another machine as config.data.root"
        ) from error


def _take(images: Images, indices: np.ndarray) -> Images:
    return Images(
        images.images[indices],
        [images.paths[index] for index in indices],
        [images.defects[index] for index in indices],
        images.labels[indices],
        [],
    )


def _warn_of_missing_masks(images: Images) -> None:
    missing = [path for path, mask in zip(images.paths, images.masks, strict=True) if mask is None]
    if missing:
        logging.warning(
            "%d defective test images have no mask, there are no pixel metrics without: %s",
            len(missing),
            ", ".join(missing),
        )
