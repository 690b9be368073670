"""A small generated data set in the MVTec layout: a machined flange, five kinds of defects.

The part is drawn from signed distances in its own coordinates (u, v), in which the picture spans
about -1..1. Chance settles the part before its defect, so one generator state, with and without a
defect, gives a picture and its clean twin; where they differ is the mask.
"""

import cmath
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from storage.outputs import DEMO_FILE

_Array = NDArray[np.floating]
_Pixels = NDArray[np.uint8]

DEFECTS = ("broken_edge", "dent", "missing_hole", "scratch", "stain")
"""The kinds of defects, which are folders of the test set."""

VISIBLE = 10
"""Grey levels in the most changed channel; less is called unchanged."""

HOLES = 6
"""Bolt holes of a part."""

# Radii, as shares of half the image; _BOLTS is that of the circle on which the holes lie.
_RIM, _SEAM, _BORE, _BOLTS, _BOLT = 0.86, 0.45, 0.15, 0.66, 0.105
_BRASS, _STEEL, _TABLE = (0.7, 0.54, 0.28), (0.35, 0.47, 0.59), (0.17, 0.175, 0.19)

_VERSION = 1  # of the drawing: a data set of another version counts as other settings


def generate_demo(
    root: str, *, seed: int = 0, size: int = 128, train: int = 160, good: int = 20, bad: int = 12
) -> None:
    """Write the data set to <root>/demo, or do nothing where it is there with these settings.

    Writes RGB images of size x size pixels to train/good (`train` of them), test/good (`good`) and
    test/<defect> (`bad` for each of DEFECTS), masks (8-bit grey, 0 or 255) to
    ground_truth/<defect>/NNN_mask.png, and the settings to demo.json. The folder appears only when
    it is complete. An image depends on seed, size, its folder and its number alone.

    Raises ValueError if a setting is out of range (seed >= 0, size >= 32, counts >= 1) or if
    <root>/demo holds anything else, and OSError if it cannot be written.
    """
    if seed < 0 or size < 32 or min(train, good, bad) < 1:
        raise ValueError("demo data set: need seed >= 0, size >= 32 and counts >= 1")
    counts = {"train": train, "good": good, "bad": bad}
    settings = json.dumps({"version": _VERSION, "seed": seed, "size": size, **counts}).encode()
    folder = Path(root) / "demo"
    if is_demo(folder, settings, train + good + 2 * len(DEFECTS) * bad):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".demo-") as hidden:
        unfinished = Path(hidden) / "demo"
        for path, pixels in _files(seed, size, train, good, bad):
            (unfinished / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(unfinished / path)
        (unfinished / DEMO_FILE).write_bytes(settings)
        unfinished.rename(folder)


def is_demo(folder: Path, settings: bytes, pictures: int) -> bool:
    """Whether `folder` is the data set of these settings, with so many pictures, masks among them.

    Raises:
      ValueError: it holds anything else.
    """
    if not folder.exists():
        return False
    marker = folder / DEMO_FILE
    same = marker.is_file() and marker.read_bytes() == settings
    if same and len(list(folder.rglob("*.png"))) == pictures:
        return True
    raise ValueError(
        f"{folder} is not a complete demo data set of these settings: delete it or choose another "
        "workdir"
    )


def _files(seed: int, size: int, train: int, good: int, bad: int) -> Iterator[tuple[str, _Pixels]]:
    for split, (name, count) in enumerate((("train", train), ("test", good))):
        for i in range(count):
            yield (
                f"{name}/good/{i:03d}.png",
                render(np.random.default_rng([seed, split, i]), size=size),
            )
    for split, defect in enumerate(DEFECTS, start=2):
        for i in range(bad):
            image, mask = render_defective([seed, split, i], defect, size=size)
            yield f"test/{defect}/{i:03d}.png", image
            yield f"ground_truth/{defect}/{i:03d}_mask.png", mask


def render_defective(
    entropy: list[int], defect: str, *, size: int = 128
) -> tuple[_Pixels, _Pixels]:
    """Return a defective image (size, size, 3) and its mask (size, size), 0 or 255, both uint8.

    The mask holds the pixels that the defect changes by more than VISIBLE levels in some channel;
    all others equal render(default_rng(entropy)). Raises ValueError for an unknown defect.
    """
    clean = render(np.random.default_rng(entropy), size=size)
    image = render(np.random.default_rng(entropy), size=size, defect=defect)
    changed = np.abs(image.astype(np.int16) - clean).max(axis=-1) > VISIBLE
    # The faint fringe of a defect goes, lest pixels outside the mask be a little abnormal.
    return np.where(changed[..., None], image, clean), changed.astype(np.uint8) * 255


def render(rng: np.random.Generator, *, size: int = 128, defect: str | None = None) -> _Pixels:
    """Return one image, (size, size, 3) uint8 RGB, of a good part or of one with the named defect.

    Raises ValueError if the defect is not None or one of DEFECTS.
    """
    if defect is not None and defect not in DEFECTS:
        raise ValueError(f"unknown defect {defect!r}: choose one of {', '.join(DEFECTS)}")
    u, v = _pose(rng, 2 * size)
    streaks = _streaks(rng, u, v)
    gain, (du, dv) = rng.uniform(0.94, 1.06), rng.uniform(-0.07, 0.07, 2).astype(np.float32)
    light = gain * (1 + du * u + dv * v)
    noise = rng.normal(0.0, 0.01, (size, size, 3))
    # The part is settled here; only the defect may draw from now on.
    solid = _solid(u, v, int(rng.integers(HOLES)) if defect == "missing_hole" else None)
    if defect == "broken_edge":
        solid = np.maximum(solid, -_blob(rng, u, v, _place(rng, _RIM), rng.uniform(0.16, 0.2)))
    metal = _metal(u, v, solid, streaks)
    if paint := {"dent": _dent, "scratch": _scratch, "stain": _stain}.get(defect or ""):
        metal = paint(rng, u, v, metal)
    shadow = 0.45 + 0.55 * np.clip(solid / 0.11, 0.0, 1.0)
    table = np.array(_TABLE, np.float32) * shadow[..., None]
    image = (table + (metal - table) * _cover(solid, 1.2 / size)) * light[..., None]
    image = image.reshape(size, 2, size, 2, 3).mean(axis=(1, 3)) + noise
    return np.rint(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8)


def _pose(rng: np.random.Generator, side: int) -> tuple[_Array, _Array]:
    """Part coordinates of every pixel: a few per cent of shift and scale, a few degrees."""
    shift, scale = rng.uniform(-0.03, 0.03, 2), rng.uniform(0.98, 1.02)
    turn = np.exp(1j * np.radians(rng.uniform(-3.0, 3.0))) / scale
    axis = (np.arange(side) + 0.5) * 2 / side - 1
    z = turn * ((axis[None, :] - shift[0]) + 1j * (axis[:, None] - shift[1]))
    return z.real.astype(np.float32), z.imag.astype(np.float32)


def _streaks(rng: np.random.Generator, u: _Array, v: _Array) -> _Array:
    """Brightness of concentric brushing, about +-0.05: noise smeared along the angle."""
    noise = rng.normal(size=(80, 256)).astype(np.float32)
    noise = ndimage.gaussian_filter(noise, (0.6, 14.0), mode="wrap")
    turns = (np.arctan2(v, u) / (2 * np.pi)) % 1.0
    at = np.stack([np.hypot(u, v) * 80, turns * 256])
    return 0.03 / noise.std() * ndimage.map_coordinates(noise, at, order=1, mode="grid-wrap")


def _cover(distance: _Array, width: float) -> _Array:
    """Smooth step, (..., 1): 1 inside (distance < -width), 0 outside."""
    return np.clip(0.5 - distance / (2 * width), 0.0, 1.0)[..., None]


def _solid(u: _Array, v: _Array, missing: int | None) -> _Array:
    """Signed distance to the part's metal, negative in it; bolt hole `missing` left out."""
    r = np.hypot(u, v)
    keyway = np.maximum(np.abs(u) - 0.045, np.abs(v + 0.1) - 0.12)
    solid = np.maximum(r - _RIM, -np.minimum(r - _BORE, keyway))
    centres = [_BOLTS * cmath.exp(2j * cmath.pi * k / HOLES) for k in range(HOLES) if k != missing]
    away = np.min([(u - c.real) ** 2 + (v - c.imag) ** 2 for c in centres], axis=0)
    return np.maximum(solid, _BOLT - np.sqrt(away))


def _metal(u: _Array, v: _Array, solid: _Array, streaks: _Array) -> _Array:
    """Colour of the surface: a steel plate in a brass ring, lit from the upper left."""
    r = np.hypot(u, v)
    sheen = 0.45 * u * v / (r * r + 1e-6)  # concentric brushing has two bright sectors
    facing = -0.35 * len(solid) * sum(np.gradient(solid))
    bevel = np.exp(-((solid / 0.03) ** 2)) * (0.3 * facing - 0.34)
    seam = -0.6 * np.exp(-(((r - _SEAM) / 0.018) ** 2))
    shade = (1 + sheen + streaks + bevel + seam)[..., None]
    brass, steel = np.array((_BRASS, _STEEL), np.float32)
    return (brass + (steel - brass) * _cover(r - _SEAM, 0.005)) * shade


def _place(rng: np.random.Generator, *radii: float) -> complex:
    """A place at one of the radii, between two bolt holes."""
    turn = (rng.integers(HOLES) + rng.uniform(0.37, 0.63)) / HOLES
    return complex(rng.choice(radii) * cmath.exp(2j * cmath.pi * turn))


def _blob(rng: np.random.Generator, u: _Array, v: _Array, at: complex, radius: float) -> _Array:
    """Signed distance, roughly, to an irregular blob."""
    du, dv = u - at.real, v - at.imag
    angle = np.arctan2(dv, du)
    a, p = rng.uniform(0.1, 0.3, 3).tolist(), rng.uniform(0, 2 * np.pi, 3).tolist()
    wobble = sum(a[i] / k * np.cos(k * angle + p[i]) for i, k in enumerate((2, 3, 5)))
    return np.hypot(du, dv) - radius * (1 + wobble)


def _dent(rng: np.random.Generator, u: _Array, v: _Array, metal: _Array) -> _Array:
    at, radius = _place(rng, 0.3, _BOLTS), rng.uniform(0.1, 0.14)
    inside = _cover(_blob(rng, u, v, at, radius), 0.02)
    slope = np.clip((u - at.real + v - at.imag) / radius, -1.0, 1.0)[..., None]
    return metal * (1 - inside * (0.58 - 0.25 * slope))  # the far wall catches some light


def _scratch(rng: np.random.Generator, u: _Array, v: _Array, metal: _Array) -> _Array:
    at, tilt = _place(rng, 0.53), rng.uniform(-0.8, 0.8)
    # Near enough to the radius to stay clear of the bolt holes, which would cut it to pieces.
    z = (u + 1j * v - at) / at * abs(at) * cmath.exp(1j * tilt)
    length, bend = rng.uniform(0.28, 0.36), rng.uniform(-0.7, 0.7)
    taper = 0.032 * np.sqrt(np.clip(1 - (z.real / length) ** 2, 0.0, 1.0))
    across = np.abs(z.imag - bend * z.real**2) - taper
    line = _cover(np.where(np.abs(z.real) < length, across, 1.0), 0.01)
    return metal + line * (np.array((0.95, 0.95, 0.92), np.float32) - metal) * 0.85


def _stain(rng: np.random.Generator, u: _Array, v: _Array, metal: _Array) -> _Array:
    inside = _cover(_blob(rng, u, v, _place(rng, 0.3, _BOLTS), rng.uniform(0.15, 0.2)), 0.04)
    # Nearly as bright as the metal under it: the colour tells.
    tint = np.array((1.1, 0.55, 1.3), np.float32) * metal.mean(axis=-1, keepdims=True)
    return metal + inside * 0.8 * (tint - metal)
