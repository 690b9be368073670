"""How often good patches are so far from the mean: histograms of distances, and what they say.

Distances m [B, h, w] are those of `contrario_jax.moments.distances`, about 1 where patches are
usual. A histogram is [BINS], shares of them in bins of equal width in log10 m. No law of
distribution is assumed: of textures the tails are heavier than chi-squared.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MEDIAN = 0.5
"""The share above the level by which it is measured how alike neighbours are."""

BINS = 256
"""Bins of a histogram."""

_LOW, _HIGH = -3.0, 5.0  # log10 of the smallest and the largest distance that is told apart
_WIDTH = (_HIGH - _LOW) / BINS
_TAIL = 100  # independent values above where the tail is no longer read off, but extrapolated
_LEAST_SHARE = 1e-9  # what cannot be seen by any number of images


class Usual(NamedTuple):
    """What is known of the distances of good patches, at one scale, with L levels and V windows."""

    shares: jax.Array  # [BINS], the histogram
    thresholds: jax.Array  # [1 + L], the median of the distances, and those that are the levels
    windows: jax.Array  # [1 + L, V, 2], of `engine.nfa.window_moments`
    patches: jax.Array  # [], how many there were


def place(distance: jax.Array) -> jax.Array:
    """Where a distance lies among the bins, from 0 to BINS; not whole."""
    logarithm = jnp.log10(jnp.maximum(distance, 1e-30))
    return jnp.clip((logarithm - _LOW) / _WIDTH, 0.0, BINS - 1e-3)


def bin_shares(distance: jax.Array) -> jax.Array:
    """The share of the distances, of any shape, in each bin: [BINS]."""
    bins = jnp.floor(place(distance)).astype(jnp.int32).ravel()
    return jnp.zeros(BINS).at[bins].add(1.0) / bins.size


def shares_above(shares: jax.Array) -> jax.Array:
    """How often a distance lies above the lower edge of each bin, and the last upper one."""
    above = jnp.cumsum(shares[::-1])[::-1]
    return jnp.concatenate([above, jnp.zeros(1)])


def log_tail(shares: jax.Array, count: jax.Array) -> jax.Array:
    """log10 P(m > x) at each edge of the bins, [BINS + 1].

    Read off the histogram as long as 100 independent values lie above; from there on a power of m,
    which is a straight line here. Its exponent is Hill's estimate, the inverse of the mean by which
    ln m exceeds that edge (Hill 1975, doi:10.1214/aos/1176343247).

    Args:
      shares: [BINS].
      count: how many independent values the histogram is of.
    """
    above = shares_above(shares)
    first = jnp.maximum(jnp.sum(above * count >= _TAIL) - 1, 0)
    start = jnp.maximum(above[first], _LEAST_SHARE)
    beyond = jnp.arange(BINS + 1) > first
    # The mean excess: the area below the tail, half a bin more than the edges above `first` have.
    excess = (jnp.sum(jnp.where(beyond, above, 0.0)) / start + 0.5) * _WIDTH * np.log(10)
    steps = (jnp.arange(BINS + 1) - first) * _WIDTH
    measured = jnp.log10(jnp.maximum(above, _LEAST_SHARE))
    return jnp.where(beyond, jnp.log10(start) - steps / excess, measured)


def log_pixels(distance: jax.Array, tail: jax.Array) -> jax.Array:
    """log10 P(m > x) at each distance, between the edges in proportion; of a `log_tail`."""
    where = place(distance)
    below = jnp.floor(where).astype(jnp.int32)
    low, high = tail[below], tail[below + 1]
    return low + (where - below) * (high - low)


def thresholds(shares: jax.Array, wanted: Sequence[float]) -> jax.Array:
    """Distances above which about the `wanted` shares of good patches lie, or fewer: [L].

    They lie on edges of the bins of the histogram [BINS].
    """
    edges = jnp.asarray(10 ** (_LOW + _WIDTH * np.arange(BINS + 1)), jnp.float32)
    above = shares_above(shares)
    return edges[jnp.stack([jnp.sum(above > share) for share in wanted])]


def above_levels(distance: jax.Array, levels: jax.Array) -> jax.Array:
    """1 where a distance [B, h, w] lies above each level [L], else 0: [B, L, h, w]."""
    return (distance[:, None] > levels.reshape(1, -1, 1, 1)).astype(jnp.float32)
