"""What a photo itself is like, whatever is in it: by this a lamp is told from a product.

Measured on the pixels that the network sees, so after the photo was shrunk.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


class Quality(NamedTuple):
    """Three numbers of a photo, each of which a fault of light or lens changes first."""

    brightness: float  # mean luma, 0 to 1
    contrast: float  # standard deviation of luma over its mean: a dimmer lamp leaves it alone
    # Standard deviation of the Laplacian over that of luma: the focus measure of Pech-Pacheco et
    # al. 2000 (doi:10.1109/ICPR.2000.903548), without what contrast and brightness do to it.
    sharpness: float


def quality_of(pixels: np.ndarray) -> Quality:
    """The quality of uint8 [H, W, 3], H and W at least 3.

    >>> quality_of(np.full((4, 4, 3), 255, np.uint8))
    Quality(brightness=1.0, contrast=0.0, sharpness=0.0)
    """
    luma = pixels.astype(np.float32) @ np.asarray(_LUMA, np.float32) / 255
    inner = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    mean, deviation = float(luma.mean(dtype=np.float64)), float(luma.std(dtype=np.float64))
    if deviation < 1e-6:  # of an even picture there is nothing but rounding
        return Quality(round(mean, 6), 0.0, 0.0)
    sharpness = float(laplacian.std(dtype=np.float64)) / deviation
    return Quality(round(mean, 6), round(deviation / mean, 6), round(sharpness, 6))


def mean_quality(each: Sequence[Quality]) -> Quality:
    """Of a clip: the mean of each number over its frames, of which there is one at least.

    >>> mean_quality([Quality(0.2, 0.1, 1.0), Quality(0.4, 0.1, 2.0)])
    Quality(brightness=0.3, contrast=0.1, sharpness=1.5)
    """
    return Quality(*np.mean(each, axis=0).round(6).tolist())


def qualities(images: Iterable[np.ndarray]) -> tuple[tuple[float, ...], ...]:
    """Of uint8 images [H, W, 3], of which there is one at least: each number of all of them."""
    return tuple(zip(*map(quality_of, images), strict=True))
