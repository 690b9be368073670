"""Anomaly maps as arrays: at another size, beside their masks, and their regions.

A map is float [h, w], higher = more anomalous; a mask is bool [h, w].
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage


class Region(NamedTuple):
    """A connected region of marked pixels."""

    left: int
    top: int
    width: int
    height: int
    area: int  # pixels


def resize_map(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The map at another height and width, float32, by Pillow's bilinear filter."""
    if heat.shape == tuple(size):
        return np.asarray(heat, np.float32)
    picture = Image.fromarray(np.asarray(heat, np.float32))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))


def largest_region(mask: np.ndarray) -> Region | None:
    """The largest 8-connected region of a bool mask [H, W]; None where nothing is marked."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if not count:
        return None
    area = np.bincount(labels.ravel())[1:]
    rows, columns = ndimage.find_objects(labels)[int(area.argmax())]
    left, top = columns.start, rows.start
    return Region(left, top, columns.stop - left, rows.stop - top, int(area.max()))


def at_one_size(
    masks: Iterable[np.ndarray], maps: Iterable[np.ndarray], size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields each mask (bool) with its map (float) at one size [h, w], as `pixel_metrics` says."""
    for mask, values in zip(masks, maps, strict=True):
        if size and mask.shape != (size, size):
            small = Image.fromarray(mask.astype(np.uint8)).resize((size, size), Image.Resampling(0))
            mask = np.asarray(small) > 0
        if values.shape != mask.shape:
            picture = Image.fromarray(np.asarray(values, np.float32))
            values = np.asarray(picture.resize(mask.shape[::-1], Image.Resampling.BILINEAR))
        yield mask, values


def region_weights(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Of each True pixel of bool [h, w], in order, 1 / the size of its region; how many regions."""
    regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
    region = regions[mask]
    return (1.0 / np.bincount(region)[region] if count else np.empty(0)), count
