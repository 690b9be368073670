"""Means and covariances of patches, at several scales, and the filters that whiten them.

`p` is the side of a patch, D = p p C its number of values, in the order row, column, colour. Images
are [B, H, W, C] in [-1, 1].
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from engine import parallel
from engine.convolution import convolve

# The variance of what rounding to 256 grey levels adds to a value in [-1, 1].
ROUNDED = (2 / 255) ** 2 / 12
"""No direction of patches varies less than this: what varies less is not known of it."""


class Moments(NamedTuple):
    """Of the patches of each of S scales."""

    mean: jax.Array  # [S, D]
    covariance: jax.Array  # [S, D, D]


def pooled(images: jax.Array, scale: int) -> jax.Array:
    """The mean of every `scale` x `scale` pixels: [B, H, W, C] -> [B, H / scale, W / scale, C]."""
    batch, height, width, channels = images.shape
    blocks = images.reshape(batch, height // scale, scale, width // scale, scale, channels)
    return blocks.mean((2, 4))


def patches(images: jax.Array, side: int, stride: int = 1) -> jax.Array:
    """All patches that lie inside the images, every `stride` pixels: [B, h, w, D]."""
    height, width = (length - side + 1 for length in images.shape[1:3])
    moved = [
        images[:, row : row + height : stride, column : column + width : stride]
        for row in range(side)
        for column in range(side)
    ]
    return jnp.concatenate(moved, axis=-1)


def batch_moments(images: jax.Array, scales: Sequence[int], side: int, stride: int) -> Moments:
    """The moments of the patches of everyone's images, averaged over the devices.

    Two passes, around the mean that all devices agree on: no digits are lost where patches hardly
    differ.
    """
    means, covariances = [], []
    for scale in scales:
        found = patches(pooled(images, scale), side, stride)
        found = found.reshape(-1, found.shape[-1])
        mean = parallel.mean(found.mean(0))
        centred = found - mean[None]
        means.append(mean)
        covariances.append(parallel.mean(centred.T @ centred / centred.shape[0]))
    return Moments(jnp.stack(means), jnp.stack(covariances))


def merged(old: Moments, new: Moments, batches: jax.Array) -> Moments:
    """The moments of `batches` batches, which `old` is of, and of one more as large as each.

    Chan, Golub, LeVeque 1979 (doi:10.1080/00031305.1983.10483115): the covariance around the common
    mean is that of both, and of the two means.
    """
    share = 1 / (batches + 1.0)
    step = new.mean - old.mean
    between = step[:, :, None] * step[:, None, :]
    return Moments(
        old.mean + share * step,
        (1 - share) * (old.covariance + share * between) + share * new.covariance,
    )


def whitening(
    mean: jax.Array, covariance: jax.Array, floor: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The filters that make patches white: matrix [D, D], bias [D], and the components [D, D].

    Column j of the matrix is the j-th eigenvector of the covariance over the root of its
    eigenvalue, the largest first, so that x @ matrix + bias has mean 0 and covariance 1. A
    direction in which good patches hardly vary is kept, for it is where defects show: its
    eigenvalue counts as `floor` times the largest, or `ROUNDED`, where it is less.

    Args:
      mean: [D].
      covariance: [D, D].
      floor: in [0, 1).
    """
    values, vectors = jnp.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    values = jnp.maximum(values, jnp.maximum(floor * values[0], ROUNDED))
    matrix = vectors / jnp.sqrt(values)[None]
    return matrix, -mean @ matrix, vectors


def distances(images: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """The squared Mahalanobis distance of each patch from the mean, over D: [B, h, w].

    One convolution: the squares of its D channels are added.

    Args:
      images: [B, H, W, C].
      kernel: [p, p, C, D], the matrix of `whitening`.
      bias: [D].
    """
    white = convolve(images, kernel, 1, ((0, 0), (0, 0))) + bias.reshape(1, 1, 1, -1)
    return jnp.square(white).mean(-1)
