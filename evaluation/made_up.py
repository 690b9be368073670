"""Made-up defects of good images: what a detector is judged by where no real defect may be seen.

Seven kinds, small and often faint, under three lightings. They are drawn by NumPy and SciPy, apart
from the corruption that networks are trained on (ae_jax/corruption.py), so that none is judged by
its own teacher. All of it is ours.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, spatial

from engine.foreground import foreground

Array = NDArray[np.floating]
"""Floating point, of the shape that is said."""

# A defect counts where it changes a pixel by 2.5 % of the range, as the mean over colours: what is
# fainter nobody would call a defect.
_VISIBLE = 0.05
_LEAST = 9  # visible pixels at 128 px; less is drawn again
_TRIALS = 20
_MOST = 64  # images: enough to judge by, and each has 21 defects a draw


class Canvas(NamedTuple):
    """A good image, and what a defect may be made from; values from 0 to 1."""

    image: Array  # [H, W, 3]
    other: Array  # another good image
    row: Array  # [H, W]: how far each pixel lies from the defect's middle,
    column: Array  # as a share of the image's side
    side: int  # of the image


Kind = Callable[[np.random.Generator, Canvas], Array]
"""A canvas -> the image with a defect around row = column = 0: [H, W, 3]."""


class MadeUp(NamedTuple):
    """One draw of all images, under one light."""

    lighting: str
    good: np.ndarray  # float32 [N, H, W, 3] in [-1, 1]
    defective: dict[str, tuple[np.ndarray, np.ndarray]]
    """Kind -> images like `good`, and where the defect can be seen: bool [N, H, W]."""


def made_up(images: np.ndarray, *, draws: int = 1, seed: int = 0) -> Iterator[MadeUp]:
    """Good images, and the same with one defect of each kind, under each of the lightings.

    An image's defects depend on `seed`, on the draw and on its place among the images.

    Args:
      images: float32 [N, H, W, 3] in [-1, 1]; of more than 64 the first 64.
      draws: so many times each lighting, each time with other defects.
      seed: of all that is drawn.
    """
    images = images[:_MOST]
    product = np.asarray(jax.jit(foreground)(images)) > 0
    for draw in range(draws):
        for number, (lighting, light) in enumerate(LIGHTINGS.items()):
            pairs: dict[str, list[tuple[Array, np.ndarray]]] = {kind: [] for kind in DEFECT_KINDS}
            good = []
            for index, image in enumerate(images):
                rng = np.random.default_rng([seed, draw, number, index])
                lit = light(rng, (image + 1) / 2)
                good.append(lit)
                other = (images[(index + 1) % len(images)] + 1) / 2
                for kind, draw_kind in DEFECT_KINDS.items():
                    pairs[kind].append(_defective(rng, draw_kind, lit, other, product[index]))
            yield MadeUp(
                lighting,
                _to_range(good),
                {
                    kind: (_to_range([image for image, _ in each]), np.stack([m for _, m in each]))
                    for kind, each in pairs.items()
                },
            )


def _to_range(images: list[Array]) -> np.ndarray:
    return np.asarray(np.stack(images) * 2 - 1, np.float32)


def _defective(
    rng: np.random.Generator, kind: Kind, image: Array, other: Array, product: np.ndarray
) -> tuple[Array, np.ndarray]:
    """The image with a defect on the product, and where it can be seen."""
    height, width = product.shape
    side = min(height, width)
    at = np.argwhere(product)
    for _ in range(_TRIALS):
        middle = at[rng.integers(len(at))]
        row = np.broadcast_to((np.arange(height)[:, None] - middle[0]) / side, product.shape)
        column = np.broadcast_to((np.arange(width) - middle[1]) / side, product.shape)
        changed = _clipped(kind(rng, Canvas(image, other, row, column, side)))
        seen = visible(2 * image, 2 * changed)
        # Who draws masks draws regions, with the pixels in them that happen to agree.
        seen = ndimage.binary_closing(np.pad(seen, 4), iterations=2)[4:-4, 4:-4]
        if seen.sum() >= _LEAST * (side / 128) ** 2:
            break
    return changed, seen


def visible(images: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Where images [..., C] in [-1, 1] were changed so that it can be seen: bool [...]."""
    seen: np.ndarray = np.abs(changed - images).mean(axis=-1) > _VISIBLE
    return seen


# ---------------------------------------------------------------- lightings


def _as_it_is(rng: np.random.Generator, image: Array) -> Array:
    del rng
    return image


def _brightness(rng: np.random.Generator, image: Array) -> Array:
    """Up to 10 % darker or brighter."""
    return _clipped(image * (1 + rng.uniform(-0.1, 0.1)))


def _uneven(rng: np.random.Generator, image: Array) -> Array:
    """10 % darker on one side, 10 % brighter on the other."""
    height, width, _ = image.shape
    angle = rng.uniform(0, 2 * np.pi)
    row, column = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    across = (row * np.sin(angle) + column * np.cos(angle)) / np.sqrt(2)
    return _clipped(image * (1 + 0.1 * across[..., None]))


LIGHTINGS = {"as it is": _as_it_is, "brightness": _brightness, "uneven": _uneven}
"""Name -> what that light makes of an image."""


# ---------------------------------------------------------------- kinds of defects


