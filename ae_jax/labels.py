"""Graded labels: how much of a corruption can be seen, pixel by pixel.

Natural synthetic anomalies (Schlüter et al. 2022, arXiv 2109.15222) smooths the change of a pixel
and puts it through a logistic function, with a table of slopes and middles by category; here is one
rule for all products, and slow changes of brightness, as of lamps, are taken out first (ours).
"""

import jax
import jax.numpy as jnp
import numpy as np

_WINDOW = 7  # pixels of 256: the side of the mean over a pixel's neighbourhood
_LEAST = 1.0  # grey level of 255 by which a pixel must change to count at all


def graded(
    images: jax.Array,
    corrupted: jax.Array,
    mask: jax.Array,
    *,
    slope: float = 1 / 3,
    middle: float = 7.0,
) -> jax.Array:
    """Labels from 0, nothing to be seen, to 1: float32 [B, H, W].

    A logistic function of the absolute change in grey levels of 255, mean over colours and over the
    neighbourhood; 0 outside of the mask and where a pixel changed by less than a level.

    Args:
      images: float32 [B, H, W, C] in [-1, 1].
      corrupted: the same, as a corruption returns them.
      mask: float32 [B, H, W], likewise.
      slope: of the logistic function, per grey level.
      middle: the grey levels of change whose label is 1/2.
    """
    change = (corrupted - images) * 127.5
    fast = jnp.abs(change - _slow(change)).mean(-1)
    support = (mask > 0) & (jnp.abs(change).mean(-1) > _LEAST)
    return support * jax.nn.sigmoid(slope * (_local_mean(fast) - middle))


def _slow(change: jax.Array) -> jax.Array:
    """The polynomial of second degree that is nearest to each channel of [B, H, W, C]."""
    rows, columns = (_polynomials(side) for side in change.shape[1:3])
    few = jnp.einsum("ih,jw,bhwc->bijc", rows, columns, change, precision="highest")
    degree = np.arange(3)
    few *= ((degree[:, None] + degree) <= 2).reshape(1, 3, 3, 1).astype(np.float32)
    return jnp.einsum("ih,jw,bijc->bhwc", rows, columns, few, precision="highest")


def _polynomials(side: int) -> np.ndarray:
    """Orthonormal polynomials of degree 0, 1, 2 along a side: [3, side]."""
    at = np.linspace(-1, 1, side)
    basis, _ = np.linalg.qr(np.stack([np.ones(side), at, at**2], axis=1))
    return basis.T.astype(np.float32)


def _local_mean(values: jax.Array) -> jax.Array:
    """The mean of each pixel's neighbourhood inside the image: [B, H, W]."""
    side = max(1, round(_WINDOW * min(values.shape[1:3]) / 256) // 2 * 2 + 1)
    rows, columns = (_neighbours(count, side) for count in values.shape[1:3])
    return jnp.einsum("ih,bhw,jw->bij", rows, values, columns)


def _neighbours(count: int, side: int) -> np.ndarray:
    """Weights of the pixels whose mean is taken, for each of `count` in a row: [count, count]."""
    near = abs(np.arange(count)[:, None] - np.arange(count)) <= side // 2
    return (near / near.sum(1, keepdims=True)).astype(np.float32)
