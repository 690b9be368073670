"""Patches compared with those of good images, as a method: stages that add up, without optimisers.

`moments` takes the mean and the covariance of all patches, `histograms` how far patches lie from
that mean, `windows` how much the share of far ones varies from window to window. A step merges its
batch into what was before, so that the outcome depends neither on the order of the batches nor on
the number of devices, but for rounding.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from contrario_jax.levels import BINS, MEDIAN, above_levels, bin_shares, thresholds
from contrario_jax.moments import (
    Moments,
    batch_moments,
    distances,
    merged,
    pooled,
    whitening,
)
from engine import parallel
from engine.make import make
from engine.method import (
    Method,
    Metrics,
    Stage,
    TrainState,
    Variables,
    refuse_size,
    steps_of,
)
from engine.nfa import window_moments

_SHOWN = 64  # filters
_ENLARGED = 8  # times, so that a person sees their pixels
_COLOURS = 3


def build(config: Any, num_train: int) -> Method:
    """The method that `config` (see configs/contrario.py) describes, for `num_train` images.

    With `config.patches.reference` 'image' an image is compared with itself: the one step of the
    one stage takes nothing from its images.

    Raises:
      ValueError: an even side of a patch, images of a size that does not divide by the scales or
        in which no patch fits, or epochs that are too few for one step.
    """
    section = config.patches
    scales, side = tuple(section.scales), section.side
    if side % 2 == 0:
        raise ValueError(
            f"patches.side={side} is even, so that a patch has no middle: choose {side + 1}"
        )
    refuse_size(config.data.image_size, partial(_problem, scales, side))
    shape = _Shape(section.reference, scales, side, config.data.image_size)
    score = make(config.score, *shape[:3])
    stages = (
        (_empty_stage(config.training.batch_size),)
        if section.reference == "image"
        else tuple(
            stage(config, num_train, shape)
            for stage in (_moments_stage, _histograms_stage, _windows_stage)
        )
    )
    return Method(stages, score)


class _Shape(NamedTuple):
    """Which patches there are."""

    reference: str
    scales: tuple[int, ...]
    side: int
    image: int  # side of the images, pixels

    def patches(self, scale: int) -> int:
        """Of an image."""
        return (self.image // scale - self.side + 1) ** 2


def _problem(scales: Sequence[int], side: int, image: int) -> str:
    """What is wrong with images of `image` pixels; '' if nothing."""
    if rest := [scale for scale in scales if image % scale]:
        return f"{image} px do not divide by patches.scales {rest[0]}"
    if image // max(scales) < side:
        return f"patches of {side} px do not fit into {image} px made {max(scales)} times smaller"
    return ""


def _moments_stage(config: Any, num_train: int, shape: _Shape) -> Stage:
    """Means and covariances of the patches of the training images."""
    values = shape.side**2 * _COLOURS
    count, section = len(shape.scales), config.patches

    def init(rng: jax.Array, variables: Variables) -> TrainState:
        del rng, variables
        start = {
            "mean": jnp.zeros((count, values)),
            "covariance": jnp.zeros((count, values, values)),
        }
        return TrainState(jnp.zeros((), jnp.int32), {"moments": start}, {})

    def step(state: TrainState, images: jax.Array, rng: jax.Array) -> tuple[TrainState, Metrics]:
        del rng
        old = Moments(**state.variables["moments"])
        moments = merged(
            old, batch_moments(images, shape.scales, shape.side, section.stride), state.step
        )
        variances = jnp.trace(moments.covariance, axis1=1, axis2=2) / values
        metrics = {
            f"variance_{scale}": variances[number] for number, scale in enumerate(shape.scales)
        }
        state = dataclasses.replace(state, variables={"moments": moments._asdict()})
        return state, metrics

    def pictures(variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
        del images
        moments = Moments(**variables["moments"])
        return {
            f"filters_{scale}": _pictured(moments.mean[k], moments.covariance[k], shape.side)
            for k, scale in enumerate(shape.scales)
        }

    steps = steps_of(config.training, num_train)
    return Stage("moments", init, step, steps, (config.training.batch_size,), pictures)


def _pictured(mean: jax.Array, covariance: jax.Array, side: int) -> jax.Array:
    """The first 64 filters, each scaled to [-1, 1] and enlarged: [64, 8 p, 8 p, C]."""
    _, _, components = whitening(mean, covariance, 0.0)
    filters = components.T[:_SHOWN].reshape(-1, side, side, _COLOURS)
    filters /= jnp.maximum(jnp.abs(filters).max((1, 2, 3), keepdims=True), 1e-12)
    return filters.repeat(_ENLARGED, axis=1).repeat(_ENLARGED, axis=2)


def _histograms_stage(config: Any, num_train: int, shape: _Shape) -> Stage:
    """How far patches are from the mean, by the filters that whiten them.

    The images are those of the moments. That makes distances smaller by about D over the number of
    patches, a ten-thousandth already for 30 images of 128 px; what threshold a run has, and how it
    keeps its promise, comes from images that no stage has seen.
    """

    def start(variables: Variables) -> Variables:
        whiten = jax.vmap(partial(whitening, floor=config.patches.floor))
        matrix, bias, _ = whiten(*Moments(**variables["moments"]))
        side, scales = shape.side, len(shape.scales)
        kernel = matrix.reshape(scales, side, side, _COLOURS, -1)
        filters = {"kernel": kernel, "bias": bias}
        return {**variables, "filters": filters, "usual": {"shares": jnp.zeros((scales, BINS))}}

    def of_batch(variables: Variables, distance: jax.Array, number: int) -> dict[str, jax.Array]:
        del variables, number
        return {"shares": bin_shares(distance)}

    return _counting_stage("histograms", config, num_train, shape, start, of_batch)


def _windows_stage(config: Any, num_train: int, shape: _Shape) -> Stage:
    """How much the share of a window above each level varies from window to window."""
    sides = [shape.side * window for window in config.score.windows]
    wanted = (MEDIAN, *config.score.levels)

    def start(variables: Variables) -> Variables:
        usual, scales = variables["usual"], len(shape.scales)
        levels = jax.vmap(partial(thresholds, wanted=wanted))(usual["shares"])
        windows = jnp.zeros((scales, len(wanted), len(sides), 2))
        seen = {"thresholds": levels, "windows": windows, "patches": jnp.zeros(scales)}
        return {**variables, "usual": {**usual, **seen}}

    def of_batch(variables: Variables, distance: jax.Array, number: int) -> dict[str, jax.Array]:
        above = above_levels(distance, variables["usual"]["thresholds"][number])
        return {"windows": window_moments(above, sides)}

    return _counting_stage("windows", config, num_train, shape, start, of_batch)


def _counting_stage(
    name: str,
    config: Any,
    num_train: int,
    shape: _Shape,
    start: Callable[[Variables], Variables],
    of_batch: Callable[[Variables, jax.Array, int], dict[str, jax.Array]],
) -> Stage:
    """A stage that averages over all batches what `of_batch` says of the distances in one.

    Args:
      name: of the stage.
      config, num_train, shape: what there is.
      start: what the stages before left -> with fields of 'usual' at 0.
      of_batch: (variables, distances [B, h, w], number of their scale) -> these fields.
    """
    batch_size, scales = config.training.batch_size, shape.scales

    def init(rng: jax.Array, variables: Variables) -> TrainState:
        del rng
        return TrainState(jnp.zeros((), jnp.int32), start(variables), {})

    def step(state: TrainState, images: jax.Array, rng: jax.Array) -> tuple[TrainState, Metrics]:
        del rng
        usual = state.variables["usual"]
        fields = [_distance(state.variables, images, scales, k) for k in range(len(scales))]
        each = [of_batch(state.variables, field, k) for k, field in enumerate(fields)]
        new = parallel.mean(jax.tree.map(lambda *values: jnp.stack(values), *each))
        share = 1 / (state.step + 1.0)
        changed = {key: usual[key] + share * (value - usual[key]) for key, value in new.items()}
        if "patches" in usual:  # an image that comes again says nothing new
            images_seen = jnp.minimum((state.step + 1) * batch_size, num_train)
            of_image = jnp.asarray([shape.patches(scale) for scale in scales], jnp.float32)
            changed["patches"] = images_seen * of_image
        means = zip(scales, fields, strict=True)
        metrics = {f"distance_{scale}": field.mean() for scale, field in means}
        networks = {**state.variables, "usual": {**usual, **changed}}
        return dataclasses.replace(state, variables=networks), metrics

    def pictures(variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
        distance = _distance(variables, images, scales, 0)
        return {"distances": jnp.clip(distance[..., None] / 2 - 1, -1, 1)}

    steps = steps_of(config.training, num_train)
    return Stage(name, init, step, steps, (batch_size,), pictures)


def _distance(
    variables: Variables, images: jax.Array, scales: Sequence[int], number: int
) -> jax.Array:
    filters = variables["filters"]
    small = pooled(images, scales[number])
    return distances(small, filters["kernel"][number], filters["bias"][number])


def _empty_stage(batch_size: int) -> Stage:
    """One step that takes nothing from its images, for a run has a checkpoint."""

    def init(rng: jax.Array, variables: Variables) -> TrainState:
        del rng, variables
        return TrainState(jnp.zeros((), jnp.int32), {}, {})

    def step(state: TrainState, images: jax.Array, rng: jax.Array) -> tuple[TrainState, Metrics]:
        del rng
        return state, {"images": jnp.float32(batch_size)}

    def pictures(variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
        del variables
        return {"images": images}

    return Stage("nothing", init, step, 1, (batch_size,), pictures)
