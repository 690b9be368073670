"""Where the images of a training step come from: the device's own memory, or the host.

A category is small (391 images at most): as uint8 it lies on every device once, and per step the
host sends only which images, and how each is cut, mirrored and turned. Where it does not fit, the
host sends the images themselves. The device cuts, mirrors and turns them all the same, and scales
them to float32 in [-1, 1].
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from engine import parallel
from engine.pixels import scaled

Stream = Callable[[tuple[int, ...], int, int, tuple[int, int]], Iterator[Any]]
"""(dims, seed, first step, (process, processes)) -> what each step from that one on gets, endless.

What step s gets is a pure function of (seed, s): a resumed run sees the images of an unbroken one,
and no state of an iterator is saved. Arrays begin with dims.
"""


class Batches(NamedTuple):
    """Training images, as `engine.train` takes them."""

    held: Any  # arrays that every device holds, placed once
    sent: Stream  # what the host sends for each step
    images: Callable[[Any, Any], jax.Array]
    """(held, one device's share of sent) -> its images; pure, a part of the jitted step."""
    grouped: bool  # whether what is sent is so small that many steps' worth go at once
    labelled: Stream | None = None  # what is sent for steps that see labelled images (Stage)


def resident(pixels: np.ndarray, draws: Stream, *, crop: int = 0) -> Batches:
    """Batches gathered on the device from `pixels`, uint8 [N, H, W, C].

    `draws` gives the indices (int32) and flips (bool) of each step, [*dims] both, the corners
    (int32) [*dims, 2] of crops of side `crop` (0: whole images, whose corners are 0), and their
    quarter turns (int32) [*dims], anticlockwise; images that are not square take half turns alone.
    """
    return Batches(pixels, draws, partial(_crops, crop=crop), grouped=True)


def streamed(images: Stream, *, crop: int = 0) -> Batches:
    """Batches whose images the host sends for each step: the same as `resident`, to the bit.

    `images` gives what the `draws` of `resident` give, but for the images themselves, whole,
    uint8 [*dims, H, W, C], in place of their indices.
    """

    def images_of(_: Any, sent: tuple[jax.Array, ...]) -> jax.Array:
        pixels, *others = sent
        *dims, height, width, channels = pixels.shape
        each = jnp.arange(math.prod(dims), dtype=jnp.int32).reshape(dims)
        return _crops(pixels.reshape(-1, height, width, channels), (each, *others), crop=crop)

    return Batches((), images, images_of, grouped=False)


def _crops(
    pixels: jax.Array,
    draw: tuple[jax.Array, ...],
    *,
    crop: int,
) -> jax.Array:
    """The crops [*dims, h, w, C] that `draw` names, mirrored, then turned, as it says.

    `pixels` are uint8 [N, H, W, C], `draw` as in `resident`; the crops are float32 in [-1, 1].
    """
    indices, flips, corners, turns = draw
    size = (crop, crop) if crop else pixels.shape[1:3]

    def cut(index: jax.Array, corner: jax.Array) -> jax.Array:
        start = (index, corner[0], corner[1], 0)
        return jax.lax.dynamic_slice(pixels, start, (1, *size, pixels.shape[-1]))[0]

    for _ in indices.shape:
        cut = jax.vmap(cut)
    images = cut(indices, corners)
    # A quarter turn is a mirror image, transposed; a half turn is mirrored both ways.
    flips, turns = flips[..., None, None, None], turns[..., None, None, None]
    odd, half = turns % 2 == 1, turns >= 2
    images = jnp.where(flips ^ odd ^ half, jnp.flip(images, axis=-2), images)
    images = jnp.where(half, jnp.flip(images, axis=-3), images)
    if size[0] == size[1]:
        images = jnp.where(odd, jnp.swapaxes(images, -3, -2), images)
    batch: jax.Array = scaled(images)
    return batch


def windowed(frames: np.ndarray, starts: np.ndarray, draws: Stream, *, length: int) -> Batches:
    """Batches of windows of `length` frames, gathered on the device from `frames`, uint8 [F, H, W].

    `draws` as in `resident`: indices name the entries of `starts`, int [N], where windows begin;
    whole windows are mirrored, and neither cut nor turned. Images are [*dims, H, W, length].
    """

    def images_of(held: Any, sent: tuple[jax.Array, ...]) -> jax.Array:
        frames, starts = held
        indices, flips, _, _ = sent
        onwards = jnp.arange(length, dtype=jnp.int32).reshape(*[1] * indices.ndim, length)
        places = starts[indices][..., None] + onwards
        windows = jnp.moveaxis(frames[places], -3, -1)
        mirrored = jnp.where(flips[..., None, None, None], jnp.flip(windows, axis=-2), windows)
        batch: jax.Array = scaled(mirrored)
        return batch

    return Batches((frames, starts.astype(np.int32)), draws, images_of, grouped=True)


def resident_if_it_fits(
    pixels: np.ndarray, draws: Stream, images: Stream, *, crop: int = 0
) -> Batches:
    """`resident`, or `streamed` with a warning where a device's memory is too small for that.

    Half of what is free must do for the images: the rest is for networks and activations.
    """
    free = parallel.free_bytes()
    if free is None or 2 * pixels.nbytes <= free:
        return resident(pixels, draws, crop=crop)
    logging.warning(
        "Training images are streamed, not resident: their %.1f MB are more than half of the "
        "%.1f MB that are free on a device.",
        pixels.nbytes / 1e6,
        free / 1e6,
    )
    return streamed(images, crop=crop)
