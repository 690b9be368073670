"""Seamless corruption: parts of other images, pasted so that no seam tells where.

Natural synthetic anomalies (Schlüter et al. 2022, arXiv 2109.15222): a part of another image, its
size drawn from a Gamma distribution, resized, shifted, and cloned seamlessly. In place of that
paper's table of settings by category there is one set of them; near sources, soft and distorted
shapes, and mixing both kinds of gradients in one training are ours.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ae_jax.patches import integers, normal, uniform
from ae_jax.poisson import Box, clone, hat, separable
from engine import parallel
from engine.foreground import foreground

_CANDIDATES = 8  # places drawn for a paste, of which the first on the product is taken
_ON_PRODUCT = (
    0.25  # share of a box that must be product, both where it comes from and where it goes
)
_FEATHER = 2.0  # pixels from a box's border, where nothing is replaced, to where all is
_NEAR = 0.05  # standard deviation of a near source's shift, as a share of the side
_KNOTS = 6  # random numbers along a side of a distorted mask


class Place(NamedTuple):
    """Where a paste goes and comes from, in pixels: [B, ...], or candidates of it [B, 8, ...]."""

    box: Box
    shift: jax.Array  # float32 [..., 2], whole: from a pixel to its source
    scale: jax.Array  # float32 [...]: how much larger than its source


class Settings(NamedTuple):
    """The arguments of `ae_jax.corruption.seamless`."""

    max_patches: int
    size: tuple[float, float]
    resize: tuple[float, float]
    near: float
    mixed: float
    clean: float
    on_product: bool


def paste_parts(
    settings: Settings, rng: jax.Array, images: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Pastes into images [B, H, W, C]: (corrupted, mask [B, H, W]).

    Raises:
      ValueError: there is one image alone, of all devices together.
    """
    everyones = parallel.gather(images)
    if len(everyones) == 1:
        raise ValueError(
            "seamless corruption pastes parts of other images, and the batch holds one image: "
            "choose a batch_size of 2 or more, or ae_jax.corruption:patches"
        )
    product = foreground(images) if settings.on_product else jnp.ones(images.shape[:3])
    products = parallel.gather(product)
    clean_rng, coin_rng, *rngs = jax.random.split(rng, settings.max_patches + 2)
    coins = uniform(coin_rng, (len(images), settings.max_patches), 0.0, 1.0) < 0.5
    corrupted = uniform(clean_rng, (len(images),), 0.0, 1.0) >= settings.clean
    shown = jnp.cumprod(coins.at[:, 0].set(corrupted), axis=1)

    windows = _windows(settings, images.shape[1:3])

    def paste(layers: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        rng, shown = step
        place_rng, from_rng, mixed_rng, shape_rng = jax.random.split(rng, 4)
        index = parallel.share(jnp.arange, len(images))
        index = (index + integers(from_rng, index.shape, 1, len(everyones))) % len(everyones)
        place, found = _place(settings, place_rng, product, products[index])
        place, to, source = _cut_out(place, everyones[index], windows)
        region = _cut(layers, to, windows[0])
        mixed = uniform(mixed_rng, index.shape, 0.0, 1.0) < settings.mixed
        weight = _shape(shape_rng, place.box, region.shape[:3])
        weight = (weight * (found & (shown > 0))[:, None, None])[..., None]
        target, mask = region[..., :-1], region[..., -1:]
        content = jnp.clip(clone(target, source, place.box, mixed), -1, 1)
        # As a difference, so that where the weight is 0 a pixel keeps its bits.
        target += weight * (content - target)
        region = jnp.concatenate([target, mask + weight * (1 - mask)], axis=-1)
        return jax.vmap(_lay)(layers, region, to), None

    layers = jnp.concatenate([images, jnp.zeros_like(images[..., :1])], axis=-1)
    layers, _ = jax.lax.scan(paste, layers, (jnp.stack(rngs), shown.T))
    return layers[..., :-1], layers[..., -1]


def _windows(settings: Settings, sides: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Sides of what is cut out around a box, and around its source: less work than whole images."""
    box = tuple(min(side, math.ceil(2 * settings.size[1] * side) + 2) for side in sides)
    source = (math.ceil(each / settings.resize[0]) + 2 for each in box)
    return box, tuple(map(min, source, sides))


def _cut_out(
    place: Place, sources: jax.Array, windows: tuple[tuple[int, ...], ...]
) -> tuple[Place, jax.Array, jax.Array]:
    """The place in its window, the window's corner [B, 2], and the source, moved into it."""
    latest = [jnp.array([sources.shape[1:3]]) - jnp.array([window]) for window in windows]
    low, high = place.box
    to = jnp.clip(low.astype(jnp.int32), 0, latest[0])
    middle, reach = (low + high) / 2 + place.shift, (high - low) / 2 / place.scale[:, None]
    first = jnp.floor(middle - reach).astype(jnp.int32)
    start = jnp.clip(first, 0, latest[1])
    place = place._replace(box=Box(low - to, high - to), shift=place.shift + to - start)
    return place, to, _moved(_cut(sources, start, windows[1]), place, windows[0])


def _cut(images: jax.Array, corner: jax.Array, sides: tuple[int, ...]) -> jax.Array:
    """A window of each image [B, H, W, C]."""

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        sizes = (*sides, image.shape[-1])
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), sizes)

    return jax.vmap(cut)(images, corner)


