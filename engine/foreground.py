"""Where the product is, where its background can be told from it; without a parameter to set.

Otsu's threshold (1979) of the distance to the colour of the border. NSA (arXiv 2109.15222) has a
table of backgrounds and thresholds by category in its place.
"""

import jax
import jax.numpy as jnp

_BINS = 64
_SIDE = 64  # pixels of about so many a side are looked at: where a part ends needs no more
_BLUR = 3  # of them: the side of the neighbourhood in which one pixel of product is enough


def foreground(images: jax.Array) -> jax.Array:
    """1 where the product is, 0 on background: float32 [B, H, W] of images [B, H, W, C].

    All 1 where there is no such thing: the product covers less than a tenth or more than nine
    tenths of the image, or a twentieth of the border, as textures do.
    """
    height, width = images.shape[1:3]
    step = max(1, min(height, width) // _SIDE)
    distance = jax.vmap(_distance)(images[:, ::step, ::step])
    product = distance > jax.vmap(_otsu)(distance)[:, None, None]
    window = (1, _BLUR, _BLUR)
    product = jax.lax.reduce_window(
        product.astype(jnp.float32), 0.0, jax.lax.max, window, (1, 1, 1), "SAME"
    )
    share, border = product.mean((1, 2)), jax.vmap(_ring)(product).mean(-1)
    told = (share >= 0.1) & (share <= 0.9) & (border < 0.05)
    product = jnp.where(told[:, None, None], product, 1.0)
    return product.repeat(step, axis=1).repeat(step, axis=2)[:, :height, :width]


def _ring(image: jax.Array) -> jax.Array:
    """The outermost pixels of [H, W]: [2 (H + W)]."""
    return jnp.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])


def _distance(image: jax.Array) -> jax.Array:
    """How far each grey value is from the median of the border: [H, W] of [H, W, C]."""
    grey = image.mean(-1)
    return jnp.abs(grey - jnp.median(_ring(grey)))


def _otsu(values: jax.Array) -> jax.Array:
    """The threshold that splits values [H, W] into two classes of the largest variance between."""
    top = jnp.maximum(values.max(), 1e-6)
    bins = jnp.minimum((values.ravel() / top * _BINS).astype(jnp.int32), _BINS - 1)
    counts = jax.nn.one_hot(bins, _BINS).sum(0)
    middles = (jnp.arange(_BINS) + 0.5) / _BINS
    below, sums = jnp.cumsum(counts), jnp.cumsum(counts * middles)
    above = counts.sum() - below
    gap = sums / jnp.maximum(below, 1) - (sums[-1] - sums) / jnp.maximum(above, 1)
    return top * (jnp.argmax(below * above * jnp.square(gap)) + 1) / _BINS
