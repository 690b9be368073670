"""What patches are filled with: procedural textures, other images, deformed own content.

The paper (arXiv 2206.11723) takes the textures of DTD; the other kinds need no download (ours).
Notation and arrays are those of ae_jax/patches.py.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ae_jax.patches import Patches, field, integers, normal, pixels, uniform
from engine import parallel

_OCTAVES = 5  # of fractal noise
# Kinds of content: 0 to 4 are procedural, 5 is of the image itself, 6 of another one.
_OWN, _TEXTURE = 5, 7


def contents(
    rng: jax.Array, images: jax.Array, placed: Patches, textures: jax.Array | None
) -> jax.Array:
    """What each patch is filled with: [B, K, P, P, C]. All kinds are equally likely."""
    kind_rng, made_rng, own_rng, affine_rng, which_rng, colour_rng = jax.random.split(rng, 6)
    kinds = _TEXTURE if textures is None else _TEXTURE + 1
    kind = integers(kind_rng, placed.half.shape, 0, kinds)
    procedural = _procedural(made_rng, images.shape, placed, jnp.minimum(kind, 4))
    own, elsewhere = _deformed(own_rng, placed), _affine(affine_rng, images.shape, placed)
    other_rng, texture_rng = jax.random.split(which_rng)
    everyones = parallel.gather(images)
    index = jnp.broadcast_to(parallel.share(jnp.arange, len(images))[:, None], kind.shape)
    other = (index + integers(other_rng, kind.shape, 1, max(len(everyones), 2))) % len(everyones)

    def where(number: int, yes: jax.Array, no: jax.Array) -> jax.Array:
        return jnp.where((kind == number)[..., None, None, None], yes, no)

    sampled = _sample(everyones, jnp.where(kind == _OWN, index, other), where(_OWN, own, elsewhere))
    foreign = sampled
    if textures is not None:
        which = integers(texture_rng, kind.shape, 0, len(textures))
        scale = textures.shape[1] / images.shape[1]
        foreign = where(_TEXTURE, _sample(textures, which, scale * elsewhere) / 127.5 - 1, sampled)
    recoloured = where(_OWN, sampled, _recolour(colour_rng, foreign))
    return jnp.where((kind >= _OWN)[..., None, None, None], recoloured, procedural)


def _procedural(
    rng: jax.Array, shape: tuple[int, ...], placed: Patches, kind: jax.Array
) -> jax.Array:
    """Two colours, mixed by kind: flat, fractal noise, stripes, checks, dots: [B, K, P, P, C]."""
    noise_rng, wave_rng, angle_rng, phase_rng, sharp_rng, colour_rng = jax.random.split(rng, 6)
    number, side = placed.half.shape, shape[1]
    u, v = (at[..., None] * placed.half.reshape(*number, 1, 1) for at in (placed.u, placed.v))
    v = v.swapaxes(-1, -2)
    angle = uniform(angle_rng, number, 0.0, np.pi)[..., None, None]
    shortest, longest = float(np.log(3 / side)), float(np.log(0.25))
    logs = uniform(wave_rng, (2, *number, 1, 1), shortest, longest, axis=1)
    waves = 2 * np.pi / (side * jnp.exp(logs))
    phases = uniform(phase_rng, (2, *number, 1, 1), 0.0, 2 * np.pi, axis=1)
    a = jnp.sin(waves[0] * (u * jnp.cos(angle) + v * jnp.sin(angle)) + phases[0])
    b = jnp.sin(waves[1] * (v * jnp.cos(angle) - u * jnp.sin(angle)) + phases[1])
    choices = (
        jnp.ones_like(a),
        _fractal(noise_rng, number[0], number[1], u.shape[2]),
        a,
        a * b,
        a + b - 1,
    )
    value = jax.lax.select_n(jnp.broadcast_to(kind[..., None, None], a.shape), *choices)
    sharp = jnp.exp(uniform(sharp_rng, number, 0.0, 2.5))[..., None, None]
    mix = (0.5 + 0.5 * jnp.tanh(sharp * value))[..., None]
    colours = _colours(colour_rng, (2, *number, 1, 1, shape[-1]))
    return colours[0] + mix * (colours[1] - colours[0])


def _colours(rng: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Colours [2, B, ..., C] of any brightness, most pale (ours), as dirt, chips and holes are."""
    grey_rng, hue_rng, strength_rng = jax.random.split(rng, 3)
    grey = uniform(grey_rng, (*shape[:-1], 1), -1.0, 1.0, axis=1)
    strength = jnp.square(uniform(strength_rng, (*shape[:-1], 1), 0.0, 1.0, axis=1))
    return jnp.clip(grey + strength * uniform(hue_rng, shape, -1.0, 1.0, axis=1), -1, 1)


