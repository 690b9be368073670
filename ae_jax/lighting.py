"""Light that changes from image to image, as that of a lamp which ages: for training's images."""

import jax
import jax.numpy as jnp

from ae_jax.patches import uniform
from ae_jax.poisson import hat

_KNOTS = 3  # random numbers along a side of the smooth field


def relight(rng: jax.Array, images: jax.Array, strength: float) -> jax.Array:
    """Images under other light: float32 [B, H, W, C] in [-1, 1], cut off there.

    An image's brightness, counted from black, is multiplied by a random gain and by a random smooth
    field, and shifted, each by up to `strength` (of white, for the shift, up to a third of it).
    """
    batch, height, width, _ = images.shape
    gain_rng, shift_rng, field_rng = jax.random.split(rng, 3)
    gain = 1 + uniform(gain_rng, (batch, 1, 1, 1), -strength, strength)
    shift = uniform(shift_rng, (batch, 1, 1, 1), -strength, strength) / 3
    knots = uniform(field_rng, (batch, _KNOTS, _KNOTS), -strength, strength)
    rows, columns = (
        hat(jnp.linspace(0.0, _KNOTS - 1.0, side)[None], _KNOTS)[0] for side in (height, width)
    )
    field = jnp.einsum("hi,bij,wj->bhw", rows, knots, columns)[..., None]
    light = (images + 1) / 2 * gain * (1 + field) + shift
    return jnp.clip(2 * light - 1, -1, 1)
