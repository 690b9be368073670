"""Anomaly maps as pictures on one colour scale, and what of them is marked.

A map is float [h, w], higher = more anomalous; `map_max` is the top of the scale, of which good
images reach a third. Pictures are uint8 [H, W, 3].
"""

import matplotlib
import numpy as np
from PIL import Image
from scipy import ndimage

from evaluation.threshold import SCALE

HEAT = "inferno"  # its lightness grows with the value: readable in grey, and colour-blind safe
OUTLINE = (0, 255, 255)  # of what is marked: no colour of the heat


def coloured(heat: np.ndarray, map_max: float) -> np.ndarray:
    """The map in colours from 0 to `map_max`: uint8 [h, w, 3]."""
    return matplotlib.colormaps[HEAT](np.clip(heat / map_max, 0, 1), bytes=True)[..., :3]


def overlay(
    image: np.ndarray, heat: np.ndarray, map_max: float, marked: np.ndarray | None = None
) -> np.ndarray:
    """The image in grey, and over it in colours what of the map no good image had.

    A good part stays grey: colour sets in, half covering, where a third of the scale ends, and
    covers most from two thirds on.

    Args:
      image: uint8 [H, W, 3].
      heat: float [H, W].
      map_max: > 0.
      marked: what is `outlined`, if anything.

    Returns:
      uint8 [H, W, 3].
    """
    grey = np.asarray(Image.fromarray(image).convert("L"), np.float32)[..., None]
    excess = (SCALE * heat / map_max - 1)[..., None]  # 0: the highest value of good images
    weight = np.where(excess > 0, 0.5 + 0.4 * np.clip(excess, 0, 1), 0)
    mixed = grey + (coloured(heat, map_max) - grey) * weight
    drawn = np.rint(mixed).astype(np.uint8)
    return drawn if marked is None else outlined(drawn, marked)


def outlined(picture: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """A copy of the picture, uint8 [H, W, 3], with a line around what is marked, bool [h, w].

    The line lies outside, so that a defect under it is seen; at the picture's border inside.
    """
    height, width = picture.shape[:2]
    marked = np.asarray(Image.fromarray(marked).resize((width, height), Image.Resampling.NEAREST))
    thick = 1 + min(height, width) // 256
    line = ndimage.maximum_filter(marked, 2 * thick + 1) & ~marked
    border = np.ones_like(marked)
    border[thick:-thick, thick:-thick] = False
    picture = picture.copy()
    picture[line | marked & border] = OUTLINE
    return picture
