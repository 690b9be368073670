"""Images as pixels: float32 in [-1, 1] to uint8 and back, and a grid of them."""

import math
from typing import Any

import numpy as np

GRID_IMAGES = 64
GRID_GAP = 2  # pixels


def scaled(pixels: Any) -> Any:
    """uint8 in [0, 255] -> float32 in [-1, 1], NumPy or JAX, as data/sampling.py to the bit."""
    return (2 * pixels.astype(np.float32) - 255) * np.float32(1 / 255)


def to_pixels(images: np.ndarray) -> np.ndarray:
    """Images in [-1, 1], of any shape and cut off beyond, as uint8."""
    levels: np.ndarray = np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)
    return levels


def grid(images: np.ndarray) -> np.ndarray:
    """One picture, about square, of the first 64 of `images`, with white gaps of 2 pixels.

    Args:
      images: float32 [N, H, W, C] in [-1, 1], C = 1 or 3; values outside are clipped.

    Returns:
      uint8 [h, w, 3].

    Raises:
      ValueError: not such a shape, or N = 0.
    """
    if images.ndim != 4 or not images.shape[0] or images.shape[-1] not in (1, 3):
        raise ValueError(f"images of shape {images.shape}; wanted [N, H, W, 1 or 3] with N > 0")
    images = np.nan_to_num(np.asarray(images[:GRID_IMAGES], np.float32), nan=-1.0)
    count, height, width, _ = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    tall, wide = height + GRID_GAP, width + GRID_GAP
    canvas = np.full((rows * tall - GRID_GAP, columns * wide - GRID_GAP, 3), 255, np.uint8)
    for i, image in enumerate(to_pixels(images)):
        top, left = i // columns * tall, i % columns * wide
        canvas[top : top + height, left : left + width] = image
    return canvas
