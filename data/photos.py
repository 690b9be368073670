"""New images to score, one batch at a time: what a path or a pattern names, and what is in it.

A photo goes through the functions that training images go through (data/images.py), and a file that
cannot be read is reported in its place among the others. No TensorFlow.
"""

import functools
import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from PIL import Image

from data.images import (
    KINDS,
    PLAIN,
    Raster,
    Reading,
    above_white,
    one_line,
    raster_of,
    read_bytes,
    read_raster,
    require_side,
    resize,
    shrink,
)
from data.scan import images_of
from storage.outputs import written_by

_SHOWN = 1024  # pixels of the longer side that are kept to be looked at
_THREADS = 4  # a photo of 89 million pixels takes 1 GB while it is decoded


class Photo(NamedTuple):
    """One file of the user's, decoded, or the reason why not."""

    path: str
    pixels: np.ndarray | None  # uint8 [S, S, 3], as training sees it; None where unreadable
    shown: np.ndarray | None  # uint8 [h, w, 3], shrunk so that max(h, w) <= 1024; None likewise
    size: tuple[int, int]  # height, width, as a person sees it; (0, 0) where unreadable
    # One line without the path: why it could not be read, or what is odd about it; else ''.
    reason: str
    # Whether the pixels are a window of a clip, uint8 [H, W, T], and `shown` its frame, as large.
    of_clip: bool = False


def find(pattern: str) -> list[str]:
    """The files that `pattern` names, sorted, each once.

    Of a folder, the image files at any depth, hidden ones and symlinked folders passed over; a
    warning counts files of other suffixes. A pattern with `*`, `?`, `[...]` or, for folders at any
    depth, `**`, names every file that matches, whatever its suffix, and the images of every folder
    that does. What exists under the very name is that file or folder. What this program has written
    (storage/outputs.py) is passed over.

    Raises:
      ValueError: nothing matches, or there is no image in the folder.
      OSError: a folder cannot be listed.
    """
    path = Path(os.path.expanduser(pattern))
    exists = bool(pattern) and os.path.lexists(path)
    paths: set[str] = set()
    for match in [path] if exists else _matches(path):
        if not os.path.isdir(match):
            paths.add(str(match))
        elif exists or not os.path.islink(match):  # a symlink may lead in circles
            paths.update(map(str, images_of(match)))
        else:
            logging.warning("%s: a symlink to a folder is not followed", match)
    if paths:
        return sorted(paths)
    if exists:
        raise ValueError(f"{str(path)!r} holds no {KINDS} file: name a folder or file of images")
    raise ValueError(
        f"no image file is called, or matches, {pattern!r}: name a file, a folder, or a pattern in "
        "quotes such as 'line3/**/*.png'"
    )


def read_photo(path: str, image_size: int, reading: Reading = PLAIN) -> Photo:
    """Decodes a file, whatever it is; what is wrong with it is in `reason`.

    One with values above the white level is readable, and the reason says so: what glares is to be
    found, and a camera that was set otherwise to be noticed.
    """
    where = Path(path)
    return _read(
        path, f"{one_line(where)}: ", lambda: read_raster(where, reading), image_size, reading
    )


def photo_of_bytes(data: bytes, name: str, image_size: int, reading: Reading = PLAIN) -> Photo:
    """As `read_photo`, of what a file holds, for the same reasons; `name` becomes its path."""
    return _read(name, "", lambda: read_bytes(data, reading), image_size, reading)


def _read(
    name: str, prefix: str, read: Callable[[], Raster], image_size: int, reading: Reading
) -> Photo:
    try:
        return _of_raster(read(), image_size, reading)._replace(path=name)
    except Exception as error:  # such as too little memory
        reason = " ".join(str(error).removeprefix(prefix).split())
        return Photo(name, None, None, (0, 0), reason or type(error).__name__)


def of_image(image: Image.Image, image_size: int, reading: Reading = PLAIN) -> Photo:
    """A photo that Pillow has opened, read as its file would be.

    Raises:
      ValueError: it has less than 8 pixels a side, or floating-point ones.
    """
    return _of_raster(raster_of(image, reading), image_size, reading)


def _of_raster(raster: Raster, image_size: int, reading: Reading) -> Photo:
    if raster.pixels is None:
        raise ValueError("16 bits, of which the white level is not known")
    odd = above_white(raster.largest, reading.white_level)
    return of_pixels(raster.pixels, image_size)._replace(reason=odd)


def of_pixels(image: np.ndarray, image_size: int) -> Photo:
    """A photo that is in memory: uint8 [H, W, 3], red, green and blue, as a person sees it.

    Raises:
      ValueError: it is no such array, or has less than 8 pixels a side.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"{image.dtype} {list(image.shape)} is no image: give uint8 [H, W, 3], RGB"
        )
    require_side(*image.shape[:2])
    return Photo("", resize(image, image_size), shrink(image, _SHOWN), image.shape[:2], "")


def stream_photos(
    paths: Sequence[str], image_size: int, batch_size: int, reading: Reading = PLAIN
) -> Iterator[list[Photo]]:
    """The photos of `paths` in order, `batch_size` a list, the last short.

    While one list is looked at, threads decode the next, and no further: the memory taken does not
    grow with the number of paths.
    """
    pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))

    def start(first: int) -> list[Future[Photo]]:
        batch = paths[first : first + batch_size]
        return [pool.submit(read_photo, path, image_size, reading) for path in batch]

    try:
        coming = start(0)
        for first in range(batch_size, len(paths) + batch_size, batch_size):
            photos = [future.result() for future in coming]
            coming = start(first)
            yield photos
    finally:
        pool.shutdown(cancel_futures=True)


def _matches(pattern: Path) -> Iterator[Path]:
    """Files and folders that match; hidden ones do only where the pattern spells out a dot.

    By `Path.glob`, which does not follow symlinks at `**`, as `glob.glob` does for ever.
    """
    parts = list(pattern.parts)
    magic = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    base, wanted = Path(*parts[:magic]), parts[magic:]
    if not wanted:
        return
    # Two stars beside other characters are one, as in a shell; some versions of Python refuse them.
    wanted = [part if part == "**" else re.sub(r"\*+", "*", part) for part in wanted]
    if wanted[-1] == "**":
        wanted.append("*")  # else files are among the matches or not, as Python's version has it
    dots = any(map(_hidden, wanted))
    wrote = functools.cache(written_by)  # a folder may hold many files
    for path in base.glob("/".join(wanted)):
        below = path.relative_to(base).parts
        folders = below if path.is_dir() else below[:-1]
        inside = (base.joinpath(*below[:count]) for count in range(1, len(folders) + 1))
        if (dots or not any(map(_hidden, below))) and not any(map(wrote, inside)):
            yield path


def _hidden(name: str) -> bool:
    return name.startswith(".") and name != ".."
