"""Anomaly scores of autoencoders: a residual map, and one number an image made of it.

An image larger than the network's input is seen through windows, and each pixel gets the mean over
the windows that hold it. Images are [B, H, W, C] in [-1, 1].

Every score takes the network, the side of its input in pixels as `window`, and the options of
`_score`. The terms of the image score are the mean and the maximum of the residual map, so that
the report shows both, whichever of them is the score.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ae_jax.losses import Residual, reconstruct
from ae_jax.models import Output
from engine import residuals
from engine.map_score import of_map, require_image_score
from engine.method import Score, ScoreFn, Variables
from engine.usual import Cells, over_usual, required_usual

MAPS = ("residual", "head", "product")
"""What `score.map` may be."""

WHOLE_RULES = ("mean", "max")
"""What `score.image_score` of the scores of reconstructions may be."""


def mean_squared(network: nn.Module, window: int, **options: Any) -> ScoreFn:
    """Image score: mean squared residual; map: squared residual, summed over channels."""
    return _score(network, window, residuals.squared, True, **{"image_score": "mean", **options})


def max_squared(network: nn.Module, window: int, **options: Any) -> ScoreFn:
    """Image score: largest squared residual of a pixel; map: squared, summed over channels."""
    return _score(network, window, residuals.squared, True, **{"image_score": "max", **options})


def max_dssim(network: nn.Module, window: int, **options: Any) -> ScoreFn:
    """Image score: the map's maximum; map: 1 - SSIM, mean over channels."""
    return _score(network, window, residuals.dssim, False, **{"image_score": "max", **options})


