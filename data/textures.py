"""Pictures whose content may replace that of normal images in training: a folder of the user's."""

import os
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data.images import KINDS, PLAIN, Reading, attempt, read_image, refuse_bad_files
from data.scan import images_of


def read_textures(folder: str | os.PathLike, side: int, reading: Reading = PLAIN) -> np.ndarray:
    """All images of `folder` and of the folders in it: their middle squares, uint8 [T, S, S, 3].

    DTD (https://www.robots.ox.ac.uk/~vgg/data/dtd) is such a folder: `dtd/images`, of 5,640 images
    or 1.1 GB at 256 px, which lie on every device.

    Args:
      folder: holds PNG, JPEG, BMP, TIFF, WEBP or PPM files, at any depth; is only read.
      side: S, to which the squares are resized.
      reading: as of the training images: textures of 16 bits have their white level.

    Raises:
      ValueError: there is no such folder, no image in it, or a file that cannot be read: one line
        that lists them all.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ValueError(f"corruption.textures: {root} is no folder: name one that holds images")
    paths = images_of(root)
    if not paths:
        raise ValueError(
            f"corruption.textures: {root} holds no {KINDS} file: put images there, or leave "
            "corruption.textures empty"
        )
    faults: list[str] = []
    squares = [
        attempt(partial(_square, side=side, reading=reading), path, faults) for path in paths
    ]
    refuse_bad_files(faults, "corruption.textures")
    return np.stack([square for square in squares if square is not None])


def _square(path: Path, side: int, reading: Reading) -> np.ndarray:
    image = Image.fromarray(read_image(path, reading))
    return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR))