def _blot(rng: np.random.Generator, canvas: Canvas) -> Array:
    """A spot of one colour with a bent outline."""
    colour = rng.uniform(0, 1, 3)
    alpha = rng.uniform(0.3, 1) * _blob(rng, canvas, rng.uniform(0.015, 0.06), 0.01)
    return _mix(canvas.image, colour, alpha)


def _scratch(rng: np.random.Generator, canvas: Canvas) -> Array:
    """A bent line, brighter or darker than what it crosses."""
    angle, bend = rng.uniform(0, np.pi), rng.normal(0, 1.5)
    along = canvas.row * np.sin(angle) + canvas.column * np.cos(angle)
    across = canvas.column * np.sin(angle) - canvas.row * np.cos(angle) - bend * along**2
    length, width = rng.uniform(0.05, 0.2), rng.uniform(0.003, 0.008)
    inside = _clipped((width - np.abs(across)) * canvas.side + 0.5)
    inside *= _clipped((length - np.abs(along)) * canvas.side + 0.5)
    return canvas.image + _sign(rng) * rng.uniform(0.1, 0.4) * inside[..., None]


def _missing_part(rng: np.random.Generator, canvas: Canvas) -> Array:
    """A region filled from its surroundings."""
    hole = _blob(rng, canvas, rng.uniform(0.03, 0.08), 0.01)
    outside, reach = (hole == 0).astype(float), 0.03 * canvas.side
    around = ndimage.gaussian_filter(canvas.image * outside[..., None], (reach, reach, 0))
    weight = ndimage.gaussian_filter(outside, reach)
    return _mix(canvas.image, around / np.maximum(weight, 1e-6)[..., None], hole)


def _foreign_piece(rng: np.random.Generator, canvas: Canvas) -> Array:
    """A rough polygon with shading and a shadow."""
    corners = rng.normal(0, rng.uniform(0.015, 0.04), (8, 2))
    hull = spatial.Delaunay(corners)
    points = np.stack([canvas.row, canvas.column], axis=-1).reshape(-1, 2)
    inside = (hull.find_simplex(points) >= 0).reshape(canvas.row.shape).astype(float)
    shade = rng.uniform(0, 1, 3) + 0.1 * rng.normal(0, 1, canvas.row.shape)[..., None]
    shift = max(1, round(0.01 * canvas.side))
    shadow = ndimage.shift(ndimage.gaussian_filter(inside, shift), (shift, shift), order=1)
    return _mix(canvas.image * (1 - 0.4 * shadow[..., None]), shade, inside)


def _blur(rng: np.random.Generator, canvas: Canvas) -> Array:
    """A worn or smeared region."""
    sigma = rng.uniform(0.008, 0.025) * canvas.side
    blurred = ndimage.gaussian_filter(canvas.image, (sigma, sigma, 0))
    return _mix(canvas.image, blurred, _blob(rng, canvas, rng.uniform(0.05, 0.12), 0.02))


def _misplaced_patch(rng: np.random.Generator, canvas: Canvas) -> Array:
    """A region of another good image, from elsewhere, mirrored or turned."""
    moved = np.rot90(canvas.other, int(rng.integers(1, 4)))
    moved = moved if moved.shape == canvas.image.shape else canvas.other[::-1, ::-1]
    shift = [round(s * canvas.side) for s in rng.uniform(-0.2, 0.2, 2)]
    moved = np.roll(moved, shift, (0, 1))
    return _mix(canvas.image, moved, _blob(rng, canvas, rng.uniform(0.03, 0.1), 0.01))


def _faint_stain(rng: np.random.Generator, canvas: Canvas) -> Array:
    """A region that is slightly darker, brighter or tinted, with a soft border."""
    tint = _sign(rng) * rng.uniform(0.04, 0.1) + rng.uniform(-0.03, 0.03, 3)
    region = _blob(rng, canvas, rng.uniform(0.04, 0.12), 0.03)
    return canvas.image + region[..., None] * tint


DEFECT_KINDS: dict[str, Kind] = {
    "blot": _blot,
    "scratch": _scratch,
    "missing part": _missing_part,
    "foreign piece": _foreign_piece,
    "blur": _blur,
    "misplaced patch": _misplaced_patch,
    "faint stain": _faint_stain,
}
"""Name -> what draws a defect of that kind."""


def _blob(rng: np.random.Generator, canvas: Canvas, radius: float, softness: float) -> Array:
    """An ellipse with a wavy outline: from 1 inside to 0, over `softness` of the side: [H, W]."""
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1, 2)
    u = canvas.row * np.sin(angle) + canvas.column * np.cos(angle)
    v = canvas.row * np.cos(angle) - canvas.column * np.sin(angle)
    u, v = u / stretch, v * stretch
    turn, waves = np.arctan2(v, u), np.zeros(u.shape)
    for order in (2, 3, 5):
        waves += rng.normal(0, 0.3 / order) * np.cos(order * turn + rng.uniform(0, 2 * np.pi))
    return _clipped((radius * (1 + waves) - np.hypot(u, v)) / softness + 0.5)


def _mix(image: Array, content: Array, weight: Array) -> Array:
    return image + weight[..., None] * (content - image)


def _clipped(values: Array) -> Array:
    inside: Array = np.clip(values, 0, 1)
    return inside


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice((-1, 1)))
