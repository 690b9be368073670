"""Files to arrays without a copy between: each is decoded once, by several threads."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import logging

from data.decoded import Images
from data.images import read_image, resize
from data.layout import Files, Sample

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
