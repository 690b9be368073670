"""Anomaly score: how an image and what the chain makes of it differ.

Images are [B, H, W, C] in [-1, 1]. Noise is drawn from fixed keys, one draw for all images: an
image's score depends on nothing but the image and the network.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import logging

from diffusion_jax.chain import Chain, Limits, repair_chain, switched, tried_residuals
from diffusion_jax.noise import NoiseFn
from diffusion_jax.schedule import Schedule, levels_of, refuse_above
from engine import residuals
from engine.map_score import of_map, require_image_score
from engine.method import Score, ScoreFn, Variables
from engine.usual import Cells, required_usual

RESIDUALS = ("squared", "absolute", "structure")
"""What `score.residual` may be."""

PIXELS_AT_ONCE = 2**20
"""So many of them go through the network at a time; the images of a larger batch take turns."""

_CENTRE = 0.99  # of good images' pixels, the share whose residual lies below the mask's centre


class Denoiser(NamedTuple):
    """What repairs images: a network with its schedule and its noise."""

    network: nn.Module
    schedule: Schedule
    noise: NoiseFn

    def of(self, variables: Variables) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """(noised images, noise to signal) -> estimates, by the averaged parameters."""
        return partial(_estimate, self.network, variables["averaged"])

    def draw(self, number: jax.Array | int, shape: tuple[Any, ...]) -> jax.Array:
        """The noise of a draw for images of `shape`, the same for all: [1, H, W, C]."""
        return self.noise(jax.random.fold_in(jax.random.key(0), number), (1, *shape[1:]))


def _estimate(network: nn.Module, variables: Any, noised: jax.Array, ratio: jax.Array) -> jax.Array:
    estimate: Any = network.apply(variables, noised, ratio)
    return estimate


class Course(NamedTuple):
    """How a chain goes."""

    start: int  # the highest level
    steps: int
    draws: int
    adaptive: bool = True
    fusion: bool = True
    probe_smoothing: float = 1.0


def probe(images: jax.Array, estimate: jax.Array, sigma: float) -> jax.Array:
    """By what level and mask are found: |x - x0|, mean over colours, smoothed: [B, H, W]."""
    return residuals.smooth(residuals.absolute(images, estimate), sigma)


def residual_map(name: str, images: jax.Array, repaired: jax.Array) -> jax.Array:
    """How an image and the repaired one differ: [B, H, W].

    'squared': mean over colours of the squared difference; 'absolute': of |x - x'|; 'structure':
    |x - x'| + 1 - SSIM.
    """
    if name == "squared":
        return residuals.squared(images, repaired)
    absolute = residuals.absolute(images, repaired)
    return absolute if name == "absolute" else absolute + residuals.dssim(images, repaired)


def measured_limits(
    denoiser: Denoiser, course: Course, variables: Variables, images: jax.Array
) -> Limits:
    """What residuals good images have at the levels of a course, over all of its draws.

    The mask's centre is above 99 % of their pixels, its width the distance of their quartiles, and
    `largest` is that of all: [S] each.
    """
    levels = levels_of(course.start, course.steps)

    def of_draw(number: jax.Array) -> Limits:
        noise = denoiser.draw(number, images.shape)
        tried = tried_residuals(
            denoiser.of(variables),
            denoiser.schedule,
            levels,
            partial(probe, sigma=course.probe_smoothing),
            images,
            noise,
        )
        pixels = tried.reshape(len(levels), -1)
        low, high, centre = jnp.quantile(pixels, jnp.array([0.25, 0.75, _CENTRE]), axis=1)
        return Limits(centre, jnp.maximum(high - low, 1e-6), jnp.max(pixels, axis=1))

    each = jax.lax.map(of_draw, jnp.arange(course.draws))
    return Limits(each.centre.mean(0), each.width.mean(0), each.largest.max(0))


def repaired_draws(
    denoiser: Denoiser,
    course: Course,
    variables: Variables,
    limits: Limits,
    images: jax.Array,
) -> Chain:
    """The chains of all draws, one after the other: a `Chain` with an axis of draws in front.

    Its frames are left out, so that memory does not grow with the steps.
    """
    levels = levels_of(course.start, course.steps)

    def of_draw(number: jax.Array) -> Chain:
        chain = repair_chain(
            denoiser.of(variables),
            denoiser.schedule,
            levels,
            switched(limits, adaptive=course.adaptive, fusion=course.fusion),
            partial(probe, sigma=course.probe_smoothing),
            images,
            denoiser.draw(number, images.shape),
        )
        return chain._replace(frames=jnp.zeros((0,)))

    return jax.lax.map(of_draw, jnp.arange(course.draws))


def in_turns(function: Callable[[jax.Array], Any], images: jax.Array) -> Any:
    """What `function` makes of images [B, ...], of so many at a time that memory suffices.

    Its results have the images' axis in front. A batch whose size is not known is one turn.
    """
    count, height, width, _ = images.shape
    most = max(1, PIXELS_AT_ONCE // (height * width))
    if not isinstance(count, int) or count <= most:
        return function(images)
    logging.log_first_n(
        logging.INFO,
        "Scoring: of %d images of %d px at a time, %d go through the chain at once.",
        1,
        *(count, height, most),
    )
    turns = -(-count // most)
    padded = jnp.pad(images, ((0, turns * most - count), (0, 0), (0, 0), (0, 0)))
    results = jax.lax.map(function, padded.reshape(turns, most, *images.shape[1:]))
    return jax.tree.map(lambda each: each.reshape(-1, *each.shape[2:])[:count], results)


def limits_of(triples: Sequence[Sequence[float]], variables: Variables) -> Limits:
    """Those of the config's `score.limits`, or, where there are none, what training measured."""
    if not triples:
        return Limits(**variables["limits"])
    return Limits(*jnp.asarray(triples, jnp.float32).T)


