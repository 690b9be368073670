"""Pseudo-anomalies: normal windows made abnormal on the device, in what is seen and in what moves.

A span is float32 [B, H, W, span] in [-1, 1], consecutive frames; a window is T of them. Masks are
float32 [B, H, W, T], from 0 to 1: what of a pixel is replaced. What is drawn for an image is
`parallel.share`d from the draw for everyone's, so that the number of devices changes nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from engine import parallel, residuals

RAMP = 0.1
"""The soft edge of a patch outside its half side, as a share of that (SmoothMixS of LNTRA)."""


class Pseudo(NamedTuple):
    """How often, how large and how fast."""

    share: float  # of the windows that become abnormal
    side: tuple[float, float]  # of a patch, as a share of the frame's sides
    move: int  # pixels by which a patch moves from frame to frame at most
    mix: tuple[float, float]  # lam: what share of the own differences stays inside the mask


class Difference(NamedTuple):
    """How frames become differences."""

    gain: float = 1.0  # so that they are about 1 where something moves: a network learns no less
    blur: float = 0.0  # standard deviation, in pixels, of the Gaussian over them


def window_indices(offset: jax.Array, stride: jax.Array, length: int) -> jax.Array:
    """Which frames of a span a window has: offset + stride * (0 ... length - 1), [B, T] of [B].

    >>> window_indices(jnp.array([0, 3]), jnp.array([4, 1]), 4).tolist()
    [[0, 4, 8, 12], [3, 4, 5, 6]]
    """
    return offset[:, None] + stride[:, None] * jnp.arange(length)[None]


def frames_at(spans: jax.Array, indices: jax.Array) -> jax.Array:
    """The frames of each span at `indices`, int [B, T]: [B, H, W, T]."""
    return jax.vmap(lambda span, places: jnp.take(span, places, axis=-1))(spans, indices)


def cut_windows(
    rng: jax.Array, spans: jax.Array, length: int, strides: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """A window of consecutive frames of each span, and one of the same start that skips frames.

    By a stride that is drawn among `strides`; the start is drawn so that the skipping window ends
    within the span: no frame is repeated, lest a freeze be learnt as the anomaly.
    """
    which, where = jax.random.split(rng)
    batch, span = spans.shape[0], spans.shape[-1]
    choice = _integers(which, batch, 0, len(strides))
    stride = jnp.asarray(strides)[choice]
    room = span - (length - 1) * stride  # starts
    offset = jnp.minimum((_uniform(where, batch) * room).astype(jnp.int32), room - 1)
    consecutive = frames_at(spans, window_indices(offset, jnp.ones_like(stride), length))
    return consecutive, frames_at(spans, window_indices(offset, stride, length))


def differences(windows: jax.Array, how: Difference) -> jax.Array:
    """What changes from frame to frame, times the gain: [B, H, W, T] -> [B, H, W, T - 1].

    Without a blur most of it is noise and edges as fine as a pixel, which no bottleneck restores.
    """
    steps = how.gain * (windows[..., 1:] - windows[..., :-1])
    if not how.blur:
        return steps
    flat = jnp.moveaxis(steps, -1, 1)
    smooth = residuals.smooth(flat.reshape(-1, *flat.shape[2:]), how.blur)
    return jnp.moveaxis(smooth.reshape(flat.shape), 1, -1)


class Track(NamedTuple):
    """A patch of each window: where its centre is in each frame, and half its sides, in pixels."""

    rows: jax.Array  # [B, T]
    columns: jax.Array  # [B, T]
    half: tuple[jax.Array, jax.Array]  # [B] each


def moving_patches(
    rng: jax.Array, shape: tuple[int, ...], side: tuple[float, float], move: int
) -> Track:
    """Patches for windows of `shape` [B, H, W, T], at speeds that are uniform up to `move`.

    LNTRA's patches walk at random; things move straight on (ours). A centre stays in the frame.
    """
    batch, height, width, frames = shape
    keys = jax.random.split(rng, 6)

    def along(
        size: int, start: jax.Array, speed: jax.Array, sides: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        first = _uniform(start, batch) * (size - 1)
        step = (2 * _uniform(speed, batch) - 1) * move
        centre = first[:, None] + step[:, None] * jnp.arange(frames)[None]
        low, high = side
        half = (low + (high - low) * _uniform(sides, batch)) * size / 2
        return jnp.clip(jnp.round(centre), 0, size - 1), half

    rows, half_rows = along(height, *keys[:3])
    columns, half_columns = along(width, *keys[3:])
    return Track(rows, columns, (half_rows, half_columns))


def patch_masks(track: Track, size: tuple[int, ...]) -> jax.Array:
    """1 inside the patch, falling to 0 over `RAMP` of its half side outside: [B, H, W, T]."""

    def along(pixels: int, centre: jax.Array, half: jax.Array) -> jax.Array:
        away = jnp.abs(jnp.arange(pixels, dtype=jnp.float32)[None, :, None] - centre[:, None, :])
        half = half[:, None, None]
        return jnp.clip(1 - (away - half) / (RAMP * half), 0, 1)

    rows = along(size[0], track.rows, track.half[0])
    columns = along(size[1], track.columns, track.half[1])
    return rows[:, :, None, :] * columns[:, None, :, :]


def others(windows: jax.Array) -> jax.Array:
    """For each window of everyone's batch the one before it: the same on any number of devices."""
    rolled = jnp.roll(parallel.gather(windows), 1, axis=0)
    return parallel.share(lambda _: rolled, windows.shape[0])


