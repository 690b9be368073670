"""A category's images from a decoded copy, from MVTec AD's layout, or from a folder of own images.

Only the layout of MVTec AD with its test set needs TensorFlow, and only the first time.
"""

import contextlib
import os
from collections.abc import Iterator

from absl import logging

from data import decoded, decoding, folder, layout
from data.decoded import Decoded
from data.layout import Files


def from_copy(path: str, category: str, image_size: int, *, test: bool) -> Decoded:
    """The decoded copy that the user names, held against what the config asks for.

    Raises:
      ValueError: it holds other images, another format, or none.
    """
    images = decoded.read(path, test=test)
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
        train, none = decoding.decode(Files(layout.scan_training(root, category), []), image_size)
        return Decoded(category, "", train, none)
    files = layout.scan(root, category)
    digest = layout.digest(files)
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
    check_name(category)
    files, pick_test = folder.scan(root, test=test), folder.has_bad(root)
    if not test:
        return Decoded(category, "", *decoding.decode(files, image_size), pick_test)
    digest = layout.digest(files)
    path = _copy(category, image_size, data_dir)
    if found := _up_to_date(path, category, digest, image_size, pick_test):
        return found
    images = Decoded(category, digest, *decoding.decode(files, image_size), pick_test)
    return _kept(path, images)


def check_name(category: str) -> None:
    """Raises ValueError where a folder of own images cannot go by that name."""
    if category in (*layout.CATEGORIES, "demo", "") or os.path.basename(category) != category:
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
        found = decoded.read(path)
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
        decoded.write(path, images)
        logging.info("Wrote the decoded images to %s: with it, no TensorFlow is needed.", path)
        return decoded.read(path)
    except OSError as error:
        logging.warning("The decoded images are not kept: %s", error)
        return images
