"""The chain that repairs an image: GLAD's adaptive step and fusion, inside one `lax.scan`.

Yao et al. 2024, arXiv 2406.07487. An image x is noised to a level, the denoiser says what it was
before the noise, and DDIM (Song et al. 2020, arXiv 2010.02502, eq. 12 with eta = 0) goes down from
there. Two things adapt:

- the step: levels are tried from the highest down, each by what the denoiser makes of x noised to
  it. The image's own level is the first where the residual of some pixel exceeds what good images
  have, or, where none does, the last. Large defects need much noise, and good images little.
- the fusion: at that level a mask says where the residual is above good images'. From then on a
  pixel is m times the chain's and 1 - m times the image's own.

Images are float32 [B, H, W, C] in [-1, 1], maps [B, H, W], `S` levels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.schedule import Schedule

Denoise = Callable[[jax.Array, jax.Array], jax.Array]
"""(noised images, noise to signal [B]) -> what they were before: [B, H, W, C]."""

Residual = Callable[[jax.Array, jax.Array], jax.Array]
"""(images, repaired ones) -> how they differ: [B, H, W]."""

_LEAST_NOISE = 1e-6  # a divisor, where there is none


class Limits(NamedTuple):
    """What residuals good images have at each level: [S] each."""

    centre: jax.Array  # below it a pixel is the image's rather than the chain's
    width: jax.Array  # over which one becomes the other
    largest: jax.Array  # an image with a residual above this has its level


class Chain(NamedTuple):
    """What has become of the images."""

    repaired: jax.Array  # [B, H, W, C]
    level: jax.Array  # [B], float32: each image's own
    mask: jax.Array  # [B, H, W], from 0, the image's own pixels, to 1, the chain's
    frames: jax.Array  # [S, B, H, W, C]: the estimate of each step


class _At(NamedTuple):
    """What a step of the scan is given."""

    level: jax.Array
    signal: jax.Array
    noise: jax.Array
    next_signal: jax.Array
    next_noise: jax.Array
    limits: Limits
    is_last: jax.Array


def noised(images: jax.Array, noise: jax.Array, signal: jax.Array, share: jax.Array) -> jax.Array:
    """sqrt(abar) x + sqrt(1 - abar) noise, of `signal` and `share`, its two roots."""
    return signal * images + share * noise


def noise_in(
    given: jax.Array, estimate: jax.Array, signal: jax.Array, share: jax.Array
) -> jax.Array:
    """The noise that `given` holds if the image is `estimate`: the inverse of `noised`."""
    return (given - signal * estimate) / jnp.maximum(share, _LEAST_NOISE)


def fusion_mask(residual: jax.Array, centre: jax.Array, width: jax.Array) -> jax.Array:
    """m = sigmoid((r - centre) / width): from 0 where a residual is good images' to 1."""
    return jax.nn.sigmoid((residual - centre) / width)


def fuse(mask: jax.Array, chain: jax.Array, images: jax.Array) -> jax.Array:
    """m chain + (1 - m) image, of a mask [B, H, W]: GLAD's spatial-adaptive fusion."""
    weight = mask[..., None]
    return weight * chain + (1 - weight) * images


def switched(limits: Limits, *, adaptive: bool, fusion: bool) -> Limits:
    """The limits without what is off: any residual exceeds minus infinity.

    So every image's level is the first, or every pixel is the chain's.
    """
    none = jnp.full_like(limits.centre, -jnp.inf)
    return limits._replace(
        largest=limits.largest if adaptive else none, centre=limits.centre if fusion else none
    )


def repair_chain(
    denoise: Denoise,
    schedule: Schedule,
    levels: tuple[int, ...],
    limits: Limits,
    residual: Residual,
    images: jax.Array,
    noise: jax.Array,
) -> Chain:
    """Goes down the levels with one draw of noise.

    Args:
      denoise: the network.
      schedule: abar of each level.
      levels: falling.
      limits: of each of them.
      residual: by which an image's level and mask are found.
      images: x.
      noise: like one image, [1, H, W, C], the same for all, so that what becomes of an image does
        not depend on the images beside it.
    """
    kept = jnp.asarray(schedule)[jnp.asarray([*levels, 0])]
    signal, share = jnp.sqrt(kept), jnp.sqrt(1 - kept)
    batch = images.shape[0]

    def step(
        carry: tuple[jax.Array, jax.Array, jax.Array, jax.Array], at: _At
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]:
        given, mask, is_open, own_level = carry
        ratio = jnp.broadcast_to(at.noise / at.signal, (batch,))
        estimate = jnp.clip(denoise(given, ratio), -1, 1)
        here = residual(images, estimate)
        exceeds = jnp.max(here, axis=(1, 2)) > at.limits.largest
        closes = is_open & (exceeds | at.is_last)
        own_level = jnp.where(closes, at.level, own_level)
        is_open &= ~closes
        mask = jnp.where(
            closes[:, None, None], fusion_mask(here, at.limits.centre, at.limits.width), mask
        )
        fused = fuse(mask, estimate, images)
        held = noise_in(given, estimate, at.signal, at.noise)
        going_on = noised(fused, held, at.next_signal, at.next_noise)
        tried_next = noised(images, noise, at.next_signal, at.next_noise)
        given = jnp.where(is_open[:, None, None, None], tried_next, going_on)
        return (given, mask, is_open, own_level), estimate

    start = (
        noised(images, noise, signal[0], share[0]),
        jnp.ones(images.shape[:3]),
        jnp.ones(batch, bool),
        jnp.zeros(batch),
    )
    each = _At(
        jnp.asarray(levels, jnp.float32),
        signal[:-1],
        share[:-1],
        signal[1:],
        share[1:],
        limits,
        jnp.arange(len(levels)) == len(levels) - 1,
    )
    (repaired, mask, _, level), frames = jax.lax.scan(step, start, each)
    return Chain(repaired, level, mask, frames)  # at level 0 what is given is the image itself


def tried_residuals(
    denoise: Denoise,
    schedule: Schedule,
    levels: tuple[int, ...],
    residual: Residual,
    images: jax.Array,
    noise: jax.Array,
) -> jax.Array:
    """The residual of what the denoiser makes of images noised to each level: [S, B, H, W].

    It is what a chain sees of an image whose level it has not found yet.
    """
    kept = jnp.asarray(schedule)[jnp.asarray(levels)]

    def at(abar: jax.Array) -> jax.Array:
        signal, share = jnp.sqrt(abar), jnp.sqrt(1 - abar)
        ratio = jnp.broadcast_to(share / signal, images.shape[:1])
        estimate = denoise(noised(images, noise, signal, share), ratio)
        return residual(images, jnp.clip(estimate, -1, 1))

    return jax.lax.map(at, kept)
