"""A category's decoded images in one `.npz`: a run that finds it needs no TensorFlow.

The file says which source files it was made from (their SHA-256) and at which size, so that a stale
one is known by content. Its ZIP container holds a checksum of every array. Images and masks are
not compressed and stay in the file (storage/rows.py): their number takes no memory.
"""

import os
import struct
import zipfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from storage import files
from storage.rows import Bytes, Masks, Rows, packed_bytes

# Since 4: EXIF orientation, the white level, sums of each file; since 3: uncompressed; since 2:
# Pillow's resizing, the sizes of the files, pick_test.
_FORMAT = 4
_ANEW = "it is made anew from the images, where their folder is given"
_BLOCK = 2**20  # bytes that are read at a time for the checksum


class Images(NamedTuple):
    """Images of one split, sorted by path."""

    images: np.ndarray | Rows  # uint8 [N, S, S, 3]
    paths: list[str]  # relative to the category's folder
    defects: list[str]  # 'good' or the defect's folder
    labels: np.ndarray  # int64 [N]; 0 good, 1 defective
    # bool [h, w] each, at the image's own size; None for a defective image without a mask.
    masks: Sequence[np.ndarray | None]  # empty for training images
    sizes: np.ndarray  # int64 [N, 2]; height and width, as a person sees the image
    # int64 [N]; the EXIF orientation, 0 to 8, by which the mask's file was turned to be seen, or
    # the image's where there is none (data/images.py).
    orientations: np.ndarray
    sums: list[str]  # SHA-256, in hex, of each file, with that of its mask (data/scan.py)


class Decoded(NamedTuple):
    """All images of a category at one size, and what they were made from."""

    category: str
    train: Images
    test: Images
    # Whether good test images are still to be picked from `train`: a folder of own images has them
    # together (data/scan.py), and which are trained on depends on the seed.
    pick_test: bool = False
    # Of the images of 16 bits; None where no training image has 16, and none was set.
    white_level: int | None = None
    level_found: bool = True  # by the training images; else it was set


def no_images(size: int) -> Images:
    """A split without images, uint8 [0, size, size, 3]."""
    none = np.zeros(0, np.int64)
    blank = np.zeros((0, size, size, 3), np.uint8)
    return Images(blank, [], [], none, [], none.reshape(0, 2), none, [])


def write_decoded(path: str, decoded: Decoded) -> None:
    """Writes `path` as a whole or not at all, and its folder if need be.

    Raises:
      OSError: it cannot be written.
    """
    arrays = {
        "format": np.array(_FORMAT),
        "category": np.array(decoded.category),
        "pick_test": np.array(decoded.pick_test),
        "white_level": np.array(decoded.white_level or 0),
        "level_found": np.array(decoded.level_found),
        "mask_sizes": _mask_sizes(decoded.test.masks),
        "mask_bits": _mask_bits(decoded.test.masks),
    }
    for split, images in (("train", decoded.train), ("test", decoded.test)):
        arrays[f"{split}_images"] = np.asarray(images.images)
        arrays[f"{split}_paths"] = np.array(images.paths, dtype=np.str_)
        arrays[f"{split}_defects"] = np.array(images.defects, dtype=np.str_)
        arrays[f"{split}_labels"] = images.labels
        arrays[f"{split}_sizes"] = images.sizes
        arrays[f"{split}_orientations"] = images.orientations
        arrays[f"{split}_sums"] = np.array(images.sums, dtype=np.str_)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with files.whole(path, shared=True) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_decoded(path: str, *, test: bool = True) -> Decoded:
    """What `write_decoded` wrote; without `test`, the training images alone are read from the file.

    Images and masks are read when they are asked for, and from this file, whatever comes to its
    place; their checksums are held against them here.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no such file, damaged, of another version's format, or names a file that
        would lie outside of the folder of the images.
    """
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            version = str(_array(archive, "format"))
            if version == str(_FORMAT):
                return _decoded(_Archive(archive, Bytes(file)), test)
    except FileNotFoundError:
        raise
    except Exception as error:  # a cut or altered ZIP file fails in many ways
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} holds no decoded images ({reason}): {_ANEW}") from error
    raise ValueError(
        f"{path} was written by another version of this program (format {version}, not {_FORMAT}): "
        f"{_ANEW}"
    )


