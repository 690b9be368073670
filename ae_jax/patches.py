"""Patches: where they lie in the images of a batch, and which of their pixels they cover.

`B` images of `H` x `W` pixels, float32 [B, H, W, C]; each has `K` patches, each made on a canvas of
`P` x `P` pixels, as large as the largest patch, somewhere in the image: less work than whole images
would be.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from engine import parallel

_KNOTS = 7  # random numbers along a side of a displacement field
_RADIUS = 0.75  # of the disk, where half the patch's side is 1: room for its distortion


class Patches(NamedTuple):
    """Where the patches of a batch lie: `u`, `v` are -1 and 1 at a patch's borders."""

    corner: jax.Array  # [B, K, 2], int32: the canvas's first row and column
    centre: jax.Array  # [B, K, 2], pixels
    half: jax.Array  # [B, K], half the patch's side, pixels
    u: jax.Array  # [B, K, P], of the canvas's rows
    v: jax.Array  # [B, K, P], of its columns


def uniform(
    rng: jax.Array, shape: tuple[int, ...], low: float, high: float, *, axis: int = 0
) -> jax.Array:
    """Uniform in [low, high): float32 of `shape`, whose `axis` is that of the images."""
    draw = partial(jax.random.uniform, rng, minval=low, maxval=high)
    return _drawn(draw, shape, axis)


def normal(rng: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal: float32 of `shape`, whose first axis is that of the images."""
    return _drawn(partial(jax.random.normal, rng), shape, 0)


def integers(rng: jax.Array, shape: tuple[int, ...], low: int, high: int) -> jax.Array:
    """Uniform in [low, high): int32 of `shape`, whose first axis is that of the images."""
    return _drawn(partial(jax.random.randint, rng, minval=low, maxval=high), shape, 0)


def _drawn(draw: Callable[..., jax.Array], shape: tuple[int, ...], axis: int) -> jax.Array:
    """This device's part of what `draw` gives for the images of all devices.

    Drawn in a row: XLA takes several times as long to compile a draw of four dimensions.
    """

    def of(images: int) -> jax.Array:
        whole = (*shape[:axis], images, *shape[axis + 1 :])
        return draw((math.prod(whole),)).reshape(whole)

    return parallel.share(of, shape[axis], axis)


def place(
    rng: jax.Array, shape: tuple[int, ...], number: int, side: tuple[float, float]
) -> Patches:
    """`number` patches an image, with centres anywhere in it, at the border too.

    Shapes must not depend on what is drawn, but sides are drawn: so each patch is worked on in a
    canvas of one size, that of the largest side, whose corner is moved into the image where the
    patch crosses its border. `u` and `v` say for each of the canvas's rows and columns how far it
    lies from the patch's centre, in half sides: what is beyond -1 and 1 is canvas, not patch.

    Args:
      rng: of sizes and centres.
      shape: of the images, [B, H, W, C].
      number: K.
      side: least and largest, as a share of the shorter side of the images.
    """
    batch, height, width, _ = shape
    size_rng, centre_rng = jax.random.split(rng)
    sides = jnp.array((height, width), jnp.float32).reshape(1, 1, 2)
    canvas = max(2, round(side[1] * min(height, width)))
    half = uniform(size_rng, (batch, number), *side) * min(height, width) / 2
    centre = uniform(centre_rng, (batch, number, 2), 0.0, 1.0) * sides
    corner = jnp.clip(jnp.round(centre - canvas / 2), 0, sides - canvas)
    pixels = corner[..., None] + jnp.arange(canvas).reshape(1, 1, 1, -1) + 0.5
    uv = (pixels - centre[..., None]) / half[..., None, None]
    return Patches(corner.astype(jnp.int32), centre, half, uv[:, :, 0], uv[:, :, 1])


def pixels(placed: Patches) -> jax.Array:
    """Row and column of the canvases' pixels, from the patch's centre: [B, K, P, P, 2]."""
    half = placed.half[..., None]
    rows, columns = (placed.u * half)[..., :, None], (placed.v * half)[..., None, :]
    return jnp.stack(jnp.broadcast_arrays(rows, columns), axis=-1)


def field(rng: jax.Array, placed: Patches) -> jax.Array:
    """Displacements that vary smoothly over each patch, of variance 1: [B, K, P, P, 2].

    Random numbers at knots, smoothed by a Gaussian (Simard et al. 2003); as matrix products.
    """
    knots = jnp.linspace(-1.5, 1.5, _KNOTS).reshape(1, 1, 1, -1)
    spacing = 3 / (_KNOTS - 1)

    def basis(at: jax.Array) -> jax.Array:
        weights = jnp.exp(-0.5 * jnp.square((jnp.clip(at, -1.5, 1.5)[..., None] - knots) / spacing))
        return weights / jnp.linalg.norm(weights, axis=-1, keepdims=True)

    shape = (*placed.half.shape, _KNOTS, _KNOTS, 2)
    numbers = normal(rng, shape)
    return jnp.einsum("bkpg,bkghc,bkqh->bkpqc", basis(placed.u), numbers, basis(placed.v))


def disks(rng: jax.Array, placed: Patches) -> jax.Array:
    """The weight of each pixel of the canvases in its patch, from 0 to 1: [B, K, P, P]."""
    bend_rng, field_rng, soft_rng, turn_rng, stretch_rng = jax.random.split(rng, 5)
    number = placed.half.shape
    bend = uniform(bend_rng, number, 0.0, 0.4)[..., None, None, None]
    soft = uniform(soft_rng, number, 0.1, 0.6)[..., None, None]
    angle = uniform(turn_rng, number, 0.0, np.pi)[..., None, None]
    # Half of the disks are stretched, up to 5 times as long as wide: scratches (ours).
    stretch = jnp.exp(jnp.maximum(uniform(stretch_rng, number, -1.6, 1.6), 0))[..., None, None]
    u, v = placed.u[..., :, None], placed.v[..., None, :]
    displaced = bend * field(field_rng, placed)
    along = u * jnp.cos(angle) + v * jnp.sin(angle) + displaced[..., 0]
    across = (v * jnp.cos(angle) - u * jnp.sin(angle) + displaced[..., 1]) * stretch
    radius = jnp.sqrt(jnp.square(along) + jnp.square(across)) / _RADIUS
    disk = jnp.clip((1 - radius) / soft, 0, 1)
    # Nothing outside the patch, whatever the distortion does.
    border = 1 - jnp.maximum(jnp.abs(u), jnp.abs(v))
    return disk * jnp.clip(10 * border, 0, 1)
