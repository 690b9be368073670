"""Corruption of normal images, from which a network learns to restore them.

Bauer, Nakajima, Müller 2024, arXiv 2206.11723: every mask is one disk with a soft border,
elastically distorted, and a patch P becomes M Q + (1 - M) P, with a content Q that does not belong
there. What the paper leaves open to us is marked (ours): how many patches, how large, which
contents besides textures, and that disks are stretched before they are distorted.

A corruption is a pure function (rng, images) -> (corrupted, mask) of `B` images, float32
[B, H, W, C] in [-1, 1]. The mask, float32 [B, H, W], is what of a pixel was replaced, from 0 to 1.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ae_jax.contents import contents
from ae_jax.patches import disks, integers, place, uniform
from ae_jax.seamless import Settings, paste_parts
from engine.make import make

CorruptFn = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""(rng, images [B, H, W, C]) -> (corrupted, alike; mask [B, H, W] from 0 to 1)."""


def patches(
    textures: np.ndarray | None = None,
    *,
    max_patches: int = 4,
    side: tuple[float, float] = (0.1, 0.5),
    opacity: tuple[float, float] = (0.3, 1.0),
    clean: float = 0.15,
) -> CorruptFn:
    """Disks, distorted, of foreign, procedural and deformed content.

    Args:
      textures: images to take content from besides, uint8 [T, S, S, 3].
      max_patches: an image gets 1 to so many.
      side: of a patch, as a share of the image's: uniform between these.
      opacity: of a patch: uniform between these.
      clean: share of the images that get none.

    Raises:
      ValueError: a number is out of its range.
    """
    if not (max_patches >= 1 and 0 < side[0] <= side[1] <= 1 and 0 <= clean <= 1):
        raise ValueError(
            f"corruption: max_patches {max_patches} must be at least 1, side {side} two shares of "
            f"the image's side, and clean {clean} from 0 to 1"
        )
    if not 0 < opacity[0] <= opacity[1] <= 1:
        raise ValueError(f"corruption: opacity {opacity} must be two numbers in (0, 1]")

    # On the device once; NumPy's would become a part of every program that is compiled.
    held = None if textures is None else jnp.asarray(textures)

    def corrupt(rng: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        where, shape, what, strength, number = jax.random.split(rng, 5)
        placed = place(where, images.shape, max_patches, side)
        alpha = uniform(strength, placed.half.shape, *opacity)
        count, untouched = jax.random.split(number)
        count = integers(count, (images.shape[0], 1), 1, max_patches + 1)
        shown = jnp.arange(max_patches)[None] < count
        shown &= uniform(untouched, count.shape, 0.0, 1.0) >= clean
        weights = disks(shape, placed) * (alpha * shown)[..., None, None]
        filled = contents(what, images, placed, held)
        return jax.vmap(_blend)(images, placed.corner, weights, filled)

    return corrupt


def seamless(
    textures: np.ndarray | None = None,
    *,
    max_patches: int = 3,
    size: tuple[float, float] = (0.03, 0.25),
    resize: tuple[float, float] = (0.7, 1.3),
    near: float = 0.5,
    mixed: float = 0.5,
    clean: float = 0.15,
    on_product: bool = True,
) -> CorruptFn:
    """Parts of other images of the batch, cloned without a seam (ae_jax/seamless.py).

    Args:
      textures: not used; only images of the batch are pasted.
      max_patches: an image gets 1 to so many, each further one with probability 1/2.
      size: least and largest of half a part's height and width, as a share of the image's.
      resize: least and largest factor by which a part is resized.
      near: share of the parts that come from about the same place of the other image.
      mixed: share of the parts that keep the stronger of both images' gradients.
      clean: share of the images that get none.
      on_product: whether parts are taken from and laid on the product alone, where it can be told
        from its background (engine/foreground.py).

    Raises:
      ValueError: a number is out of its range. The corruption itself raises it for a batch of one
        image, which has no other to paste from.
    """
    del textures
    shares = (near, mixed, clean)
    if not (max_patches >= 1 and 0 < size[0] <= size[1] <= 0.5 and 0 < resize[0] <= resize[1]):
        raise ValueError(
            f"corruption: max_patches {max_patches} must be at least 1, size {size} two shares of "
            f"the image's side up to 0.5, and resize {resize} two factors above 0"
        )
    if not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"corruption: near, mixed and clean {shares} must be from 0 to 1")
    settings = Settings(max_patches, size, resize, near, mixed, clean, on_product)
    return partial(paste_parts, settings)


def mixture(
    textures: np.ndarray | None = None,
    *,
    corruptions: Mapping[str, Mapping[str, Any]],
    weights: Mapping[str, float],
) -> CorruptFn:
    """For each image one of several corruptions, drawn by their weights.

    All of them are computed, so that shapes are the same whatever is drawn.

    Args:
      textures: for each of them.
      corruptions: by name, sections of a config such as dict(fn='ae_jax.corruption:seamless').
      weights: by the same names, 0 or more; one of 0 is not computed.

    Raises:
      ValueError: the names differ, no weight is above 0, or as the corruptions.
    """
    if corruptions.keys() != weights.keys():
        raise ValueError(
            f"corruption: corruptions has {sorted(corruptions)} and weights {sorted(weights)}: "
            "name the same in both"
        )
    if min(weights.values(), default=0) < 0 or not sum(weights.values()) > 0:
        raise ValueError(
            f"corruption: weights {dict(weights)} must be 0 or more, and one at least above 0"
        )
    names = [name for name in sorted(weights) if weights[name] > 0]
    parts = [make(corruptions[name], textures) for name in names]
    bounds = np.cumsum([weights[name] for name in names]) / sum(weights.values())

    def corrupt(rng: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        which_rng, *rngs = jax.random.split(rng, len(parts) + 1)
        drawn = uniform(which_rng, (len(images),), 0.0, 1.0)
        which = jnp.searchsorted(jnp.asarray(bounds[:-1], jnp.float32), drawn, side="right")
        outputs = [part(rng, images) for part, rng in zip(parts, rngs, strict=True)]
        corrupted, masks = (jnp.stack(each) for each in zip(*outputs, strict=True))
        image = jnp.arange(len(images))
        return corrupted[which, image], masks[which, image]

    return corrupt


def _blend(
    image: jax.Array, corners: jax.Array, weights: jax.Array, filled: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Lays the patches [K, P, P] over one image [H, W, C], each over those before it."""
    layers = jnp.concatenate([image, jnp.zeros_like(image[..., :1])], axis=-1)
    ones = jnp.ones_like(filled[..., :1])
    for corner, weight, content in zip(
        corners, weights[..., None], jnp.concatenate([filled, ones], axis=-1), strict=True
    ):
        start = (corner[0], corner[1], 0)
        region = jax.lax.dynamic_slice(layers, start, content.shape)
        # As a difference, so that where the weight is 0 a pixel keeps its bits.
        region += weight * (content - region)
        layers = jax.lax.dynamic_update_slice(layers, region, start)
    return layers[..., :-1], layers[..., -1]