def _fractal(rng: jax.Array, batch: int, number: int, side: int) -> jax.Array:
    """Noise that is a sum of ever finer noises (fractal noise), of variance 1: [B, K, P, P]."""
    *rngs, rough_rng = jax.random.split(rng, _OCTAVES + 1)
    rough = uniform(rough_rng, (batch, number, 1, 1), 0.3, 1.2)
    total, power = jnp.zeros((batch, number, side, side)), jnp.zeros_like(rough)
    for octave, octave_rng in enumerate(rngs):
        knots = min(2 ** (octave + 2), side)
        numbers = normal(octave_rng, (batch, number, knots, knots))
        basis = _octave_basis(side, knots)
        total += rough**octave * jnp.einsum("pg,bkgh,qh->bkpq", basis, numbers, basis)
        power += rough ** (2 * octave)
    return total / jnp.sqrt(power)


def _octave_basis(side: int, knots: int) -> np.ndarray:
    """Weights of the random numbers at `knots` places in each of `side` pixels: [P, knots]."""
    at = (np.arange(side)[:, None] + 0.5) * knots / side - (np.arange(knots)[None] + 0.5)
    weights = np.exp(-0.5 * np.square(at / 0.6))
    return np.asarray(weights / np.linalg.norm(weights, axis=1, keepdims=True), np.float32)


def _deformed(rng: jax.Array, placed: Patches) -> jax.Array:
    """Where each pixel comes from in an elastic deformation: [B, K, P, P, 2], in pixels."""
    field_rng, strength_rng = jax.random.split(rng)
    strength = uniform(strength_rng, placed.half.shape, 0.2, 0.8) * placed.half
    moved = strength[..., None, None, None] * field(field_rng, placed)
    return placed.centre[..., None, None, :] + pixels(placed) + moved


def _affine(rng: jax.Array, shape: tuple[int, ...], placed: Patches) -> jax.Array:
    """Where each pixel comes from, under a random affine map: [B, K, P, P, 2], in pixels."""
    from_rng, matrix_rng, angle_rng, scale_rng = jax.random.split(rng, 4)
    number = placed.half.shape
    sides = jnp.array(shape[1:3], jnp.float32).reshape(1, 1, 2)
    origin = uniform(from_rng, (*number, 2), 0.0, 1.0) * sides
    angle = uniform(angle_rng, number, 0.0, 2 * np.pi)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turn = jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)
    shear = jnp.eye(2).reshape(1, 1, 2, 2) + 0.3 * normal(matrix_rng, (*number, 2, 2))
    scale = jnp.exp(uniform(scale_rng, number, -0.7, 0.7))[..., None, None]
    matrix = scale * jnp.einsum("bkij,bkjl->bkil", turn, shear)
    return origin[..., None, None, :] + jnp.einsum("bkij,bkpqj->bkpqi", matrix, pixels(placed))


def _recolour(rng: jax.Array, contents: jax.Array) -> jax.Array:
    """A random linear map of each channel of each patch, cut off at the range of images."""
    gain_rng, shift_rng = jax.random.split(rng)
    shape = (*contents.shape[:2], 1, 1, contents.shape[-1])
    gain = uniform(gain_rng, shape, 0.5, 1.5)
    return jnp.clip(gain * contents + uniform(shift_rng, shape, -0.5, 0.5), -1, 1)


def _sample(images: jax.Array, index: jax.Array, places: jax.Array) -> jax.Array:
    """Bilinear samples of images[index], [B, K], at places in pixels, mirrored at the borders.

    A pixel's middle is at its index + 0.5. [B, K, P, P, C].
    """
    height, width = images.shape[1:3]

    def between(at: jax.Array, side: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        last = side - 1
        at = last - jnp.abs(last - (at - 0.5) % max(2 * last, 1))
        low = jnp.clip(jnp.floor(at), 0, max(last - 1, 0)).astype(jnp.int32)
        return low, jnp.minimum(low + 1, last), (at - low)[..., None]

    top, bottom, down = between(places[..., 0], height)
    left, right, across = between(places[..., 1], width)
    index = index[..., None, None]

    def pick(rows: jax.Array, columns: jax.Array) -> jax.Array:
        return images[index, rows, columns].astype(jnp.float32)

    upper = pick(top, left) * (1 - across) + pick(top, right) * across
    lower = pick(bottom, left) * (1 - across) + pick(bottom, right) * across
    return upper * (1 - down) + lower * down
