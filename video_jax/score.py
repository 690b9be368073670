"""The score of a frame: how badly both autoencoders restore it, each on its own usual scale.

Windows are [B, H, W, T]; the score is that of the frame in the middle, at T // 2.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from engine import residuals
from engine.method import Score, ScoreFn, Variables
from video_jax.pseudo import Difference, differences

BRANCHES = ("spatial", "temporal")
"""What is seen, and what moves; sections of the config, networks and stages have these names."""

Networks = Mapping[str, nn.Module]
"""Branch -> its network, which takes frames or their differences."""


def branch_input(branch: str, windows: jax.Array, how: Difference) -> jax.Array:
    """What a branch sees of windows [B, H, W, T]: frames, or their differences [B, H, W, T - 1]."""
    return windows if branch == "spatial" else differences(windows, how)


def residual_maps(
    networks: Networks, variables: Variables, windows: jax.Array, smoothing: float, how: Difference
) -> dict[str, jax.Array]:
    """Branch -> the squared residual about the middle frame, smoothed: [B, H, W] each.

    Of the frame itself, and of the mean over the differences to the frames before and after it.
    """
    middle = windows.shape[-1] // 2
    frames = {"spatial": slice(middle, middle + 1), "temporal": slice(middle - 1, middle + 1)}
    maps = {}
    for branch, network in networks.items():
        given = branch_input(branch, windows, how)
        restored: Any = network.apply(variables[branch], given)
        here = frames[branch]
        residual = residuals.squared(given[..., here], restored[..., here])
        maps[branch] = residuals.smooth(residual, smoothing)
    return maps


def standardised(
    networks: Networks,
    smoothing: float,
    how: Difference,
    *,
    top: float = 0.01,
    weight: float = 1.0,
    by_place: bool = False,
) -> ScoreFn:
    """z(spatial) + weight z(temporal), z = (residual - usual mean) / usual standard deviation.

    The image score is the mean of the largest values of that map; its terms are those of each
    branch's map alone. What is usual was taken from normal windows in the stage 'statistics'.

    Args:
      networks: of both branches.
      smoothing: standard deviation of the Gaussian over the residual maps, in pixels.
      how: frames become differences.
      top: share of the pixels whose mean the image score is.
      weight: of the temporal branch.
      by_place: whether each pixel has its own mean and deviation; else all have one.
    """

    def score(variables: Variables, windows: jax.Array) -> Score:
        maps = residual_maps(networks, variables, windows, smoothing, how)
        usual = variables["statistics"]
        scaled = {name: usual_scale(usual, name, value, by_place) for name, value in maps.items()}
        both = scaled["spatial"] + weight * scaled["temporal"]
        terms = {name: mean_of_largest(value, top) for name, value in scaled.items()}
        return Score(mean_of_largest(both, top), both, terms)

    return score


def usual_scale(
    usual: Mapping[str, Any], branch: str, values: jax.Array, by_place: bool
) -> jax.Array:
    """Maps [B, H, W] less their usual mean, in usual standard deviations.

    By place, half of the variance is that of the place and half that of all places together, lest
    noise where nothing ever moves count for much.
    """
    mean, square = usual[f"{branch}_mean"], usual[f"{branch}_square"]
    everywhere = jnp.mean(mean)
    variance = jnp.mean(square) - jnp.square(everywhere)
    if by_place:
        centre = mean[None]
        own = jnp.maximum(square - jnp.square(mean), 0)
        spread = jnp.sqrt((own + variance) / 2 + 1e-20)[None]
        return (values - centre) / spread
    return (values - everywhere) / jnp.sqrt(jnp.maximum(variance, 1e-20))


def mean_of_largest(maps: jax.Array, share: float) -> jax.Array:
    """The mean of each map's largest values, `share` of them and one at least: [B] of [B, H, W]."""
    pixels = maps.reshape(maps.shape[0], -1)
    count = max(1, round(share * pixels.shape[1]))
    return jnp.mean(jax.lax.top_k(pixels, count)[0], axis=1)
