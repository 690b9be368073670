"""A category's images, and batches of them.

`N` images, resized to `S`x`S` once and kept as uint8 in a file; a batch is float32 in [-1, 1].
TensorFlow is imported only to prepare MVTec AD, which is done once, and to stream batches.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from absl import logging

from data import decoded, pipeline, sampling, scan
from data.decoded import Decoded, Images
from data.images import read_image, resize
from data.scan import Files, Sample
from storage.rows import Rows

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

    Of the good images in a `folder` with bad/ (data/scan.py), as many again as are held out are
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
    require_numbers(image_size, calibration)
    root, folder, data_dir = (os.path.expanduser(os.fspath(at)) for at in (root, folder, data_dir))
    if folder:
        images = from_folder(category, folder, image_size, data_dir, test=test)
    elif os.path.isfile(root):
        images = from_copy(root, category, image_size, test=test)
    else:
        images = from_layout(category, root, image_size, data_dir, test=test)
    if not images.pick_test:  # own images have no masks
        _warn_of_missing_masks(images.test)
    return _split(images, seed, calibration, test)


def require_numbers(image_size: int, calibration: float) -> None:
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
        with tensorflow_to("stream batches"):
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


_THREADS = 8  # an image of 89 million pixels takes 1 GB while it is decoded


def decode(files: Files, image_size: int) -> tuple[Images, Images]:
    """Training and test images from their files; the masks are left aside, and None.

    Returns:
      Images of the samples in their order: what TFDS gives for the same files, to the bit.

    Raises:
      ValueError: one line that lists all bad files, each with its reason.
    """
    samples = [*files.train, *files.test]
    logging.info("Decoding %d images.", len(samples))
    images = np.empty((len(samples), image_size, image_size, 3), np.uint8)
    sizes = np.empty((len(samples), 2), np.int64)

    def fill(index: int) -> str:
        """Fills in one image; what is wrong with it, if anything."""
        try:
            image = read_image(samples[index].path)
        except ValueError as error:
            return str(error)
        images[index], sizes[index] = resize(image, image_size), image.shape[:2]
        return ""

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        bad = [*filter(None, pool.map(fill, range(len(samples))))]
    if bad:
        raise ValueError(f"{len(bad)} bad files, repair or remove them: {'; '.join(bad)}")
    count = len(files.train)
    test = _images(files.test, images[count:], sizes[count:])
    return _images(files.train, images[:count], sizes[:count]), test._replace(
        masks=[None] * len(files.test)
    )


def _images(samples: Sequence[Sample], images: np.ndarray, sizes: np.ndarray) -> Images:
    return Images(
        images,
        [sample.name for sample in samples],
        [sample.defect for sample in samples],
        np.array([sample.defect != "good" for sample in samples], np.int64),
        [],
        sizes,
    )


def from_copy(path: str, category: str, image_size: int, *, test: bool) -> Decoded:
    """The decoded copy that the user names, held against what the config asks for.

    Raises:
      ValueError: it holds other images, another format, or none.
    """
    images = decoded.read_decoded(path, test=test)
    side = images.train.images.shape[1]
    if (images.category, side) != (category, image_size):
        raise ValueError(
            f"{path} holds {images.category} at {side} px, not {category} at {image_size} px: "
            "name the folder of the images, or another file"
        )
    return images


def from_layout(category: str, root: str, image_size: int, data_dir: str, *, test: bool) -> Decoded:
    """The decoded copy where it was made from `root/category`'s files, else a new one.

    Raises:
      ValueError, OSError: as `pipeline.load`.
    """
    if not test:
        train, none = pipeline.decode(Files(scan.scan_training(root, category), []), image_size)
        return Decoded(category, "", train, none)
    files = scan.scan_layout(root, category)
    digest = scan.digest(files)
    path = _copy(category, image_size, data_dir)
    if found := _up_to_date(path, category, digest, image_size, pick_test=False):
        return found
    with tensorflow_to("decode images for the first time"):
        from data import mvtec_ad
    builder = mvtec_ad.prepare(category, root, os.path.join(data_dir, digest[:16]))
    images = Decoded(
        category,
        digest,
        mvtec_ad.read(builder, "train", files.train, image_size),
        mvtec_ad.read(builder, "test", files.test, image_size),
    )
    return _kept(path, images)


def from_folder(category: str, root: str, image_size: int, data_dir: str, *, test: bool) -> Decoded:
    """The same for a folder of own images, which goes by the name `category`; no TensorFlow.

    Raises:
      ValueError, OSError: as `pipeline.load`.
    """
    require_product_name(category)
    files, pick_test = scan.scan_folder(root, test=test), scan.has_bad(root)
    if not test:
        return Decoded(category, "", *pipeline.decode(files, image_size), pick_test)
    digest = scan.digest(files)
    path = _copy(category, image_size, data_dir)
    if found := _up_to_date(path, category, digest, image_size, pick_test):
        return found
    images = Decoded(category, digest, *pipeline.decode(files, image_size), pick_test)
    return _kept(path, images)


def require_product_name(category: str) -> None:
    """Raises ValueError where a folder of own images cannot go by that name."""
    if category in (*scan.CATEGORIES, "demo", "") or os.path.basename(category) != category:
        raise ValueError(
            f"data.folder: {category!r} is no name for a product of your own: put one after the "
            "colon of --config, e.g. --config=configs/fanogan.py:mine"
        )


@contextlib.contextmanager
def tensorflow_to(purpose: str) -> Iterator[None]:
    """Round an import that needs TensorFlow: its error says what for, and how to do without."""
    try:
        yield
    except ImportError as error:
        raise OSError(
            f"TensorFlow is needed to {purpose} and cannot be imported ({error}): install "
            "requirements.txt, or name a decoded .npz from another machine as config.data.root"
        ) from error


def _copy(category: str, image_size: int, data_dir: str) -> str:
    return os.path.join(data_dir, "decoded", f"{category}_{image_size}px.npz")


def _up_to_date(
    path: str, category: str, digest: str, image_size: int, pick_test: bool
) -> Decoded | None:
    try:
        found = decoded.read_decoded(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logging.warning("Decoding the images anew: %s", error)
        return None
    about = (found.category, found.digest, found.pick_test, found.train.images.shape[1:3])
    if about == (category, digest, pick_test, (image_size,) * 2):
        return found
    logging.info("The images are not those of %s: decoding them anew.", path)
    return None


def _kept(path: str, images: Decoded) -> Decoded:
    """The images from their new copy, so that memory is free of them, or as they are without."""
    try:
        decoded.write_decoded(path, images)
        logging.info("Wrote the decoded images to %s: with it, no TensorFlow is needed.", path)
        return decoded.read_decoded(path)
    except OSError as error:
        logging.warning("The decoded images are not kept: %s", error)
        return images
