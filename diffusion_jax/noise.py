"""Noise of mean 0 and variance 1 at each pixel, which a config names by `fn`.

A noise is a function (rng, shape [B, H, W, C]) -> float32 of that shape, in which the draws of the
images are independent.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from engine.residuals import interpolation_matrix

NoiseFn = Callable[[jax.Array, tuple[int, ...]], jax.Array]
"""(rng, shape [B, H, W, C]) -> noise of mean 0 and variance 1."""

_PERSISTENCE = 0.8  # of an octave, as a share of the one twice as coarse
_COARSEST = 2  # cells a side


def gaussian() -> NoiseFn:
    """Independent at each pixel and channel."""
    return _normal


def multi_scale() -> NoiseFn:
    """Octaves of interpolated noise, from cells of half an image to pixels.

    Gaussian noise hides what is small first, and a large defect shows through it; noise that is
    coarse too hides both. In the place of AnoDDPM's simplex noise (Wyatt et al. 2022) with its
    persistence of 0.8; divided by its deviation at each pixel, so that its variance is 1.
    """
    return _octaves


def _normal(rng: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    # Drawn in a row: XLA takes several times as long to compile a draw of four dimensions.
    return jax.random.normal(rng, (math.prod(shape),)).reshape(shape)


def _octaves(rng: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    batch, height, width, channels = shape
    total, variance = jnp.zeros(shape), np.zeros((height, width))
    for octave, cells in enumerate(_cells(min(height, width))):
        weight = _PERSISTENCE**octave
        grid = _normal(jax.random.fold_in(rng, octave), (batch, cells, cells, channels))
        rows, columns = map(partial(interpolation_matrix, small=cells), (height, width))
        total += weight * jnp.einsum("Hh,bhwc,Ww->bHWc", rows, grid, columns)
        variance += weight**2 * np.outer((rows**2).sum(axis=1), (columns**2).sum(axis=1))
    return total / np.asarray(np.sqrt(variance), np.float32)[None, :, :, None]


def _cells(side: int) -> list[int]:
    """Cells a side of each octave, from coarse to as many as there are pixels."""
    halvings = max(int(math.log2(side / _COARSEST)), 0)
    return [max(side >> halving, 1) for halving in range(halvings, -1, -1)]