class _Archive(NamedTuple):
    zip: zipfile.ZipFile
    file: Bytes  # the same


def _decoded(archive: _Archive, test: bool) -> Decoded:
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.zip.infolist()):
        raise ValueError("its arrays are compressed")
    category, pick_test, white_level, level_found = (
        _array(archive.zip, name).item()
        for name in ("category", "pick_test", "white_level", "level_found")
    )
    how = pick_test, white_level or None, level_found
    train = _split(archive, "train")
    if not test:
        return Decoded(category, train, no_images(train.images.shape[1]), *how)
    tested = _split(archive, "test")
    sizes = _array(archive.zip, "mask_sizes")
    start, (count,) = _place(archive, "mask_bits", 1)
    if sizes.shape != (len(tested.paths), 2) or not ((sizes >= 0) & (sizes < 2**31)).all():
        raise ValueError("the sizes of the masks make no sense")
    if packed_bytes(sizes).sum() != count:
        raise ValueError("the masks have other sizes than they say")
    masks = Masks(archive.file, start, sizes)
    return Decoded(category, train, tested._replace(masks=masks), *how)


def _split(archive: _Archive, split: str) -> Images:
    start, (count, *shape) = _place(archive, f"{split}_images", 4)
    arrays = [
        _array(archive.zip, f"{split}_{name}")
        for name in ("paths", "defects", "sums", "labels", "sizes", "orientations")
    ]
    paths, defects, sums, *numbers = arrays
    if any(len(array) != count for array in arrays):
        raise ValueError(f"the arrays of {split} differ in length")
    if shape != [shape[0], shape[0], 3] or any(array.dtype != np.int64 for array in numbers):
        raise ValueError(f"the arrays of {split} have other shapes or types")
    for path, defect in zip(paths.tolist(), defects.tolist(), strict=True):
        _require_name(path)
        if "/" in defect:
            raise ValueError(f"the defect {defect!r} is no name of a folder")
        _require_name(defect)
    size = int(np.prod(shape))
    images = Rows(archive.file, range(start, start + count * size, size), tuple(shape))
    labels, sizes, orientations = numbers
    names = paths.tolist(), defects.tolist()
    return Images(images, *names, labels, [], sizes, orientations, sums.tolist())


def _require_name(name: str) -> None:
    """A stranger's file must name nothing outside of the folders that it is read into."""
    if "\0" in name or {"", ".", ".."} & set(name.replace(os.sep, "/").split("/")):
        raise ValueError(f"{name!r} is no name of a file in a folder")


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """A small array, read as a whole."""
    with archive.open(f"{name}.npy") as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        if member.read(1):  # to its end, where the checksum is
            raise ValueError(f"{name} is longer than it says")
    return array


def _place(archive: _Archive, name: str, rank: int) -> tuple[int, tuple[int, ...]]:
    """Where in the file an array of uint8 begins, and its shape; its checksum is compared."""
    info = archive.zip.getinfo(f"{name}.npy")
    with archive.zip.open(info) as member:
        np.lib.format.read_magic(member)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        header = member.tell()
        while member.read(_BLOCK):
            pass
    if dtype != np.uint8 or fortran or len(shape) != rank:
        raise ValueError(f"{name} is {dtype} {shape}, not uint8 of rank {rank}")
    if header + np.prod(shape, dtype=float) != info.file_size:
        raise ValueError(f"{name} has another length than it says")
    # The name and an extra field lie before an array, of the lengths that end the local header.
    lengths = archive.file.read(info.header_offset + 26, 4).tobytes()
    return info.header_offset + 30 + sum(struct.unpack("<HH", lengths)) + header, shape


def _mask_sizes(masks: Sequence[np.ndarray | None]) -> np.ndarray:
    """Heights and widths, int64 [N, 2], 0 where there is no mask."""
    sizes = [(0, 0) if mask is None else mask.shape for mask in masks]
    return np.array(sizes, np.int64).reshape(-1, 2)


def _mask_bits(masks: Sequence[np.ndarray | None]) -> np.ndarray:
    """The bits of each mask, from a new byte on, as one row."""
    bits = [np.packbits(mask) for mask in masks if mask is not None]
    return np.concatenate([np.zeros(0, np.uint8), *bits])
