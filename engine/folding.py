"""Pixels folded into channels, and back: space to depth, depth to space."""

import jax


def folded(images: jax.Array, fold: int) -> jax.Array:
    """Squares of fold x fold pixels become channels: [B, H, W, C] -> [B, H/f, W/f, f f C]."""
    batch, height, width, channels = images.shape
    shape = (batch, height // fold, fold, width // fold, fold, channels)
    squares = images.reshape(shape).swapaxes(2, 3)
    return squares.reshape(batch, height // fold, width // fold, fold * fold * channels)


def unfolded(x: jax.Array, fold: int) -> jax.Array:
    """The inverse of `folded`."""
    batch, height, width, channels = x.shape
    squares = x.reshape(batch, height, width, fold, fold, channels // fold**2).swapaxes(2, 3)
    return squares.reshape(batch, height * fold, width * fold, channels // fold**2)
