"""A contrario tests: how many windows of an image would be so unusual by chance alone.

The number of false alarms of a test is NFA = N P: N tests are made in an image, and P bounds the
probability that this one is so unusual where all is good. The expected number of tests with
NFA < 1 in a good image is then below 1, whatever depends on what (Desolneux, Moisan, Morel 2000,
doi:10.1023/A:1026593302236; for anomalies Tailanian, Musé, Pardo 2021, arXiv 2110.02407).

A test here is a window around a pixel: the share of its pixels above a level, beside the share that
is usual. A pixel is marked by its own tests alone, so that marked pixels, and the regions that they
form, are no more than tests.

Logarithms have base 10, so that nothing underflows. Arrays are NumPy's or JAX's, and results are of
the same kind.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

LEAST = 10
"""A level is used where so many independent values of good images are expected above it."""


def log_binomial_tail(share: Any, probability: Any, count: Any) -> Any:
    """An upper bound of log10 P[Binomial(count, probability) >= share count]; 0 where it is usual.

    Chernoff's bound in Hoeffding's form (1963, doi:10.1080/01621459.1963.10500830, eq. 2.1):
    P <= exp(-count KL(share || probability)) for a share above the probability.

    Args:
      share: in [0, 1].
      probability: in [0, 1], of one value to lie above the level; 0: the level is not used, and the
        bound is 0.
      count: number of independent values, at least 0; it need not be whole.

    >>> bound = log_binomial_tail(np.float64(1), np.float64(0.1), np.float64(16))
    >>> round(float(bound), 4)
    -16.0
    """
    xp = share.__array_namespace__()
    used = xp.clip(probability, 1e-12, 1 - 1e-6)
    # 0 ln 0 is 0.
    divergence = share * xp.log(xp.maximum(share, 1e-30) / used)
    divergence += (1 - share) * xp.log(xp.maximum(1 - share, 1e-30) / (1 - used))
    unusual = (share > used) & (probability > 0)
    return xp.where(unusual, -count * divergence / np.log(10), 0.0)


def log_windows(above: Any, probabilities: Any, sides: Sequence[int], independent: Any) -> Any:
    """The least log10 P over windows around each pixel, and levels: [B, H, W], at most 0.

    A pixel that lies below a level is not tested there, so that marks end where a defect does, not
    half a window beside it. Windows end at the border, and have fewer pixels there.

    Args:
      above: 1 where a field lies above each of the L levels, else 0: float32 [B, L, H, W].
      probabilities: how often a good pixel does, [L]; 0: the level is not used.
      sides: of the V windows, in pixels; an even one counts as one less.
      independent: of each window the independent values to a pixel, [V], in (0, 1].
    """
    xp = above.__array_namespace__()
    least = xp.zeros_like(above)
    for number, side in enumerate(sides):
        rows, columns = (_window_matrix(length, side) for length in above.shape[2:])
        pixels = (rows.sum(1)[:, None] * columns.sum(1))[None, None]
        share = xp.matmul(xp.matmul(rows, above), columns) / pixels
        count = xp.maximum(pixels * independent[number], 1.0)
        bound = log_binomial_tail(share, probabilities[None, :, None, None], count)
        least = xp.minimum(least, above * bound)
    return least.min(1)


def window_moments(above: Any, sides: Sequence[int]) -> Any:
    """Mean and mean square of the share of windows above each level: [L, V, 2].

    Windows lie inside the image; of one that does not fit, the whole image is one.

    Args:
      above: as of `log_windows`.
      sides: likewise.
    """
    xp = above.__array_namespace__()

    def of_side(side: int) -> Any:
        reach = [(min(side, length) - 1) // 2 for length in above.shape[2:]]
        rows, columns = (
            _window_matrix(length, side)[r : length - r] / np.float32(2 * r + 1)
            for length, r in zip(above.shape[2:], reach, strict=True)
        )
        share = xp.matmul(xp.matmul(rows, above), columns.T)
        return xp.stack([share.mean((0, 2, 3)), xp.square(share).mean((0, 2, 3))], axis=-1)

    return xp.stack([of_side(side) for side in sides], axis=1)


def independent_share(moments: Any, sides: Sequence[int], side: int) -> Any:
    """How many independent values there are to a pixel in each window: [V].

    By the level that half of the good pixels lie above: the share of n independent values above it
    varies by p (1 - p) / n. So p (1 - p) over the variance that was measured is the number of
    independent values that a window amounts to, from 1 to all its pixels: less where neighbours are
    alike, or images differ as a whole. Rare levels would say too many: above them only the tips of
    peaks are seen, which look alone, though all their pixels rise together.

    Args:
      moments: of `window_moments` at that level, averaged over good images: [V, 2].
      sides: of the windows.
      side: of the images, in pixels.
    """
    xp = moments.__array_namespace__()
    variance = moments[:, 1] - xp.square(moments[:, 0])
    whole = [((min(each, side) - 1) // 2 * 2 + 1) ** 2 for each in sides]
    pixels = np.asarray(whole, np.float32)
    single = moments[:, 0] * (1 - moments[:, 0])
    return xp.clip(single / xp.maximum(variance, 1e-12), 1.0, pixels) / pixels


def _window_matrix(length: int, side: int) -> np.ndarray:
    """Row i is 1 at the pixels of the window around pixel i of a line: [length, length]."""
    places = np.arange(length)
    near: np.ndarray = np.abs(places[:, None] - places) <= (side - 1) // 2
    return np.asarray(near, np.float32)
