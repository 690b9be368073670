"""Each image's brightness brought to the training images': an option of the data.

For lamps that age. It hides what it corrects: a part that is wholly too dark or too bright. All of
it is ours.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.method import (
    ChainFn,
    Method,
    Metrics,
    Score,
    ScoreFn,
    Stage,
    TrainState,
    Tuning,
    Variables,
)

LARGEST = 1.5  # factor by which an image is made brighter or darker
_SIDE = 64  # pixels of about so many a side are looked at
_DARKEST = 1 / 255


def correction(target: float | None) -> str:
    """What the correction does, in one line; None: to what is not known yet."""
    known = "" if target is None else f", {255 * target:.0f} of 255"
    return (
        f"The brightness of each image is corrected to that of the training images{known}, by a "
        f"factor of {LARGEST} at most: a part that is wholly too dark or too bright is not found."
    )


def brightness(images: jax.Array) -> jax.Array:
    """The median of each image's grey values, from 0 to 1: [B] of [B, H, W, C] in [-1, 1]."""
    step = max(1, min(images.shape[1:3]) // _SIDE)
    grey = (images[:, ::step, ::step].mean(axis=-1) + 1) / 2
    return jnp.median(grey.reshape(len(images), -1), axis=1)


def training_brightness(images: np.ndarray) -> float:
    """The median of the images' brightness, from 0 to 1: of uint8 [N, H, W, C]."""
    step = max(1, min(images.shape[1:3]) // _SIDE)
    medians = [np.median(image[::step, ::step].mean(axis=-1)) for image in images]
    return float(np.median(medians) / 255)


def corrected(images: jax.Array, target: float) -> jax.Array:
    """Images [B, H, W, C] in [-1, 1], each made brighter or darker as a whole, and cut off there.

    Args:
      images: of any light.
      target: the `brightness` that they get, unless that takes a factor above `LARGEST`, or below
        its inverse: what is so dark is no matter of lamps.
    """
    gain = jnp.clip(target / jnp.maximum(brightness(images), _DARKEST), 1 / LARGEST, LARGEST)
    light = (images + 1) / 2 * gain.reshape(-1, 1, 1, 1)
    return jnp.clip(2 * light - 1, -1, 1)


def with_correction(method: Method, target: float) -> Method:
    """The method, all of whose images are `corrected` before it sees them."""

    def score_of(score: ScoreFn) -> ScoreFn:
        def corrected_score(variables: Variables, images: jax.Array) -> Score:
            return score(variables, corrected(images, target))

        return corrected_score

    tuning, chain = method.tuning, method.chain
    return Method(
        tuple(_stage(stage, target) for stage in method.stages),
        score_of(method.score),
        tuning and _tuning(tuning, target, score_of),
        chain and (lambda fields: _corrected_chain(chain(fields), target)),
    )


def _corrected_chain(pictures: ChainFn, target: float) -> ChainFn:
    return lambda variables, images: pictures(variables, corrected(images, target))


def _stage(stage: Stage, target: float) -> Stage:
    def step(state: TrainState, images: jax.Array, rng: jax.Array) -> tuple[TrainState, Metrics]:
        # Of several batches a step, [K, B, H, W, C], each is corrected.
        flat = images.reshape(-1, *images.shape[-3:])
        return stage.step(state, corrected(flat, target).reshape(images.shape), rng)

    def pictures(variables: Variables, images: jax.Array) -> Mapping[str, jax.Array]:
        return stage.pictures(variables, corrected(images, target))

    checks, preview = stage.checks, stage.preview
    return stage._replace(
        step=step,
        pictures=pictures,
        checks=checks and (lambda v, images, rng: checks(v, corrected(images, target), rng)),
        preview=preview and (lambda images, rng: preview(corrected(images, target), rng)),
    )


def _tuning(tuning: Tuning, target: float, score_of: Callable[[ScoreFn], ScoreFn]) -> Tuning:
    def scores(variables: Variables, images: jax.Array) -> tuple[Score, ...]:
        return tuning.scores(variables, corrected(images, target))

    def score(fields: Mapping[str, Any]) -> ScoreFn:
        return score_of(tuning.score(fields))

    def of_images(measured: Callable[[Variables, jax.Array, jax.Array], Tuning]) -> Any:
        return lambda variables, *images: _tuning(
            measured(variables, *(corrected(each, target) for each in images)), target, score_of
        )

    measured = tuning.measured and of_images(tuning.measured)
    return tuning._replace(scores=scores, score=score, measured=measured)
