"""GLAD as a method: `denoiser` learns to repair noised images, `limits` measures what it leaves.

The network learns under the name 'denoiser'; 'averaged' is the exponential moving average of its
parameters, and what scores. The second stage goes once through the training images and learns
nothing: 'limits' is what residuals they have at each level of the score.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.chain import Limits, repair_chain, switched
from diffusion_jax.losses import Corrupt
from diffusion_jax.schedule import levels_of
from diffusion_jax.score import (
    Course,
    Denoiser,
    in_turns,
    limits_of,
    measured_limits,
    probe,
    repaired_draws,
    residual_map,
)
from engine import parallel
from engine.make import corruption_of, make
from engine.map_score import of_map
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
    average,
    descend,
    first_line,
    init_state,
    num_updates,
    refuse_batch,
    refuse_size,
    shapes_of,
)
from engine.optimizer import scheduled_optimizer
from engine.preview import pairs, previewed
from engine.usual import Cells, by_place, measured_usual


def build(config: Any, num_train: int, textures: np.ndarray | None = None) -> Method:
    """The method that `config` (see configs/glad.py) describes, for `num_train` training images.

    Args:
      config: `corruption` is a function of (textures, **fields) that gives a
        `diffusion_jax.losses.Corrupt`, such as those of `ae_jax.corruption`.
      textures: images whose content may replace that of others, uint8 [T, S, S, 3].

    Raises:
      ValueError: a section names nothing, what it names does not take its fields, the network does
        not take images of that size, a level is above the schedule's last, or there is no step.
    """
    side, section = config.data.image_size, config.training
    network: nn.Module = make(config.denoiser)
    refuse_size(side, partial(_problem, network))
    denoiser = Denoiser(network, make(config.diffusion), make(config.noise))
    corrupt: Corrupt = corruption_of(config.corruption, textures)
    refuse_batch(corrupt, section.batch_size, side)
    course = _course(config.score)
    highest = section.loss.get("levels", (len(denoiser.schedule) - 1,))[-1]
    if course.start > highest:
        raise ValueError(
            f"score.start {course.start} is above the highest level that is trained, {highest}: "
            "choose a lower one, or higher training.loss.levels"
        )

    def score_with(fields: Mapping[str, Any]) -> ScoreFn:
        score: ScoreFn = make({**config.score, **fields}, denoiser)
        return score

    def chain_with(fields: Mapping[str, Any]) -> ChainFn:
        section = {**config.score, **fields}
        return partial(_chain_pictures, denoiser, _course(section), section["limits"])

    return Method(
        stages=(
            _denoiser_stage(section, denoiser, corrupt, highest, side),
            _limits_stage(section.batch_size, num_train, denoiser, course),
        ),
        score=score_with({}),
        tuning=_tuning(config.tuning, denoiser, course, highest, score_with),
        chain=chain_with,
    )


def _problem(network: nn.Module, side: int) -> str:
    """What is wrong with images of `side` pixels; '' if nothing."""
    try:
        shapes_of(network, (1, side, side, 3), (1,))
    except (ZeroDivisionError, TypeError, ValueError) as error:
        return f"{type(network).__name__} does not take images of {side} px ({first_line(error)})"
    return ""


def _course(section: Mapping[str, Any]) -> Course:
    names = ("start", "steps", "draws", "adaptive", "fusion", "probe_smoothing")
    return Course(**{name: section[name] for name in names})


def _denoiser_stage(
    section: Any, denoiser: Denoiser, corrupt: Corrupt, highest: int, side: int
) -> Stage:
    optimizer = scheduled_optimizer(section, section.num_steps)
    loss = make(section.loss, *denoiser, corrupt)

    def init(rng: jax.Array, variables: Variables) -> TrainState:
        del variables
        network = denoiser.network.init(rng, jnp.zeros((1, side, side, 3)), jnp.ones(1))
        copy = jax.tree.map(jnp.copy, network)
        return init_state({"denoiser": network, "averaged": copy}, {"denoiser": optimizer})

    def step(state: TrainState, images: jax.Array, rng: jax.Array) -> tuple[TrainState, Metrics]:
        state, metrics = descend(loss, optimizer, "denoiser", state, images, rng)
        return average(state, section.averaging, "denoiser", "averaged"), metrics

    def checks(variables: Variables, images: jax.Array, rng: jax.Array) -> Metrics:
        averaged = {"denoiser": variables["averaged"]}
        value, aux = loss(averaged, images, rng)
        return {"loss": value, **aux.metrics}

    def corrupted(rng: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Corrupted images, the same noised to the highest level, and its noise to signal."""
        corrupt_rng, noise_rng = jax.random.split(rng)
        abar = float(denoiser.schedule[highest])
        noise = denoiser.noise(noise_rng, images.shape)
        given, _ = corrupt(corrupt_rng, images)
        noisy = abar**0.5 * given + (1 - abar) ** 0.5 * noise
        return given, noisy, jnp.full(images.shape[0], ((1 - abar) / abar) ** 0.5)

    def pictures(variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
        given, noisy, ratio = corrupted(jax.random.key(0), images)
        restored = denoiser.of(variables)(noisy, ratio)
        return {"restored": jnp.concatenate([images, given, noisy, restored], axis=2)}

    def preview(images: jax.Array, rng: jax.Array) -> jax.Array:
        given, noisy, _ = corrupted(rng, previewed(images))
        return pairs(given, noisy)

    return Stage(
        "denoiser",
        init,
        step,
        section.num_steps,
        (section.batch_size,),
        pictures,
        checks=checks,
        preview=preview,
    )


def _limits_stage(batch_size: int, num_train: int, denoiser: Denoiser, course: Course) -> Stage:
    """Once through the training images: the mean of the batches' centres and widths."""

    def init(rng: jax.Array, variables: Variables) -> TrainState:
        del rng
        none = Limits(*(jnp.zeros(course.steps) for _ in Limits._fields))
        return TrainState(jnp.zeros((), jnp.int32), {**variables, "limits": none._asdict()}, {})

    def step(state: TrainState, images: jax.Array, rng: jax.Array) -> tuple[TrainState, Metrics]:
        del rng
        # Each device sees all images, so that their quantiles do not depend on its number.
        seen = measured_limits(denoiser, course, state.variables, parallel.gather(images))
        seen = parallel.mean(seen)
        old, share = Limits(**state.variables["limits"]), 1 / (state.step + 1)
        limits = Limits(
            old.centre + share * (seen.centre - old.centre),
            old.width + share * (seen.width - old.width),
            jnp.maximum(old.largest, seen.largest),
        )
        variables = {**state.variables, "limits": limits._asdict()}
        metrics = {"centre": limits.centre[0], "largest": limits.largest[0]}
        return dataclasses.replace(state, variables=variables), metrics

    def pictures(variables: Variables, images: jax.Array) -> dict[str, jax.Array]:
        shown = _chain_pictures(denoiser, course, (), variables, images)
        return {"chain": jnp.concatenate([*shown.values()], axis=2)}

    return Stage(
        "limits", init, step, num_updates(1, num_train, batch_size), (batch_size,), pictures
    )


def _chain_pictures(
    denoiser: Denoiser, course: Course, limits: Any, variables: Variables, images: jax.Array
) -> dict[str, jax.Array]:
    """The first draw's chain, step by step: caption -> [B, H, W, C]."""
    levels = levels_of(course.start, course.steps)
    known = limits_of(limits, variables)
    known = switched(known, adaptive=course.adaptive, fusion=course.fusion)
    noise = denoiser.draw(0, images.shape)
    chain = repair_chain(
        denoiser.of(variables),
        denoiser.schedule,
        levels,
        known,
        partial(probe, sigma=course.probe_smoothing),
        images,
        noise,
    )
    abar = float(denoiser.schedule[levels[0]])
    mask = jnp.repeat(2 * chain.mask[..., None] - 1, images.shape[-1], axis=-1)
    estimates = zip(levels, chain.frames, strict=True)
    return {
        "image": images,
        f"noised to {levels[0]}": abar**0.5 * images + (1 - abar) ** 0.5 * noise,
        **{f"estimate at {level}": frame for level, frame in estimates},
        "share of the chain": mask,
        "repaired": chain.repaired,
    }


def _tuning(
    section: Any,
    denoiser: Denoiser,
    course: Course,
    highest: int,
    score_with: Any,
    limits: Mapping[tuple[int, int], Limits] | None = None,
    usual: Sequence[Cells] = (),
) -> Tuning:
    """Each start, number of steps and of draws, residual and smoothing, and each image score.

    And each map over what is `usual` of it or not.

    Starts above the `highest` level that is trained are left out, and so are steps without a level;
    where none is left, the config's own stay. Before good images' residuals are measured chains
    neither adapt nor fuse.
    """
    named = dict.fromkeys(itertools.product(section.starts, section.steps))
    ways = [way for way in named if _is_course(way, highest)] or [(course.start, course.steps)]
    most = max(section.noise_draws)
    tops = {f"top {share}": share for share in section.tops}
    given = {way: _fields(limits[way] if limits else None) for way in ways}
    kinds = [
        {
            **dict(zip(("start", "steps"), way, strict=True)),
            **given[way],
            "draws": draws,
            "residual": residual,
            "smoothing": sigma,
        }
        for way in ways
        for residual in section.residuals
        for draws in section.noise_draws
        for sigma in section.smoothing
    ]
    normalise = section.get("normalise", ("none",))
    settings, constants = by_place(kinds, normalise, usual)

    def maps_of(variables: Variables, images: jax.Array) -> list[jax.Array]:
        """Maps [B, H, W] in the order of the settings; each chain is run once."""
        maps: list[jax.Array] = []
        for way in ways:
            mine = course._replace(start=way[0], steps=way[1], draws=most)
            known = limits[way] if limits else Limits(*(jnp.zeros(way[1]),) * 3)
            if not limits:
                mine = mine._replace(adaptive=False, fusion=False)
            repaired = repaired_draws(denoiser, mine, variables, known, images).repaired
            for name in section.residuals:
                each = jax.lax.map(partial(residual_map, name, images), repaired)
                maps.extend(each[:draws].mean(0) for draws in section.noise_draws)
        return maps

    def scores(variables: Variables, images: jax.Array) -> tuple[Score, ...]:
        maps = in_turns(partial(maps_of, variables), images)
        each = [(values, sigma) for values in maps for sigma in section.smoothing]
        return tuple(
            of_map(values, sigma, tops, more.get("usual", ()))
            for (values, sigma), more in zip(each * len(normalise), constants, strict=True)
        )

    def measured(variables: Variables, images: jax.Array, training: jax.Array) -> Tuning:
        def of(way: tuple[int, int]) -> Limits:
            mine = course._replace(start=way[0], steps=way[1], draws=most)
            return Limits(*jax.jit(partial(measured_limits, denoiser, mine))(variables, images))

        known = {way: of(way) for way in ways}
        with_limits = partial(_tuning, section, denoiser, course, highest, score_with, known)

        def plain_maps(variables: Variables, images: jax.Array) -> list[jax.Array]:
            # Before anything is known to be usual all normalisations are alike.
            return [score.map for score in with_limits().scores(variables, images)[: len(kinds)]]

        if "pixel" not in normalise:
            return with_limits()
        return with_limits(measured_usual(plain_maps, variables, training))

    return Tuning(
        corrupt=None,
        settings=settings,
        rules={
            "max": {"image_score": "max"},
            **{name: {"image_score": "top", "top": share} for name, share in tops.items()},
            "sum": {"image_score": "sum"},
        },
        scores=scores,
        score=score_with,
        measured=measured,
        constants=constants,
    )


def _is_course(way: tuple[int, int], highest: int) -> bool:
    """Whether each step from start down has a level, of those that are trained."""
    try:
        levels_of(*way)
    except ValueError:
        return False
    return way[0] <= highest


def _fields(limits: Limits | None) -> dict[str, Any]:
    """Of the section `score`."""
    if limits is None:
        return {"adaptive": False, "fusion": False}
    triples = np.stack([np.asarray(each) for each in limits], axis=1)
    return {"limits": tuple(tuple(map(float, triple)) for triple in triples)}
