"""Residual maps: how an image and its reconstruction differ, pixel by pixel.

Arrays are float32 [B, H, W, C] in [-1, 1]; maps are [B, H, W]. The same map serves a loss, an
image score and an anomaly map; reduction stays visible where it is called.
"""

import jax
import jax.numpy as jnp


def squared(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Squared residual, mean over channels: [B, H, W], in [0, 4]."""
    return jnp.mean(jnp.square(images - reconstructions), axis=-1)


def absolute(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
    """Absolute residual, mean over channels: [B, H, W], in [0, 2]."""
    return jnp.mean(jnp.abs(images - reconstructions), axis=-1)
