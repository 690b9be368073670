"""Anomaly scores: by how few windows of a good image would be so unusual, log10 NFA.

A map is -log10 P at each pixel, from 0 where all is usual; P bounds how probably a good pixel's own
tests are so unusual. The image score is -log10 NFA = -log10 (N P) of the least P, where N is the
number of tests in an image: above 0 less than one test of a good image is expected to be so
unusual; above 2, less than one in a hundred images. So a pixel is marked by NFA < 1 where the map
is above log10 N. The terms are the image scores of each of the two kinds of tests.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from contrario_jax.levels import (
    Usual,
    above_levels,
    bin_shares,
    log_pixels,
    log_tail,
    thresholds,
)
from contrario_jax.moments import ROUNDED, distances, patches, pooled, whitening
from engine.method import Score, ScoreFn, Variables
from engine.nfa import LEAST, independent_share, log_windows

REFERENCES = ("training", "image")
"""What `patches.reference` may be: what the patches of an image are compared with."""

_Tested = Sequence[tuple[jax.Array, jax.Array]]  # log10 P of patches, and of windows, by scale
_SHRINKAGE = 1e-3  # of the covariance of one image's patches, towards equal variances


def false_alarms(
    reference: str,
    scales: Sequence[int],
    side: int,
    *,
    levels: Sequence[float] = (0.1, 0.01, 0.001),
    windows: Sequence[int] = (1, 2, 4),
) -> ScoreFn:
    """Of the numbers of false alarms of patches and of windows of them.

    Args:
      reference: 'training': patches are compared with those of training images; 'image':
        against the others of the same image, which nothing need be learnt for. What is rare in the
        image is unusual then, and a defect on more than about a tenth of it no longer rare.
      scales: by how much images are made smaller.
      side: of the patches, in pixels of each scale.
      levels: about which shares of good patches lie above the levels.
      windows: sides of the windows that are tested, in sides of a patch.

    Raises:
      ValueError: another reference.
    """
    if reference not in REFERENCES:
        raise ValueError(f"patches.reference {reference!r} must be one of {', '.join(REFERENCES)}")
    sides = [side * window for window in windows]
    of_batch = _by_training if reference == "training" else _by_image

    def score(variables: Variables, images: jax.Array) -> Score:
        tested = of_batch(variables, images, scales, side, levels, sides)
        return _score(tested, scales, images.shape[1:3], 1 + len(levels) * len(sides))

    return score


def _by_training(
    variables: Variables,
    images: jax.Array,
    scales: Sequence[int],
    side: int,
    levels: Sequence[float],
    sides: Sequence[int],
) -> _Tested:
    del side
    filters, usual = variables["filters"], variables["usual"]
    tested = []
    for number, scale in enumerate(scales):
        kernel, bias = filters["kernel"][number], filters["bias"][number]
        distance = distances(pooled(images, scale), kernel, bias)
        known = Usual(*(usual[name][number] for name in Usual._fields))
        tested.append(log_tests(distance, known, sides))
    return tested


def _by_image(
    variables: Variables,
    images: jax.Array,
    scales: Sequence[int],
    side: int,
    levels: Sequence[float],
    sides: Sequence[int],
) -> _Tested:
    """Windows alone: a defect would lengthen the tail by which its own patches are judged.

    For the same reason how many independent values a window holds is not measured: patches that do
    not overlap count as independent.
    """
    del variables
    to_pixel = jnp.full(len(sides), 1 / side**2)

    def of_one(image: jax.Array) -> _Tested:
        tested = []
        for scale in scales:
            distance = own_distances(pooled(image[None], scale), side)
            above = above_levels(distance, thresholds(bin_shares(distance), levels))
            shares = above.mean((0, 2, 3))
            used = jnp.where(shares * distance.size / side**2 >= LEAST, shares, 0.0)
            windows = log_windows(above, used, sides, to_pixel)[0]
            tested.append((jnp.zeros_like(windows), windows))
        return tested

    return jax.vmap(of_one)(images)


def own_distances(image: jax.Array, side: int) -> jax.Array:
    """As `contrario_jax.moments.distances`, from the mean of the image's own patches: [1, h, w].

    One image has few patches for so large a covariance, which is drawn towards equal variances.
    """
    found = patches(image, side)
    rows = found.reshape(-1, found.shape[-1])
    mean = rows.mean(0)
    centred = rows - mean[None]
    covariance = centred.T @ centred / len(rows)
    equal = _SHRINKAGE * jnp.trace(covariance) / len(covariance) + ROUNDED
    matrix, bias, _ = whitening(mean, covariance + equal * jnp.eye(len(covariance)), 0.0)
    return jnp.square(found @ matrix + bias.reshape(1, 1, 1, -1)).mean(-1)


def log_tests(
    distance: jax.Array, usual: Usual, sides: Sequence[int]
) -> tuple[jax.Array, jax.Array]:
    """log10 P of each patch by itself, and the least of the windows around it: [B, h, w] each.

    A level is not used where fewer than `engine.nfa.LEAST` independent good values lie above it.

    Args:
      distance: [B, h, w], of one scale.
      usual: what is known of good ones there.
      sides: of the windows, in pixels of that scale.
    """
    to_pixel = independent_share(usual.windows[0], sides, min(distance.shape[1:]))
    probabilities = usual.windows[1:, 0, 0]
    # The largest windows know most of how images differ as a whole: the most cautious count.
    used = probabilities * usual.patches * to_pixel[-1] >= LEAST
    used = jnp.where(used, probabilities, 0.0)
    above = above_levels(distance, usual.thresholds[1:])
    return (
        log_pixels(distance, log_tail(usual.shares, usual.patches * to_pixel[0])),
        log_windows(above, used, sides, to_pixel),
    )


def _score(
    tested: _Tested,
    scales: Sequence[int],
    shape: tuple[int, ...],
    tests: int,
) -> Score:
    """From log10 P at each scale, of `tests` tests at each patch, for images of `shape` [H, W]."""
    total = float(np.log10(tests * sum(np.prod(fields[0].shape[1:]) for fields in tested)))

    def significance(kind: int) -> jax.Array:
        pairs = zip(tested, scales, strict=True)
        fields = [_at_full_size(each[kind], shape, scale) for each, scale in pairs]
        return -jnp.stack(fields).min(0)

    patch, windows = significance(0), significance(1)
    values = jnp.maximum(patch, windows)
    terms = {"patch": patch.max((1, 2)) - total, "windows": windows.max((1, 2)) - total}
    return Score(image=values.max((1, 2)) - total, map=values, terms=terms)


def _at_full_size(field: jax.Array, shape: tuple[int, ...], scale: int) -> jax.Array:
    """A field of patches [B, h, w], each at its middle, as one of pixels [B, H, W].

    The field of the outermost patches goes on to the border; between pixels of a smaller scale the
    field changes in proportion.
    """
    sides = zip(shape, field.shape[1:], strict=True)
    rows, columns = (_between(length, count, scale) for length, count in sides)
    return rows @ field @ columns.T


def _between(length: int, count: int, scale: int) -> np.ndarray:
    """What each of `length` pixels has of the `count` patches along a line: [length, count]."""
    border = (length // scale - count) // 2
    place = (np.arange(length) + 0.5) / scale - 0.5 - border
    place = np.clip(place, 0, count - 1)
    near = np.maximum(1 - np.abs(place[:, None] - np.arange(count)), 0)
    return np.asarray(near, np.float32)