def glad(
    denoiser: Denoiser,
    *,
    start: int = 80,
    steps: int = 4,
    draws: int = 4,
    adaptive: bool = True,
    fusion: bool = True,
    probe_smoothing: float = 1.0,
    residual: str = "squared",
    smoothing: float = 1.0,
    image_score: str = "max",
    top: float = 0.01,
    limits: Sequence[Sequence[float]] = (),
    normalise: str = "none",
    usual: Cells = (),
) -> ScoreFn:
    """The residual of what the chain repairs (arXiv 2406.07487), mean over draws of noise.

    The terms are 'max', 'top' and 'sum' of the map, and 'level', the image's own noise level, mean
    over draws.

    Args:
      denoiser: network, schedule and noise.
      start: the highest level; 0 with one step: the network sees the image itself, once.
      steps: levels, evenly down from it. A draw takes so many calls of the network.
      draws: of noise.
      adaptive: whether an image has a level of its own; else it is `start`.
      fusion: whether pixels that look like good images' stay the image's own.
      probe_smoothing: of the residual by which level and mask are found, in pixels.
      residual: as `residual_map` has it.
      smoothing: standard deviation of the Gaussian over the map, in pixels; 0: none.
      image_score: 'max' or 'sum' of the map, or 'top', the mean of its largest values.
      top: the share of the pixels that these are.
      limits: (centre, width, largest) of each level; (): what was measured in training.
      normalise: 'pixel': the map is divided by what is `usual` at each place, which is ours.
      usual: as engine/usual.py has it.

    Raises:
      ValueError: a name that is none, levels that do not fall, a start above the schedule, or as
        `engine.usual.required_usual`.
    """
    require_image_score(image_score, top)
    if residual not in RESIDUALS:
        raise ValueError(f"score.residual {residual!r} must be one of {', '.join(RESIDUALS)}")
    refuse_above(denoiser.schedule, score__start=start)
    levels_of(start, steps)
    if limits and len(limits) != steps:
        raise ValueError(
            f"score.limits are of {len(limits)} levels, and score.steps {steps}: --mode=tune "
            "measures them, and () are those of the training images"
        )
    course = Course(start, steps, draws, adaptive, fusion, probe_smoothing)
    places = required_usual(normalise, usual)

    def score(variables: Variables, images: jax.Array) -> Score:
        known = limits_of(limits, variables)

        def of(images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            chains = repaired_draws(denoiser, course, variables, known, images)
            maps = jax.lax.map(lambda each: residual_map(residual, images, each), chains.repaired)
            return maps.mean(0), chains.repaired.mean(0), chains.level.mean(0)

        maps, repaired, level = in_turns(of, images)
        scored = of_map(maps, smoothing, {"top": top}, places)
        terms = {**scored.terms, "level": level}
        return scored._replace(image=terms[image_score], terms=terms, reconstruction=repaired)

    return score
