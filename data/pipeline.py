"""From a folder of images to splits, and from splits to batches.

`N` images, resized to `S`x`S` once and kept as uint8 in a file; a batch is float32 in [-1, 1].
TensorFlow is imported only to stream batches.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from absl import logging

from data import decoded, labelled, sampling, scan
from data.decoded import Decoded, Images
from data.images import (
    MOST_PIXELS,
    Inspected,
    Reading,
    above_white,
    inspect,
    refuse_bad_files,
    resize,
    sha256_of_image,
    white_level_line,
    white_level_of,
)
from data.labelled import Asked
from data.scan import Files, Sample
from storage.files import some_of
from storage.rows import Bytes, Masks, Rows

NONE_ASKED = Asked()
"""No labelled images."""

_THREADS = 8  # an image of 89 million pixels takes 1 GB while it is decoded
_T = TypeVar("_T")


class Splits(NamedTuple):
    """A category: what is trained on, what thresholds come from, what is scored."""

    train: Images
    calibration: Images
    test: Images
    # Of images of 16 bits (data/images.py); None where no training image has 16, and none was set.
    white_level: int | None = None
    # Defective images that may be learnt from, apart from all others; None: none were asked for.
    labelled: Images | None = None

    @property
    def num_labelled(self) -> int:
        """How many images are labelled."""
        return 0 if self.labelled is None else len(self.labelled.images)


# ---------------------------------------------------------------- folder to splits


def load_splits(
    category: str,
    root: str | os.PathLike,
    image_size: int,
    *,
    calibration: float = 0.1,
    seed: int = 0,
    data_dir: str | os.PathLike = "~/tensorflow_datasets",
    test: bool = True,
    folder: str | os.PathLike = "",
    white_level: int | None = 0,
    max_pixels: int = MOST_PIXELS,
    defects: Asked = NONE_ASKED,
) -> Splits:
    """Reads a category; the first time, decodes and checks its files and keeps what was decoded.

    Each file is read once, whether it is decoded or only held against the copy by its SHA-256, but
    training images of 16 bits, whose white level is found first. The copy is one `.npz` of the
    resized images in `data_dir/decoded/`; that of other files, or of another white level, is made
    anew.

    Of the good images in a `folder` with bad/ (data/scan.py), as many again as calibration takes
    are tested with, and not trained on: a threshold is judged on images that it does not come from.

    Args:
      category: one of the 15, or any folder of the same layout under `root`; with `folder`, the
        name of the product.
      root: the folder that holds the categories' folders, only read; or such an `.npz` itself,
        where the images are not at hand.
      image_size: the side to which images are resized (antialiased, as Pillow's BILINEAR).
      calibration: the share of the training images held out, chosen by `seed`; at least one if it
        is not 0, never all.
      seed: of the calibration images, and of the good test images of a `folder`.
      data_dir: where the copy goes.
      test: whether to read the test set. Without it no file of test/, ground_truth/ and bad/ is
        listed or opened; a copy of all files can then neither be checked nor made, so that the
        training images of a folder are decoded each time. `test` is empty, `train` and
        `calibration` are the same to the bit.
      folder: a folder of good images and nothing else, or of good/ and bad/; `root` is not read.
      white_level: the value of 16 bits that becomes white: a level from 255 to 65535; 0, that of
        the largest value in the training images; None, the whole range.
      max_pixels: of an image; a larger one is refused.
      defects: which defective images are labelled, and no test images then (data/labelled.py).
        Without `test` there are none from the test set.

    Raises:
      ValueError: unknown category, bad files, an `.npz` of other images or of another white level;
        a labelled image is also a good or a tested one.
      FileNotFoundError: `folder`, or one of the 15 categories, is not there.
      OSError: a folder cannot be listed.
    """
    reading = Reading(white_level, max_pixels)
    few = labelled.samples_of(defects.folder) if defects.folder else []
    root, folder, data_dir = (os.path.expanduser(os.fspath(at)) for at in (root, folder, data_dir))
    copy = os.path.join(data_dir, "decoded", f"{category}_{image_size}px.npz") if test else ""
    if folder:
        require_product_name(category)
        files, pick_test = scan.scan_folder(folder, test=test), scan.has_bad(folder)
        images = _of_files(category, files, image_size, reading, copy, pick_test=pick_test)
    elif os.path.isfile(root):
        images = _of_copy(root, category, image_size, white_level, test=test)
    else:
        files = scan.scan_layout(root, category, test=test)
        images = _of_files(category, files, image_size, reading, copy, pick_test=False)
    _warn_of_missing_masks(images.test, expected=not images.pick_test)
    if images.white_level:
        logging.info("%s", white_level_line(images.white_level, found=images.level_found))
    splits = _split(images, seed, calibration, test, defects)
    if few:
        reading = reading._replace(white_level=images.white_level)
        splits = splits._replace(labelled=decode(Files([], few), image_size, reading)[1])
    if splits.labelled:
        labelled.require_apart(splits.labelled, splits[:3])
    return splits


def require_product_name(category: str) -> None:
    """Raises ValueError where a folder of own images cannot go by that name."""
    if category in (*scan.CATEGORIES, "demo", "") or os.path.basename(category) != category:
        raise ValueError(
            f"data.folder: {category!r} is no name for a product of your own: put one after the "
            "colon of --config, e.g. --config=configs/fanogan.py:mine"
        )


def inspect_each(
    samples: Sequence[Sample], reading: Reading, keep: Callable[[Sample, Inspected], _T]
) -> Iterator[_T]:
    """What `keep` keeps of each sample's image and mask, in order; each file is read once.

    Threads read, decode and call `keep`: no more images are in memory at once than there are
    threads, but for what is kept.
    """

    def look(sample: Sample) -> _T:
        defective = sample.defect != "good"
        found = inspect(sample.path, sample.mask, defective=defective, reading=reading)
        return keep(sample, found)

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        yield from pool.map(look, samples)


class _Resized(NamedTuple):
    """What of an image and its mask stays in memory."""

    size: tuple[int, int]  # height and width of both
    pixels: np.ndarray | None  # uint8 [S, S, 3]; None where it cannot be read, or its white level
    bits: np.ndarray | None  # uint8, those of the mask, packed; None where there is none
    sums: dict[Path, str]
    faults: list[str]
    orientation: int  # of the mask's file, or the image's
    largest: int | None  # as in `images.Raster`


class _Store:
    """Where resized images and masks are put, and all that is told of their files."""

    def __init__(self, count: int, image_size: int) -> None:
        self.images = np.empty((count, image_size, image_size, 3), np.uint8)
        self.sizes, self.mask_sizes = np.zeros((2, count, 2), np.int64)
        self.orientations = np.zeros(count, np.int64)
        self.largest: list[int | None] = [None] * count
        self.sums: dict[Path, str] = {}
        self.faults: list[str] = []
        with tempfile.TemporaryFile() as file:  # where masks take no memory
            self.masks = Bytes(file, tempfile.gettempdir())

    def put(self, index: int, resized: _Resized, *, mask: bool) -> None:
        self.faults += resized.faults
        self.sums |= resized.sums
        self.largest[index] = resized.largest
        if resized.pixels is not None:
            self.images[index], self.sizes[index] = resized.pixels, resized.size
            self.orientations[index] = resized.orientation
        if resized.bits is not None and mask:
            self.masks.append(resized.bits)
            self.mask_sizes[index] = resized.size


def decode(files: Files, image_size: int, reading: Reading) -> tuple[Images, Images, int | None]:
    """Reads, checks, decodes and resizes all files, each once.

    Where the white level is to be found, training images of 16 bits are read a second time when
    all have been measured.

    Returns:
      Training images and test images, both sorted by name, and the white level. The mask of a good
      image is empty, that of a defective image without one is None.

    Raises:
      ValueError: one line that lists all bad files, each with its reason.
      OSError: the disk is full.
    """
    train, test = files.train, _by_name(files.test)
    samples, first_test = [*train, *test], len(train)
    logging.info("Decoding %d images.", len(samples))
    store = _Store(len(samples), image_size)

    def take(indices: Sequence[int], reading: Reading) -> None:
        chosen = [samples[index] for index in indices]
        each = inspect_each(chosen, reading, partial(_resized, image_size))
        for index, resized in zip(indices, each, strict=True):
            store.put(index, resized, mask=index >= first_test)

    take(range(first_test), reading)
    if reading.white_level == 0:
        largest = store.largest[:first_test]
        reading = reading._replace(white_level=white_level_of(largest))
        take([index for index, value in enumerate(largest) if value is not None], reading)
    take(range(first_test, len(samples)), reading)
    refuse_bad_files(store.faults)
    _warn_of_what_is_above_white(samples, store.largest, reading)
    train_images = _images(train, store, slice(first_test))
    test_images = _images(test, store, slice(first_test, None))
    test_images = test_images._replace(masks=Masks(store.masks, 0, store.mask_sizes[first_test:]))
    return train_images, test_images, reading.white_level


def _by_name(samples: Sequence[Sample]) -> list[Sample]:
    return sorted(samples, key=lambda sample: sample.name)


def _resized(image_size: int, sample: Sample, inspected: Inspected) -> _Resized:
    raster, mask, sums, faults, orientation = inspected
    if raster is None:
        return _Resized((0, 0), None, None, sums, faults, 0, None)
    if mask is None and sample.defect == "good":
        mask = np.broadcast_to(np.False_, raster.size)
    bits = None if mask is None else np.packbits(mask)
    pixels = None if raster.pixels is None else resize(raster.pixels, image_size)
    return _Resized(raster.size, pixels, bits, sums, faults, orientation, raster.largest)


def _images(samples: Sequence[Sample], store: _Store, part: slice) -> Images:
    return Images(
        store.images[part],
        [sample.name for sample in samples],
        [sample.defect for sample in samples],
        np.array([sample.defect != "good" for sample in samples], np.int64),
        [],
        store.sizes[part],
        store.orientations[part],
        scan.sums_of(samples, store.sums.__getitem__),
    )


def _warn_of_what_is_above_white(
    samples: Sequence[Sample], largest: Sequence[int | None], reading: Reading
) -> None:
    odd = [
        f"{sample.name}: {reason}"
        for sample, value in zip(samples, largest, strict=True)
        if (reason := above_white(value, reading.white_level))
    ]
    if odd:
        logging.warning("%d images do not fit the white level: %s", len(odd), some_of(odd))


def _of_files(
    category: str,
    files: Files,
    image_size: int,
    reading: Reading,
    copy: str,
    *,
    pick_test: bool,
) -> Decoded:
    """The decoded copy where it was made from these very files, else a new one; '' is no copy."""
    if copy and (images := _up_to_date(copy, category, files, image_size, reading, pick_test)):
        return images
    train, test, level = decode(files, image_size, reading)
    images = Decoded(category, train, test, pick_test, level, reading.white_level == 0)
    return _write_copy(copy, images) if copy else images


def _up_to_date(
    copy: str,
    category: str,
    files: Files,
    image_size: int,
    reading: Reading,
    pick_test: bool,
) -> Decoded | None:
    try:
        images = decoded.read_decoded(copy)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logging.warning("Decoding the images anew: %s", error)
        return None
    about = (images.category, images.pick_test, images.train.images.shape[1:3])
    if (
        about == (category, pick_test, (image_size,) * 2)
        and _has_level(images, reading.white_level)
        and _are(images, files, reading)
    ):
        return images
    logging.info("The images are not those of %s: decoding them anew.", copy)
    return None


def _are(images: Decoded, files: Files, reading: Reading) -> bool:
    """Whether the images were decoded from these very files."""
    for part, samples in ((images.train, files.train), (images.test, _by_name(files.test))):
        if part.paths != [sample.name for sample in samples]:
            return False
        try:
            if part.sums != scan.sums_of(samples, partial(sha256_of_image, reading=reading)):
                return False
        except ValueError:  # decoding says which file, and why
            return False
    return True


def _has_level(images: Decoded, white_level: int | None) -> bool:
    """Whether images were decoded with the white level that is asked for; 0: with that found."""
    return images.level_found if white_level == 0 else images.white_level == white_level


def _write_copy(copy: str, images: Decoded) -> Decoded:
    """The images from their new copy, so that memory is free of them, or as they are without."""
    try:
        decoded.write_decoded(copy, images)
        logging.info("Wrote the decoded images to %s.", copy)
        return decoded.read_decoded(copy)
    except OSError as error:
        logging.warning("The decoded images are not kept: %s", error)
        return images


def _of_copy(
    path: str, category: str, image_size: int, white_level: int | None, *, test: bool
) -> Decoded:
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
    if not _has_level(images, white_level):
        theirs = images.white_level or 0
        raise ValueError(
            f"{path} holds images of the white level {theirs}, not "
            f"{white_level or 'what the training images have'}: name the folder of the images, or "
            f"set data.white_level={theirs} for a run of its own"
        )
    return images


def _warn_of_missing_masks(images: Images, *, expected: bool) -> None:
    """Own images have masks or have none: `expected` says that there must be some."""
    missing = [path for path, mask in zip(images.paths, images.masks, strict=True) if mask is None]
    if missing and (expected or len(missing) < int(images.labels.sum())):
        logging.warning(
            "%d defective test images have no mask, there are no pixel metrics without: %s",
            len(missing),
            some_of(missing),
        )


def _split(images: Decoded, seed: int, share: float, test: bool, defects: Asked) -> Splits:
    count, pick = len(images.train.paths), images.pick_test
    parts = sampling.split(seed, count, share, pick_test=pick)
    train, calibration, picked = (images_at(images.train, indices) for indices in parts)
    tested, chosen = images.test, None
    if defects.number and test:
        tested, chosen = _apart(images.test, seed, defects)
    tested = _with_good(tested, picked) if pick and test else tested
    return Splits(train, calibration, tested, images.white_level, chosen)


def _apart(test: Images, seed: int, defects: Asked) -> tuple[Images, Images]:
    """The test images without those that are labelled, and these."""
    names = labelled.choose_labelled(seed, test.paths, test.defects, defects.number, defects.kind)
    mine = np.isin(np.array(test.paths, object), np.array(names, object))
    return images_at(test, np.flatnonzero(~mine)), images_at(test, np.flatnonzero(mine))


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
        np.concatenate([bad.orientations, good.orientations]),
        bad.sums + good.sums,
    )


def _joined(bad: np.ndarray | Rows, good: np.ndarray | Rows) -> np.ndarray | Rows:
    if isinstance(bad, Rows) and isinstance(good, Rows):  # of one file
        return bad.join(good)
    return np.concatenate([bad, good])


def images_at(images: Images, indices: np.ndarray) -> Images:
    """The images at the indices, int [M]."""
    all_images = images.images
    return Images(
        all_images.take(indices) if isinstance(all_images, Rows) else all_images[indices],
        [images.paths[index] for index in indices],
        [images.defects[index] for index in indices],
        images.labels[indices],
        _masks_at(images.masks, indices),
        images.sizes[indices],
        images.orientations[indices],
        [images.sums[index] for index in indices],
    )


def _masks_at(masks: Sequence[np.ndarray | None], indices: np.ndarray) -> Sequence:
    """Those at the indices; training images have none."""
    if isinstance(masks, Masks):
        return masks.take(indices)
    return [masks[index] for index in indices] if len(masks) else []


# ---------------------------------------------------------------- splits to batches


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


def labelled_train_draws(
    images: np.ndarray, num_labelled: int, *, flip: bool, crop: int, rotation: int = 0
) -> sampling.Draws:
    """As `train_draws`, of steps that see normal and labelled images: dims (devices, 2, batch).

    Of `images` the last `num_labelled` are the labelled ones.
    """
    room = sampling.crop_room(images, crop)
    normal = len(images) - num_labelled
    return sampling.labelled_draws(normal, num_labelled, flip=flip, rotation=rotation, room=room)


def train_images(images: np.ndarray, draws: sampling.Draws) -> Callable[..., Iterator[Any]]:
    """Endless batches of `images`, uint8 [N, S, S, 3], that `draws` name, gathered by tf.data.

    Returns:
      `batches(dims, seed, first_step, process=(index, count))`, as `draws`, but for the images
      themselves, whole and as they are, uint8 [*dims, S, S, 3], in place of their indices.

    Raises:
      OSError: when batches are asked for: TensorFlow is missing.
    """

    def batches(
        dims: tuple[int, ...], seed: int, first_step: int, process: tuple[int, int] = (0, 1)
    ) -> Iterator[Any]:
        try:
            from data import streaming
        except ImportError as error:
            raise OSError(
                f"TensorFlow is needed to stream batches and cannot be imported ({error}): install "
                "requirements.txt, or keep the images on the device, --config.data.resident=True"
            ) from error
        return streaming.gather_drawn(images, draws(dims, seed, first_step, process))

    return batches


def eval_batches(images: np.ndarray | Rows, batch_size: int) -> Iterator[np.ndarray]:
    """Batches of `images`, uint8 [N, S, S, 3], in order: float32 in [-1, 1], the last short."""
    for start in range(0, len(images), batch_size):
        yield sampling.scale(images[start : start + batch_size])