def _score(
    network: nn.Module,
    window: int,
    residual: Residual,
    summed: bool,
    *,
    image_score: str,
    stride: int = 32,
    smoothing: float = 0.0,
    normalise: str = "none",
    usual: Cells = (),
) -> ScoreFn:
    """A score from a residual map.

    Args:
      network: an autoencoder, which gives an `ae_jax.models.Output`.
      window: side of the network's input.
      residual: of images and reconstructions.
      summed: whether the anomaly map is the residual summed over channels, or their mean.
      image_score: 'mean' or 'max' of the residual map.
      stride: pixels between two windows, where the images are larger than one.
      smoothing: standard deviation, in pixels, of the Gaussian that smooths the residual map.
      normalise: 'pixel': the residual map is divided by what is `usual` of the anomaly map at each
        place, which is ours; 'none': it is not.
      usual: as engine/usual.py has it.

    Raises:
      ValueError: another image score, or as `engine.usual.required_usual`.
    """
    if image_score not in WHOLE_RULES:
        raise ValueError(
            f"score.image_score {image_score!r} must be one of {', '.join(WHOLE_RULES)}"
        )
    places = required_usual(normalise, usual)

    def of_window(variables: Variables, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        output, _ = reconstruct(network, variables, images, train=False)
        return residual(images, output.reconstructions), output.reconstructions

    def score(variables: Variables, images: jax.Array) -> Score:
        values = by_windows(partial(of_window, variables), images, window, stride)
        residual_map, reconstructions = values
        residual_map = over_usual(residuals.smooth(residual_map, smoothing), places)
        terms = {"mean": jnp.mean(residual_map, (1, 2)), "max": jnp.max(residual_map, (1, 2))}
        channels = images.shape[-1] if summed else 1
        return Score(terms[image_score], channels * residual_map, terms, reconstructions)

    return score


def restored(
    network: nn.Module,
    *,
    map: str = "residual",
    smoothing: float = 4.0,
    image_score: str = "max",
    top: float = 0.01,
    normalise: str = "none",
    usual: Cells = (),
) -> ScoreFn:
    """Of a network that takes whole images: a map of what it makes of them, smoothed.

    Bauer et al. 2024 (arXiv 2206.11723) filter it as well and sum it over pixels (recalled).

    Args:
      network: an autoencoder, which gives an `ae_jax.models.Output`.
      map: as `anomaly_map` has it.
      smoothing: standard deviation of the Gaussian, in pixels; 0: none.
      image_score: 'max' or 'sum' of the map, or 'top', the mean of its largest values.
      top: the share of the pixels that these are.
      normalise: 'pixel': the map is divided by what is `usual` at each place, which is ours.
      usual: as engine/usual.py has it.

    Raises:
      ValueError: another image score, a share out of (0, 1], or as `engine.usual.required_usual`.
    """
    require_image_score(image_score, top)
    places = required_usual(normalise, usual)

    def score(variables: Variables, images: jax.Array) -> Score:
        output, _ = reconstruct(network, variables, images, train=False)
        scored = of_map(anomaly_map(map, images, output), smoothing, {"top": top}, places)
        return scored._replace(
            image=scored.terms[image_score], reconstruction=output.reconstructions
        )

    return score


def anomaly_map(name: str, images: jax.Array, output: Output) -> jax.Array:
    """How anomalous each pixel is: [B, H, W].

    'residual': the squared residual, mean over colours; 'head': the head's probability;
    'product': the root of the one times the other.

    Raises:
      ValueError: another name, or a head is asked for where there is none.
    """
    if name not in MAPS:
        raise ValueError(f"score.map {name!r} must be one of {', '.join(MAPS)}")
    residual = residuals.squared(images, output.reconstructions)
    if name == "residual":
        return residual
    if output.logits is None:
        raise ValueError(f"score.map {name!r} needs a head, and the network has none: 'residual'")
    probability = jax.nn.sigmoid(output.logits)
    return probability if name == "head" else jnp.sqrt(residual) * probability


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side: every `stride` pixels, the last one at the border.

    Raises:
      ValueError: the side is smaller than a window, or windows would leave pixels out.
    """
    if side < window or (side > window and not 1 <= stride <= window):
        raise ValueError(
            f"windows of {window} px every {stride} px do not cover {side} px: "
            f"choose score.stride from 1 to {window}, and images of {window} px at least"
        )
    return [*range(0, side - window, stride), side - window]


def by_windows(function: Callable, images: jax.Array, window: int, stride: int) -> Any:
    """The mean, at each pixel, of what `function` says of it in each window that holds it.

    Args:
      function: images [B, window, window, C] -> a tree of arrays [B, window, window, ...].
      images: [B, H, W, C].
      window: side of a window.
      stride: pixels between two windows; one ends at each border.

    Returns:
      A tree of [B, H, W, ...].

    Raises:
      ValueError: as `window_starts`.
    """
    batch, height, width, channels = images.shape
    tops, lefts = (window_starts(side, window, stride) for side in (height, width))
    places = [(top, left) for top in tops for left in lefts]
    if len(places) == 1:
        return function(images)
    counts = np.zeros((height, width), np.float32)
    for top, left in places:
        counts[top : top + window, left : left + window] += 1

    def add(totals: Any, place: jax.Array) -> tuple[Any, None]:
        start, size = (0, place[0], place[1], 0), (batch, window, window, channels)
        values = function(jax.lax.dynamic_slice(images, start, size))

        def added(total: jax.Array, value: jax.Array) -> jax.Array:
            at = start[: total.ndim]
            old = jax.lax.dynamic_slice(total, at, value.shape)
            return jax.lax.dynamic_update_slice(total, old + value, at)

        return jax.tree.map(added, totals, values), None

    shapes = jax.eval_shape(function, images[:, :window, :window])
    start = jax.tree.map(lambda s: jnp.zeros((batch, height, width, *s.shape[3:])), shapes)
    totals, _ = jax.lax.scan(add, start, jnp.array(places))

    def mean(total: jax.Array) -> jax.Array:
        return total / counts.reshape(1, height, width, *[1] * (total.ndim - 3))

    return jax.tree.map(mean, totals)
