"""A category's decoded images in one `.npz`: a run that finds it needs no TensorFlow.

The file says which source files it was made from (their SHA-256) and at which size, so that a stale
one is known by content. Its ZIP container holds a checksum of every array.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_FORMAT = 2  # since 2: Pillow's resizing, the sizes of the files, pick_test


class Images(NamedTuple):
    """Images of one split, sorted by path."""

    images: np.ndarray  # uint8 [N, S, S, 3]
    paths: list[str]  # relative to the category's folder
    defects: list[str]  # 'good' or the defect's folder
    labels: np.ndarray  # int64 [N]; 0 good, 1 defective
    # bool [h, w] each, at the image's own size; None for a defective image without a mask.
    masks: list[np.ndarray | None]  # empty for training images
    sizes: np.ndarray  # int64 [N, 2]; height and width of the files


class Decoded(NamedTuple):
    """All images of a category at one size, and what they were made from."""

    category: str
    digest: str  # SHA-256 of the source files; empty where the test images were not read
    train: Images
    test: Images
    # Whether good test images are still to be picked from `train`: a folder of own images has them
    # together (data/folder.py), and which are trained on depends on the seed.
    pick_test: bool = False


def no_images(size: int) -> Images:
    """A split without images, uint8 [0, size, size, 3]."""
    none = np.zeros(0, np.int64)
    return Images(np.zeros((0, size, size, 3), np.uint8), [], [], none, [], none.reshape(0, 2))


def write(path: str, decoded: Decoded) -> None:
    """Writes `path` as a whole or not at all, and its folder if need be.

    Raises:
      OSError: it cannot be written.
    """
    sizes, bits = _pack(decoded.test.masks)
    arrays = {
        "format": np.array(_FORMAT),
        "category": np.array(decoded.category),
        "digest": np.array(decoded.digest),
        "pick_test": np.array(decoded.pick_test),
        "mask_sizes": sizes,
        "mask_bits": bits,
    }
    for split, images in (("train", decoded.train), ("test", decoded.test)):
        arrays[f"{split}_images"] = images.images
        arrays[f"{split}_paths"] = np.array(images.paths, dtype=np.str_)
        arrays[f"{split}_defects"] = np.array(images.defects, dtype=np.str_)
        arrays[f"{split}_labels"] = images.labels
        arrays[f"{split}_sizes"] = images.sizes
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def read(path: str, *, test: bool = True) -> Decoded:
    """What `write` wrote; without `test`, the training images alone are read from the file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no such file, damaged, or of another version's format.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            names = [name for name in archive if test or not name.startswith(("test_", "mask_"))]
            arrays = {name: archive[name] for name in names}
        if arrays["format"] == _FORMAT:
            return _from(arrays, test)
        found = str(arrays["format"])
    except FileNotFoundError:
        raise
    except Exception as error:  # a cut or altered ZIP file fails in many ways
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} holds no decoded images ({reason}): delete it") from error
    raise ValueError(
        f"{path} was written by another version of this program (format {found}, not {_FORMAT}): "
        "it is made anew from the images, where their folder is given"
    )


def _from(arrays: dict[str, np.ndarray], test: bool) -> Decoded:
    category, digest = str(arrays["category"]), str(arrays["digest"])
    train, pick_test = _split(arrays, "train", []), bool(arrays["pick_test"])
    if not test:
        return Decoded(category, "", train, no_images(train.images.shape[1]), pick_test)
    masks = _unpack(arrays["mask_sizes"], arrays["mask_bits"])
    return Decoded(category, digest, train, _split(arrays, "test", masks), pick_test)


def _split(arrays: dict[str, np.ndarray], name: str, masks: list[np.ndarray | None]) -> Images:
    return Images(
        arrays[f"{name}_images"],
        arrays[f"{name}_paths"].tolist(),
        arrays[f"{name}_defects"].tolist(),
        arrays[f"{name}_labels"],
        masks,
        arrays[f"{name}_sizes"],
    )


def _pack(masks: Sequence[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths [N, 2], 0 where there is no mask, and all pixels as one row of bits."""
    sizes = [(0, 0) if mask is None else mask.shape for mask in masks]
    pixels = [mask.ravel() for mask in masks if mask is not None]
    row = np.concatenate([np.zeros(0, bool), *pixels])
    return np.array(sizes, np.int64).reshape(-1, 2), np.packbits(row)


def _unpack(sizes: np.ndarray, bits: np.ndarray) -> list[np.ndarray | None]:
    counts = sizes.prod(axis=1)
    row = np.unpackbits(bits, count=int(counts.sum())).astype(bool)
    parts = np.split(row, np.cumsum(counts)[:-1]) if len(sizes) else []
    return [
        part.reshape(size) if part.size else None for part, size in zip(parts, sizes, strict=True)
    ]
