"""What a stage is trained on, as pictures: parts of the `preview` of an `engine.method.Stage`."""

import jax
import jax.numpy as jnp

PREVIEWED = 64
"""Images in a preview."""

_SIDE = 128  # pixels of each


def previewed(images: jax.Array) -> jax.Array:
    """64 images of [B, ...], in turn where there are fewer."""
    return images[jnp.arange(PREVIEWED) % images.shape[0]]


def pairs(left: jax.Array, right: jax.Array) -> jax.Array:
    """Images [B, H, W, C] side by side, each at no more than 128 pixels: [B, h, 2 h, C]."""
    both = jnp.concatenate([left, right], axis=2)
    side = min(left.shape[1], _SIDE)
    shape = (len(both), side, 2 * side, both.shape[-1])
    small: jax.Array = jax.image.resize(both, shape, "linear")
    return small