def _lay(image: jax.Array, region: jax.Array, corner: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(image, region, (corner[0], corner[1], 0))


def _place(
    settings: Settings, rng: jax.Array, product: jax.Array, source_product: jax.Array
) -> tuple[Place, jax.Array]:
    """The first of some places where there is product at both ends; and whether there is one."""
    places = candidates(settings, rng, product.shape)
    low, high = places.box
    reach = ((high - low) / 2 / places.scale[..., None]).astype(jnp.float32)
    middle = (low + high) / 2 + places.shift
    enough = _share(product, low, high) >= _ON_PRODUCT
    enough &= _share(source_product, middle - reach, middle + reach) >= _ON_PRODUCT
    first = jnp.argmax(enough, axis=1)
    chosen = jax.tree.map(lambda values: jax.vmap(lambda v, i: v[i])(values, first), places)
    return chosen, enough.any(axis=1)


def candidates(settings: Settings, rng: jax.Array, shape: tuple[int, ...]) -> Place:
    """Places drawn for one paste into each of images [B, H, W], anywhere inside them.

    Half the height and half the width are 0.03 of the side and more, as 0.05 times a Gamma
    variable of shape 2, each for itself, cut off at `size` (the paper's numbers).
    """
    batch, height, width = shape
    number = (batch, _CANDIDATES)
    sides = jnp.array((height, width), jnp.float32).reshape(1, 1, 2)
    size_rng, centre_rng, scale_rng, far_rng, shift_rng, near_rng = jax.random.split(rng, 6)
    # A Gamma variable of shape 2 is a sum of two exponential ones.
    logs = -jnp.log1p(-uniform(size_rng, (*number, 2, 2), 0.0, 1.0)).sum(-1)
    half = sides * jnp.clip(0.03 + 0.05 * logs, *settings.size)
    centre = half + uniform(centre_rng, (*number, 2), 0.0, 1.0) * (sides - 1 - 2 * half)
    low = jnp.clip(jnp.round(centre - half), 0, sides - 3)
    high = jnp.clip(jnp.round(centre + half), low + 2, sides - 1)
    half, centre = (high - low) / 2, (high + low) / 2
    scale = jnp.clip(1 + 0.5 * normal(scale_rng, number), *settings.resize)
    # A part is cut out of the image: a very large one cannot be shrunk.
    scale = jnp.maximum(scale, (2 * half / (sides - 1)).max(-1))
    reach = half / scale[..., None]
    far = reach + uniform(far_rng, (*number, 2), 0.0, 1.0) * (sides - 1 - 2 * reach)
    near = centre + _NEAR * sides * normal(shift_rng, (*number, 2))
    is_near = uniform(near_rng, (*number, 1), 0.0, 1.0) < settings.near
    source = jnp.clip(jnp.where(is_near, near, far), reach, sides - 1 - reach)
    return Place(Box(low, high), jnp.round(source - centre), scale)


def _share(product: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """How much of boxes [B, K] is product [B, H, W]: [B, K]."""

    def inside(axis: int) -> jax.Array:
        at = jnp.arange(product.shape[1 + axis]).reshape(1, 1, -1)
        return ((at >= low[..., axis, None]) & (at <= high[..., axis, None])).astype(jnp.float32)

    rows, columns = inside(0), inside(1)
    area = rows.sum(-1) * columns.sum(-1)
    return jnp.einsum("bkh,bhw,bkw->bk", rows, product, columns) / jnp.maximum(area, 1)


def _moved(sources: jax.Array, place: Place, sides: tuple[int, ...]) -> jax.Array:
    """The sources [B, H, W, C], shifted and resized so that the part to paste lies in its box.

    [B, *sides, C]. At scale 1 a pixel keeps its bits: no blur tells that it was moved.
    """
    middle = (place.box.low + place.box.high) / 2

    def weights(axis: int) -> jax.Array:
        centre = middle[:, axis, None]
        at = (
            centre
            + place.shift[:, axis, None]
            + (jnp.arange(sides[axis])[None] - centre) / place.scale[:, None]
        )
        return hat(at, sources.shape[1 + axis], 1 / place.scale[:, None, None])

    return separable(weights(0), sources, weights(1))


def _shape(rng: jax.Array, box: Box, shape: tuple[int, ...]) -> jax.Array:
    """How much of each pixel is replaced: a box, an ellipse or a distorted one: [B, H, W].

    0 on the box's border and outside of it.
    """
    batch, height, width = shape
    kind_rng, knots_rng, soft_rng = jax.random.split(rng, 3)
    middle, half = (box.low + box.high) / 2, (box.high - box.low) / 2
    u = (jnp.arange(height)[None] - middle[:, :1]) / half[:, :1]  # -1 and 1 on the box's border
    v = (jnp.arange(width)[None] - middle[:, 1:]) / half[:, 1:]
    inward = jnp.minimum(
        ((1 - jnp.abs(u)) * half[:, :1])[:, :, None], ((1 - jnp.abs(v)) * half[:, 1:])[:, None]
    )  # pixels from the border
    rectangle = jnp.clip(inward / _FEATHER, 0, 1)
    knots = normal(knots_rng, (batch, _KNOTS, _KNOTS, 1))
    on_knots = [hat((at + 1) * (_KNOTS - 1) / 2, _KNOTS) for at in (u, v)]
    bend = 0.3 * separable(on_knots[0], knots, on_knots[1])[..., 0]
    radius = jnp.sqrt(jnp.square(u)[:, :, None] + jnp.square(v)[:, None])
    soft = uniform(soft_rng, (batch, 1, 1), 0.1, 0.6)
    ellipse, distorted = (jnp.clip((1 - r) / soft, 0, 1) for r in (radius, radius + bend))
    kind = integers(kind_rng, (batch, 1, 1), 0, 3)
    return rectangle * jax.lax.select_n(
        jnp.broadcast_to(kind, shape), jnp.ones(shape), ellipse, distorted
    )