def carried(rng: jax.Array, windows: jax.Array, track: Track) -> jax.Array:
    """Windows, shifted to anywhere, and in each frame as far as the patch has moved.

    So that what a patch shows moves with it. What leaves at one side comes in at the other.
    """
    up, left = jax.random.split(rng)
    batch, height, width, _ = windows.shape
    down = _integers(up, batch, 0, height)[:, None] + (track.rows - track.rows[:, :1]).astype(
        jnp.int32
    )
    right = _integers(left, batch, 0, width)[:, None]
    right = right + (track.columns - track.columns[:, :1]).astype(jnp.int32)
    roll = jax.vmap(partial(jnp.roll, axis=(0, 1)), in_axes=(-1, 0), out_axes=-1)
    return jax.vmap(roll)(windows, jnp.stack([down, right], axis=-1))


PseudoFn = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, jax.Array]]
"""(rng, spans) -> (input, target, mask of what was replaced), [B, H, W, C] each."""


def seen(pseudo: Pseudo, length: int, strides: tuple[int, ...]) -> PseudoFn:
    """Windows in some of which a patch of another image moves: P_s, without a diffusion model."""

    def make_seen(rng: jax.Array, spans: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        cut, where, what, coin = jax.random.split(rng, 4)
        windows, _ = cut_windows(cut, spans, length, strides)
        track = moving_patches(where, windows.shape, pseudo.side, pseudo.move)
        mask = patch_masks(track, windows.shape[1:3])
        mask = jnp.where(_chosen(coin, windows, pseudo.share), mask, 0)
        content = carried(what, others(windows), track)
        return jnp.where(mask > 0, windows + mask * (content - windows), windows), windows, mask

    return make_seen


def moved(pseudo: Pseudo, length: int, strides: tuple[int, ...], how: Difference) -> PseudoFn:
    """Differences in a share of which something moves otherwise: P_t, without optical flow.

    A third each: the differences of the window that skips frames, everywhere (LNTRA); these, mixed
    with the own ones inside a moving mask (Rai et al.); those of another image, likewise.
    """

    def make_moved(rng: jax.Array, spans: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        cut, where, what, coin, kind, mixing = jax.random.split(rng, 6)
        windows, skipping = cut_windows(cut, spans, length, strides)
        target, fast = differences(windows, how), differences(skipping, how)
        track = moving_patches(where, target.shape, pseudo.side, pseudo.move)
        foreign = carried(what, others(target), track)
        batch = target.shape[0]
        kinds = _integers(kind, batch, 0, 3)[:, None, None, None]
        low, high = pseudo.mix
        stays = (low + (high - low) * _uniform(mixing, batch))[:, None, None, None]
        mask = (1 - stays) * patch_masks(track, target.shape[1:3])
        mask = jnp.where(kinds == 0, 1.0, mask)
        mask = jnp.where(_chosen(coin, target, pseudo.share), mask, 0)
        content = jnp.where(kinds == 2, foreign, fast)
        return jnp.where(mask > 0, target + mask * (content - target), target), target, mask

    return make_moved


def _chosen(rng: jax.Array, windows: jax.Array, share: float) -> jax.Array:
    return (_uniform(rng, windows.shape[0]) < share)[:, None, None, None]


def _uniform(rng: jax.Array, count: int) -> jax.Array:
    return parallel.share(lambda n: jax.random.uniform(rng, (n,)), count)


def _integers(rng: jax.Array, count: int, low: int, high: int) -> jax.Array:
    return parallel.share(lambda n: jax.random.randint(rng, (n,), low, high), count)
